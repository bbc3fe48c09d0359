//! Content-defined chunks: bytes are cut where they themselves say so, so that an insertion moves no other cut
//! (Xia et al., "FastCDC", USENIX ATC 2016: gear hash, two masks around the average, no cut before a least length).

use std::io::{self, Read};

use engine::layer::Sum;

/// The beginning of a chunk's SHA-256 digest. It only finds chunks; what is made of them is verified by its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ChunkId([u8; 16]);

/// How long chunks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lengths {
    average: usize,
}

/// Cuts what a reader gives.
pub(super) struct Chunker<R> {
    reader: R,
    lengths: Lengths,
    buffer: Vec<u8>,
    at: usize,
    filled: usize,
}

/// A list of chunks as it is sent: each as its length and its id.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct ChunkList(Vec<(u32, ChunkId)>);

/// One number for each byte, the same on both sides for ever.
const GEAR: [u64; 256] = gear();

const fn gear() -> [u64; 256] {
    let mut table = [0; 256];
    let mut state = 0x7472_616e_7366_6572u64;
    let mut at = 0;
    while at < 256 {
        // splitmix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        table[at] = z ^ (z >> 31);
        at += 1;
    }
    table
}

/// A chunk on the wire: four bytes of length, and the id.
const LISTED: usize = 20;

// === impl ChunkId ===

impl ChunkId {
    pub(super) fn of(sum: &Sum) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&sum.as_bytes()[..16]);
        Self(id)
    }
}

// === impl Lengths ===

impl Lengths {
    /// For the columns of a table: a change costs about one chunk, and the list of all is short.
    pub(super) const COLUMN: Self = Self { average: 4 << 10 };

    /// For a file of this size: some thousand chunks at the most until they are long.
    pub(super) fn of_file(size: u64) -> Self {
        let average = usize::try_from(size / 4096).unwrap_or(usize::MAX).next_power_of_two();
        Self { average: average.clamp(4 << 10, 64 << 10) }
    }

    fn least(self) -> usize {
        self.average / 4
    }

    pub(super) fn most(self) -> usize {
        self.average * 4
    }

    /// Where these bytes, which are all there are or as many as a chunk may have, are cut.
    fn cut(self, bytes: &[u8]) -> usize {
        let bits = self.average.trailing_zeros();
        // The high bits of the gear hash know the most bytes.
        let (hard, easy) = (!0u64 << (64 - (bits + 2)), !0u64 << (64 - (bits - 2)));
        let end = bytes.len().min(self.most());
        let mut hash = 0u64;
        for (at, byte) in bytes.iter().enumerate().take(end).skip(self.least()) {
            hash = (hash << 1).wrapping_add(GEAR[usize::from(*byte)]);
            let mask = if at < self.average { hard } else { easy };
            if hash & mask == 0 {
                return at + 1;
            }
        }
        end
    }
}

// === impl Chunker ===

impl<R: Read> Chunker<R> {
    pub(super) fn new(reader: R, lengths: Lengths) -> Self {
        Self { reader, lengths, buffer: vec![0; lengths.most() * 4], at: 0, filled: 0 }
    }

    /// The next chunk; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        if self.filled - self.at < self.lengths.most() {
            self.buffer.copy_within(self.at..self.filled, 0);
            self.filled -= self.at;
            self.at = 0;
            while self.filled < self.buffer.len() {
                match self.reader.read(&mut self.buffer[self.filled..]) {
                    Ok(0) => break,
                    Ok(length) => self.filled += length,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
        let rest = &self.buffer[self.at..self.filled];
        if rest.is_empty() {
            return Ok(None);
        }
        let length = self.lengths.cut(rest);
        self.at += length;
        Ok(Some(&rest[..length]))
    }
}

// === impl ChunkList ===

impl ChunkList {
    /// The chunks of all that a reader gives.
    pub(super) fn of(reader: impl Read, lengths: Lengths) -> io::Result<Self> {
        let mut chunker = Chunker::new(reader, lengths);
        let mut list = Vec::new();
        while let Some(chunk) = chunker.next()? {
            list.push((u32::try_from(chunk.len()).unwrap_or(u32::MAX), ChunkId::of(&Sum::of(chunk))));
        }
        Ok(Self(list))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, ChunkId)> + '_ {
        self.0.iter().map(|(length, id)| (usize::try_from(*length).unwrap_or(usize::MAX), *id))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// How many bytes all chunks have.
    pub(super) fn total(&self) -> u64 {
        self.0.iter().map(|(length, _)| u64::from(*length)).sum()
    }

    /// Writes the list down.
    pub(super) fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&u32::try_from(self.0.len()).unwrap_or(u32::MAX).to_le_bytes());
        for (length, id) in &self.0 {
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&id.0);
        }
    }

    /// Reads a list off the front of these bytes; `None` when it is cut off or a chunk is too long.
    pub(super) fn read(bytes: &mut &[u8], lengths: Lengths) -> Option<Self> {
        let (count, rest) = bytes.split_first_chunk::<4>()?;
        let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
        let (listed, rest) = rest.split_at_checked(count.checked_mul(LISTED)?)?;
        *bytes = rest;
        let mut list = Vec::with_capacity(count);
        for chunk in listed.chunks_exact(LISTED) {
            let length = u32::from_le_bytes(*chunk.first_chunk::<4>()?);
            let id = ChunkId(*chunk.last_chunk::<16>()?);
            if usize::try_from(length).ok()? > lengths.most() || length == 0 {
                return None;
            }
            list.push((length, id));
        }
        Some(Self(list))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1u64;
        let next = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..length).map(next).collect()
    }

    fn list(bytes: &[u8]) -> ChunkList {
        ChunkList::of(bytes, Lengths::COLUMN).unwrap()
    }

    #[test]
    fn chunks_are_the_bytes_and_of_the_length_they_should_be() {
        let bytes = noise(1 << 20);
        let mut chunker = Chunker::new(&bytes[..], Lengths::COLUMN);
        let mut joined = Vec::new();
        while let Some(chunk) = chunker.next().unwrap() {
            assert!(chunk.len() <= Lengths::COLUMN.most());
            joined.extend_from_slice(chunk);
        }
        assert!(joined == bytes);
        let average = bytes.len() / list(&bytes).len();
        assert!((3000..7000).contains(&average), "{average}");
        assert_eq!(list(b"").len(), 0);
        assert_eq!(list(&[0; 100_000]).total(), 100_000);
    }

    #[test]
    fn an_insertion_changes_few_chunks() {
        let old = noise(1 << 20);
        let new = [&old[..500_000], b"inserted", &old[500_000..]].concat();
        let known: std::collections::HashSet<_> = list(&old).iter().map(|(_, id)| id).collect();
        let changed = list(&new).iter().filter(|(_, id)| !known.contains(id)).count();
        assert!((1..=3).contains(&changed), "{changed}");
    }

    #[test]
    fn a_list_is_read_as_it_was_written_or_not_at_all() {
        let list = list(&noise(100_000));
        let mut bytes = Vec::new();
        list.write(&mut bytes);
        assert_eq!(ChunkList::read(&mut &bytes[..], Lengths::COLUMN).unwrap(), list);
        for length in 0..bytes.len() {
            assert!(ChunkList::read(&mut &bytes[..length], Lengths::COLUMN).is_none());
        }
        let endless = [0xff; 64];
        assert!(ChunkList::read(&mut &endless[..], Lengths::COLUMN).is_none());
    }
}
