//! The planner against memory: text, restarts, faults, limits.

mod build;
mod dumps;
mod limits;
mod restarts;
mod steps;
