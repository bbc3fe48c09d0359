//! Why there is no way into a server, by name, from what ssh said.

use std::io;

use super::askpass::Refused;
use super::keeper;
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

/// What is known of an attempt besides what ssh said.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Whom we tried to reach, as the user wrote it.
    pub(super) at: String,
    /// The host alone.
    pub(super) host: String,
    /// The host on the way, when there is one.
    pub(super) by_way_of: Option<String>,
    /// The only key offered, as the user calls it.
    pub(super) key: Option<String>,
    /// Whether there was a password.
    pub(super) has_password: bool,
    /// Whether a passphrase was asked for and given.
    pub(super) gave_passphrase: bool,
    /// The fingerprints that the host may show, when only those.
    pub(super) pins: Vec<String>,
    /// The fingerprints that it did show in earlier attempts.
    pub(super) shown: Vec<String>,
    /// The questions that were not answered.
    pub(super) refused: Vec<Refused>,
    /// Whether we gave up waiting.
    pub(super) timed_out: bool,
}

// === impl SshError ===

impl SshError {
    /// What to do about it, when there is something.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Refused { .. } => {
                "is its ssh server running, and on this port? Another one is user@host:port"
            }
            Self::UnknownHost { .. } => "check the name, or write its IP address",
            Self::TimedOut { .. } => "a firewall that drops, a host that is down, or one that is very busy",
            Self::NotSsh { .. } => "check the port",
            Self::HostKeyUnknown { fingerprint, .. } => {
                let pin = fingerprint
                    .split_whitespace()
                    .find(|word| word.starts_with("SHA256:"))
                    .unwrap_or(fingerprint);
                return Some(format!(
                    "compare it with what `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` shows on the server, then pin it \
                     ({pin}) or add the host to known_hosts"
                ));
            }
            Self::HostKeyChanged { .. } => {
                "the server was set up anew, or somebody is in between: ask who runs it before removing the old line"
            }
            Self::PinMismatch { .. } => {
                "the server was set up anew, or somebody is in between: ask who runs it before pinning another"
            }
            Self::NoMethodLeft { .. } => {
                "give it what it accepts: a key for publickey, a password for password or keyboard-interactive"
            }
            Self::KeyNotAccepted { .. } => {
                "is its public half in ~/.ssh/authorized_keys of that user there, and is the user the right one?"
            }
            Self::PassphraseNeeded { .. } | Self::Key(KeyError::PassphraseNeeded(_)) => {
                "give the passphrase, or a key without one"
            }
            Self::Key(KeyError::Public(_)) => "the private key is in the file without .pub",
            Self::Key(KeyError::Putty(_)) => "convert it: puttygen key.ppk -O private-openssh -o key",
            Self::Key(KeyError::Open(..)) => "chmod 600 the file",
            Self::Key(KeyError::Damaged(_)) => "paste the whole file, from -----BEGIN to -----END",
            Self::Key(KeyError::Certificate(_)) => {
                "give the private key as the key, and this as the certificate"
            }
            Self::PasswordExpired { .. } => "log in by hand once and change it",
            Self::TooManyFailures { .. } => "name the one key to use",
            Self::ForwardingDisabled { .. } => {
                "its sshd_config needs AllowTcpForwarding yes (or local), and PermitOpen with the target"
            }
            Self::SudoMissing { .. } => "log in as root, or install sudo",
            Self::SudoWantsPassword { .. } => {
                "give the sudo password, or let sudoers have NOPASSWD for this user"
            }
            Self::NotInSudoers { .. } => "log in as root, or as a user whom sudoers knows",
            Self::SudoNeedsTerminal { .. } => "take requiretty out of sudoers for this user",
            Self::NotRoot { .. } => "log in as root, or let sudo be used",
            Self::NoShell { .. } => "the user needs a real login shell, and no ForceCommand",
            Self::SessionRefused { .. } => "its sshd_config has a low MaxSessions",
            Self::ProgramMissing(_) => "install openssh-client",
            Self::Jump { source, .. } => return source.hint(),
            _ => return None,
        };
        Some(text.to_owned())
    }
}

/// Names what went wrong from what ssh said (`-v`) and what is known besides. Pure.
pub(super) fn of_log(log: &str, facts: &Facts) -> SshError {
    let at = facts.at.clone();
    if let Some(line) = line_with(log, keeper::MISSING) {
        return SshError::ProgramMissing(after(line, keeper::MISSING));
    }
    of_way(log, facts)
        .or_else(|| of_host_key(log, facts))
        .or_else(|| of_questions(facts))
        .or_else(|| of_authentication(log, facts))
        .or_else(|| facts.timed_out.then(|| SshError::TimedOut { at: at.clone(), step: step(log) }))
        .or_else(|| of_closing(log, facts))
        .unwrap_or_else(|| SshError::Other { at, said: last_words(log) })
}

