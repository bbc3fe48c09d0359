//! Who may change a project: one at a time, and nobody while it is frozen.

use std::time::{Duration, Instant};

use engine::error::{Error, Result};
use engine::store::{self, Durability, Lock};
use jiff::Timestamp;

use super::Tell;
use super::places::Places;
use crate::freeze::Freeze;
use crate::message::Event;

/// Why a project cannot be changed at the moment.
enum Busy {
    /// Somebody changes it.
    Changing(String),
    /// Somebody wants it left alone.
    Frozen(Freeze),
}

/// How often it is looked whether a project is free.
const GLANCE: Duration = Duration::from_millis(50);

/// How long the guard of an agent that has ended may hold the project to find that there is nothing to do.
const GUARDED: Duration = Duration::from_secs(1);

/// Takes a project for oneself as soon as it is free; for so long that is waited for, and who is waited for is said.
/// `author` is shown to others.
pub(crate) fn take(
    places: &Places,
    project: &str,
    author: &str,
    wait: Duration,
    tell: &Tell,
) -> Result<Lock> {
    let failed = |error| Error::failed(format!("lock the project {project}"), error);
    for directory in [places.state(), places.run()] {
        store::private_directory(directory).map_err(failed)?;
    }
    let began = Instant::now();
    let mut told = String::new();
    loop {
        match look(places, project)? {
            Ok(lock) => {
                let now = Timestamp::now().strftime("%Y-%m-%d %H:%M:%S UTC");
                std::fs::write(places.holder(), format!("{author} since {now}")).map_err(failed)?;
                return Ok(lock);
            }
            Err(busy) => {
                let patience = if matches!(busy, Busy::Changing(_)) { wait.max(GUARDED) } else { wait };
                if began.elapsed() >= patience {
                    return Err(busy.told(project));
                }
                let text = format!("waiting: {}", busy.told(project));
                if began.elapsed() >= GUARDED && text != told {
                    tell(Event::Remark(text.clone()));
                    told = text;
                }
                std::thread::sleep(GLANCE);
            }
        }
    }
}

/// Who changes the project at the moment.
pub(crate) fn holder(places: &Places, project: &str) -> Result<Option<String>> {
    if !places.state().exists() {
        return Ok(None);
    }
    Ok(match look(places, project)? {
        Err(Busy::Changing(holder)) => Some(holder),
        _ => None,
    })
}

/// Who wants the project left alone at the moment.
pub(crate) fn frozen(places: &Places) -> Result<Option<Freeze>> {
    let freeze: Option<Freeze> = store::read_json(&places.freeze())
        .map_err(|error| Error::failed("read who wants the project left alone", error))?;
    Ok(freeze.filter(|freeze| freeze.holds_at(Timestamp::now())))
}

/// Leaves the project alone from now on. Whoever calls has taken it.
pub(crate) fn freeze(places: &Places, freeze: &Freeze) -> Result<()> {
    store::write_json(&places.freeze(), freeze, Durability::Sync)
        .map_err(|error| Error::failed("write down who wants the project left alone", error))
}

/// Lets the project be changed again. The freeze that there was.
pub(crate) fn thaw(places: &Places) -> Result<Option<Freeze>> {
    let freeze = frozen(places)?;
    store::remove_file(&places.freeze())
        .map_err(|error| Error::failed("let the project be changed again", error))?;
    Ok(freeze)
}

fn look(places: &Places, project: &str) -> Result<std::result::Result<Lock, Busy>> {
    let lock = Lock::try_exclusive(&places.lock())
        .map_err(|error| Error::failed(format!("lock the project {project}"), error))?;
    let Some(lock) = lock else {
        let holder = std::fs::read_to_string(places.holder());
        return Ok(Err(Busy::Changing(holder.unwrap_or_else(|_| "somebody".to_owned()))));
    };
    Ok(frozen(places)?.map_or(Ok(lock), |freeze| Err(Busy::Frozen(freeze))))
}

// === impl Busy ===

impl Busy {
    fn told(&self, project: &str) -> Error {
        match self {
            Self::Changing(holder) => {
                Error::conflict(format!("project {project} is being changed by {holder}")).with_hint(
                    "wait for it with --lock-wait; the lock is given up as soon as whoever holds it is gone",
                )
            }
            Self::Frozen(freeze) => Error::conflict(format!("project {project} is locked by {freeze}"))
                .with_hint("`rdeploy lock release` lets it be changed again; --lock-wait waits for that"),
        }
    }
}
