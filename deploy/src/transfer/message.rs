//! What the two sides of a transfer say to each other, besides bytes.

use engine::id::{DiffId, ImageId};
use engine::image::Reference;
use serde::{Deserialize, Serialize};

use crate::transfer::Failure;

/// The first word of the sender. A frame with all configurations and manifests, compressed, precedes it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Offer {
    pub(super) images: Vec<OfferedImage>,
    /// What the images are to be called afterwards.
    pub(super) names: Vec<(ImageId, Reference)>,
    /// How long the frame is when it is decompressed.
    pub(super) length: usize,
}

/// An image, by the lengths of its two documents in the frame that precedes the offer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct OfferedImage {
    pub(super) id: ImageId,
    pub(super) config: usize,
    pub(super) manifest: Option<usize>,
}

/// Whatever the receiver says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// These layers are not there.
    Lacks(Vec<DiffId>),
    /// What was sent so far has been dealt with.
    Go,
    /// The images are there, verified and named.
    Done(Vec<ImageId>),
    /// It is no use to go on.
    Failed(Failure),
}

/// The first byte of each frame of a stream. An empty message follows the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    /// Compressed bytes.
    Bytes,
    /// The stream is over.
    End,
    /// It will never be whole: a [`Failure`] follows.
    Failed,
}

/// The longest decompressed offer: some hundred images with long histories.
pub(super) const LONGEST_OFFER: usize = 64 << 20;

// === impl Tag ===

impl Tag {
    pub(super) fn byte(self) -> u8 {
        match self {
            Self::Bytes => b'b',
            Self::End => b'e',
            Self::Failed => b'f',
        }
    }

    pub(super) fn of(byte: u8) -> Option<Self> {
        [Self::Bytes, Self::End, Self::Failed].into_iter().find(|tag| tag.byte() == byte)
    }
}
