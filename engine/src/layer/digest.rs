//! What is learnt of a layer while its tar is made and not written anywhere: its diff id, and its table.

use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use sha2::{Digest as _, Sha256};

use crate::id::{DiffId, Digest};
use crate::layer::pack::Sink;
use crate::layer::table::{Columns, Sum, Table, TableError};

/// Makes a tar's table.
#[derive(Default)]
pub(crate) struct TableSink {
    columns: Columns,
    content: Content,
}

/// The digest of a content.
enum Content {
    Read(Sha256),
    Known(Sum),
}

/// Makes a tar's table and digests the tar: the contents on this thread, the whole on another one, since both take as
/// long.
#[derive(Default)]
pub(crate) struct DigestSink {
    table: TableSink,
    chunk: Vec<u8>,
    whole: Whole,
}

/// The digest of the whole.
enum Whole {
    /// So far it is not worth a thread.
    Here(Sha256),
    There {
        filled: SyncSender<Vec<u8>>,
        emptied: Receiver<Vec<u8>>,
        thread: JoinHandle<Sha256>,
    },
}

const CHUNK: usize = 256 << 10;

/// How far the files may be read ahead of the digest.
const CHUNKS_AHEAD: usize = 8;

// === impl TableSink ===

impl TableSink {
    pub(crate) fn finish(self) -> Result<Table, TableError> {
        self.columns.finish()
    }
}

impl Sink for TableSink {
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.columns.raw(bytes);
        Ok(())
    }

    fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Content::Read(hash) = &mut self.content {
            hash.update(bytes);
        }
        Ok(())
    }

    fn end_content(&mut self, size: u64) {
        let sum = match std::mem::take(&mut self.content) {
            Content::Read(hash) => hash.into(),
            Content::Known(sum) => sum,
        };
        self.columns.content(size, sum);
    }

    fn known_content(&mut self, sum: Sum) {
        self.content = Content::Known(sum);
    }
}

// === impl DigestSink ===

impl DigestSink {
    /// The diff id, and the table where the tar has one.
    pub(crate) fn finish(mut self) -> io::Result<(DiffId, Option<Table>)> {
        let last = std::mem::take(&mut self.chunk);
        let hash = match self.whole {
            Whole::Here(mut hash) => {
                hash.update(&last);
                hash
            }
            Whole::There { filled, emptied: _, thread } => {
                let gone = || io::Error::other("the thread that digests the layer has ended");
                filled.send(last).map_err(|_| gone())?;
                drop(filled);
                thread.join().map_err(|_| gone())?
            }
        };
        Ok((Digest::from_sha256(&hash.finalize()), self.table.finish().ok()))
    }

    fn whole(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK - self.chunk.len()));
            self.chunk.extend_from_slice(now);
            bytes = later;
            if self.chunk.len() == CHUNK {
                self.chunk = self.whole.hand_over(std::mem::take(&mut self.chunk))?;
            }
        }
        Ok(())
    }
}

impl Sink for DigestSink {
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.table.raw(bytes)?;
        self.whole(bytes)
    }

    fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.whole(bytes)?;
        self.table.content(bytes)
    }

    fn end_content(&mut self, size: u64) {
        self.table.end_content(size);
    }

    fn known_content(&mut self, sum: Sum) {
        self.table.known_content(sum);
    }
}

// === impl Whole ===

impl Whole {
    /// Digests a chunk and gives back an empty one.
    fn hand_over(&mut self, chunk: Vec<u8>) -> io::Result<Vec<u8>> {
        if let Self::Here(hash) = self {
            let (filled, to_digest) = sync_channel::<Vec<u8>>(CHUNKS_AHEAD);
            let (done, emptied): (Sender<Vec<u8>>, _) = channel();
            let mut hash = std::mem::take(hash);
            let thread = std::thread::spawn(move || {
                for mut chunk in to_digest {
                    hash.update(&chunk);
                    chunk.clear();
                    // Towards the end nobody takes them any more.
                    let _ = done.send(chunk);
                }
                hash
            });
            *self = Self::There { filled, emptied, thread };
        }
        match self {
            Self::Here(_) => Ok(chunk),
            Self::There { filled, emptied, .. } => {
                let gone = |_| io::Error::other("the thread that digests the layer has ended");
                filled.send(chunk).map_err(gone)?;
                Ok(emptied.try_recv().unwrap_or_else(|_| Vec::with_capacity(CHUNK)))
            }
        }
    }
}

impl Default for Content {
    fn default() -> Self {
        Self::Read(Sha256::new())
    }
}

impl Default for Whole {
    fn default() -> Self {
        Self::Here(Sha256::new())
    }
}
