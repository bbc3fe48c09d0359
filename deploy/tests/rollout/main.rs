//! What a rollout does to those who are served meanwhile, told on hosts that are engines of their own on this machine.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod builder;
mod canary;
mod cut;
mod daily;
mod datagrams;
mod fleet;
mod jobs;
mod load;
mod partial;
mod rest;
mod serve;
mod sick;
mod versions;
mod world;
