//! Commands that run in a container when it has started, before it is stopped, and after its files have changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::path::PathBuf;

use engine::container::client::ExecIo;
use engine::container::exec::ExecSpec;
use engine::container::state::State;
use engine::error::{Error, Result};
use engine::id::ContainerId;
use jiff::Timestamp;
use rustix::fs::{MemfdFlags, memfd_create};

use super::{LAST_WORDS, Runtime, Telling};
use crate::model::Hook;
use crate::operation::Instance;

// === impl Runtime ===

impl Runtime {
    pub(super) fn start(&self, instance: &Instance) -> Result<()> {
        let id = self.id_of(instance)?;
        self.run_pre_start(instance.service(), instance.name())?;
        self.engine.start(&id)?;
        self.run_post_start(instance.service(), &id)
    }

    /// Runs what a service runs in a container that has just started.
    pub fn run_post_start(&self, service: &str, id: &ContainerId) -> Result<()> {
        // A service that is in no file any more has no hooks to run.
        let Some(service) = self.project.services.get(service) else { return Ok(()) };
        self.run_hooks("post_start", &service.post_start, id)
    }

    /// Runs what a service runs in a container that is about to stop. In one that stands still, or that starts again and
    /// again, nothing can run, which is no reason to let it be.
    pub(super) fn run_pre_stop(&self, service: &str, id: &ContainerId) -> Result<()> {
        let hooks = self.project.services.get(service).map(|service| &service.pre_stop);
        let Some(hooks) = hooks.filter(|hooks| !hooks.is_empty()) else { return Ok(()) };
        let Some(began) = self.start_of(id) else { return Ok(()) };
        match self.run_hooks("pre_stop", hooks, id) {
            // It ended meanwhile.
            Err(_) if self.start_of(id) != Some(began) => Ok(()),
            other => other,
        }
    }

    fn run_hooks(&self, kind: &str, hooks: &[Hook], id: &ContainerId) -> Result<()> {
        hooks.iter().try_for_each(|hook| {
            self.run_hook(id, hook).map_err(|error| {
                let hint = error.hint().map(str::to_owned);
                Error::new(error.kind(), format!("its {kind} failed")).with_source(error).with_hint_if(hint)
            })
        })
    }

    /// When a container was started whose programs run now.
    fn start_of(&self, id: &ContainerId) -> Option<Timestamp> {
        match self.engine.container(id.as_str()).ok()?.state {
            State::Running(running) if !running.paused => Some(running.started),
            _ => None,
        }
    }

    /// Runs a command in a container and waits for its end. What it writes is told, and is in the failure: our own
    /// standard output belongs to whoever asked for something else.
    pub(super) fn run_hook(&self, id: &ContainerId, hook: &Hook) -> Result<()> {
        let spec = ExecSpec {
            argv: hook.command.clone().unwrap_or_default(),
            env: environment(&hook.environment),
            user: hook.user.clone(),
            working_dir: hook.working_dir.as_ref().map(PathBuf::from),
            privileged: hook.privileged,
            ..ExecSpec::default()
        };
        let failed = |error: io::Error| Error::failed("keep what a hook writes", error);
        let mut written = Written::new().map_err(failed)?;
        let code = self.engine.exec_with(id, &spec, written.streams().map_err(failed)?)?;
        let lines = written.lines().map_err(failed)?;
        match code {
            Some(0) | None => {
                let name = self.engine.container(id.as_str())?.name().to_string();
                lines.into_iter().for_each(|line| (self.tell)(Telling::Hook(name.clone(), line)));
                Ok(())
            }
            Some(code) => {
                let last = lines.iter().skip(lines.len().saturating_sub(LAST_WORDS));
                let said: String = last.map(|line| format!("\n  | {line}")).collect();
                Err(Error::conflict(format!("the command {:?} ended with code {code}{said}", spec.argv)))
            }
        }
    }
}

/// What a command writes, in memory.
struct Written {
    file: File,
}

// === impl Written ===

impl Written {
    fn new() -> io::Result<Self> {
        Ok(Self { file: File::from(memfd_create("hook", MemfdFlags::CLOEXEC)?) })
    }

    /// Both streams lead here, in the order in which they are written to.
    fn streams(&self) -> io::Result<ExecIo> {
        let copy = || self.file.try_clone().map(|file| Some(file.into()));
        Ok(ExecIo { stdout: copy()?, stderr: copy()?, ..ExecIo::default() })
    }

    fn lines(&mut self) -> io::Result<Vec<String>> {
        let mut bytes = Vec::new();
        self.file.rewind()?;
        self.file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect())
    }
}

/// `KEY=value` for what has a value.
pub(super) fn environment(variables: &BTreeMap<String, Option<String>>) -> Vec<String> {
    let set: BTreeSet<String> = variables
        .iter()
        .filter_map(|(key, value)| value.as_ref().map(|value| format!("{key}={value}")))
        .collect();
    set.into_iter().collect()
}
