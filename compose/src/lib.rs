//! The Compose Specification on the engine: load, plan, execute, watch.

pub mod bake;
pub mod build;
pub mod canonical;
pub mod cause;
pub mod cli;
pub mod contents;
pub mod convert;
pub mod desired;
pub mod diagnostic;
pub mod document;
pub mod execute;
pub mod graph;
pub mod labels;
pub mod load;
pub mod model;
pub mod names;
pub mod observe;
pub mod operation;
pub mod output;
pub mod plan;
mod provision;
pub mod published;
pub mod remote;
pub mod repository;
pub mod runtime;
pub mod translate;
pub mod watch;

mod consistency;
mod discover;
mod dotenv;
mod env_file;
mod environment;
mod extends;
mod home;
mod impossible;
mod include;
mod indentation;
mod interpolate;
#[cfg(test)]
mod keys;
mod merge;
mod normalize;
mod paths;
mod position;
mod schema;
mod session;
mod shorthand;
mod syntax;
mod unheeded;
mod value;
mod written;
mod yaml;

pub use diagnostic::{Diagnostic, Diagnostics};
pub use load::{LoadOptions, Loaded, load};
pub use model::Project;
