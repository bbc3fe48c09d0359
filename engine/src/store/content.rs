//! Blobs by digest, as an OCI image layout (image-spec, image-layout.md): ingest, verify, read, delete.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::id::{Digest, Hash};
use crate::paths::Root;
use crate::store::scratch::Scratch;

/// The blobs of one root.
#[derive(Debug, Clone)]
pub struct Content {
    root: Root,
}

/// A blob being written. It gets its name by [`Ingest::commit`]; dropped before that, it is gone.
#[derive(Debug)]
pub struct Ingest {
    content: Content,
    scratch: Scratch,
    hash: Hash,
    size: u64,
}

/// Why a blob could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// What arrived is not what was announced.
    #[error("the content has the digest {found}, not {expected}")]
    WrongDigest {
        /// Announced.
        expected: Digest,
        /// Arrived.
        found: Digest,
    },
    /// More or less arrived than was announced.
    #[error("the content {digest} has {found} bytes, not {expected}")]
    WrongSize {
        /// The blob.
        digest: Digest,
        /// Announced.
        expected: u64,
        /// Arrived.
        found: u64,
    },
    /// A blob that is read whole is larger than such blobs may be.
    #[error("the content {digest} is larger than {limit} bytes")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// The most that is read.
        limit: u64,
    },
    /// The system refused a step.
    #[error("{step} the content {object}")]
    Io {
        /// What was done.
        step: &'static str,
        /// To which blob.
        object: String,
        /// Why not.
        source: io::Error,
    },
}

// === impl Content ===

impl Content {
    /// The blobs of this root.
    pub fn at(root: &Root) -> Self {
        Self { root: root.clone() }
    }

    /// Where a blob is, or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.root.content().join(digest.in_layout())
    }

    /// The blob's size, if it is here.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        fs::metadata(self.path(digest)).ok().map(|metadata| metadata.len())
    }

    /// Starts a blob.
    pub fn ingest(&self) -> Result<Ingest, ContentError> {
        self.ingest_as(None)
    }

    /// Starts a blob that is to have this digest.
    pub fn ingest_as(&self, digest: Option<&Digest>) -> Result<Ingest, ContentError> {
        let fail = failure("make room for", &"a new blob");
        let hash = Hash::like(digest);
        crate::store::private_directory(&self.blobs(&hash)).map_err(&fail)?;
        let layout = self.root.content().join("oci-layout");
        if !layout.exists() {
            crate::store::write_atomic(
                &layout,
                br#"{"imageLayoutVersion":"1.0.0"}"#,
                0o600,
                crate::store::Durability::Rename,
            )
            .map_err(&fail)?;
        }
        let scratch = Scratch::file(&self.root).map_err(&fail)?;
        Ok(Ingest { content: self.clone(), scratch, hash, size: 0 })
    }

    /// Keeps these bytes.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, ContentError> {
        let mut ingest = self.ingest()?;
        ingest.write_all(bytes).map_err(failure("write", &"a small blob"))?;
        Ok(ingest.commit(None, None)?.0)
    }

    /// Keeps these bytes under this digest of theirs.
    pub fn put_as(&self, bytes: &[u8], digest: &Digest) -> Result<(), ContentError> {
        let mut ingest = self.ingest_as(Some(digest))?;
        ingest.write_all(bytes).map_err(failure("write", &"a small blob"))?;
        ingest.commit(Some(digest), None).map(drop)
    }

    /// Reads a small blob whole and verifies it.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, ContentError> {
        let mut bytes = Vec::new();
        self.open(digest)?.take(limit + 1).read_to_end(&mut bytes).map_err(failure("read", digest))?;
        if bytes.len() as u64 > limit {
            return Err(ContentError::TooLarge { digest: digest.clone(), limit });
        }
        if digest.is_of(&bytes) {
            Ok(bytes)
        } else {
            Err(ContentError::WrongDigest { expected: digest.clone(), found: Digest::of(&bytes) })
        }
    }

    /// Opens a blob for reading.
    pub fn open(&self, digest: &Digest) -> Result<File, ContentError> {
        File::open(self.path(digest)).map_err(failure("open", digest))
    }

    /// Deletes a blob and returns the bytes won; one that is not here is fine.
    pub fn delete(&self, digest: &Digest) -> Result<u64, ContentError> {
        let size = self.size(digest).unwrap_or(0);
        crate::store::remove_file(&self.path(digest)).map_err(failure("delete", digest))?;
        Ok(size)
    }

    /// The digests of all blobs.
    pub fn list(&self) -> Result<Vec<Digest>, ContentError> {
        let fail = failure("list", &"store");
        let mut digests = Vec::new();
        for algorithm in ["sha256", "sha512"] {
            let entries = match fs::read_dir(self.root.content().join("blobs").join(algorithm)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(&fail)?,
            };
            digests.extend(entries.filter_map(|entry| {
                format!("{algorithm}:{}", entry.ok()?.file_name().to_str()?).parse().ok()
            }));
        }
        Ok(digests)
    }

    fn blobs(&self, hash: &Hash) -> PathBuf {
        let algorithm = if matches!(hash, Hash::Sha256(_)) { "sha256" } else { "sha512" };
        self.root.content().join("blobs").join(algorithm)
    }
}

