//! A layer's tar without the contents of its files: what is left is small, and with the contents it makes the same
//! tar again, byte for byte.
//!
//! Three columns, so that a change to one leaves the others as they are: the shape (headers, extensions, padding,
//! lengths), the times, and the digests of the contents. In the shape, runs of zeros are lengths and a header's
//! checksum is left out where it can be computed again.

use std::io;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

mod entries;
mod recorder;

pub use entries::Entry;
pub(crate) use recorder::{Columns, record};

/// A layer's tar without the contents of its files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    shape: Vec<u8>,
    times: Vec<u8>,
    sums: Vec<u8>,
}

/// The SHA-256 digest of a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sum([u8; SUM]);

/// Why a table is none.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// It ends in the middle.
    #[error("the table of the layer's tar ends in the middle")]
    Truncated,
    /// Its parts make no sense together.
    #[error("the table of the layer's tar is damaged: {0}")]
    Damaged(&'static str),
    /// It is of a later version.
    #[error("the table of the layer's tar has the version {0}, which is not known here")]
    Version(u8),
    /// There are more members in the tar than any layer needs.
    #[error("the layer has more members than can be listed")]
    TooLarge,
    /// The tar in it makes no sense.
    #[error("the table is not one of a layer's tar")]
    Tar(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It could not be decompressed.
    #[error("decompress the table of the layer's tar")]
    Compression(#[source] io::Error),
}

/// Reads a table from front to back.
pub(crate) struct Cursor<'a> {
    shape: &'a [u8],
    times: &'a [u8],
    sums: &'a [u8],
}

/// A part of the tar.
pub(crate) enum Piece {
    /// Bytes, as they are in the buffer.
    Raw,
    /// A file's content.
    Content(u64, Sum),
}

const SUM: usize = 32;
const VERSION: u8 = 1;

/// Where a header has its time and its checksum (ustar and GNU tar alike).
const TIME: std::ops::Range<usize> = 136..148;
const CHECKSUM: std::ops::Range<usize> = 148..156;
const BLOCK: usize = 512;

/// A header without both.
const BARE: usize = BLOCK - 20;

/// The most bytes that one operation of the shape stands for.
const LONGEST_RAW: usize = 128 << 10;

/// The longest column: two million members.
const LONGEST_COLUMN: usize = 256 << 20;

/// The longest tar that a table is believed to be of.
const LARGEST_TAR: u64 = 1 << 40;

/// Operations of the shape. A header is one of its forms: how its checksum is written.
const RAW: u8 = b'r';
const CONTENT: u8 = b'c';
const FORMS: [u8; 2] = [b'h', b'H'];

// === impl Sum ===

impl Sum {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from(Sha256::new_with_prefix(bytes))
    }

    /// The digest with these bytes.
    pub fn from_bytes(bytes: [u8; SUM]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; SUM] {
        &self.0
    }
}

impl From<Sum> for String {
    fn from(sum: Sum) -> Self {
        crate::id::hex(&sum.0)
    }
}

impl TryFrom<String> for Sum {
    type Error = TableError;

    fn try_from(text: String) -> Result<Self, TableError> {
        let wrong = || TableError::Damaged("a digest is not 64 hexadecimal digits");
        let mut bytes = [0; SUM];
        if text.len() != 2 * SUM || !text.is_ascii() {
            return Err(wrong());
        }
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

impl From<Sha256> for Sum {
    fn from(hash: Sha256) -> Self {
        Self(hash.finalize().into())
    }
}

// === impl Table ===

impl Table {
    /// A table of three columns that were taken apart.
    ///
    /// # Errors
    /// When they make no table.
    pub fn of_columns([shape, times, sums]: [Vec<u8>; 3]) -> Result<Self, TableError> {
        let table = Self { shape, times, sums };
        if table.columns().iter().any(|column| column.len() > LONGEST_COLUMN) {
            return Err(TableError::TooLarge);
        }
        let mut cursor = table.cursor();
        let mut raw = Vec::new();
        let mut total = 0u64;
        while let Some(piece) = cursor.next(&mut raw)? {
            let content = if let Piece::Content(size, _) = piece { size } else { 0 };
            total = total.saturating_add(content).saturating_add(raw.len() as u64);
            raw.clear();
        }
        if total > LARGEST_TAR {
            return Err(TableError::TooLarge);
        }
        if cursor.times.is_empty() && cursor.sums.is_empty() {
            Ok(table)
        } else {
            Err(TableError::Damaged("its columns are not of one tar"))
        }
    }

    /// The columns: what changes of one kind change only one of.
    pub fn columns(&self) -> [&[u8]; 3] {
        [&self.shape, &self.times, &self.sums]
    }

    /// The digests of all contents, in the order of the tar.
    pub fn sums(&self) -> impl Iterator<Item = Sum> + '_ {
        self.sums.as_chunks::<SUM>().0.iter().map(|bytes| Sum(*bytes))
    }

    /// The table in one piece, compressed.
    ///
    /// # Errors
    /// When there is no memory to compress it.
    pub fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![VERSION];
        for column in self.columns() {
            bytes.extend_from_slice(&(column.len() as u64).to_le_bytes());
            let packed = zstd::bulk::compress(column, 1)?;
            bytes.extend_from_slice(&(packed.len() as u64).to_le_bytes());
            bytes.extend_from_slice(&packed);
        }
        Ok(bytes)
    }

