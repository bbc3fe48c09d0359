//! Named volumes: a record and a directory each. Knows nothing of containers; who uses a volume is told by them.

mod backing;
mod seed;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind};
use crate::event::{Event, EventKind, Journal};
use crate::id::VolumeName;
use crate::paths::Root;
use crate::store::{self, Durability, Lock};

pub(crate) use backing::Backing;
pub use backing::{FileSystem, Flags};
pub use seed::seed;

/// The volumes of one root.
#[derive(Debug, Clone)]
pub struct Volumes {
    root: Root,
}

/// A volume to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VolumeSpec {
    /// Its name; a random one when `None`, which makes it anonymous.
    pub name: Option<VolumeName>,
    /// `local` when empty; no other driver exists.
    pub driver: String,
    /// `type`, `o` and `device` as the local driver has them: a directory of the host (`o=bind`), or a file system
    /// that is mounted for the containers that use it.
    pub options: BTreeMap<String, String>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
}

/// A volume as its record keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    version: u32,
    /// Its name.
    pub name: VolumeName,
    /// Whether it was made for one container and goes with it.
    pub anonymous: bool,
    /// When it was made.
    pub created: Timestamp,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Where its content is on the host.
    pub mountpoint: PathBuf,
}

/// Why a verb on a volume failed.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// Another driver than `local`.
    #[error("volume driver {0:?} does not exist")]
    Driver(String),
    /// Options that the local driver does not have.
    #[error("volume {name}: {problem}")]
    Options {
        /// The volume.
        name: VolumeName,
        /// What is wrong with them.
        problem: String,
    },
    /// It exists with other options.
    #[error("volume {0} exists with other options")]
    Exists(VolumeName),
    /// There is none of that name.
    #[error("no such volume: {0}")]
    NotFound(String),
    /// A file of it could not be read or written.
    #[error("{step} volume {name}")]
    Io {
        /// What was being done.
        step: &'static str,
        /// The volume.
        name: String,
        /// Why not.
        source: io::Error,
    },
}

// === impl Volumes ===

impl Volumes {
    /// The volumes of this root.
    pub fn at(root: &Root) -> Self {
        Self { root: root.clone() }
    }

