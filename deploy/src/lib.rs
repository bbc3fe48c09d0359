//! From a commit to running servers: build, send, prepare, flip, drain; on one host or many.

pub mod agent;
pub mod build;
pub mod builder;
pub mod canary;
pub mod cli;
pub mod commit;
mod context;
pub mod destination;
pub mod executable;
pub mod fleet;
pub mod freeze;
pub mod heir;
pub mod hooks;
pub mod host;
pub mod message;
pub mod parcel;
pub mod partial;
pub mod pipeline;
pub mod project;
pub mod protocol;
pub mod release;
pub mod secrets;
pub mod settings;
pub mod ssh;
pub mod transfer;
mod walk;
pub mod watch;
