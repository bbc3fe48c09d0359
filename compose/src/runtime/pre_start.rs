//! `pre_start`: containers that run to their end before a service's container starts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use engine::container::spec::{ContainerSpec, NetworkMode, RestartPolicy};
use engine::engine::RemoveOptions;
use engine::error::{Error, Kind, Result};
use engine::id::ContainerId;

use super::Runtime;
use super::hook::environment;
use crate::labels;
use crate::model::{PreStart, Service};

/// Whether each hook that runs once for its service has run; held while it runs.
#[derive(Default)]
pub(super) struct Once(Mutex<BTreeMap<HookOfService, Arc<Mutex<bool>>>>);

/// A service, and the place of the hook in its list.
type HookOfService = (String, usize);

// === impl Once ===

impl Once {
    /// Does the work of one hook unless it has been done; whoever comes meanwhile waits.
    fn run(&self, service: &str, hook: usize, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let done = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry((service.to_owned(), hook)).or_default().clone()
        };
        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
        if !*done {
            work()?;
            *done = true;
        }
        Ok(())
    }
}

// === impl Runtime ===

impl Runtime {
    /// Runs the hooks one after the other; the first one that fails keeps the container from starting.
    pub(super) fn run_pre_start(&self, service: &str, container: &str) -> Result<()> {
        // A service that is in no file any more has no hooks to run.
        let Some(service) = self.project.services.get(service) else { return Ok(()) };
        for (number, hook) in service.pre_start.iter().enumerate() {
            let work = || self.run_before(service, hook, &format!("{container}-pre_start-{}", number + 1));
            if hook.per_replica {
                work()?;
            } else {
                self.prepared.run(&service.name, number, work)?;
            }
        }
        Ok(())
    }

    fn run_before(&self, service: &Service, hook: &PreStart, name: &str) -> Result<()> {
        if let Some(image) = &hook.image {
            match self.engine.images().get(image).map_err(Error::from) {
                Err(error) if error.kind() == Kind::NotFound => self.pull_image(image, &service.name)?,
                other => drop(other?),
            }
        }
        let slug = ContainerId::random();
        let mut spec = self.specification(service, name, 0, Some(slug.as_str()), None)?;
        prepare(&mut spec, hook);
        // One that a run which was cut off has left is of no use to anybody.
        self.forget(name)?;
        let id = self.create(spec, name)?;
        let code = self.engine.start(&id).and_then(|_| self.engine.wait(&id));
        let result = match code {
            Ok(0) => Ok(()),
            Ok(code) => {
                let said = Error::conflict(format!("its pre_start container {name} ended with code {code}"));
                Err(self.with_last_words(&id, &said))
            }
            Err(error) => Err(error),
        };
        self.forget(name)?;
        result
    }

    fn forget(&self, name: &str) -> Result<()> {
        match self.engine.find_id(name) {
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            other => self.engine.remove(&other?, &RemoveOptions { force: true, volumes: true }),
        }
    }
}

/// Makes a hook's container of the service's: it sees what the service sees, and serves nobody.
fn prepare(spec: &mut ContainerSpec, hook: &PreStart) {
    if let Some(image) = &hook.image {
        spec.image.clone_from(image);
        // What the service says of its own image's program does not concern another image.
        spec.process.entrypoint = None;
        spec.process.command = None;
    }
    if let Some(command) = &hook.command {
        spec.process.entrypoint = Some(Vec::new());
        spec.process.command = Some(command.clone());
    }
    if hook.user.is_some() {
        spec.process.user.clone_from(&hook.user);
    }
    if let Some(directory) = &hook.working_dir {
        spec.process.working_dir = Some(PathBuf::from(directory));
    }
    spec.process.env.extend(environment(&hook.environment));
    spec.security.privileged |= hook.privileged;
    spec.labels.insert(labels::HOOK.to_owned(), "pre_start".to_owned());
    spec.healthcheck = None;
    spec.ports.clear();
    spec.restart = RestartPolicy::No;
    if let NetworkMode::Bridge(attachments) = &mut spec.network {
        for attachment in attachments {
            attachment.aliases.clear();
            attachment.addresses.clear();
            attachment.mac_address = None;
        }
    }
}
