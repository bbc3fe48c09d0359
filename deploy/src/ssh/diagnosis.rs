//! What went wrong, from what ssh and remote commands said. Pure: texts in, names out.

use super::askpass::Refused;
use super::failure::SshError;
use super::keeper;

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
    /// What ssh said last that a person has to do.
    pub(super) notice: Option<String>,
    /// Whether we gave up waiting.
    pub(super) timed_out: bool,
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
        .or_else(|| facts.timed_out.then(|| of_waiting(log, facts)))
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

/// What it was that did not come in time.
fn of_waiting(log: &str, facts: &Facts) -> SshError {
    let at = facts.at.clone();
    match &facts.notice {
        Some(said) => SshError::NotTouched { at, said: said.clone() },
        None => SshError::TimedOut { at, step: step(log) },
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What OpenSSH 9.2 says at `-v` once it knows the host.
    const KNOWN: &str = "debug1: Connection established.
debug1: Remote protocol version 2.0, remote software version OpenSSH_9.2p1 Debian-2+deb12u10
debug1: Server host key: ssh-ed25519 SHA256:weEkIJchDegDqIHTJnNtLHQ+aNo24b6XLXYajq8+8GY
debug1: SSH2_MSG_SERVICE_ACCEPT received
";

    fn facts() -> Facts {
        Facts { at: "me@h".into(), host: "h".into(), ..Facts::default() }
    }

    fn named(log: &str) -> SshError {
        of_log(log, &facts())
    }

    #[test]
    fn a_host_that_is_not_reached_is_told_from_one_that_does_not_speak() {
        let refused = "debug1: connect to address 10.0.0.2 port 9: Connection refused
ssh: connect to host 10.0.0.2 port 9: Connection refused\r\n";
        assert!(matches!(named(refused), SshError::Refused { at } if at == "me@h"));
        let dropped = "ssh: connect to host 10.0.0.2 port 22: Connection timed out";
        assert!(matches!(named(dropped), SshError::TimedOut { step: "take the connection", .. }));
        let unreachable = "ssh: connect to host 10.0.0.2 port 22: No route to host";
        assert!(matches!(named(unreachable), SshError::Unreachable { why, .. } if why == "No route to host"));
        let unknown = "ssh: Could not resolve hostname no-such.invalid: Name or service not known";
        assert!(matches!(named(unknown), SshError::UnknownHost { host } if host == "no-such.invalid"));
        let silent = "debug1: Connection established.\nConnection timed out during banner exchange";
        assert!(matches!(named(silent), SshError::TimedOut { step: "say who it is", .. }));
        let web = "debug1: kex_exchange_identification: banner line 0: HTTP/1.0 400 Bad Request
kex_exchange_identification: Connection closed by remote host";
        assert!(matches!(named(web), SshError::NotSsh { .. }));
        let busy = "debug1: kex_exchange_identification: banner line 0: Exceeded MaxStartups
kex_exchange_identification: Connection closed by remote host";
        assert!(matches!(named(busy), SshError::Closed { .. }));
        let missing = format!("{}No such file or directory (os error 2)", keeper::MISSING);
        assert!(matches!(named(&missing), SshError::ProgramMissing(_)));
    }

    #[test]
    fn a_host_that_is_not_the_one_is_told_from_one_that_nobody_knows() {
        let unknown = "debug1: Server host key: ssh-ed25519 SHA256:weEk
No ED25519 host key is known for h and you have requested strict checking.
Host key verification failed.";
        assert!(
            matches!(named(unknown), SshError::HostKeyUnknown { fingerprint, .. } if fingerprint == "ssh-ed25519 SHA256:weEk")
        );
        let changed = "debug1: Server host key: ssh-ed25519 SHA256:weEk
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
Offending ED25519 key in /home/me/.ssh/known_hosts:3
Host key for h has changed and you have requested strict checking.
Host key verification failed.";
        assert!(
            matches!(named(changed), SshError::HostKeyChanged { known_in, .. } if known_in == "/home/me/.ssh/known_hosts:3")
        );
        let no_more = "Unable to negotiate with 10.0.0.2 port 22: no matching host key type found. Their offer: ssh-dss";
        let pinned = Facts { pins: vec!["SHA256:a".into()], shown: vec!["SHA256:b (RSA)".into()], ..facts() };
        assert!(
            matches!(of_log(no_more, &pinned), SshError::PinMismatch { shown, .. } if shown == ["SHA256:b (RSA)"])
        );
        assert!(matches!(named(no_more), SshError::NoCommonAlgorithm { what, offered, .. }
            if what == "host key type" && offered == "ssh-dss"));
    }

    #[test]
    fn whoever_is_not_let_in_hears_what_would_be_accepted() {
        let denied = KNOWN.to_owned()
            + "debug1: Authentications that can continue: publickey,password
debug1: Next authentication method: publickey
debug1: Offering public key: /k/id ED25519 SHA256:Gu explicit
debug1: Authentications that can continue: publickey,password
debug1: No more authentication methods to try.
me@h: Permission denied (publickey,password).";
        let with_key = Facts { key: Some("the key".into()), ..facts() };
        assert!(
            matches!(of_log(&denied, &with_key), SshError::KeyNotAccepted { offered, .. } if offered == ["publickey", "password"])
        );
        assert!(
            matches!(named(&denied), SshError::NoMethodLeft { had, .. } if had == "one key of the user's own")
        );
        let signed = denied.replace(
            "debug1: Authentications that can continue: publickey,password\ndebug1: No more",
            "debug1: Server accepts key: /k/id ED25519 SHA256:Gu explicit\ndebug1: No more",
        );
        let with_passphrase = Facts { gave_passphrase: true, ..with_key };
        assert!(matches!(of_log(&signed, &with_passphrase), SshError::WrongPassphrase { .. }));
        assert!(matches!(of_log(&denied, &with_passphrase), SshError::KeyNotAccepted { .. }));
        let again = Facts { has_password: true, refused: vec![Refused::PasswordAgain], ..facts() };
        assert!(matches!(of_log(KNOWN, &again), SshError::PasswordWrong { .. }));
        let many = KNOWN.to_owned()
            + "Received disconnect from 10.0.0.2 port 22:2: Too many authentication failures";
        assert!(matches!(named(&many), SshError::TooManyFailures { .. }));
    }

    #[test]
    fn a_host_behind_another_one_is_told_from_it() {
        let facts = Facts { by_way_of: Some("bastion".into()), ..facts() };
        let prohibited = "channel 1: open failed: administratively prohibited: open failed
Stdio forwarding request failed: Session open refused by peer";
        assert!(
            matches!(of_log(prohibited, &facts), SshError::ForwardingDisabled { hop, .. } if hop == "bastion")
        );
        let refused = "channel 1: open failed: connect failed: Connection refused";
        assert!(matches!(of_log(refused, &facts), SshError::Refused { .. }));
        let unknown = "channel 1: open failed: connect failed: Name or service not known";
        assert!(matches!(of_log(unknown, &facts), SshError::UnknownHost { .. }));
    }

    #[test]
    fn what_stopped_a_command_is_named_where_it_can_be() {
        let named = |code, said: &str| of_command("h", "upload", code, said);
        assert!(matches!(named(1, "cat: write error: No space left on device"), SshError::NoSpace { .. }));
        assert!(matches!(
            named(1, "sh: 1: cannot create /x: Read-only file system"),
            SshError::NotWritable { .. }
        ));
        assert!(matches!(named(126, "sh: 1: /srv/x: Permission denied"), SshError::NotExecutable { .. }));
        assert!(matches!(named(3, ""), SshError::Command { code: 3, said, .. } if said.is_empty()));
    }
}
