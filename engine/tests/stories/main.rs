//! What the engine does, told as its users see it: every story runs the real program in a world of its own.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod attach;
mod build;
mod cache;
mod cgroup;
mod context;
mod copy;
mod damage;
mod differential;
mod events;
mod exec;
mod fault;
mod freeze;
mod image;
mod kill;
mod lesson;
mod limits;
mod list;
mod logs;
mod network;
mod oci;
mod options;
mod output;
mod platforms;
mod race;
mod reboot;
mod registry;
mod rootless;
mod run;
mod security;
mod stats;
mod terminal;
mod uml;
mod users;
mod volume;
mod world;
