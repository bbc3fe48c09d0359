//! From a commit to running servers: build, send, prepare, flip, drain; on one host or many.

pub mod cli;
pub mod protocol;
pub mod transfer;
