//! Ways into a server: from `user@host:port` to a remote command with two pipes, over the system's own `ssh`.
//!
//! One `ssh -M` per server stays connected ([`Session`]) and honours the user's `ssh_config`; each command is one more
//! channel of it. Secrets reach ssh when it asks for them, over a socket, and only when the question is a known one.
//! Every failure has a name and a hint ([`SshError`]), and none takes longer than [`PATIENCE`].

mod address;
mod askpass;
mod attempt;
mod diagnosis;
mod door;
mod failure;
mod host_key;
mod keeper;
mod kept;
mod key;
mod line;
mod log;
mod master;
mod pipes;
mod secret;
mod session;
mod sudo;
mod target;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use address::{Address, AddressError};
pub use door::Door;
pub use failure::SshError;
pub use host_key::{Fingerprint, FingerprintError, HostKey, KnownHosts};
pub use key::{KeyError, KeySource};
pub(crate) use line::runtime;
pub use pipes::{Ending, Output, Pipes};
pub use secret::Secret;
pub use session::{Session, first_line, quoted};
pub use sudo::Sudo;

/// The longest that anything here takes to fail, in all.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How to get into a server. Printed for debugging, it shows no secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Access {
    /// What the server itself wants to see.
    pub login: Login,
    /// The hosts on the way there, in order.
    pub jump: Vec<Jump>,
    /// How a command becomes root's.
    pub sudo: Sudo,
    /// How long a host may take to answer at all.
    pub connect_timeout: Duration,
    /// How long the connection stays for a next command, when logging in takes no secret; not at all when zero.
    #[serde(skip)]
    pub keep: Duration,
    /// The executable that ssh calls to ask for a secret: this very one, unless it does not begin with
    /// [`enter_if_asked`].
    #[serde(skip, default = "this_executable")]
    pub executable: PathBuf,
}

/// Who we are to one host, and who it has to be. Without password and key it is the user's own agent, keys and
/// configuration that let us in.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Login {
    /// For password and for keyboard-interactive authentication.
    pub password: Option<Secret>,
    /// The only private key to offer.
    pub key: Option<KeySource>,
    /// What the private key is encrypted with.
    pub passphrase: Option<Secret>,
    /// The socket of the agent to ask for keys, instead of the one that `SSH_AUTH_SOCK` names.
    pub agent: Option<PathBuf>,
    /// What a certificate authority says about the key.
    pub certificate: Option<PathBuf>,
    /// Who the host has to be.
    pub host_key: HostKey,
}

/// A host on the way to a server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Jump {
    /// Where it is.
    pub address: Address,
    /// How to get in.
    pub login: Login,
}

/// Becomes what ssh needs of this executable when ssh, or this program on its behalf, started it. To be called first
/// thing in `main`.
pub fn enter_if_asked() -> Option<ExitCode> {
    keeper::enter_if_asked().or_else(askpass::enter_if_asked)
}

// === impl Access ===

impl Default for Access {
    fn default() -> Self {
        Self {
            login: Login::default(),
            jump: Vec::new(),
            sudo: Sudo::default(),
            connect_timeout: Duration::from_secs(10),
            keep: Duration::ZERO,
            executable: this_executable(),
        }
    }
}

impl Access {
    /// Access with this login, and everything else as usual.
    pub fn by(login: Login) -> Self {
        Self { login, ..Self::default() }
    }
}

/// Not its path: the file may be replaced while this runs.
fn this_executable() -> PathBuf {
    format!("/proc/{}/exe", std::process::id()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_reaches_another_process_whole() {
        let login = Login {
            password: Some(Secret::new("hunter2")),
            key: Some(KeySource::Text(Secret::new("a key"))),
            host_key: HostKey::FirstUse(Some("/known".into())),
            ..Login::default()
        };
        let access = Access { sudo: Sudo::Password(Secret::new("root's")), ..Access::by(login) };
        let text = serde_json::to_string(&access).unwrap();
        assert!(!text.contains("/proc"), "the executable is the other process's own: {text}");
        let there: Access = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&there).unwrap(), text);
        assert_eq!(there.executable, access.executable);
    }

    #[test]
    fn access_shows_no_secret() {
        let secret = || Some(Secret::new("hunter2"));
        let login = Login {
            password: secret(),
            passphrase: secret(),
            key: secret().map(KeySource::Text),
            ..Login::default()
        };
        let jump = Jump { address: "me@bastion".parse().unwrap(), login: login.clone() };
        let sudo = Sudo::Password(Secret::new("hunter2"));
        let access = Access { jump: vec![jump], sudo, ..Access::by(login) };
        assert!(!format!("{access:?}").contains("hunter2"));
    }
}