    /// Reads what [`Table::to_bytes`] has made.
    ///
    /// # Errors
    /// When it is cut off, damaged or of a later version.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TableError> {
        let (version, mut rest) = bytes.split_first().ok_or(TableError::Truncated)?;
        if *version != VERSION {
            return Err(TableError::Version(*version));
        }
        let mut column = || {
            let mut number = || {
                let (number, after) = rest.split_first_chunk::<8>().ok_or(TableError::Truncated)?;
                rest = after;
                usize::try_from(u64::from_le_bytes(*number)).map_err(|_| TableError::TooLarge)
            };
            let (length, packed) = (number()?, number()?);
            if length > LONGEST_COLUMN {
                return Err(TableError::TooLarge);
            }
            let (packed, after) = rest.split_at_checked(packed).ok_or(TableError::Truncated)?;
            rest = after;
            zstd::bulk::decompress(packed, length).map_err(TableError::Compression)
        };
        let columns = [column()?, column()?, column()?];
        Self::of_columns(columns)
    }

    pub(crate) fn cursor(&self) -> Cursor<'_> {
        Cursor { shape: &self.shape, times: &self.times, sums: &self.sums }
    }
}

// === impl Cursor ===

impl Cursor<'_> {
    /// The next part; raw bytes are added to the buffer.
    pub(crate) fn next(&mut self, raw: &mut Vec<u8>) -> Result<Option<Piece>, TableError> {
        let Some((operation, rest)) = self.shape.split_first() else { return Ok(None) };
        self.shape = rest;
        match *operation {
            RAW => {
                let length = self.number()?;
                let length = usize::try_from(length).ok().filter(|length| *length <= LONGEST_RAW);
                self.runs(length.ok_or(TableError::Damaged("a part is too long"))?, raw)?;
                Ok(Some(Piece::Raw))
            }
            CONTENT => {
                let size = self.number()?;
                let (sum, rest) = self.sums.split_first_chunk::<SUM>().ok_or(TableError::Truncated)?;
                self.sums = rest;
                Ok(Some(Piece::Content(size, Sum(*sum))))
            }
            form if FORMS.contains(&form) => {
                self.header(form, raw)?;
                Ok(Some(Piece::Raw))
            }
            _ => Err(TableError::Damaged("a part is of no known kind")),
        }
    }

    fn header(&mut self, form: u8, raw: &mut Vec<u8>) -> Result<(), TableError> {
        let start = raw.len();
        self.runs(BARE, raw)?;
        let (time, rest) = self.times.split_at_checked(TIME.len()).ok_or(TableError::Truncated)?;
        self.times = rest;
        let tail = raw.split_off(start + TIME.start);
        raw.extend_from_slice(time);
        raw.extend_from_slice(&[b' '; CHECKSUM.end - CHECKSUM.start]);
        raw.extend_from_slice(&tail);
        let checksum = checksum(&raw[start..], form);
        raw[start + CHECKSUM.start..start + CHECKSUM.end].copy_from_slice(&checksum);
        Ok(())
    }

    /// Alternating lengths of bytes and of zeros, up to this many.
    fn runs(&mut self, length: usize, raw: &mut Vec<u8>) -> Result<(), TableError> {
        let end = raw.len() + length;
        loop {
            let literal = usize::try_from(self.number()?).unwrap_or(usize::MAX);
            let (bytes, rest) = self.shape.split_at_checked(literal).ok_or(TableError::Truncated)?;
            self.shape = rest;
            raw.extend_from_slice(bytes);
            if raw.len() >= end {
                break;
            }
            let zeros = usize::try_from(self.number()?).unwrap_or(usize::MAX);
            if zeros == 0 || zeros > end - raw.len() {
                return Err(TableError::Damaged("a part has another length than it says"));
            }
            raw.resize(raw.len() + zeros, 0);
            if raw.len() == end {
                break;
            }
        }
        if raw.len() == end { Ok(()) } else { Err(TableError::Damaged("a part is longer than it says")) }
    }

    /// A number in base 128, lowest digits first (LEB128).
    fn number(&mut self) -> Result<u64, TableError> {
        let mut number = 0u64;
        for shift in (0..63).step_by(7) {
            let (byte, rest) = self.shape.split_first().ok_or(TableError::Truncated)?;
            self.shape = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(TableError::Damaged("a number is too large"))
    }
}

/// A header's checksum, which counts its own field as blanks, in one of the two ways it is written.
fn checksum(header: &[u8], form: u8) -> [u8; CHECKSUM.end - CHECKSUM.start] {
    let sum = header.iter().map(|byte| u32::from(*byte)).sum::<u32>()
        - header[CHECKSUM].iter().map(|byte| u32::from(*byte)).sum::<u32>()
        + 8 * u32::from(b' ');
    let text = if form == FORMS[0] { format!("{sum:06o}\0 ") } else { format!("{sum:07o}\0") };
    let mut field = [0; CHECKSUM.end - CHECKSUM.start];
    // A block's sum has six digits at the most.
    field.copy_from_slice(&text.as_bytes()[..8]);
    field
}

#[cfg(test)]
mod tests;
