//! The maps behind one trait: kernel, memory, and one that fails on purpose.
