//! A layer put together from its table and contents that are here, or come from somewhere; and its tar made again.
//!
//! What another layer has under the same path with the same attributes is linked, not copied: layers never change, so
//! two of them may share a file. A program can see that only in the file's count of links (stat(2), `st_nlink`). There
//! are programs that mind: cron passes over a crontab that has two (crontab(5)), logrotate a log, mail systems a
//! message. What they look at lies in the directories of [`UNSHARED`], where nothing is shared.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::id::DiffId;
use crate::layer::digest::TableSink;
use crate::layer::donor::Donors;
use crate::layer::error::{failure, packing};
use crate::layer::pack::Treatment;
use crate::layer::table::{Cursor, Entry, Piece, Table, TableError, record};
use crate::layer::{Announced, LayerError, LayerRecord, Layers, pack};
use crate::store::Durability;

/// Where the contents of a layer's files come from while it is put together.
pub trait Supply: Sync {
    /// Another layer that is here and has this content under the same path.
    fn donor(&self, entry: &Entry) -> Option<&DiffId>;

    /// The content of the file with this number in [`Table::entries`].
    ///
    /// # Errors
    /// When it is not to be had.
    fn open(&self, number: usize, entry: &Entry) -> io::Result<Box<dyn Read + Send + '_>>;
}

/// The files of a layer, by their paths in it.
#[derive(Debug)]
pub struct Files {
    root: OwnedFd,
}

/// The directories at the top of a layer in which no file is shared with another layer.
const UNSHARED: [&[u8]; 6] = [b"etc/", b"var/", b"root/", b"home/", b"run/", b"tmp/"];

/// Opens the content with a number.
type Open<'a> = dyn Fn(usize, &Entry) -> io::Result<Box<dyn Read + Send + 'a>> + Sync + 'a;

/// A tar that is put together while it is read.
struct Assembly<'a> {
    cursor: Cursor<'a>,
    entries: &'a [Entry],
    next: usize,
    raw: Vec<u8>,
    at: usize,
    content: Option<(Box<dyn Read + Send + 'a>, u64)>,
    open: &'a Open<'a>,
}

// === impl Layers ===

impl Layers {
    /// The table of a layer's tar. It is made when it is asked for the first time, which reads the layer once.
    ///
    /// # Errors
    /// When the layer is not here or cannot be read.
    pub fn table(&self, diff: &DiffId) -> Result<Table, LayerError> {
        if let Some(table) = self.kept_table(diff)? {
            return Ok(table);
        }
        let table = match self.blob_reader(diff)? {
            Some(reader) => record(io::BufReader::with_capacity(1 << 18, reader)),
            None => {
                let mut sink = TableSink::default();
                let fs = File::open(self.dir(diff)).map_err(failure("open", diff.as_str()))?.into();
                pack::pack_into(&fs, &mut sink, Treatment::Read).map_err(packing(diff.as_str()))?;
                sink.finish()
            }
        };
        let table = table?;
        let bytes = table.to_bytes().map_err(failure("keep the table of", diff.as_str()))?;
        crate::store::write_atomic(&self.table_path(diff), &bytes, 0o600, Durability::Rename)
            .map_err(failure("keep the table of", diff.as_str()))?;
        Ok(table)
    }

    /// The table of a layer's tar, if it was ever made.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn kept_table(&self, diff: &DiffId) -> Result<Option<Table>, LayerError> {
        match std::fs::read(self.table_path(diff)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failure("read the table of", diff.as_str())(error)),
            // One that lost its bytes in a power cut is made again.
            Ok(bytes) => Ok(Table::from_bytes(&bytes).ok()),
        }
    }

    /// The files of a layer.
    ///
    /// # Errors
    /// When the layer is not here.
    pub fn files(&self, diff: &DiffId) -> Result<Files, LayerError> {
        let root = File::open(self.dir(diff)).map_err(failure("open", diff.as_str()))?;
        Ok(Files { root: root.into() })
    }

    /// Writes the contents with these numbers in [`Table::entries`] one after the other: the way to those that are
    /// not in the unpacked layer. It reads the whole tar.
    ///
    /// # Errors
    /// When the tar is not to be had, or the writer fails.
    pub fn pick(
        &self,
        diff: &DiffId,
        table: &Table,
        numbers: &BTreeSet<usize>,
        writer: &mut dyn Write,
    ) -> Result<(), LayerError> {
        let (cursor, next) = (table.cursor(), 0);
        self.pack(diff, &mut Pick { cursor, next, numbers, writer, left: 0, is_wanted: false })
    }

    /// Puts the layer of this table together, with contents from the supply. Nothing of it is seen unless its tar has
    /// the digest it is to have.
    ///
    /// # Errors
    /// When it does not have it, a content is not to be had, or there is no room.
    pub fn rebuild(
        &self,
        diff: &DiffId,
        table: &Table,
        supply: &dyn Supply,
    ) -> Result<LayerRecord, LayerError> {
        let entries = table.entries()?;
        // What cannot be found again in the unpacked layer is only in the tar, which is kept then.
        let is_restorable = entries.iter().all(|entry| entry.is_plain);
        let announced = Announced { blob: None, diff: Some(diff.clone()), is_kept: is_restorable };
        let open = |number, entry: &Entry| supply.open(number, entry);
        let assembly = Assembly::new(table, &entries, &open);
        let bytes = table.to_bytes().map_err(failure("keep the table of", diff.as_str()))?;
        self.receive_with(assembly, &announced, self.donors(&entries, supply)?, Some(&bytes))
    }

    /// Writes the layer's tar as its table says, if it has one.
    pub(crate) fn pack_from_table(&self, diff: &DiffId, writer: &mut dyn Write) -> Result<bool, LayerError> {
        let Some(table) = self.kept_table(diff)? else { return Ok(false) };
        let entries = table.entries()?;
        if !entries.iter().all(|entry| entry.is_plain) {
            return Ok(false);
        }
        let files = self.files(diff)?;
        let open =
            |_, entry: &Entry| files.open(&entry.path).map(|file| Box::new(file) as Box<dyn Read + Send>);
        let mut assembly = Assembly::new(&table, &entries, &open);
        io::copy(&mut assembly, writer).map_err(failure("read", diff.as_str()))?;
        Ok(true)
    }

    /// The files that need not be written because another layer has them.
    fn donors(&self, entries: &[Entry], supply: &dyn Supply) -> Result<Donors, LayerError> {
        let mut roots: BTreeMap<&DiffId, Rc<OwnedFd>> = BTreeMap::new();
        let mut files = HashMap::new();
        for entry in entries.iter().filter(|entry| entry.is_plain) {
            let Some(diff) = supply.donor(entry) else { continue };
            let root = match roots.get(diff) {
                Some(root) => root.clone(),
                None => {
                    let root = File::open(self.dir(diff)).map_err(failure("open", diff.as_str()))?;
                    roots.entry(diff).or_insert(Rc::new(root.into())).clone()
                }
            };
            files.insert(entry.path.clone(), (root, may_share(&entry.path)));
        }
        Ok(Donors::new(files))
    }

    /// The layer's tar where it is kept as it came.
    pub(crate) fn blob_reader(&self, diff: &DiffId) -> Result<Option<Box<dyn Read>>, LayerError> {
        let Some(blob) = self.record(diff)?.blob else { return Ok(None) };
        let Ok(file) = self.content().open(&blob.digest) else { return Ok(None) };
        let reader = io::BufReader::with_capacity(1 << 18, file);
        let (_, reader) = super::stream::decompress(reader).map_err(LayerError::Stream)?;
        Ok(Some(reader))
    }

    fn table_path(&self, diff: &DiffId) -> std::path::PathBuf {
        self.root.layer(diff).join(TABLE)
    }
}

