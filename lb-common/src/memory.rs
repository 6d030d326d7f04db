//! Tables in ordinary memory.
