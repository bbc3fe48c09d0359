//! What has arrived of a layer that is not whole yet, so that the next attempt need not send it again.
//!
//! One file that only grows: a record says whose content it is a piece of, where in it, and how long; its bytes follow,
//! under a checksum. What a kill or a power cut left half written at the end is cut off when it is opened.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use engine::layer::{Sum, Table};

/// The contents that have arrived for one layer, and its table.
pub(super) struct Spool {
    directory: PathBuf,
    file: File,
    writer: BufWriter<File>,
    end: u64,
    contents: HashMap<Sum, Content>,
}

/// Where a content is in the file.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    /// Offsets in the file and lengths, in the order of the content.
    pieces: Vec<(u64, u32)>,
    length: u64,
}

/// Reads a content.
pub(super) struct SpoolReader<'a> {
    file: &'a File,
    pieces: std::vec::IntoIter<(u64, u32)>,
    at: u64,
    left: u32,
}

/// Digest of the content, offset in it, length, checksum of the piece.
const HEAD: usize = 32 + 8 + 4 + CHECK;
const CHECK: usize = 8;

/// The longest piece.
pub(super) const PIECE: usize = 64 << 10;

/// After so long nobody comes back for it.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

// === impl Spool ===

impl Spool {
    /// Opens the spool in this directory, which is made when it is not there.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let path = directory.join(CONTENTS);
        let file = fs::OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let writer = BufWriter::with_capacity(PIECE + HEAD, file.try_clone()?);
        let mut spool =
            Self { directory: directory.to_owned(), file, writer, end: 0, contents: HashMap::new() };
        spool.scan()?;
        spool.file.set_len(spool.end)?;
        Ok(spool)
    }

    /// The layer's table, if that has arrived.
    pub(super) fn table(&self) -> Option<Table> {
        Table::from_bytes(&fs::read(self.directory.join(TABLE)).ok()?).ok()
    }

    /// Keeps the layer's table.
    pub(super) fn keep_table(&self, table: &Table) -> io::Result<()> {
        engine::store::write_atomic(
            &self.directory.join(TABLE),
            &table.to_bytes()?,
            0o600,
            engine::store::Durability::Rename,
        )
    }

    /// How much there is of a content.
    pub(super) fn length(&self, sum: &Sum) -> u64 {
        self.contents.get(sum).map_or(0, |content| content.length)
    }

    /// Where a content is, as far as it has come.
    pub(super) fn content(&self, sum: &Sum) -> Option<Content> {
        self.contents.get(sum).cloned()
    }

    /// The digests of what is here.
    pub(super) fn sums(&self) -> impl Iterator<Item = &Sum> {
        self.contents.keys()
    }

    /// Reads a content that was found here before.
    pub(super) fn read(&self, content: Content) -> SpoolReader<'_> {
        SpoolReader { file: &self.file, pieces: content.pieces.into_iter(), at: 0, left: 0 }
    }

    /// Reads some bytes of a content that was found here before.
    pub(super) fn read_at(&self, content: &Content, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let mut start = 0;
        let mut filled = 0;
        for (at, length) in &content.pieces {
            let wanted = offset + filled as u64;
            let end = start + u64::from(*length);
            if filled < bytes.len() && wanted < end {
                let most = usize::try_from(end - wanted).unwrap_or(usize::MAX).min(bytes.len() - filled);
                self.file.read_exact_at(&mut bytes[filled..filled + most], at + (wanted - start))?;
                filled += most;
            }
            start = end;
        }
        if filled == bytes.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Forgets what there is of a content; the bytes stay readable for who knows where they are.
    pub(super) fn restart(&mut self, sum: &Sum) -> io::Result<()> {
        match self.contents.remove(sum) {
            // An empty piece at the beginning says so to the next who opens it.
            Some(_) => self.piece(sum, &[]),
            None => Ok(()),
        }
    }

    /// Adds the next piece of a content.
    pub(super) fn add(&mut self, sum: &Sum, bytes: &[u8]) -> io::Result<()> {
        bytes.chunks(PIECE).try_for_each(|piece| self.piece(sum, piece))
    }

    fn piece(&mut self, sum: &Sum, piece: &[u8]) -> io::Result<()> {
        let content = self.contents.entry(*sum).or_default();
        let length = piece.len() as u32;
        let mut head = Vec::with_capacity(HEAD);
        head.extend_from_slice(sum.as_bytes());
        head.extend_from_slice(&content.length.to_le_bytes());
        head.extend_from_slice(&length.to_le_bytes());
        let check = check(&head, piece);
        self.writer.write_all(&head)?;
        self.writer.write_all(&check)?;
        self.writer.write_all(piece)?;
        if length > 0 {
            content.pieces.push((self.end + HEAD as u64, length));
        }
        content.length += u64::from(length);
        self.end += (HEAD + piece.len()) as u64;
        Ok(())
    }

    /// Makes what was added readable.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    /// Removes it: the layer is whole, or what has arrived is of no use.
    pub(super) fn remove(self) -> io::Result<()> {
        fs::remove_dir_all(&self.directory)
    }

    fn scan(&mut self) -> io::Result<()> {
        let mut file = self.file.try_clone()?;
        file.rewind()?;
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut head = [0; HEAD];
        let mut piece = Vec::new();
        while reader.read_exact(&mut head).is_ok() {
            let (said, sum_of_piece) = head.split_at(HEAD - CHECK);
            let (sum, numbers) = said.split_at(32);
            let mut bytes = [0; 32];
            bytes.copy_from_slice(sum);
            let sum = Sum::from_bytes(bytes);
            let offset = u64::from_le_bytes(numbers[..8].try_into().unwrap_or_default());
            let length = u32::from_le_bytes(numbers[8..].try_into().unwrap_or_default());
            piece.resize(usize::try_from(length).unwrap_or(usize::MAX).min(PIECE + 1), 0);
            let is_whole = piece.len() <= PIECE && reader.read_exact(&mut piece).is_ok();
            if !is_whole || check(said, &piece) != sum_of_piece {
                break;
            }
            let content = self.contents.entry(sum).or_default();
            if offset == 0 {
                *content = Content::default();
            }
            if offset == content.length && length > 0 {
                content.pieces.push((self.end + HEAD as u64, length));
                content.length += u64::from(length);
            }
            self.end += (HEAD + piece.len()) as u64;
        }
        Ok(())
    }
}

