//! What the secrets and configurations of a service hold, and whether a container was given the same. Pure.
//!
//! docker compose does not look: a container there goes on with what it was given first. A container of ours carries
//! a label with a digest of each; every label has a salt of its own, so that equal secrets do not look equal.

use std::collections::BTreeMap;

use engine::id::Digest;

use crate::model::{FileObject, FileReference, Project, Service};

/// The digests of what a service's secrets and configurations hold, by `secrets.<key>` and `configs.<key>`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents(BTreeMap<String, Digest>);

// === impl Contents ===

impl Contents {
    /// What they hold now. What cannot be read is left out: making a container of it fails, and says why.
    pub fn of(project: &Project, service: &Service) -> Self {
        let mut all = BTreeMap::new();
        let groups: [(&str, &[FileReference], &BTreeMap<String, FileObject>); 2] = [
            ("secrets", &service.secrets, &project.secrets),
            ("configs", &service.configs, &project.configs),
        ];
        for (kind, references, objects) in groups {
            for reference in references {
                let digest = objects.get(&reference.source).and_then(|object| object.digest.clone());
                all.extend(digest.map(|digest| (format!("{kind}.{}", reference.source), digest)));
            }
        }
        Self(all)
    }

    /// With what providers and models have told.
    pub fn with(&self, told: &BTreeMap<String, Digest>) -> Self {
        let mut all = self.0.clone();
        all.extend(told.clone());
        Self(all)
    }

    /// The label of a container that is given this: `secrets.token=<salted digest>,…`.
    pub fn seal(&self, salt: &str) -> String {
        let parts: Vec<String> =
            self.0.iter().map(|(name, digest)| format!("{name}={salt}:{}", salted(salt, digest))).collect();
        parts.join(",")
    }

    /// The first of them that is not what a container with this label was given.
    pub fn changed(&self, label: &str) -> Option<&str> {
        let given: BTreeMap<&str, (&str, &str)> = label
            .split(',')
            .filter_map(|part| {
                let (name, sealed) = part.split_once('=')?;
                Some((name, sealed.split_once(':')?))
            })
            .collect();
        self.0
            .iter()
            .find(|(name, digest)| {
                given.get(name.as_str()).is_some_and(|(salt, sealed)| salted(salt, digest) != *sealed)
            })
            .map(|(name, _)| name.as_str())
    }
}

fn salted(salt: &str, digest: &Digest) -> String {
    Digest::of(format!("{salt} {}", digest.hex()).as_bytes()).hex().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(token: &str) -> Contents {
        Contents(BTreeMap::from([
            ("configs.settings".to_owned(), Digest::of(b"same")),
            ("secrets.token".to_owned(), Digest::of(token.as_bytes())),
        ]))
    }

    #[test]
    fn a_label_tells_whether_something_changed_and_what() {
        let label = contents("one").seal("salt");
        assert_eq!(contents("one").changed(&label), None);
        assert_eq!(contents("two").changed(&label), Some("secrets.token"));
        assert_eq!(contents("two").changed(""), None, "a container that was never told cannot be compared");
    }

    #[test]
    fn equal_contents_do_not_look_equal() {
        assert_ne!(contents("one").seal("a"), contents("one").seal("b"));
    }
}
