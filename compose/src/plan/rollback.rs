//! The way back from an update that failed: the containers that were replaced take their places again, as
//! `deploy.rollback_config` says. They were kept for it, so what comes back is what there was: image, configuration and
//! what they had written.

use std::collections::{BTreeMap, BTreeSet};

use super::pace::Pace;
use super::{Plan, StepId};
use crate::cause::Cause;
use crate::desired::{Desired, Update};
use crate::observe::{Observed, SeenContainer};
use crate::operation::{Existing, Instance, Milestone, Operation};

/// Plans the way back of these services to what there was before.
pub fn rollback(
    desired: &Desired,
    before: &Observed,
    observed: &Observed,
    services: &BTreeSet<String>,
) -> Plan {
    let mut plan = Plan::default();
    for service in services {
        let update = desired.services.get(service).map(|service| service.rollback).unwrap_or_default();
        let (places, surplus) = places(&mut plan, before, observed, service);
        Back { plan: &mut plan, update }.service(service, &places, &surplus);
    }
    plan
}

/// The place of a container that served before.
struct Place<'a> {
    /// The name it had.
    name: &'a str,
    /// The container.
    old: &'a SeenContainer,
    /// The one that took its place, or was to.
    new: Option<&'a SeenContainer>,
}

/// The places of the containers that were up before, and the new containers that took nobody's.
fn places<'a>(
    plan: &mut Plan,
    before: &'a Observed,
    observed: &'a Observed,
    service: &'a str,
) -> (Vec<Place<'a>>, Vec<&'a SeenContainer>) {
    let is_old = |seen: &&SeenContainer| before.containers.iter().any(|old| old.id == seen.id);
    let new = observed.of_service(service).filter(|seen| !is_old(seen));
    let mut new: BTreeMap<u32, &SeenContainer> = new.map(|seen| (seen.number, seen)).collect();
    let mut places = Vec::new();
    for was in before.of_service(service).filter(|old| old.life.is_up() && !old.held) {
        let successor = new.remove(&was.number);
        match observed.containers.iter().find(|seen| seen.id == was.id) {
            Some(old) => places.push(Place { name: &was.name, old, new: successor }),
            // What took its place is better than nothing.
            None => plan.warn(format!("container {} of before is gone and cannot come back", was.name)),
        }
    }
    (places, new.into_values().collect())
}

/// The way back of one service.
struct Back<'a> {
    plan: &'a mut Plan,
    update: Update,
}

// === impl Place ===

impl Place<'_> {
    /// Whether its container never stopped serving.
    fn serves(&self) -> bool {
        self.old.life.is_up() && !self.old.held
    }

    fn container(&self) -> Existing {
        self.old.existing()
    }
}

// === impl Back ===

impl Back<'_> {
    fn service(&mut self, service: &str, places: &[Place<'_>], surplus: &[&SeenContainer]) {
        let left = places.iter().filter(|place| !place.serves()).count();
        let mut pace = Pace::new(service, self.update, left);
        for place in places {
            if place.serves() {
                self.keep(place);
                continue;
            }
            let gate = pace.gate().to_vec();
            let last = match place.new.filter(|new| self.update.start_first && new.life.is_up() && !new.held)
            {
                Some(new) => self.take_over(place, new, &gate),
                None => self.put_back(place, &gate),
            };
            pace.follow(self.plan, last);
        }
        pace.end(self.plan);
        for new in surplus {
            self.remove(new, &[]);
        }
    }

    /// One that still serves stays; who was to take its place goes.
    fn keep(&mut self, place: &Place<'_>) {
        let removed = place.new.map(|new| self.remove(new, &[]));
        self.name_back(place, removed);
    }

    /// Lets the old one serve as soon as it is ready, and the new one until then.
    fn take_over(&mut self, place: &Place<'_>, new: &SeenContainer, gate: &[StepId]) -> StepId {
        let mut after = gate.to_vec();
        if !place.old.held {
            after = vec![self.add(Operation::HoldBack { container: place.container() }, after)];
        }
        let instance = Instance::Existing(place.container());
        if !place.old.life.is_up() {
            after = vec![self.add(Operation::StartContainer { instance: instance.clone() }, after)];
        }
        let prove = Operation::Prove { instance: instance.clone(), monitor: self.update.monitor, kept: true };
        let proved = self.add(prove, after);
        let from = Some(new.existing());
        let taken =
            self.add(Operation::HandOver { from, to: instance, name: place.name.to_owned() }, [proved]);
        self.remove(new, &[taken]);
        taken
    }

    /// Stops the new one, and lets the old one run again.
    fn put_back(&mut self, place: &Place<'_>, gate: &[StepId]) -> StepId {
        let mut after = gate.to_vec();
        after.extend(place.new.map(|new| self.remove(new, gate)));
        let instance = Instance::Existing(place.container());
        if !place.old.life.is_up() {
            after = vec![self.add(Operation::StartContainer { instance: instance.clone() }, after)];
        }
        if place.old.held {
            let name = place.name.to_owned();
            after = vec![self.add(Operation::HandOver { from: None, to: instance.clone(), name }, after)];
        } else {
            after.extend(self.name_back(place, after.first().copied()));
        }
        let service = place.old.service.clone();
        let instances = vec![instance.clone()];
        let wait = Operation::Await { service, instances, milestone: Milestone::Ready, required: true };
        let ready = self.add(wait, after);
        match self.update.monitor {
            Some(time) => self.add(Operation::Watch { instance, time }, [ready]),
            None => ready,
        }
    }

    fn name_back(&mut self, place: &Place<'_>, after: Option<StepId>) -> Option<StepId> {
        let rename = Operation::RenameContainer { container: place.container(), to: place.name.to_owned() };
        (place.old.name != place.name).then(|| self.add(rename, after))
    }

    /// Stops and removes one of the new containers.
    fn remove(&mut self, new: &SeenContainer, after: &[StepId]) -> StepId {
        let mut after = after.to_vec();
        if new.life.is_up() {
            after =
                vec![self.add(Operation::StopContainer { container: new.existing(), grace: None }, after)];
        }
        self.add(Operation::RemoveContainer { container: new.existing(), volumes: false }, after)
    }

    fn add(&mut self, operation: Operation, after: impl IntoIterator<Item = StepId>) -> StepId {
        self.plan.add(operation, Cause::UpdateFailed, after)
    }
}
