//! Finding containers, and putting right what a killed monitor left behind.

use std::cmp::Reverse;
use std::fs;

use jiff::Timestamp;

use crate::container::cgroup::Cgroup;
use crate::container::client;
use crate::container::record::{ContainerRecord, Purpose};
use crate::container::state::{Event, Exited, State};
use crate::engine::boot::returns;
use crate::engine::check::{damage, ids_in};
use crate::engine::{Container, Engine};
use crate::error::{Error, Result};
use crate::id::{ContainerId, ContainerName, VolumeName};
use crate::store::{self, Lock};

/// What a container that lost its monitor ends with: its first process was killed along with it.
const MONITOR_LOST: i32 = 137;

impl Engine {
    /// The container of this name, id or unambiguous beginning of an id.
    ///
    /// # Errors
    /// When there is none, or several ids begin so.
    pub fn container(&self, name: &str) -> Result<Container> {
        let id = self.find_id(name)?;
        self.look(&id)?.ok_or_else(|| no_such(name))
    }

    /// All containers, newest first. Those that lost their monitor are put right on the way, and those whose
    /// records cannot be read are left out: [`Engine::damaged`] has them.
    pub fn containers(&self) -> Result<Vec<Container>> {
        let mut containers = Vec::new();
        for id in self.ids()? {
            let container = match self.look(&id) {
                Err(_) if self.is_damaged(&id) => None,
                container => container?,
            };
            containers.extend(container.filter(|container| container.record.purpose == Purpose::Service));
        }
        containers.sort_by_key(|container| Reverse(container.record.created));
        Ok(containers)
    }

    /// The names of the containers that mount this volume.
    pub fn volume_users(&self, volume: &VolumeName) -> Result<Vec<ContainerName>> {
        let mounts = |container: &Container| container.record.volumes().any(|name| name == *volume);
        Ok(self.containers()?.into_iter().filter(mounts).map(|container| container.record.name).collect())
    }

