//! The plans of the verbs that change containers and make none: start, stop, restart, kill, pause, unpause, rm.

use std::collections::BTreeMap;

use engine::container::spec::Grace;
use engine::signal::Signal;

use super::{Plan, PlanError, StepId};
use crate::cause::Cause;
use crate::desired::Desired;
use crate::graph;
use crate::observe::{Life, Observed, SeenContainer};
use crate::operation::{Instance, Milestone, Operation, Provision};

/// A verb and what it needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Start what does not run, in the order of the dependencies.
    Start {
        /// Whether to wait until every service is ready.
        wait: bool,
    },
    /// Stop what runs, dependents first.
    Stop {
        /// How long it may take.
        grace: Option<Grace>,
    },
    /// Stop and start.
    Restart {
        /// How long stopping may take.
        grace: Option<Grace>,
        /// Whether services that restart with these are left alone.
        no_dependents: bool,
    },
    /// Send a signal to what runs.
    Kill {
        /// The signal.
        signal: Signal,
    },
    /// Freeze what runs.
    Pause,
    /// Thaw what is frozen.
    Unpause,
    /// Remove what does not run.
    Remove {
        /// Whether to stop what runs first.
        stop: bool,
        /// Whether anonymous volumes go too.
        volumes: bool,
    },
}

/// Plans a verb for the containers of these services, of all when none is named.
pub fn apply(
    desired: &Desired,
    observed: &Observed,
    services: &[String],
    verb: Verb,
) -> Result<Plan, PlanError> {
    if let Some(unknown) = services.iter().find(|name| !desired.services.contains_key(*name)) {
        return Err(PlanError::NoSuchService(unknown.clone()));
    }
    // What is started needs what it depends on.
    let reach = matches!(verb, Verb::Start { .. }).then(|| graph::with_dependencies(desired, services));
    let mut order = graph::order(desired)?;
    order.retain(|name| match &reach {
        Some(reach) => reach.contains(name),
        None => services.is_empty() || services.contains(name),
    });
    let mut verbs = Verbs { desired, observed, order, plan: Plan::default() };
    match verb {
        Verb::Start { wait } => {
            verbs.must_exist(services)?;
            verbs.warn_of_changes();
            verbs.start(&BTreeMap::new(), wait);
        }
        Verb::Stop { grace } => {
            let stopped = verbs.stop(grace, |_| true);
            verbs.stop_provided(&stopped);
        }
        Verb::Restart { grace, no_dependents } => {
            verbs.warn_of_changes();
            verbs.restart(grace, no_dependents);
        }
        Verb::Kill { signal } => {
            verbs.each(|life| life.is_up(), |container| Operation::KillContainer { container, signal });
        }
        Verb::Pause => {
            verbs.each(|life| life == Life::Running, |container| Operation::PauseContainer { container });
        }
        Verb::Unpause => {
            verbs.each(|life| life == Life::Paused, |container| Operation::UnpauseContainer { container });
        }
        Verb::Remove { stop, volumes } => verbs.remove(stop, volumes),
    }
    Ok(verbs.plan)
}

struct Verbs<'a> {
    desired: &'a Desired,
    observed: &'a Observed,
    order: Vec<String>,
    plan: Plan,
}

