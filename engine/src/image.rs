//! Images: names, configurations and layers.

pub mod config;
