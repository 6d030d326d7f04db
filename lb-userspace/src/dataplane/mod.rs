//! Loading, pinning, attaching.
