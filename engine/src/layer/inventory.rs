//! What is in a layer, member by member of its tar: to tell two layers apart.

use std::collections::BTreeMap;
use std::io::{self, BufReader, BufWriter, Write};
use std::thread;

use sha2::{Digest as _, Sha256};
use tar::EntryType;

use crate::id::DiffId;
use crate::layer::members::{Member, MemberError, Members};
use crate::layer::table::Sum;
use crate::layer::unpack::clean;
use crate::layer::{LayerError, Layers};

/// The members of a layer by their paths.
pub(crate) type Inventory = BTreeMap<Vec<u8>, Item>;

/// One member: all of what makes its layer another one when it changes, but for its place in the tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) kind: EntryType,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) size: u64,
    /// Seconds since 1970 and nanoseconds.
    pub(crate) time: (i64, u32),
    pub(crate) link: Vec<u8>,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) content: Sum,
}

const CHUNK: usize = 256 << 10;

// === impl Layers ===

impl Layers {
    /// What is in a layer.
    ///
    /// # Errors
    /// When it is not here or cannot be read.
    pub(crate) fn inventory(&self, diff: &DiffId) -> Result<Inventory, LayerError> {
        let (reader, writer) = io::pipe().map_err(LayerError::Stream)?;
        thread::scope(|scope| {
            let packer = scope.spawn(move || {
                let mut writer = BufWriter::with_capacity(CHUNK, writer);
                self.pack(diff, &mut writer)?;
                writer.flush().map_err(LayerError::Stream)
            });
            let inventory = read(BufReader::with_capacity(CHUNK, reader));
            let packed = packer
                .join()
                .unwrap_or_else(|_| Err(LayerError::Stream(io::Error::other("the packer panicked"))));
            match packed {
                // Who stopped reading knows why.
                Err(LayerError::Stream(error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
                packed => packed?,
            }
            inventory.map_err(|error| LayerError::Unpack(Box::new(error)))
        })
    }
}

fn read(reader: impl io::BufRead) -> Result<Inventory, MemberError> {
    let mut members = Members::new(reader);
    let mut inventory = Inventory::new();
    while let Some(member) = members.next()? {
        let mut hash = Sha256::new();
        loop {
            let bytes = members.content()?;
            if bytes.is_empty() {
                break;
            }
            hash.update(bytes);
            let length = bytes.len();
            members.consume(length);
        }
        // A path that leads out of the layer is told as it is.
        let path = clean(&member.path).unwrap_or_else(|_| member.path.clone());
        inventory.insert(path, Item::of(member, hash.into()));
    }
    members.drain()?;
    Ok(inventory)
}

// === impl Item ===

impl Item {
    fn of(member: Member, content: Sum) -> Self {
        let Member { kind, mode, uid, gid, size, seconds, nanoseconds, link, device, xattrs, .. } = member;
        Self {
            kind,
            mode,
            owner: (uid, gid),
            size,
            time: (seconds, nanoseconds),
            link,
            device,
            xattrs,
            content,
        }
    }
}
