//! Going back to what there was when a rollout began. It looks at what there is, does what is missing, and can be begun
//! again as often as it is cut off.

use engine::container::state::State;
use engine::error::{Error, Kind, Result};
use engine::id::ContainerId;
use engine::{Container, Engine, RemoveOptions, StopOptions};

use compose::observe::{SeenContainer, containers};
use compose::runtime::{parking, ready};

use super::journal::{Journal, Stage, Standing};
use super::places::Places;
use super::{history, pins, reserve, rollout};
use crate::release::{Outcome, Strategy};

/// Puts right what a rollout that was cut off left: goes on when it was decided, goes back otherwise. Whoever calls
/// holds the project's lock.
pub(crate) fn recover(engine: &Engine, places: &Places) -> Result<bool> {
    let Some(journal) = Journal::read(places)? else { return Ok(false) };
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
    reserve::give_back(places)?;
    Undo { engine, journal }.restore()?;
    pins::give_back(engine, &journal.before.images)?;
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

/// What is gone back from.
struct Undo<'a> {
    engine: &'a Engine,
    journal: &'a Journal,
}

impl Undo<'_> {
    /// Lets the containers of before answer again and removes those that were not there.
    fn restore(&self) -> Result<()> {
        let (engine, before) = (self.engine, &self.journal.before);
        let now = containers(engine, &self.journal.release.project, None)?;
        let is_old = |seen: &&SeenContainer| before.containers.iter().any(|old| old.id == seen.id.as_str());
        let new: Vec<&SeenContainer> = now.iter().filter(|seen| !seen.one_off && !is_old(seen)).collect();
        for old in &before.containers {
            let Some(seen) = now.iter().find(|seen| seen.id.as_str() == old.id) else { continue };
            let successor = new.iter().find(|new| new.service == old.service && new.number == old.number);
            self.bring_back(old, seen, successor.copied())?;
        }
        if self.journal.stage == Stage::Sharing {
            self.let_go(&new)?;
        }
        for seen in new {
            gone_is_fine(engine.remove(&seen.id, &RemoveOptions { force: true, volumes: false }))?;
        }
        for old in &before.containers {
            name_back(engine, old)?;
        }
        Ok(())
    }

    /// Nobody new is led to these; whoever is served by one of them already may end.
    fn let_go(&self, new: &[&SeenContainer]) -> Result<()> {
        new.iter().try_for_each(|seen| self.engine.unshare_ports(&seen.id))?;
        let drain = self.journal.release.policy.drain();
        for seen in new {
            parking::drained(self.engine, &seen.id, drain);
        }
        Ok(())
    }

    /// Lets one container of before run and answer as it did.
    fn bring_back(
        &self,
        old: &Standing,
        seen: &SeenContainer,
        successor: Option<&SeenContainer>,
    ) -> Result<()> {
        let engine = self.engine;
        let changing = self.journal.stage.touches_who_answers();
        let mut container = engine.container(seen.id.as_str())?;
        if container.state.is_running() && changing && successor.is_some() && self.stops_first(&old.service) {
            // Whoever was cut off may have asked it to stop, which it does not forget: that has to be over first.
            // Its ports stay where they are, so that it gets the same again.
            engine.park_ports(&seen.id, &seen.id, &|port| Some(port.target))?;
            engine.stop(&seen.id, &StopOptions::default())?;
            container = engine.container(seen.id.as_str())?;
        }
        let runs = container.state.is_running();
        // A cut in the middle of parking or handing over leaves marks and ports that do not agree.
        let gave_up = !old.held && (container.record.spec.held || (runs && changing));
        match (runs, old.is_up, gave_up) {
            // It never stopped serving.
            (true, _, false) | (false, false, false) => Ok(()),
            (true, _, true) => take_back(engine, successor, &seen.id),
            (false, _, _) => {
                // What has its ports must not stand in the way, and must not take them along.
                if let Some(successor) = successor {
                    engine.park_ports(&successor.id, &seen.id, &|port| Some(port.target))?;
                    let all = RemoveOptions { force: true, volumes: false };
                    gone_is_fine(engine.remove(&successor.id, &all))?;
                }
                if !old.is_up {
                    return if old.held { Ok(()) } else { engine.hold_no_longer(&seen.id) };
                }
                // Nobody is led to it before it can serve.
                engine.hold_back(&seen.id)?;
                engine.start(&seen.id)?;
                // It ran before; when it does not get ready now, it is at least where it was.
                let _ = ready::wait(engine, &seen.id, self.journal.release.policy.ready_within());
                take_back(engine, None, &seen.id)
            }
        }
    }

    fn stops_first(&self, service: &str) -> bool {
        self.journal.release.policy.strategies.get(service) != Some(&Strategy::StartFirst)
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
