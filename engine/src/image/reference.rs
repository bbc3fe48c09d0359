//! Image references: `registry/repository:tag@digest`, parsed as docker parses them and printed as people write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::Digest;

/// The registry meant when none is written.
pub const DEFAULT_REGISTRY: &str = "docker.io";

/// The tag meant when neither a tag nor a digest is written.
pub const DEFAULT_TAG: &str = "latest";

/// Where images without a namespace live on the default registry.
const OFFICIAL_PREFIX: &str = "library/";

/// The longest registry and repository together (distribution/reference: `NameTotalLengthMax`).
const LONGEST_NAME: usize = 255;

/// A name for an image. It always has a tag or a digest; with both, the digest decides.
///
/// Displays as people write it (`alpine:3`); [`Reference::canonical`] has all parts. Serialises canonically.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid image reference {text:?}: {reason}")]
pub struct ParseReferenceError {
    text: String,
    reason: &'static str,
}

// === impl Reference ===

impl Reference {
    /// The registry's host and port, `docker.io` when none was written.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path within the registry, `library/alpine`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if any.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if any.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What a registry is asked for: the digest, else the tag.
    pub fn wanted(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => DEFAULT_TAG,
        }
    }

    /// Registry and repository as people write them: `alpine`, `ghcr.io/me/app`.
    pub fn familiar_name(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return format!("{}/{}", self.registry, self.repository);
        }
        match self.repository.strip_prefix(OFFICIAL_PREFIX) {
            Some(official) if !official.contains('/') => official.to_owned(),
            _ => self.repository.clone(),
        }
    }

    /// All parts: `docker.io/library/alpine:3`.
    pub fn canonical(&self) -> String {
        format!("{}/{}{}", self.registry, self.repository, self.suffix())
    }

    /// The same repository under another tag, without a digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ParseReferenceError> {
        if !is_tag(tag) {
            return Err(ParseReferenceError { text: tag.to_owned(), reason: TAG_RULE });
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same repository at a digest, without a tag.
    pub fn with_digest(&self, digest: &Digest) -> Self {
        Self { tag: None, digest: Some(digest.clone()), ..self.clone() }
    }

    /// The name under which the image is kept here: the tag if there is one, else the digest.
    pub fn local(&self) -> Self {
        match &self.tag {
            Some(_) => Self { digest: None, ..self.clone() },
            None => self.clone(),
        }
    }

    fn suffix(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = self.digest.as_ref().map(|digest| format!("@{digest}")).unwrap_or_default();
        tag + &digest
    }
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |reason| ParseReferenceError { text: text.to_owned(), reason };
        let (name_and_tag, digest) = match text.split_once('@') {
            Some((name, digest)) => {
                let digest = digest.parse().map_err(|_| {
                    wrong("the digest must be sha256: and 64 hexadecimal digits, or sha512: and 128")
                })?;
                (name, Some(digest))
            }
            None => (text, None),
        };
        // A colon after the last slash starts a tag; one before it belongs to a registry's port.
        let last_slash = name_and_tag.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match name_and_tag[last_slash..].find(':') {
            Some(colon) => {
                let colon = last_slash + colon;
                (&name_and_tag[..colon], Some(&name_and_tag[colon + 1..]))
            }
            None => (name_and_tag, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong(TAG_RULE));
        }
        let (registry, repository) = split_registry(name);
        check_name(registry, &repository).map_err(wrong)?;
        if name.len() == 64 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(wrong("64 hexadecimal digits are an image's id, not a name"));
        }
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, None) => Some(DEFAULT_TAG.to_owned()),
            (None, Some(_)) => None,
        };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

impl TryFrom<String> for Reference {
    type Error = ParseReferenceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.canonical()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.familiar_name(), self.suffix())
    }
}

impl From<ParseReferenceError> for crate::Error {
    fn from(error: ParseReferenceError) -> Self {
        crate::Error::invalid(error.to_string())
    }
}

const TAG_RULE: &str = "a tag is up to 128 of [A-Za-z0-9_.-], not starting with . or -";

