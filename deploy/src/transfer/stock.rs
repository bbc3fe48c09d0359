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
    /// The layers that were looked at.
    seen: HashSet<DiffId>,
}

/// A file of a layer.
struct Place {
    layer: usize,
    path: Vec<u8>,
    size: u64,
    sum: Sum,
}

/// Files of related layers that are looked at, at the most: a look must not cost more than it saves.
const MOST_PLACES: usize = 30_000;

/// Bytes of layers that are read, at the most, to make tables of them because they may help.
const MOST_READ: u64 = 1 << 30;

// === impl Stock ===

impl Stock {
    /// What is here that may help to put layers together for images with these names: the layers of images that went
    /// by the same names, or have a layer in common. Where their tables were never needed, they are made.
    pub(super) fn of(
        engine: &Engine,
        names: &[Reference],
        offered: &BTreeSet<DiffId>,
    ) -> Result<Self, TransferError> {
        let layers = engine.layers();
        let mut stock = Self::default();
        let mut may_read = MOST_READ;
        for diff in related(engine, names, offered)? {
            if stock.places.len() > MOST_PLACES || !stock.seen.insert(diff.clone()) {
                continue;
            }
            // What cannot be read helps nobody, and is no reason to fail.
            let Ok(record) = layers.record(&diff) else { continue };
            let mut table = layers.kept_table(&diff);
            if let Ok(None) = table
                && let Some(rest) = may_read.checked_sub(record.tar_size)
            {
                may_read = rest;
                table = layers.table(&diff).map(Some);
            }
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

    /// Looks for these contents in all other layers that have a table, those of the newest images first.
    pub(super) fn search(&mut self, engine: &Engine, wanted: &HashSet<Sum>) -> Result<(), TransferError> {
        let layers = engine.layers();
        let images = engine.images().list().map_err(here("list the images"))?;
        let newest = images.into_iter().flat_map(|image| image.config.rootfs.diff_ids.into_iter().rev());
        let all = layers.list().map_err(here("list the layers"))?;
        let mut missing: HashSet<Sum> = wanted.iter().filter(|sum| !self.has(sum)).copied().collect();
        for diff in newest.chain(all) {
            if missing.is_empty() {
                break;
            }
            if !self.seen.insert(diff.clone()) {
                continue;
            }
            let (Ok(Some(table)), Ok(files)) = (layers.kept_table(&diff), layers.files(&diff)) else {
                continue;
            };
            // Most tables have none of them, and their digests are read much faster than their members.
            if !table.sums().any(|sum| missing.contains(&sum)) {
                continue;
            }
            let Ok(mut entries) = table.entries() else { continue };
            entries.retain(|entry| entry.is_plain && missing.contains(&entry.sum));
            entries.iter().for_each(|entry| {
                missing.remove(&entry.sum);
            });
            self.add(diff, files, entries);
        }
        Ok(())
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
        for Entry { path, size, sum, is_plain, .. } in entries {
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
