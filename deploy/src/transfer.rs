//! Images from one engine to another over a [`Channel`]: only what the other engine lacks, verified there.
//!
//! [`send`] and [`receive`] are the two ends of one conversation.

mod failure;
mod flow;
mod message;
mod receiver;
mod sender;

use engine::engine::Engine;
use engine::id::{DiffId, ImageId};
use engine::image::{Image, Reference};
use engine::layer::Layers;

pub use failure::{Failure, FailureKind, TransferError};

use crate::protocol::Channel;
use crate::transfer::failure::here;
use crate::transfer::receiver::Receiver;
use crate::transfer::sender::Sender;

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// So many layers are lacking on the other side.
    Compared {
        /// Layers that are not there.
        lacking: usize,
    },
    /// So many bytes, before compression, are on their way, of how many that are.
    Sending {
        /// Bytes sent.
        done: u64,
        /// Of how many.
        of: u64,
    },
    /// Everything was sent and is being put together there.
    Unpacking,
}

/// What a transfer came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sent {
    /// Bytes that went over the channel to the receiver.
    pub bytes_out: u64,
    /// Bytes that came back.
    pub bytes_in: u64,
    /// Image by image, as they were asked for.
    pub images: Vec<SentImage>,
}

/// What became of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentImage {
    /// Which.
    pub id: ImageId,
    /// Bytes of its layers' uncompressed tars: what a transfer without any knowledge would move.
    pub whole: u64,
    /// Layers that were sent, in whole or in part.
    pub layers_sent: usize,
    /// Layers that were there.
    pub layers_reused: usize,
    layers: Vec<DiffId>,
}

/// Sends images to whoever calls [`receive`] at the other end of the channel, and gives them these names there. When
/// it returns, the images are there, verified and on the disk.
///
/// # Errors
/// When either side fails; [`TransferError::kind`] says how. After [`TransferError::Channel`] and
/// [`TransferError::Refused`] the channel is of no more use; after all others the next conversation can begin.
pub fn send(
    channel: &mut Channel,
    engine: &Engine,
    images: &[ImageId],
    names: &[(ImageId, Reference)],
    progress: &dyn Fn(Progress),
) -> Result<Sent, TransferError> {
    Sender { channel, engine, progress }.run(images, names)
}

/// Receives the images that [`send`] sends from the other end of the channel, and returns them in its order. They are
/// in this engine's store then, whole, verified, on the disk, and named as the sender said.
///
/// # Errors
/// As for [`send`]. Nothing of an image is to be seen unless all of it is here.
pub fn receive(channel: &mut Channel, engine: &Engine) -> Result<Vec<ImageId>, TransferError> {
    Receiver { channel, engine, has_told: false }.run()
}

// === impl Sent ===

impl Sent {
    /// Bytes on the wire, both ways.
    pub fn bytes(&self) -> u64 {
        self.bytes_out + self.bytes_in
    }
}

// === impl SentImage ===

impl SentImage {
    fn of(image: &Image, layers: &Layers) -> Result<Self, TransferError> {
        let diffs = image.config.rootfs.diff_ids.clone();
        let mut whole = 0;
        for diff in &diffs {
            whole += layers.record(diff).map_err(here("find a layer of the image"))?.tar_size;
        }
        let layers_reused = diffs.len();
        Ok(Self { id: image.id.clone(), whole, layers_sent: 0, layers_reused, layers: diffs })
    }

    fn account(&mut self, lacking: &[DiffId]) {
        self.layers_sent = self.layers.iter().filter(|diff| lacking.contains(diff)).count();
        self.layers_reused = self.layers.len() - self.layers_sent;
    }
}
