//! The plan of `up` and `create`: what is missing is made, what changed is made anew, the rest is left alone.
//!
//! A container is replaced so that it is missed for as short as can be: the old one gives up its name, the new
//! one is made beside it, and only then the old one stops, the new one starts and the old one goes. A run that
//! is cut off between two of these steps leaves a state the next one goes on from.

use std::collections::{BTreeMap, BTreeSet};

use engine::container::spec::Grace;
use engine::id::ContainerId;
use engine::quantity::Span;

use super::images::{self, Building};
use super::{Plan, PlanError, StepId};
use crate::cause::Cause;
use crate::desired::{Desired, DesiredService, Needs, Update};
use crate::graph;
use crate::names;
use crate::observe::{Life, Observed, SeenContainer};
use crate::operation::{Instance, Milestone, Operation};

/// What the command line says.
#[derive(Debug, Clone)]
pub struct UpOptions {
    /// The services asked for; all when empty.
    pub services: Vec<String>,
    /// When containers are made anew.
    pub recreate: Recreate,
    /// Whether that holds for the services the asked ones depend on too (`--always-recreate-deps`).
    pub recreate_dependencies: bool,
    /// Whether those services are left alone altogether.
    pub no_dependencies: bool,
    /// Whether containers are started, and not only made.
    pub start: bool,
    /// Whether the plan waits until every service is ready (`--wait`).
    pub wait: bool,
    /// What is built.
    pub building: Building,
    /// Whether anonymous volumes start empty instead of being taken over (`-V`).
    pub renew_volumes: bool,
    /// What becomes of containers of services that are in no file.
    pub orphans: Orphans,
    /// Whether networks and volumes are made that no service uses (`--all-resources`).
    pub all_resources: bool,
    /// How long containers may take to end.
    pub grace: Option<Grace>,
    /// The service `run` is about to make a container of: its image, networks, volumes and dependencies are seen
    /// to, and its own containers are left alone.
    pub one_off_of: Option<String>,
    /// Images that have just been fetched or built.
    pub settled_images: BTreeSet<String>,
    /// Whether all that nobody outside notices comes first (see [`super::stages`]): new containers are held back
    /// too, and what depends on a replaced service waits for its successor to be ready, not for it to take over.
    pub staged: bool,
}

/// When containers that exist are made anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Recreate {
    /// When they differ from what is wanted.
    #[default]
    Changed,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What becomes of containers of services that are in no file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Orphans {
    /// They are named in a warning.
    #[default]
    Warn,
    /// They are removed.
    Remove,
    /// Nothing.
    Ignore,
}

impl Default for UpOptions {
    fn default() -> Self {
        Self {
            services: Vec::new(),
            recreate: Recreate::default(),
            recreate_dependencies: false,
            no_dependencies: false,
            start: true,
            wait: false,
            building: Building::default(),
            renew_volumes: false,
            all_resources: false,
            orphans: Orphans::default(),
            grace: None,
            one_off_of: None,
            settled_images: BTreeSet::new(),
            staged: false,
        }
    }
}

/// The services `up` answers for: those asked for and, unless told otherwise, all they depend on.
pub fn scope(desired: &Desired, options: &UpOptions) -> Result<BTreeSet<String>, PlanError> {
    if let Some(unknown) = options.services.iter().find(|name| !desired.services.contains_key(*name)) {
        return Err(PlanError::NoSuchService(unknown.clone()));
    }
    if options.no_dependencies && !options.services.is_empty() {
        return Ok(options.services.iter().cloned().collect());
    }
    Ok(graph::with_dependencies(desired, &options.services))
}

