//! What can go wrong with a layer.

use std::io;

use crate::id::DiffId;
use crate::layer::pack::PackError;
use crate::layer::table::TableError;
use crate::layer::unpack::UnpackError;
use crate::store::content::ContentError;

/// Why a layer could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// It is not here.
    #[error("the layer {0} is not here")]
    Missing(DiffId),
    /// It cannot be unpacked.
    #[error("unpack the layer")]
    Unpack(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It cannot be packed.
    #[error("pack the layer {0}")]
    Pack(String, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// The stream could not be read or decompressed.
    #[error("take in the layer")]
    Stream(#[source] io::Error),
    /// What was unpacked is not what the image's configuration says.
    #[error("the layer has the digest {found}, and the image's configuration says {expected}")]
    WrongDiff {
        /// Announced.
        expected: DiffId,
        /// Arrived.
        found: DiffId,
    },
    /// The table of its tar is none.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The content store refused its blob.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The system refused a step.
    #[error("{step} the layer {layer}")]
    Io {
        /// What was done.
        step: &'static str,
        /// To which layer.
        layer: String,
        /// Why not.
        source: io::Error,
    },
}

// === impl LayerError ===

impl LayerError {
    /// Whether there was too little room on the disk.
    pub fn is_full(&self) -> bool {
        crate::error::is_full(self)
    }
}

impl From<UnpackError> for LayerError {
    fn from(error: UnpackError) -> Self {
        Self::Unpack(error.into())
    }
}

impl From<LayerError> for crate::Error {
    fn from(error: LayerError) -> Self {
        let kind = match &error {
            LayerError::Missing(_) => crate::Kind::NotFound,
            _ => crate::Kind::Failed,
        };
        let message = error.to_string();
        match std::error::Error::source(&error) {
            Some(_) => crate::Error::new(kind, message).with_source(error),
            None => crate::Error::new(kind, message),
        }
    }
}

/// Names the layer that was not packed.
pub(crate) fn packing(layer: &str) -> impl Fn(PackError) -> LayerError {
    let layer = layer.to_owned();
    move |error| LayerError::Pack(layer.clone(), error.into())
}

/// Names the step and the layer that the system refused.
pub(crate) fn failure(step: &'static str, layer: &str) -> impl Fn(io::Error) -> LayerError + use<> {
    let layer = layer.to_owned();
    move |source| LayerError::Io { step, layer: layer.clone(), source }
}
