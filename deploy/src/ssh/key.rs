//! A private key from a file or a secret, as ssh can read it: repaired where pasting broke it, named where it is
//! something else, and in memory only when it did not come from a file as it is.

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{MemfdFlags, memfd_create};

use super::Secret;

/// Where a private key comes from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum KeySource {
    /// A file.
    File(PathBuf),
    /// The key itself, as a secret of a pipeline holds it.
    Text(Secret),
}

/// A key where ssh can read it, for as long as this lives.
#[derive(Debug)]
pub(super) struct ReadyKey {
    /// What ssh opens.
    pub(super) path: PathBuf,
    /// What the user calls it.
    pub(super) name: String,
    /// What a repaired key is in: memory that has no name, and that ssh reads over `/proc`.
    _memory: Option<fs::File>,
}

/// Why a key is none that could be offered. `{0}` is what the user calls it.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It is the other half.
    #[error("{0} is a public key; the private one is needed")]
    Public(String),
    /// It is what PuTTY writes.
    #[error("{0} is a PuTTY key, which ssh does not read")]
    Putty(String),
    /// It is what an authority says about a key.
    #[error("{0} is a certificate; the private key it belongs to is needed, too")]
    Certificate(String),
    /// It is nothing of the kind.
    #[error("{0} is no private key")]
    Other(String),
    /// It is one, but not all of it.
    #[error("{0} is a damaged or truncated private key")]
    Damaged(String),
    /// It is encrypted.
    #[error("{0} has a passphrase, and none was given")]
    PassphraseNeeded(String),
    /// ssh refuses a key that others can read.
    #[error("{0} can be read by others (mode {1:o}), so ssh refuses it")]
    Open(String, u32),
    /// It cannot be read.
    #[error("cannot read {name}")]
    Unreadable {
        /// What the user calls it.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A key as text: what is between its first and its last line is as ssh wants it.
struct Text {
    text: String,
    encrypted: bool,
}

/// How an OpenSSH key begins once decoded; the name of a cipher follows.
const MAGIC: &[u8] = b"openssh-key-v1\0";

// === impl KeySource ===

impl KeySource {
    /// Puts the key where ssh can read it. With a passphrase, it may be encrypted.
    pub(super) fn ready(&self, has_passphrase: bool) -> Result<ReadyKey, KeyError> {
        match self {
            Self::Text(secret) => {
                let name = "the key".to_owned();
                let key = read(secret.expose(), &name)?;
                if key.encrypted && !has_passphrase {
                    return Err(KeyError::PassphraseNeeded(name));
                }
                in_memory(&key.text, name)
            }
            Self::File(path) => from_file(path, has_passphrase),
        }
    }

    /// Whether this value gives a key away.
    pub(super) fn is_in(&self, value: &str) -> bool {
        matches!(self, Self::Text(secret) if secret.is_in(value))
    }
}

fn from_file(path: &Path, has_passphrase: bool) -> Result<ReadyKey, KeyError> {
    let name = format!("the key {}", path.display());
    let unreadable = |source| KeyError::Unreadable { name: name.clone(), source };
    let text = fs::read_to_string(path).map_err(unreadable)?;
    let metadata = fs::metadata(path).map_err(unreadable)?;
    let as_it_is = |name| ReadyKey { path: path.to_owned(), name, _memory: None };
    let has_agent = std::env::var_os("SSH_AUTH_SOCK").is_some();
    let key = match read(&text, &name) {
        // The public half chooses one of the keys that an agent holds.
        Err(KeyError::Public(_)) if has_agent => return Ok(as_it_is(name)),
        other => other?,
    };
    // Same test as in ssh, which minds only files of the user's own.
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o77 != 0 && metadata.uid() == rustix::process::getuid().as_raw() {
        return Err(KeyError::Open(name, mode));
    }
    if key.encrypted && !has_passphrase && !has_agent {
        return Err(KeyError::PassphraseNeeded(name));
    }
    if key.text == text { Ok(as_it_is(name)) } else { in_memory(&key.text, name) }
}

fn in_memory(text: &str, name: String) -> Result<ReadyKey, KeyError> {
    let write = || -> io::Result<fs::File> {
        let mut memory = fs::File::from(memfd_create("key", MemfdFlags::CLOEXEC)?);
        // ssh minds the mode of what it reads a key from.
        memory.set_permissions(fs::Permissions::from_mode(0o600))?;
        memory.write_all(text.as_bytes())?;
        Ok(memory)
    };
    let memory = write().map_err(|source| KeyError::Unreadable { name: name.clone(), source })?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd()).into();
    Ok(ReadyKey { path, name, _memory: Some(memory) })
}

/// Reads a key as it was pasted: with line ends of another system or none, with spaces or `\n` for them, or in base64
/// once more, as people do to get it through a form.
fn read(pasted: &str, name: &str) -> Result<Text, KeyError> {
    let mut text = pasted.trim_start_matches('\u{feff}').trim().replace("\r\n", "\n").replace('\r', "\n");
    if !text.contains('\n') {
        text = text.replace("\\n", "\n");
    }
    if let Some(inner) = decoded(&text).and_then(|bytes| String::from_utf8(bytes).ok())
        && inner.contains("-----BEGIN ")
    {
        text = inner.replace("\r\n", "\n");
    }
    let Some((label, body)) = sections(&text) else { return Err(other_kind(&text, name)) };
    match label {
        "OPENSSH PRIVATE KEY" => {
            let bytes = decoded(body).ok_or_else(|| KeyError::Damaged(name.to_owned()))?;
            let encrypted = encrypted(&bytes).ok_or_else(|| KeyError::Damaged(name.to_owned()))?;
            Ok(Text { text: framed(label, &STANDARD.encode(bytes)), encrypted })
        }
        _ if label.ends_with("PRIVATE KEY") => {
            let encrypted = label.starts_with("ENCRYPTED") || body.contains("Proc-Type: 4,ENCRYPTED");
            let text = if body.contains(": ") {
                let lines: Vec<_> = body.trim().lines().map(str::trim).collect();
                format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
            } else {
                let bytes = decoded(body).ok_or_else(|| KeyError::Damaged(name.to_owned()))?;
                framed(label, &STANDARD.encode(bytes))
            };
            Ok(Text { text, encrypted })
        }
        _ if label.contains("PUBLIC KEY") => Err(KeyError::Public(name.to_owned())),
        _ if label.contains("CERTIFICATE") => Err(KeyError::Certificate(name.to_owned())),
        _ => Err(KeyError::Other(name.to_owned())),
    }
}

