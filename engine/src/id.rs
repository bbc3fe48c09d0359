//! Identities: what a thing is called, parsed once at the edge and never formatted by hand.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not the identity it was taken for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what} {text:?}: {rule}")]
pub struct ParseIdError {
    what: &'static str,
    text: String,
    rule: &'static str,
}

/// A container's identity: 32 random bytes, written as 64 lower-case hexadecimal digits.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

/// A network's identity, in the same form as a container's.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NetworkId(String);

/// A content address, `sha256:<64 hexadecimal digits>` (OCI image-spec, descriptor.md, "Digests").
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// The digest of an image's configuration: what `images` calls IMAGE ID.
pub type ImageId = Digest;

/// The digest of a layer's uncompressed tar: `diff_ids` of the OCI image configuration.
pub type DiffId = Digest;

/// A container's name: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, unique within one engine root.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerName(String);

/// A network's name, with the same alphabet as a container's.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NetworkName(String);

/// A volume's name: the same alphabet, or 64 hexadecimal digits when anonymous.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeName(String);

const HEX_RULE: &str = "64 lower-case hexadecimal digits are needed";
const NAME_RULE: &str = "only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, two characters or more";

fn is_hex_64(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() >= 2
        && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn random_hex_64() -> String {
    let mut bytes = [0u8; 32];
    let mut filled = 0;
    while filled < bytes.len() {
        // Interrupted calls are retried; the kernel knows no other failure for so short a read.
        if let Ok(n) = rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            filled += n;
        }
    }
    hex(&bytes)
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

macro_rules! text_identity {
    ($type:ident, $what:literal, $check:expr, $rule:expr) => {
        impl $type {
            /// The text as people type it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::try_from(text.to_owned())
            }
        }

        impl TryFrom<String> for $type {
            type Error = ParseIdError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                let check: fn(&str) -> bool = $check;
                if check(&text) {
                    Ok(Self(text))
                } else {
                    Err(ParseIdError { what: $what, text, rule: $rule })
                }
            }
        }

        impl From<$type> for String {
            fn from(id: $type) -> String {
                id.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($type), self.0)
            }
        }
    };
}

text_identity!(ContainerId, "container id", is_hex_64, HEX_RULE);
text_identity!(NetworkId, "network id", is_hex_64, HEX_RULE);
text_identity!(
    Digest,
    "digest",
    |text| text.strip_prefix("sha256:").is_some_and(is_hex_64),
    "sha256: and 64 lower-case hexadecimal digits are needed"
);
text_identity!(ContainerName, "container name", is_name, NAME_RULE);

impl ContainerName {
    /// As people give it: one slash before the name is no part of it, because `inspect` shows names so.
    ///
    /// # Errors
    /// When it is no name.
    pub fn given(text: &str) -> Result<Self, ParseIdError> {
        text.strip_prefix('/').unwrap_or(text).parse()
    }
}
text_identity!(
    NetworkName,
    "network name",
    // Docker's networks, unlike its containers and volumes, may have names of one letter.
    |text| is_name(text) || text.len() == 1 && text.as_bytes()[0].is_ascii_alphanumeric(),
    "only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
);
text_identity!(VolumeName, "volume name", is_name, NAME_RULE);

// === impl ContainerId ===

impl ContainerId {
    /// The identity that always belongs to a text.
    pub(crate) fn derived(text: &str) -> Self {
        Self(Digest::of(text.as_bytes()).hex().to_owned())
    }

    /// A new identity that no other container has.
    pub fn random() -> Self {
        Self(random_hex_64())
    }

    /// The first twelve digits, as tables print them.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

// === impl NetworkId ===

impl NetworkId {
    /// A new identity that no other network has.
    pub fn random() -> Self {
        Self(random_hex_64())
    }

    /// The first twelve digits, as tables print them.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

// === impl VolumeName ===

impl VolumeName {
    /// The name of a new anonymous volume.
    pub fn random() -> Self {
        Self(random_hex_64())
    }
}

// === impl Digest ===

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self::from_sha256(&sha2::Sha256::digest(bytes))
    }

    /// The digest whose 32 bytes were computed elsewhere.
    pub fn from_sha256(bytes: &[u8]) -> Self {
        Self(format!("sha256:{}", hex(bytes)))
    }

    /// The 64 hexadecimal digits without the algorithm.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }

    /// The first twelve hexadecimal digits, as tables print them.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_container_id_parses_back() {
        let id = ContainerId::random();
        assert_eq!(id.as_str().parse::<ContainerId>(), Ok(id.clone()));
        assert_ne!(id, ContainerId::random());
    }

    #[test]
    fn a_digest_needs_its_algorithm() {
        let digest = Digest::of(b"");
        assert_eq!(
            digest.as_str(),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert!(digest.hex().parse::<Digest>().is_err());
    }

    #[test]
    fn a_network_may_have_a_name_of_one_letter() {
        assert!("n".parse::<NetworkName>().is_ok());
        assert!("n".parse::<VolumeName>().is_err());
        for wrong in ["", ".", "/", "-"] {
            assert!(wrong.parse::<NetworkName>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_name_keeps_to_its_alphabet() {
        assert!("web-1".parse::<ContainerName>().is_ok());
        assert_eq!(ContainerName::given("/web-1"), "web-1".parse());
        assert!(ContainerName::given("//web-1").is_err());
        for wrong in ["", "a", "-a", "a b", "a/b", "ä1"] {
            assert!(wrong.parse::<ContainerName>().is_err(), "{wrong:?}");
        }
    }
}
