//! Layers: each unpacked once into a directory of its own, named by the digest of its uncompressed tar.
//!
//! A layer directory appears whole, by rename, or not at all. It is never changed afterwards. What is in `fs`
//! is what overlayfs wants of a lower directory: whiteouts are 0:0 character devices, opaque directories carry
//! `trusted.overlay.opaque`. Beside it are `layer.json`, the marks `synced` and `pinned`, and the `table` of its tar, when
//! that is needed to make the same tar again.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

mod compress;
mod digest;
mod donor;
mod error;
pub(crate) mod gzip;
mod inventory;
pub(crate) mod members;
pub(crate) mod pack;
mod rebuild;
pub(crate) mod stream;
mod table;
pub(crate) mod unpack;
mod verify;

pub use compress::Packing;
pub use error::LayerError;
pub(crate) use inventory::{Inventory, Item};
pub(crate) use rebuild::may_share;
pub use rebuild::{Files, Supply};
pub use stream::Compression;
pub use table::{Entry, Sum, Table, TableError};

pub use crate::store::scratch::Claim;

use crate::id::{DiffId, Digest};
use crate::layer::digest::DigestSink;
use crate::layer::donor::Donors;
use crate::layer::error::{failure, packing};
use crate::layer::pack::{Known, PackError, Treatment};
use crate::layer::unpack::Contents;
use crate::paths::Root;
use crate::store::content::Content;
use crate::store::scratch::{self, Scratch};
use crate::store::{Durability, Lock};

/// The layers of one root.
#[derive(Debug, Clone)]
pub struct Layers {
    root: Root,
}

/// What is known of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    version: u32,
    /// The digest of its uncompressed tar.
    pub diff: DiffId,
    /// The sum of its files' sizes.
    pub size: u64,
    /// How many members its tar has.
    pub members: u64,
    /// How long its uncompressed tar is.
    pub tar_size: u64,
    /// Bytes of its files that were another layer's when it was made, and take no room of their own.
    #[serde(default)]
    pub shared: u64,
    /// Its tar as it is kept or was sent, if it ever was.
    pub blob: Option<LayerBlob>,
    /// The boot in which it was made: until it is synced, a power cut may take its bytes away.
    boot: String,
}

/// A layer's tar in the content store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its size.
    pub size: u64,
    /// Its compression.
    pub compression: Compression,
}

/// What a layer that arrives is announced to be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Announced {
    /// The blob's digest and size.
    pub(crate) blob: Option<(Digest, u64)>,
    /// The uncompressed tar's digest.
    pub(crate) diff: Option<DiffId>,
    /// Whether the blob is in the content store already, verified.
    pub(crate) is_kept: bool,
}

/// Keeps layers and blobs that no image names yet from being collected. Take one before the first layer of a
/// build, a pull or a load, and drop it after the image is committed.
#[derive(Debug)]
pub struct Hold {
    _lock: Lock,
}

const VERSION: u32 = 1;

// === impl Layers ===

impl Layers {
    /// The layers of this root.
    pub fn at(root: &Root) -> Self {
        Self { root: root.clone() }
    }

    /// The blobs of the same root.
    pub(crate) fn content(&self) -> Content {
        Content::at(&self.root)
    }

    /// Keeps layers that no image names yet from being collected while the value lives.
    pub fn hold(&self) -> Result<Hold, LayerError> {
        let path = self.lock_path()?;
        Ok(Hold { _lock: Lock::shared(&path).map_err(failure("hold", "store"))? })
    }

    /// Whether the layer is here, whole.
    pub fn contains(&self, diff: &DiffId) -> bool {
        self.record(diff).is_ok()
    }

    /// What is known of a layer that is here, whole.
    pub fn record(&self, diff: &DiffId) -> Result<LayerRecord, LayerError> {
        let directory = self.root.layer(diff);
        let record: Option<LayerRecord> = crate::store::read_json(&directory.join(RECORD))
            .map_err(failure("read the record of", diff.as_str()))?;
        let record = record.ok_or_else(|| LayerError::Missing(diff.clone()))?;
        if record.boot == boot() || directory.join(SYNCED).exists() {
            Ok(record)
        } else {
            Err(LayerError::Missing(diff.clone()))
        }
    }

