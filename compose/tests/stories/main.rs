//! What compose does, told as its users see it: every story runs the real program on real containers.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod commands;
mod depends;
mod examples;
mod fault;
mod keys;
mod refused;
mod up;
mod update;
mod watch;
mod world;
