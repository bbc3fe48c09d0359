//! Contents that arrive: from the stream into the spools of their layers, each verified when it is whole.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

use engine::layer::{Entry, Sum};
use sha2::{Digest as _, Sha256};

use crate::transfer::arrival::{Arrival, ChunkPlace, Chunks, Coming, Plan, find};
use crate::transfer::chunk::ChunkId;
use crate::transfer::delta;
use crate::transfer::failure::{TransferError, here, wrong_digest};
use crate::transfer::flow::Inflow;
use crate::transfer::goods::{digest, read_whole};
use crate::transfer::message::Change;
use crate::transfer::spool::PIECE;
use crate::transfer::stock::Stock;

/// Takes contents from the stream into the spools.
pub(super) struct Intake<'a, 'b> {
    stock: &'a Stock,
    layers: &'a mut [Arrival],
    inflow: &'a mut Inflow<'b>,
    /// Contents of files here that are not what their layers' tables say.
    pub(super) damaged: HashSet<Sum>,
    /// Whether a difference that had begun to arrive went on as another one, so that it has to come anew.
    pub(super) is_stale: bool,
}

// === impl Intake ===

impl<'a, 'b> Intake<'a, 'b> {
    pub(super) fn new(stock: &'a Stock, layers: &'a mut [Arrival], inflow: &'a mut Inflow<'b>) -> Self {
        Self { stock, layers, inflow, damaged: HashSet::new(), is_stale: false }
    }

    /// Takes all that was asked for, in the order in which it is sent.
    pub(super) fn take(&mut self, plan: &Plan) -> Result<(), TransferError> {
        for (change, way) in plan.wants.changed.iter().zip(&plan.ways) {
            match way {
                Coming::Whole => self.content(change.number, 0)?,
                Coming::Delta => self.delta(change)?,
                Coming::Chunks(chunks) => self.chunks(change.number, &change.old, chunks)?,
            }
        }
        for (number, from) in &plan.wants.begun {
            self.content(*number, *from)?;
        }
        plan.wants
            .new
            .iter()
            .try_for_each(|number| self.content(u32::try_from(number).unwrap_or(u32::MAX), 0))
    }

