//! A container that is made to be started at once: its monitor comes to life while the container is being made, or even
//! before it is known what it will be.

use crate::container::client::{self, AttachEnd, AttachOptions, Connection};
use crate::container::monitor::Ahead;
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

/// A container that is likely to be made: it has an id and a monitor, and is on no record. Dropped, it leaves nothing
/// behind.
#[derive(Debug)]
pub struct Anticipated {
    engine: Engine,
    id: ContainerId,
    monitor: Option<Connection>,
}

impl Engine {
    /// Begins with a container before it is known what it will be.
    ///
    /// # Errors
    /// When no monitor can be started.
    pub fn anticipate(&self, ahead: Option<Ahead>) -> Result<Anticipated> {
        let id = ContainerId::random();
        let monitor = client::spawn_monitor_ahead(self.root(), &id, ahead)?;
        Ok(Anticipated { engine: self.clone(), id, monitor: Some(monitor) })
    }

    /// As [`Engine::create`], for a container that is started right afterwards: the start takes less time then. One that
    /// was anticipated by another engine is not taken.
    ///
    /// # Errors
    /// As [`Engine::create`], and when no monitor can be started. Nothing is left behind then.
    pub fn create_poised(&self, anticipated: Option<Anticipated>, spec: ContainerSpec) -> Result<Poised> {
        let mut anticipated = match anticipated.filter(|one| one.engine.root().state() == self.root().state())
        {
            Some(one) => one,
            None => self.anticipate(Ahead::of(&spec))?,
        };
        let created = self.make(anticipated.id.clone(), spec)?;
        let monitor = match anticipated.monitor.take() {
            Some(monitor) => monitor,
            None => client::spawn_monitor(self.root(), &created.id)?,
        };
        Ok(Poised { created, monitor })
    }
}

// === impl Anticipated ===

impl Drop for Anticipated {
    fn drop(&mut self) {
        if let Some(monitor) = self.monitor.take() {
            drop(monitor);
            // The monitor does the same; whoever looks afterwards is to find nothing.
            let _ =
                self.engine.monitor_lock(&self.id).and_then(|_no_monitor| self.engine.forget_run(&self.id));
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
