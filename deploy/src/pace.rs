//! What is said of images while they move: not so often that nobody reads it, nor so seldom that somebody wonders.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use engine::image::{Progress, Step};
use engine::quantity::ByteSize;

/// Things that move, each in parts, and when somebody was told last how far they are.
#[derive(Debug)]
pub(crate) struct Pace {
    between: Duration,
    moves: Mutex<BTreeMap<String, Move>>,
}

/// One thing that moves.
#[derive(Debug)]
struct Move {
    told: Instant,
    /// Bytes done, and of how many, by part.
    parts: BTreeMap<String, (u64, u64)>,
}

/// How long a person does not wonder.
const BETWEEN_REMARKS: Duration = Duration::from_secs(5);

// === impl Pace ===

impl Pace {
    /// With so much time between two remarks on one thing.
    fn of(between: Duration) -> Self {
        Self { between, moves: Mutex::default() }
    }

    /// What is to be said by now of a thing of which so many bytes of a part are done, of how many: `3MB of 812MB`.
    pub(crate) fn remark(&self, thing: &str, part: &str, done: u64, of: u64) -> Option<String> {
        let mut moves = self.moves.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Move { told: Instant::now(), parts: BTreeMap::new() };
        let one = moves.entry(thing.to_owned()).or_insert_with(new);
        one.parts.insert(part.to_owned(), (done, of));
        if one.told.elapsed() < self.between {
            return None;
        }
        one.told = Instant::now();
        let (done, of) = one.parts.values().fold((0, 0), |(done, of), part| (done + part.0, of + part.1));
        Some(format!("{} of {}", ByteSize(done), ByteSize(of)))
    }

    /// As [`Pace::remark`], for a layer of an image that comes from a registry or goes there.
    pub(crate) fn remark_on_layer(&self, image: &str, progress: &Progress) -> Option<String> {
        match progress.step {
            Step::Downloading(done, of) | Step::Pushing(done, of) => {
                self.remark(image, &progress.layer.to_string(), done, of)
            }
            _ => None,
        }
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self::of(BETWEEN_REMARKS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_is_told_of_from_time_to_time() {
        assert_eq!(Pace::of(Duration::from_secs(3600)).remark("image", "a", 3_000_000, 812_000_000), None);
        let pace = Pace::of(Duration::ZERO);
        assert_eq!(pace.remark("image", "a", 3_000_000, 812_000_000).as_deref(), Some("3MB of 812MB"));
        assert_eq!(pace.remark("image", "b", 1_000_000, 1_000_000).as_deref(), Some("4MB of 813MB"));
        assert_eq!(pace.remark("other", "a", 0, 5).as_deref(), Some("0B of 5B"));
    }
}
