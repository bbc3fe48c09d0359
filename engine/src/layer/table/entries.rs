//! What a table says of the files in its tar.

use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead, Read};

use tar::EntryType;

use crate::layer::members::{Member, Members};
use crate::layer::table::{Cursor, Piece, Sum, Table, TableError};
use crate::layer::unpack::{WHITEOUT_PREFIX, clean, split};

/// A file with a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path in the layer, relative and clean.
    pub path: Vec<u8>,
    /// How long its content is in the tar.
    pub size: u64,
    /// The digest of that.
    pub sum: Sum,
    /// Whether the unpacked layer has just this content under just this path: not so for sparse files, and not for
    /// what a later member of the same tar replaces.
    pub is_plain: bool,
    /// Whether it has extended attributes.
    pub has_attributes: bool,
}

/// The tar with zeros for contents.
struct Blank<'a> {
    cursor: Cursor<'a>,
    raw: Vec<u8>,
    at: usize,
    zeros: u64,
    /// The content whose zeros have not begun to be read.
    content: Option<(u64, Sum)>,
}

const ZEROS: &[u8] = &[0; 64 << 10];

// === impl Table ===

impl Table {
    /// The files with a content, in the order of the tar: one for each digest in the third column.
    ///
    /// # Errors
    /// When the table is not one of a layer's tar.
    pub fn entries(&self) -> Result<Vec<Entry>, TableError> {
        let blank = Blank { cursor: self.cursor(), raw: Vec::new(), at: 0, zeros: 0, content: None };
        let mut members = Members::new(blank);
        let mut entries = Vec::new();
        let mut times_seen: HashMap<Vec<u8>, u32> = HashMap::new();
        let mut not_directories: HashSet<Vec<u8>> = HashSet::new();
        while let Some(member) = members.next().map_err(|error| TableError::Tar(error.into()))? {
            let path = clean(&member.path).map_err(|error| TableError::Tar(error.into()))?;
            *times_seen.entry(path.clone()).or_default() += 1;
            if member.kind != EntryType::Directory {
                not_directories.insert(path.clone());
            }
            if member.size > 0 {
                let content = members.get_mut().begin()?.filter(|(size, _)| *size == member.size);
                let (size, sum) = content.ok_or(TableError::Damaged("a content is not a member's"))?;
                let (is_plain, has_attributes) = (is_plain(&member, &path), !member.xattrs.is_empty());
                entries.push(Entry { path, size, sum, is_plain, has_attributes });
            }
        }
        members.drain().map_err(|error| TableError::Tar(error.into()))?;
        if entries.len() * size_of::<Sum>() != self.columns()[2].len() {
            return Err(TableError::Damaged("there are more contents than members"));
        }
        for entry in &mut entries {
            let mut parent = split(&entry.path).0;
            let mut is_replaced = times_seen.get(&entry.path).is_none_or(|times| *times > 1);
            while !parent.is_empty() && !is_replaced {
                is_replaced = not_directories.contains(parent);
                parent = split(parent).0;
            }
            entry.is_plain &= !is_replaced;
        }
        Ok(entries)
    }
}

fn is_plain(member: &Member, path: &[u8]) -> bool {
    let is_file = matches!(member.kind, EntryType::Regular | EntryType::Continuous);
    is_file && member.sparse.is_none() && !path.is_empty() && !split(path).1.starts_with(WHITEOUT_PREFIX)
}

// === impl Blank ===

impl Blank<'_> {
    /// The content that begins here, if one does.
    fn begin(&mut self) -> Result<Option<(u64, Sum)>, TableError> {
        if self.at == self.raw.len() && self.zeros == 0 && self.content.is_none() {
            self.advance()?;
        }
        Ok(self.content.filter(|_| self.at == self.raw.len()))
    }

    fn advance(&mut self) -> Result<bool, TableError> {
        self.raw.clear();
        self.at = 0;
        match self.cursor.next(&mut self.raw)? {
            None => Ok(false),
            Some(Piece::Raw) => Ok(true),
            Some(Piece::Content(size, sum)) => {
                self.content = Some((size, sum));
                Ok(true)
            }
        }
    }
}

impl Read for Blank<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let here = self.fill_buf()?;
        let length = here.len().min(bytes.len());
        bytes[..length].copy_from_slice(&here[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Blank<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.raw.len() && self.zeros == 0 {
            if let Some((size, _)) = self.content.take() {
                self.zeros = size;
            } else if !self.advance().map_err(io::Error::other)? {
                break;
            }
        }
        if self.at < self.raw.len() {
            return Ok(&self.raw[self.at..]);
        }
        let length = usize::try_from(self.zeros).unwrap_or(usize::MAX).min(ZEROS.len());
        Ok(&ZEROS[..length])
    }

    fn consume(&mut self, length: usize) {
        if self.at < self.raw.len() {
            self.at += length;
        } else {
            self.zeros -= length as u64;
        }
    }
}
