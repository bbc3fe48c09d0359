//! How an image was made, as SLSA's provenance says it (slsa.dev/spec/v1.0/provenance), with as little as BuildKit's
//! `mode=min`: no argument, no secret and no label of the build is in it.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{BuildRequest, DockerfileSource};
use crate::error::{Error, Result};
use crate::id::Digest;
use crate::image::{Platform, Reference};

/// What kind of statement it is.
pub const PREDICATE: &str = "https://slsa.dev/provenance/v1";

/// An image that a build took files from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Material {
    /// Its name in the Dockerfile.
    pub reference: Reference,
    /// Its manifest, where a registry named it.
    pub digest: Option<Digest>,
    /// What it runs on.
    pub platform: String,
}

/// The provenance that is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProvenanceRequest {
    /// Who builds, in the builder's own words.
    pub builder: String,
}

/// What is known of a build when it is over.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Who built; empty when nobody says so.
    pub builder: String,
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// The images it took files from.
    pub materials: Vec<Material>,
}

// === impl ProvenanceRequest ===

impl ProvenanceRequest {
    /// Reads `true`, `false` or `mode=min,version=v1,builder-id=URI`; `None` where there is to be none.
    ///
    /// # Errors
    /// When more is asked for than there is.
    pub fn parse(text: &str) -> Result<Option<Self>> {
        if is_no(text) {
            return Ok(None);
        }
        let mut asked = Self::default();
        for field in text.split(',').filter(|field| !field.is_empty()) {
            match field.split_once('=').unwrap_or((field, "")) {
                ("true" | "1" | "min", "") | ("mode", "min") | ("version", "v1") | ("disabled", "false") => {}
                ("builder-id", id) => asked.builder = id.to_owned(),
                _ => {
                    return Err(Error::invalid(format!("provenance with {field} is not supported"))
                        .with_hint("mode=min, version=v1 and builder-id=URI are there"));
                }
            }
        }
        Ok(Some(asked))
    }
}

/// Whether an attestation is not wanted.
pub fn is_no(text: &str) -> bool {
    matches!(text, "false" | "0" | "disabled=true")
}

/// The predicate of a build's provenance.
pub fn provenance(request: &BuildRequest, facts: &Facts) -> Value {
    let file = match &request.dockerfile {
        DockerfileSource::Default => json!({ "path": "Dockerfile" }),
        DockerfileSource::File(path) => {
            json!({ "path": path.file_name().unwrap_or_default().to_string_lossy() })
        }
        DockerfileSource::Inline(_) => json!({}),
    };
    let dependency = |material: &Material| {
        let (name, platform) =
            (crate::image::purl(&material.reference), material.platform.replace('/', "%2F"));
        let mut dependency = json!({ "uri": format!("pkg:docker/{name}?platform={platform}") });
        if let Some(digest) = &material.digest {
            dependency["digest"] = json!({ "sha256": digest.hex() });
        }
        dependency
    };
    json!({
        "buildDefinition": {
            "buildType": "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md",
            "externalParameters": {
                "configSource": file,
                "request": { "frontend": "dockerfile.v0", "locals": [{ "name": "context" }, { "name": "dockerfile" }] },
            },
            "internalParameters": { "builderPlatform": Platform::host().to_string() },
            "resolvedDependencies": facts.materials.iter().map(dependency).collect::<Vec<_>>(),
        },
        "runDetails": {
            "builder": { "id": facts.builder },
            "metadata": {
                "startedOn": facts.began.to_string(),
                "finishedOn": facts.ended.to_string(),
                "buildkit_completeness": { "request": false, "resolvedDependencies": false },
                "buildkit_reproducible": false,
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_about_provenance_are_read() {
        let parse = ProvenanceRequest::parse;
        assert_eq!(parse("true").unwrap(), Some(ProvenanceRequest::default()));
        assert_eq!(parse("mode=min,builder-id=https://ci/1").unwrap().unwrap().builder, "https://ci/1");
        assert_eq!(parse("false").unwrap(), None);
        for text in ["mode=max", "version=v0.2", "max", "inline-only=true"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
