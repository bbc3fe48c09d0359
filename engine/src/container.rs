//! Containers: what was asked, what runs, and the process that watches over each.

pub mod capabilities;
pub mod cgroup;
pub mod client;
pub mod exec;
mod failure;
mod handshake;
mod init;
pub mod launch;
pub mod logs;
pub mod merge;
mod namespaces;
pub mod plan;
mod privileges;
mod program;
mod reaper;
pub mod record;
mod rootfs;
pub mod seccomp;
pub mod spec;
pub mod state;
mod users;
