//! A rollout on one host: prepare, commit, finish. Each of them looks at what there is and plans from that, so that one
//! that was cut off and begun again goes on where it was.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use compose::cause::Cause;
use compose::observe::{Observed, observe};
use compose::operation::{Existing, Operation};
use compose::plan::{Plan, Step, StepId};
use compose::runtime::parking::{Parked, drained};
use compose::runtime::{Failure, Runtime};
use engine::Engine;
use engine::error::{Error, Result};
use engine::network::Draw;
use engine::quantity::{Percent, Span};
use jiff::Timestamp;

use super::canary::Canary;
use super::journal::{Before, Journal, Move, Stage, Standing};
use super::opened::{Opened, Settled};
use super::places::Places;
use super::prober::Prober;
use super::telling::Teller;
use super::{Tell, brought, guard, history, journal, opened, pins, ports, prune, reserve, telling, undo};
use crate::message::{Event, Measured, Planned, Rollout, millis};
use crate::release::{Outcome, Release};
use crate::walk;

/// A rollout that goes on.
pub(crate) struct Running {
    engine: Engine,
    places: Places,
    opened: Opened,
    journal: Journal,
    canary: Canary,
    parked: Parked,
    teller: Teller,
}

/// How many steps are done at once.
const AT_ONCE: usize = 16;

/// What a rollout would do, without doing it.
pub(crate) fn plan(engine: &Engine, places: &Places, rollout: &Rollout, tell: &Tell) -> Result<Planned> {
    let opened = Opened::new(engine, places, rollout, tell)?;
    let (absent, plan, stages) = opened.foresee(&rollout.release.images)?;
    let mut planned =
        planned(places, &rollout.release, &plan, [&stages.prepare, &stages.commit, &stages.retire])?;
    planned.prepare.splice(..0, absent.iter().map(|image| format!("image {image}: bring (not here)")));
    Ok(planned)
}

// === impl Running ===

impl Running {
    fn new(engine: &Engine, places: &Places, opened: Opened, journal: Journal, tell: &Tell) -> Self {
        Self {
            engine: engine.clone(),
            places: places.clone(),
            opened,
            journal,
            canary: Canary::default(),
            parked: Parked::default(),
            teller: Teller::new(tell),
        }
    }

    /// Makes everything ready. Nobody outside notices anything.
    pub(crate) fn prepare(
        engine: &Engine,
        places: &Places,
        rollout: &Rollout,
        tell: &Tell,
    ) -> Result<(Self, Planned)> {
        let (began, moment) = (Instant::now(), Timestamp::now());
        let mut opened = Opened::new(engine, places, rollout, tell)?;
        opened.began = Some(moment);
        let observed = observe(engine, opened.runtime.desired())?;
        ports::expect_free(engine, opened.runtime.project(), &rollout.services, &observed)?;
        let journal = Journal {
            version: journal::VERSION,
            release: rollout.release.clone(),
            rollback: rollout.rollback,
            author: rollout.author.clone(),
            previous: history::serving(places)?,
            began: moment,
            stage: Stage::Preparing,
            before: before(&observed),
            prepare_ms: 0,
            commit_ms: 0,
            downtime_ms: None,
        };
        brought::expect(engine, places, rollout.release.images_there())?;
        // Before the journal: a rollout that is written down is never without a guard.
        guard::post(engine, places, &rollout.release.project)?;
        journal.write(places).map_err(|error| Error::failed("write the journal", error))?;
        let mut running = Self::new(engine, places, opened, journal, tell);
        running.settle(&observed)?;
        let (_, plan, stages) = running.opened.plan()?;
        let planned =
            planned(places, &rollout.release, &plan, [&stages.prepare, &stages.commit, &stages.retire])?;
        running.walk(plan.only(&stages.prepare), &Runtime::perform)?;
        running.pin()?;
        reserve::keep(places, &running.journal.release)?;
        running.opened.settled = Settled::Here;
        running.journal.prepare_ms = millis(began.elapsed());
        running.advance(Move::Prepared)?;
        Ok((running, planned))
    }

