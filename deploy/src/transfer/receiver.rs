//! The receiver's part of the conversation: it compares what is offered with what it has, asks for the rest, and puts
//! the images together.

use std::collections::BTreeSet;

use engine::engine::Engine;
use engine::error::Error;
use engine::id::{DiffId, Digest, ImageId};
use engine::image::{ImageConfig, Reference};
use engine::store;

use crate::protocol::Channel;
use crate::transfer::arrival::Arrivals;
use crate::transfer::failure::{Failure, FailureKind, TransferError, here};
use crate::transfer::message::{Answer, LONGEST_OFFER, Offer, receive_part};
use crate::transfer::spool;

/// One transfer, as its receiver sees it.
pub(super) struct Receiver<'a> {
    pub(super) channel: &'a mut Channel,
    pub(super) engine: &'a Engine,
}

/// An image that is offered.
struct Offered {
    id: ImageId,
    raw: Vec<u8>,
    manifest: Option<Vec<u8>>,
    layers: Vec<DiffId>,
    names: Vec<Reference>,
}

/// Why the receiver gives up.
pub(super) enum GaveUp {
    /// The sender waits for an answer, which is the reason.
    Silently(TransferError),
    /// The sender knows.
    Aloud(TransferError),
}

// === impl Receiver ===

impl Receiver<'_> {
    pub(super) fn run(&mut self) -> Result<Vec<ImageId>, TransferError> {
        let documents = receive_part(self.channel)?;
        let offer: Offer = self.channel.receive()?;
        match self.fetch(&offer, &documents) {
            Ok(images) => {
                self.channel.send(&Answer::Done(images.clone()))?;
                Ok(images)
            }
            Err(GaveUp::Aloud(error)) => Err(error),
            Err(GaveUp::Silently(error)) => {
                if error.is_of_use_to_tell() {
                    // The failure here is the one to tell, even if the sender cannot be told.
                    let _ = self.channel.send(&Answer::Failed(error.to_failure()));
                }
                Err(error)
            }
        }
    }

    fn fetch(&mut self, offer: &Offer, documents: &[u8]) -> Result<Vec<ImageId>, GaveUp> {
        let offered = read_offer(offer, documents)?;
        let _hold = self.engine.layers().hold().map_err(here("keep the layers"))?;
        let lacking = self.lacking(&offered);
        if !lacking.is_empty() {
            self.layers(&offered, &lacking)?;
        }
        Ok(self.install(&offered)?)
    }

    /// The layers that are not here, each once, in the order of their ids.
    fn lacking(&self, offered: &[Offered]) -> BTreeSet<DiffId> {
        let layers = self.engine.layers();
        let wanted = offered.iter().flat_map(|image| &image.layers);
        wanted.filter(|diff| !layers.contains(diff)).cloned().collect()
    }

    fn layers(&mut self, offered: &[Offered], lacking: &BTreeSet<DiffId>) -> Result<(), GaveUp> {
        let layers = self.engine.layers();
        // In the order of their ids, so that two receivers of the same layers never wait for each other.
        let claims: Result<Vec<_>, _> = lacking.iter().map(|diff| layers.claim(diff)).collect();
        let _claims = claims.map_err(here("claim the layers"))?;
        let lacking: Vec<DiffId> = lacking.iter().filter(|diff| !layers.contains(diff)).cloned().collect();
        if lacking.is_empty() {
            return Ok(());
        }
        spool::sweep(&self.engine.root().transfers()).map_err(here("remove what nobody came back for"))?;
        let names: Vec<Reference> = offered.iter().flat_map(|image| image.names.clone()).collect();
        let all = offered.iter().flat_map(|image| image.layers.clone()).collect();
        let arrived =
            Arrivals::begin(self.channel, self.engine, &lacking, &names, &all).and_then(Arrivals::run);
        if let Err(GaveUp::Silently(error) | GaveUp::Aloud(error)) = &arrived
            && error.kind() == Some(FailureKind::NoSpace)
        {
            // A full disk stops whatever else is there, which is worse than to send it again.
            for diff in &lacking {
                // The failure that led here is the one to tell.
                let _ = store::remove_tree(&self.engine.root().transfer(diff));
            }
        }
        arrived
    }

    fn install(&self, offered: &[Offered]) -> Result<Vec<ImageId>, TransferError> {
        let images = self.engine.images();
        for image in offered {
            images
                .receive(&image.raw, image.manifest.as_deref(), &image.names)
                .map_err(here("record the image"))?;
        }
        Ok(offered.iter().map(|image| image.id.clone()).collect())
    }
}

/// Hears what is offered, and says why nothing of it is taken.
pub(super) fn decline(channel: &mut Channel, reason: &Error) -> Result<(), TransferError> {
    receive_part(channel)?;
    channel.receive::<Offer>()?;
    Ok(channel.send(&Answer::Failed(Failure::of(reason)))?)
}

fn read_offer(offer: &Offer, documents: &[u8]) -> Result<Vec<Offered>, TransferError> {
    let refused = |what: &str| TransferError::Refused(what.to_owned());
    if offer.length > LONGEST_OFFER {
        return Err(refused("an offer of too many images"));
    }
    let documents = zstd::bulk::decompress(documents, offer.length).map_err(here("decompress the offer"))?;
    let mut rest = documents.as_slice();
    let mut take = |length| {
        let (taken, left) =
            rest.split_at_checked(length).ok_or_else(|| refused("an offer that is cut off"))?;
        rest = left;
        Ok::<_, TransferError>(taken.to_vec())
    };
    let mut offered = Vec::new();
    for image in &offer.images {
        let raw = take(image.config)?;
        let manifest = image.manifest.map(&mut take).transpose()?;
        if Digest::of(&raw) != image.id {
            return Err(refused("a configuration that does not have the image's digest"));
        }
        let config: ImageConfig =
            serde_json::from_slice(&raw).map_err(here("read the configuration of an image"))?;
        let names = offer.names.iter().filter(|(id, _)| *id == image.id).map(|(_, name)| name.clone());
        offered.push(Offered {
            id: image.id.clone(),
            raw,
            manifest,
            layers: config.rootfs.diff_ids,
            names: names.collect(),
        });
    }
    Ok(offered)
}

impl From<TransferError> for GaveUp {
    fn from(error: TransferError) -> Self {
        Self::Silently(error)
    }
}

impl From<crate::protocol::ChannelError> for GaveUp {
    fn from(error: crate::protocol::ChannelError) -> Self {
        Self::Silently(error.into())
    }
}
