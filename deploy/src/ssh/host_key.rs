//! Who a host has to be, and what that is to ssh.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// How a host proves that it is the one that is meant. There is no way to do without.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub enum HostKey {
    /// By the `known_hosts` of the user and of the machine.
    #[default]
    Known,
    /// By a `known_hosts` given for this.
    KnownIn(KnownHosts),
    /// By one of these fingerprints, whichever of its keys they are of.
    Pinned(Vec<Fingerprint>),
    /// By whatever it shows the first time, which is then kept in this file, or in the user's `known_hosts`.
    FirstUse(Option<PathBuf>),
}

/// Lines as in `known_hosts`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum KnownHosts {
    /// In this file.
    File(PathBuf),
    /// In this text.
    Text(String),
}

/// The SHA-256 of a host's public key, as `ssh-keygen -l` shows it.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint(String);

/// Why a text is no fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FingerprintError {
    /// The old kind, which does not tell keys apart safely.
    #[error("{0:?} is an MD5 fingerprint, which is not safe; ssh-keygen -l shows the SHA256 one")]
    Md5(String),
    /// Something else.
    #[error("{0:?} is no fingerprint such as SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU")]
    Other(String),
}

// === impl HostKey ===

impl HostKey {
    /// The options that make ssh keep to it. `known` is where the lines of [`KnownHosts`] are; `refused` are the kinds of
    /// keys that the host has shown and that were not the pinned one.
    pub(super) fn options(&self, known: Option<&PathBuf>, refused: &[String]) -> Vec<OsString> {
        let option = |text: &str| OsString::from(text);
        match self {
            Self::Known => vec![option("StrictHostKeyChecking=yes")],
            Self::KnownIn(_) => {
                let mut user = option("UserKnownHostsFile=");
                user.push(super::attempt::in_quotes(known.cloned().unwrap_or_default().as_os_str()));
                vec![option("StrictHostKeyChecking=yes"), user, option("GlobalKnownHostsFile=/dev/null")]
            }
            // No file may know the host, so that ssh asks about every key, and the pins are the answer.
            Self::Pinned(_) => {
                let mut options = vec![
                    option("StrictHostKeyChecking=ask"),
                    option("UserKnownHostsFile=/dev/null"),
                    option("GlobalKnownHostsFile=/dev/null"),
                    option("KnownHostsCommand=none"),
                    option("VerifyHostKeyDNS=no"),
                ];
                if !refused.is_empty() {
                    let patterns: Vec<_> = refused.iter().filter_map(|kind| algorithms(kind)).collect();
                    options.push(format!("HostKeyAlgorithms=-{}", patterns.join(",")).into());
                }
                options
            }
            Self::FirstUse(kept) => {
                let mut options = vec![option("StrictHostKeyChecking=accept-new")];
                if let Some(path) = kept {
                    let mut user = option("UserKnownHostsFile=");
                    user.push(super::attempt::in_quotes(path.as_os_str()));
                    options.push(user);
                }
                options
            }
        }
    }
}

/// The algorithms of a kind of key, as ssh names the kind when it asks.
pub(super) fn algorithms(kind: &str) -> Option<&'static str> {
    match kind {
        "ED25519" => Some("ssh-ed25519*"),
        "ECDSA" => Some("ecdsa-sha2-*"),
        "RSA" => Some("rsa-sha2-*,ssh-rsa*"),
        "ED25519-SK" => Some("sk-ssh-ed25519*"),
        "ECDSA-SK" => Some("sk-ecdsa-sha2-*"),
        _ => None,
    }
}

// === impl Fingerprint ===

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        // Whole lines of `ssh-keygen -l` are pasted, too.
        let word = text.split_whitespace().find(|word| word.starts_with("SHA256:")).unwrap_or(text.trim());
        let digest = word.strip_prefix("SHA256:").unwrap_or(word).trim_end_matches('=');
        if word.starts_with("MD5:") || word.split(':').count() == 16 {
            return Err(FingerprintError::Md5(text.to_owned()));
        }
        match STANDARD_NO_PAD.decode(digest) {
            Ok(bytes) if bytes.len() == 32 => Ok(Self(digest.to_owned())),
            _ => Err(FingerprintError::Other(text.to_owned())),
        }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SHA256:{}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";

    #[test]
    fn a_fingerprint_is_read_as_it_is_pasted() {
        let line = format!("256 {ONE} root@server (ED25519)\n");
        for text in [ONE, &ONE[7..], &format!("{ONE}="), &line] {
            assert_eq!(text.parse::<Fingerprint>().unwrap().to_string(), ONE);
        }
        let md5 = "43:51:43:a1:b5:fc:8b:b7:0a:3a:a9:b1:0f:66:73:a8";
        assert!(matches!(md5.parse::<Fingerprint>(), Err(FingerprintError::Md5(_))));
        assert!(matches!("SHA256:short".parse::<Fingerprint>(), Err(FingerprintError::Other(_))));
    }

    #[test]
    fn a_key_that_was_not_the_pinned_one_is_not_negotiated_again() {
        let pinned = HostKey::Pinned(vec![ONE.parse().unwrap()]);
        let options = pinned.options(None, &["ED25519".into(), "RSA".into()]);
        assert_eq!(options.last().unwrap(), "HostKeyAlgorithms=-ssh-ed25519*,rsa-sha2-*,ssh-rsa*");
        assert!(
            !pinned.options(None, &[]).iter().any(|option| option.to_string_lossy().contains("Algorithms"))
        );
    }

    #[test]
    fn no_host_is_ever_taken_unchecked() {
        let known = HostKey::KnownIn(KnownHosts::Text(String::new()));
        for way in [HostKey::Known, known, HostKey::FirstUse(None), HostKey::Pinned(Vec::new())] {
            let first = way.options(None, &[])[0].clone();
            assert!(
                ["yes", "ask", "accept-new"]
                    .iter()
                    .any(|value| first == *format!("StrictHostKeyChecking={value}"))
            );
        }
    }
}
