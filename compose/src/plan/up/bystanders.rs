//! Containers that are none of a plan's own and stop while their network is made anew: other services' where only some
//! were asked for, those that `run` made, and orphans.

use super::{Orphans, Planner, orphans};
use crate::cause::Cause;
use crate::graph;
use crate::observe::SeenContainer;
use crate::operation::{Instance, Operation};
use crate::plan::StepId;

impl<'a> Planner<'a> {
    /// What ran before runs again, dependencies first.
    pub(super) fn add_bystanders(&mut self) {
        let order = graph::order(self.desired).unwrap_or_default();
        let mut bystanders = self.bystanders();
        bystanders.sort_by_key(|seen| order.iter().position(|name| *name == seen.service));
        for seen in bystanders {
            let after = self.needs_of_bystander(seen);
            let networks = seen.networks.iter().find(|name| self.is_made_anew(name));
            let cause = Cause::NetworkChanged { network: networks.cloned().unwrap_or_default() };
            let start = Operation::StartContainer { instance: Instance::Existing(seen.existing()) };
            let step = self.plan.add(start, cause, after);
            self.started.entry(seen.service.clone()).or_default().push(step);
        }
    }

    fn bystanders(&self) -> Vec<&'a SeenContainer> {
        let doomed = match self.options.orphans {
            Orphans::Remove => orphans(self.desired, self.observed),
            Orphans::Ignore | Orphans::Warn => Vec::new(),
        };
        let is_bystander = |seen: &&SeenContainer| {
            self.stopped.contains_key(&seen.id)
                && (seen.one_off || !self.scope.contains(&seen.service))
                && !doomed.iter().any(|orphan| orphan.id == seen.id)
        };
        self.observed.containers.iter().filter(is_bystander).collect()
    }

    /// Its own stop, its networks, and what its service depends on.
    fn needs_of_bystander(&self, seen: &SeenContainer) -> Vec<StepId> {
        let networks = self.networks.iter().filter(|(key, _)| {
            self.desired.networks.get(*key).is_some_and(|network| seen.networks.contains(&network.name))
        });
        let service = self.desired.services.get(&seen.service);
        let dependencies = service.into_iter().flat_map(|service| service.depends_on.keys());
        let started = dependencies.filter_map(|name| self.started.get(name)).flatten();
        let stopped = self.stopped.get(&seen.id);
        stopped.into_iter().chain(networks.map(|(_, step)| step)).chain(started).copied().collect()
    }

    fn is_made_anew(&self, network: &str) -> bool {
        self.changed_networks.iter().any(|key| self.desired.networks[key].name == network)
    }
}