impl<'a> Verbs<'a> {
    fn containers(&self, service: &str) -> Vec<&'a SeenContainer> {
        let mut containers: Vec<&SeenContainer> = self
            .observed
            .containers
            .iter()
            .filter(|container| container.service == service && !container.one_off)
            .collect();
        containers.sort_by_key(|container| container.number);
        containers
    }

    fn each(
        &mut self,
        fits: impl Fn(Life) -> bool,
        operation: impl Fn(crate::operation::Existing) -> Operation,
    ) {
        for name in self.order.clone() {
            for container in self.containers(&name) {
                if fits(container.life) {
                    self.plan.add(operation(container.existing()), Cause::Asked, []);
                }
            }
        }
    }

    /// Nothing is made here: a service that was asked for, or that one of those cannot do without, has to have containers.
    /// When none was asked for, what there is counts.
    fn must_exist(&self, asked: &[String]) -> Result<(), PlanError> {
        let is_needed = |name: &String| {
            let needs_it = |other: &String| {
                let other = &self.desired.services[other];
                other.shares.contains(name) || other.depends_on.get(name).is_some_and(|needs| needs.required)
            };
            asked.contains(name) || self.order.iter().any(needs_it)
        };
        if asked.is_empty() && self.order.iter().any(|name| !self.containers(name).is_empty()) {
            return Ok(());
        }
        let is_missing = |name: &&String| {
            let is_asked = asked.is_empty() || is_needed(name);
            self.desired.services[*name].scale > 0 && self.containers(name).is_empty() && is_asked
        };
        let missing = self.order.iter().find(is_missing);
        missing.map_or(Ok(()), |name| Err(PlanError::NothingToStart(name.clone())))
    }

    /// Containers stay what they were made of, whatever the files say by now.
    fn warn_of_changes(&mut self) {
        let has_changed = |name: &&String| {
            let wanted = &self.desired.services[*name].config_hash;
            self.containers(name)
                .iter()
                .any(|seen| !seen.config_hash.is_empty() && seen.config_hash != *wanted)
        };
        let changed: Vec<&str> = self.order.iter().filter(has_changed).map(String::as_str).collect();
        if !changed.is_empty() {
            let changed = changed.join(", ");
            self.plan.warn(format!("{changed}: the configuration has changed since, which `rcompose up` applies and this does not"));
        }
    }

    /// Starts what does not run, and what was stopped by these steps.
    fn start(&mut self, stopped: &BTreeMap<String, StepId>, wait: bool) {
        let mut started: BTreeMap<String, Vec<StepId>> = BTreeMap::new();
        for name in self.order.clone() {
            let mut gates = Vec::new();
            let idle: Vec<&SeenContainer> = self
                .containers(&name)
                .into_iter()
                .filter(|container| !container.life.is_up() || stopped.contains_key(&container.name))
                .collect();
            if !idle.is_empty() {
                gates = self.gates(&name, &started);
            }
            for container in idle {
                let after = gates.iter().chain(stopped.get(&container.name)).copied();
                let start = Operation::StartContainer { instance: Instance::Existing(container.existing()) };
                let step = self.plan.add(start, Cause::Asked, after);
                started.entry(name.clone()).or_default().push(step);
            }
        }
        if wait {
            for name in self.order.clone() {
                let after = started.get(&name).cloned().unwrap_or_default();
                self.wait(&name, Milestone::Settled, true, after);
            }
        }
    }

    fn gates(&mut self, name: &str, started: &BTreeMap<String, Vec<StepId>>) -> Vec<StepId> {
        let desired = self.desired;
        let Some(service) = desired.services.get(name) else { return Vec::new() };
        let mut gates = Vec::new();
        for (dependency, needs) in &service.depends_on {
            if !self.order.contains(dependency) || self.containers(dependency).is_empty() {
                continue;
            }
            let after = started.get(dependency).cloned().unwrap_or_default();
            if needs.milestone == Milestone::Started && needs.required {
                gates.extend(after);
            } else {
                gates.push(self.wait(dependency, needs.milestone, needs.required, after));
            }
        }
        gates
    }

    fn wait(&mut self, service: &str, milestone: Milestone, required: bool, after: Vec<StepId>) -> StepId {
        let instances = self
            .containers(service)
            .into_iter()
            .map(|container| Instance::Existing(container.existing()))
            .collect();
        let wait = Operation::Await { service: service.to_owned(), instances, milestone, required };
        self.plan.add(wait, Cause::Asked, after)
    }

    /// Stops what runs, dependents first; the steps by container name.
    fn stop(
        &mut self,
        grace: Option<Grace>,
        fits: impl Fn(&SeenContainer) -> bool,
    ) -> BTreeMap<String, StepId> {
        let mut stopped = BTreeMap::new();
        let mut by_service: BTreeMap<String, Vec<StepId>> = BTreeMap::new();
        let dependents = graph::dependents(self.desired);
        for name in self.order.clone().into_iter().rev() {
            let dependents = dependents.get(name.as_str()).into_iter().flatten();
            let dependents: Vec<StepId> =
                dependents.filter_map(|dependent| by_service.get(*dependent)).flatten().copied().collect();
            for container in self.containers(&name) {
                if container.life.is_up() && fits(container) {
                    let stop = Operation::StopContainer { container: container.existing(), grace };
                    let step = self.plan.add(stop, Cause::Asked, dependents.iter().copied());
                    by_service.entry(name.clone()).or_default().push(step);
                    stopped.insert(container.name.clone(), step);
                }
            }
        }
        stopped
    }

    /// Services that programs provide rest when those that depend on them do.
    fn stop_provided(&mut self, stopped: &BTreeMap<String, StepId>) {
        for name in self.order.clone().into_iter().rev() {
            let Some(by) = self.desired.services.get(&name).and_then(|service| service.provider.clone())
            else {
                continue;
            };
            let dependents = self
                .desired
                .services
                .iter()
                .filter(|(_, service)| service.depends_on.contains_key(&name))
                .flat_map(|(other, _)| self.containers(other))
                .filter_map(|container| stopped.get(&container.name).copied());
            let after: Vec<StepId> = dependents.collect();
            self.plan.add(
                Operation::Provide { service: name, by, provision: Provision::Stop },
                Cause::Asked,
                after,
            );
        }
    }

    fn restart(&mut self, grace: Option<Grace>, no_dependents: bool) {
        if !no_dependents {
            self.include_dependents();
        }
        let stopped = self.stop(grace, |_| true);
        self.start(&stopped, false);
    }

    /// Adds the services that restart with those already there.
    fn include_dependents(&mut self) {
        let Ok(all) = graph::order(self.desired) else { return };
        for name in all {
            let follows = self.desired.services[&name]
                .depends_on
                .iter()
                .any(|(dependency, needs)| needs.restart && self.order.contains(dependency));
            if follows && !self.order.contains(&name) {
                self.order.push(name);
            }
        }
    }

    fn remove(&mut self, stop: bool, volumes: bool) {
        let stopped = if stop { self.stop(None, |_| true) } else { BTreeMap::new() };
        for name in self.order.clone().into_iter().rev() {
            let one_offs = self.observed.containers.iter().filter(|container| container.one_off);
            let all = self.containers(&name).into_iter().chain(one_offs.filter(|seen| seen.service == name));
            for container in all {
                let step = stopped.get(&container.name).copied();
                if step.is_some() || !container.life.is_up() {
                    let remove = Operation::RemoveContainer { container: container.existing(), volumes };
                    self.plan.add(remove, Cause::Asked, step);
                }
            }
        }
    }
}
