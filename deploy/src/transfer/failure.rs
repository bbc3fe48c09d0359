//! What can go wrong with a transfer, on this side and on the other, and how the other side's failure gets here.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use engine::error::chain;
use engine::image::ImageError;
use engine::layer::LayerError;
use engine::store::content::ContentError;
use serde::{Deserialize, Serialize};

use crate::protocol::ChannelError;

/// Why images did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The connection ended or broke; what has arrived is kept for the next attempt.
    #[error("the connection to the other side was lost during the transfer")]
    Channel(#[from] ChannelError),
    /// A step failed on this side.
    #[error("{step}")]
    Here {
        /// What was done.
        step: String,
        /// What kind of failure it was.
        kind: FailureKind,
        /// Why it failed.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The other side failed and said why.
    #[error("the other side cannot go on: {0}")]
    There(Failure),
    /// What the other side sent is not what it announced.
    #[error("what the other side sent was refused: {0}")]
    Refused(String),
}

/// A failure as it crosses the channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind it is.
    pub kind: FailureKind,
    /// The sentence for a person, causes included.
    pub message: String,
}

/// What kind of failure it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// There is too little room on the disk.
    NoSpace,
    /// What arrived has another digest than was announced.
    WrongDigest,
    /// An image or a layer that was asked for is not there.
    NotHere,
    /// What came over the channel makes no sense.
    Refused,
    /// Anything else: the system refused a step.
    Other,
}

// === impl TransferError ===

impl TransferError {
    /// What kind of failure it is; `None` when only the connection was lost.
    pub fn kind(&self) -> Option<FailureKind> {
        match self {
            Self::Channel(_) => None,
            Self::Here { kind, .. } => Some(*kind),
            Self::There(failure) => Some(failure.kind),
            Self::Refused(_) => Some(FailureKind::Refused),
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self.kind() {
            None => Some("run it again: what has arrived is not sent again"),
            Some(FailureKind::NoSpace) => {
                Some("make room there: `rdeploy prune` removes what only earlier releases need")
            }
            Some(FailureKind::NotHere) => Some("`rengine image ls` shows what is here"),
            Some(FailureKind::WrongDigest | FailureKind::Refused | FailureKind::Other) => None,
        }
    }

    /// Whether another attempt goes on where this one ended: nothing but the connection was at fault.
    pub fn is_lost_connection(&self) -> bool {
        self.kind().is_none()
    }

    /// Whether the other side can be told, and does not know.
    pub(super) fn is_of_use_to_tell(&self) -> bool {
        !matches!(self, Self::Channel(_) | Self::There(_))
    }

    /// The failure as the other side is told of it.
    pub(super) fn to_failure(&self) -> Failure {
        Failure { kind: self.kind().unwrap_or(FailureKind::Other), message: chain(self) }
    }
}

/// Names the step that failed on this side.
pub(super) fn here<E: StdError + Send + Sync + 'static>(
    step: impl Into<String>,
) -> impl FnOnce(E) -> TransferError {
    move |error| TransferError::Here { step: step.into(), kind: kind_of(&error), source: Box::new(error) }
}

/// What arrived is not what its digest says.
pub(super) fn wrong_digest(object: &str) -> TransferError {
    TransferError::Here {
        step: format!("verify {object:?}"),
        kind: FailureKind::WrongDigest,
        source: "what has arrived does not have the digest that was announced".into(),
    }
}

impl From<TransferError> for engine::error::Error {
    fn from(error: TransferError) -> Self {
        let hint = error.hint();
        let error = Self::failed("send the images", error);
        if let Some(hint) = hint { error.with_hint(hint) } else { error }
    }
}

// === impl Failure ===

impl Failure {
    /// A failure of another part of this side.
    pub(super) fn of(error: &engine::error::Error) -> Self {
        Self { kind: kind_of(error), message: chain(error) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The kind of the first cause that has one.
fn kind_of(error: &(dyn StdError + 'static)) -> FailureKind {
    let mut next = Some(error);
    while let Some(error) = next {
        let layer = match error.downcast_ref::<ImageError>() {
            Some(ImageError::Layer(error)) => Some(error),
            Some(ImageError::NotFound(_)) => return FailureKind::NotHere,
            Some(ImageError::Config { .. }) => return FailureKind::Refused,
            _ => error.downcast_ref::<LayerError>(),
        };
        match layer {
            Some(LayerError::WrongDiff { .. }) => return FailureKind::WrongDigest,
            Some(LayerError::Missing(_)) => return FailureKind::NotHere,
            Some(error) if error.is_full() => return FailureKind::NoSpace,
            _ => {}
        }
        if let Some(ContentError::WrongDigest { .. }) = error.downcast_ref::<ContentError>() {
            return FailureKind::WrongDigest;
        }
        if let Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =
            error.downcast_ref::<io::Error>().map(io::Error::kind)
        {
            return FailureKind::NoSpace;
        }
        next = error.source();
    }
    FailureKind::Other
}
