//! What is kept of a container between two commands, and what state it is in (runtime-spec, runtime.md, "State").

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::config::Config;
use super::limits;
use crate::container::cgroup::Cgroup;
use crate::error::{Error, Result};
use crate::paths::RuntimeRoot;
use crate::store::{self, Durability};

/// The version of the specification that is followed.
pub const VERSION: &str = "1.0.2";

/// What is kept of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) bundle: PathBuf,
    pub(super) rootfs: PathBuf,
    pub(super) pid: i32,
    /// When the process was started, in the kernel's ticks: another one with its number has another one.
    pub(super) birth: u64,
    pub(super) created: Timestamp,
    /// Below the top of each hierarchy.
    pub(super) cgroup: PathBuf,
    /// Whether it waits, or waited, for its start.
    pub(super) gated: bool,
    pub(super) config: Value,
}

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Being made.
    Creating,
    /// Made; its program waits for the start.
    Created,
    /// Its program runs.
    Running,
    /// It stands still.
    Paused,
    /// Its program has ended.
    Stopped,
}

/// A container as it is told about.
#[derive(Debug, Clone)]
pub struct View {
    /// Its name.
    pub id: String,
    /// Its first process; 0 when that has ended.
    pub pid: i32,
    /// Where it is in its life.
    pub status: Status,
    /// Its bundle.
    pub bundle: PathBuf,
    /// What it sees as `/`.
    pub rootfs: PathBuf,
    /// When it was made.
    pub created: Timestamp,
    /// Who owns its files here.
    pub owner: u32,
    annotations: Map<String, Value>,
}

// === impl Status ===

impl Status {
    /// The specification's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

// === impl Record ===

impl Record {
    pub(super) fn read(root: &RuntimeRoot, id: &str) -> Result<Self> {
        validate(id)?;
        let path = root.state(id);
        let read = store::read_json(&path);
        let read = read.map_err(|error| Error::failed(format!("read {}", path.display()), error))?;
        read.ok_or_else(|| Error::not_found("container does not exist"))
    }

    pub(super) fn write(&self, root: &RuntimeRoot) -> Result<()> {
        store::write_json(&root.state(&self.id), self, Durability::Rename)
            .map_err(|error| Error::failed(format!("record the state of {}", self.id), error))
    }

    pub(super) fn config(&self) -> Result<Config> {
        Config::parse(&self.config)
    }

    pub(super) fn cgroup(&self) -> Result<Cgroup> {
        Ok(Cgroup::open_in(&limits::layout()?, &self.cgroup)?)
    }

    pub(super) fn status(&self, root: &RuntimeRoot) -> Result<Status> {
        if self.pid == 0 {
            return Ok(Status::Creating);
        }
        if birth(self.pid) != Some(self.birth) {
            return Ok(Status::Stopped);
        }
        if self.gated && root.gate(&self.id).exists() {
            return Ok(Status::Created);
        }
        Ok(if self.cgroup()?.is_frozen() { Status::Paused } else { Status::Running })
    }

    /// A descriptor of its first process, if that is still there.
    pub(super) fn process(&self) -> Option<std::os::fd::OwnedFd> {
        let held = rustix::process::pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        (birth(self.pid) == Some(self.birth)).then_some(held)
    }

    /// What hooks get on their standard input.
    pub(super) fn for_hook(&self, status: Status) -> Value {
        let mut state = json!({
            "ociVersion": VERSION,
            "id": self.id,
            "status": status.word(),
            "pid": self.pid,
            "bundle": self.bundle,
        });
        let annotations = self.annotations();
        if let (Some(state), false) = (state.as_object_mut(), annotations.is_empty()) {
            state.insert("annotations".to_owned(), Value::Object(annotations));
        }
        state
    }

    fn annotations(&self) -> Map<String, Value> {
        self.config.get("annotations").and_then(Value::as_object).cloned().unwrap_or_default()
    }

    pub(super) fn view(&self, root: &RuntimeRoot) -> Result<View> {
        use std::os::unix::fs::MetadataExt;
        let status = self.status(root)?;
        Ok(View {
            id: self.id.clone(),
            pid: if status == Status::Stopped { 0 } else { self.pid },
            status,
            bundle: self.bundle.clone(),
            rootfs: self.rootfs.clone(),
            created: self.created,
            owner: fs::metadata(root.container(&self.id)).map(|found| found.uid()).unwrap_or(0),
            annotations: self.annotations(),
        })
    }
}

// === impl View ===

impl View {
    /// Who owns its files here; a number where it is not root.
    pub fn owner_name(&self) -> String {
        if self.owner == 0 { "root".to_owned() } else { self.owner.to_string() }
    }

    /// As `list` prints it: with its owner.
    pub fn listed(&self) -> Value {
        let mut view = self.json();
        view["owner"] = Value::String(self.owner_name());
        view
    }

    /// As `state` prints it.
    pub fn json(&self) -> Value {
        let mut view = json!({
            "ociVersion": VERSION,
            "id": self.id,
            "pid": self.pid,
            "status": self.status.word(),
            "bundle": self.bundle,
            "rootfs": self.rootfs,
            "created": self.created.to_string(),
        });
        if let Some(view) = view.as_object_mut() {
            if !self.annotations.is_empty() {
                view.insert("annotations".to_owned(), Value::Object(self.annotations.clone()));
            }
            view.insert("owner".to_owned(), Value::String(String::new()));
        }
        view
    }
}

/// The state of one container.
///
/// # Errors
/// When there is none of that name.
pub fn state(root: &RuntimeRoot, id: &str) -> Result<View> {
    Record::read(root, id)?.view(root)
}

/// Every container of a root.
///
/// # Errors
/// When the root cannot be read.
pub fn list(root: &RuntimeRoot) -> Result<Vec<View>> {
    let entries = match fs::read_dir(root.directory()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => {
            other.map_err(|error| Error::failed(format!("list {}", root.directory().display()), error))?
        }
    };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    // One that is being made or removed meanwhile is none.
    let records = names.filter_map(|name| Record::read(root, &name).ok());
    let mut views: Vec<View> = records.filter_map(|record| record.view(root).ok()).collect();
    views.sort_by(|left, right| left.id.cmp(&right.id));
    Ok(views)
}

/// Letters, digits, `_`, `+`, `-` and `.`, so that a name is a file's name.
pub(super) fn validate(id: &str) -> Result<()> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'+' | b'-' | b'.');
    if !id.is_empty() && id != "." && id != ".." && id.bytes().all(fine) {
        return Ok(());
    }
    Err(Error::invalid(format!("invalid container ID format: {id:?}")))
}

/// When a process was started, in ticks since boot; `None` when it is gone or has ended (proc_pid_stat(5)).
pub(super) fn birth(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    (!matches!(state, "Z" | "X")).then_some(())?;
    fields.nth(18)?.parse().ok()
}

/// The container's directory by descriptor: a short name for the sockets in it, however deep the root is.
pub(super) fn short(directory: &Path) -> Result<(std::os::fd::OwnedFd, PathBuf)> {
    use std::os::fd::AsRawFd;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let held = rustix::fs::open(directory, flags, Mode::empty())
        .map_err(|error| Error::failed(format!("open {}", directory.display()), error))?;
    let name = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
    Ok((held, name))
}
