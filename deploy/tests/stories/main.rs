//! Stories of servers: each a network namespace with an sshd, a process tree and an engine of its own.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod action;
mod builder;
mod deploy;
mod kept;
mod leak;
mod leave;
mod matrix;
mod readme;
mod server;
mod single;
mod ssh;
