//! What compose does, told as its users see it: every story runs the real program on real containers.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod commands;
mod depends;
mod devices;
mod examples;
mod fault;
mod follow;
mod home;
mod hooks;
mod keys;
mod kill;
mod lists;
mod menu;
mod print;
mod provision;
mod publish;
mod refused;
mod repository;
mod rollback;
mod settings;
mod up;
mod update;
mod verbs;
mod watch;
mod world;