    /// Settles what the names of images mean that decide what becomes of containers: a release that is gone back to has
    /// its meanings, and a new one those of the registries.
    fn settle(&mut self, observed: &Observed) -> Result<()> {
        let meanings = self.journal.release.pins.iter().map(|(name, image)| (name.clone(), image.id.clone()));
        pins::give_back(&self.engine, &meanings.collect())?;
        let fetch = self.opened.decisive(observed)?;
        let fetched = fetch.steps().iter().filter_map(|step| match &step.operation {
            Operation::PullImage { image, .. } => Some(image.clone()),
            _ => None,
        });
        let fetched = fetched.collect();
        self.walk(fetch, &Runtime::perform)?;
        if self.opened.settled != Settled::Here {
            self.opened.settled = Settled::Some(fetched);
        }
        self.pin()
    }

    /// Keeps what the names of images mean now.
    fn pin(&mut self) -> Result<()> {
        let observed = observe(&self.engine, self.opened.runtime.desired())?;
        self.journal.release.pins = pins::keep(&self.engine, &self.places, &observed)?;
        Ok(())
    }

    /// Lets the new containers that are ready have a part of the new connections. The services that they are of.
    pub(crate) fn share(&mut self, percent: Percent, draw: Draw) -> Result<Vec<String>> {
        self.advance(Move::Share)?;
        self.canary = Canary::share(&self.opened, percent, draw)?;
        Ok(self.canary.services())
    }

    /// Sees for so long how those do that have a part of the connections.
    pub(crate) fn watch(&self, time: Duration) -> Result<()> {
        self.canary.watch(&self.opened.runtime, time)
    }

    /// Lets the new release answer. The old containers stay until [`Running::finish`].
    pub(crate) fn commit(&mut self) -> Result<Measured> {
        let began = Instant::now();
        self.advance(Move::Commit)?;
        let (observed, plan, stages) = self.opened.plan()?;
        let prober = Prober::start(&self.published(&observed)?);
        let steps: BTreeSet<StepId> = stages.prepare.union(&stages.commit).copied().collect();
        let plan = plan.only(&steps);
        self.parked = Parked::of(&plan);
        let parked = self.parked.clone();
        let walked = self
            .walk(plan, &move |runtime: &Runtime, operation: &Operation| parked.perform(runtime, operation));
        self.journal.downtime_ms = prober.finish().map(millis);
        self.journal.commit_ms = millis(began.elapsed());
        walked?;
        self.advance(Move::Committed)?;
        Ok(Measured { took_ms: self.journal.commit_ms, downtime_ms: self.journal.downtime_ms })
    }

    /// Takes the old away, once nobody is served by it any more, and puts the rollout on record.
    pub(crate) fn finish(mut self, tell: &Tell) -> Result<()> {
        reserve::give_back(&self.places)?;
        self.advance(Move::Finish)?;
        self.retire(tell)
    }

    /// The part of finishing that is begun again when it was cut off.
    fn retire(self, tell: &Tell) -> Result<()> {
        history::keep(&self.places, &self.journal.release)?;
        opened::write_model(&self.places, &self.journal.release)?;
        let (_, plan, _) = self.opened.plan()?;
        let drain = self.opened.policy.drain();
        let (began, engine, told) = (Instant::now(), self.engine.clone(), tell.clone());
        self.walk(plan, &move |runtime: &Runtime, operation: &Operation| {
            if let Operation::StopContainer { container, .. } = operation {
                serve_out(&engine, container, drain, &told);
            }
            runtime.perform(operation)
        })?;
        // Those who waited are served through this process.
        self.parked.drain(drain.saturating_sub(began.elapsed()));
        history::record(&self.places, &self.journal.entry(Outcome::Served))?;
        Journal::close(&self.places).map_err(|error| Error::failed("close the journal", error))?;
        // What is too many can go another time; the rollout is done.
        if let Err(error) = prune::prune(&self.engine, &self.places, self.opened.policy.keep) {
            tell(Event::Remark(format!("WARNING: {}", engine::error::chain(&error))));
        }
        Ok(())
    }

    /// Leaves everything as it was before, and says why in the history.
    pub(crate) fn back_out(self, reason: Option<String>) -> Result<()> {
        undo::back_out(&self.engine, &self.places, &self.journal, reason)?;
        self.parked.pass_back(&self.engine)?;
        // Those who waited are served through this process.
        self.parked.drain(self.opened.policy.drain());
        Ok(())
    }

