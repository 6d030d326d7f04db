//! The user side of `lb`: Services and endpoints in, maps out.

pub mod model;
