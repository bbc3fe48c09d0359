//! What the layers of this side's store have: contents by their digests, files by their paths, and the chunks of the
//! layers' tables.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io;

use engine::engine::Engine;
use engine::id::DiffId;
use engine::image::Reference;
use engine::layer::{Entry, Files, Sum};

use crate::transfer::chunk::{ChunkId, Chunker, Lengths};
use crate::transfer::failure::{TransferError, here};

/// An index of what is here, the most closely related first.
#[derive(Default)]
pub(super) struct Stock {
    layers: Vec<(DiffId, Files)>,
    places: Vec<Place>,
    by_sum: HashMap<Sum, usize>,
    by_path: HashMap<Vec<u8>, Vec<usize>>,
    chunks: HashMap<ChunkId, Vec<u8>>,
}

/// A file of a layer.
struct Place {
    layer: usize,
    path: Vec<u8>,
    size: u64,
    sum: Sum,
}

/// Files that are looked at, at the most: a look must not cost more than it saves.
const MOST_PLACES: usize = 300_000;

/// The largest layer whose table is made because it may help, in bytes of its tar. It has to be read once.
const LARGEST_READ: u64 = 1 << 30;

// === impl Stock ===

impl Stock {
    /// What is here that may help to put layers together for images with these names. Tables that were never needed
    /// are made for the layers of images that went by the same names, and only for those.
    pub(super) fn of(
        engine: &Engine,
        names: &[Reference],
        offered: &BTreeSet<DiffId>,
    ) -> Result<Self, TransferError> {
        let layers = engine.layers();
        let related = related(engine, names, offered)?;
        let mut stock = Self::default();
        let mut seen = HashSet::new();
        let others = layers.list().map_err(here("list the layers"))?;
        for (diff, is_related) in
            related.into_iter().map(|diff| (diff, true)).chain(others.into_iter().map(|diff| (diff, false)))
        {
            if stock.places.len() > MOST_PLACES || !seen.insert(diff.clone()) {
                continue;
            }
            // What cannot be read helps nobody, and is no reason to fail.
            let Ok(record) = layers.record(&diff) else { continue };
            let may_read = is_related && record.tar_size <= LARGEST_READ;
            let table = if may_read { layers.table(&diff).map(Some) } else { layers.kept_table(&diff) };
            let (Ok(Some(table)), Ok(files)) = (table, layers.files(&diff)) else { continue };
            let Ok(entries) = table.entries() else { continue };
            stock.add(diff, files, entries);
            for column in table.columns() {
                let mut chunker = Chunker::new(column, Lengths::COLUMN);
                while let Ok(Some(chunk)) = chunker.next() {
                    stock.chunks.entry(ChunkId::of(&Sum::of(chunk))).or_insert_with(|| chunk.to_vec());
                }
            }
        }
        Ok(stock)
    }

    /// The files with these contents, as far as tables of the layers here tell.
    pub(super) fn with(engine: &Engine, wanted: &HashSet<Sum>) -> Result<Self, TransferError> {
        let layers = engine.layers();
        let mut stock = Self::default();
        for diff in layers.list().map_err(here("list the layers"))? {
            let (Ok(Some(table)), Ok(files)) = (layers.kept_table(&diff), layers.files(&diff)) else {
                continue;
            };
            let Ok(mut entries) = table.entries() else { continue };
            entries.retain(|entry| wanted.contains(&entry.sum));
            stock.add(diff, files, entries);
        }
        Ok(stock)
    }

    /// Another layer that has this content under the same path.
    pub(super) fn donor(&self, entry: &Entry) -> Option<&DiffId> {
        self.twin(entry).map(|place| &self.layers[place.layer].0)
    }

    pub(super) fn has(&self, sum: &Sum) -> bool {
        self.by_sum.contains_key(sum)
    }

    /// The latest version of the file with this path, which is another one.
    pub(super) fn old(&self, path: &[u8]) -> Option<(Sum, u64)> {
        let place = &self.places[*self.by_path.get(path)?.first()?];
        Some((place.sum, place.size))
    }

    /// Opens the file for this entry: the one that may be shared, before any other with the same content.
    pub(super) fn open(&self, entry: &Entry) -> Option<io::Result<File>> {
        self.twin(entry).map(|place| self.open_place(place)).or_else(|| self.open_sum(&entry.sum))
    }

    /// Opens a file with this content.
    pub(super) fn open_sum(&self, sum: &Sum) -> Option<io::Result<File>> {
        self.by_sum.get(sum).map(|place| self.open_place(&self.places[*place]))
    }

    /// A chunk of a table's column.
    pub(super) fn chunk(&self, id: &ChunkId) -> Option<&[u8]> {
        self.chunks.get(id).map(Vec::as_slice)
    }

    /// Forgets the layers that have one of these contents: their files are not what their tables say.
    pub(super) fn forget(&mut self, sums: &HashSet<Sum>) {
        let damaged: HashSet<usize> =
            self.places.iter().filter(|place| sums.contains(&place.sum)).map(|place| place.layer).collect();
        let places = std::mem::take(&mut self.places);
        self.by_sum.clear();
        self.by_path.clear();
        places
            .into_iter()
            .filter(|place| !damaged.contains(&place.layer))
            .for_each(|place| self.place(place));
    }

    fn twin(&self, entry: &Entry) -> Option<&Place> {
        let places = self.by_path.get(&entry.path)?;
        places.iter().map(|place| &self.places[*place]).find(|place| place.sum == entry.sum)
    }

    fn open_place(&self, place: &Place) -> io::Result<File> {
        self.layers[place.layer].1.open(&place.path)
    }

    fn add(&mut self, diff: DiffId, files: Files, entries: Vec<Entry>) {
        let layer = self.layers.len();
        self.layers.push((diff, files));
        for Entry { path, size, sum, is_plain } in entries {
            if is_plain {
                self.place(Place { layer, path, size, sum });
            }
        }
    }

    fn place(&mut self, place: Place) {
        let number = self.places.len();
        self.by_sum.entry(place.sum).or_insert(number);
        self.by_path.entry(place.path.clone()).or_default().push(number);
        self.places.push(place);
    }
}

/// The layers of images that have a name in the same repository, or a layer in common: newest images first, topmost
/// layers first.
fn related(
    engine: &Engine,
    names: &[Reference],
    offered: &BTreeSet<DiffId>,
) -> Result<Vec<DiffId>, TransferError> {
    let repositories: HashSet<(&str, &str)> =
        names.iter().map(|name| (name.registry(), name.repository())).collect();
    let images = engine.images().list().map_err(here("list the images"))?;
    let mut related = Vec::new();
    let mut distant = Vec::new();
    for image in images {
        let mut known = image.references.iter().chain(&image.digests);
        let is_named = known.any(|name| repositories.contains(&(name.registry(), name.repository())));
        let diffs = image.config.rootfs.diff_ids;
        if is_named {
            related.extend(diffs.into_iter().rev());
        } else if diffs.iter().any(|diff| offered.contains(diff)) {
            distant.extend(diffs.into_iter().rev());
        }
    }
    related.extend(distant);
    Ok(related)
}