/// The file beside a layer in which its table is.
pub(crate) const TABLE: &str = "table";

/// Whether a file at this path may be in two layers.
pub(crate) fn may_share(path: &[u8]) -> bool {
    !UNSHARED.iter().any(|directory| path.starts_with(directory))
}

/// Opens a file below a directory, through no symbolic link.
pub(crate) fn open_plain(root: &OwnedFd, path: &[u8]) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOATIME | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let file: File = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)?.into();
    Ok(file)
}

// === impl Files ===

impl Files {
    /// Opens a file for reading, through no symbolic link.
    ///
    /// # Errors
    /// When there is none under this path.
    pub fn open(&self, path: &[u8]) -> io::Result<File> {
        open_plain(&self.root, path)
    }
}

/// Passes on some contents of the tar that is written to it.
struct Pick<'a> {
    cursor: Cursor<'a>,
    next: usize,
    numbers: &'a BTreeSet<usize>,
    writer: &'a mut dyn Write,
    /// Bytes left of the current part, and whether they are wanted.
    left: u64,
    is_wanted: bool,
}

impl Write for Pick<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        while self.left == 0 {
            let mut raw = Vec::new();
            (self.left, self.is_wanted) = match self.cursor.next(&mut raw).map_err(io::Error::other)? {
                // More than the table knows of: the digest of the tar tells.
                None => return Ok(bytes.len()),
                Some(Piece::Raw) => (raw.len() as u64, false),
                Some(Piece::Content(size, _)) => {
                    self.next += 1;
                    (size, self.numbers.contains(&(self.next - 1)))
                }
            };
        }
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        if self.is_wanted {
            self.writer.write_all(&bytes[..length])?;
        }
        self.left -= length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

// === impl Assembly ===

impl<'a> Assembly<'a> {
    fn new(table: &'a Table, entries: &'a [Entry], open: &'a Open<'a>) -> Self {
        Self { cursor: table.cursor(), entries, next: 0, raw: Vec::new(), at: 0, content: None, open }
    }

    fn advance(&mut self) -> io::Result<bool> {
        self.raw.clear();
        self.at = 0;
        // Several small parts at once: headers come in twos and threes.
        while self.raw.len() < (64 << 10) {
            match self.cursor.next(&mut self.raw).map_err(io::Error::other)? {
                None => return Ok(!self.raw.is_empty()),
                Some(Piece::Raw) => {}
                Some(Piece::Content(size, _)) => {
                    let entry = self.entries.get(self.next);
                    let entry = entry.ok_or_else(|| io::Error::other(TableError::Truncated))?;
                    self.content = Some(((self.open)(self.next, entry)?, size));
                    self.next += 1;
                    return Ok(true);
                }
            }
        }
        Ok(true)
    }
}

impl Read for Assembly<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        loop {
            if self.at < self.raw.len() {
                let length = bytes.len().min(self.raw.len() - self.at);
                bytes[..length].copy_from_slice(&self.raw[self.at..self.at + length]);
                self.at += length;
                return Ok(length);
            }
            if let Some((reader, left)) = &mut self.content {
                let most = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                if most > 0 {
                    let length = reader.read(&mut bytes[..most])?;
                    if length == 0 {
                        let reason = "a content is shorter than the table of the layer says";
                        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
                    }
                    *left -= length as u64;
                    return Ok(length);
                }
                self.content = None;
            }
            if !self.advance()? {
                return Ok(0);
            }
        }
    }
}
