//! Images on their way from one engine to another, over real channels between real stores.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod difference;
mod kill;
mod lies;
mod resume;
mod tree;
mod whole;
mod world;
