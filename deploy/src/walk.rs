//! A plan of compose's, walked to its end by a caller that waits.

use std::sync::Arc;

use compose::execute::{Event, walk};
use compose::operation::Operation;
use compose::plan::Plan;
use compose::runtime::Failure;
use engine::error::{Error, Kind, Result};

/// Walks a plan, so many steps at once. All failures are told in one, with the first hint.
pub(crate) fn to_the_end(
    plan: Plan,
    at_once: usize,
    perform: impl Fn(&Operation) -> Result<(), Failure> + Send + Sync + 'static,
    told: &(dyn Fn(Event<'_>) + Sync),
) -> Result<()> {
    let executor = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::failed("start the executor", error))?;
    let walked = executor.block_on(walk(&Arc::new(plan), at_once, perform, told));
    let failures: Vec<Failure> = walked.failures.into_iter().map(|(_, failure)| failure).collect();
    let Some(first) = failures.first() else { return Ok(()) };
    let text = failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    Err(Error::new(Kind::Failed, text).with_hint_if(first.error.hint()))
}
