//! How an image was made, as SLSA's provenance says it (slsa.dev/spec/v1.0/provenance), with as little as BuildKit's
//! `mode=min`: no argument, no secret and no label of the build is in it. With `mode=max` its arguments, its labels, the
//! Dockerfile, and the names of secrets are.

use base64::Engine as _;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::stage::PROXIES;
use super::{BuildRequest, CacheUse, DockerfileSource};
use crate::error::{Error, Result};
use crate::id::Digest;
use crate::image::{Platform, Reference};

/// What kind of statement it is.
pub(super) const PREDICATE: &str = "https://slsa.dev/provenance/v1";

/// What kind of statement it is in the words of SLSA 0.2.
pub(super) const OLD_PREDICATE: &str = "https://slsa.dev/provenance/v0.2";

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
    /// Whether everything that the image depends on is told: `mode=max`.
    pub is_whole: bool,
    /// Who builds, in the builder's own words.
    pub builder: String,
    /// Whether it is told in the words of SLSA 0.2: `version=v0.2`.
    pub is_old: bool,
    /// Whether whoever asks says that the build can be repeated.
    pub is_reproducible: bool,
}

/// What is known of a build when it is over.
#[derive(Debug, Clone)]
pub struct Facts {
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
                ("true" | "1", "") | ("disabled", "false") => {}
                ("version", version @ ("v1" | "v0.2")) => asked.is_old = version == "v0.2",
                ("reproducible", said @ ("true" | "false")) => asked.is_reproducible = said == "true",
                ("min" | "max", "") => asked.is_whole = field == "max",
                ("mode", mode @ ("min" | "max")) => asked.is_whole = mode == "max",
                ("builder-id", id) => asked.builder = id.to_owned(),
                _ => {
                    return Err(Error::invalid(format!("provenance with {field} is not supported"))
                        .with_hint(
                            "mode=min|max, version=v1|v0.2, reproducible=true and builder-id=URI are there",
                        ));
                }
            }
        }
        Ok(Some(asked))
    }

    /// What kind of statement it is.
    pub(super) fn kind(&self) -> &'static str {
        if self.is_old { OLD_PREDICATE } else { PREDICATE }
    }
}

/// Whether an attestation is not wanted.
pub fn is_no(text: &str) -> bool {
    matches!(text, "false" | "0" | "disabled=true")
}

/// The predicate of a build's provenance.
pub(super) fn provenance(asked: &ProvenanceRequest, request: &BuildRequest, facts: &Facts) -> Result<Value> {
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
            dependency["digest"] = json!({ digest.algorithm(): digest.hex() });
        }
        dependency
    };
    let mut provenance = json!({
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
            "builder": { "id": asked.builder },
            "metadata": {
                "startedOn": facts.began.to_string(),
                "finishedOn": facts.ended.to_string(),
                "buildkit_completeness": { "request": asked.is_whole, "resolvedDependencies": false },
                "buildkit_reproducible": asked.is_reproducible,
            },
        },
    });
    if asked.is_whole {
        tell_all(&mut provenance, request)?;
    }
    Ok(if asked.is_old { in_old_words(&provenance) } else { provenance })
}

/// The same as SLSA 0.2 says it (slsa.dev/provenance/v0.2), in BuildKit's way.
fn in_old_words(provenance: &Value) -> Value {
    let (definition, run) = (&provenance["buildDefinition"], &provenance["runDetails"]);
    let (asked, metadata) = (&definition["externalParameters"], &run["metadata"]);
    let is_complete = &metadata["buildkit_completeness"];
    let mut old = json!({
        "builder": run["builder"],
        "buildType": "https://mobyproject.org/buildkit@v1",
        "materials": definition["resolvedDependencies"],
        "invocation": {
            "configSource": { "entryPoint": asked["configSource"]["path"] },
            "parameters": asked["request"],
            "environment": { "platform": definition["internalParameters"]["builderPlatform"] },
        },
        "metadata": {
            "buildStartedOn": metadata["startedOn"],
            "buildFinishedOn": metadata["finishedOn"],
            "completeness": {
                "parameters": is_complete["request"],
                "environment": true,
                "materials": is_complete["resolvedDependencies"],
            },
            "reproducible": metadata["buildkit_reproducible"],
        },
    });
    if let Some(told) = metadata.get("buildkit_metadata") {
        old["metadata"]["https://mobyproject.org/buildkit@v1#metadata"] = told.clone();
    }
    old
}

/// Adds what `mode=max` tells: all that was asked, by BuildKit's names, but no secret's value, and the Dockerfile.
fn tell_all(provenance: &mut Value, request: &BuildRequest) -> Result<()> {
    let (source, _) = super::dockerfile::read(request)?;
    let mut args = Map::new();
    let is_told = |name: &str| !PROXIES.iter().flatten().any(|proxy| *proxy == name);
    for (name, value) in request.args.iter().filter(|(name, _)| is_told(name)) {
        args.insert(format!("build-arg:{name}"), value.as_str().into());
    }
    for (name, value) in &request.labels {
        args.insert(format!("label:{name}"), value.as_str().into());
    }
    for name in request.contexts.keys() {
        args.insert(format!("context:{name}"), "local".into());
    }
    args.extend(request.target.iter().map(|target| ("target".to_owned(), target.as_str().into())));
    if !matches!(request.cache, CacheUse::All) {
        args.insert("no-cache".to_owned(), String::new().into());
    }
    let told = &mut provenance["buildDefinition"]["externalParameters"]["request"];
    told["args"] = args.into();
    if !request.secrets.is_empty() {
        let secrets = request.secrets.iter().map(|secret| json!({ "id": secret.id, "optional": true }));
        told["secrets"] = secrets.collect();
    }
    if !request.ssh.is_empty() {
        told["ssh"] = request.ssh.keys().map(|id| json!({ "id": id, "optional": true })).collect();
    }
    let data = base64::engine::general_purpose::STANDARD.encode(&source.text);
    let info = json!({ "filename": source.name, "language": "Dockerfile", "data": data });
    provenance["runDetails"]["metadata"]["buildkit_metadata"] = json!({ "source": { "infos": [info] } });
    Ok(())
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
        assert!(parse("mode=max").unwrap().unwrap().is_whole && !parse("min").unwrap().unwrap().is_whole);
        let old = parse("mode=max,version=v0.2,reproducible=true").unwrap().unwrap();
        assert!(old.is_old && old.is_reproducible && old.kind().ends_with("v0.2"));
        for text in ["mode=most", "version=v2", "inline-only=true"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
