//! What a service waits for in another one.

use serde::{Deserialize, Serialize};

use super::form;
use super::form::is_default;

/// One service another one waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// What is waited for.
    #[serde(default)]
    pub condition: Condition,
    /// Whether the dependent is restarted after the dependency was.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restart: bool,
    /// Whether it is an error when the dependency is missing or fails.
    #[serde(default = "form::yes")]
    pub required: bool,
}

/// What is waited for in a dependency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Its containers run.
    #[default]
    #[serde(rename = "service_started")]
    Started,
    /// Its containers are healthy.
    #[serde(rename = "service_healthy")]
    Healthy,
    /// Its containers ended with exit code 0.
    #[serde(rename = "service_completed_successfully")]
    CompletedSuccessfully,
}

// === impl Dependency ===

impl Default for Dependency {
    fn default() -> Self {
        Self { condition: Condition::Started, restart: false, required: true }
    }
}
