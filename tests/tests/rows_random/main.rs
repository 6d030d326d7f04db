//! Random services and packets: properties of the host engine, and the kernel programs against it.

mod actions;
mod differential;
mod properties;
mod world;
