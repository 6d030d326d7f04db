//! Balancing at sockets, end to end: threads in a cgroup of the test's own dial Services. Needs root and cgroup2.

mod connect;
mod datagrams;
mod life;
mod policies;
mod world;
