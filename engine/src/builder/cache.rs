//! Which layer an instruction made the last time everything it depends on was the same.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::id::{DiffId, Digest};
use crate::layer::Layers;
use crate::paths::Root;
use crate::store::scratch::Claim;
use crate::store::{Durability, Lock, private_directory, read_json, write_json};

/// Everything a layer depends on, in one digest.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    hash: Sha256,
    /// The parts that people know by a name, to say which of them has changed.
    parts: Parts,
}

/// What a step depended on: names for people, and something that changes with the value.
pub(crate) type Parts = Vec<(String, String)>;

/// The layer an instruction made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    /// The layer.
    pub(crate) diff: DiffId,
    /// When it was made, RFC 3339.
    pub(crate) created: String,
    /// The instruction, for people.
    pub(crate) instruction: String,
    /// When it was kept, in nanoseconds since 1970.
    #[serde(default)]
    made: u64,
}

/// The records of one root.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    root: Root,
    directory: PathBuf,
    layers: Layers,
}

const VERSION: u32 = 1;

/// Since 1970. A file's times are those of the kernel's last tick, which may be some milliseconds ago, and a build may be
/// over in fewer.
fn nanoseconds(time: std::time::SystemTime) -> u64 {
    let since = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

// === impl Key ===

impl Key {
    /// A key of this kind of instruction.
    pub(crate) fn of(kind: &str) -> Self {
        Self { hash: Sha256::new(), parts: Vec::new() }.with("version 1").with(kind)
    }

    /// The key with a further part that has a name for people.
    pub(crate) fn named(mut self, name: impl Into<String>, part: impl AsRef<[u8]>) -> Self {
        self.parts.push((name.into(), Digest::of(part.as_ref()).short().to_owned()));
        self.with(part)
    }

    /// The parts with names.
    pub(crate) fn parts(&self) -> &Parts {
        &self.parts
    }

    /// The key with a further part. Parts never run into each other.
    pub(crate) fn with(mut self, part: impl AsRef<[u8]>) -> Self {
        let part = part.as_ref();
        self.hash.update((part.len() as u64).to_le_bytes());
        self.hash.update(part);
        self
    }

    /// The key with a list of parts, which is one part.
    pub(crate) fn with_all<T: AsRef<[u8]>>(self, parts: impl IntoIterator<Item = T>) -> Self {
        self.with(list(parts))
    }

    /// The key with a list of parts that has a name for people.
    pub(crate) fn named_all<T: AsRef<[u8]>>(self, name: &str, parts: impl IntoIterator<Item = T>) -> Self {
        self.named(name, list(parts))
    }

    /// The key's digest.
    pub(crate) fn digest(&self) -> Digest {
        Digest::from_sha256(&self.hash.clone().finalize())
    }
}

fn list<T: AsRef<[u8]>>(parts: impl IntoIterator<Item = T>) -> [u8; 32] {
    let mut list = Sha256::new();
    for part in parts {
        list.update((part.as_ref().len() as u64).to_le_bytes());
        list.update(part.as_ref());
    }
    list.finalize().into()
}

// === impl Cache ===

impl Cache {
    /// The cache of this root.
    pub(crate) fn at(root: &Root) -> std::io::Result<Self> {
        let directory = root.build_cache().join("records");
        private_directory(&directory)?;
        Ok(Self { root: root.clone(), directory, layers: Layers::at(root) })
    }

    /// Waits until nobody else makes what has this key: another build, or another stage of this one.
    pub(crate) fn claim(&self, key: &Key) -> crate::Result<Claim> {
        Claim::on(&self.root, &key.digest())
            .map_err(|error| crate::Error::failed("claim a build cache record", error))
    }

    /// What was made under this key, as long as its layer is here.
    pub(crate) fn find(&self, key: &Key) -> Option<Record> {
        let record: Record = read_json(&self.path(key)).ok().flatten()?;
        if record.version != VERSION || !self.layers.contains(&record.diff) {
            return None;
        }
        // What is wanted is young. A time that cannot be set is no reason to build again.
        let file = std::fs::File::options().write(true).open(self.path(key));
        let _ = file.and_then(|file| file.set_modified(std::time::SystemTime::now()));
        Some(record)
    }

    /// Remembers what was made under this key. What another build has made meanwhile stays and comes back: two builds of
    /// the same make the same image.
    pub(crate) fn keep(
        &self,
        key: &Key,
        diff: &DiffId,
        created: &str,
        instruction: &str,
        since: std::time::SystemTime,
    ) -> crate::Result<Option<Record>> {
        let failed = |error| crate::Error::failed("keep a build cache record", error);
        let _one_at_a_time = Lock::exclusive(&self.directory.with_file_name("lock")).map_err(failed)?;
        if let Some(record) = self.find(key).filter(|record| record.made > nanoseconds(since)) {
            return Ok(Some(record));
        }
        self.layers.pin(diff)?;
        let record = Record {
            version: VERSION,
            diff: diff.clone(),
            created: created.to_owned(),
            instruction: instruction.to_owned(),
            made: nanoseconds(std::time::SystemTime::now()),
        };
        write_json(&self.path(key), &record, Durability::Rename).map_err(failed)?;
        Ok(None)
    }

    /// What the step at this place depended on when it was last made.
    pub(crate) fn last(&self, place: &str) -> Option<Parts> {
        read_json(&self.last_path(place)).ok().flatten()
    }

    /// Remembers what the step at this place depended on.
    pub(crate) fn remember(&self, place: &str, parts: &Parts) {
        // It is only for explanations: a build does not fail for want of one.
        let _ = private_directory(&self.directory.with_file_name("last"))
            .and_then(|()| write_json(&self.last_path(place), parts, Durability::Rename));
    }

    /// The layer that the step at this place made when it was last made.
    pub(crate) fn last_layer(&self, place: &str) -> Option<DiffId> {
        read_json(&self.last_path(place).with_extension("layer")).ok().flatten()
    }

    /// Remembers the layer that the step at this place made.
    pub(crate) fn remember_layer(&self, place: &str, diff: &DiffId) {
        // It only saves copying.
        let path = self.last_path(place).with_extension("layer");
        let _ = private_directory(&self.directory.with_file_name("last"))
            .and_then(|()| write_json(&path, diff, Durability::Rename));
    }

    fn last_path(&self, place: &str) -> PathBuf {
        self.directory.with_file_name("last").join(Digest::of(place.as_bytes()).hex())
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.directory.join(key.digest().hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_key_do_not_run_into_each_other() {
        let key = |parts: &[&str]| parts.iter().fold(Key::of("x"), |key, part| key.with(part)).digest();
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(Key::of("x").with_all(["a", "b"]).digest(), Key::of("x").with_all(["ab"]).digest());
    }
}
