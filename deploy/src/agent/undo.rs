//! Going back to what there was when a rollout began. It looks at what there is, does what is missing, and can be begun
//! again as often as it is cut off.

use engine::container::state::State;
use engine::error::{Error, Kind, Result};
use engine::id::ContainerId;
use engine::{Container, Engine, RemoveOptions};

use compose::observe::{SeenContainer, containers};

use super::journal::{Before, Journal, Standing};
use super::places::Places;
use super::{history, rollout};
use crate::release::Outcome;

/// Puts right what a rollout that was cut off left: goes on when it was decided, goes back otherwise. Whoever calls
/// holds the project's lock.
pub(crate) fn recover(engine: &Engine, places: &Places) -> Result<bool> {
    let journal = Journal::read(places).map_err(|error| Error::failed("read the journal", error))?;
    let Some(journal) = journal else { return Ok(false) };
    if journal.stage.is_decided() {
        rollout::go_on(engine, places, journal)?;
    } else {
        let reason = format!("it was cut off while it was {}", word(&journal));
        back_out(engine, places, &journal, Some(reason))?;
    }
    Ok(true)
}

/// Leaves everything as it was before.
pub(crate) fn back_out(
    engine: &Engine,
    places: &Places,
    journal: &Journal,
    reason: Option<String>,
) -> Result<()> {
    restore(engine, &journal.release.project, &journal.before)?;
    remove_networks(engine, journal)?;
    if let Some(reason) = reason {
        history::record(places, &journal.entry(Outcome::BackedOut(reason)))?;
    }
    Journal::close(places).map_err(|error| Error::failed("close the journal", error))
}

fn word(journal: &Journal) -> String {
    serde_json::to_value(journal.stage)
        .ok()
        .and_then(|value| value.as_str().map(str::to_owned))
        .unwrap_or_default()
}

/// Lets the containers of before answer again and removes those that were not there.
fn restore(engine: &Engine, project: &str, before: &Before) -> Result<()> {
    let now = containers(engine, project)?;
    let is_old = |seen: &&SeenContainer| before.containers.iter().any(|old| old.id == seen.id.as_str());
    let new: Vec<&SeenContainer> = now.iter().filter(|seen| !seen.one_off && !is_old(seen)).collect();
    for old in &before.containers {
        let Some(seen) = now.iter().find(|seen| seen.id.as_str() == old.id) else { continue };
        let successor = new.iter().find(|new| new.service == old.service && new.number == old.number);
        bring_back(engine, old, seen, successor.copied())?;
    }
    for seen in &new {
        gone_is_fine(engine.remove(&seen.id, &RemoveOptions { force: true, volumes: false }))?;
    }
    for old in &before.containers {
        name_back(engine, old)?;
    }
    Ok(())
}

/// Lets one container of before run and answer as it did.
fn bring_back(
    engine: &Engine,
    old: &Standing,
    seen: &SeenContainer,
    successor: Option<&SeenContainer>,
) -> Result<()> {
    let container = engine.container(seen.id.as_str())?;
    let runs = container.state.is_running();
    let gave_up = container.record.spec.held && !old.held;
    match (runs, old.is_up, gave_up) {
        // It never stopped serving.
        (true, _, false) | (false, false, false) => Ok(()),
        (true, _, true) => take_back(engine, successor, &seen.id),
        (false, _, _) => {
            // What has its ports must not stand in the way.
            if let Some(successor) = successor {
                gone_is_fine(engine.remove(&successor.id, &RemoveOptions { force: true, volumes: false }))?;
            }
            if old.is_up {
                engine.start(&seen.id)?;
            }
            if gave_up { take_back(engine, None, &seen.id) } else { Ok(()) }
        }
    }
}

fn take_back(engine: &Engine, from: Option<&SeenContainer>, to: &ContainerId) -> Result<()> {
    let from = from.map(|seen| &seen.id).filter(|id| {
        engine
            .container(id.as_str())
            .is_ok_and(|container: Container| matches!(container.state, State::Running(_)))
    });
    engine.hand_over(from, to)
}

fn name_back(engine: &Engine, old: &Standing) -> Result<()> {
    let Ok(container) = engine.container(&old.id) else { return Ok(()) };
    if container.name().as_str() == old.name {
        return Ok(());
    }
    let name = old
        .name
        .parse()
        .map_err(|error| Error::failed(format!("read the name {:?} from the journal", old.name), error))?;
    engine.rename(container.id(), &name)
}

/// A network that others use already stays.
fn remove_networks(engine: &Engine, journal: &Journal) -> Result<()> {
    for network in engine.networks().list()? {
        let name = network.spec.name.as_str();
        let ours = compose::labels::belongs_to(&network.spec.labels, &journal.release.project);
        if ours && !journal.before.networks.iter().any(|known| known == name) {
            match engine.remove_network(name) {
                Err(error) if error.kind() == Kind::Conflict => {}
                other => gone_is_fine(other)?,
            }
        }
    }
    Ok(())
}

fn gone_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() == Kind::NotFound => Ok(()),
        other => other,
    }
}
