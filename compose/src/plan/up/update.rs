//! How the containers of a service that says so are replaced: so many at a time, the new one before or after the old one,
//! and until too many have failed (`deploy.update_config`, as docker's swarm understands it).

use std::collections::BTreeSet;

use super::{Fate, Planner, Slot};
use crate::cause::Cause;
use crate::desired::{OnFailure, Update};
use crate::observe::SeenContainer;
use crate::operation::{Existing, Milestone, Operation};
use crate::plan::StepId;
use crate::plan::pace::Pace;

/// The steps by which one container is replaced.
struct Replaced {
    /// After it the new one is ready.
    ready: StepId,
    /// After it the new one has the place of the old one.
    taken: StepId,
    /// After it the old one does not run any more.
    stopped: StepId,
}

// === impl Planner ===

impl Planner<'_> {
    /// The container that gives way in a slot as its service says, and why.
    pub(super) fn updated<'s>(&'s self, slot: &'s Slot<'_>) -> Option<(&'s SeenContainer, &'s Cause)> {
        match &slot.fate {
            Fate::Replace(seen, cause) => {
                let says_how = self.service(slot.service).is_some_and(|service| service.update.is_some());
                (says_how && seen.life.is_up() && self.starting.contains(slot.service))
                    .then_some((*seen, cause))
            }
            Fate::Keep(heir) if self.options.start => {
                self.superseded.get(&heir.id).map(|old| (*old, &Cause::LeftOver))
            }
            Fate::Keep(_) | Fate::New(_) => None,
        }
    }

    /// Whether containers of a service are replaced and come back when that fails.
    pub(super) fn may_go_back(&self, service: &str) -> bool {
        let update = self.service(service).and_then(|service| service.update);
        update.is_some_and(|update| update.on_failure == OnFailure::Rollback)
            && self.slots.get(service).into_iter().flatten().any(|slot| self.updated(slot).is_some())
    }

    /// Replaces these containers of a service.
    pub(super) fn add_update(&mut self, service: &str, slots: &[Slot<'_>], gates: &[StepId]) {
        if slots.is_empty() {
            return;
        }
        let update = self.service(service).and_then(|service| service.update).unwrap_or_default();
        let mut pace = Pace::new(service, update, slots.len());
        let keeps = pace.bears_failures() || update.on_failure == OnFailure::Rollback;
        let mut retired: Vec<(Existing, StepId)> = Vec::new();
        for slot in slots {
            let Some((old, cause)) = self.updated(slot).map(|(old, cause)| (old.clone(), cause.clone()))
            else {
                continue;
            };
            let after = gates.iter().chain(pace.gate()).copied().collect();
            let replaced = self.replace(slot, (&old, &cause), update, after);
            if keeps {
                retired.push((old.existing(), replaced.stopped));
            } else {
                self.retire(old.existing(), Cause::Replaced, [replaced.taken]);
            }
            pace.follow(&mut self.plan, replaced.ready);
        }
        let over = pace.end(&mut self.plan);
        for (old, stopped) in retired {
            self.retire(old, Cause::Replaced, over.iter().copied().chain([stopped]));
        }
        self.retire_surplus(service, &over);
        self.started.entry(service.to_owned()).or_default().extend(over);
    }

    /// Replaces one container.
    fn replace(
        &mut self,
        slot: &Slot<'_>,
        (old, cause): (&SeenContainer, &Cause),
        update: Update,
        gate: BTreeSet<StepId>,
    ) -> Replaced {
        let mut after = gate;
        after.extend(self.created.get(&slot.name));
        let mut stopped = None;
        if !update.start_first && old.life.is_up() {
            let stop = self.stop(old, Cause::Replaced, after.clone());
            stopped = Some(stop);
            after.insert(stop);
        }
        after.extend(self.networks_of(slot.service));
        after.extend(self.cleared.get(slot.service).into_iter().flatten());
        if !slot.is_up() && self.starting.contains(slot.service) {
            let start = Operation::StartContainer { instance: slot.instance() };
            after = BTreeSet::from([self.plan.add(start, cause.clone(), after)]);
        }
        if !self.is_held(slot) && !matches!(slot.fate, Fate::Keep(_)) {
            let started = after.last().copied();
            let ready = self.see_that_it_stays(slot, update, after);
            let taken = started.unwrap_or(ready);
            return Replaced { ready, taken, stopped: stopped.unwrap_or(taken) };
        }
        if !update.start_first && !self.options.staged {
            // Nobody is served meanwhile: who connects waits no longer than until it is ready. One that does not get
            // ready stays to be looked at, as nobody else is there.
            let (_, taken) = self.take_over(Some(old), slot.instance(), &slot.name, (None, true), after);
            let ready = self.watched(slot, update, taken);
            return Replaced { ready, taken, stopped: stopped.unwrap_or(taken) };
        }
        let patience = (update.monitor, false);
        let (proved, taken) = self.take_over(Some(old), slot.instance(), &slot.name, patience, after);
        // What depends on it can be made ready before anything changes for those outside.
        let ready = if self.options.staged { proved } else { taken };
        let is_over = !update.start_first || !old.life.is_up();
        let taken = if is_over { taken } else { self.stop(old, Cause::Replaced, [taken]) };
        Replaced { ready, taken, stopped: stopped.unwrap_or(taken) }
    }

    /// Waits until a container that has its place already is ready, and as long as it is watched.
    fn see_that_it_stays(&mut self, slot: &Slot<'_>, update: Update, started: BTreeSet<StepId>) -> StepId {
        let (service, instances) = (slot.service.to_owned(), vec![slot.instance()]);
        let wait = Operation::Await { service, instances, milestone: Milestone::Ready, required: true };
        let ready = self.plan.add(wait, Cause::Asked, started);
        self.watched(slot, update, ready)
    }

    /// Watches a container that is ready, as long as the service says.
    fn watched(&mut self, slot: &Slot<'_>, update: Update, ready: StepId) -> StepId {
        let Some(time) = update.monitor else { return ready };
        let watch = Operation::Watch { instance: slot.instance(), time };
        self.plan.add(watch, Cause::Asked, [ready])
    }

    /// What the service has too many of and might have needed again.
    fn retire_surplus(&mut self, service: &str, over: &[StepId]) {
        let (surplus, others) = self.surplus.iter().partition(|extra| extra.service == service);
        self.surplus = others;
        let surplus: Vec<&SeenContainer> = surplus;
        for extra in surplus {
            let stopped = extra.life.is_up().then(|| self.stop(extra, Cause::ScaledDown, over.to_vec()));
            self.retire(extra.existing(), Cause::ScaledDown, over.iter().copied().chain(stopped));
        }
    }

    fn retire(&mut self, old: Existing, cause: Cause, after: impl IntoIterator<Item = StepId>) {
        let volumes = self.options.renew_volumes || cause == Cause::ScaledDown;
        self.plan.add(Operation::RemoveContainer { container: old, volumes }, cause, after);
    }
}