fn is_tag(tag: &str) -> bool {
    let starts_well = tag.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    starts_well
        && tag.len() <= 128
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// The first component is a host if and only if it looks like one: a dot, a colon, a capital, or `localhost`.
fn split_registry(name: &str) -> (&str, String) {
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':', '['])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, name),
    };
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    if registry == DEFAULT_REGISTRY && !repository.contains('/') {
        (registry, format!("{OFFICIAL_PREFIX}{repository}"))
    } else {
        (registry, repository.to_owned())
    }
}

fn check_name(registry: &str, repository: &str) -> Result<(), &'static str> {
    if !is_host(registry) {
        return Err("the registry is not a host name with an optional port");
    }
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("the repository must be lower case");
    }
    if !repository.split('/').all(is_path_component) {
        return Err("a repository is made of [a-z0-9] with single separators . _ __ or dashes, and slashes");
    }
    if registry.len() + 1 + repository.len() > LONGEST_NAME {
        return Err("the name is longer than 255 characters");
    }
    Ok(())
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.rfind(']') {
        Some(end) if text.starts_with('[') => {
            let address = &text[1..end];
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            ("v6", text[end + 1..].strip_prefix(':').or((end + 1 < text.len()).then_some("")))
        }
        _ => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port_is_fine = port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    let label_is_fine = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    port_is_fine && host.split('.').all(label_is_fine)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` (distribution/reference: `path-component`).
fn is_path_component(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    is_word(first)
        && is_word(last)
        && text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).all(|separator| {
            matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        text.parse::<Reference>().map_or_else(|error| error.to_string(), |reference| reference.canonical())
    }

    const SHA: &str = "sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

    #[test]
    fn familiar_names_gain_their_defaults() {
        for (text, wanted) in [
            ("ubuntu", "docker.io/library/ubuntu:latest"),
            ("ubuntu:24.04", "docker.io/library/ubuntu:24.04"),
            ("me/app", "docker.io/me/app:latest"),
            ("docker.io/ubuntu", "docker.io/library/ubuntu:latest"),
            ("index.docker.io/library/ubuntu", "docker.io/library/ubuntu:latest"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/app:v1", "localhost:5000/app:v1"),
            ("127.0.0.1:5000/a/b/c:v1", "127.0.0.1:5000/a/b/c:v1"),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
            ("[2001:db8::1]/app", "[2001:db8::1]/app:latest"),
            ("Uppercase/lower", "Uppercase/lower:latest"),
            ("a__b/c-----d.e", "docker.io/a__b/c-----d.e:latest"),
        ] {
            assert_eq!(canonical(text), wanted, "{text}");
        }
        assert_eq!(canonical(&format!("ubuntu@{SHA}")), format!("docker.io/library/ubuntu@{SHA}"));
        assert_eq!(canonical(&format!("ubuntu:1@{SHA}")), format!("docker.io/library/ubuntu:1@{SHA}"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "",
            ":tag",
            "/app",
            "app/",
            "a//b",
            "App",
            "me/App",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "a:",
            "a:-x",
            "a@sha256:12",
            "a@sha512:ff",
            "http://a/b",
            "[::1/app",
            "[nonsense]:1/app",
            "a b",
            "host:x/app",
            "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?} was accepted");
        }
        assert!(format!("a/{}", "b".repeat(300)).parse::<Reference>().is_err());
        assert!(format!("a:{}", "b".repeat(129)).parse::<Reference>().is_err());
    }

    #[test]
    fn names_are_shown_as_people_write_them() {
        for (text, wanted) in [
            ("docker.io/library/alpine:3", "alpine:3"),
            ("alpine", "alpine:latest"),
            ("me/app:1", "me/app:1"),
            ("ghcr.io/me/app:1", "ghcr.io/me/app:1"),
            ("docker.io/library/a/b", "library/a/b:latest"),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), wanted);
            assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference, "{text}");
        }
    }

    #[test]
    fn a_digest_decides_what_is_fetched_and_the_tag_how_it_is_kept() {
        let reference: Reference = format!("alpine:3@{SHA}").parse().unwrap();
        assert_eq!(reference.wanted(), SHA);
        assert_eq!(reference.local().to_string(), "alpine:3");
        let json = serde_json::to_string(&reference).unwrap();
        assert_eq!(serde_json::from_str::<Reference>(&json).unwrap(), reference);
    }
}
