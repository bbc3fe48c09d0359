//! The only room with unsafe code: kernel calls that no crate offers, as safe functions.

pub(crate) mod bpf;
#[cfg(all(target_env = "musl", target_arch = "x86_64"))]
mod bytes;
pub(crate) mod detached;
pub(crate) mod filter;
#[cfg(target_env = "musl")]
mod heap;
pub(crate) mod listener;
pub(crate) mod loopback;
pub(crate) mod mount;
pub(crate) mod netlink;
pub(crate) mod notice;
pub(crate) mod pidfd;
pub(crate) mod pipe;
pub(crate) mod process;
pub(crate) mod readiness;
pub(crate) mod self_exec;
pub(crate) mod title;
