//! `--on-fail=shell`: a person looks around in the sandbox of a command that failed, as the command left it: its files,
//! its mounts, its secrets, its user and its network.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::RunStep;
use super::run::Held;
use crate::store::scratch::Scratch;

/// What a build has left of the first command that failed, if somebody wants to see it.
#[derive(Default)]
pub(crate) struct Remains(Mutex<Option<Sandbox>>);

/// A sandbox in which nothing runs any more.
struct Sandbox {
    shell: RunStep,
    /// What its mounts show.
    _held: Held,
    /// The directories of its layer.
    layer: Option<Scratch>,
}

// === impl Remains ===

impl Remains {
    /// Keeps a command's sandbox for this shell, unless one is kept already.
    pub(super) fn keep(&self, step: RunStep, shell: String, held: Held) {
        let shell = RunStep { argv: vec![shell], ..step };
        self.lock().get_or_insert(Sandbox { shell, _held: held, layer: None });
    }

    /// Keeps the directories of a layer that was not made, if they are those of the sandbox.
    pub(super) fn keep_layer(&self, upper: &Path, directories: Scratch) {
        if let Some(sandbox) = self.lock().as_mut().filter(|sandbox| sandbox.shell.upper == upper) {
            sandbox.layer = Some(directories);
        }
    }

    /// Whether there is a sandbox.
    pub(super) fn is_kept(&self) -> bool {
        self.lock().is_some()
    }

    /// Lets somebody in, and throws it away when they leave.
    ///
    /// # Errors
    /// When the shell cannot be run.
    pub(super) fn enter(&self, runner: &dyn super::Runner) -> crate::Result<()> {
        let sandbox = self.lock().take();
        sandbox.map_or(Ok(()), |sandbox| runner.prompt(&sandbox.shell))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Sandbox>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
