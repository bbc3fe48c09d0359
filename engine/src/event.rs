//! What happened: docker's events, in a journal that whoever makes a change appends to.
//!
//! The journal is in the run directory, where writing costs nothing and a reboot clears it. It is two files of a
//! bounded size: the one that grows, and the one that grew before it.

mod follow;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::paths::Root;
use crate::store::{self, Lock};

pub use follow::Reader;

/// Something that happened to something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub time: Timestamp,
    /// To what kind of thing.
    pub kind: EventKind,
    /// Docker's word for it: `start`, `die`, `exec_start: ls -l`.
    pub action: String,
    /// To which one: an id, or a name where names are identities.
    pub id: String,
    /// What else there is to say: `name`, `image`, `exitCode`, labels.
    pub attributes: BTreeMap<String, String>,
}

/// Kinds of things that events are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A network.
    Network,
    /// A volume.
    Volume,
}

/// The journal of one root.
#[derive(Debug, Clone)]
pub struct Journal {
    directory: PathBuf,
}

/// The file that grows.
const CURRENT: &str = "journal";
/// The one that grew before.
const PREVIOUS: &str = "journal.1";
/// At this size the file is put aside: some thousand events.
const MOST: u64 = 1 << 20;

// === impl Event ===

impl Event {
    /// Something that happens now.
    pub fn now<K: Into<String>, V: Into<String>>(
        kind: EventKind,
        action: impl Into<String>,
        id: impl Into<String>,
        attributes: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        Self {
            time: Timestamp::now(),
            kind,
            action: action.into(),
            id: id.into(),
            attributes: attributes.into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
        }
    }
}

impl EventKind {
    /// Docker's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
            Self::Network => "network",
            Self::Volume => "volume",
        }
    }
}

// === impl Journal ===

impl Journal {
    /// The journal of this root.
    pub fn of(root: &Root) -> Self {
        Self { directory: root.events() }
    }

    /// Writes an event down. One that cannot be written is lost: what it tells of has happened all the same, and must
    /// not fail for it.
    pub fn append(&self, event: &Event) {
        let _ = self.try_append(event);
    }

    /// Everything in the journal from this moment on, then what comes.
    ///
    /// # Errors
    /// When the journal cannot be watched or read.
    pub fn follow(&self, since: Option<Timestamp>) -> io::Result<Reader> {
        store::private_directory(&self.directory)?;
        Reader::new(&self.directory, since)
    }

    fn try_append(&self, event: &Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        let _one_at_a_time = match Lock::exclusive(&self.directory.join("lock")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match fs::DirBuilder::new().mode(0o700).create(&self.directory) {
                    // Nobody has opened this root since the machine was started, so nobody listens.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                    _ => {}
                }
                Lock::exclusive(&self.directory.join("lock"))?
            }
            other => other?,
        };
        let path = self.directory.join(CURRENT);
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        let full = file.metadata()?.len() + line.len() as u64 > MOST;
        if full {
            fs::rename(&path, self.directory.join(PREVIOUS))?;
            file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        }
        file.write_all(&line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &str) -> Event {
        Event::now(EventKind::Volume, action, "data", [("driver", "local")])
    }

    #[test]
    fn the_journal_is_bounded_and_read_across_its_turn() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal { directory: directory.path().join("events") };
        let long = "x".repeat(60_000);
        let mut reader = journal.follow(Some(Timestamp::now())).unwrap();
        for number in 0..40 {
            journal.append(&event(&format!("{number} {long}")));
            let read = reader.next(None).unwrap().unwrap();
            assert!(read.action.starts_with(&format!("{number} ")));
        }
        assert_eq!(reader.next(Some(Timestamp::now())).unwrap(), None);
        let size: u64 = [CURRENT, PREVIOUS]
            .map(|name| fs::metadata(journal.directory.join(name)).unwrap().len())
            .iter()
            .sum();
        assert!(size <= 2 * MOST, "{size}");
    }

    #[test]
    fn a_root_that_nobody_opened_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let run = directory.path().join("run");
        Journal { directory: run.join("events") }.append(&event("create"));
        assert!(!run.exists());
    }

    #[test]
    fn the_past_is_read_from_a_moment_on() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal { directory: directory.path().join("events") };
        journal.append(&event("create"));
        let between = Timestamp::now();
        journal.append(&event("destroy"));
        let mut reader = journal.follow(Some(between)).unwrap();
        assert_eq!(reader.next(Some(Timestamp::now())).unwrap().unwrap().action, "destroy");
        let mut reader = journal.follow(None).unwrap();
        assert_eq!(reader.next(Some(Timestamp::now())).unwrap(), None);
    }
}
