//! Containers of the release that serves, stopped and started as they are.

use std::time::Duration;

use compose::observe::observe;
use compose::operation::{Instance, Operation};
use compose::plan::verbs::{Verb, apply};
use compose::plan::{Plan, Step};
use compose::runtime::ready;
use engine::Engine;
use engine::container::state::State;
use engine::error::{Error, Result};
use engine::id::ContainerId;

use super::opened::Opened;
use super::places::Places;
use super::telling::Teller;
use super::{Tell, history};
use crate::message::Turn;
use crate::walk;

/// So many steps at once.
const AT_ONCE: usize = 16;

/// Turns the containers of these services, of all when none is named. What is started is ready afterwards. Services that
/// run on other hosts only are nothing to this one.
pub(crate) fn turn(
    engine: &Engine,
    places: &Places,
    services: &[String],
    turn: Turn,
    tell: &Tell,
) -> Result<()> {
    let serving =
        history::serving(places)?.ok_or_else(|| Error::not_found("nothing of the project is deployed"))?;
    let opened = Opened::as_it_serves(engine, places, history::find(places, &serving)?, tell)?;
    let known = &opened.runtime.desired().services;
    let here: Vec<String> = services.iter().filter(|name| known.contains_key(*name)).cloned().collect();
    if here.is_empty() && !services.is_empty() {
        return Ok(());
    }
    let verb = match turn {
        Turn::Stop => Verb::Stop { grace: None },
        Turn::Start => Verb::Start { wait: false },
        Turn::Restart => Verb::Restart { grace: None, no_dependents: false },
    };
    let desired = opened.runtime.desired();
    let observed = observe(engine, desired)?;
    let plan = apply(desired, &observed, &here, verb).map_err(|error| Error::invalid(error.to_string()))?;
    let started = started(&plan);
    let runtime = opened.runtime.clone();
    let teller = Teller::new(tell);
    walk::to_the_end(plan, AT_ONCE, move |operation| runtime.perform(operation), &|event| {
        teller.hear(event)
    })?;
    started.iter().try_for_each(|id| {
        expect_ready(engine, id, opened.policy.ready_within())
            .map_err(|error| opened.runtime.with_last_words(id, &error))
    })
}

/// The containers that a plan starts.
fn started(plan: &Plan) -> Vec<ContainerId> {
    let existing = |step: &Step| match &step.operation {
        Operation::StartContainer { instance: Instance::Existing(container) } => Some(container.id.clone()),
        _ => None,
    };
    plan.steps().iter().filter_map(existing).collect()
}

/// A program that has done its work and ended is as good as one that serves.
fn expect_ready(engine: &Engine, id: &ContainerId, limit: Option<Duration>) -> Result<()> {
    let is_done = |state: &State| matches!(state, State::Exited(exited) if exited.code == 0);
    if is_done(&engine.container(id.as_str())?.state) {
        return Ok(());
    }
    match ready::wait(engine, id, limit) {
        Err(_) if is_done(&engine.container(id.as_str())?.state) => Ok(()),
        waited => waited,
    }
}
