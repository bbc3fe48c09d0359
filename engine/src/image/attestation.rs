//! What is attested of an image: an in-toto statement in a manifest of its own, which an index names beside the image's
//! (BuildKit, docs/attestations/attestation-storage.md).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::id::Digest;
use crate::image::manifest::{
    Descriptor, DescriptorPlatform, MOST_JSON, ManifestError, OCI_CONFIG, OCI_MANIFEST, parts,
};
use crate::image::{Image, ImageError, Images, Reference, failure};

/// What is stated of an image.
#[derive(Debug, Clone)]
pub struct Predicate {
    /// What kind of statement it is: a URI.
    pub kind: String,
    /// What it says.
    pub value: Value,
}

/// An attestation as it leaves.
pub(super) struct Attestation {
    /// Its entry in an index.
    pub(super) entry: Descriptor,
    /// Its manifest.
    pub(super) raw: Vec<u8>,
    /// What the manifest names.
    pub(super) blobs: Vec<Descriptor>,
}

const ARTIFACT: &str = "application/vnd.docker.attestation.manifest.v1+json";
pub(super) const STATEMENT: &str = "application/vnd.in-toto+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// The whole of an empty configuration (image-spec, manifest.md, "Guidance for an Empty Descriptor").
const NOTHING: &[u8] = b"{}";

// === impl Images ===

impl Images {
    /// Attests something of an image, which leaves with it from now on, until it is given another form. In its shape from
    /// before OCI knew artifacts, the attestation has the configuration of an image for no platform (`is_legacy`).
    ///
    /// # Errors
    /// When a layer cannot be packed, or the record not be written.
    pub fn attest(
        &self,
        image: &Image,
        names: &[Reference],
        predicates: &[Predicate],
        is_legacy: bool,
    ) -> Result<(), ImageError> {
        let _hold = self.layers().hold()?;
        let (manifest, raw) = self.compressed_manifest(image, &|_| {})?;
        let subject = Descriptor::new(&manifest.media_type, Digest::of(&raw), raw.len() as u64);
        let platform = image.platform().to_string().replace('/', "%2F");
        let name = |name: &Reference| format!("pkg:docker/{}?platform={platform}", purl(name));
        let digest = json!({ subject.digest.algorithm(): subject.digest.hex() });
        let subjects: Vec<Value> =
            names.iter().map(|reference| json!({ "name": name(reference), "digest": digest })).collect();
        let nameless = || vec![json!({ "name": "_", "digest": digest })];
        let subjects = if subjects.is_empty() { nameless() } else { subjects };
        let content = self.content();
        let mut layers = Vec::new();
        for predicate in predicates {
            let statement =
                serde_json::to_vec(&predicate.statement(&subjects)).map_err(ManifestError::Json)?;
            layers.push(json!({
                "mediaType": STATEMENT,
                "digest": content.put(&statement)?,
                "size": statement.len(),
                "annotations": { "in-toto.io/predicate-type": predicate.kind },
            }));
        }
        let attestation = if is_legacy {
            let diffs: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
            let config = json!({
                "architecture": "unknown",
                "os": "unknown",
                "config": {},
                "rootfs": { "type": "layers", "diff_ids": diffs },
            });
            let config = serde_json::to_vec(&config).map_err(ManifestError::Json)?;
            json!({
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": { "mediaType": OCI_CONFIG, "digest": content.put(&config)?, "size": config.len() },
                "layers": layers,
            })
        } else {
            content.put(NOTHING)?;
            json!({
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "artifactType": ARTIFACT,
                "config": { "mediaType": EMPTY, "digest": Digest::of(NOTHING), "size": NOTHING.len() },
                "layers": layers,
                "subject": subject,
            })
        };
        let attestation = serde_json::to_vec(&attestation).map_err(ManifestError::Json)?;
        let kept = (content.put(&raw)?, content.put(&attestation)?);
        let _lock = self.lock()?;
        self.sync()?;
        let record = self.record(&image.id)?;
        let mut record = record.ok_or_else(|| ImageError::NotFound(image.id.to_string()))?;
        (record.manifest, record.attestation) = (Some(kept.0), Some(kept.1));
        record.is_shaped = true;
        record.write(&self.root).map_err(failure("record", image.id.as_str()))
    }

    /// What is attested of these images.
    pub(super) fn attestations(&self, images: &[Image]) -> Result<Vec<Attestation>, ImageError> {
        let mut attestations = Vec::new();
        for image in images {
            let Some(record) = self.record(&image.id)? else { continue };
            let (Some(digest), Some(subject)) = (record.attestation, record.manifest) else { continue };
            let raw = self.content().read(&digest, MOST_JSON)?;
            let blobs = parts(&raw)?;
            let mut entry = Descriptor::new(OCI_MANIFEST, digest, raw.len() as u64);
            let unknown = || "unknown".to_owned();
            entry.platform = Some(Box::new(DescriptorPlatform {
                os: unknown(),
                architecture: unknown(),
                ..DescriptorPlatform::default()
            }));
            entry.annotations = Some(BTreeMap::from([
                ("vnd.docker.reference.digest".to_owned(), subject.to_string()),
                ("vnd.docker.reference.type".to_owned(), "attestation-manifest".to_owned()),
            ]));
            attestations.push(Attestation { entry, raw, blobs });
        }
        Ok(attestations)
    }
}

// === impl Predicate ===

impl Predicate {
    /// The whole statement of these subjects (in-toto, spec/v1/statement.md).
    pub(crate) fn statement(&self, subjects: &[Value]) -> Value {
        json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": subjects,
            "predicateType": self.kind,
            "predicate": self.value,
        })
    }
}

/// What an attestation's manifest names.
pub(super) fn blobs(raw: &[u8]) -> Vec<Digest> {
    let Ok(manifest) = serde_json::from_slice::<Value>(raw) else { return Vec::new() };
    let layers = manifest["layers"].as_array().into_iter().flatten().chain([&manifest["config"]]);
    layers.filter_map(|blob| blob["digest"].as_str()?.parse().ok()).collect()
}

/// A name as package URLs have it: `app@1`, `localhost%3A5000/app@1`.
pub(crate) fn purl(reference: &Reference) -> String {
    let name = reference.familiar_name().replace(':', "%3A");
    match reference.tag() {
        Some(tag) => format!("{name}@{tag}"),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_urls_have_the_tag_as_a_version() {
        assert_eq!(purl(&"app".parse().unwrap()), "app@latest");
        assert_eq!(purl(&"localhost:5000/team/app:1".parse().unwrap()), "localhost%3A5000/team/app@1");
    }
}
