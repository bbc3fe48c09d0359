//! A layer's tar packed into a blob: always to the same bytes, so that a registry never gets it twice.

use std::io::Write;

use crate::id::DiffId;
use crate::layer::gzip::Gzip;
use crate::layer::{Compression, LayerBlob, LayerError, Layers};

/// How a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packing {
    /// Into which format: none, gzip or zstd.
    pub compression: Compression,
    /// How hard it is tried; the format's usual level when `None`.
    pub level: Option<u32>,
}

impl Default for Packing {
    fn default() -> Self {
        Self { compression: Compression::Gzip, level: None }
    }
}

// === impl Layers ===

impl Layers {
    /// Packs a layer, and remembers the blob as the one it leaves as.
    ///
    /// # Errors
    /// When the layer cannot be read or the blob not be written.
    pub(crate) fn compress(&self, diff: &DiffId, packing: Packing) -> Result<LayerBlob, LayerError> {
        let mut ingest = self.content().ingest()?;
        match packing.compression {
            Compression::Zstd => {
                let level =
                    packing.level.map_or(zstd::DEFAULT_COMPRESSION_LEVEL, |level| level.cast_signed());
                let mut encoder = zstd::Encoder::new(ingest, level).map_err(LayerError::Stream)?;
                self.pack(diff, &mut encoder)?;
                ingest = encoder.finish().map_err(LayerError::Stream)?;
            }
            Compression::None => self.pack(diff, &mut ingest)?,
            _ => {
                let threads = std::thread::available_parallelism().map_or(1, usize::from);
                let mut gzip = Gzip::new(ingest, threads, packing.level).map_err(LayerError::Stream)?;
                self.pack(diff, &mut gzip)?;
                ingest = gzip.finish().map_err(LayerError::Stream)?;
            }
        }
        ingest.flush().map_err(LayerError::Stream)?;
        let (digest, size) = ingest.commit(None, None)?;
        let blob = LayerBlob { digest, size, compression: packing.compression };
        self.set_blob(diff, blob.clone())?;
        Ok(blob)
    }
}