/// Plans `up`.
pub fn up(desired: &Desired, observed: &Observed, options: &UpOptions) -> Result<Plan, PlanError> {
    let scope = scope(desired, options)?;
    let mut order = graph::order(desired)?;
    order.retain(|service| scope.contains(service));
    let mut planner = Planner {
        desired,
        observed,
        options,
        scope,
        order,
        changed_networks: BTreeSet::new(),
        slots: BTreeMap::new(),
        extras: Vec::new(),
        starting: BTreeSet::new(),
        restarting: BTreeMap::new(),
        superseded: BTreeMap::new(),
        plan: Plan::default(),
        images: BTreeMap::new(),
        networks: BTreeMap::new(),
        volumes: BTreeMap::new(),
        freed: BTreeMap::new(),
        created: BTreeMap::new(),
        cleared: BTreeMap::new(),
        stopped: BTreeMap::new(),
        started: BTreeMap::new(),
        awaited: BTreeMap::new(),
    };
    planner.check_externals()?;
    planner.decide_containers();
    planner.decide_starts();
    let settled = &options.settled_images;
    planner.images =
        images::add(&mut planner.plan, desired, observed, &planner.scope, options.building, settled)?;
    planner.add_networks();
    planner.add_volumes();
    planner.add_removals();
    planner.add_creations();
    planner.add_stops();
    planner.add_starts();
    planner.add_waits();
    planner.treat_orphans();
    Ok(planner.plan)
}

/// The place of one container of a service.
#[derive(Debug, Clone)]
struct Slot<'a> {
    service: &'a str,
    number: u32,
    name: String,
    fate: Fate<'a>,
}

