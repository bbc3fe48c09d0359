//! Commands at moments of a container's life.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::form::is_default;

/// A command run in a container at some moment of its life.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// The program and its arguments.
    pub command: Option<Vec<String>>,
    /// As whom.
    #[serde(skip_serializing_if = "is_default")]
    pub user: Option<String>,
    /// Everything the engine may do.
    #[serde(skip_serializing_if = "is_default")]
    pub privileged: bool,
    /// Where.
    #[serde(skip_serializing_if = "is_default")]
    pub working_dir: Option<String>,
    /// Further environment variables.
    #[serde(skip_serializing_if = "is_default")]
    pub environment: BTreeMap<String, Option<String>>,
}

/// An init container: runs to its end between create and start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PreStart {
    /// The program and its arguments; the image's when `None`.
    pub command: Option<Vec<String>>,
    /// The image; the service's when `None`.
    #[serde(skip_serializing_if = "is_default")]
    pub image: Option<String>,
    /// As whom.
    #[serde(skip_serializing_if = "is_default")]
    pub user: Option<String>,
    /// Everything the engine may do.
    #[serde(skip_serializing_if = "is_default")]
    pub privileged: bool,
    /// Where.
    #[serde(skip_serializing_if = "is_default")]
    pub working_dir: Option<String>,
    /// Further environment variables.
    #[serde(skip_serializing_if = "is_default")]
    pub environment: BTreeMap<String, Option<String>>,
    /// Whether it runs once for each container instead of once.
    #[serde(skip_serializing_if = "is_default")]
    pub per_replica: bool,
}
