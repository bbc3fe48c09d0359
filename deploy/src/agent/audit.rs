//! The audit trail of a project on this host: who did what to it, when and from where. It is written before the deed, and
//! what came of a rollout is in the history.

use std::fs;
use std::io;
use std::path::Path;

use engine::error::{Error, Result};
use jiff::Timestamp;

use super::ledger;
use super::places::Places;
use crate::deed::{Caller, Deed};
use crate::message::{Request, Rollout, Turn};

/// How long the trail gets, in bytes, before a new one is begun. The one before stays.
const LONGEST: u64 = 1 << 20;

/// How much of a command is kept, in characters.
const LONGEST_DEED: usize = 500;

/// How many processes may be between an SSH server and this one: a shell, `sudo` and its monitor are usual.
const GENERATIONS: usize = 16;

/// What a request does to a project, when that is something to put down.
pub(crate) fn deed(request: &Request) -> Option<String> {
    match request {
        Request::Freeze { freeze, .. } => Some(match &freeze.message {
            Some(message) => format!("lock acquire: {message}"),
            None => "lock acquire".to_owned(),
        }),
        Request::Thaw { .. } => Some("lock release".to_owned()),
        Request::Prepare(rollout) => Some(rolled_out(rollout)),
        Request::Turn { services, turn, .. } => {
            let verb = match turn {
                Turn::Stop => "stop",
                Turn::Start => "start",
                Turn::Restart => "restart",
            };
            Some(words(verb, services))
        }
        Request::Prune { .. } => Some("prune".to_owned()),
        Request::Note { what, .. } => Some(what.clone()),
        _ => None,
    }
}

fn rolled_out(rollout: &Rollout) -> String {
    let verb = if rollout.rollback { "rollback to" } else { "up" };
    words(&format!("{verb} {}", rollout.release.id), &rollout.services)
}

fn words(verb: &str, services: &[String]) -> String {
    let services = services.iter().map(String::as_str);
    std::iter::once(verb).chain(services).collect::<Vec<_>>().join(" ")
}

/// Puts a deed down. It is not waited until it is on the disk.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn note(places: &Places, author: &str, what: &str) -> Result<()> {
    let deed = Deed {
        at: Timestamp::now(),
        author: author.to_owned(),
        from: caller(),
        what: what.chars().take(LONGEST_DEED).collect(),
    };
    append(places, &deed).map_err(|error| Error::failed("write the audit trail", error))
}

fn append(places: &Places, deed: &Deed) -> io::Result<()> {
    let path = places.audit();
    if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > LONGEST) {
        fs::rename(&path, places.audit_before())?;
    }
    ledger::append(&path, deed).map(drop)
}

/// What was done, the oldest first.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn deeds(places: &Places) -> Result<Vec<Deed>> {
    let mut all = Vec::new();
    for path in [places.audit_before(), places.audit()] {
        all.extend(ledger::read(&path).map_err(|error| Error::failed("read the audit trail", error))?);
    }
    Ok(all)
}

/// Who logged in, as the SSH server says it in the environment of what it starts (ssh(1)). `sudo` clears that: then one of
/// the processes that led to this one has it.
fn caller() -> Option<Caller> {
    let mut process = "self".to_owned();
    for _ in 0..GENERATIONS {
        let place = Path::new("/proc").join(&process);
        let environment = fs::read(place.join("environ")).ok()?;
        if let Some(connection) = variable(&environment, "SSH_CONNECTION") {
            let user = variable(&environment, "USER").or_else(|| variable(&environment, "LOGNAME"));
            let address = connection.split_whitespace().next()?.to_owned();
            return Some(Caller { user: user.unwrap_or_else(|| "?".to_owned()), address });
        }
        process = parent(&fs::read_to_string(place.join("stat")).ok()?)?;
    }
    None
}

fn variable(environment: &[u8], name: &str) -> Option<String> {
    let mut pairs = environment.split(|byte| *byte == 0);
    let value = pairs.find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
    Some(String::from_utf8_lossy(value).into_owned())
}

/// The parent in a line of /proc/PID/stat, whose second field may hold anything (proc_pid_stat(5)).
fn parent(stat: &str) -> Option<String> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1).filter(|pid| *pid != "0").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use engine::Root;

    use super::*;

    #[test]
    fn who_called_is_in_the_environment_of_the_shell_before_sudo() {
        let environment = b"HOME=/\0SSH_CONNECTION=192.0.2.7 4711 192.0.2.1 22\0USER=me\0";
        assert_eq!(variable(environment, "SSH_CONNECTION").as_deref(), Some("192.0.2.7 4711 192.0.2.1 22"));
        assert_eq!(variable(environment, "CONNECTION"), None);
        assert_eq!(parent("7 (a) b) S 5 7 7 0").as_deref(), Some("5"));
        assert_eq!(parent("1 (init) S 0 1 1 0"), None);
    }

    #[test]
    fn a_trail_that_gets_long_begins_anew_and_the_one_before_stays() {
        let directory = tempfile::tempdir().unwrap();
        let places = Places::of(&Root::at(directory.path()), "p");
        fs::create_dir_all(places.state()).unwrap();
        for _ in 0..3 {
            note(&places, "me@here", &"x".repeat(2 * LONGEST_DEED)).unwrap();
            let file = fs::File::options().write(true).open(places.audit()).unwrap();
            file.set_len(LONGEST + 1).unwrap();
        }
        let deeds = deeds(&places).unwrap();
        assert_eq!(deeds.iter().map(|deed| deed.what.len()).collect::<Vec<_>>(), [LONGEST_DEED; 2]);
    }
}
