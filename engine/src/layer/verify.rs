//! Whether an unpacked layer still is what was unpacked: the contents of its files against its tar's digests.

use std::fs::File;
use std::io::{self, BufReader};

use sha2::{Digest as _, Sha256};

use crate::id::{DiffId, Digest};
use crate::layer::digest::DigestSink;
use crate::layer::error::{failure, packing};
use crate::layer::pack::{self, Treatment};
use crate::layer::table::{Entry, Sum, Table, record};
use crate::layer::{CheckedWriter, LayerError, Layers};

// === impl Layers ===

impl Layers {
    /// Reads every file of a layer, and says in words what is not as the layer's digest vouches for; `None` for one that
    /// is sound. Its blob, which is content like any other, must have been found sound before.
    ///
    /// # Errors
    /// When the layer is not here or the disk cannot be read.
    pub fn verify(&self, diff: &DiffId) -> Result<Option<String>, LayerError> {
        let blob = self.blob_reader(diff)?;
        let has_blob = blob.is_some();
        let table = match blob {
            Some(reader) => match record(BufReader::with_capacity(1 << 18, reader)) {
                Ok(table) => Some(table),
                Err(error) => return Ok(Some(format!("its tar cannot be read: {error}"))),
            },
            None => self.kept_table(diff)?,
        };
        let Some(table) = table else {
            return self.differs_from_its_name(diff);
        };
        if let Some(path) = self.first_difference(diff, &table)? {
            return Ok(Some(format!("/{} is not as it was made", String::from_utf8_lossy(&path))));
        }
        if has_blob {
            return Ok(None);
        }
        // Nothing but the digest of all of it vouches for a table.
        let mut whole = CheckedWriter { writer: &mut io::sink(), hash: Sha256::new() };
        if self.pack_from_table(diff, &mut whole)? && Digest::from_sha256(&whole.hash.finalize()) != *diff {
            return Ok(Some("the table of its tar is damaged".to_owned()));
        }
        Ok(None)
    }

    /// A layer without a table is what its files make.
    fn differs_from_its_name(&self, diff: &DiffId) -> Result<Option<String>, LayerError> {
        let fs = File::open(self.dir(diff)).map_err(failure("open", diff.as_str()))?.into();
        let mut sink = DigestSink::default();
        pack::pack_into(&fs, &mut sink, Treatment::Read).map_err(packing(diff.as_str()))?;
        let (found, _) = sink.finish().map_err(failure("digest", diff.as_str()))?;
        Ok((found != *diff).then(|| format!("its files make a layer with the digest {found}")))
    }

    /// The path of the first file that has another content than the tar.
    fn first_difference(&self, diff: &DiffId, table: &Table) -> Result<Option<Vec<u8>>, LayerError> {
        let files = self.files(diff)?;
        let is_same = |entry: &Entry| match files.open(&entry.path).and_then(sum_of) {
            Ok(sum) => Ok(sum == entry.sum),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(false)
            }
            Err(error) => Err(failure("read", diff.as_str())(error)),
        };
        for entry in table.entries()?.into_iter().filter(|entry| entry.is_plain) {
            if !is_same(&entry)? {
                return Ok(Some(entry.path));
            }
        }
        Ok(None)
    }
}

fn sum_of(mut file: File) -> io::Result<Sum> {
    let mut sink = io::sink();
    let mut whole = CheckedWriter { writer: &mut sink, hash: Sha256::new() };
    io::copy(&mut file, &mut whole)?;
    Ok(whole.hash.into())
}