/// What keeps a connection from coming about.
fn of_way(log: &str, facts: &Facts) -> Option<SshError> {
    let at = facts.at.clone();
    let has = |text: &str| log.contains(text);
    if let Some(hop) = &facts.by_way_of {
        if has("administratively prohibited") || has("open failed: unknown channel type") {
            return Some(SshError::ForwardingDisabled { hop: hop.clone(), at });
        }
        if let Some(line) = line_with(log, "open failed: connect failed: ") {
            return Some(of_reason(&after(line, "connect failed: "), facts));
        }
    }
    if let Some(line) = line_with(log, "Could not resolve hostname ") {
        let name = after(line, "Could not resolve hostname ");
        let host = name.split(": ").next().unwrap_or_default().to_owned();
        return Some(SshError::UnknownHost { host });
    }
    // ssh tries every address of a name; the last word counts.
    let line = log.lines().rev().find(|line| line.contains("ssh: connect to host "))?;
    Some(of_reason(line.rsplit(": ").next().unwrap_or_default(), facts))
}

fn of_reason(reason: &str, facts: &Facts) -> SshError {
    let at = facts.at.clone();
    if reason.starts_with("Connection refused") {
        SshError::Refused { at }
    } else if reason.starts_with("Connection timed out") {
        SshError::TimedOut { at, step: "take the connection" }
    } else if reason.contains("not known") || reason.contains("resolution") || reason.contains("No address") {
        SshError::UnknownHost { host: facts.host.clone() }
    } else {
        SshError::Unreachable { at, why: reason.to_owned() }
    }
}

/// What ssh has against the host's key.
fn of_host_key(log: &str, facts: &Facts) -> Option<SshError> {
    let at = facts.at.clone();
    let shown = line_with(log, "Server host key: ").map(|line| after(line, "Server host key: "));
    let fingerprint = shown.unwrap_or_else(|| "no key".to_owned());
    let refused = facts.refused.iter().rev().find_map(|refused| match refused {
        Refused::HostKey { kind, fingerprint } => Some(format!("{fingerprint} ({kind})")),
        _ => None,
    });
    let no_more = log.contains("no matching host key type found") && !facts.shown.is_empty();
    if !facts.pins.is_empty() && (refused.is_some() || no_more) {
        let mut shown = facts.shown.clone();
        shown.extend(refused.filter(|refused| !facts.shown.contains(refused)));
        return Some(SshError::PinMismatch { at, pinned: facts.pins.clone(), shown });
    }
    if log.contains("REMOTE HOST IDENTIFICATION HAS CHANGED")
        || log.contains("host key for") && log.contains("has changed and you have requested")
    {
        let line = line_with(log, "Offending ");
        let known_in =
            line.and_then(|line| line.split_once(" key in ")).map_or("known_hosts", |(_, place)| place);
        return Some(SshError::HostKeyChanged { at, fingerprint, known_in: known_in.trim().to_owned() });
    }
    if log.contains("REVOKED HOST KEY DETECTED") || log.contains("marked as revoked") {
        return Some(SshError::HostKeyRevoked { at });
    }
    if log.contains("host key is known for") || log.contains("Host key verification failed") {
        return Some(SshError::HostKeyUnknown { at, fingerprint });
    }
    let line = line_with(log, "Unable to negotiate with ")?;
    let what = line.split("no matching ").nth(1).and_then(|rest| rest.split(" found").next());
    let offered = line.split("Their offer: ").nth(1).unwrap_or("nothing").trim().to_owned();
    Some(SshError::NoCommonAlgorithm { at, what: what.unwrap_or("algorithm").to_owned(), offered })
}

/// What was asked and not answered, when that was the end of it.
fn of_questions(facts: &Facts) -> Option<SshError> {
    let at = facts.at.clone();
    facts.refused.iter().find_map(|refused| match refused {
        Refused::PasswordAgain => Some(SshError::PasswordWrong { at: at.clone() }),
        Refused::NewPassword => Some(SshError::PasswordExpired { at: at.clone() }),
        Refused::Other(question) => Some(SshError::Question { at: at.clone(), question: question.clone() }),
        _ => None,
    })
}

/// What the server has against us.
fn of_authentication(log: &str, facts: &Facts) -> Option<SshError> {
    let at = facts.at.clone();
    if let Some(line) = line_with(log, "incorrect passphrase supplied to decrypt") {
        let key = line.split('"').nth(1).unwrap_or_default().to_owned();
        return Some(SshError::WrongPassphrase { key: facts.key.clone().unwrap_or(key) });
    }
    if log.contains("Too many authentication failures") {
        return Some(SshError::TooManyFailures { at });
    }
    if !log.contains("Permission denied (") && !log.contains("No more authentication methods to try") {
        return None;
    }
    for refused in &facts.refused {
        match refused {
            Refused::PassphraseAgain(key) => {
                return Some(SshError::WrongPassphrase {
                    key: facts.key.clone().unwrap_or_else(|| key.clone()),
                });
            }
            Refused::Passphrase(key) => return Some(SshError::PassphraseNeeded { key: key.clone() }),
            _ => {}
        }
    }
    // ssh does not say that a passphrase was wrong. But then it cannot sign with a key that the server would take, or not
    // even find out which key it has.
    if let Some(key) = facts.key.as_ref().filter(|_| facts.gave_passphrase)
        && (log.contains("Server accepts key: ") || !log.contains("Offering public key: "))
    {
        return Some(SshError::WrongPassphrase { key: key.clone() });
    }
    let offered = offered(log);
    let accepts = |method: &str| offered.iter().any(|offer| offer == method);
    let by_password = accepts("password") || accepts("keyboard-interactive");
    if facts.has_password && by_password && log.contains("Next authentication method: ") {
        return Some(SshError::PasswordWrong { at });
    }
    match &facts.key {
        Some(key) if accepts("publickey") => Some(SshError::KeyNotAccepted { at, key: key.clone(), offered }),
        key => Some(SshError::NoMethodLeft { at, offered, had: had(key.as_ref(), facts.has_password, log) }),
    }
}

