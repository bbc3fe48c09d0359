//! The Compose Specification on the engine: load, plan, execute, watch.

pub mod canonical;
pub mod diagnostic;
pub mod load;
pub mod model;

pub use diagnostic::{Diagnostic, Diagnostics};
pub use load::{LoadOptions, Loaded, load};
pub use model::Project;
