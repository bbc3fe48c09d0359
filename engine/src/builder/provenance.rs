//! How an image was made, as SLSA's provenance says it (slsa.dev/spec/v1.0/provenance), with as little as BuildKit's
//! `mode=min`: no argument, no secret and no label of the build is in it.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{BuildRequest, DockerfileSource};
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
