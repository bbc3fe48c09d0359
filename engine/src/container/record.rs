//! What is kept of a container for as long as it exists: `config.json` and `state.json`.

use std::io;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::container::idmap::UserMap;
use crate::container::spec::{ContainerSpec, MountSource};
use crate::container::state::State;
use crate::event::{Event, EventKind, Journal};
use crate::id::{ContainerId, ContainerName, ImageId, VolumeName};
use crate::paths::Root;
use crate::store::scratch::Scratch;
use crate::store::{self, Durability};

/// A container as `config.json` keeps it: written at creation, rewritten by `rename`, `update`, `network connect` and
/// `network disconnect` alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// The format, 1.
    pub version: u32,
    /// Its identity.
    pub id: ContainerId,
    /// Its name.
    pub name: ContainerName,
    /// When it was made.
    pub created: Timestamp,
    /// The image it was made from.
    pub image: ImageId,
    /// What was asked, merged with the image's configuration.
    pub spec: ContainerSpec,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The image's unpacked layers, topmost first.
    pub lower: Vec<PathBuf>,
    /// What it is for.
    #[serde(default)]
    pub purpose: Purpose,
    /// Its user ids as ids of the host; the same ones when `None`. What it writes is kept with the ids inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<UserMap>,
}

/// What a container is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// A person or compose asked for it.
    #[default]
    Service,
    /// It is one step of a build: its writable layer need not survive a power cut until it is committed.
    Build,
}

#[derive(Serialize, Deserialize)]
struct StateRecord {
    version: u32,
    state: State,
}

// === impl ContainerRecord ===

impl ContainerRecord {
    /// The newest format.
    pub const VERSION: u32 = 1;

    /// Reads a container's record; `None` when there is no such container.
    pub fn read(root: &Root, id: &ContainerId) -> io::Result<Option<Self>> {
        store::read_json(&root.container(id).join("config.json"))
    }

    /// Writes the record; its directory must exist. It is on the disk then, unless the container is one that would be
    /// removed after a power cut anyway.
    pub fn write(&self, root: &Root) -> io::Result<()> {
        let durability = if self.is_fleeting() { Durability::Fleeting } else { Durability::Sync };
        store::write_json(&root.container(&self.id).join("config.json"), self, durability)
    }

    /// Whether a power cut ends more than its process.
    pub(crate) fn is_fleeting(&self) -> bool {
        self.spec.auto_remove || self.purpose == Purpose::Build
    }

    /// Tells everybody who listens that something happened to the container, with what else there is to say of it.
    pub fn announce(&self, root: &Root, action: &str, details: &[(&str, String)]) {
        // The steps of a build are nobody's containers.
        if self.purpose == Purpose::Build {
            return;
        }
        let own = [("image", self.spec.image.clone()), ("name", self.name.to_string())];
        let labels = self.spec.labels.iter().map(|(key, value)| (key.as_str(), value.clone()));
        let all = labels.chain(own).chain(details.iter().map(|(key, value)| (*key, value.clone())));
        Journal::of(root).append(&Event::now(EventKind::Container, action, self.id.as_str(), all));
    }

    /// Removes the record; without it there is no container.
    pub(crate) fn remove(root: &Root, id: &ContainerId) -> io::Result<()> {
        store::remove_file(&root.container(id).join("config.json"))
    }

    /// Removes the files of a container without a record.
    pub(crate) fn remove_remains(root: &Root, id: &ContainerId) -> io::Result<()> {
        store::remove_tree(&root.container(id))?;
        store::remove_tree(&root.container_run(id))
    }

