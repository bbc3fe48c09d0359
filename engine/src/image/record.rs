//! What is written down about images: one record an image, and one file with all names.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::{DiffId, Digest, ImageId};
use crate::image::form::Notes;
use crate::image::reference::Reference;
use crate::paths::Root;
use crate::store::{Durability, read_json, remove_file, write_json};

/// One image, beside its configuration in the content store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    pub(crate) version: u32,
    pub(crate) id: ImageId,
    /// The manifest it came with, in the content store.
    pub(crate) manifest: Option<Digest>,
    /// Its layers, lowest first.
    pub(crate) layers: Vec<DiffId>,
    /// The sum of its layers' file sizes.
    pub(crate) size: u64,
    /// Whether the manifest is one that it was given here, and not one that it came with.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_shaped: bool,
    /// What is noted on what leads to its manifest.
    #[serde(flatten)]
    pub(crate) notes: Notes,
    /// The manifest of what is attested of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) attestation: Option<Digest>,
}

/// All names, each with the image it means.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Names {
    version: u32,
    /// `name:tag`.
    pub(crate) tags: BTreeMap<Reference, ImageId>,
    /// `name@digest`.
    pub(crate) digests: BTreeMap<Reference, ImageId>,
    /// When each name was last given, by a pull, a build or a person.
    #[serde(default)]
    pub(crate) given: BTreeMap<Reference, Timestamp>,
    /// All images of names that mean one for each of several platforms. `tags` and `digests` have the one that is
    /// meant where no platform is asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) platforms: BTreeMap<Reference, Vec<ImageId>>,
    /// The index that a name came with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    indexes: BTreeMap<Reference, Digest>,
}

const VERSION: u32 = 1;

// === impl ImageRecord ===

impl ImageRecord {
    /// A record of this version.
    pub(crate) fn new(id: ImageId, manifest: Option<Digest>, layers: Vec<DiffId>, size: u64) -> Self {
        let (is_shaped, notes, attestation) = (false, Notes::default(), None);
        Self { version: VERSION, id, manifest, layers, size, is_shaped, notes, attestation }
    }

    pub(crate) fn read(root: &Root, id: &ImageId) -> io::Result<Option<Self>> {
        let path = path(root, id);
        match read_json(&path)? {
            // No power cut leaves one empty that was written like these, so it is damaged and not absent.
            None if path.exists() => Err(io::Error::new(io::ErrorKind::InvalidData, "the record is empty")),
            record => Ok(record),
        }
    }

    pub(crate) fn write(&self, root: &Root) -> io::Result<()> {
        write_json(&path(root, &self.id), self, Durability::Sync)
    }

    pub(crate) fn remove(root: &Root, id: &ImageId) -> io::Result<()> {
        remove_file(&path(root, id))
    }

    /// All records that can be read.
    pub(crate) fn list(root: &Root) -> io::Result<Vec<Self>> {
        // One that went between the listing and the reading is not there.
        Ok(Self::ids(root)?.iter().filter_map(|id| Self::read(root, id).ok().flatten()).collect())
    }

    /// The ids that there are records of, readable or not.
    pub(crate) fn ids(root: &Root) -> io::Result<Vec<ImageId>> {
        let entries = match std::fs::read_dir(root.images()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut ids = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(".json"));
            ids.extend(id.and_then(|hex| format!("sha256:{hex}").parse::<ImageId>().ok()));
        }
        Ok(ids)
    }
}

// === impl Names ===

impl Names {
    pub(crate) fn read(root: &Root) -> io::Result<Self> {
        Ok(read_json(&root.images().join(NAMES))?.unwrap_or_default())
    }

    pub(crate) fn write(&mut self, root: &Root) -> io::Result<()> {
        self.version = VERSION;
        write_json(&root.images().join(NAMES), self, Durability::Sync)
    }

    /// Lets a name mean an image.
    pub(crate) fn set(&mut self, reference: &Reference, id: &ImageId) {
        let local = reference.local();
        let map = if local.tag().is_some() { &mut self.tags } else { &mut self.digests };
        map.insert(local.clone(), id.clone());
        self.platforms.remove(&local);
        self.indexes.remove(&local);
        self.given.insert(local, Timestamp::now());
    }

    /// Lets a name mean an image for each of several platforms, the first where no platform is asked for.
    pub(crate) fn set_several(&mut self, reference: &Reference, ids: &[ImageId]) {
        let Some(first) = ids.first() else { return };
        self.set(reference, first);
        if ids.len() > 1 {
            self.platforms.insert(reference.local(), ids.to_vec());
        }
    }

    /// Every image a name means: one, or one for each platform.
    pub(crate) fn members(&self, reference: &Reference) -> Vec<ImageId> {
        let local = match reference.digest() {
            Some(digest) => reference.with_digest(digest),
            None => reference.local(),
        };
        let one = || self.get(reference).into_iter().cloned().collect();
        self.platforms.get(&local).cloned().unwrap_or_else(one)
    }

    /// The names of several platforms' images that mean this one among others.
    pub(crate) fn memberships(&self, id: &ImageId) -> Vec<Reference> {
        let has = |(name, ids): (&Reference, &Vec<ImageId>)| ids.contains(id).then(|| name.clone());
        self.platforms.iter().filter_map(has).collect()
    }

    /// Lets no name mean this image among others any more.
    pub(crate) fn leave(&mut self, id: &ImageId) {
        self.platforms.values_mut().for_each(|ids| ids.retain(|known| known != id));
        self.platforms.retain(|_, ids| ids.len() > 1);
    }

    /// What a name means. A digest decides over a tag.
    pub(crate) fn get(&self, reference: &Reference) -> Option<&ImageId> {
        match reference.digest() {
            Some(digest) => self.digests.get(&reference.with_digest(digest)),
            None => self.tags.get(reference),
        }
    }

    /// Forgets a name.
    pub(crate) fn remove(&mut self, reference: &Reference) {
        self.tags.remove(reference);
        self.digests.remove(reference);
        self.platforms.remove(reference);
        self.indexes.remove(reference);
        self.given.remove(reference);
    }

    /// Lets a name that means something remember the index that it came with.
    pub(crate) fn set_index(&mut self, reference: &Reference, index: &Digest) {
        if self.get(reference).is_some() {
            self.indexes.insert(reference.local(), index.clone());
        }
    }

    /// The index that a name came with.
    pub(crate) fn index_of(&self, reference: &Reference) -> Option<&Digest> {
        self.indexes.get(&reference.local())
    }

    /// All indexes that names came with.
    pub(crate) fn indexes(&self) -> BTreeSet<&Digest> {
        self.indexes.values().collect()
    }

    /// Whether no name means this image.
    pub(crate) fn is_nameless(&self, id: &ImageId) -> bool {
        let has = |map: &BTreeMap<Reference, ImageId>| map.values().any(|meant| meant == id);
        !has(&self.tags) && !has(&self.digests) && self.memberships(id).is_empty()
    }

    pub(crate) fn tags_of(&self, id: &ImageId) -> Vec<Reference> {
        references_of(&self.tags, id)
    }

    pub(crate) fn digests_of(&self, id: &ImageId) -> Vec<Reference> {
        references_of(&self.digests, id)
    }
}

const NAMES: &str = "names.json";

fn path(root: &Root, id: &ImageId) -> PathBuf {
    root.images().join(format!("{}.json", id.hex()))
}

fn references_of(map: &BTreeMap<Reference, ImageId>, id: &ImageId) -> Vec<Reference> {
    map.iter().filter(|(_, meant)| *meant == id).map(|(reference, _)| reference.clone()).collect()
}
