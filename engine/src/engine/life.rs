//! Starting, stopping and removing containers.

use std::io;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use crate::container::client::{self, AttachEnd, AttachOptions, Connection, ExecIo, ExitNews, StopReason};
use crate::container::exec::ExecSpec;
use crate::container::logs::{self, LogLine, LogOptions};

use crate::container::record::ContainerRecord;
use crate::container::spec::MountSource;
use crate::container::state::{Event, State};
use crate::engine::poised::start_attached;
use crate::engine::{Container, Engine, RemoveOptions, StopOptions};
use crate::error::{Error, Kind, Result};
use crate::id::ContainerId;
use crate::paths::Root;
use crate::signal::Signal;
use crate::store::{self, Lock};

/// How long a container that is neither here nor there may take until it is looked at again.
const BETWEEN_STATES: Duration = Duration::from_millis(2);

/// After this long it stays so, and whoever removes it with force does not wait for it.
const STUCK: Duration = Duration::from_secs(5);

impl Engine {
    /// Starts a container and returns once its program is being executed. One that runs already is left alone. What
    /// it says is what could not be had as asked.
    ///
    /// # Errors
    /// When a step of the start fails; the container is as it was then.
    pub fn start(&self, id: &ContainerId) -> Result<Vec<String>> {
        let seems_to_run = self.container(id.as_str())?.state.is_running();
        // A monitor that is being killed holds its lock a moment longer than it answers.
        if seems_to_run && client::connect(self.root(), id)?.is_some() {
            return Ok(Vec::new());
        }
        let mut connection = client::spawn_monitor(self.root(), id)?;
        connection.started()?;
        Ok(connection.warnings().to_vec())
    }

    /// Starts a container with its streams connected to ours, and returns when it ends or we detach. What could not be
    /// had as asked is told before.
    ///
    /// # Errors
    /// When a step of the start fails.
    pub fn start_attached(
        &self,
        id: &ContainerId,
        options: &AttachOptions,
        warn: &mut dyn FnMut(&str),
    ) -> Result<AttachEnd> {
        self.start_attached_then(id, options, warn, || {})
    }

    /// As [`Self::start_attached`]; `started` is called when the program is being executed, and dropped when it never is.
    ///
    /// # Errors
    /// When a step of the start fails.
    pub fn start_attached_then(
        &self,
        id: &ContainerId,
        options: &AttachOptions,
        warn: &mut dyn FnMut(&str),
        started: impl FnOnce(),
    ) -> Result<AttachEnd> {
        start_attached(client::spawn_monitor(self.root(), id)?, options, warn, started)
    }

    /// Connects our streams to a running container's.
    ///
    /// # Errors
    /// When it does not run.
    pub fn attach(&self, id: &ContainerId, options: &AttachOptions) -> Result<AttachEnd> {
        self.connected(id, "attach to")?.attach(options)
    }

    /// Asks a container to end and waits until it has. One that does not run is left alone.
    ///
    /// # Errors
    /// When its monitor cannot be reached.
    pub fn stop(&self, id: &ContainerId, options: &StopOptions) -> Result<()> {
        self.end(id, options, StopReason::ByHand)
    }

