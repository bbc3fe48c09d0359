//! Sparse files in a tar, in GNU's old form and in the three that go with PAX (GNU tar manual, "Storing Sparse Files"):
//! of each the tar has pieces, and a map says where they go.

use std::io::{self, BufRead, Read};

use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

use super::{BLOCK, MOST_EXTENSION, MemberError, Members, read_exact};

/// The map of a sparse file: pieces of content, in order, as (offset, length), and the file's size.
#[derive(Debug)]
pub(crate) struct Sparse {
    pub(crate) pieces: Vec<(u64, u64)>,
    pub(crate) size: u64,
}

/// What PAX records say of a sparse file.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Whether the map comes before the content (1.0) and not in the records (0.0 and 0.1).
    is_before_content: bool,
    /// Its name: the member's own is made up, for those who do not know sparse files.
    pub(super) name: Option<Vec<u8>>,
    size: u64,
    pieces: Vec<(u64, u64)>,
    /// The offset of a piece whose length follows.
    offset: u64,
}

/// The content of a member, with zeros where a sparse file has holes.
pub(crate) struct Content<'a, R> {
    members: &'a mut Members<R>,
    /// What is left, the last first: lengths of holes and of pieces.
    left: Vec<(u64, Kind)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Hole,
    Piece,
}

const DAMAGED: MemberError = MemberError::Damaged("a sparse file's map is not made of numbers");

// === impl Sparse ===

impl Sparse {
    /// A map whose pieces are in order, within the file, and as long as what the tar has of it.
    fn of(pieces: Vec<(u64, u64)>, size: u64, stored: u64) -> Result<Self, MemberError> {
        let (mut end, mut total) = (0u64, 0u64);
        for (offset, length) in &pieces {
            let next = offset.checked_add(*length).filter(|next| *offset >= end && *next <= size);
            end = next.ok_or(MemberError::Damaged("a sparse file's pieces overlap"))?;
            total += length;
        }
        if total == stored {
            Ok(Self { pieces, size })
        } else {
            Err(MemberError::Damaged("a sparse file's pieces are not its content"))
        }
    }
}

// === impl Notes ===

impl Notes {
    /// Takes a record whose key begins with `GNU.sparse.`.
    pub(super) fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), MemberError> {
        let number = || number(value);
        match key {
            b"major" => self.is_before_content = number()? > 0,
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = number()?,
            b"offset" => self.offset = number()?,
            b"numbytes" => self.pieces.push((self.offset, number()?)),
            b"map" => {
                let mut numbers = value.split(|byte| *byte == b',').map(self::number);
                while let Some(offset) = numbers.next() {
                    self.pieces.push((offset?, numbers.next().ok_or(DAMAGED)??));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

// === impl Members ===

impl<R: BufRead> Members<R> {
    /// The map of an old GNU sparse file, some of which may follow the header in blocks of its own.
    pub(super) fn gnu_map(&mut self, header: &Header, stored: u64) -> Result<Sparse, MemberError> {
        let damaged = |_: io::Error| DAMAGED;
        let gnu = header.as_gnu().ok_or(MemberError::Damaged("a sparse file has no GNU header"))?;
        let size = gnu.real_size().map_err(damaged)?;
        let mut pieces = Vec::new();
        let mut add = |piece: &GnuSparseHeader| {
            if !piece.is_empty() {
                pieces.push((piece.offset().map_err(damaged)?, piece.length().map_err(damaged)?));
            }
            Ok(())
        };
        gnu.sparse.iter().try_for_each(&mut add)?;
        let mut more = gnu.is_extended();
        let mut blocks = 0;
        while more {
            let mut next = GnuExtSparseHeader::new();
            read_exact(&mut self.reader, next.as_mut_bytes())?;
            next.sparse.iter().try_for_each(&mut add)?;
            more = next.is_extended();
            blocks += 1;
            check_blocks(blocks)?;
        }
        Sparse::of(pieces, size, stored)
    }

    /// The map that PAX records tell of, and how many bytes of what is stored are its own.
    pub(super) fn pax_map(&mut self, mut notes: Notes, stored: u64) -> Result<(Sparse, u64), MemberError> {
        let mut before = 0;
        if notes.is_before_content {
            (notes.pieces, before) = self.map_before_content(stored)?;
        }
        // Readers that do not know the format see an empty piece at the end of a file that ends in a hole.
        Ok((Sparse::of(notes.pieces, notes.size, stored - before)?, before))
    }

    /// A map of lines with a number each: how many pieces there are, then their offsets and lengths, filled up to a block.
    fn map_before_content(&mut self, stored: u64) -> Result<(Vec<(u64, u64)>, u64), MemberError> {
        let (mut numbers, mut wanted) = (Vec::new(), None);
        let (mut digits, mut blocks) = (Vec::new(), 0);
        while wanted.is_none_or(|wanted| numbers.len() < wanted) {
            blocks += 1;
            check_blocks(blocks)?;
            if blocks * BLOCK as u64 > stored {
                return Err(DAMAGED);
            }
            let mut block = [0; BLOCK];
            read_exact(&mut self.reader, &mut block)?;
            for byte in block {
                if byte != b'\n' {
                    digits.push(byte);
                    continue;
                }
                let number = number(&std::mem::take(&mut digits))?;
                match wanted {
                    None => {
                        let count = usize::try_from(number).ok().and_then(|count| count.checked_mul(2));
                        wanted = Some(count.ok_or(DAMAGED)?);
                    }
                    Some(_) => numbers.push(number),
                }
                if wanted.is_some_and(|wanted| numbers.len() == wanted) {
                    break;
                }
            }
        }
        let pieces = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        Ok((pieces, blocks * BLOCK as u64))
    }
}

/// Maps end some time.
fn check_blocks(blocks: u64) -> Result<(), MemberError> {
    if blocks > MOST_EXTENSION / BLOCK as u64 {
        return Err(MemberError::Refused("a sparse file of too many pieces"));
    }
    Ok(())
}

fn number(text: &[u8]) -> Result<u64, MemberError> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(DAMAGED)
}

// === impl Content ===

impl<'a, R: BufRead> Content<'a, R> {
    /// The content of the member that was read last, which has so many bytes in the tar.
    pub(crate) fn of(members: &'a mut Members<R>, sparse: Option<&Sparse>, size: u64) -> Self {
        let mut left = Vec::new();
        match sparse {
            None => left.push((size, Kind::Piece)),
            Some(sparse) => {
                let mut end = 0;
                for (offset, length) in &sparse.pieces {
                    left.extend([(offset - end, Kind::Hole), (*length, Kind::Piece)]);
                    end = offset + length;
                }
                left.push((sparse.size - end, Kind::Hole));
            }
        }
        left.reverse();
        Self { members, left }
    }
}

impl<R: BufRead> Read for Content<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        while self.left.last().is_some_and(|(length, _)| *length == 0) {
            self.left.pop();
        }
        let Some((left, kind)) = self.left.last_mut() else { return Ok(0) };
        let most = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
        let length = match kind {
            Kind::Hole => {
                bytes[..most].fill(0);
                most
            }
            Kind::Piece => {
                let here = self.members.content().map_err(io::Error::other)?;
                let length = here.len().min(most);
                if length == 0 && most > 0 {
                    return Err(io::Error::other(MemberError::Truncated));
                }
                bytes[..length].copy_from_slice(&here[..length]);
                self.members.consume(length);
                length
            }
        };
        *left -= length as u64;
        Ok(length)
    }
}
