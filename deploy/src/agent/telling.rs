//! What the client learns of steps while they are done.

use compose::execute::Event as Walking;

use super::Tell;
use crate::message::{Event, millis};

/// Tells a client what happens on the way.
pub(crate) fn teller(tell: &Tell) -> impl Fn(Walking<'_>) + Sync + use<> {
    let tell = tell.clone();
    move |event| {
        let (operation, word, took) = match event {
            Walking::Began(operation) => (operation, operation.words().0, None),
            Walking::Done(operation, took) => (operation, operation.words().1, Some(took)),
            Walking::Failed(operation) => (operation, "Error", None),
            Walking::Forgiven(operation, why) => {
                tell(Event::Remark(format!("WARNING: {}: {why}", operation.object())));
                return;
            }
        };
        let took_ms = took.map(millis);
        tell(Event::Step { object: operation.object(), word: word.to_owned(), took_ms });
    }
}