    /// Takes the files of a container without a record away from where they are looked for; they are removed when what
    /// this gives is dropped.
    pub(crate) fn withdraw_remains(root: &Root, id: &ContainerId) -> io::Result<Option<Scratch>> {
        let remains = match Scratch::taking(root, &root.container(id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            remains => Some(remains?),
        };
        store::remove_tree(&root.container_run(id))?;
        Ok(remains)
    }

    /// The volumes it mounts.
    pub fn volumes(&self) -> impl Iterator<Item = VolumeName> + '_ {
        self.spec.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Volume { name, .. } => name.clone(),
            _ => None,
        })
    }

    /// What it runs, as tables show it: an argument that has spaces in it stands in quotes.
    pub fn command_line(&self) -> String {
        let quoted = |word: &String| if word.contains(' ') { format!("'{word}'") } else { word.clone() };
        let mut words = self.argv.iter();
        let program = words.next().cloned();
        program.into_iter().chain(words.map(quoted)).collect::<Vec<_>>().join(" ")
    }

    /// The hostname inside: as asked, else the short id.
    pub fn hostname(&self) -> &str {
        self.spec.hostname.as_deref().unwrap_or(self.id.short())
    }
}

// === impl State ===

impl State {
    /// Reads a container's state; `None` when it has none yet.
    pub fn read(root: &Root, id: &ContainerId) -> io::Result<Option<Self>> {
        let mut record: Option<StateRecord> = store::read_json(&overflow(root, id))?;
        if record.is_none() {
            record = store::read_json(&root.container(id).join("state.json"))?;
        }
        Ok(record.map(|record| record.state))
    }

    /// Writes a container's state. Only the holder of the monitor's lock may. What a full disk has no room for is in
    /// memory until it has: a container that runs must not be taken for one that does not.
    pub fn write(&self, root: &Root, of: &ContainerRecord) -> io::Result<()> {
        let durability = if of.is_fleeting() { Durability::Fleeting } else { Durability::Rename };
        let record = StateRecord { version: 1, state: self.clone() };
        let overflow = overflow(root, &of.id);
        match store::write_json(&root.container(&of.id).join("state.json"), &record, durability) {
            Ok(()) => store::remove_file(&overflow),
            // Without that there is no room for it at all, and why is the first failure.
            Err(error) => store::write_json(&overflow, &record, Durability::Fleeting).map_err(|_| error),
        }
    }
}

/// Where a state is that its disk has no room for.
fn overflow(root: &Root, id: &ContainerId) -> PathBuf {
    root.container_run(id).join("state.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_and_states_are_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::at(directory.path());
        let record = record();
        assert_eq!(ContainerRecord::read(&root, &record.id).unwrap(), None);
        store::private_directory(&root.container(&record.id)).unwrap();
        record.write(&root).unwrap();
        assert_eq!(ContainerRecord::read(&root, &record.id).unwrap(), Some(record.clone()));
        assert_eq!(State::read(&root, &record.id).unwrap(), None);
        State::Created.write(&root, &record).unwrap();
        assert_eq!(State::read(&root, &record.id).unwrap(), Some(State::Created));
        assert!(!overflow(&root, &record.id).exists());
        assert_eq!(record.hostname(), record.id.short());
        assert_eq!(record.command_line(), "sh -c 'exec web'");
    }

    #[test]
    fn a_state_that_its_disk_does_not_take_is_kept_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::at(directory.path());
        let record = record();
        State::Created.write(&root, &record).unwrap_err();
        store::private_directory(&root.container_run(&record.id)).unwrap();
        State::Removing.write(&root, &record).unwrap();
        assert_eq!(State::read(&root, &record.id).unwrap(), Some(State::Removing));
        store::private_directory(&root.container(&record.id)).unwrap();
        State::Created.write(&root, &record).unwrap();
        assert_eq!(State::read(&root, &record.id).unwrap(), Some(State::Created));
        assert!(!overflow(&root, &record.id).exists());
        store::remove_tree(root.run()).unwrap();
    }

    fn record() -> ContainerRecord {
        ContainerRecord {
            version: ContainerRecord::VERSION,
            id: ContainerId::random(),
            name: "web-1".parse().unwrap(),
            created: Timestamp::UNIX_EPOCH,
            image: ImageId::of(b"image"),
            spec: ContainerSpec::default(),
            argv: ["sh", "-c", "exec web"].map(str::to_owned).to_vec(),
            lower: vec!["/layer".into()],
            purpose: Purpose::Service,
            users: None,
        }
    }
}