    /// The directory overlayfs takes as a lower directory.
    pub fn dir(&self, diff: &DiffId) -> PathBuf {
        self.root.layer(diff).join("fs")
    }

    /// The sum of the layer's file sizes.
    pub fn size(&self, diff: &DiffId) -> Result<u64, LayerError> {
        Ok(self.record(diff)?.size)
    }

    /// The bytes that these layers take on the disk: what several of them share counts once.
    ///
    /// # Errors
    /// When a layer is not here.
    pub fn room(&self, diffs: &BTreeSet<DiffId>) -> Result<u64, LayerError> {
        let records: Vec<_> = diffs.iter().map(|diff| self.record(diff)).collect::<Result<_, _>>()?;
        if records.iter().all(|record| record.shared == 0) {
            return Ok(records.iter().map(|record| record.size).sum());
        }
        // Which of them has a file that two share, only the files say.
        Ok(crate::store::trees_size(diffs.iter().map(|diff| self.dir(diff))))
    }

    /// The bytes that each of these layers takes besides those before it.
    ///
    /// # Errors
    /// When a layer is not here.
    pub(crate) fn rooms(&self, diffs: &[DiffId]) -> Result<Vec<u64>, LayerError> {
        let records: Vec<_> = diffs.iter().map(|diff| self.record(diff)).collect::<Result<_, _>>()?;
        if records.iter().all(|record| record.shared == 0) {
            return Ok(records.iter().map(|record| record.size).collect());
        }
        Ok(crate::store::trees_sizes(diffs.iter().map(|diff| self.dir(diff))))
    }

    /// Unpacks a tar, plain or compressed with gzip or zstd, in one pass, and keeps it as it came for pushing and
    /// saving.
    pub fn unpack(&self, reader: impl Read + Send) -> Result<DiffId, LayerError> {
        Ok(self.receive(reader, &Announced::default())?.diff)
    }

    /// Unpacks a layer that was announced. Nothing of it is seen unless all of it is as announced.
    pub(crate) fn receive(
        &self,
        reader: impl Read + Send,
        announced: &Announced,
    ) -> Result<LayerRecord, LayerError> {
        self.receive_with(reader, announced, Donors::default(), None)
    }