    fn end(&self, id: &ContainerId, options: &StopOptions, reason: StopReason) -> Result<()> {
        match self.container(id.as_str())?.state {
            State::Running(_) | State::Restarting(_) => match client::connect(self.root(), id)? {
                Some(mut connection) => {
                    connection.stop(options.signal, options.grace, reason).or_else(|error| {
                        // A monitor that was killed meanwhile took the container with it, which is what was wanted.
                        if client::connect(self.root(), id)?.is_some() { Err(error) } else { Ok(()) }
                    })
                }
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Stops a container if it runs, and starts it. One that removes itself when it ends does not do so now.
    pub fn restart(&self, id: &ContainerId, options: &StopOptions) -> Result<()> {
        self.end(id, options, StopReason::Restart)?;
        // The old monitor still gives back what the container held; the lock says when it is done.
        drop(self.monitor_lock(id)?);
        self.start(id)?;
        self.announce_restart(id);
        Ok(())
    }

    /// Tells everybody who listens that a container which was stopped and started was restarted: whoever does the two by
    /// themselves, with something in between, says so.
    pub fn announce_restart(&self, id: &ContainerId) {
        // One that has gone since has said that it went.
        if let Ok(container) = self.container(id.as_str()) {
            container.record.announce(self.root(), "restart", &[]);
        }
    }

    /// Sends a signal to a container's first process.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self, id: &ContainerId, signal: Signal) -> Result<()> {
        self.connected(id, "kill")?.kill(signal)
    }

    /// Freezes all processes of a container.
    pub fn pause(&self, id: &ContainerId) -> Result<()> {
        self.connected(id, "pause")?.pause()
    }

    /// Thaws all processes of a container.
    pub fn unpause(&self, id: &ContainerId) -> Result<()> {
        self.connected(id, "unpause")?.unpause()
    }

    /// Waits until a container has ended for good, and returns its exit code.
    pub fn wait(&self, id: &ContainerId) -> Result<i32> {
        loop {
            let state = self.container(id.as_str())?.state;
            match (state, client::connect(self.root(), id)?) {
                (State::Exited(exit), _) => return Ok(exit.code),
                (_, Some(mut connection)) => return connection.wait_exit(),
                // It ended between the two looks: the next one tells its exit code.
                (State::Running(_) | State::Restarting(_), None) => {}
                (state, None) => {
                    return Err(Error::conflict(format!("container {} is {}", id.short(), state.word())));
                }
            }
        }
    }

    /// Waits until a container is healthy, for so long at most, or returns at once when it has no health check. The first
    /// probe runs at once then, and the next ones soon.
    ///
    /// # Errors
    /// When it becomes unhealthy or ends, or the time is up.
    pub fn wait_healthy(&self, id: &ContainerId, limit: Option<Duration>) -> Result<()> {
        self.connected(id, "wait for the health of")?.wait_healthy(limit)
    }

    /// Runs a command in a running container with its streams connected to ours.
    ///
    /// # Errors
    /// When the container does not run or is paused, or the command cannot be executed.
    pub fn exec(&self, id: &ContainerId, spec: &ExecSpec, options: &AttachOptions) -> Result<AttachEnd> {
        self.connected(id, "exec in")?.exec(spec, options)
    }

    /// The same with other streams than this process's own: the exit code, `None` when the user left it.
    pub fn exec_with(&self, id: &ContainerId, spec: &ExecSpec, io: ExecIo) -> Result<Option<i32>> {
        self.connected(id, "exec in")?.exec_with(spec, io)
    }

    /// Runs a command in a running container and does not wait for it.
    pub fn exec_detached(&self, id: &ContainerId, spec: &ExecSpec) -> Result<()> {
        self.connected(id, "exec in")?.exec_detached(spec)
    }

    /// Hands out a container's output line by line, and with `follow` what comes later until it ends.
    pub fn logs(
        &self,
        id: &ContainerId,
        options: &LogOptions,
        each: &mut dyn FnMut(&LogLine) -> ControlFlow<()>,
    ) -> Result<()> {
        self.logs_and_ends(id, options, each, &mut |_| {})
    }

    /// The same; a follower learns of each end of the container, too, behind what it wrote until then.
    pub fn logs_and_ends(
        &self,
        id: &ContainerId,
        options: &LogOptions,
        each: &mut dyn FnMut(&LogLine) -> ControlFlow<()>,
        ended: &mut dyn FnMut(ExitNews),
    ) -> Result<()> {
        logs::read(self.root(), id, options, each, ended)
    }

    /// Removes a container.
    ///
    /// # Errors
    /// When it runs and `force` is not set.
    pub fn remove(&self, id: &ContainerId, options: &RemoveOptions) -> Result<()> {
        let mut was_there = false;
        let began = Instant::now();
        let (container, _no_monitor) = loop {
            let container = match self.container(id.as_str()) {
                Err(_) if options.force && self.is_damaged(id) => return self.remove_damaged(id),
                // Another command was faster.
                Err(error) if was_there && error.kind() == Kind::NotFound => return self.forget_run(id),
                container => container?,
            };
            was_there = true;
            self.end_for_removal(&container, options.force)?;
            if let Some(lock) = self.try_monitor_lock(id)? {
                break (container, lock);
            }
            // Somebody starts it at this very moment, or its monitor is about to end: which of the two, its state tells.
            if options.force && began.elapsed() > STUCK {
                client::kill_monitor(self.root(), id)?;
            }
            std::thread::sleep(BETWEEN_STATES);
        };
        if !self.has_record(id) {
            // Another command was faster.
            return self.forget_run(id);
        }
        remove_files(self, &container.record, options.volumes)
    }

    /// Lets a container that runs end, if it may be removed with force.
    fn end_for_removal(&self, container: &Container, force: bool) -> Result<()> {
        let id = container.id();
        if !matches!(container.state, State::Running(_) | State::Restarting(_)) {
            return Ok(());
        }
        if !force {
            return Err(Error::conflict(format!(
                "cannot remove container {}: it is {}",
                container.name(),
                container.state.word()
            ))
            .with_hint("stop it first, or remove it with -f"));
        }
        let killed = client::connect(self.root(), id).and_then(|connection| match connection {
            Some(mut connection) => connection.stop(Some(Signal::KILL), None, StopReason::Kill),
            None => Ok(()),
        });
        if killed.is_err() {
            // A monitor that does not answer, or not any more, is not asked again: its container ends with it.
            client::kill_monitor(self.root(), id)?;
        }
        Ok(())
    }

    /// Removes a container whose record or state makes no sense, with whatever is left of it.
    fn remove_damaged(&self, id: &ContainerId) -> Result<()> {
        let failed = |error: io::Error| Error::failed(format!("remove container {}", id.short()), error);
        client::kill_monitor(self.root(), id)?;
        let _no_monitor = self.monitor_lock(id)?;
        self.release(id)?;
        let names = self.root().container_names();
        for entry in std::fs::read_dir(&names).map_err(failed)?.flatten() {
            if std::fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == id.as_str()) {
                store::remove_file(&entry.path()).map_err(failed)?;
            }
        }
        remove_directories(self.root(), id).map_err(failed)
    }

    /// A connection to the monitor of a container that runs.
    fn connected(&self, id: &ContainerId, verb: &str) -> Result<Connection> {
        let container = self.container(id.as_str())?;
        match client::connect(self.root(), id)? {
            Some(connection) => Ok(connection),
            None => Err(Error::new(
                Kind::Conflict,
                format!(
                    "cannot {verb} container {}: it is not running but {}",
                    container.name(),
                    container.state.word()
                ),
            )
            .with_hint(format!("start it with: rengine start {}", container.name()))),
        }
    }

    /// Waits until no monitor of the container lives, and keeps others from starting.
    pub(super) fn monitor_lock(&self, id: &ContainerId) -> Result<Lock> {
        let failed = |error: io::Error| Error::failed(format!("lock container {}", id.short()), error);
        store::private_directory(&self.root().container_run(id)).map_err(failed)?;
        Lock::exclusive(&self.root().monitor_lock(id)).map_err(failed)
    }
}

/// What a monitor does with a container that removes itself, before it says that it is gone.
pub(super) fn discard(root: &Root, record: &ContainerRecord) -> Result<()> {
    forget(&Engine::open(Some(root.state()))?, record, true)
}

/// Removes everything a container has on the disk. Called with its monitor's lock held; what a crash interrupts
/// here goes on with the next removal while there is a record, and with the next check after that.
pub(crate) fn remove_files(engine: &Engine, record: &ContainerRecord, volumes: bool) -> Result<()> {
    forget(engine, record, volumes)?;
    ContainerRecord::remove_remains(engine.root(), &record.id)
        .map_err(|error| Error::failed(format!("remove container {}", record.name), error))
}

/// Gives back all that others could want or see of a container: there is none then, but for files that nobody looks at.
fn forget(engine: &Engine, record: &ContainerRecord, volumes: bool) -> Result<()> {
    let root = engine.root();
    let failed = |error: io::Error| Error::failed(format!("remove container {}", record.name), error);
    let state = engine.read_state(&record.id)?;
    if state != State::Removing
        && let Ok(removing) = state.on(Event::Remove)
    {
        // A full disk must not keep anybody from making room. Without this, a removal that is interrupted has to be
        // asked for again.
        let _ = removing.write(root, record);
    }
    engine.release(&record.id)?;
    engine.networks().unpark(&record.id)?;
    if engine.claimed(&record.name).as_ref() == Some(&record.id) {
        let link = root.container_names().join(record.name.as_str());
        // It goes with the container's files, which nobody waits for: it takes a block, and some file systems wait for
        // the disk when one is freed (ext4 with `discard`).
        if std::fs::rename(&link, root.container(&record.id).join("name")).is_err() {
            store::remove_file(&link).map_err(failed)?;
        }
    }
    if volumes {
        remove_anonymous_volumes(engine, record)?;
    }
    ContainerRecord::remove(root, &record.id).map_err(failed)?;
    record.announce(root, "destroy", &[]);
    Ok(())
}

/// Removes the directories of a container. Its record goes first: with it, what is left would be a container.
pub(super) fn remove_directories(root: &Root, id: &ContainerId) -> io::Result<()> {
    ContainerRecord::remove(root, id)?;
    ContainerRecord::remove_remains(root, id)
}

/// Removes the anonymous volumes of a container that no other container took over.
fn remove_anonymous_volumes(engine: &Engine, record: &ContainerRecord) -> Result<()> {
    for mount in &record.spec.mounts {
        let MountSource::Volume { name: Some(name), .. } = &mount.source else { continue };
        let anonymous = engine.volumes().find(name)?.is_some_and(|volume| volume.anonymous);
        if anonymous && engine.volume_users(name)?.iter().all(|user| *user == record.name) {
            engine.volumes().remove(name)?;
        }
    }
    Ok(())
}