fn had(key: Option<&String>, has_password: bool, log: &str) -> String {
    match (key, has_password) {
        (Some(key), true) => format!("{key} and a password"),
        (Some(key), false) => key.clone(),
        (None, true) => "a password".to_owned(),
        (None, false) => match log.matches("Offering public key: ").count() {
            0 => "neither a key nor a password".to_owned(),
            1 => "one key of the user's own".to_owned(),
            count => format!("{count} keys of the user's own"),
        },
    }
}

/// How a connection ended that nobody had anything against.
fn of_closing(log: &str, facts: &Facts) -> Option<SshError> {
    let at = facts.at.clone();
    if log.contains("Exceeded MaxStartups") || log.contains("Not allowed at this time") {
        return Some(SshError::Closed { at });
    }
    if log.contains("Connection timed out during banner exchange") || log.contains("Timeout, server ") {
        return Some(SshError::TimedOut { at, step: step(log) });
    }
    // Other servers talk first, too, or answer to what ssh says first.
    let no_version = !log.contains("Remote protocol version");
    if no_version
        && (log.contains("banner line 0: ")
            || log.contains("invalid format")
            || log.contains("invalid characters"))
    {
        return Some(SshError::NotSsh { at });
    }
    let closed = ["Connection closed by", "Connection reset by", "kex_exchange_identification: "];
    closed.iter().any(|words| log.contains(words)).then_some(SshError::Closed { at })
}

/// How far it came.
fn step(log: &str) -> &'static str {
    if log.contains("Authenticated to ") {
        "open the session"
    } else if log.contains("SSH2_MSG_SERVICE_ACCEPT received") {
        "let us in"
    } else if log.contains("Connection established") || log.contains("Executing proxy command") {
        "say who it is"
    } else {
        "take the connection"
    }
}

/// The methods that the server last said it would take.
fn offered(log: &str) -> Vec<String> {
    let lines = log.lines().rev();
    let list = lines
        .clone()
        .find_map(|line| line.split_once("Authentications that can continue: "))
        .map(|(_, list)| list);
    let list = list.or_else(|| {
        lines.clone().find_map(|line| line.split_once("Permission denied (")?.1.split(')').next())
    });
    list.unwrap_or_default()
        .split(',')
        .map(|method| method.trim().to_owned())
        .filter(|method| !method.is_empty())
        .collect()
}

/// The last line that is for a person to read.
fn last_words(log: &str) -> String {
    let quiet = ["debug1: ", "debug2: ", "debug3: "];
    let mut lines = log.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    lines
        .find(|line| !quiet.iter().any(|prefix| line.starts_with(prefix)))
        .unwrap_or("ssh said nothing")
        .to_owned()
}

fn line_with<'a>(log: &'a str, words: &str) -> Option<&'a str> {
    log.lines().find(|line| line.contains(words))
}

fn after(line: &str, words: &str) -> String {
    line.split_once(words).map_or(line, |(_, rest)| rest).trim().to_owned()
}

fn listed(methods: &[String]) -> String {
    if methods.is_empty() { "nothing that ssh knows".to_owned() } else { methods.join(", ") }
}

/// What was said, after a colon, when anything was.
fn quoted_text(said: &str) -> String {
    let said = said.trim();
    if said.is_empty() { String::new() } else { format!(": {said}") }
}

/// Names what a remote command says, when it is one of the things that can be named.
pub(super) fn of_command(at: &str, what: &str, code: i32, stderr: &str) -> SshError {
    let (at, said) = (at.to_owned(), last_words(stderr));
    let said = if stderr.trim().is_empty() { String::new() } else { said };
    let has = |words: &str| stderr.contains(words);
    if has("No space left on device") || has("Disk quota exceeded") {
        SshError::NoSpace { at, said }
    } else if has("Read-only file system") {
        SshError::NotWritable { at, said }
    } else if code == 126 && has("Permission denied") {
        SshError::NotExecutable { at, said }
    } else {
        SshError::Command { at, what: what.to_owned(), code, said }
    }
}
