//! Artifacts: files at a registry that make no image (OCI image-spec 1.1, "Guidelines for artifact usage").

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::Digest;
use crate::image::credentials;
use crate::image::manifest::{Descriptor, OCI_MANIFEST};
use crate::image::registry::{RegistryError, Repository, runtime};
use crate::image::{ImageError, Images, Reference};

/// Files at a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// What they are together, as a media type.
    pub kind: String,
    /// The media type of its configuration, for registries that know no kinds of artifacts (OCI 1.0): that says what it
    /// is. `None` for a manifest of OCI 1.1, which names the kind.
    pub config: Option<String>,
    /// The files, in order.
    pub files: Vec<ArtifactFile>,
}

/// One file of an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactFile {
    /// What it is.
    pub media_type: String,
    /// What is said of it.
    pub annotations: BTreeMap<String, String>,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The configuration of what needs none: `{}`.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// A manifest that is not an image's.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArtifactManifest {
    schema_version: u32,
    media_type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

// === impl Images ===

impl Images {
    /// Sends files to a registry under a name; the digest of their manifest.
    ///
    /// # Errors
    /// When the registry does not take them.
    pub fn push_artifact(&self, reference: &Reference, artifact: &Artifact) -> Result<Digest, ImageError> {
        let credentials = credentials::find(reference.registry(), reference.repository())?;
        let layers = artifact.files.iter().map(|file| {
            let annotations = Some(file.annotations.clone()).filter(|annotations| !annotations.is_empty());
            descriptor(&file.media_type, &file.bytes, annotations)
        });
        let manifest = ArtifactManifest {
            schema_version: 2,
            media_type: OCI_MANIFEST.to_owned(),
            artifact_type: artifact.config.is_none().then(|| artifact.kind.clone()),
            config: descriptor(artifact.config.as_deref().unwrap_or(EMPTY), b"{}", None),
            layers: layers.collect(),
            annotations: BTreeMap::from([(
                "org.opencontainers.image.created".to_owned(),
                jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            )]),
        };
        let raw = serde_json::to_vec(&manifest).unwrap_or_default();
        Ok(runtime(reference.registry())?.block_on(async {
            let repository = Repository::open(reference, "pull,push", credentials, &[]).await?;
            for bytes in artifact.files.iter().map(|file| file.bytes.as_slice()).chain([&b"{}"[..]]) {
                repository.upload_small(bytes).await?;
            }
            repository.put_manifest(reference.wanted(), OCI_MANIFEST, &raw).await?;
            Ok::<_, RegistryError>(Digest::of(&raw))
        })?)
    }

    /// Fetches the files that stand at a registry under a name; `None` when what stands there is something else.
    ///
    /// # Errors
    /// When there is nothing of that name, or it does not come whole.
    pub fn fetch_artifact(
        reference: &Reference,
        kinds: &[&str],
    ) -> Result<Option<(Digest, Artifact)>, ImageError> {
        let credentials = credentials::find(reference.registry(), reference.repository())?;
        Ok(runtime(reference.registry())?.block_on(async {
            let repository = Repository::open(reference, "pull", credentials, &[]).await?;
            let fetched = repository.manifest(reference.wanted()).await?;
            let Ok(manifest) = serde_json::from_slice::<ArtifactManifest>(&fetched.bytes) else {
                return Ok(None);
            };
            // Before OCI 1.1 the configuration said what the whole is.
            let kind = manifest.artifact_type.filter(|kind| !kind.is_empty());
            let kind = kind.unwrap_or(manifest.config.media_type);
            if !kinds.contains(&kind.as_str()) {
                return Ok(None);
            }
            let mut files = Vec::new();
            for layer in manifest.layers {
                files.push(ArtifactFile {
                    bytes: repository.small_blob(&layer.digest).await?,
                    media_type: layer.media_type,
                    annotations: layer.annotations.unwrap_or_default(),
                });
            }
            Ok::<_, RegistryError>(Some((fetched.digest, Artifact { kind, config: None, files })))
        })?)
    }
}

fn descriptor(media_type: &str, bytes: &[u8], annotations: Option<BTreeMap<String, String>>) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        urls: Vec::new(),
        platform: None,
        annotations,
    }
}
