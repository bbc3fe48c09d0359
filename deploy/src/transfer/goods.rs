//! What the sender has to give of the layers that are lacking: their tables and the contents of their files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use engine::engine::Engine;
use engine::layer::{Entry, Files, Sum, Table};
use sha2::{Digest as _, Sha256};

use crate::transfer::chunk::{ChunkList, Lengths};
use crate::transfer::failure::{TransferError, here};
use crate::transfer::message::Lacking;

/// The layers that are lacking, in the order in which they were asked for.
pub(super) struct Goods {
    layers: Vec<Layer>,
    /// The number of each layer's first content.
    starts: Vec<usize>,
}

struct Layer {
    lacking: Lacking,
    table: Table,
    entries: Vec<Entry>,
    files: Files,
    /// Contents that are not in the unpacked layer.
    picked: Option<Picked>,
}

/// A file of contents, and where in it each is.
type Picked = (File, BTreeMap<usize, u64>);

// === impl Goods ===

impl Goods {
    pub(super) fn of(engine: &Engine, lacking: Vec<Lacking>) -> Result<Self, TransferError> {
        let store = engine.layers();
        let mut layers = Vec::new();
        let mut starts = Vec::new();
        let mut next = 0;
        for lacking in lacking {
            let step = || here(format!("list the layer {}", lacking.diff.short()));
            let table = store.table(&lacking.diff).map_err(step())?;
            let entries = table.entries().map_err(engine::layer::LayerError::from).map_err(step())?;
            let files = store.files(&lacking.diff).map_err(step())?;
            let picked = pick(engine, &lacking, &table, &entries).map_err(step())?;
            starts.push(next);
            next += entries.len();
            layers.push(Layer { lacking, table, entries, files, picked });
        }
        Ok(Self { layers, starts })
    }

    /// For each layer whose table is wanted, the chunks of its columns.
    pub(super) fn outlines(&self) -> Result<Vec<Vec<u8>>, TransferError> {
        self.without_table()
            .map(|layer| {
                let mut part = Vec::new();
                for column in layer.table.columns() {
                    ChunkList::of(column, Lengths::COLUMN).map_err(here("cut the table"))?.write(&mut part);
                }
                Ok(part)
            })
            .collect()
    }

    /// The chunks that [`Goods::outlines`] has listed, by their numbers over all lists.
    pub(super) fn chunks(&self) -> Result<Vec<&[u8]>, TransferError> {
        let mut chunks = Vec::new();
        for column in self.without_table().flat_map(|layer| layer.table.columns()) {
            let mut rest = column;
            for (length, _) in ChunkList::of(column, Lengths::COLUMN).map_err(here("cut the table"))?.iter() {
                let (chunk, after) = rest.split_at(length.min(rest.len()));
                chunks.push(chunk);
                rest = after;
            }
        }
        Ok(chunks)
    }

    /// The content with this number.
    pub(super) fn entry(&self, number: usize) -> Result<&Entry, TransferError> {
        self.find(number).map(|(layer, at)| &layer.entries[at])
    }

    /// Reads the content with this number from an offset on.
    pub(super) fn open(&self, number: usize, from: u64) -> Result<impl Read + use<'_>, TransferError> {
        let (layer, at) = self.find(number)?;
        let entry = &layer.entries[at];
        let step = || here(format!("read {:?} of an image", String::from_utf8_lossy(&entry.path)));
        let picked = layer.picked.as_ref().and_then(|(file, places)| Some((file, places.get(&at)?)));
        let (mut file, start) = match picked {
            Some((file, start)) => (file.try_clone().map_err(step())?, *start),
            None => (layer.files.open(&entry.path).map_err(step())?, 0),
        };
        file.seek(SeekFrom::Start(start + from)).map_err(step())?;
        Ok(file.take(entry.size - from.min(entry.size)))
    }

    /// How many bytes these contents have.
    pub(super) fn size(&self, numbers: impl Iterator<Item = usize>) -> Result<u64, TransferError> {
        numbers.map(|number| self.entry(number).map(|entry| entry.size)).sum()
    }

    fn without_table(&self) -> impl Iterator<Item = &Layer> {
        self.layers.iter().filter(|layer| !layer.lacking.has_table)
    }

    fn find(&self, number: usize) -> Result<(&Layer, usize), TransferError> {
        let place = self.starts.partition_point(|start| *start <= number).checked_sub(1).and_then(|layer| {
            let at = number - self.starts[layer];
            self.layers.get(layer).filter(|layer| at < layer.entries.len()).map(|layer| (layer, at))
        });
        place.ok_or_else(|| {
            TransferError::Refused(format!("a wish for content {number}, which was not offered"))
        })
    }
}

fn pick(
    engine: &Engine,
    lacking: &Lacking,
    table: &Table,
    entries: &[Entry],
) -> Result<Option<Picked>, engine::layer::LayerError> {
    let loose = |(at, entry): (usize, &Entry)| (!entry.is_plain).then_some((at, entry.size));
    let loose: Vec<(usize, u64)> = entries.iter().enumerate().filter_map(loose).collect();
    if loose.is_empty() {
        return Ok(None);
    }
    let numbers: BTreeSet<usize> = loose.iter().map(|(at, _)| *at).collect();
    let mut file = tempfile::tempfile().map_err(engine::layer::LayerError::Stream)?;
    let mut writer = io::BufWriter::with_capacity(1 << 18, &mut file);
    engine.layers().pick(&lacking.diff, table, &numbers, &mut writer)?;
    writer.into_inner().map_err(|error| engine::layer::LayerError::Stream(error.into_error()))?;
    let mut offset = 0;
    let places = loose.into_iter().map(|(at, size)| {
        offset += size;
        (at, offset - size)
    });
    let places = places.collect();
    Ok(Some((file, places)))
}

/// Reads all of it.
pub(super) fn read_whole(mut reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The digest of what a reader gives.
pub(super) fn sum_of(reader: impl Read) -> io::Result<Sum> {
    let mut hash = Sha256::new();
    digest(&mut hash, reader)?;
    Ok(Sum::from(hash))
}

/// Adds what a reader gives to a digest.
pub(super) fn digest(hash: &mut Sha256, mut reader: impl Read) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(()),
            length => hash.update(&buffer[..length]),
        }
    }
}