/// What becomes of the container in a slot.
#[derive(Debug, Clone)]
enum Fate<'a> {
    /// It stays.
    Keep(&'a SeenContainer),
    /// A new one takes its place.
    Replace(&'a SeenContainer, Cause),
    /// There is none yet.
    New(Cause),
}

struct Planner<'a> {
    desired: &'a Desired,
    observed: &'a Observed,
    options: &'a UpOptions,
    scope: BTreeSet<String>,
    /// The scope, dependencies first.
    order: Vec<String>,
    /// Keys of networks whose definition changed.
    changed_networks: BTreeSet<String>,
    slots: BTreeMap<String, Vec<Slot<'a>>>,
    /// Containers that are one too many.
    extras: Vec<(&'a SeenContainer, Cause)>,
    /// Services of which containers will be started.
    starting: BTreeSet<String>,
    /// Running containers that stop and start again with something they depend on, and why.
    restarting: BTreeMap<ContainerId, Cause>,
    /// By the container that was made to take over and has not yet: the one that still serves.
    superseded: BTreeMap<ContainerId, &'a SeenContainer>,
    plan: Plan,
    images: BTreeMap<String, StepId>,
    networks: BTreeMap<String, StepId>,
    volumes: BTreeMap<String, StepId>,
    /// The step that sets a container's name free.
    freed: BTreeMap<String, StepId>,
    created: BTreeMap<String, StepId>,
    /// The steps that stop containers of a service which are one too many, and with them free their ports.
    cleared: BTreeMap<String, Vec<StepId>>,
    stopped: BTreeMap<ContainerId, StepId>,
    started: BTreeMap<String, Vec<StepId>>,
    awaited: BTreeMap<(String, Milestone, bool), StepId>,
}

// === impl Planner: decisions ===

impl<'a> Planner<'a> {
    fn service(&self, name: &str) -> Option<&'a DesiredService> {
        self.desired.services.get(name)
    }

    fn services(&self) -> impl Iterator<Item = &'a DesiredService> + use<'a> {
        let desired = self.desired;
        let scope: Vec<String> = self.scope.iter().cloned().collect();
        scope.into_iter().filter_map(move |name| desired.services.get(&name))
    }

    fn used_networks(&self) -> BTreeSet<&'a str> {
        if self.options.all_resources {
            return self.desired.networks.keys().map(String::as_str).collect();
        }
        self.services().flat_map(|service| service.networks.iter().map(String::as_str)).collect()
    }

    fn used_volumes(&self) -> BTreeSet<&'a str> {
        if self.options.all_resources {
            return self.desired.volumes.keys().map(String::as_str).collect();
        }
        self.services().flat_map(|service| service.volumes.iter().map(String::as_str)).collect()
    }

    fn check_externals(&mut self) -> Result<(), PlanError> {
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

    fn decide_containers(&mut self) {
        for name in self.order.clone() {
            let Some((name, service)) = self.desired.services.get_key_value(&name) else { continue };
            let slots = self.decide_service(name, service);
            self.slots.insert(name.clone(), slots);
        }
    }

    /// One slot for each container wanted; the containers that are too many go to `extras`.
    fn decide_service(&mut self, name: &'a str, service: &'a DesiredService) -> Vec<Slot<'a>> {
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

    fn why_replace(&self, name: &str, service: &DesiredService, seen: &SeenContainer) -> Option<Cause> {
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
        if let Some(object) = service.contents.changed(&seen.contents) {
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
    fn is_renewed(&self, service: &str) -> bool {
        self.slots
            .get(service)
            .is_some_and(|slots| slots.iter().any(|slot| !matches!(slot.fate, Fate::Keep(_))))
    }

    /// Decides, dependents first, which services are started. A job that ended well and that others only wait
    /// for runs again when one of them starts, and not before.
    fn decide_starts(&mut self) {
        if !self.options.start {
            return;
        }
        for name in self.order.clone().into_iter().rev() {
            let mut idle =
                self.slots.get(&name).into_iter().flatten().filter(|slot| !slot.is_up()).peekable();
            if idle.peek().is_none() {
                continue;
            }
            let done = idle.all(|slot| matches!(slot.fate, Fate::Keep(seen) if seen.life == Life::Exited(0)));
            if done && self.is_finished_job(&name) {
                continue;
            }
            self.starting.insert(name);
        }
        for name in self.order.clone() {
            self.decide_restarts(&name);
        }
    }

    /// Whether other services wait for its end, and none of them is about to start.
    fn is_finished_job(&self, name: &str) -> bool {
        let mut dependents = self.desired.services.iter().filter_map(|(other, service)| {
            let needs = service.depends_on.get(name)?;
            (needs.milestone == Milestone::Completed).then_some(other)
        });
        let mut any = false;
        let idle = dependents.all(|other| {
            any = true;
            !self.starting.contains(other)
        });
        any && idle
    }

    /// Marks running containers that stop and start again because a network or a dependency changes under them.
    fn decide_restarts(&mut self, name: &str) {
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

    fn is_replaced(&self, service: &str) -> bool {
        self.slots
            .get(service)
            .is_some_and(|slots| slots.iter().any(|slot| matches!(slot.fate, Fate::Replace(..))))
    }

    fn restarts(&self, slot: &Slot<'_>) -> bool {
        matches!(slot.fate, Fate::Keep(seen) if self.restarting.contains_key(&seen.id))
    }
}

// === impl Planner: steps ===

impl Planner<'_> {
    /// A network whose definition changed is emptied, removed and made anew; the containers keep their identity.
    fn add_networks(&mut self) {
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
    fn empty_network(&mut self, network: &str) -> Vec<StepId> {
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

    fn add_volumes(&mut self) {
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
    fn add_removals(&mut self) {
        for (container, cause) in std::mem::take(&mut self.extras) {
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

    fn add_creations(&mut self) {
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
            let mut after: BTreeSet<StepId> = BTreeSet::new();
            after.extend(self.images.get(&service.image.name));
            after.extend(service.networks.iter().filter_map(|key| self.networks.get(key)));
            after.extend(service.volumes.iter().filter_map(|key| self.volumes.get(key)));
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

    /// Whether the container that is made for a slot has to wait for its name and its ports until it is ready.
    fn is_held(&self, slot: &Slot<'_>) -> bool {
        let staged = self.options.staged;
        let update = self.service(slot.service).and_then(|service| service.update);
        let waits = update.is_some_and(|update| update.start_first || staged);
        let is_new = staged && matches!(slot.fate, Fate::New(_));
        waits && self.starting.contains(slot.service) && (is_new || slot.is_replaced_while_up())
    }

    /// Gives a container its name back that a run which was cut off took from it.
    fn rename_back(&mut self, seen: &SeenContainer, name: &str) {
        // One that is held back gets it when it takes over.
        if seen.name != name && !seen.held {
            let rename = Operation::RenameContainer { container: seen.existing(), to: name.to_owned() };
            let freed = self.freed.get(name).copied();
            let step = self.plan.add(rename, Cause::LeftOver, freed);
            self.created.insert(name.to_owned(), step);
        }
    }

    /// Stops, dependents first, what is replaced and what restarts with it.
    fn add_stops(&mut self) {
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
    fn successors_of_dependencies(&self, name: &str) -> Vec<StepId> {
        let Some(service) = self.desired.services.get(name) else { return Vec::new() };
        service
            .depends_on
            .iter()
            .filter(|(_, needs)| needs.restart)
            .flat_map(|(dependency, _)| self.slots.get(dependency).into_iter().flatten())
            .filter_map(|slot| self.created.get(&slot.name).copied())
            .collect()
    }

    fn add_starts(&mut self) {
        for name in self.order.clone() {
            let starts = self.starting.contains(&name);
            let one_off = self.options.one_off_of.as_ref() == Some(&name);
            let gates = if starts || one_off { self.gates(&name) } else { Vec::new() };
            let mut pace = Pace::default();
            for slot in self.slots.get(&name).cloned().into_iter().flatten() {
                if let Fate::Replace(seen, cause) = &slot.fate
                    && let Some(update) = self.service(&name).and_then(|service| service.update)
                    && seen.life.is_up()
                    && starts
                {
                    self.update(&slot, (seen, cause), update, &gates, &mut pace);
                    continue;
                }
                if let Fate::Keep(heir) = slot.fate
                    && let Some(old) = self.superseded.get(&heir.id).copied()
                    && self.options.start
                {
                    let update = self.service(&name).and_then(|service| service.update).unwrap_or_default();
                    self.update(&slot, (old, &Cause::LeftOver), update, &gates, &mut pace);
                    continue;
                }
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
                    let step = self.release_held(&slot, Some(step)).unwrap_or(step);
                    self.started.entry(name.clone()).or_default().push(step);
                    done = BTreeSet::from([step]);
                } else if starts || slot.is_up() {
                    let released = self.release_held(&slot, None);
                    self.started.entry(name.clone()).or_default().extend(released);
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

    /// Replaces one container of a service that says how: so many at a time, the new one before or after the old one.
    fn update(
        &mut self,
        slot: &Slot<'_>,
        (old, cause): (&SeenContainer, &Cause),
        update: Update,
        gates: &[StepId],
        pace: &mut Pace,
    ) {
        let created = self.created.get(&slot.name).copied();
        let mut after: BTreeSet<StepId> = created.into_iter().chain(pace.gate.iter().copied()).collect();
        if !update.start_first && old.life.is_up() {
            let stop = self.stop(old, Cause::Replaced, after.clone());
            after.insert(stop);
        }
        after.extend(gates);
        after.extend(self.networks_of(slot.service));
        after.extend(self.cleared.get(slot.service).into_iter().flatten());
        if !slot.is_up() {
            let start = Operation::StartContainer { instance: slot.instance() };
            after = BTreeSet::from([self.plan.add(start, cause.clone(), after)]);
        }
        let (ready, gone) = if self.is_held(slot) || matches!(slot.fate, Fate::Keep(_)) {
            let (proved, taken) =
                self.take_over(Some(old), slot.instance(), &slot.name, update.monitor, after);
            // What depends on it can be made ready before anything changes for those outside.
            let ready = if self.options.staged { proved } else { taken };
            let is_over = !update.start_first || !old.life.is_up();
            (ready, if is_over { taken } else { self.stop(old, Cause::Replaced, [taken]) })
        } else {
            let (service, instances) = (slot.service.to_owned(), vec![slot.instance()]);
            let wait = Operation::Await { service, instances, milestone: Milestone::Ready, required: true };
            let started = after.last().copied();
            let ready = self.plan.add(wait, Cause::Asked, after);
            (ready, started.unwrap_or(ready))
        };
        let remove =
            Operation::RemoveContainer { container: old.existing(), volumes: self.options.renew_volumes };
        self.plan.add(remove, Cause::Replaced, [gone]);
        self.started.entry(slot.service.to_owned()).or_default().push(ready);
        pace.batch.push(ready);
        if update.parallelism > 0 && pace.batch.len() == update.parallelism {
            pace.gate = std::mem::take(&mut pace.batch);
            if let Some(time) = update.delay {
                let rest = Operation::Rest { service: slot.service.to_owned(), time };
                pace.gate = vec![self.plan.add(rest, Cause::Asked, pace.gate.clone())];
            }
        }
    }

    /// Waits until a container that is held back is ready, then hands over to it. The two steps, in this order.
    fn take_over(
        &mut self,
        from: Option<&SeenContainer>,
        to: Instance,
        name: &str,
        monitor: Option<Span>,
        after: impl IntoIterator<Item = StepId>,
    ) -> (StepId, StepId) {
        let cause = if from.is_some() { Cause::Asked } else { Cause::Missing };
        let prove = Operation::Prove { instance: to.clone(), monitor };
        let proved = self.plan.add(prove, Cause::Asked, after);
        let from = from.map(SeenContainer::existing);
        let hand_over = Operation::HandOver { from, to, name: name.to_owned() };
        (proved, self.plan.add(hand_over, cause, [proved]))
    }

    /// A container that is held back and has nobody to take over from takes its place as soon as it is ready.
    fn release_held(&mut self, slot: &Slot<'_>, started: Option<StepId>) -> Option<StepId> {
        let is_held = match &slot.fate {
            Fate::Keep(seen) => seen.held,
            Fate::New(_) => self.is_held(slot),
            Fate::Replace(..) => false,
        };
        if !is_held {
            return started;
        }
        let monitor = self.service(slot.service)?.update.and_then(|update| update.monitor);
        let (proved, taken) = self.take_over(None, slot.instance(), &slot.name, monitor, started);
        Some(if self.options.staged { proved } else { taken })
    }

    fn why_start(&self, slot: &Slot<'_>) -> Cause {
        match &slot.fate {
            Fate::Keep(seen) => self.restarting.get(&seen.id).cloned().unwrap_or(Cause::NotRunning),
            Fate::Replace(_, cause) | Fate::New(cause) => cause.clone(),
        }
    }

    fn networks_of(&self, service: &str) -> Vec<StepId> {
        let networks = self.desired.services.get(service).map(|service| &service.networks);
        networks.into_iter().flatten().filter_map(|key| self.networks.get(key).copied()).collect()
    }

    /// The steps that have to be done before a service's containers start.
    fn gates(&mut self, name: &str) -> Vec<StepId> {
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

    fn gate(&mut self, dependency: &str, needs: Needs) -> Vec<StepId> {
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

    fn add_wait(
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
    fn add_waits(&mut self) {
        if !(self.options.wait && self.options.start) {
            return;
        }
        for name in self.order.clone() {
            let is_job = self.desired.services.values().any(|service| {
                service.depends_on.get(&name).is_some_and(|needs| needs.milestone == Milestone::Completed)
            });
            let milestone = if is_job { Milestone::Completed } else { Milestone::Ready };
            let known = (name.clone(), milestone, true);
            let empty = self.slots.get(&name).is_none_or(Vec::is_empty);
            if !empty && !self.awaited.contains_key(&known) {
                let started = self.started.get(&name).cloned().unwrap_or_default();
                self.add_wait(&name, milestone, true, started);
            }
        }
    }

    fn treat_orphans(&mut self) {
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

    fn stop(
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

/// Containers of services that are in no file, and one-offs that have ended.
pub(super) fn orphans<'a>(desired: &Desired, observed: &'a Observed) -> Vec<&'a SeenContainer> {
    observed
        .containers
        .iter()
        .filter(|container| {
            let known = desired.services.contains_key(&container.service)
                || desired.disabled.contains(&container.service);
            if container.one_off { !container.life.is_up() } else { !known }
        })
        .collect()
}

/// Whether a recorded hash is known and another one.
fn differs(recorded: &str, wanted: &str) -> bool {
    !recorded.is_empty() && recorded != wanted
}

/// How far a paced update of a service is.
#[derive(Debug, Default)]
struct Pace {
    /// What the next containers wait for.
    gate: Vec<StepId>,
    /// Those being replaced at the moment.
    batch: Vec<StepId>,
}

// === impl Slot ===

impl<'a> Slot<'a> {
    /// Whether its container runs and stays.
    fn is_up(&self) -> bool {
        matches!(self.fate, Fate::Keep(seen) if seen.life.is_up())
    }

    /// Whether a container that runs gives way to a new one.
    fn is_replaced_while_up(&self) -> bool {
        matches!(self.fate, Fate::Replace(seen, _) if seen.life.is_up())
    }

    /// The container that was in it.
    fn seen(&self) -> Option<&'a SeenContainer> {
        match self.fate {
            Fate::Keep(seen) | Fate::Replace(seen, _) => Some(seen),
            Fate::New(_) => None,
        }
    }

    /// The container that will be in it.
    fn instance(&self) -> Instance {
        match self.fate {
            Fate::Keep(seen) => Instance::Existing(seen.existing()),
            Fate::Replace(..) | Fate::New(_) => {
                Instance::Planned { name: self.name.clone(), service: self.service.to_owned() }
            }
        }
    }
}