const CONTENTS: &str = "contents";
const TABLE: &str = "table";

/// A quick checksum. It tells what was half written; what the bytes are, their content's digest tells.
fn check(said: &[u8], piece: &[u8]) -> [u8; CHECK] {
    let mix = |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    let add = |sum: u64, bytes: &[u8]| {
        let (words, rest) = bytes.as_chunks::<8>();
        let sum = words.iter().fold(sum, |sum, word| mix(sum, u64::from_le_bytes(*word)));
        rest.iter().fold(sum, |sum, byte| mix(sum, u64::from(*byte)))
    };
    add(add(1, said), piece).to_le_bytes()
}

/// Removes spools that nobody has come back for.
pub(super) fn sweep(transfers: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(transfers) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let path = entry?.path();
        let touched = fs::metadata(path.join(CONTENTS)).and_then(|found| found.modified());
        let age = touched.ok().and_then(|touched| SystemTime::now().duration_since(touched).ok());
        if age.is_some_and(|age| age > KEPT) {
            // Another transfer may take it away at the same time.
            engine::store::remove_tree(&path)?;
        }
    }
    Ok(())
}

// === impl SpoolReader ===

impl Read for SpoolReader<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let Some(piece) = self.pieces.next() else { return Ok(0) };
            (self.at, self.left) = piece;
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        let length = self.file.read_at(&mut bytes[..most], self.at)?;
        self.at += length as u64;
        self.left -= length as u32;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(spool: &Spool, sum: &Sum) -> Vec<u8> {
        let mut bytes = Vec::new();
        spool.read(spool.content(sum).unwrap()).read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_was_added_is_found_again_whatever_was_cut_off_behind_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("spool");
        let (one, two) = (Sum::of(b"one"), Sum::of(b"two"));
        let long = vec![7; 3 * PIECE / 2];
        let mut spool = Spool::open(&path).unwrap();
        spool.add(&one, b"first ").unwrap();
        spool.add(&two, &long).unwrap();
        spool.add(&one, b"second").unwrap();
        drop(spool);
        let whole = fs::read(path.join(CONTENTS)).unwrap();
        let spool = Spool::open(&path).unwrap();
        assert_eq!(text(&spool, &one), b"first second");
        assert!(text(&spool, &two) == long);
        drop(spool);
        for cut in [1, 10, 100, 70_000] {
            fs::write(path.join(CONTENTS), &whole[..whole.len() - cut]).unwrap();
            let mut spool = Spool::open(&path).unwrap();
            assert_eq!(text(&spool, &one), b"first ");
            spool.add(&one, b"third").unwrap();
            spool.flush().unwrap();
            assert_eq!(text(&spool, &one), b"first third");
        }
        fs::write(path.join(CONTENTS), [&[1], &whole[1..]].concat()).unwrap();
        assert_eq!(Spool::open(&path).unwrap().sums().count(), 0);
    }

    #[test]
    fn a_content_can_begin_again_from_what_there_was_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let sum = Sum::of(b"");
        let mut spool = Spool::open(directory.path()).unwrap();
        spool.add(&sum, b"old").unwrap();
        let before = spool.content(&sum).unwrap();
        spool.restart(&sum).unwrap();
        spool.add(&sum, b"new").unwrap();
        spool.add(&sum, b"er").unwrap();
        spool.flush().unwrap();
        let mut old = Vec::new();
        spool.read(before).read_to_end(&mut old).unwrap();
        assert_eq!(old, b"old");
        drop(spool);
        assert_eq!(text(&Spool::open(directory.path()).unwrap(), &sum), b"newer");
    }
}