    /// The id that a name, an id or the beginning of one stands for.
    pub fn find_id(&self, name: &str) -> Result<ContainerId> {
        let bare = name.strip_prefix('/').unwrap_or(name);
        if let Ok(parsed) = bare.parse::<ContainerName>()
            && let Some(id) = self.claimed(&parsed)
        {
            return Ok(id);
        }
        if bare.is_empty() || !bare.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(no_such(name));
        }
        let mut matching = self.ids()?.into_iter().filter(|id| id.as_str().starts_with(bare));
        match (matching.next(), matching.next()) {
            (Some(id), None) => Ok(id),
            (Some(_), Some(_)) => {
                Err(Error::invalid(format!("several containers have an id that begins with {bare}"))
                    .with_hint("write more of the id"))
            }
            _ => Err(no_such(name)),
        }
    }

    /// The container that claims a name.
    pub(super) fn claimed(&self, name: &ContainerName) -> Option<ContainerId> {
        let target = fs::read_link(self.root().container_names().join(name.as_str())).ok()?;
        let id: ContainerId = target.to_str()?.parse().ok()?;
        self.has_record(&id).then_some(id)
    }

    /// The container that has a name. A claim that a cut in the middle of a renaming left behind is nobody's. Whoever
    /// asks holds the lock of the names.
    pub(super) fn holder(&self, name: &ContainerName) -> Option<ContainerId> {
        let id = self.claimed(name)?;
        let has_another = ContainerRecord::read(self.root(), &id)
            .is_ok_and(|record| record.is_some_and(|record| record.name != *name));
        (!has_another).then_some(id)
    }

    /// What is to be said of the containers whose records cannot be read.
    pub fn damaged(&self) -> Result<Vec<String>> {
        let damaged = self.ids()?.into_iter().filter(|id| self.is_damaged(id));
        Ok(damaged.filter_map(|id| Some(damage(&id, &self.look(&id).err()?))).collect())
    }

    /// Whether the record or the state of a container cannot be read.
    pub(super) fn is_damaged(&self, id: &ContainerId) -> bool {
        ContainerRecord::read(self.root(), id).is_err() || State::read(self.root(), id).is_err()
    }

    pub(super) fn ids(&self) -> Result<Vec<ContainerId>> {
        ids_in(&self.root().containers())
    }

    /// Whether there is a record, readable or not.
    pub(super) fn has_record(&self, id: &ContainerId) -> bool {
        let record = self.root().container(id).join("config.json");
        record.metadata().is_ok_and(|file| file.len() > 0)
    }

    /// One look at a container; `None` when it went away meanwhile.
    fn look(&self, id: &ContainerId) -> Result<Option<Container>> {
        let failed = |error| Error::failed(format!("read the record of container {}", id.short()), error);
        let Some(record) = ContainerRecord::read(self.root(), id).map_err(failed)? else { return Ok(None) };
        let mut state = match self.recorded_state(id)? {
            Some(state) => state,
            // A power cut left none of one that was to go with it.
            None if record.is_fleeting() => State::Removing,
            None => State::Created,
        };
        if matches!(state, State::Running(_) | State::Restarting(_)) {
            state = self.recover(&record, state)?;
            if !self.has_record(id) {
                return Ok(None);
            }
        }
        let (endpoints, ports) = match state {
            State::Running(_) => (self.networks().endpoints(id)?, self.networks().published(id)?),
            _ => (Vec::new(), Vec::new()),
        };
        Ok(Some(Container { record, state, endpoints, ports }))
    }

    pub(super) fn read_state(&self, id: &ContainerId) -> Result<State> {
        self.recorded_state(id).map(|state| state.unwrap_or(State::Created))
    }

    fn recorded_state(&self, id: &ContainerId) -> Result<Option<State>> {
        State::read(self.root(), id)
            .map_err(|error| Error::failed(format!("read the state of container {}", id.short()), error))
    }

    /// The true state of a container that its record calls alive.
    ///
    /// A live monitor holds its lock. When nobody does, the monitor was killed and took process 1 with it: what
    /// it could not do any more is done here, and the restart policy is obeyed.
    fn recover(&self, record: &ContainerRecord, seen: State) -> Result<State> {
        let id = &record.id;
        let Some(lock) = self.try_monitor_lock(id)? else { return Ok(seen) };
        // Its monitor may have ended in order between the two looks, or somebody has removed it.
        if !self.has_record(id) {
            self.forget_run(id)?;
            return Ok(State::Removing);
        }
        let state = self.read_state(id)?;
        if !matches!(state, State::Running(_) | State::Restarting(_)) {
            return Ok(state);
        }
        // Somebody may have removed the run directory under a monitor that lives. It can be reached no more.
        client::kill_monitor(self.root(), id)?;
        self.release(id)?;
        let (started, restarts) = match &state {
            State::Running(running) => (Some(running.started), running.restarts),
            State::Restarting(last) => (last.started, last.restarts),
            _ => (None, 0),
        };
        let exit = Exited {
            code: MONITOR_LOST,
            started,
            finished: Timestamp::now(),
            oom_killed: false,
            error: Some("its monitor was killed".to_owned()),
            stopped_by_hand: false,
            restarts,
        };
        let ended = state
            .on(Event::Ended { exit, again: false })
            .map_err(|error| Error::failed(format!("record the end of container {}", record.name), error))?;
        // On a full disk the next look finds the same again.
        let recorded = ended.write(self.root(), record).is_ok();
        drop(lock);
        if !recorded {
            return Ok(ended);
        }
        if record.spec.auto_remove {
            self.remove(id, &super::RemoveOptions { force: false, volumes: true })?;
        } else if returns(&ended, record.spec.restart) {
            // Why it could not be started is in its state; whoever only looks at containers is not to fail for it.
            let _ = client::spawn_monitor(self.root(), id).and_then(|mut monitor| monitor.started());
            return self.read_state(id);
        }
        Ok(ended)
    }

    /// Gives back everything of the kernel's that a container without a monitor may still hold.
    pub(super) fn release(&self, id: &ContainerId) -> Result<()> {
        Cgroup::open(self.root(), id)
            .and_then(|cgroup| cgroup.kill().and_then(|()| cgroup.remove()))
            .map_err(|error| Error::failed(format!("end what is left of container {}", id.short()), error))?;
        self.networks().release(id)?;
        Ok(())
    }

    /// Removes the run directory of a container that is gone, which looking for its monitor has made again.
    pub(super) fn forget_run(&self, id: &ContainerId) -> Result<()> {
        store::remove_tree(&self.root().container_run(id)).map_err(|error| {
            Error::failed(format!("remove the run directory of container {}", id.short()), error)
        })
    }

    /// The monitor's lock, if no monitor lives.
    pub(super) fn try_monitor_lock(&self, id: &ContainerId) -> Result<Option<Lock>> {
        let failed = |error| Error::failed(format!("lock container {}", id.short()), error);
        store::private_directory(&self.root().container_run(id)).map_err(failed)?;
        Lock::try_exclusive(&self.root().monitor_lock(id)).map_err(failed)
    }
}

/// What docker says of a container that does not exist.
fn no_such(name: &str) -> Error {
    Error::not_found(format!("no such container: {name}")).with_hint("rengine ps -a lists them")
}
