//! Layers: each unpacked once into a directory of its own, named by the digest of its uncompressed tar.
//!
//! A layer directory appears whole, by rename, or not at all. It is never changed afterwards. What is in `fs`
//! is what overlayfs wants of a lower directory: whiteouts are 0:0 character devices, opaque directories carry
//! `trusted.overlay.opaque`.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use crate::id::{DiffId, Digest};
use crate::paths::Root;

/// The layers of one root.
#[derive(Debug, Clone)]
pub struct Layers {
    root: Root,
}

/// Why a layer could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {}

/// Keeps layers that no image names yet from being collected. Take one before the first layer of a build, a pull
/// or a load, and drop it after the image is committed.
#[derive(Debug)]
pub struct Hold(#[expect(dead_code, reason = "held for its drop")] crate::store::Lock);

impl From<LayerError> for crate::Error {
    fn from(error: LayerError) -> Self {
        crate::Error::failed("layer", error)
    }
}

// === impl Layers ===

impl Layers {
    /// The layers of this root.
    pub fn at(root: &Root) -> Self {
        Self { root: root.clone() }
    }

    /// Keeps layers that no image names yet from being collected while the value lives.
    pub fn hold(&self) -> Result<Hold, LayerError> {
        todo!()
    }

    /// Whether the layer is here, whole.
    pub fn contains(&self, diff: &DiffId) -> bool {
        let _ = diff;
        todo!()
    }

    /// The directory overlayfs takes as a lower directory.
    pub fn dir(&self, diff: &DiffId) -> PathBuf {
        self.root.layer(diff).join("fs")
    }

    /// The sum of the layer's file sizes.
    pub fn size(&self, diff: &DiffId) -> Result<u64, LayerError> {
        let _ = diff;
        todo!()
    }

    /// Unpacks a tar, plain or compressed with gzip or zstd, in one pass.
    pub fn unpack(&self, reader: impl Read + Send) -> Result<DiffId, LayerError> {
        let _ = reader;
        todo!()
    }

    /// Takes an overlay upper directory over as it stands: it is renamed into the store and `upper` is gone. It
    /// must be on the root's file system and no longer mounted.
    pub fn adopt(&self, upper: &Path) -> Result<DiffId, LayerError> {
        let _ = upper;
        todo!()
    }

    /// Writes the layer's tar, whose digest is the diff id.
    pub fn pack(&self, diff: &DiffId, writer: &mut dyn Write) -> Result<(), LayerError> {
        let _ = (diff, writer);
        todo!()
    }

    /// Marks a layer as wanted by the build cache, so that removing the images that name it leaves it here.
    pub fn pin(&self, diff: &DiffId) -> Result<(), LayerError> {
        let _ = diff;
        todo!()
    }

    /// Takes the build cache's mark away; the layer goes with the next collection unless an image names it.
    pub fn unpin(&self, diff: &DiffId) -> Result<(), LayerError> {
        let _ = diff;
        todo!()
    }

    /// The diff id of a layer that changes nothing: the digest of an empty tar.
    pub fn empty() -> DiffId {
        Digest::of(&[0; 1024])
    }
}
