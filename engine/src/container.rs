//! Containers: what was asked, what runs, and the process that watches over each.

pub mod capabilities;
pub mod cgroup;
pub mod client;
pub mod exec;
pub mod launch;
pub mod logs;
pub mod merge;
pub mod plan;
pub mod record;
pub mod seccomp;
pub mod spec;
pub mod state;
