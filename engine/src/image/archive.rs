//! Images as one file: `save` writes an OCI layout that docker reads too, `load` reads both worlds' archives.

use std::io;

use serde::{Deserialize, Serialize};

use crate::image::Reference;
use crate::image::manifest::{Descriptor, ManifestError};

mod load;
mod save;

/// Why an archive was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The tar itself.
    #[error("read the archive")]
    Tar(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It is something else.
    #[error("the archive is neither docker's nor an OCI layout: it has no manifest.json and no index.json")]
    NoImages,
    /// Something it refers to is not in it.
    #[error("the archive has no {0:?}")]
    Missing(String),
    /// Something in it is not what it says.
    #[error("{path:?} in the archive {reason}")]
    Damaged {
        /// What.
        path: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A JSON file in it.
    #[error("read {path:?} in the archive")]
    Json {
        /// Which.
        path: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A manifest in it.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Writing it.
    #[error("write the archive")]
    Write(#[source] io::Error),
}

/// One image of docker's `manifest.json` (moby image/tarexport).
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default, deserialize_with = "crate::image::config::null_is_default")]
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

const BLOBS: &str = "blobs/sha256/";

/// containerd's annotation with an image's whole name.
const NAME_ANNOTATION: &str = "io.containerd.image.name";

/// OCI's annotation with an image's tag, or whatever its writer takes for one.
const TAG_ANNOTATION: &str = "org.opencontainers.image.ref.name";

/// The name an entry of a layout gives its image. A bare word is a tag of nothing and names nothing.
fn name_of(entry: &Descriptor) -> Option<Reference> {
    let annotations = entry.annotations.as_ref()?;
    let name = annotations
        .get(NAME_ANNOTATION)
        .or_else(|| annotations.get(TAG_ANNOTATION).filter(|name| name.contains([':', '/'])))?;
    name.parse().ok()
}
