//! Manifests that say something about another one, where the registry keeps no list of them: the list is an index then,
//! under a tag made of the other's digest (distribution-spec, "Referrers Tag Schema").

use serde::Deserialize;
use serde_json::{Value, json};

use crate::id::Digest;
use crate::image::manifest::OCI_INDEX;
use crate::image::registry::{RegistryError, Repository};

/// A manifest with a subject.
#[derive(Debug, PartialEq)]
pub(super) struct Referrer {
    /// What it is about.
    subject: Digest,
    /// Its entry in the list.
    entry: Value,
}

// === impl Referrer ===

impl Referrer {
    /// What a manifest refers to, if it refers to another one.
    pub(super) fn in_manifest(media_type: &str, bytes: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Manifest {
            subject: Described,
            artifact_type: Option<String>,
            config: Option<Value>,
            annotations: Option<Value>,
        }
        #[derive(Deserialize)]
        struct Described {
            digest: Digest,
        }
        let manifest: Manifest = serde_json::from_slice(bytes).ok()?;
        let mut entry = json!({ "mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len() });
        // Before OCI 1.1 the configuration said what a manifest is of.
        let of_config = || manifest.config.as_ref().map(|config| config["mediaType"].clone());
        let kind = manifest.artifact_type.map(Value::from).or_else(of_config);
        for (key, value) in [("artifactType", kind), ("annotations", manifest.annotations)] {
            if let Some(value) = value.filter(|value| !value.is_null()) {
                entry[key] = value;
            }
        }
        Some(Self { subject: manifest.subject.digest, entry })
    }

    /// The list with this manifest in it; `None` when it is there already.
    fn added_to(&self, list: Option<Value>) -> Option<Value> {
        let mut list = list
            .filter(|list| list["manifests"].is_array())
            .unwrap_or_else(|| json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] }));
        let entries = list["manifests"].as_array_mut()?;
        if entries.iter().any(|entry| entry["digest"] == self.entry["digest"]) {
            return None;
        }
        entries.push(self.entry.clone());
        Some(list)
    }
}

// === impl Repository ===

impl Repository {
    /// Adds a manifest to the list of those that refer to its subject.
    pub(super) async fn list_referrer(&self, referrer: &Referrer) -> Result<(), RegistryError> {
        // No longer than a tag may be (distribution-spec, "Referrers Tag Schema").
        let subject = &referrer.subject;
        let tag = format!("{}-{}", subject.algorithm(), &subject.hex()[..64]);
        let list = match self.manifest(&tag).await {
            Ok(fetched) => serde_json::from_slice(&fetched.bytes).ok(),
            Err(RegistryError::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        match referrer.added_to(list) {
            Some(list) => self.put_manifest(&tag, OCI_INDEX, list.to_string().as_bytes()).await,
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::manifest::OCI_MANIFEST;

    #[test]
    fn a_manifest_with_a_subject_is_listed_once() {
        let subject = Digest::of(b"image");
        let manifest = json!({ "artifactType": "application/x-note", "annotations": { "a": "b" },
            "config": { "mediaType": "application/x-empty" }, "subject": { "digest": subject, "size": 5 } });
        let bytes = manifest.to_string();
        let referrer = Referrer::in_manifest(OCI_MANIFEST, bytes.as_bytes()).unwrap();
        assert_eq!(referrer.subject, subject);
        let list = referrer.added_to(None).unwrap();
        let entry = json!({ "mediaType": OCI_MANIFEST, "digest": Digest::of(bytes.as_bytes()), "size": bytes.len(),
            "artifactType": "application/x-note", "annotations": { "a": "b" } });
        assert_eq!(list["manifests"], json!([entry]));
        assert_eq!(referrer.added_to(Some(list)), None);
        assert_eq!(Referrer::in_manifest(OCI_MANIFEST, br#"{"config":{}}"#), None);
    }
}
