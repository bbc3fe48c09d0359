//! Compressed bytes on their way to a tar reader: recognised by content, decompressed and digested on a thread of
//! their own while the reader writes files.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

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

/// The reading end: what came out, chunk by chunk.
pub(crate) struct Outlet {
    filled: Receiver<io::Result<Vec<u8>>>,
    emptied: Sender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
}

/// The writing end, moved to the thread that runs it.
pub(crate) struct Inlet {
    filled: SyncSender<io::Result<Vec<u8>>>,
    emptied: Receiver<Vec<u8>>,
}

/// Large enough that handing one over costs nothing beside filling it, small enough to stay in the second-level
/// cache between digest and write.
const CHUNK: usize = 256 << 10;

/// How far the decompressor may run ahead of the disk.
const CHUNKS_AHEAD: usize = 16;

/// The two ends of a stream.
pub(crate) fn stream() -> (Inlet, Outlet) {
    let (filled, filled_end) = sync_channel(CHUNKS_AHEAD);
    let (emptied, emptied_end) = channel();
    (Inlet { filled, emptied: emptied_end }, Outlet { filled: filled_end, emptied, chunk: Vec::new(), at: 0 })
}

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
    let compression = sniff(reader.fill_buf()?);
    let reader: Box<dyn Read + 'a> = match compression {
        Compression::None => Box::new(reader),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(reader)?),
        Compression::Xz => Box::new(lzma_rust2::XzReader::new(reader, true)),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(reader)),
    };
    Ok((compression, reader))
}

// === impl Inlet ===

impl Inlet {
    /// Sends everything through. An error reaches the reading end as well; a reader that went away ends it early.
    pub(crate) fn run(self, source: impl Read, blob: Option<Ingest>) -> io::Result<Flow> {
        let mut tee = Tee { source, blob };
        match self.pump(&mut tee) {
            Ok((diff, tar_size, compression)) => Ok(Flow { diff, tar_size, compression, blob: tee.blob }),
            Err(error) => {
                let copy = io::Error::new(error.kind(), error.to_string());
                // Nobody listens when the reader failed first, and then its own failure is the one that counts.
                let _ = self.filled.send(Err(copy));
                Err(error)
            }
        }
    }

    fn pump(&self, tee: &mut Tee<impl Read>) -> io::Result<(DiffId, u64, Compression)> {
        let mut tar_size = 0;
        let mut hash = Sha256::new();
        let mut input = BufReader::with_capacity(CHUNK, tee);
        let (compression, mut output) = decompress(&mut input)?;
        loop {
            let mut chunk = self.emptied.try_recv().unwrap_or_default();
            chunk.resize(CHUNK, 0);
            let length = fill(&mut output, &mut chunk)?;
            if length == 0 {
                break;
            }
            chunk.truncate(length);
            hash.update(&chunk);
            tar_size += length as u64;
            self.filled.send(Ok(chunk)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        drop(output);
        // Whatever follows the compressed stream is part of the blob all the same.
        io::copy(&mut input, &mut io::sink())?;
        Ok((Digest::from_sha256(&hash.finalize()), tar_size, compression))
    }
}

// === impl Outlet ===

impl Read for Outlet {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let here = self.fill_buf()?;
        let length = here.len().min(bytes.len());
        bytes[..length].copy_from_slice(&here[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Outlet {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.chunk.len() {
            let empty = std::mem::take(&mut self.chunk);
            self.at = 0;
            // The other end may have finished; then nobody needs the chunk.
            let _ = self.emptied.send(empty);
            // A closed channel is the end: a failure would have come through it.
            if let Ok(next) = self.filled.recv() {
                self.chunk = next?;
            }
        }
        Ok(&self.chunk[self.at..])
    }

    fn consume(&mut self, bytes: usize) {
        self.at += bytes;
    }
}

/// Keeps what is read.
struct Tee<R> {
    source: R,
    blob: Option<Ingest>,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(bytes)?;
        if let Some(blob) = &mut self.blob {
            blob.write_all(&bytes[..length])?;
        }
        Ok(length)
    }
}

fn fill(reader: &mut dyn Read, bytes: &mut [u8]) -> io::Result<usize> {
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
