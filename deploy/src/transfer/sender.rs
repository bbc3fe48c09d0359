//! The sender's part of the conversation: it offers, and answers what it is asked for.

use std::io::{self, Write};

use engine::engine::Engine;
use engine::id::{DiffId, ImageId};
use engine::image::Reference;

use crate::protocol::Channel;
use crate::transfer::failure::{TransferError, here};
use crate::transfer::flow::Outflow;
use crate::transfer::message::{Answer, Offer, OfferedImage};
use crate::transfer::{Progress, Sent, SentImage};

/// One transfer, as its sender sees it.
pub(super) struct Sender<'a> {
    pub(super) channel: &'a mut Channel,
    pub(super) engine: &'a Engine,
    pub(super) progress: &'a dyn Fn(Progress),
}

/// Compression of what is small and sent at once.
const LEVEL: i32 = 9;

// === impl Sender ===

impl Sender<'_> {
    pub(super) fn run(
        &mut self,
        images: &[ImageId],
        names: &[(ImageId, Reference)],
    ) -> Result<Sent, TransferError> {
        let before = (self.channel.sent(), self.channel.received());
        let _hold = self.engine.layers().hold().map_err(here("keep the layers"))?;
        let mut sent = self.offer(images, names)?;
        let lacking = match self.answer()? {
            Answer::Done(_) => Vec::new(),
            Answer::Lacks(layers) => layers,
            other => return Err(TransferError::Refused(format!("{other:?} as the answer to an offer"))),
        };
        sent.images.iter_mut().for_each(|image| image.account(&lacking));
        (self.progress)(Progress::Compared { lacking: lacking.len() });
        if !lacking.is_empty() {
            self.layers(&lacking)?;
            (self.progress)(Progress::Unpacking);
            match self.answer()? {
                Answer::Done(_) => {}
                other => return Err(TransferError::Refused(format!("{other:?} at the end"))),
            }
        }
        sent.bytes_out = self.channel.sent() - before.0;
        sent.bytes_in = self.channel.received() - before.1;
        Ok(sent)
    }

    /// Says what there is. Everything that can fail here fails before the first byte is sent.
    fn offer(&mut self, images: &[ImageId], names: &[(ImageId, Reference)]) -> Result<Sent, TransferError> {
        let store = self.engine.images();
        let mut documents = Vec::new();
        let mut offered = Vec::new();
        let mut sent = Sent::default();
        for id in images {
            let image = store.get(id.as_str()).map_err(here("find the image"))?;
            let config = store.raw_config(id).map_err(here("read the image's configuration"))?;
            let manifest = store.manifest(id).map_err(here("read the image's manifest"))?;
            documents.extend_from_slice(&config);
            documents.extend_from_slice(manifest.as_deref().unwrap_or_default());
            offered.push(OfferedImage {
                id: id.clone(),
                config: config.len(),
                manifest: manifest.map(|manifest| manifest.len()),
            });
            sent.images.push(SentImage::of(&image, &self.engine.layers())?);
        }
        let packed = zstd::bulk::compress(&documents, LEVEL).map_err(here("compress the offer"))?;
        self.channel.send_data(&packed)?;
        self.channel.send(&Offer { images: offered, names: names.to_vec(), length: documents.len() })?;
        Ok(sent)
    }

    fn layers(&mut self, lacking: &[DiffId]) -> Result<(), TransferError> {
        for diff in lacking {
            let mut out = Outflow::new(self.channel)?;
            let mut failed = None;
            let mut writer = Passage { out: &mut out, failed: &mut failed };
            let packed = self.engine.layers().pack(diff, &mut writer);
            match (packed, failed) {
                (_, Some(error)) => return Err(out.fail(error)),
                (Err(error), None) => return Err(out.fail(here("read a layer")(error))),
                (Ok(()), None) => out.finish()?,
            }
        }
        Ok(())
    }

    fn answer(&mut self) -> Result<Answer, TransferError> {
        match self.channel.receive()? {
            Answer::Failed(failure) => Err(TransferError::There(failure)),
            other => Ok(other),
        }
    }
}

/// Lets a writer of files write to the stream.
struct Passage<'a, 'b> {
    out: &'a mut Outflow<'b>,
    failed: &'a mut Option<TransferError>,
}

impl Write for Passage<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.out.write(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(error) => {
                let told = io::Error::other(error.to_string());
                *self.failed = Some(error);
                Err(told)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