    /// Unpacks a layer that was announced, with what other layers have of it, and puts its table beside it.
    fn receive_with(
        &self,
        reader: impl Read + Send,
        announced: &Announced,
        donors: Donors,
        table: Option<&[u8]>,
    ) -> Result<LayerRecord, LayerError> {
        let (scratch, fs) = self.begin()?;
        let expected = announced.blob.as_ref().map(|(digest, _)| digest);
        let ingest =
            if announced.is_kept { None } else { Some(Content::at(&self.root).ingest_as(expected)?) };
        let (flow, contents) = stream::lead(reader, ingest, |tar| unpack::unpack(fs, tar, donors));
        // A stream that broke off explains whatever the unpacker says about it; but when the unpacker gave up
        // first, the pipe it left broken explains nothing.
        let (flow, contents) = match (flow, contents) {
            (Ok(flow), Ok(contents)) => (flow, contents),
            (Err(error), Ok(_)) => return Err(LayerError::Stream(error)),
            (Err(error), Err(_)) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(LayerError::Stream(error));
            }
            (_, Err(error)) => return Err(error.into()),
        };
        if let Some(expected) = announced.diff.as_ref().filter(|expected| **expected != flow.diff) {
            return Err(LayerError::WrongDiff { expected: expected.clone(), found: flow.diff });
        }
        let kept = match (flow.blob, &announced.blob) {
            (Some(ingest), Some((digest, size))) => Some(ingest.commit(Some(digest), Some(*size))?),
            (Some(ingest), None) => Some(ingest.commit(None, None)?),
            (None, kept) => kept.clone(),
        };
        let blob = kept.map(|(digest, size)| LayerBlob { digest, size, compression: flow.compression });
        let contents = Contents { tar_size: flow.tar_size, ..contents };
        if let Some(table) = table {
            fs::write(scratch.path().join(rebuild::TABLE), table)
                .map_err(failure("keep the table of", flow.diff.as_str()))?;
        }
        self.publish(scratch, flow.diff, contents, blob)
    }

    /// Takes an overlay upper directory over as it stands: it is renamed into the store and `upper` is gone,
    /// whether or not this fails. It must be on the root's file system and no longer mounted.
    pub fn adopt(&self, upper: &Path) -> Result<DiffId, LayerError> {
        self.adopt_known(upper, &Known::new())
    }

    /// The same of a directory in which the digests of some files' contents are known.
    pub(crate) fn adopt_known(&self, upper: &Path, known: &Known) -> Result<DiffId, LayerError> {
        let scratch = Scratch::directory(&self.root).map_err(failure("make room for", "new"))?;
        let fs = scratch.path().join("fs");
        fs::rename(upper, &fs).map_err(failure("take over", &upper.display().to_string()))?;
        let fs = File::open(&fs).map_err(failure("open", "new"))?.into();
        let mut sink = DigestSink::default();
        let contents =
            pack::pack_known_into(&fs, &mut sink, Treatment::Adopt, known).map_err(packing("new"))?;
        let (diff, table) = sink.finish().map_err(failure("digest", "new"))?;
        // Whoever sends the layer needs it, and would have to read everything again.
        if let Some(table) = table {
            let bytes = table.to_bytes().map_err(failure("keep the table of", diff.as_str()))?;
            fs::write(scratch.path().join(rebuild::TABLE), bytes)
                .map_err(failure("keep the table of", diff.as_str()))?;
        }
        Ok(self.publish(scratch, diff, contents, None)?.diff)
    }

    /// Makes a layer of what an overlay's upper directory holds now, and leaves the directory as it is. `without` are
    /// paths that do not belong to the layer.
    pub fn copy(&self, upper: &Path, without: &BTreeSet<Vec<u8>>) -> Result<DiffId, LayerError> {
        let fs: OwnedFd = File::open(upper).map_err(failure("open", &upper.display().to_string()))?.into();
        let (reader, writer) = io::pipe().map_err(LayerError::Stream)?;
        let (packed, received) = thread::scope(|scope| {
            let packer = scope.spawn(move || {
                let mut writer = io::BufWriter::with_capacity(1 << 18, writer);
                pack::pack_without(&fs, &mut writer, Treatment::Read, without)
                    .and_then(|_| writer.flush().map_err(PackError::Write))
            });
            let received = self.receive(reader, &Announced { is_kept: true, ..Announced::default() });
            let packed = packer
                .join()
                .unwrap_or_else(|_| Err(PackError::Write(io::Error::other("the packer panicked"))));
            (packed, received)
        });
        match (packed, received) {
            // Who gave up reading has the better reason.
            (Err(PackError::Write(_)), Err(error)) | (Ok(()), Err(error)) => Err(error),
            (Err(error), _) => Err(packing("new")(error)),
            (Ok(()), Ok(record)) => Ok(record.diff),
        }
    }

    /// Writes the layer's tar, whose digest is the diff id.
    pub fn pack(&self, diff: &DiffId, writer: &mut dyn Write) -> Result<(), LayerError> {
        let record = self.record(diff)?;
        if let Some(blob) = &record.blob
            && let Ok(file) = Content::at(&self.root).open(&blob.digest)
        {
            let (_, mut reader) = stream::decompress(io::BufReader::with_capacity(1 << 18, file))
                .map_err(LayerError::Stream)?;
            io::copy(&mut reader, writer).map_err(LayerError::Stream)?;
            return Ok(());
        }
        let mut checked = CheckedWriter { writer, hash: Sha256::new() };
        if !self.pack_from_table(diff, &mut checked)? {
            let fs = File::open(self.dir(diff)).map_err(failure("open", diff.as_str()))?.into();
            pack::pack(&fs, &mut checked, Treatment::Read).map_err(packing(diff.as_str()))?;
        }
        let found = Digest::from_sha256(&checked.hash.finalize());
        if found == *diff { Ok(()) } else { Err(LayerError::WrongDiff { expected: diff.clone(), found }) }
    }

    /// Remembers the blob that a layer was compressed to.
    pub(crate) fn set_blob(&self, diff: &DiffId, blob: LayerBlob) -> Result<(), LayerError> {
        let mut record = self.record(diff)?;
        record.blob = Some(blob);
        crate::store::write_json(&self.root.layer(diff).join(RECORD), &record, Durability::Rename)
            .map_err(failure("record", diff.as_str()))
    }

    /// Waits until nobody else fetches this layer. Whoever claims several takes them in the order of their ids.
    ///
    /// # Errors
    /// When the lock cannot be made.
    pub fn claim(&self, diff: &DiffId) -> Result<Claim, LayerError> {
        Claim::on(&self.root, diff).map_err(failure("claim", diff.as_str()))
    }

    /// Marks a layer as wanted by the build cache, so that removing the images that name it leaves it here.
    pub fn pin(&self, diff: &DiffId) -> Result<(), LayerError> {
        self.mark(diff, PINNED)
    }

    /// Takes the build cache's mark away; the layer goes with the next collection unless an image names it.
    pub fn unpin(&self, diff: &DiffId) -> Result<(), LayerError> {
        crate::store::remove_file(&self.root.layer(diff).join(PINNED))
            .map_err(failure("unpin", diff.as_str()))
    }

    /// Whether the build cache wants the layer.
    pub(crate) fn is_pinned(&self, diff: &DiffId) -> bool {
        self.root.layer(diff).join(PINNED).exists()
    }

    /// Whether an image was ever made of the layer.
    pub(crate) fn is_synced(&self, diff: &DiffId) -> bool {
        self.root.layer(diff).join(SYNCED).exists()
    }

    /// Says that the layers' bytes are on the disk.
    pub(crate) fn mark_synced(&self, diffs: &[DiffId]) -> Result<(), LayerError> {
        diffs.iter().try_for_each(|diff| self.mark(diff, SYNCED))
    }

    /// The layers that are here, whole or not.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn list(&self) -> Result<Vec<DiffId>, LayerError> {
        match fs::read_dir(self.root.layers()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(failure("list", "store")(error)),
            Ok(entries) => Ok(entries
                .filter_map(|entry| format!("sha256:{}", entry.ok()?.file_name().to_str()?).parse().ok())
                .collect()),
        }
    }

    /// Removes directories that are no whole layer, which no crash of ours leaves but somebody else's deletion may.
    /// Only with the collector's lock.
    pub(crate) fn sweep(&self) -> Result<Vec<DiffId>, LayerError> {
        let half = |diff: &DiffId| !self.root.layer(diff).join(RECORD).exists();
        let half: Vec<DiffId> = self.list()?.into_iter().filter(half).collect();
        for diff in &half {
            self.remove(diff)?;
        }
        Ok(half)
    }

    /// Removes a layer: out of sight at once, then its files. Returns the bytes won: files that another layer has too
    /// stay there. Only with the collector's lock.
    pub(crate) fn remove(&self, diff: &DiffId) -> Result<u64, LayerError> {
        let fail = failure("remove", diff.as_str());
        let size = crate::store::tree_size_alone(&self.dir(diff));
        let scratch = Scratch::directory(&self.root).map_err(&fail)?;
        match fs::rename(self.root.layer(diff), scratch.path().join("layer")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(fail(error)),
            Ok(()) => Ok(size),
        }
    }

    /// The right to remove layers; `None` while somebody makes an image.
    pub(crate) fn collector(&self) -> Result<Option<Lock>, LayerError> {
        let path = self.lock_path()?;
        let lock = Lock::try_exclusive(&path).map_err(failure("lock", "store"))?;
        if lock.is_some() {
            scratch::sweep(&self.root).map_err(failure("sweep", "store"))?;
        }
        Ok(lock)
    }

    /// The diff id of a layer that changes nothing: the digest of an empty tar.
    pub fn empty() -> DiffId {
        Digest::of(&[0; 1024])
    }

    fn begin(&self) -> Result<(Scratch, OwnedFd), LayerError> {
        let fail = failure("make room for", "new");
        let scratch = Scratch::directory(&self.root).map_err(&fail)?;
        let fs = scratch.path().join("fs");
        fs::DirBuilder::new().mode(0o755).create(&fs).map_err(&fail)?;
        let fs = File::open(&fs).map_err(&fail)?;
        rustix::fs::fchmod(&fs, rustix::fs::Mode::from_raw_mode(0o755))
            .map_err(|error| fail(error.into()))?;
        Ok((scratch, fs.into()))
    }

    /// Gives a finished layer its name.
    fn publish(
        &self,
        scratch: Scratch,
        diff: DiffId,
        contents: Contents,
        blob: Option<LayerBlob>,
    ) -> Result<LayerRecord, LayerError> {
        let fail = failure("publish", diff.as_str());
        if let Ok(existing) = self.record(&diff) {
            // Somebody was faster. What we have and they have not is how it is compressed.
            if existing.blob.is_none()
                && let Some(blob) = blob
            {
                self.set_blob(&diff, blob)?;
                return self.record(&diff);
            }
            return Ok(existing);
        }
        let Contents { size, members, tar_size, shared } = contents;
        let record =
            LayerRecord { version: VERSION, diff, size, members, tar_size, shared, blob, boot: boot() };
        crate::store::write_json(&scratch.path().join(RECORD), &record, Durability::Rename).map_err(&fail)?;
        crate::store::private_directory(&self.root.layers()).map_err(&fail)?;
        let target = self.root.layer(&record.diff);
        if target.exists() && !self.contains(&record.diff) {
            // It survived a power cut that it may not have survived whole.
            self.remove(&record.diff)?;
        }
        scratch.publish(&target).map_err(&fail)?;
        Ok(record)
    }

    fn mark(&self, diff: &DiffId, mark: &str) -> Result<(), LayerError> {
        let path = self.root.layer(diff).join(mark);
        match File::create_new(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(LayerError::Missing(diff.clone())),
            other => other.map(drop).map_err(failure("mark", diff.as_str())),
        }
    }

    fn lock_path(&self) -> Result<PathBuf, LayerError> {
        let directory = self.root.layers();
        crate::store::private_directory(&directory).map_err(failure("make", "store"))?;
        Ok(directory.join(LOCK))
    }
}

// === impl Compression ===

impl Compression {
    /// The media type of a layer compressed so.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::None => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
            Self::Xz => "application/vnd.oci.image.layer.v1.tar+xz",
            Self::Bzip2 => "application/vnd.oci.image.layer.v1.tar+bzip2",
        }
    }

    /// Whether others know layers that are compressed so (image-spec, layer.md).
    pub fn is_portable(self) -> bool {
        matches!(self, Self::None | Self::Gzip | Self::Zstd)
    }
}

const RECORD: &str = "layer.json";
const SYNCED: &str = "synced";
const PINNED: &str = "pinned";
const LOCK: &str = "lock";

/// Digests what it passes on.
struct CheckedWriter<'a> {
    writer: &'a mut dyn Write,
    hash: Sha256,
}

impl Write for CheckedWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.writer.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// This boot's name (random(4)).
fn boot() -> String {
    static BOOT: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
        fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map(|id| id.trim().to_owned())
            .unwrap_or_default()
    });
    BOOT.clone()
}

#[cfg(test)]
mod tests;
