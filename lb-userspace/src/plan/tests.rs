//! The planner against memory: text, restarts, faults, limits.

mod build;
mod dumps;
mod filter;
mod limits;
mod restarts;
mod steps;