    fn advance(&mut self, word: Move) -> Result<()> {
        self.journal.stage =
            self.journal.stage.on(word).map_err(|error| Error::conflict(error.to_string()))?;
        self.journal.write(&self.places).map_err(|error| Error::failed("write the journal", error))
    }

    fn published(&self, observed: &Observed) -> Result<Vec<engine::network::PublishedPort>> {
        let networks = self.engine.networks();
        let mut all = Vec::new();
        for container in &observed.containers {
            all.extend(networks.published(&container.id)?);
        }
        Ok(all)
    }

    fn walk(
        &self,
        plan: Plan,
        perform: &(impl Fn(&Runtime, &Operation) -> Result<(), Failure> + Clone + Send + Sync + 'static),
    ) -> Result<()> {
        let runtime = self.opened.runtime.clone();
        let perform = perform.clone();
        walk::to_the_end(plan, AT_ONCE, move |operation| perform(&runtime, operation), &|event| {
            self.teller.hear(event);
        })
    }
}

/// Goes on with a rollout that was decided and cut off while the old went away.
pub(crate) fn go_on(engine: &Engine, places: &Places, journal: Journal) -> Result<()> {
    reserve::give_back(places)?;
    let tell: Tell = Arc::new(|_| {});
    let mut opened = Opened::as_it_serves(engine, places, journal.release.clone(), &tell)?;
    opened.began = Some(journal.began);
    Running::new(engine, places, opened, journal, &tell).retire(&tell)
}

/// Lets a container serve those who are connected, for so long, and tells of it when that is not soon over.
fn serve_out(engine: &Engine, container: &Existing, drain: Duration, tell: &Tell) {
    let soon = drain.min(telling::PATIENCE);
    let mut open = drained(engine, &container.id, soon);
    let say = |text: String| tell(Event::Remark(format!("Container {}  {text}", container.name)));
    if open > 0 && drain > soon {
        say(format!("Draining: {} for {} at the most", connections(open), Span(drain.saturating_sub(soon))));
        open = drained(engine, &container.id, drain.saturating_sub(soon));
    }
    if open > 0 {
        say(format!("is told to end with {} after {}", connections(open), Span(drain)));
    }
}

fn connections(count: usize) -> String {
    if count == 1 { "1 connection".to_owned() } else { format!("{count} connections") }
}

fn planned(
    places: &Places,
    release: &Release,
    plan: &Plan,
    stages: [&BTreeSet<StepId>; 3],
) -> Result<Planned> {
    let previous = history::serving(places)?;
    // A release that cannot be read has nothing to compare with.
    let serving = previous.as_ref().and_then(|id| history::find(places, id).ok());
    let cause = |step: &Step| match (&step.cause, step.operation.service(), &serving) {
        (Cause::ConfigChanged, Some(service), Some(serving))
            if release.differs_by_image(serving, service) =>
        {
            Cause::ImageChanged.to_string()
        }
        (cause, ..) => cause.to_string(),
    };
    let lines = |steps: &BTreeSet<StepId>| {
        let steps = steps.iter().filter_map(|step| plan.steps().get(*step));
        steps.map(|step| format!("{} ({})", step.operation, cause(step))).collect()
    };
    let changed: BTreeSet<String> = plan
        .steps()
        .iter()
        .filter_map(|step| match &step.operation {
            Operation::CreateContainer { service, .. } => Some(service.clone()),
            Operation::HandOver { to, .. } => Some(to.service().to_owned()),
            Operation::RemoveContainer { container, .. } => Some(container.service.clone()),
            Operation::StartContainer { instance } => Some(instance.service().to_owned()),
            _ => None,
        })
        .collect();
    Ok(Planned {
        prepare: lines(stages[0]),
        commit: lines(stages[1]),
        retire: lines(stages[2]),
        changed: changed.into_iter().collect(),
        previous,
    })
}

fn before(observed: &Observed) -> Before {
    let containers = observed.containers.iter().filter(|container| !container.one_off);
    Before {
        containers: containers
            .map(|container| Standing {
                id: container.id.to_string(),
                name: container.name.clone(),
                service: container.service.clone(),
                number: container.number,
                is_up: container.life.is_up(),
                held: container.held,
            })
            .collect(),
        networks: observed.networks.keys().cloned().collect(),
        images: observed.images.iter().map(|(name, id)| (name.clone(), id.to_string())).collect(),
    }
}
