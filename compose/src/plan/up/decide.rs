//! What becomes of each container: it stays, gives way to a new one, or is one too many.

use std::collections::BTreeSet;

use super::{Fate, Planner, Recreate, Slot, differs};
use crate::cause::Cause;
use crate::desired::DesiredService;
use crate::observe::{Life, SeenContainer};
use crate::operation::Milestone;
use crate::plan::PlanError;

impl<'a> Planner<'a> {
    pub(super) fn service(&self, name: &str) -> Option<&'a DesiredService> {
        self.desired.services.get(name)
    }

    pub(super) fn services(&self) -> impl Iterator<Item = &'a DesiredService> + use<'a> {
        let desired = self.desired;
        let scope: Vec<String> = self.scope.iter().cloned().collect();
        scope.into_iter().filter_map(move |name| desired.services.get(&name))
    }

    pub(super) fn used_networks(&self) -> BTreeSet<&'a str> {
        if self.options.all_resources {
            return self.desired.networks.keys().map(String::as_str).collect();
        }
        self.services().flat_map(|service| service.networks.iter().map(String::as_str)).collect()
    }

    pub(super) fn used_volumes(&self) -> BTreeSet<&'a str> {
        if self.options.all_resources {
            return self.desired.volumes.keys().map(String::as_str).collect();
        }
        self.services().flat_map(|service| service.volumes.iter().map(String::as_str)).collect()
    }

    pub(super) fn check_externals(&mut self) -> Result<(), PlanError> {
        for key in self.used_networks() {
            let Some(network) = self.desired.networks.get(key) else { continue };
            let seen = self.observed.networks.get(&network.name);
            if network.external && seen.is_none() {
                return Err(PlanError::ExternalNetwork(network.name.clone()));
            }
            if seen.is_some_and(|seen| {
                let ours = seen.project.as_deref() == Some(&self.desired.project);
                !network.external && ours && differs(&seen.config_hash, &network.config_hash)
            }) {
                self.changed_networks.insert(key.to_owned());
            }
        }
        for key in self.used_volumes() {
            let Some(volume) = self.desired.volumes.get(key) else { continue };
            match self.observed.volumes.get(&volume.name) {
                None if volume.external => return Err(PlanError::ExternalVolume(volume.name.clone())),
                Some(seen) if !volume.external && differs(&seen.config_hash, &volume.config_hash) => {
                    self.plan.warn(format!(
                        "volume {:?} exists with another configuration and is used as it is; remove it to have it made anew",
                        volume.name
                    ));
                }
                _ => {}
            }
        }
        for (name, service) in &self.desired.services {
            if let Some(fixed) = service.container_name.as_ref().filter(|_| service.scale > 1) {
                return Err(PlanError::NamedReplicas {
                    service: name.clone(),
                    name: fixed.clone(),
                    scale: service.scale,
                });
            }
        }
        Ok(())
    }

    pub(super) fn decide_containers(&mut self) {
        for name in self.order.clone() {
            let Some((name, service)) = self.desired.services.get_key_value(&name) else { continue };
            let slots = self.decide_service(name, service);
            self.slots.insert(name.clone(), slots);
        }
    }

    /// One slot for each container wanted; the containers that are too many go to `extras`.
    pub(super) fn decide_service(&mut self, name: &'a str, service: &'a DesiredService) -> Vec<Slot<'a>> {
        if self.options.one_off_of.as_deref() == Some(name) {
            return Vec::new();
        }
        let mut candidates: Vec<(&SeenContainer, Option<Cause>)> = self
            .observed
            .of_service(name)
            .map(|container| (container, self.why_replace(name, service, container)))
            .collect();
        // Of two that claim one number, an up-to-date one wins over an obsolete one, a running one over one
        // that does not run, one that serves over one that waits for its ports, and the newer one over the older.
        candidates.sort_by_key(|(container, cause)| {
            let held = container.held;
            (container.number, cause.is_some(), !container.life.is_up(), held, -container.created)
        });
        let mut kept: Vec<(&SeenContainer, Option<Cause>)> = Vec::new();
        for (container, cause) in candidates {
            let claimed = kept.last().is_some_and(|(other, _)| other.number == container.number);
            let heir = kept.last().filter(|(heir, cause)| claimed && heir.held && cause.is_none());
            if let Some((heir, _)) = heir.filter(|_| !container.held && container.life != Life::Removing) {
                self.superseded.insert(heir.id.clone(), container);
            } else if claimed || container.life == Life::Removing {
                let cause = if container.held { Cause::NeverServed } else { Cause::LeftOver };
                self.extras.push((container, cause));
            } else {
                kept.push((container, cause));
            }
        }
        let wanted = service.scale as usize;
        if kept.len() > wanted {
            // Obsolete ones go first, then those with the highest numbers.
            kept.sort_by_key(|(container, cause)| (cause.is_some(), container.number));
            self.extras
                .extend(kept.drain(wanted..).rev().map(|(container, _)| (container, Cause::ScaledDown)));
            kept.sort_by_key(|(container, _)| container.number);
        }
        let last = kept.last().map_or(0, |(container, _)| container.number);
        let grown = !kept.is_empty();
        let fresh = (wanted - kept.len()) as u32;
        let mut slots: Vec<Slot<'a>> = kept
            .into_iter()
            .map(|(container, cause)| Slot {
                service: name,
                number: container.number,
                name: self.desired.container_name(name, container.number),
                fate: match cause {
                    Some(cause) => Fate::Replace(container, cause),
                    None => Fate::Keep(container),
                },
            })
            .collect();
        slots.extend((last + 1..=last + fresh).map(|number| Slot {
            service: name,
            number,
            name: self.desired.container_name(name, number),
            fate: Fate::New(if grown { Cause::ScaledUp } else { Cause::Missing }),
        }));
        slots
    }

    pub(super) fn why_replace(
        &self,
        name: &str,
        service: &DesiredService,
        seen: &SeenContainer,
    ) -> Option<Cause> {
        let asked =
            self.options.services.is_empty() || self.options.services.iter().any(|asked| asked == name);
        match self.options.recreate {
            Recreate::Never => return None,
            Recreate::Always if asked || self.options.recreate_dependencies => return Some(Cause::Asked),
            _ if self.options.recreate_dependencies && !asked => return Some(Cause::Asked),
            _ => {}
        }
        if seen.config_hash != service.config_hash {
            return Some(Cause::ConfigChanged);
        }
        let contents = match self.observed.told.get(name) {
            Some(told) => &service.contents.with(told),
            None => &service.contents,
        };
        if let Some(object) = contents.changed(&seen.contents) {
            return Some(Cause::ContentChanged { object: object.to_owned() });
        }
        if self.observed.images.get(&service.image.name).is_some_and(|image| *image != seen.image) {
            return Some(Cause::ImageChanged);
        }
        for key in &service.networks {
            let network = self.desired.networks.get(key)?;
            if !seen.networks.contains(&network.name) {
                return Some(Cause::NetworkChanged { network: network.name.clone() });
            }
        }
        for key in &service.volumes {
            let volume = self.desired.volumes.get(key)?;
            if !seen.volumes.iter().any(|mounted| mounted.as_str() == volume.name) {
                return Some(Cause::VolumeChanged { volume: volume.name.clone() });
            }
        }
        // Somebody made the container anew whose namespace it was in: what it is in now nobody else is.
        let gone = seen.parents.iter().any(|id| self.observed.containers.iter().all(|other| other.id != *id));
        service
            .shares
            .iter()
            .find(|parent| gone || self.is_renewed(parent))
            .map(|parent| Cause::ParentReplaced { service: parent.clone() })
    }

    /// Whether containers of the service are replaced or made.
    pub(super) fn is_renewed(&self, service: &str) -> bool {
        self.slots
            .get(service)
            .is_some_and(|slots| slots.iter().any(|slot| !matches!(slot.fate, Fate::Keep(_))))
    }

    /// Decides, dependents first, which services are started. A job that ended well and that others only wait
    /// for runs again when one of them starts, and not before.
    pub(super) fn decide_starts(&mut self) {
        if !self.options.start {
            return;
        }
        for name in self.order.clone().into_iter().rev() {
            let idle: Vec<&Slot<'_>> =
                self.slots.get(&name).into_iter().flatten().filter(|slot| !slot.is_up()).collect();
            let is_done = idle.iter().all(|slot| slot.is_done_since(self.options.began));
            let ended =
                |slot: &&Slot<'_>| matches!(slot.fate, Fate::Keep(seen) if seen.life == Life::Exited(0));
            if is_done || idle.iter().all(ended) && self.is_finished_job(&name) {
                continue;
            }
            self.starting.insert(name);
        }
        for name in self.order.clone() {
            self.decide_restarts(&name);
        }
    }

    /// Whether other services wait for its end, and none of them is about to start.
    pub(super) fn is_finished_job(&self, name: &str) -> bool {
        let mut dependents = self.desired.services.iter().filter_map(|(other, service)| {
            let needs = service.depends_on.get(name)?;
            (needs.milestone == Milestone::Completed).then_some(other)
        });
        let mut any = false;
        let idle = dependents.all(|other| {
            any = true;
            !self.starting.contains(other) && self.options.one_off_of.as_ref() != Some(other)
        });
        any && idle
    }

    /// Marks running containers that stop and start again because a network or a dependency changes under them.
    pub(super) fn decide_restarts(&mut self, name: &str) {
        let Some(service) = self.service(name) else { return };
        let network = service.networks.iter().find(|key| self.changed_networks.contains(*key));
        let dependency = service.depends_on.iter().find(|(dependency, needs)| {
            needs.restart
                && (self.is_replaced(dependency)
                    || self.slots.get(*dependency).into_iter().flatten().any(|slot| self.restarts(slot)))
        });
        let cause = match (network, dependency) {
            (Some(key), _) => {
                Cause::NetworkChanged { network: self.desired.networks[key.as_str()].name.clone() }
            }
            (None, Some((dependency, _))) => Cause::DependencyReplaced { service: dependency.clone() },
            (None, None) => return,
        };
        for slot in self.slots.get(name).into_iter().flatten() {
            if let Fate::Keep(seen) = slot.fate
                && seen.life.is_up()
            {
                self.restarting.insert(seen.id.clone(), cause.clone());
                self.starting.insert(name.to_owned());
            }
        }
    }

    pub(super) fn is_replaced(&self, service: &str) -> bool {
        self.slots
            .get(service)
            .is_some_and(|slots| slots.iter().any(|slot| matches!(slot.fate, Fate::Replace(..))))
    }

    pub(super) fn restarts(&self, slot: &Slot<'_>) -> bool {
        matches!(slot.fate, Fate::Keep(seen) if self.restarting.contains_key(&seen.id))
    }
}