    /// A content as it is, from an offset on.
    fn content(&mut self, number: u32, from: u64) -> Result<(), TransferError> {
        let (layer, entry) = self.begin(number)?;
        let mut hash = Sha256::new();
        let spool = &mut self.layers[layer].spool;
        match spool.content(&entry.sum) {
            Some(begun) if from > 0 => {
                digest(&mut hash, spool.read(begun)).map_err(here("read what has arrived"))?;
            }
            _ => spool.restart(&entry.sum).map_err(keep())?,
        }
        let mut left = entry.size - from.min(entry.size);
        let mut buffer = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(PIECE)];
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE);
            let read = self.inflow.read(&mut buffer[..most]).map_err(|error| self.inflow.failure(error))?;
            if read == 0 {
                return Err(TransferError::Refused("contents that end too early".to_owned()));
            }
            hash.update(&buffer[..read]);
            self.layers[layer].spool.add(&entry.sum, &buffer[..read]).map_err(keep())?;
            left -= read as u64;
        }
        self.finish(layer, &entry, hash.into())
    }

    /// A content as the difference to an old version.
    fn delta(&mut self, change: &Change) -> Result<(), TransferError> {
        let (layer, entry) = self.begin(change.number)?;
        let Some(difference) = self.difference(layer, &entry, change)? else {
            self.is_stale = true;
            return Ok(());
        };
        let step = || here(format!("make {:?} of its old version", String::from_utf8_lossy(&entry.path)));
        let bytes = read_whole(self.old(&change.old)?).map_err(step())?;
        if Sum::of(&bytes) != change.old {
            self.damaged.insert(change.old);
            return Ok(());
        }
        let new = delta::apply(&bytes, &difference, entry.size).map_err(step())?;
        let spool = &mut self.layers[layer].spool;
        spool.restart(&entry.sum).map_err(keep())?;
        spool.add(&entry.sum, &new).map_err(keep())?;
        self.finish(layer, &entry, Sum::of(&new))
    }

    /// The difference of a content to an old version. A long one is kept as far as it comes, and goes on from there the
    /// next time; `None` when what came is not the rest of what had come before.
    fn difference(
        &mut self,
        layer: usize,
        entry: &Entry,
        change: &Change,
    ) -> Result<Option<Vec<u8>>, TransferError> {
        let mut length = [0; 8];
        self.read(&mut length)?;
        let length = u64::from_le_bytes(length);
        if length.max(entry.size) > 2 * delta::LARGEST {
            return Err(TransferError::Refused("a difference that is too long".to_owned()));
        }
        if length < delta::LEAST_KEPT {
            let mut difference = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
            self.read(&mut difference)?;
            return Ok(Some(difference));
        }
        let mut sum = [0; 32];
        self.read(&mut sum)?;
        let key = delta::key(&change.old, &entry.sum);
        let from = delta::goes_on(change.arrived, length);
        if from == 0 {
            self.layers[layer].spool.restart(&key).map_err(keep())?;
        }
        let mut left = length - from;
        let mut piece = vec![0; PIECE];
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE);
            let read = self.inflow.read(&mut piece[..most]).map_err(|error| self.inflow.failure(error))?;
            if read == 0 {
                return Err(TransferError::Refused("a difference that ends too early".to_owned()));
            }
            self.layers[layer].spool.add(&key, &piece[..read]).map_err(keep())?;
            left -= read as u64;
        }
        let spool = &mut self.layers[layer].spool;
        spool.flush().map_err(keep())?;
        let kept = spool.content(&key).unwrap_or_default();
        let difference = read_whole(spool.read(kept)).map_err(here("read what has arrived"))?;
        // It is of use once, whatever comes of it.
        spool.restart(&key).map_err(keep())?;
        match Sum::of(&difference) == Sum::from_bytes(sum) {
            true => Ok(Some(difference)),
            false if from > 0 => Ok(None),
            false => Err(wrong_digest(&String::from_utf8_lossy(&entry.path))),
        }
    }

    /// A content of which some chunks are here.
    fn chunks(&mut self, number: u32, old: &Sum, chunks: &Chunks) -> Result<(), TransferError> {
        let (layer, entry) = self.begin(number)?;
        let old = self.old(old)?;
        let mut hash = Sha256::new();
        self.layers[layer].spool.restart(&entry.sum).map_err(keep())?;
        let mut chunk = Vec::new();
        for (length, id) in chunks.list.iter() {
            chunk.resize(length, 0);
            match (chunks.places.get(&id), &chunks.begun) {
                (Some((ChunkPlace::Old(offset), found)), _) if *found == length => {
                    old.read_exact_at(&mut chunk, *offset).map_err(here("read an old version of a file"))?;
                }
                (Some((ChunkPlace::Begun(offset), found)), Some(begun)) if *found == length => {
                    let spool = &self.layers[layer].spool;
                    spool.read_at(begun, *offset, &mut chunk).map_err(here("read what has arrived"))?;
                }
                (Some(_), _) => {
                    return Err(TransferError::Refused("a chunk with two lengths".to_owned()));
                }
                (None, _) => {
                    self.read(&mut chunk)?;
                    if ChunkId::of(&Sum::of(&chunk)) != id {
                        return Err(TransferError::Refused("a chunk that has another digest".to_owned()));
                    }
                }
            }
            hash.update(&chunk);
            self.layers[layer].spool.add(&entry.sum, &chunk).map_err(keep())?;
        }
        self.finish(layer, &entry, hash.into())
    }

    fn begin(&self, number: u32) -> Result<(usize, Entry), TransferError> {
        find(self.layers, number).map(|(layer, entry)| (layer, entry.clone()))
    }

    /// Forgets what is not what it should be.
    fn finish(&mut self, layer: usize, entry: &Entry, found: Sum) -> Result<(), TransferError> {
        if found == entry.sum {
            return Ok(());
        }
        self.layers[layer].spool.restart(&entry.sum).map_err(keep())?;
        Err(wrong_digest(&String::from_utf8_lossy(&entry.path)))
    }

    fn old(&self, sum: &Sum) -> Result<File, TransferError> {
        let gone = || TransferError::Refused("a difference to a version that is not here".to_owned());
        self.stock.open_sum(sum).ok_or_else(gone)?.map_err(here("read an old version of a file"))
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), TransferError> {
        self.inflow.read_exact(bytes).map_err(|error| self.inflow.failure(error))
    }
}

fn keep() -> impl FnOnce(std::io::Error) -> TransferError {
    here("keep what arrives")
}
