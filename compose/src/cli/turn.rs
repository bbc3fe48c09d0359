//! Commands that change one project take turns, and each learns whether the one before it came to its end.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use engine::id::ContainerId;
use engine::store::{self, Lock};
use engine::{Engine, StopOptions};

use super::failure::CliError;
use crate::operation::Operation;
use crate::output;
use crate::runtime::{CONTENTS, PLACES};

/// Keeps other commands away from a project as long as it lives.
pub(super) struct Turn {
    _lock: Lock,
}

/// Is on record as long as steps are being done. When it is found by somebody whose turn it is, a command was killed.
pub(super) struct Underway {
    mark: PathBuf,
    /// Whether steps that this command began before and gave up (Ctrl-C) may still be under way.
    goes_on: bool,
}

/// What is written down of a container that a step stops, before and after: its monitor does not forget what it was asked
/// by somebody who is gone.
const STOPPING: char = '-';
const STOPPED: char = '+';

// === impl Turn ===

impl Turn {
    /// Waits for it. What a command that was killed left half-made is put right first.
    pub(super) fn take(engine: &Engine, project: &str) -> Result<Self, CliError> {
        let directory = engine.root().project(project);
        let failed = |error| engine::Error::failed(format!("lock the project {project}"), error);
        store::private_directory(&directory).map_err(failed)?;
        let path = directory.join("lock");
        let lock = match Lock::try_exclusive(&path).map_err(failed)? {
            Some(lock) => lock,
            None => {
                output::note(&format!("another command changes project {project}; waiting for it to end"));
                Lock::exclusive(&path).map_err(failed)?
            }
        };
        let underway = Underway { mark: mark(engine, project), goes_on: false };
        if underway.mark.exists() {
            underway.recover(engine, &directory)?;
        }
        Ok(Self { _lock: lock })
    }
}

// === impl Underway ===

impl Underway {
    /// From now on steps are being done.
    pub(super) fn begin(engine: &Engine, project: &str) -> Result<Self, CliError> {
        let mark = mark(engine, project);
        let goes_on = mark.exists();
        store::private_directory(&engine.root().project(project))
            .and_then(|()| OpenOptions::new().create(true).append(true).open(&mark))
            .map_err(|error| engine::Error::failed(format!("write {}", mark.display()), error))?;
        Ok(Self { mark, goes_on })
    }

    /// Does a step.
    pub(super) fn during<E>(
        &self,
        operation: &Operation,
        perform: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let Operation::StopContainer { container, .. } = operation else { return perform() };
        self.note(STOPPING, &container.id);
        let result = perform();
        self.note(STOPPED, &container.id);
        result
    }

    /// What cannot be written down can only not be taken up by the next command.
    fn note(&self, what: char, id: &ContainerId) {
        let file = OpenOptions::new().append(true).open(&self.mark);
        let _ = file.and_then(|mut file| file.write_all(format!("{what}{id}\n").as_bytes()));
    }

    /// Ends what somebody began who was killed, and removes what was half-made.
    fn recover(self, engine: &Engine, project: &Path) -> Result<(), CliError> {
        for damage in engine.check()?.damaged {
            output::warning(&damage);
        }
        let failed = |error| engine::Error::failed("put right what a command left that was killed", error);
        let notes = std::fs::read_to_string(&self.mark).map_err(failed)?;
        let stopped: BTreeSet<&str> = notes.lines().filter_map(|line| line.strip_prefix(STOPPED)).collect();
        let stopping = notes.lines().filter_map(|line| line.strip_prefix(STOPPING));
        for id in stopping.filter(|id| !stopped.contains(id)) {
            // One that is gone has stopped.
            if let Ok(container) = engine.container(id) {
                engine.stop(container.id(), &StopOptions::default())?;
            }
        }
        sweep(project).map_err(failed)?;
        self.is_over()
    }

    /// All steps that began have ended, well or not.
    pub(super) fn is_over(&self) -> Result<(), CliError> {
        if self.goes_on {
            return Ok(());
        }
        Ok(store::remove_file(&self.mark)
            .map_err(|error| engine::Error::failed(format!("remove {}", self.mark.display()), error))?)
    }
}

/// Half-written secrets and configurations go.
fn sweep(project: &Path) -> std::io::Result<()> {
    for place in PLACES {
        store::sweep_temporary(&project.join(CONTENTS).join(place))?;
    }
    Ok(())
}

fn mark(engine: &Engine, project: &str) -> PathBuf {
    engine.root().project(project).join("underway")
}
