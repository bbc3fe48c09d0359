//! A container that is made to be started at once: its monitor comes to life while its record is written.

use crate::container::client::{self, AttachEnd, AttachOptions, Connection};
use crate::container::spec::ContainerSpec;
use crate::engine::{Created, Engine};
use crate::error::Result;
use crate::id::ContainerId;

/// A container that was made and whose monitor waits for the word. Dropped without it, the container stays created.
#[derive(Debug)]
pub struct Poised {
    /// What was made.
    pub created: Created,
    monitor: Connection,
}

impl Engine {
    /// As [`Engine::create`], for a container that is started right afterwards: the start takes less time then.
    ///
    /// # Errors
    /// As [`Engine::create`], and when no monitor can be started. Nothing is left behind then.
    pub fn create_poised(&self, spec: ContainerSpec) -> Result<Poised> {
        let id = ContainerId::random();
        let monitor = client::spawn_monitor_ahead(self.root(), &id, &spec)?;
        match self.make(id.clone(), spec) {
            Ok(created) => Ok(Poised { created, monitor }),
            Err(error) => {
                drop(monitor);
                // The monitor does the same, and what made this fail is what the user must hear.
                let _ = self.monitor_lock(&id).and_then(|_no_monitor| self.forget_run(&id));
                Err(error)
            }
        }
    }
}

// === impl Poised ===

impl Poised {
    /// As [`Engine::start`].
    ///
    /// # Errors
    /// When a step of the start fails.
    pub fn start(mut self) -> Result<Vec<String>> {
        self.monitor.started()?;
        Ok(self.monitor.warnings().to_vec())
    }

    /// As [`Engine::start_attached`].
    ///
    /// # Errors
    /// When a step of the start fails.
    pub fn start_attached(self, options: &AttachOptions, warn: &mut dyn FnMut(&str)) -> Result<AttachEnd> {
        start_attached(self.monitor, options, warn, || {})
    }
}

impl AsRef<Created> for Poised {
    fn as_ref(&self) -> &Created {
        &self.created
    }
}

/// Lets a monitor start its container with our streams, and returns when it ends or we detach.
pub(super) fn start_attached(
    mut monitor: Connection,
    options: &AttachOptions,
    warn: &mut dyn FnMut(&str),
    started: impl FnOnce(),
) -> Result<AttachEnd> {
    monitor.subscribe(options.streams())?;
    monitor.started()?;
    monitor.warnings().iter().for_each(|warning| warn(warning));
    started();
    monitor.attach(options)
}
