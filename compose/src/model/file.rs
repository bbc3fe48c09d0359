//! Secrets and configurations, and how a service sees them.

use std::collections::BTreeMap;

use engine::id::Digest;
use serde::{Deserialize, Serialize};

use super::form;
use super::form::is_default;

/// A secret or a configuration: one source of bytes. Exactly one of `file`, `environment`, `content` and
/// `external` is set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileObject {
    /// Its real name, `<project>_<key>` unless given.
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    /// The file with the bytes, an absolute path.
    #[serde(skip_serializing_if = "is_default")]
    pub file: Option<String>,
    /// The variable of the project's environment with the bytes.
    #[serde(skip_serializing_if = "is_default")]
    pub environment: Option<String>,
    /// The bytes themselves (configurations only).
    #[serde(skip_serializing_if = "is_default")]
    pub content: Option<String>,
    /// Whether it must exist already.
    #[serde(skip_serializing_if = "is_default")]
    pub external: bool,
    /// Its labels.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// Its driver.
    #[serde(skip_serializing_if = "is_default")]
    pub driver: Option<String>,
    /// Options of the driver.
    #[serde(skip_serializing_if = "is_default")]
    pub driver_opts: BTreeMap<String, String>,
    /// The driver of templates in it.
    #[serde(skip_serializing_if = "is_default")]
    pub template_driver: Option<String>,
    /// The bytes of the variable `environment` names, if it was set when the project was loaded. Never written out.
    #[serde(skip)]
    pub value: Option<String>,
    /// The digest of what it holds, when that can be read.
    #[serde(skip)]
    pub digest: Option<Digest>,
}

/// A secret or configuration as one service sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileReference {
    /// Its key under `secrets` or `configs`.
    #[serde(skip_serializing_if = "is_default")]
    pub source: String,
    /// Where it appears; a secret's relative target is under /run/secrets, a configuration's default is `/<source>`.
    #[serde(skip_serializing_if = "is_default")]
    pub target: Option<String>,
    /// Its owner; 0 when `None`.
    #[serde(skip_serializing_if = "is_default")]
    pub uid: Option<String>,
    /// Its group; 0 when `None`.
    #[serde(skip_serializing_if = "is_default")]
    pub gid: Option<String>,
    /// Its permission bits; 0444 when `None`.
    #[serde(skip_serializing_if = "is_default", serialize_with = "form::mode")]
    pub mode: Option<u32>,
}
