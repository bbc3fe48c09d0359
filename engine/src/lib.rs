//! A container engine without a daemon: images, builds, containers, networks and volumes.

pub mod builder;
pub mod cli;
pub mod container;
pub mod engine;
pub mod error;
pub mod event;
pub mod id;
pub mod image;
pub mod layer;
pub mod network;
pub mod oci;
pub mod paths;
pub mod quantity;
pub mod rootless;
pub mod signal;
pub mod store;
mod sys;
pub mod volume;

pub use engine::{Container, Created, Engine, RemoveOptions, StopOptions, enter_monitor_if_asked};
pub use error::{Error, Kind, Result};
pub use paths::Root;
pub use sys::self_exec::inherited as inherited_descriptor;
