//! Manifests and indexes of both families, OCI's and docker's (OCI image-spec manifest.md, image-index.md; docker
//! image manifest version 2, schema 2).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::Digest;
use crate::image::platform::Platform;
use crate::layer::Compression;

/// OCI's image manifest.
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI's index.
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI's configuration.
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Docker's image manifest.
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's index.
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker's configuration.
pub(crate) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// The largest configuration and manifest read (distribution-spec, "Pushing manifests": registries take 4 MiB).
pub(crate) const MOST_JSON: u64 = 4 << 20;

/// What is asked for: everything that is understood.
pub(crate) const ACCEPTED: [&str; 4] = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];

/// A blob or manifest by its address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) urls: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Box<DescriptorPlatform>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

/// The platform of an index's entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DescriptorPlatform {
    pub(crate) os: String,
    pub(crate) architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) variant: Option<String>,
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub(crate) os_version: Option<String>,
    #[serde(default, rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub(crate) os_features: Vec<String>,
}

/// One image: its configuration and its layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    pub(crate) media_type: String,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

/// One image for several platforms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    pub(crate) schema_version: u32,
    pub(crate) media_type: String,
    pub(crate) manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

/// What an address turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Index),
}

/// Why a document is not an image.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON of the right form.
    #[error("the manifest cannot be read")]
    Json(#[from] serde_json::Error),
    /// The first generation of manifests.
    #[error("the manifest is of docker's schema 1, which nobody should use any more")]
    SchemaOne,
    /// The parts say different things.
    #[error("the manifest {0}")]
    Contradiction(&'static str),
    /// Something else that registries keep.
    #[error("it is not an image but {0}")]
    NotAnImage(String),
    /// A layer's tar that is called by another digest than layers are kept by.
    #[error("the configuration calls a layer's content {0}, and layers are known by their sha256 alone")]
    DiffId(Digest),
    /// The index has no entry for the platform.
    #[error("there is no image for {wanted}; there are {offered}")]
    NoPlatform {
        /// Wanted.
        wanted: Platform,
        /// Offered.
        offered: String,
    },
}

/// The fields that tell documents apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    artifact_type: Option<String>,
    config: Option<serde_json::Value>,
    layers: Option<Vec<serde_json::Value>>,
    manifests: Option<Vec<serde_json::Value>>,
}

// === impl Document ===

impl Document {
    /// Reads a manifest or an index. The content decides; a media type, whether in it or sent along with it, may
    /// not contradict (CVE-2021-41190).
    pub(crate) fn parse(bytes: &[u8], sent_type: Option<&str>) -> Result<Self, ManifestError> {
        let probe: Probe = serde_json::from_slice(bytes)?;
        if probe.schema_version == 1 {
            return Err(ManifestError::SchemaOne);
        }
        let sent_type = sent_type.filter(|sent| ACCEPTED.contains(sent));
        let said = probe.media_type.as_deref();
        if let (Some(said), Some(sent)) = (said, sent_type)
            && said != sent
        {
            return Err(ManifestError::Contradiction("has another media type than it was sent with"));
        }
        let media_type = said.or(sent_type);
        let is_index = matches!(media_type, Some(OCI_INDEX | DOCKER_LIST));
        let is_manifest = matches!(media_type, Some(OCI_MANIFEST | DOCKER_MANIFEST));
        match (probe.manifests, probe.layers, probe.config) {
            (Some(_), None, None) if !is_manifest => {
                let mut index: IndexAsRead = serde_json::from_slice(bytes)?;
                let media_type = media_type.unwrap_or(OCI_INDEX).to_owned();
                index.manifests.retain(|entry| !entry.is_attestation());
                let mut read = Index::oci(index.manifests);
                read.media_type = media_type;
                Ok(Self::Index(read))
            }
            (None, Some(_), Some(_)) if !is_index => {
                let manifest: ManifestAsRead = serde_json::from_slice(bytes)?;
                let config_type = manifest.config.media_type.as_str();
                if !matches!(config_type, OCI_CONFIG | DOCKER_CONFIG | "") {
                    let what = probe.artifact_type.unwrap_or_else(|| config_type.to_owned());
                    return Err(ManifestError::NotAnImage(what));
                }
                let media_type = media_type.unwrap_or(OCI_MANIFEST).to_owned();
                let mut read = Manifest::oci(manifest.config, manifest.layers);
                read.media_type = media_type;
                Ok(Self::Manifest(read))
            }
            _ => Err(ManifestError::Contradiction("is neither an image nor an index, or both")),
        }
    }
}

#[derive(Deserialize)]
struct IndexAsRead {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct ManifestAsRead {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

// === impl Index ===

impl Index {
    /// An index of OCI's family.
    pub(crate) fn oci(manifests: Vec<Descriptor>) -> Self {
        Self { schema_version: 2, media_type: OCI_INDEX.to_owned(), manifests, annotations: None }
    }

    /// The entry that serves this platform best. An entry that names no platform serves all, at last.
    pub(crate) fn choose(&self, wanted: &Platform) -> Result<&Descriptor, ManifestError> {
        let rank = |entry: &Descriptor| match &entry.platform {
            Some(platform) => wanted.rank(&platform.to_platform()).map(|rank| rank + 1),
            None => Some(0),
        };
        // The first of equals, as docker chooses.
        let best = self
            .manifests
            .iter()
            .rev()
            .filter_map(|entry| Some((rank(entry)?, entry)))
            .max_by_key(|(rank, _)| *rank);
        best.map(|(_, entry)| entry)
            .ok_or_else(|| ManifestError::NoPlatform { wanted: wanted.clone(), offered: self.offered() })
    }