    /// Makes a volume, or returns the one of that name if it was made with the same options.
    ///
    /// # Errors
    /// When the driver or an option does not exist, or the volume exists with other options.
    pub fn create(&self, spec: VolumeSpec) -> Result<Volume, VolumeError> {
        if !matches!(spec.driver.as_str(), "" | "local") {
            return Err(VolumeError::Driver(spec.driver));
        }
        let anonymous = spec.name.is_none();
        let name = spec.name.unwrap_or_else(VolumeName::random);
        let io = |step| {
            let name = name.to_string();
            move |source| VolumeError::Io { step, name, source }
        };
        let directory = self.root.volume(&name);
        let device = bound_directory(&name, &spec.options)?;
        store::private_directory(&self.root.volumes()).map_err(io("make the directory of"))?;
        let _one_at_a_time =
            Lock::exclusive(&self.root.volumes().join(".lock")).map_err(io("lock the directory of"))?;
        if let Some(existing) = self.find(&name)? {
            let same = spec.options.is_empty() || existing.options == spec.options;
            return if same { Ok(existing) } else { Err(VolumeError::Exists(name)) };
        }
        store::private_directory(&directory).map_err(io("make the directory of"))?;
        let data = directory.join("_data");
        match fs::create_dir(&data) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                let _ = fs::remove_dir(&directory);
                return Err(io("make the directory of")(error));
            }
            _ => {}
        }
        let volume = Volume {
            version: 1,
            anonymous,
            created: Timestamp::now(),
            options: spec.options,
            labels: spec.labels,
            mountpoint: device.unwrap_or(data),
            name: name.clone(),
        };
        store::write_json(&record(&directory), &volume, Durability::Sync).map_err(|error| {
            // Nothing was ever in it.
            let _ = store::remove_tree(&directory);
            io("record")(error)
        })?;
        self.announce(&volume.name, "create");
        Ok(volume)
    }

    /// The volume of this name, if there is one.
    pub fn find(&self, name: &VolumeName) -> Result<Option<Volume>, VolumeError> {
        store::read_json(&record(&self.root.volume(name))).map_err(|source| VolumeError::Io {
            step: "read the record of",
            name: name.to_string(),
            source,
        })
    }

    /// The volume of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn get(&self, name: &str) -> Result<Volume, VolumeError> {
        let missing = || VolumeError::NotFound(name.to_owned());
        let name: VolumeName = name.parse().map_err(|_| missing())?;
        self.find(&name)?.ok_or_else(missing)
    }

    /// All volumes by name.
    pub fn list(&self) -> Result<Vec<Volume>, VolumeError> {
        let entries = match fs::read_dir(self.root.volumes()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|source| VolumeError::Io {
                step: "list the directory of",
                name: "all".to_owned(),
                source,
            })?,
        };
        let mut volumes = Vec::new();
        for entry in entries.flatten() {
            if let Ok(name) = entry.file_name().to_string_lossy().parse() {
                volumes.extend(self.find(&name)?);
            }
        }
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    /// Held while a container starts that uses a volume in memory, until that is known: of two that start at once, the
    /// second one then shows what the first one has made. `None` when no such volume is among these.
    ///
    /// # Errors
    /// When a record cannot be read, or the lock cannot be had.
    pub(crate) fn turn<'a>(
        &self,
        mut names: impl Iterator<Item = &'a VolumeName>,
    ) -> Result<Option<Lock>, VolumeError> {
        let memory = names.find_map(|name| {
            let volume = self.find(name).transpose()?;
            Some(volume).filter(|volume| volume.as_ref().is_ok_and(|volume| volume.backing().is_memory()))
        });
        let Some(volume) = memory.transpose()? else { return Ok(None) };
        let lock = Lock::exclusive(&self.root.volumes().join(".turn"));
        lock.map(Some).map_err(|source| VolumeError::Io {
            step: "wait for",
            name: volume.name.to_string(),
            source,
        })
    }

    /// Removes a volume with its content. The caller knows that no container uses it.
    pub fn remove(&self, name: &VolumeName) -> Result<(), VolumeError> {
        let io = |step| move |source| VolumeError::Io { step, name: name.to_string(), source };
        let directory = self.root.volume(name);
        // Without its record it is gone; what a crash leaves of the content is swept by the next removal.
        store::remove_file(&record(&directory)).map_err(io("remove the record of"))?;
        store::remove_tree(&directory).map_err(io("remove"))?;
        self.announce(name, "destroy");
        Ok(())
    }

    /// Tells everybody who listens to events.
    fn announce(&self, name: &VolumeName, action: &str) {
        let event = Event::now(EventKind::Volume, action, name.as_str(), [("driver", "local")]);
        Journal::of(&self.root).append(&event);
    }

    /// Removes what no volume is left of, and the empty anonymous volumes that nobody uses: whoever asked for one
    /// was killed before its container was made. Returns their names. The caller holds off the making of containers.
    pub(crate) fn sweep(&self, is_used: &dyn Fn(&VolumeName) -> bool) -> Result<Vec<String>, VolumeError> {
        let io = |step| move |source| VolumeError::Io { step, name: "all".to_owned(), source };
        let directory = self.root.volumes();
        if !directory.exists() {
            return Ok(Vec::new());
        }
        let _one_at_a_time =
            Lock::exclusive(&directory.join(".lock")).map_err(io("lock the directory of"))?;
        let mut swept = Vec::new();
        for entry in fs::read_dir(&directory).map_err(io("list the directory of"))?.flatten() {
            let Some(name) = entry.file_name().to_str().and_then(|name| name.parse::<VolumeName>().ok())
            else {
                continue;
            };
            let unwanted = match self.find(&name)? {
                None => true,
                Some(volume) => volume.anonymous && !is_used(&name) && is_empty(&volume.mountpoint),
            };
            if unwanted {
                self.remove(&name)?;
                swept.push(name.to_string());
            }
        }
        Ok(swept)
    }
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
}

// === impl Volume ===

