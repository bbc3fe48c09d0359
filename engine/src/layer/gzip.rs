//! gzip on all processors. Blocks of a fixed size are compressed each on its own and put one after the other, so the
//! bytes are the same however many threads there are: a registry never gets the same layer twice.
//!
//! One member, one deflate stream: each block but the last ends at a byte (RFC 1951, 3.2.4, as a flush leaves it).

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// Compresses what is written to it.
pub(crate) struct Gzip<W> {
    inner: W,
    block: Vec<u8>,
    crc: Crc,
    jobs: Option<Sender<Job>>,
    /// Results in the order of their blocks.
    pending: VecDeque<Receiver<io::Result<Vec<u8>>>>,
    workers: Vec<JoinHandle<()>>,
}

struct Job {
    block: Vec<u8>,
    is_last: bool,
    result: Sender<io::Result<Vec<u8>>>,
}

/// Large enough that what a block cannot know of the one before costs less than a percent.
const BLOCK: usize = 1 << 20;

/// RFC 1952, 2.3: deflate, no flags, no time, no name, unknown system.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

// === impl Gzip ===

impl<W: Write> Gzip<W> {
    /// A stream into this writer, compressed by so many threads.
    pub(crate) fn new(mut inner: W, threads: usize, level: Option<u32>) -> io::Result<Self> {
        let level = level.map_or_else(Compression::default, Compression::new);
        inner.write_all(&HEADER)?;
        let (jobs, waiting) = channel::<Job>();
        let waiting = Arc::new(Mutex::new(waiting));
        let worker = |_| {
            let waiting = waiting.clone();
            std::thread::spawn(move || {
                loop {
                    let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(Job { block, is_last, result }) = job else { break };
                    // Nobody waits any more when writing failed.
                    let _ = result.send(compress(&block, is_last, level));
                }
            })
        };
        let workers = (0..threads.max(1)).map(worker).collect();
        let block = Vec::with_capacity(BLOCK);
        Ok(Self { inner, block, crc: Crc::new(), jobs: Some(jobs), pending: VecDeque::new(), workers })
    }

    /// Writes what is left and the trailer.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.send(true)?;
        while !self.pending.is_empty() {
            self.take()?;
        }
        self.inner.write_all(&self.crc.sum().to_le_bytes())?;
        // The length modulo 2^32, which is what the counter holds.
        self.inner.write_all(&self.crc.amount().to_le_bytes())?;
        drop(self.jobs.take());
        for worker in self.workers {
            worker.join().map_err(|_| io::Error::other("a thread that compresses has failed"))?;
        }
        Ok(self.inner)
    }

    fn send(&mut self, is_last: bool) -> io::Result<()> {
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        self.crc.update(&block);
        let (result, receiver) = channel();
        let gone = || io::Error::other("the threads that compress have ended");
        self.jobs.as_ref().ok_or_else(gone)?.send(Job { block, is_last, result }).map_err(|_| gone())?;
        self.pending.push_back(receiver);
        // Two blocks for each thread: one at work, one waiting.
        if self.pending.len() > self.workers.len() * 2 {
            self.take()?;
        }
        Ok(())
    }

    fn take(&mut self) -> io::Result<()> {
        let Some(result) = self.pending.pop_front() else { return Ok(()) };
        let bytes = result.recv().map_err(|_| io::Error::other("a thread that compresses has failed"))??;
        self.inner.write_all(&bytes)
    }
}

impl<W: Write> Write for Gzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..length]);
        if self.block.len() == BLOCK {
            self.send(false)?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        // Blocks end where they end; what is written in between is nobody's business.
        Ok(())
    }
}

fn compress(block: &[u8], is_last: bool, level: Compression) -> io::Result<Vec<u8>> {
    let mut deflate = Compress::new(level, false);
    // What cannot be compressed grows by five bytes a stored block.
    let mut out = Vec::with_capacity(block.len() + block.len() / 64 + 1024);
    let flush = if is_last { FlushCompress::Finish } else { FlushCompress::Sync };
    loop {
        let done = usize::try_from(deflate.total_in()).unwrap_or(block.len());
        let status = deflate.compress_vec(&block[done..], &mut out, flush)?;
        let has_room = out.len() < out.capacity();
        let is_all_read = deflate.total_in() == block.len() as u64;
        if status == Status::StreamEnd || (!is_last && is_all_read && has_room) {
            return Ok(out);
        }
        out.reserve(BLOCK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn the_bytes_do_not_depend_on_how_many_threads_there_are() {
        let mut noise = 1u64;
        let mut data = Vec::new();
        for at in 0..3 * BLOCK + 12_345 {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            data.push(if at % 3 == 0 { noise.to_le_bytes()[0] } else { b'a' });
        }
        for length in [0, 1, BLOCK, 2 * BLOCK, data.len()] {
            let packed = |threads| {
                let mut gzip = Gzip::new(Vec::new(), threads, None).unwrap();
                gzip.write_all(&data[..length]).unwrap();
                gzip.finish().unwrap()
            };
            let (one, many) = (packed(1), packed(5));
            assert!(one == many, "{length}");
            let mut unpacked = Vec::new();
            flate2::read::GzDecoder::new(&one[..]).read_to_end(&mut unpacked).unwrap();
            assert!(unpacked == data[..length], "{length}");
        }
    }
}
