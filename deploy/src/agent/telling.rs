//! What the client learns of steps while they are done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use compose::execute::Event as Walking;
use compose::operation::Operation;

use super::Tell;
use crate::message::{Event, millis};

/// Waits of which nobody has been told yet, by what is waited for.
struct Waits {
    patience: Duration,
    ends: Mutex<BTreeMap<String, Sender<()>>>,
}

/// After this long a person wonders whether anything goes on.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Tells a client what happens on the way.
pub(crate) struct Teller {
    tell: Tell,
    waits: Waits,
    /// What has been told to be ready: each stage sees for itself.
    ready: Mutex<BTreeSet<String>>,
}

impl Teller {
    pub(crate) fn new(tell: &Tell) -> Self {
        Self { tell: tell.clone(), waits: Waits::longer_than(PATIENCE), ready: Mutex::default() }
    }

    /// Tells of it.
    pub(crate) fn hear(&self, event: Walking<'_>) {
        let (operation, word, took) = match event {
            Walking::Began(operation) => {
                if is_wait(operation) {
                    self.waits.begin(operation.object(), &self.tell);
                }
                (operation, operation.words().0, None)
            }
            Walking::Done(operation, took) => (operation, operation.words().1, Some(took)),
            Walking::Failed(operation) => (operation, "Error", None),
            Walking::Forgiven(operation, why) => {
                self.waits.end(&operation.object());
                (self.tell)(Event::Remark(format!("WARNING: {}: {why}", operation.object())));
                return;
            }
        };
        if took.is_some() || word == "Error" {
            self.waits.end(&operation.object());
        }
        if took.is_some() && matches!(operation, Operation::Prove { .. }) && !self.is_news(operation) {
            return;
        }
        let took_ms = took.map(millis);
        (self.tell)(Event::Step { object: operation.object(), word: word.to_owned(), took_ms });
    }

    fn is_news(&self, operation: &Operation) -> bool {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).insert(operation.object())
    }
}

fn is_wait(operation: &Operation) -> bool {
    matches!(operation, Operation::Await { .. } | Operation::Prove { .. })
}

// === impl Waits ===

impl Waits {
    fn longer_than(patience: Duration) -> Self {
        Self { patience, ends: Mutex::default() }
    }

    /// Tells of it once, if it does not end soon.
    fn begin(&self, object: String, tell: &Tell) {
        let (end, ended) = channel();
        let (patience, tell) = (self.patience, tell.clone());
        self.ends().insert(object.clone(), end);
        thread::spawn(move || {
            if ended.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                tell(Event::Remark(format!("{object}  Waiting")));
            }
        });
    }

    fn end(&self, object: &str) {
        self.ends().remove(object);
    }

    fn ends(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Sender<()>>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_long_wait_is_told_of_once_and_a_short_one_is_not() {
        let (tell, told) = channel();
        let tell: Tell = Arc::new(move |event| tell.send(event).unwrap());
        let long = Waits::longer_than(Duration::ZERO);
        long.begin("Container slow".to_owned(), &tell);
        let remark = Event::Remark("Container slow  Waiting".to_owned());
        assert_eq!(told.recv(), Ok(remark));
        long.end("Container slow");
        let short = Waits::longer_than(Duration::from_secs(3600));
        short.begin("Container quick".to_owned(), &tell);
        short.end("Container quick");
        drop((long, short, tell));
        // Whoever could still tell has ended without a word.
        told.recv().unwrap_err();
    }
}