/// The label of the first thing in PEM, and what is between its first and its last line.
fn sections(text: &str) -> Option<(&str, &str)> {
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    // Without its last line it is a key still, only a damaged one.
    let body = rest.split_once("-----END ").map_or("", |(body, _)| body);
    Some((label, body))
}

fn other_kind(text: &str, name: &str) -> KeyError {
    let name = name.to_owned();
    let first = text.split_whitespace().next().unwrap_or_default();
    if text.starts_with("PuTTY-User-Key-File-") {
        KeyError::Putty(name)
    } else if first.contains("-cert-v01@") {
        KeyError::Certificate(name)
    } else if ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"].iter().any(|kind| first.starts_with(kind))
        || text.starts_with("---- BEGIN SSH2 PUBLIC KEY")
    {
        KeyError::Public(name)
    } else {
        KeyError::Other(name)
    }
}

fn decoded(body: &str) -> Option<Vec<u8>> {
    let letters: String = body.split_whitespace().collect();
    STANDARD.decode(letters).ok().filter(|bytes| !bytes.is_empty())
}

/// Whether an OpenSSH key is encrypted, when it is one.
fn encrypted(bytes: &[u8]) -> Option<bool> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (length, rest) = rest.split_first_chunk()?;
    let cipher = rest.get(..u32::from_be_bytes(*length) as usize)?;
    Some(cipher != b"none")
}

fn framed(label: &str, letters: &str) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    for (position, letter) in letters.chars().enumerate() {
        if position > 0 && position % 70 == 0 {
            text.push('\n');
        }
        text.push(letter);
    }
    text + &format!("\n-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made for this test, and used nowhere.
    const KEY: &str = "-----BEGIN OPENSSH PRIVATE KEY-----
b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAABub3QgYSBrZXksIGJ1dCBhcy
Bsb25nIGFzIG9uZSB3b3VsZCBiZTogbm90IGEga2V5LCBidXQgYXMgbG9uZyBhcyBvbmUg
d291bGQgYmU6IG5vdCBhIGtleSwgYnV0IGFzIGxvbmcgYXMgb25lIHdvdWxkIGJlOiBub3
QgYSBrZXksIGJ1dCBhcyBsb25nIGFzIG9uZSB3b3VsZCBiZTogbm90IGEga2V5LCBidXQg
YXMgbG9uZyBhcyBvbmUgd291bGQgYmU6IA==
-----END OPENSSH PRIVATE KEY-----
";

    fn why(text: &str) -> KeyError {
        KeySource::Text(Secret::new(text)).ready(false).unwrap_err()
    }

    #[test]
    fn a_key_that_pasting_broke_is_repaired() {
        let pasted = [
            KEY.to_owned(),
            KEY.replace('\n', "\r\n"),
            KEY.trim().to_owned(),
            KEY.replace('\n', " "),
            KEY.replace('\n', "\\n"),
            format!("\u{feff}\n\n  {}", KEY.replace('\n', "\n  ")),
            STANDARD.encode(KEY),
        ];
        for text in pasted {
            let key = read(&text, "the key").unwrap();
            assert_eq!(key.text, KEY);
            assert!(!key.encrypted);
        }
    }

    #[test]
    fn a_repaired_key_is_in_memory_only() {
        let key = KeySource::Text(Secret::new(KEY.trim())).ready(false).unwrap();
        assert_eq!(fs::read_to_string(&key.path).unwrap(), KEY);
        assert!(key.path.starts_with("/proc"));
        assert!(fs::read_link(&key.path).unwrap().to_string_lossy().contains("memfd:"));
    }

    #[test]
    fn what_is_no_private_key_is_named() {
        assert!(matches!(why("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 me@here"), KeyError::Public(_)));
        assert!(matches!(
            why("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"),
            KeyError::Public(_)
        ));
        assert!(matches!(why("PuTTY-User-Key-File-3: ssh-ed25519\n"), KeyError::Putty(_)));
        assert!(matches!(why("ssh-ed25519-cert-v01@openssh.com AAAA"), KeyError::Certificate(_)));
        assert!(matches!(why("hunter2"), KeyError::Other(_)));
        assert!(matches!(why(""), KeyError::Other(_)));
        assert!(matches!(why(&KEY[..200]), KeyError::Damaged(_)));
        let locked = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n\
                      -----END RSA PRIVATE KEY-----";
        assert!(matches!(why(locked), KeyError::PassphraseNeeded(_)));
    }

    #[test]
    fn an_encrypted_key_needs_its_passphrase() {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(10_u32.to_be_bytes());
        bytes.extend(b"aes256-ctr rest");
        let text = framed("OPENSSH PRIVATE KEY", &STANDARD.encode(bytes));
        assert!(matches!(why(&text), KeyError::PassphraseNeeded(_)));
        assert!(KeySource::Text(Secret::new(text)).ready(true).is_ok());
    }
}
