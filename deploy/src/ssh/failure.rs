//! Why there is no way into a server, or a command did not do there what it should, by name and with a hint.

use std::io;

use super::key::KeyError;

/// Why a server was not reached, or did not do as it was told. `at` is `user@host:port` as far as it was given.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum SshError {
    #[error("{at} refused the connection")]
    Refused { at: String },
    #[error("there is no host {host:?}")]
    UnknownHost { host: String },
    #[error("{at} did not answer in time while it was to {step}")]
    TimedOut { at: String, step: &'static str },
    #[error("there is no way to {at}: {why}")]
    Unreachable { at: String, why: String },
    #[error("{at} closed the connection before anybody could log in")]
    Closed { at: String },
    #[error("what answers at {at} is no ssh server")]
    NotSsh { at: String },
    #[error("{at} and the local ssh share no {what}; it offers {offered}")]
    NoCommonAlgorithm { at: String, what: String, offered: String },

    #[error("the host key of {at} is not known; it shows {fingerprint}")]
    HostKeyUnknown { at: String, fingerprint: String },
    #[error("the host key of {at} has CHANGED: it shows {fingerprint}, which is not the one in {known_in}")]
    HostKeyChanged { at: String, fingerprint: String, known_in: String },
    #[error("the host key of {at} is marked as revoked")]
    HostKeyRevoked { at: String },
    #[error("{at} is not the pinned host: pinned {}, shown {}", pinned.join(", "), shown.join(", "))]
    PinMismatch { at: String, pinned: Vec<String>, shown: Vec<String> },

    #[error("{at} accepts {}, and we have {had}", listed(offered))]
    NoMethodLeft { at: String, offered: Vec<String>, had: String },
    #[error("{at} did not accept {key}; it accepts {}", listed(offered))]
    KeyNotAccepted { at: String, key: String, offered: Vec<String> },
    #[error("the key {key} has a passphrase, and none was given")]
    PassphraseNeeded { key: String },
    #[error("the passphrase is not that of {key}")]
    WrongPassphrase { key: String },
    #[error("{at} did not accept the password")]
    PasswordWrong { at: String },
    #[error("the password has expired at {at}")]
    PasswordExpired { at: String },
    #[error("{at} asks {question:?}, and there is no answer to that")]
    Question { at: String, question: String },
    #[error("{at} was not logged in at in time; ssh was waiting: {said}")]
    NotTouched { at: String, said: String },
    #[error("{at} saw too many keys that it does not know, and hung up")]
    TooManyFailures { at: String },
    #[error(transparent)]
    Key(#[from] KeyError),

    #[error("cannot go by way of {hop}")]
    Jump {
        hop: String,
        #[source]
        source: Box<SshError>,
    },
    #[error("{hop} does not forward connections to {at}")]
    ForwardingDisabled { hop: String, at: String },
    #[error("{at} does not let programs there reach a socket of this machine, such as an SSH agent's")]
    SocketRefused { at: String },

    #[error("there is no sudo at {at}, and {user} is not root")]
    SudoMissing { at: String, user: String },
    #[error("sudo at {at} wants the password of {user}")]
    SudoWantsPassword { at: String, user: String },
    #[error("sudo at {at} did not accept the password of {user}")]
    SudoPasswordWrong { at: String, user: String },
    #[error("{user} may not use sudo at {at}")]
    NotInSudoers { at: String, user: String },
    #[error("sudo at {at} wants a terminal (requiretty)")]
    SudoNeedsTerminal { at: String },
    #[error("sudo failed at {at}: {said}")]
    SudoFailed { at: String, said: String },
    #[error("{user} is not root at {at}, and sudo is not to be used")]
    NotRoot { at: String, user: String },

    #[error("{at} runs something else than what it was told to{}", quoted_text(said))]
    NoShell { at: String, said: String },
    #[error("{at} does not open another session on the same connection")]
    SessionRefused { at: String },
    #[error("there is no space left at {at}: {said}")]
    NoSpace { at: String, said: String },
    #[error("{at} does not let anything be written there: {said}")]
    NotWritable { at: String, said: String },
    #[error("{at} does not execute files there: {said}")]
    NotExecutable { at: String, said: String },
    #[error("{what} failed at {at} with exit code {code}{}", quoted_text(said))]
    Command { at: String, what: String, code: i32, said: String },

    #[error("the connection to {at} was lost{}", quoted_text(said))]
    Lost { at: String, said: String },
    #[error("the program ssh is not there: {0}")]
    ProgramMissing(String),
    #[error("cannot {step}")]
    Local {
        step: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("cannot log in at {at}: {said}")]
    Other { at: String, said: String },
}

// === impl SshError ===

impl SshError {
    /// What it is to the one who named the host so.
    pub fn on(self, host: &str) -> engine::error::Error {
        let hint = self.hint();
        let text = engine::error::chain(&self);
        let error = if text.contains(host) {
            engine::error::Error::new(engine::Kind::Failed, text)
        } else {
            engine::error::Error::failed(format!("host {host}"), self)
        };
        error.with_hint_if(hint)
    }

    /// What to do about it, when there is something.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Refused { .. } => {
                "is its ssh server running, and on this port? Another one is user@host:port"
            }
            Self::Unreachable { .. } => {
                "is the address right, and is this machine on the same network or VPN?"
            }
            Self::UnknownHost { .. } => "check the name, or write its IP address",
            Self::TimedOut { .. } => "a firewall that drops, a host that is down, or one that is very busy",
            Self::Closed { .. } => {
                "it may be busy (MaxStartups), or have shut this address out for a while (fail2ban, hosts.deny): its log says which, try \
                 again later"
            }
            Self::NotSsh { .. } => "check the port",
            Self::NoCommonAlgorithm { .. } => {
                "update its ssh server, or allow what it offers for this host in ~/.ssh/config"
            }
            Self::HostKeyRevoked { .. } => {
                "whoever runs the server has withdrawn that key: ask for its new one"
            }
            Self::HostKeyUnknown { fingerprint, .. } => {
                let pin = fingerprint
                    .split_whitespace()
                    .find(|word| word.starts_with("SHA256:"))
                    .unwrap_or(fingerprint);
                return Some(format!(
                    "compare it with what `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` shows on the server, then pin it \
                     (--fingerprint {pin}) or add the host to known_hosts"
                ));
            }
            Self::HostKeyChanged { .. } => {
                "the server was set up anew, or somebody is in between: ask who runs it before removing the old line \
                 (ssh-keygen -R HOST)"
            }
            Self::PinMismatch { .. } => {
                "the server was set up anew, or somebody is in between: ask who runs it before pinning another"
            }
            Self::Lost { .. } => {
                "run it again: what was sent is kept there, and a deployment that was cut off goes back by itself"
            }
            Self::ProgramMissing(_) => "install openssh-client",
            Self::Jump { source, .. } => return source.hint(),
            _ => return self.hint_of_login().or_else(|| self.hint_of_command()).map(str::to_owned),
        };
        Some(text.to_owned())
    }

    /// The same for what keeps somebody from logging in.
    fn hint_of_login(&self) -> Option<&'static str> {
        Some(match self {
            Self::NoMethodLeft { .. } => {
                "give it what it accepts: a key (-i, RDEPLOY_SSH_KEY) for publickey, a password (RDEPLOY_SSH_PASSWORD) for password or \
                 keyboard-interactive"
            }
            Self::KeyNotAccepted { .. } => {
                "is its public half in ~/.ssh/authorized_keys of that user there, and is the user the right one?"
            }
            Self::PasswordWrong { at } if at.starts_with("root@") => {
                "check RDEPLOY_SSH_PASSWORD; most servers let root in by key alone (PermitRootLogin prohibit-password), and take a password of a \
                 user who may use sudo"
            }
            Self::PasswordWrong { .. } => {
                "check RDEPLOY_SSH_PASSWORD, and that the user is the right one and may log in by password there"
            }
            Self::WrongPassphrase { .. } => {
                "check RDEPLOY_SSH_PASSPHRASE, and that it is this key that is meant"
            }
            Self::PassphraseNeeded { .. } | Self::Key(KeyError::PassphraseNeeded(_)) => {
                "give the passphrase by RDEPLOY_SSH_PASSPHRASE, or a key without one"
            }
            Self::Key(KeyError::Public(_)) => "the private key is in the file without .pub",
            Self::Key(KeyError::Putty(_)) => "convert it: puttygen key.ppk -O private-openssh -o key",
            Self::Key(KeyError::Open(..)) => "chmod 600 the file",
            Self::Key(KeyError::Damaged(_) | KeyError::Other(_)) => {
                "paste the whole file, from -----BEGIN to -----END"
            }
            Self::Key(KeyError::Certificate(_)) => {
                "give the private key as the key, and this as the certificate"
            }
            Self::Question { question, .. } if question.contains("PIN") => {
                "give the key to an SSH agent, which asks for it once: ssh-add"
            }
            Self::Question { question, .. } if question.to_lowercase().contains("password") => {
                "a host on the way needs a login of its own: name it as a jump host"
            }
            Self::Question { .. } => {
                "what is another one with every login cannot be given: log in by a key for which nothing more is asked"
            }
            Self::NotTouched { .. } => "touch the key when it blinks",
            Self::PasswordExpired { .. } => "log in by hand once and change it",
            Self::TooManyFailures { .. } => "name the one key to use",
            _ => return None,
        })
    }

    /// The same for what keeps commands from doing there what they should.
    fn hint_of_command(&self) -> Option<&'static str> {
        Some(match self {
            Self::ForwardingDisabled { .. } => {
                "its sshd_config needs AllowTcpForwarding yes (or local), and PermitOpen with the target"
            }
            Self::SocketRefused { .. } => "its sshd_config needs AllowStreamLocalForwarding yes (or remote)",
            Self::SudoMissing { .. } => "log in as root, or install sudo",
            Self::SudoWantsPassword { .. } => {
                "give the password by RDEPLOY_SUDO_PASSWORD, or let sudoers have NOPASSWD for this user"
            }
            Self::SudoPasswordWrong { .. } => {
                "check RDEPLOY_SUDO_PASSWORD: it is the one of this user, not root's, unless sudoers has rootpw"
            }
            Self::NotInSudoers { .. } => "log in as root, or as a user whom sudoers knows",
            Self::SudoNeedsTerminal { .. } => "take requiretty out of sudoers for this user",
            Self::NotRoot { .. } => "log in as root, or let sudo be used",
            Self::NoShell { .. } => "the user needs a real login shell, and no ForceCommand",
            Self::SessionRefused { .. } => "its sshd_config has a low MaxSessions",
            Self::NoSpace { .. } => {
                "make room there (`rdeploy prune`, if this program was there before); --remote-root chooses another place"
            }
            Self::NotWritable { .. } | Self::NotExecutable { .. } => "--remote-root chooses another place",
            _ => return None,
        })
    }
}

fn listed(methods: &[String]) -> String {
    if methods.is_empty() { "nothing that ssh knows".to_owned() } else { methods.join(", ") }
}

/// What was said, after a colon, when anything was.
fn quoted_text(said: &str) -> String {
    let said = said.trim();
    if said.is_empty() { String::new() } else { format!(": {said}") }
}
