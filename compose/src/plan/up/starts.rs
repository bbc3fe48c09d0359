//! The steps that stop and start containers, and what they wait for.

use std::collections::BTreeSet;

use engine::quantity::Span;

use super::{Fate, Orphans, Planner, Slot, orphans};
use crate::cause::Cause;
use crate::desired::Needs;
use crate::observe::SeenContainer;
use crate::operation::{Instance, Milestone, Operation};
use crate::plan::StepId;

impl Planner<'_> {
    /// Stops, dependents first, what is replaced and what restarts with it.
    pub(super) fn add_stops(&mut self) {
        for name in self.order.clone().into_iter().rev() {
            let dependents: Vec<StepId> = self
                .desired
                .services
                .iter()
                .filter(|(_, service)| service.depends_on.get(&name).is_some_and(|needs| needs.restart))
                .flat_map(|(other, _)| self.slots.get(other).into_iter().flatten())
                .filter_map(|slot| slot.seen().and_then(|seen| self.stopped.get(&seen.id)).copied())
                .collect();
            for slot in self.slots.get(&name).cloned().into_iter().flatten() {
                match &slot.fate {
                    // Where the service says how, stopping is a part of that.
                    Fate::Replace(seen, _)
                        if seen.life.is_up()
                            && self.starting.contains(&name)
                            && self.service(&name).is_some_and(|service| service.update.is_some()) => {}
                    Fate::Replace(seen, _) if seen.life.is_up() && !self.stopped.contains_key(&seen.id) => {
                        let after: Vec<StepId> =
                            self.created.get(&slot.name).into_iter().chain(&dependents).copied().collect();
                        self.stop(seen, Cause::Replaced, after);
                    }
                    Fate::Keep(seen) if !self.stopped.contains_key(&seen.id) => {
                        if let Some(cause) = self.restarting.get(&seen.id).cloned() {
                            // Not before what it restarts for is ready to take over.
                            let mut after = dependents.clone();
                            after.extend(self.successors_of_dependencies(&name));
                            self.stop(seen, cause, after);
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// The creations of the containers that replace ones of services this one restarts with.
    pub(super) fn successors_of_dependencies(&self, name: &str) -> Vec<StepId> {
        let Some(service) = self.desired.services.get(name) else { return Vec::new() };
        service
            .depends_on
            .iter()
            .filter(|(_, needs)| needs.restart)
            .flat_map(|(dependency, _)| self.slots.get(dependency).into_iter().flatten())
            .filter_map(|slot| self.created.get(&slot.name).copied())
            .collect()
    }

    pub(super) fn add_starts(&mut self) {
        for name in self.order.clone() {
            let starts = self.starting.contains(&name);
            let one_off = self.options.one_off_of.as_ref() == Some(&name);
            let gates = if starts || one_off { self.gates(&name) } else { Vec::new() };
            let slots: Vec<Slot<'_>> = self.slots.get(&name).cloned().into_iter().flatten().collect();
            let (updated, others): (Vec<Slot<'_>>, Vec<Slot<'_>>) =
                slots.into_iter().partition(|slot| self.updated(slot).is_some());
            self.add_update(&name, &updated, &gates);
            for slot in others {
                let mut done: BTreeSet<StepId> = BTreeSet::new();
                done.extend(self.created.get(&slot.name));
                done.extend(slot.seen().and_then(|seen| self.stopped.get(&seen.id)));
                let restarts = self.restarts(&slot);
                if starts && (restarts || !slot.is_up()) {
                    let mut after = done.clone();
                    after.extend(&gates);
                    after.extend(self.networks_of(&name));
                    after.extend(self.cleared.get(&name).into_iter().flatten());
                    let start = Operation::StartContainer { instance: slot.instance() };
                    let step = self.plan.add(start, self.why_start(&slot), after);
                    let (ready, taken) = self.release_held(&slot, Some(step)).unwrap_or((step, step));
                    self.started.entry(name.clone()).or_default().push(ready);
                    done = BTreeSet::from([taken]);
                } else if starts || slot.is_up() || slot.ended_well().is_some() {
                    let released = self.release_held(&slot, None);
                    self.started.entry(name.clone()).or_default().extend(released.map(|(ready, _)| ready));
                }
                if let Fate::Replace(seen, _) = &slot.fate {
                    let remove = Operation::RemoveContainer {
                        container: seen.existing(),
                        volumes: self.options.renew_volumes,
                    };
                    self.plan.add(remove, Cause::Replaced, done);
                }
            }
        }
    }

    /// Waits until a container that is held back is ready, then hands over to it. The two steps, in this order.
    pub(super) fn take_over(
        &mut self,
        from: Option<&SeenContainer>,
        to: Instance,
        name: &str,
        (monitor, kept): (Option<Span>, bool),
        after: impl IntoIterator<Item = StepId>,
    ) -> (StepId, StepId) {
        let cause = if from.is_some() { Cause::Asked } else { Cause::Missing };
        let prove = Operation::Prove { instance: to.clone(), monitor, kept };
        let proved = self.plan.add(prove, Cause::Asked, after);
        let from = from.map(SeenContainer::existing);
        let hand_over = Operation::HandOver { from, to, name: name.to_owned() };
        (proved, self.plan.add(hand_over, cause, [proved]))
    }

    /// A container that is held back and has nobody to take over from that runs takes its place as soon as it is ready. The
    /// steps after which it is ready for those who depend on it, and has its place.
    pub(super) fn release_held(
        &mut self,
        slot: &Slot<'_>,
        started: Option<StepId>,
    ) -> Option<(StepId, StepId)> {
        let is_held = match &slot.fate {
            Fate::Keep(seen) => seen.held,
            Fate::New(_) | Fate::Replace(..) => self.is_held(slot),
        };
        if !is_held {
            return None;
        }
        let monitor = self.service(slot.service)?.update.and_then(|update| update.monitor);
        let from = match slot.fate {
            Fate::Replace(old, _) => Some(old),
            Fate::Keep(_) | Fate::New(_) => None,
        };
        let (proved, taken) = self.take_over(from, slot.instance(), &slot.name, (monitor, false), started);
        Some((if self.options.staged { proved } else { taken }, taken))
    }

    pub(super) fn why_start(&self, slot: &Slot<'_>) -> Cause {
        match &slot.fate {
            Fate::Keep(seen) => self.restarting.get(&seen.id).cloned().unwrap_or(Cause::NotRunning),
            Fate::Replace(_, cause) | Fate::New(cause) => cause.clone(),
        }
    }

    pub(super) fn networks_of(&self, service: &str) -> Vec<StepId> {
        let networks = self.desired.services.get(service).map(|service| &service.networks);
        networks.into_iter().flatten().filter_map(|key| self.networks.get(key).copied()).collect()
    }

    /// The steps that have to be done before a service's containers start.
    pub(super) fn gates(&mut self, name: &str) -> Vec<StepId> {
        let Some(service) = self.desired.services.get(name) else { return Vec::new() };
        let mut gates = Vec::new();
        for (dependency, needs) in &service.depends_on {
            let is_wanted = !self.options.no_dependencies || self.options.services.contains(dependency);
            let in_reach = is_wanted && self.scope.contains(dependency);
            if in_reach && self.desired.services[dependency.as_str()].scale > 0 {
                gates.extend(self.gate(dependency, *needs));
            }
        }
        gates
    }

    /// A service that runs already still needs what is started beside it: a migration that fails has failed for it, too.
    pub(super) fn add_needs_of_standing(&mut self) {
        let desired = self.desired;
        for name in self.order.clone() {
            let stands = self.slots.get(&name).into_iter().flatten().any(Slot::is_up);
            if !stands || self.starting.contains(&name) {
                continue;
            }
            for (dependency, needs) in
                desired.services.get(&name).into_iter().flat_map(|service| &service.depends_on)
            {
                if needs.milestone != Milestone::Started && self.starting.contains(dependency) {
                    self.gate(dependency, *needs);
                }
            }
        }
    }

    pub(super) fn gate(&mut self, dependency: &str, needs: Needs) -> Vec<StepId> {
        let started = self.started.get(dependency).cloned().unwrap_or_default();
        if needs.milestone == Milestone::Started && needs.required {
            return started;
        }
        if needs.milestone == Milestone::Started && started.is_empty() {
            return Vec::new();
        }
        let key = (dependency.to_owned(), needs.milestone, needs.required);
        if let Some(step) = self.awaited.get(&key) {
            return vec![*step];
        }
        let step = self.add_wait(dependency, needs.milestone, needs.required, started);
        self.awaited.insert(key, step);
        vec![step]
    }

    pub(super) fn add_wait(
        &mut self,
        service: &str,
        milestone: Milestone,
        required: bool,
        after: Vec<StepId>,
    ) -> StepId {
        let instances = self.slots.get(service).into_iter().flatten().map(Slot::instance).collect();
        let wait = Operation::Await { service: service.to_owned(), instances, milestone, required };
        self.plan.add(wait, Cause::Asked, after)
    }

    /// `--wait`: every service is ready, or has ended well where others wait for its end.
    pub(super) fn add_waits(&mut self) {
        if !(self.options.wait && self.options.start) {
            return;
        }
        for name in self.order.clone() {
            let is_job = self.desired.services.values().any(|service| {
                service.depends_on.get(&name).is_some_and(|needs| needs.milestone == Milestone::Completed)
            });
            let milestone = if is_job { Milestone::Completed } else { Milestone::Settled };
            let empty = self.slots.get(&name).is_none_or(Vec::is_empty);
            if !empty && !self.is_awaited(&name, milestone) {
                let started = self.started.get(&name).cloned().unwrap_or_default();
                self.add_wait(&name, milestone, true, started);
            }
        }
    }

    /// Whether a step of the plan waits for it already. What is healthy is ready.
    fn is_awaited(&self, name: &str, milestone: Milestone) -> bool {
        let known = |milestone| self.awaited.contains_key(&(name.to_owned(), milestone, true));
        known(milestone) || (milestone == Milestone::Settled && known(Milestone::Healthy))
    }

    pub(super) fn treat_orphans(&mut self) {
        let orphans = orphans(self.desired, self.observed);
        match self.options.orphans {
            Orphans::Ignore => {}
            Orphans::Warn => {
                if !orphans.is_empty() {
                    let names: Vec<&str> = orphans.iter().map(|container| container.name.as_str()).collect();
                    self.plan.warn(format!(
                        "found orphan containers ({}) for this project; if you removed or renamed this service in your compose file, run this command with --remove-orphans to clean it up",
                        names.join(", ")
                    ));
                }
            }
            Orphans::Remove => {
                for container in orphans {
                    let stopped = container.life.is_up().then(|| self.stop(container, Cause::Orphan, []));
                    let remove =
                        Operation::RemoveContainer { container: container.existing(), volumes: false };
                    self.plan.add(remove, Cause::Orphan, stopped);
                }
            }
        }
    }

    pub(super) fn stop(
        &mut self,
        container: &SeenContainer,
        cause: Cause,
        after: impl IntoIterator<Item = StepId>,
    ) -> StepId {
        if let Some(step) = self.stopped.get(&container.id) {
            return *step;
        }
        let stop = Operation::StopContainer { container: container.existing(), grace: self.options.grace };
        let step = self.plan.add(stop, cause, after);
        self.stopped.insert(container.id.clone(), step);
        step
    }
}