// === impl Ingest ===

impl Ingest {
    /// How many bytes have been written.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Verifies the blob against what was announced and gives it its name.
    ///
    /// Whatever had that name is replaced: a blob that no image vouches for may have lost its bytes in a power
    /// cut.
    pub fn commit(self, digest: Option<&Digest>, size: Option<u64>) -> Result<(Digest, u64), ContentError> {
        let found = self.hash.finish();
        if let Some(expected) = digest.filter(|expected| **expected != found) {
            return Err(ContentError::WrongDigest { expected: expected.clone(), found });
        }
        if let Some(expected) = size.filter(|expected| *expected != self.size) {
            return Err(ContentError::WrongSize { digest: found, expected, found: self.size });
        }
        let readable = fs::Permissions::from_mode(0o400);
        self.scratch.handle().set_permissions(readable).map_err(failure("seal", &found))?;
        self.scratch.publish(&self.content.path(&found)).map_err(failure("publish", &found))?;
        Ok((found, self.size))
    }
}

impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.scratch.handle().write_all(bytes)?;
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn failure(step: &'static str, object: &dyn ToString) -> impl Fn(io::Error) -> ContentError + use<> {
    let object = object.to_string();
    move |source| ContentError::Io { step, object: object.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content() -> (tempfile::TempDir, Content) {
        let directory = tempfile::tempdir().unwrap();
        let content = Content::at(&Root::at(directory.path()));
        (directory, content)
    }

    #[test]
    fn a_blob_is_found_by_its_digest() {
        let (_directory, content) = content();
        let digest = content.put(b"hello").unwrap();
        assert_eq!(digest, Digest::of(b"hello"));
        assert_eq!(content.read(&digest, 100).unwrap(), b"hello");
        assert_eq!(content.list().unwrap(), std::slice::from_ref(&digest));
        assert!(matches!(content.read(&digest, 3), Err(ContentError::TooLarge { .. })));
        assert_eq!(content.delete(&digest).unwrap(), 5);
        assert_eq!(content.delete(&digest).unwrap(), 0);
    }

    #[test]
    fn a_blob_that_is_not_what_was_announced_never_gets_a_name() {
        let (_directory, content) = content();
        let mut ingest = content.ingest().unwrap();
        ingest.write_all(b"hello").unwrap();
        let error = ingest.commit(Some(&Digest::of(b"other")), None).unwrap_err();
        assert!(matches!(error, ContentError::WrongDigest { .. }));
        let mut ingest = content.ingest().unwrap();
        ingest.write_all(b"hello").unwrap();
        assert!(matches!(ingest.commit(None, Some(4)).unwrap_err(), ContentError::WrongSize { .. }));
        assert!(content.list().unwrap().is_empty());
        assert_eq!(fs::read_dir(content.root.scratch()).unwrap().count(), 0);
    }

    #[test]
    fn a_blob_that_lost_its_bytes_is_noticed() {
        let (_directory, content) = content();
        let digest = content.put(b"hello").unwrap();
        fs::write(content.path(&digest), b"").unwrap();
        assert!(matches!(content.read(&digest, 100), Err(ContentError::WrongDigest { .. })));
        content.put(b"hello").unwrap();
        assert_eq!(content.read(&digest, 100).unwrap(), b"hello");
    }
}
