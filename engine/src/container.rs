//! Containers: what was asked, what runs, and the process that watches over each.

pub mod merge;
pub mod spec;
pub mod state;