    fn offered(&self) -> String {
        let names: Vec<String> = (self.manifests.iter())
            .filter_map(|entry| Some(entry.platform.as_ref()?.to_platform().to_string()))
            .collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }
}

// === impl Manifest ===

impl Manifest {
    /// A manifest of OCI's family.
    pub(crate) fn oci(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self { schema_version: 2, media_type: OCI_MANIFEST.to_owned(), config, layers, annotations: None }
    }
}

// === impl Descriptor ===

impl Descriptor {
    pub(crate) fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        let media_type = media_type.to_owned();
        Self { media_type, digest, size, urls: Vec::new(), platform: None, annotations: None }
    }

    /// The same with the platform it is for.
    pub(crate) fn on(mut self, platform: &Platform) -> Self {
        self.platform = Some(Box::new(DescriptorPlatform {
            os: platform.os.clone(),
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone(),
            ..DescriptorPlatform::default()
        }));
        self
    }

    /// A layer's blob.
    pub(crate) fn layer(compression: Compression, digest: Digest, size: u64) -> Self {
        Self::new(compression.media_type(), digest, size)
    }

    /// Whether it only says something about another entry.
    pub(crate) fn is_attestation(&self) -> bool {
        let is_unknown = self
            .platform
            .as_ref()
            .is_some_and(|platform| platform.os == "unknown" && platform.architecture == "unknown");
        let refers =
            self.annotations.as_ref().is_some_and(|notes| notes.contains_key("vnd.docker.reference.type"));
        is_unknown || refers
    }

    /// Whether only its vendor may hand it out, at addresses of his own (image-spec, layer.md, "Non-Distributable Layers").
    /// One without an address has nowhere else to be.
    pub(crate) fn is_foreign(&self) -> bool {
        !self.urls.is_empty()
            && (self.media_type.contains("nondistributable") || self.media_type.contains("foreign"))
    }

    /// The manifest of which an attestation says something.
    pub(crate) fn subject(&self) -> Option<Digest> {
        self.annotations.as_ref()?.get("vnd.docker.reference.digest")?.parse().ok()
    }
}

// === impl DescriptorPlatform ===

impl DescriptorPlatform {
    pub(crate) fn to_platform(&self) -> Platform {
        Platform::new(&self.os, &self.architecture, self.variant.as_deref())
    }
}

/// The media type of any index, where it says one, and all that it lists, attestations too.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Listing {
    pub(crate) media_type: Option<String>,
    #[serde(rename = "manifests")]
    pub(crate) entries: Vec<Descriptor>,
}

/// What an index lists; `None` when it is none.
pub(crate) fn listing(bytes: &[u8]) -> Result<Option<Listing>, ManifestError> {
    let probe: Probe = serde_json::from_slice(bytes)?;
    match probe.manifests {
        Some(_) => Ok(Some(serde_json::from_slice(bytes)?)),
        None => Ok(None),
    }
}

/// The configuration and the layers of any manifest, an image's or not.
pub(crate) fn parts(bytes: &[u8]) -> Result<Vec<Descriptor>, ManifestError> {
    let manifest: ManifestAsRead = serde_json::from_slice(bytes)?;
    Ok(std::iter::once(manifest.config).chain(manifest.layers).collect())
}

/// The blobs a manifest names: its configuration and its layers. Empty for what cannot be read.
pub(crate) fn blobs(bytes: &[u8]) -> Vec<Digest> {
    match Document::parse(bytes, None) {
        Ok(Document::Manifest(manifest)) => {
            manifest.layers.into_iter().chain([manifest.config]).map(|blob| blob.digest).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn index(entries: &[(&str, &str, &str)]) -> Document {
        let manifests: Vec<_> = (entries.iter())
            .map(|(digest, os, architecture)| {
                serde_json::json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": 1,
                    "platform": {"os": os, "architecture": architecture}})
            })
            .collect();
        let text = serde_json::json!({"schemaVersion": 2, "manifests": manifests}).to_string();
        Document::parse(text.as_bytes(), Some(OCI_INDEX)).unwrap()
    }

    #[test]
    fn an_index_gives_the_platform_asked_for_and_never_an_attestation() {
        let Document::Index(index) = index(&[(B, "unknown", "unknown"), (A, "linux", "arm64")]) else {
            panic!()
        };
        let arm: Platform = "linux/arm64/v8".parse().unwrap();
        assert_eq!(index.choose(&arm).unwrap().digest.as_str(), A);
        let error = index.choose(&"linux/amd64".parse().unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "there is no image for linux/amd64; there are linux/arm64");
    }

    #[test]
    fn what_says_two_things_is_refused() {
        let both = serde_json::json!({"schemaVersion": 2, "manifests": [], "layers": [],
            "config": {"digest": A, "size": 1}});
        assert!(Document::parse(both.to_string().as_bytes(), None).is_err());
        let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [],
            "config": {"mediaType": OCI_CONFIG, "digest": A, "size": 1}})
        .to_string();
        assert!(Document::parse(manifest.as_bytes(), Some(OCI_MANIFEST)).is_ok());
        assert!(Document::parse(manifest.as_bytes(), Some("text/plain")).is_ok());
        assert!(Document::parse(manifest.as_bytes(), Some(OCI_INDEX)).is_err());
        let old = r#"{"schemaVersion": 1, "fsLayers": []}"#;
        assert!(matches!(Document::parse(old.as_bytes(), None), Err(ManifestError::SchemaOne)));
    }

    #[test]
    fn an_artifact_is_not_an_image() {
        let text = serde_json::json!({"schemaVersion": 2, "artifactType": "application/x-thing", "layers": [],
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": A, "size": 2}});
        let error = Document::parse(text.to_string().as_bytes(), None).unwrap_err();
        assert_eq!(error.to_string(), "it is not an image but application/x-thing");
    }
}
