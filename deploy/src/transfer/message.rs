//! What the two sides of a transfer say to each other, besides bytes.

use engine::id::{DiffId, ImageId};
use engine::image::Reference;
use engine::layer::Sum;
use serde::{Deserialize, Serialize};

use crate::protocol::Channel;
use crate::transfer::failure::{Failure, TransferError};

/// The first word of the sender. A part with all configurations and manifests, compressed, precedes it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Offer {
    pub(super) images: Vec<OfferedImage>,
    /// What the images are to be called afterwards.
    pub(super) names: Vec<(ImageId, Reference)>,
    /// How long the part is when it is decompressed.
    pub(super) length: usize,
}

/// An image, by the lengths of its two documents in the part that precedes the offer.
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
    /// These layers are not there. The sender answers with an empty part, and one for each layer whose table is not there
    /// either, which lists the chunks of its columns.
    Lacks(Vec<Lacking>),
    /// These chunks of what was listed last are not there, by their place in all lists together.
    Needs(Ranges),
    /// These contents are not there.
    Wants(Wants),
    /// What was sent so far has been dealt with.
    Go,
    /// The images are there, verified and named.
    Done(Vec<ImageId>),
    /// It is no use to go on.
    Failed(Failure),
}

/// A layer that is not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lacking {
    pub(super) diff: DiffId,
    /// Whether its table has arrived before.
    pub(super) has_table: bool,
}

/// Contents that are not there. A content has the number of its entry, counted on over all lacking layers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Wants {
    /// Files that were there in an older version. The sender first says, in one part, how it will send each.
    pub(super) changed: Vec<Change>,
    /// Contents of which so many bytes have arrived before.
    pub(super) begun: Vec<(u32, u64)>,
    /// Contents of which nothing is there.
    pub(super) new: Ranges,
}

/// A file that was there in an older version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Change {
    /// The number of the content.
    pub(super) number: u32,
    /// The digest of the old version.
    pub(super) old: Sum,
    /// So many bytes of the difference to it have arrived before.
    pub(super) arrived: u64,
}

/// How a changed file is sent: its number in the answer to [`Wants::changed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// As if nothing of it were there.
    Whole = 0,
    /// As a difference to the old version, which both sides have.
    Delta = 1,
    /// As the chunks that the old version does not have.
    Chunks = 2,
}

/// Ascending numbers: the first and how many, again and again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ranges(Vec<(u32, u32)>);

/// The first byte of each frame of a stream, and of each part. An empty message follows the last one.
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

// === impl Ranges ===

impl Ranges {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().flat_map(|(first, count)| {
            let first = usize::try_from(*first).unwrap_or(usize::MAX);
            first..first.saturating_add(usize::try_from(*count).unwrap_or(usize::MAX))
        })
    }
}

impl FromIterator<u32> for Ranges {
    fn from_iter<T: IntoIterator<Item = u32>>(numbers: T) -> Self {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for number in numbers {
            match ranges.last_mut() {
                Some((first, count)) if *first + *count == number => *count += 1,
                _ => ranges.push((number, 1)),
            }
        }
        Self(ranges)
    }
}

// === impl Wants ===

impl Wants {
    pub(super) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.begun.is_empty() && self.new.is_empty()
    }
}

// === impl Way ===

impl Way {
    pub(super) fn of(byte: u8) -> Option<Self> {
        [Self::Whole, Self::Delta, Self::Chunks].into_iter().find(|way| *way as u8 == byte)
    }
}

/// Sends a part: bytes that the receiver waits for. It leaves with the next message.
pub(super) fn send_part(channel: &mut Channel, bytes: &[u8]) -> Result<(), TransferError> {
    Ok(channel.send_data(&[&[Tag::Bytes.byte()], bytes].concat())?)
}

/// Says why the part that the receiver waits for does not come. Gives the reason back.
pub(super) fn refuse(channel: &mut Channel, error: TransferError) -> TransferError {
    let told = serde_json::to_vec(&error.to_failure()).unwrap_or_default();
    // When this does not reach the other side either, the first failure is still the one to tell.
    let _ = channel.send_data(&[&[Tag::Failed.byte()], &told[..]].concat()).and_then(|()| channel.send(&()));
    error
}

/// Receives what [`send_part`] sent.
pub(super) fn receive_part(channel: &mut Channel) -> Result<Vec<u8>, TransferError> {
    let mut frame = channel.receive_data()?;
    match frame.first().copied().and_then(Tag::of) {
        Some(Tag::Bytes) => Ok(frame.split_off(1)),
        Some(Tag::Failed) => {
            channel.receive::<()>()?;
            Err(told(&frame[1..]))
        }
        _ => Err(TransferError::Refused("a frame of no known kind".to_owned())),
    }
}

/// The failure in a frame that says that there is one.
pub(super) fn told(bytes: &[u8]) -> TransferError {
    let failure = serde_json::from_slice(bytes);
    failure.map_or_else(
        |_| TransferError::Refused("a failure without a reason".to_owned()),
        TransferError::There,
    )
}
