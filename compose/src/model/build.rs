//! How an image is built.

use std::collections::BTreeMap;

use engine::quantity::ByteSize;
use serde::{Deserialize, Serialize};

use super::form;
use super::form::is_default;
use super::{FileReference, Ulimit};

/// How an image is built.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Build {
    /// The context: an absolute directory, a URL, or `-`.
    #[serde(skip_serializing_if = "is_default")]
    pub context: Option<String>,
    /// The Dockerfile, relative to the context.
    #[serde(skip_serializing_if = "is_default")]
    pub dockerfile: Option<String>,
    /// The Dockerfile's text.
    #[serde(skip_serializing_if = "is_default")]
    pub dockerfile_inline: Option<String>,
    /// Extra privileges of the build.
    #[serde(skip_serializing_if = "is_default")]
    pub entitlements: Vec<String>,
    /// Build arguments; `None` means not given.
    #[serde(skip_serializing_if = "is_default")]
    pub args: BTreeMap<String, Option<String>>,
    /// Provenance attestation.
    #[serde(skip_serializing_if = "is_default")]
    pub provenance: Option<String>,
    /// Bill of materials.
    #[serde(skip_serializing_if = "is_default")]
    pub sbom: Option<String>,
    /// SSH agents or keys, by id; the path is empty for the default agent.
    #[serde(skip_serializing_if = "is_default", serialize_with = "form::ssh")]
    pub ssh: BTreeMap<String, String>,
    /// Labels of the image.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// Where cached layers are looked for.
    #[serde(skip_serializing_if = "is_default")]
    pub cache_from: Vec<String>,
    /// Where cached layers are put.
    #[serde(skip_serializing_if = "is_default")]
    pub cache_to: Vec<String>,
    /// Whether nothing is taken from the cache.
    #[serde(skip_serializing_if = "is_default")]
    pub no_cache: bool,
    /// Stages that are not taken from the cache.
    #[serde(skip_serializing_if = "is_default")]
    pub no_cache_filter: Vec<String>,
    /// Further contexts, by name.
    #[serde(skip_serializing_if = "is_default")]
    pub additional_contexts: BTreeMap<String, String>,
    /// Whether base images are always pulled.
    #[serde(skip_serializing_if = "is_default")]
    pub pull: bool,
    /// Lines of /etc/hosts for RUN, `name=address`.
    #[serde(skip_serializing_if = "is_default")]
    pub extra_hosts: Vec<String>,
    /// Isolation technology.
    #[serde(skip_serializing_if = "is_default")]
    pub isolation: Option<String>,
    /// The network of RUN.
    #[serde(skip_serializing_if = "is_default")]
    pub network: Option<String>,
    /// The stage to build.
    #[serde(skip_serializing_if = "is_default")]
    pub target: Option<String>,
    /// Secrets of RUN.
    #[serde(skip_serializing_if = "is_default")]
    pub secrets: Vec<FileReference>,
    /// Size of /dev/shm for RUN.
    #[serde(skip_serializing_if = "is_default", serialize_with = "form::bytes")]
    pub shm_size: ByteSize,
    /// Further names of the image.
    #[serde(skip_serializing_if = "is_default")]
    pub tags: Vec<String>,
    /// Limits per process for RUN.
    #[serde(skip_serializing_if = "is_default")]
    pub ulimits: BTreeMap<String, Ulimit>,
    /// Platforms to build for.
    #[serde(skip_serializing_if = "is_default")]
    pub platforms: Vec<String>,
    /// Everything the engine may do, for RUN.
    #[serde(skip_serializing_if = "is_default")]
    pub privileged: bool,
}
