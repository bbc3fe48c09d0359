//! Making a table: of a tar that is read, or of one that is being written.

use std::io::{self, BufRead, Read};

use sha2::{Digest as _, Sha256};

use crate::layer::members::{MemberError, Members};
use crate::layer::table::{
    BLOCK, CHECKSUM, CONTENT, FORMS, LONGEST_COLUMN, LONGEST_RAW, RAW, Sum, TIME, Table, TableError, checksum,
};

/// Reads a whole tar into a table.
pub(crate) fn record(reader: impl BufRead) -> Result<Table, TableError> {
    let damaged = |error: MemberError| TableError::Tar(error.into());
    let mut recorder = Recorder { reader, columns: Columns::default(), is_raw: true };
    let mut members = Members::new(&mut recorder);
    while let Some(member) = members.next().map_err(damaged)? {
        if member.size == 0 {
            continue;
        }
        members.get_mut().is_raw = false;
        let mut hash = Sha256::new();
        loop {
            let bytes = members.content().map_err(damaged)?;
            if bytes.is_empty() {
                break;
            }
            hash.update(bytes);
            let length = bytes.len();
            members.consume(length);
        }
        let recorder = members.get_mut();
        recorder.is_raw = true;
        recorder.columns.content(member.size, hash.into());
    }
    members.drain().map_err(damaged)?;
    recorder.columns.finish()
}

/// A table in the making.
#[derive(Default)]
pub(crate) struct Columns {
    table: Table,
    /// Bytes that are no content, not written down yet.
    raw: Vec<u8>,
    /// Where in the tar they begin.
    offset: u64,
}

/// Writes down what is read, but for contents.
struct Recorder<R> {
    reader: R,
    columns: Columns,
    is_raw: bool,
}

/// The shortest run of zeros that is shorter as a number.
const SHORTEST_RUN: usize = 4;

// === impl Columns ===

impl Columns {
    /// Adds bytes that are no content.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        for bytes in bytes.chunks(LONGEST_RAW / 2) {
            self.raw.extend_from_slice(bytes);
            if self.raw.len() > LONGEST_RAW / 2 {
                self.write_raw(true);
            }
        }
    }

    /// Adds a file's content.
    pub(crate) fn content(&mut self, size: u64, sum: Sum) {
        self.write_raw(false);
        self.table.shape.push(CONTENT);
        number(&mut self.table.shape, size);
        self.table.sums.extend_from_slice(sum.as_bytes());
        self.offset += size;
    }

    /// The whole table.
    pub(crate) fn finish(mut self) -> Result<Table, TableError> {
        self.write_raw(false);
        let is_long = |column: &&[u8]| column.len() > LONGEST_COLUMN;
        if self.table.columns().iter().any(is_long) { Err(TableError::TooLarge) } else { Ok(self.table) }
    }

    /// Writes down the raw bytes: headers as such, where they are at the beginning of a block. With more to come,
    /// the last incomplete block waits for it.
    fn write_raw(&mut self, more: bool) {
        let raw = std::mem::take(&mut self.raw);
        let before = usize::try_from(self.offset.next_multiple_of(BLOCK as u64) - self.offset).unwrap_or(0);
        let (head, rest) = raw.split_at(before.min(raw.len()));
        let mut plain = head.to_vec();
        let (blocks, tail) = rest.split_at(rest.len() / BLOCK * BLOCK);
        for block in blocks.chunks_exact(BLOCK) {
            match FORMS.iter().find(|form| checksum(block, **form) == block[CHECKSUM]) {
                None => plain.extend_from_slice(block),
                Some(form) => {
                    self.plain(&mut plain);
                    self.table.shape.push(*form);
                    runs(&mut self.table.shape, &[&block[..TIME.start], &block[CHECKSUM.end..]].concat());
                    self.table.times.extend_from_slice(&block[TIME]);
                }
            }
        }
        if more {
            self.raw = tail.to_vec();
        } else {
            plain.extend_from_slice(tail);
        }
        self.offset += (raw.len() - self.raw.len()) as u64;
        self.plain(&mut plain);
    }

    fn plain(&mut self, bytes: &mut Vec<u8>) {
        if !bytes.is_empty() {
            self.table.shape.push(RAW);
            number(&mut self.table.shape, bytes.len() as u64);
            runs(&mut self.table.shape, bytes);
            bytes.clear();
        }
    }
}

// === impl Recorder ===

impl<R: BufRead> Read for Recorder<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let here = self.reader.fill_buf()?;
        let length = here.len().min(bytes.len());
        bytes[..length].copy_from_slice(&here[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl<R: BufRead> BufRead for Recorder<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, length: usize) {
        if self.is_raw
            // What was filled is given again, without another read.
            && let Ok(bytes) = self.reader.fill_buf()
        {
            self.columns.raw(&bytes[..length.min(bytes.len())]);
        }
        self.reader.consume(length);
    }
}

fn number(column: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        column.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    column.push(number as u8);
}

/// Writes bytes as alternating lengths of bytes and of zeros.
fn runs(column: &mut Vec<u8>, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut literal = 0;
        let mut zeros = 0;
        while literal + zeros < rest.len() {
            if rest[literal + zeros] == 0 {
                zeros += 1;
            } else if zeros >= SHORTEST_RUN {
                break;
            } else {
                literal += zeros + 1;
                zeros = 0;
            }
        }
        number(column, literal as u64);
        column.extend_from_slice(&rest[..literal]);
        rest = &rest[literal..];
        if zeros > 0 {
            number(column, zeros as u64);
            rest = &rest[zeros..];
        }
    }
}
