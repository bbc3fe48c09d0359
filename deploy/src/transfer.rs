//! Images from one engine to another over a [`Channel`]: only what the other engine lacks, verified there.
//!
//! [`send`] and [`receive`] are the two ends of one conversation. The receiver leads it, because it knows what it has:
//!
//! 1. The sender offers configurations and manifests; the receiver says which layers it lacks. With none lacking that
//!    is all: one question, one answer.
//! 2. The sender lists the chunks of the lacking layers' tables ([`engine::layer::Table`]); the receiver asks for those
//!    that it has in no other table.
//! 3. With the tables, the receiver knows each file's content by its digest, and asks for those that it does not have
//!    in any layer. For a file of which it has another version under the same path, it names that.
//! 4. The contents come in one compressed stream; a file whose old version the sender has too comes as the difference to
//!    it, another one in chunks. The receiver makes the layers' tars again, and their digests prove it.
//!
//! All layers go through each step together: the steps are what a long line makes expensive.
//!
//! Why in this way:
//! - A table's columns are apart, so that new times on all files (a build that was not cached) cost a few kilobytes, and
//!   no digest or name is sent again.
//! - Chunks find nothing in compiled programs, where each address moves; a difference finds almost all, but needs the old
//!   bytes on both sides. Where the sender does not have them, chunks are what is left.
//! - What arrives is kept in a spool until its layer is whole. Frames are small and can be read without the next one, so
//!   a cut costs less than one frame, whatever it cuts.
//! - Local files are believed until the layer's digest is wrong. Only then are they read again, and the damaged ones asked
//!   for.

mod arrival;
mod chunk;
mod delta;
mod failure;
mod flow;
mod goods;
mod message;
mod receiver;
mod sender;
mod spool;
mod stock;

use engine::engine::Engine;
use engine::error::Error;
use engine::id::{DiffId, ImageId};
use engine::image::{Image, Reference};
use engine::layer::Layers;

pub use failure::{Failure, FailureKind, TransferError};

use crate::protocol::Channel;
use crate::release;
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

/// As [`send`], for images as a release names them, and with the step in what it fails with.
///
/// # Errors
/// As there, and when an id or a name is none.
pub fn send_named(
    channel: &mut Channel,
    engine: &Engine,
    images: &[release::SentImage],
    progress: &dyn Fn(Progress),
) -> engine::Result<Sent> {
    let wrong = |text: &str| Error::invalid(format!("image {text:?}"));
    let mut ids: Vec<ImageId> = Vec::new();
    let mut names: Vec<(ImageId, Reference)> = Vec::new();
    for image in images {
        let id: ImageId = image.id.parse().map_err(|error| wrong(&image.id).with_source(error))?;
        let name = image.name.parse().map_err(|error| wrong(&image.name).with_source(error))?;
        if !ids.contains(&id) {
            ids.push(id.clone());
        }
        names.push((id, name));
    }
    Ok(send(channel, engine, &ids, &names, progress)?)
}

/// Receives the images that [`send`] sends from the other end of the channel, and returns them in its order. They are
/// in this engine's store then, whole, verified, on the disk, and named as the sender said.
///
/// # Errors
/// As for [`send`]. Nothing of an image is to be seen unless all of it is here.
pub fn receive(channel: &mut Channel, engine: &Engine) -> Result<Vec<ImageId>, TransferError> {
    Receiver { channel, engine }.run()
}

/// Says to whoever calls [`send`] at the other end that nothing will be taken, and why.
///
/// # Errors
/// When the other side is gone, or sent something else.
pub fn decline(channel: &mut Channel, reason: &Error) -> Result<(), TransferError> {
    receiver::decline(channel, reason)
}

// === impl Sent ===

impl Sent {
    /// Bytes on the wire, both ways.
    pub fn bytes(&self) -> u64 {
        self.bytes_out + self.bytes_in
    }

    fn offers(&self, layer: &DiffId) -> bool {
        self.images.iter().any(|image| image.layers.contains(layer))
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