impl Volume {
    /// What its content is kept in. A record only holds options that made sense.
    pub(crate) fn backing(&self) -> Backing {
        Backing::parse(&self.options).unwrap_or(Backing::Own)
    }
}

/// The directory of the host that the volume is, if it is one; it must be there.
fn bound_directory(
    name: &VolumeName,
    options: &BTreeMap<String, String>,
) -> Result<Option<PathBuf>, VolumeError> {
    let wrong = |problem: String| VolumeError::Options { name: name.clone(), problem };
    match Backing::parse(options).map_err(wrong)? {
        Backing::Directory(path) if !path.is_dir() => {
            Err(wrong(format!("device {:?} is not a directory", path.display())))
        }
        Backing::Directory(path) => Ok(Some(path)),
        Backing::Own | Backing::FileSystem(_) => Ok(None),
    }
}

fn record(directory: &Path) -> PathBuf {
    directory.join("volume.json")
}

impl From<VolumeError> for Error {
    fn from(error: VolumeError) -> Self {
        let kind = match &error {
            VolumeError::Driver(_) | VolumeError::Options { .. } => Kind::Invalid,
            VolumeError::Exists(_) => Kind::Conflict,
            VolumeError::NotFound(_) => Kind::NotFound,
            VolumeError::Io { .. } => Kind::Failed,
        };
        let message = error.to_string();
        let converted = Error::new(kind, message);
        match error {
            VolumeError::Io { source, .. } => converted.with_source(source),
            VolumeError::NotFound(_) => {
                converted.with_hint("`rengine volume ls` shows the volumes that exist")
            }
            _ => converted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volumes() -> (tempfile::TempDir, Volumes) {
        let directory = tempfile::tempdir().unwrap();
        let volumes = Volumes::at(&Root::at(directory.path()));
        (directory, volumes)
    }

    fn named(name: &str) -> VolumeSpec {
        VolumeSpec { name: Some(name.parse().unwrap()), ..VolumeSpec::default() }
    }

    #[test]
    fn a_volume_is_made_once_and_found_again() {
        let (_directory, volumes) = volumes();
        let first = volumes.create(named("data")).unwrap();
        fs::write(first.mountpoint.join("file"), "kept").unwrap();
        assert_eq!(volumes.create(named("data")).unwrap(), first);
        assert_eq!(volumes.list().unwrap(), std::slice::from_ref(&first));
        volumes.remove(&first.name).unwrap();
        assert!(!first.mountpoint.exists());
        assert_eq!(volumes.get("data").unwrap_err().to_string(), "no such volume: data");
    }

    #[test]
    fn what_nobody_can_miss_is_swept() {
        let (_directory, volumes) = volumes();
        let anonymous = || volumes.create(VolumeSpec::default()).unwrap();
        let (unused, used, full) = (anonymous(), anonymous(), anonymous());
        let named = volumes.create(named("named")).unwrap();
        fs::write(full.mountpoint.join("file"), "kept").unwrap();
        let half = volumes.root.volume(&"half".parse().unwrap());
        fs::create_dir_all(half.join("_data")).unwrap();
        let mut swept = volumes.sweep(&|name| *name == used.name).unwrap();
        swept.sort();
        let mut expected = [unused.name.to_string(), "half".to_owned()];
        expected.sort();
        assert_eq!(swept, expected);
        assert_eq!(volumes.list().unwrap().len(), 3);
        assert!(named.mountpoint.exists() && !half.exists());
    }

    #[test]
    fn a_bound_device_is_the_mountpoint() {
        let (directory, volumes) = volumes();
        let options = [("type", "none"), ("o", "bind"), ("device", directory.path().to_str().unwrap())];
        let options = options.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let volume = volumes.create(VolumeSpec { options, ..named("bound") }).unwrap();
        assert_eq!(volume.mountpoint, directory.path());
        let other = [("size".to_owned(), "1".to_owned())].into();
        let error = volumes.create(VolumeSpec { options: other, ..named("wrong") }).unwrap_err();
        assert_eq!(error.to_string(), "volume wrong: the local driver has no option \"size\"");
    }
}
