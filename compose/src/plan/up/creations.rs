//! The steps that make networks, volumes and containers, and remove what is one too many.

use std::collections::BTreeSet;

use super::{Fate, Planner, Slot};
use crate::cause::Cause;
use crate::desired::OnFailure;
use crate::names;
use crate::observe::SeenContainer;
use crate::operation::Operation;
use crate::plan::StepId;

impl Planner<'_> {
    /// A network whose definition changed is emptied, removed and made anew; the containers keep their identity.
    pub(super) fn add_networks(&mut self) {
        for key in self.used_networks() {
            let Some(network) = self.desired.networks.get(key).filter(|network| !network.external) else {
                continue;
            };
            let create = Operation::CreateNetwork { key: key.to_owned(), name: network.name.clone() };
            match self.observed.networks.get(&network.name) {
                None => {
                    let step = self.plan.add(create, Cause::Missing, []);
                    self.networks.insert(key.to_owned(), step);
                }
                Some(seen) if self.changed_networks.contains(key) => {
                    self.warn_of_lasting_change(key, &network.name);
                    let emptied = self.empty_network(&network.name);
                    let remove = Operation::RemoveNetwork { id: seen.id.clone(), name: network.name.clone() };
                    let removed = self.plan.add(remove, Cause::ConfigChanged, emptied);
                    let step = self.plan.add(create, Cause::ConfigChanged, [removed]);
                    self.networks.insert(key.to_owned(), step);
                }
                Some(seen) => {
                    if seen.project.as_deref() != Some(&self.desired.project) {
                        self.plan.warn(format!(
                            "a network with name {} exists but was not created for project {:?}; set `external: true` to use an existing network",
                            network.name, self.desired.project
                        ));
                    }
                }
            }
        }
    }

    /// Stops every live container on a network, dependents first.
    pub(super) fn empty_network(&mut self, network: &str) -> Vec<StepId> {
        let rank = |service: &str| self.order.iter().position(|name| name == service);
        let mut attached: Vec<&SeenContainer> = self
            .observed
            .containers
            .iter()
            .filter(|container| container.life.is_up() && container.networks.contains(network))
            .collect();
        attached.sort_by_key(|container| std::cmp::Reverse(rank(&container.service)));
        let cause = Cause::NetworkChanged { network: network.to_owned() };
        attached.into_iter().map(|container| self.stop(container, cause.clone(), [])).collect()
    }

    /// The way back of an update brings containers back, and what they were attached to is another one by then.
    fn warn_of_lasting_change(&mut self, key: &str, name: &str) {
        let may_go_back = |service: &&String| {
            self.desired.services.get(*service).is_some_and(|service| {
                service.networks.contains(key)
                    && service.update.is_some_and(|update| update.on_failure == OnFailure::Rollback)
            })
        };
        let services: Vec<&str> = self.order.iter().filter(may_go_back).map(String::as_str).collect();
        if !services.is_empty() {
            let services = services.join(", ");
            self.plan.warn(format!(
                "network {name} is made anew, and stays as it is now if the update of {services} is rolled back"
            ));
        }
    }

    pub(super) fn add_volumes(&mut self) {
        for key in self.used_volumes() {
            let Some(volume) = self.desired.volumes.get(key).filter(|volume| !volume.external) else {
                continue;
            };
            if !self.observed.volumes.contains_key(&volume.name) {
                let create = Operation::CreateVolume { key: key.to_owned(), name: volume.name.clone() };
                let step = self.plan.add(create, Cause::Missing, []);
                self.volumes.insert(key.to_owned(), step);
            }
        }
    }

    /// A container left over by a run that was cut off shares its anonymous volumes with its successor.
    pub(super) fn add_removals(&mut self) {
        for (container, cause) in std::mem::take(&mut self.extras) {
            if cause == Cause::ScaledDown && self.may_go_back(&container.service) {
                self.surplus.push(container);
                continue;
            }
            let volumes = cause == Cause::ScaledDown;
            let stopped = container.life.is_up().then(|| self.stop(container, cause.clone(), []));
            if let Some(step) = stopped {
                self.cleared.entry(container.service.clone()).or_default().push(step);
            }
            let remove = Operation::RemoveContainer { container: container.existing(), volumes };
            let step = self.plan.add(remove, cause, stopped);
            self.freed.insert(container.name.clone(), step);
        }
    }

    pub(super) fn add_creations(&mut self) {
        let desired = self.desired;
        let slots: Vec<Slot<'_>> =
            self.order.iter().flat_map(|name| self.slots.get(name).into_iter().flatten().cloned()).collect();
        let wanted: BTreeSet<String> = slots
            .iter()
            .filter(|slot| !matches!(slot.fate, Fate::Keep(_)))
            .map(|slot| slot.name.clone())
            .collect();
        for slot in &slots {
            if let Fate::Replace(seen, cause) = &slot.fate
                && wanted.contains(&seen.name)
                && !self.is_held(slot)
            {
                let to = names::replaced(&seen.id, &seen.name);
                let rename = Operation::RenameContainer { container: seen.existing(), to };
                let step = self.plan.add(rename, cause.clone(), []);
                self.freed.insert(seen.name.clone(), step);
            }
        }
        for slot in &slots {
            let (replaces, cause) = match &slot.fate {
                Fate::Keep(seen) => {
                    self.rename_back(seen, &slot.name);
                    continue;
                }
                Fate::Replace(seen, cause) => (Some(seen.id.clone()), cause.clone()),
                Fate::New(cause) => (None, cause.clone()),
            };
            let Some(service) = desired.services.get(slot.service) else { continue };
            self.warn_of_inherited(slot);
            let mut after: BTreeSet<StepId> = BTreeSet::new();
            after.extend(self.images.get(&service.image.name));
            after.extend(service.networks.iter().filter_map(|key| self.networks.get(key)));
            after.extend(service.volumes.iter().filter_map(|key| self.volumes.get(key)));
            after.extend(self.provided.before(desired, slot.service));
            after.extend(self.freed.get(&slot.name));
            after.extend(self.freed.get(&names::candidate(&slot.name)));
            for parent in service.shares.iter().filter_map(|parent| self.slots.get(parent)).flatten() {
                after.extend(self.created.get(&parent.name));
            }
            let create = Operation::CreateContainer {
                service: slot.service.to_owned(),
                number: slot.number,
                name: slot.name.clone(),
                replaces,
                held: self.is_held(slot),
            };
            let step = self.plan.add(create, cause, after);
            self.created.insert(slot.name.clone(), step);
        }
    }

    /// What an image puts into a volume it puts into a new one alone: dependencies that it brings anew stay the old ones.
    fn warn_of_inherited(&mut self, slot: &Slot<'_>) {
        let Fate::Replace(seen, _) = &slot.fate else { return };
        let image =
            self.service(slot.service).and_then(|service| self.observed.images.get(&service.image.name));
        let is_another = image.is_some_and(|image| *image != seen.image);
        let inherits = !self.options.renew_volumes && !seen.volumes.is_disjoint(&self.observed.anonymous);
        if is_another && inherits {
            self.plan.warn(format!(
                "container {}: its image has changed, and its volumes without a name keep what was in them; `up -V` makes new ones",
                slot.name
            ));
        }
    }

    /// Whether the container that is made for a slot has to wait for its name and its ports until it is ready.
    pub(super) fn is_held(&self, slot: &Slot<'_>) -> bool {
        let staged = self.options.staged;
        let update = self.service(slot.service).and_then(|service| service.update);
        let is_made = staged && !matches!(slot.fate, Fate::Keep(_));
        let waits = update.is_some_and(|update| staged || update.holds_back());
        waits && self.starting.contains(slot.service) && (is_made || slot.is_replaced_while_up())
    }

    /// Gives a container its name back that a run which was cut off took from it.
    pub(super) fn rename_back(&mut self, seen: &SeenContainer, name: &str) {
        // One that is held back gets it when it takes over.
        if seen.name != name && !seen.held {
            let rename = Operation::RenameContainer { container: seen.existing(), to: name.to_owned() };
            let freed = self.freed.get(name).copied();
            let step = self.plan.add(rename, Cause::LeftOver, freed);
            self.created.insert(name.to_owned(), step);
        }
    }
}
