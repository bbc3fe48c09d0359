//! A layer's blob on its way to a tar reader. One thread keeps and digests what comes in, one recognises by content how
//! it is compressed and decompresses it, and the one that takes the tar digests it: decompressing takes longer than all
//! the rest, so nothing else is done there.

use std::io::{self, BufRead, Read, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::id::{DiffId, Digest};
use crate::store::content::Ingest;

/// How a layer's blob is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// A plain tar.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// Archives may come so; no layer is kept or sent so.
    Xz,
    /// Archives may come so; no layer is kept or sent so.
    Bzip2,
}

/// What went through a stream.
#[derive(Debug)]
pub(crate) struct Flow {
    /// The digest of what came out.
    pub(crate) diff: DiffId,
    /// How many bytes came out.
    pub(crate) tar_size: u64,
    /// How what came in was compressed.
    pub(crate) compression: Compression,
    /// What came in, if it was kept.
    pub(crate) blob: Option<Ingest>,
}

/// The tar that comes out, digested as it is read.
pub(crate) struct Tar {
    outlet: Outlet,
    hash: Sha256,
    size: u64,
}

/// The reading end of a pipe between two threads: bytes, chunk by chunk.
struct Outlet {
    filled: Receiver<io::Result<Vec<u8>>>,
    emptied: Sender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
}

/// The writing end.
struct Inlet {
    filled: SyncSender<io::Result<Vec<u8>>>,
    emptied: Receiver<Vec<u8>>,
}

/// Large enough that handing one over costs nothing beside filling it, small enough to stay in the second-level
/// cache between digest and write.
const CHUNK: usize = 256 << 10;

/// How far one who writes may run ahead of who reads.
const CHUNKS_AHEAD: usize = 12;

/// Leads a blob from its source to whoever takes its tar, on this thread. When the tar is not taken to its end, what is
/// said of the flow is a broken pipe.
pub(crate) fn lead<T>(
    source: impl Read + Send,
    blob: Option<Ingest>,
    take: impl FnOnce(&mut Tar) -> T,
) -> (io::Result<Flow>, T) {
    let (arriving, arrived) = pipe();
    let (decompressing, decompressed) = pipe();
    thread::scope(|scope| {
        let keeper = scope.spawn(move || arriving.keep(source, blob));
        let decompressor = scope.spawn(move || decompressing.decompress(arrived));
        let mut tar = Tar { outlet: decompressed, hash: Sha256::new(), size: 0 };
        let taken = take(&mut tar);
        let (diff, tar_size) = tar.finish();
        let panicked = |_| Err(io::Error::other("a thread that reads the layer panicked"));
        let kept = keeper.join().unwrap_or_else(panicked);
        let compression =
            decompressor.join().unwrap_or_else(|_| Err(io::Error::other("the decompressor panicked")));
        let flow = match (kept, compression) {
            (Ok(blob), Ok(compression)) => Ok(Flow { diff, tar_size, compression, blob }),
            // Who found the pipe broken stopped because of somebody further on.
            (Err(error), Err(reason)) if error.kind() == io::ErrorKind::BrokenPipe => Err(reason),
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
        (flow, taken)
    })
}

/// How many bytes tell.
const LONGEST_MAGIC: usize = 5;

/// How these first bytes of a stream are compressed.
pub(crate) fn sniff(magic: &[u8]) -> Compression {
    match magic {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        // A frame, or a skippable one before it.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        [b'B', b'Z', b'h', b'0'..=b'9', ..] => Compression::Bzip2,
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Compression::Xz,
        _ => Compression::None,
    }
}

/// A reader of what is in a possibly compressed stream.
pub(crate) fn decompress<'a>(mut reader: impl BufRead + 'a) -> io::Result<(Compression, Box<dyn Read + 'a>)> {
    // What comes through a pipe may come byte by byte.
    let mut magic = [0; LONGEST_MAGIC];
    let length = fill(&mut reader, &mut magic)?;
    let compression = sniff(&magic[..length]);
    let reader = io::Cursor::new(magic).take(length as u64).chain(reader);
    let reader: Box<dyn Read + 'a> = match compression {
        Compression::None => Box::new(reader),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(reader)?),
        Compression::Xz => Box::new(lzma_rust2::XzReader::new(reader, true)),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(reader)),
    };
    Ok((compression, reader))
}

fn pipe() -> (Inlet, Outlet) {
    let (filled, filled_end) = sync_channel(CHUNKS_AHEAD);
    let (emptied, emptied_end) = channel();
    (Inlet { filled, emptied: emptied_end }, Outlet { filled: filled_end, emptied, chunk: Vec::new(), at: 0 })
}

// === impl Tar ===

impl Tar {
    /// The digest and the length of what was read. Whoever still writes finds the pipe broken.
    fn finish(self) -> (DiffId, u64) {
        (Digest::from_sha256(&self.hash.finalize()), self.size)
    }
}

impl Read for Tar {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(bytes)?;
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Tar {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.outlet.is_read() {
            self.outlet.next()?;
            self.hash.update(&self.outlet.chunk);
            self.size += self.outlet.chunk.len() as u64;
        }
        self.outlet.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.outlet.consume(bytes);
    }
}

// === impl Inlet ===

impl Inlet {
    /// Sends a blob through and keeps it.
    fn keep(self, source: impl Read, mut blob: Option<Ingest>) -> io::Result<Option<Ingest>> {
        self.pump(source, |chunk| blob.as_mut().map_or(Ok(()), |blob| blob.write_all(chunk)))?;
        Ok(blob)
    }

    /// Sends through what is in a blob.
    fn decompress(self, mut blob: Outlet) -> io::Result<Compression> {
        let (compression, tar) = match decompress(&mut blob) {
            Ok(found) => found,
            Err(error) => return Err(self.fail(error)),
        };
        self.pump(tar, |_| Ok(()))?;
        // Whatever follows the compressed stream is part of the blob all the same.
        io::copy(&mut blob, &mut io::sink())?;
        Ok(compression)
    }

    /// Sends everything through. An error reaches the reading end as well; a reader that went away ends it early.
    fn pump(&self, mut source: impl Read, mut see: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        loop {
            let mut chunk = self.emptied.try_recv().unwrap_or_default();
            chunk.resize(CHUNK, 0);
            let length = match fill(&mut source, &mut chunk)
                .and_then(|length| see(&chunk[..length]).map(|()| length))
            {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(error) => return Err(self.fail(error)),
            };
            chunk.truncate(length);
            self.filled.send(Ok(chunk)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
    }

    fn fail(&self, error: io::Error) -> io::Error {
        let copy = io::Error::new(error.kind(), error.to_string());
        // Nobody listens when the reader failed first, and then its own failure is the one that counts.
        let _ = self.filled.send(Err(copy));
        error
    }
}

// === impl Outlet ===

impl Outlet {
    fn is_read(&self) -> bool {
        self.at == self.chunk.len()
    }

    /// Goes on to the next chunk, which is empty at the end.
    fn next(&mut self) -> io::Result<()> {
        let empty = std::mem::take(&mut self.chunk);
        self.at = 0;
        // The other end may have finished; then nobody needs the chunk.
        let _ = self.emptied.send(empty);
        // A closed channel is the end: a failure would have come through it.
        if let Ok(next) = self.filled.recv() {
            self.chunk = next?;
        }
        Ok(())
    }
}

impl Read for Outlet {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(bytes)?;
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Outlet {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.is_read() {
            self.next()?;
        }
        Ok(&self.chunk[self.at..])
    }

    fn consume(&mut self, bytes: usize) {
        self.at += bytes;
    }
}

fn fill(reader: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match reader.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
