//! Language models.

use serde::{Deserialize, Serialize};

use super::form::is_default;

/// A language model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Model {
    /// Its real name.
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    /// Which one.
    #[serde(skip_serializing_if = "is_default")]
    pub model: String,
    /// Tokens of context.
    #[serde(skip_serializing_if = "is_default")]
    pub context_size: i64,
    /// Flags of the program that runs it.
    #[serde(skip_serializing_if = "is_default")]
    pub runtime_flags: Vec<String>,
}

/// How a service finds a language model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServiceModel {
    /// The variable with its address.
    #[serde(skip_serializing_if = "is_default")]
    pub endpoint_var: Option<String>,
    /// The variable with its name.
    #[serde(skip_serializing_if = "is_default")]
    pub model_var: Option<String>,
}
