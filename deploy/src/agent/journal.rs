//! What a rollout that goes on has written down, so that whoever finds it cut off knows what to go back to.

use std::collections::BTreeMap;
use std::io;

use engine::error::Result;
use engine::store::{self, Durability};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::form;
use super::places::Places;
use crate::release::{Entry, Release, ReleaseId};

/// A rollout that goes on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Journal {
    /// The form of this record.
    #[serde(default)]
    pub(crate) version: u32,
    /// The release that is rolled out.
    pub(crate) release: Release,
    /// Whether it goes back to one that was kept.
    pub(crate) rollback: bool,
    /// Who rolls it out.
    pub(crate) author: String,
    /// The release that served when it began.
    pub(crate) previous: Option<ReleaseId>,
    /// When it began.
    pub(crate) began: Timestamp,
    /// How far it is.
    pub(crate) stage: Stage,
    /// What there was when it began.
    pub(crate) before: Before,
    /// What was measured so far.
    pub(crate) prepare_ms: u64,
    /// What was measured so far.
    pub(crate) commit_ms: u64,
    /// What was measured so far.
    pub(crate) downtime_ms: Option<u64>,
}

/// The form of a journal.
pub(crate) const VERSION: u32 = 1;

/// How far a rollout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stage {
    /// Nobody outside notices anything.
    Preparing,
    /// Everything is ready.
    Prepared,
    /// The new containers have a part of the new connections.
    Sharing,
    /// Who answers is changing.
    Committing,
    /// The new release answers, and the old one is still there.
    Committed,
    /// It is decided: the old one goes.
    Retiring,
}

/// A word that moves a rollout on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Move {
    /// Everything is ready.
    Prepared,
    /// The client wants the new containers to have a part of the connections.
    Share,
    /// The client wants it.
    Commit,
    /// The new release answers.
    Committed,
    /// The client says that all hosts are there.
    Finish,
}

/// A word that makes no sense at this stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a rollout that is {stage:?} cannot be moved on by {word:?}")]
pub(crate) struct IllegalMove {
    stage: Stage,
    word: Move,
}

/// What there was of a project when a rollout began.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Before {
    /// Its containers.
    pub(crate) containers: Vec<Standing>,
    /// The names of its networks.
    pub(crate) networks: Vec<String>,
    /// What the names of images meant: their ids.
    #[serde(default)]
    pub(crate) images: BTreeMap<String, String>,
}

/// A container that stood when a rollout began.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Standing {
    /// Its id.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// Its service.
    pub(crate) service: String,
    /// Which of the service's containers.
    pub(crate) number: u32,
    /// Whether it ran.
    pub(crate) is_up: bool,
    /// Whether its name and ports were held back.
    pub(crate) held: bool,
}

// === impl Stage ===

impl Stage {
    /// The stage that follows.
    pub(crate) fn on(self, word: Move) -> std::result::Result<Self, IllegalMove> {
        match (self, word) {
            (Self::Preparing, Move::Prepared) => Ok(Self::Prepared),
            (Self::Prepared | Self::Sharing, Move::Share) => Ok(Self::Sharing),
            (Self::Prepared | Self::Sharing, Move::Commit) => Ok(Self::Committing),
            (Self::Committing, Move::Committed) => Ok(Self::Committed),
            (Self::Committed, Move::Finish) => Ok(Self::Retiring),
            (stage, word) => Err(IllegalMove { stage, word }),
        }
    }

    /// Whether who answers may not be as it was before.
    pub(crate) fn touches_who_answers(self) -> bool {
        !matches!(self, Self::Preparing | Self::Prepared | Self::Sharing)
    }

    /// Whether there is no way back any more.
    pub(crate) fn is_decided(self) -> bool {
        self == Self::Retiring
    }
}

// === impl Journal ===

impl Journal {
    /// The journal of a rollout that goes on or was cut off.
    ///
    /// # Errors
    /// When it cannot be read, or a later version of this program wrote it: whoever does not know all that was done cannot
    /// go back from it.
    pub(crate) fn read(places: &Places) -> Result<Option<Self>> {
        form::read(&places.journal(), "what a rollout that was cut off has done", VERSION)
    }

    /// Writes it down, also for after a power cut.
    pub(crate) fn write(&self, places: &Places) -> io::Result<()> {
        store::write_json(&places.journal(), self, Durability::Sync)
    }

    /// The rollout is over.
    pub(crate) fn close(places: &Places) -> io::Result<()> {
        store::remove_file(&places.journal())
    }

    /// What the history says of it.
    pub(crate) fn entry(&self, outcome: crate::release::Outcome) -> Entry {
        Entry {
            release: self.release.id.clone(),
            previous: self.previous.clone(),
            commit: self.release.commit.clone(),
            author: self.author.clone(),
            began: self.began,
            outcome,
            prepare_ms: self.prepare_ms,
            commit_ms: self.commit_ms,
            downtime_ms: self.downtime_ms,
            images: self
                .release
                .images
                .iter()
                .map(|(service, image)| (service.clone(), image.id.clone()))
                .collect(),
            rollback: self.rollback,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_moves_on_one_stage_at_a_time() {
        let words = [Move::Prepared, Move::Commit, Move::Committed, Move::Finish];
        let end = words.into_iter().try_fold(Stage::Preparing, Stage::on);
        assert_eq!(end, Ok(Stage::Retiring));
        let words = [Move::Prepared, Move::Share, Move::Share, Move::Commit];
        assert_eq!(words.into_iter().try_fold(Stage::Preparing, Stage::on), Ok(Stage::Committing));
        assert!(Stage::Preparing.on(Move::Commit).is_err());
        assert!(Stage::Committed.on(Move::Commit).is_err());
        assert!(Stage::Retiring.on(Move::Finish).is_err());
        assert!(Stage::Retiring.is_decided() && !Stage::Committed.is_decided());
    }
}
