//! A layer's tar packed into a blob: always to the same bytes, so that a registry never gets it twice.

use std::io::{self, Write};

use zstd::zstd_safe::CParameter;

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
                let mut encoder = zstd(ingest, packing.level, threads()).map_err(LayerError::Stream)?;
                self.pack(diff, &mut encoder)?;
                ingest = encoder.finish().map_err(LayerError::Stream)?;
            }
            Compression::None => self.pack(diff, &mut ingest)?,
            _ => {
                let mut gzip = Gzip::new(ingest, threads(), packing.level).map_err(LayerError::Stream)?;
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

/// What a thread of zstd compresses at once. More of it holds more memory, less of it finds fewer repetitions.
const JOB: u32 = 2 << 20;

/// The most threads of zstd: each holds some megabytes.
const MOST_THREADS: usize = 8;

/// A zstd stream into this writer, with the same bytes however many threads there are.
fn zstd<W: Write>(writer: W, level: Option<u32>, threads: usize) -> io::Result<zstd::Encoder<'static, W>> {
    let level = level.map_or(zstd::DEFAULT_COMPRESSION_LEVEL, |level| level.cast_signed());
    let mut encoder = zstd::Encoder::new(writer, level)?;
    // Even with one: without any, the stream is cut into other blocks.
    encoder.multithread(u32::try_from(threads.clamp(1, MOST_THREADS)).unwrap_or(1))?;
    encoder.set_parameter(CParameter::JobSize(JOB))?;
    Ok(encoder)
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zstds_bytes_do_not_depend_on_how_many_threads_there_are() {
        let data: Vec<u8> =
            (0..3_000_000u32).flat_map(|n| ((n / 3).wrapping_mul(n) % 9973).to_le_bytes()).collect();
        let packed = |threads| {
            let mut encoder = zstd(Vec::new(), None, threads).unwrap();
            encoder.write_all(&data).unwrap();
            encoder.finish().unwrap()
        };
        let (one, many) = (packed(1), packed(4));
        assert!(one == many);
        assert!(zstd::decode_all(&one[..]).unwrap() == data);
    }
}
