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

/// A content address, `sha256:<64 hexadecimal digits>` or `sha512:<128 of them>` (OCI image-spec, descriptor.md,
/// "Digests"). What is digested here has the former; the latter is what others may call their blobs.
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
    is_hex(text, 64)
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_digest(text: &str) -> bool {
    match text.split_once(':') {
        Some((SHA256, hex)) => is_hex(hex, 64),
        Some((SHA512, hex)) => is_hex(hex, 128),
        _ => false,
    }
}

const SHA256: &str = "sha256";
const SHA512: &str = "sha512";

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
    is_digest,
    "sha256: and 64 lower-case hexadecimal digits are needed, or sha512: and 128"
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

/// A digest being computed.
#[derive(Debug, Clone)]
pub(crate) enum Hash {
    /// The usual one.
    Sha256(sha2::Sha256),
    /// That of others.
    Sha512(Box<sha2::Sha512>),
}

// === impl Hash ===

impl Hash {
    /// A new one, of the algorithm that this digest has.
    pub(crate) fn like(digest: Option<&Digest>) -> Self {
        if digest.is_some_and(|digest| !digest.is_usual()) {
            Self::Sha512(Box::default())
        } else {
            Self::Sha256(sha2::Sha256::default())
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        use sha2::Digest as _;
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> Digest {
        use sha2::Digest as _;
        match self {
            Self::Sha256(hash) => Digest::from_sha256(&hash.finalize()),
            Self::Sha512(hash) => Digest(format!("{SHA512}:{}", hex(&hash.finalize()))),
        }
    }
}

impl std::io::Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

// === impl Digest ===

impl Digest {
    /// The sha256 of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self::from_sha256(&sha2::Sha256::digest(bytes))
    }

    /// The digest whose 32 bytes were computed elsewhere.
    pub fn from_sha256(bytes: &[u8]) -> Self {
        Self(format!("sha256:{}", hex(bytes)))
    }

    /// Whether these bytes have this digest.
    pub fn is_of(&self, bytes: &[u8]) -> bool {
        let mut hash = Hash::like(Some(self));
        hash.update(bytes);
        hash.finish() == *self
    }

    /// How it is computed: `sha256` or `sha512`.
    pub fn algorithm(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }

    /// Whether it is computed as all digests that are made here.
    pub fn is_usual(&self) -> bool {
        self.algorithm() == SHA256
    }

    /// The hexadecimal digits without the algorithm.
    pub fn hex(&self) -> &str {
        &self.0[self.algorithm().len() + 1..]
    }

    /// Where a layout has the blob (image-spec, image-layout.md): `blobs/sha256/…`.
    pub fn in_layout(&self) -> String {
        format!("blobs/{}/{}", self.algorithm(), self.hex())
    }

    /// The digest of the blob that is there in a layout.
    pub fn of_layout(path: &str) -> Option<Self> {
        path.strip_prefix("blobs/")?.replacen('/', ":", 1).parse().ok()
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
        assert!(digest.is_of(b"") && !digest.is_of(b"x"));
        let empty = "sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e";
        let long: Digest = empty.parse().unwrap();
        assert!(long.is_of(b"") && !long.is_of(b"x") && !long.is_usual());
        assert_eq!(Digest::of_layout(&long.in_layout()), Some(long));
        assert!(
            "sha512:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
                .parse::<Digest>()
                .is_err()
        );
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
