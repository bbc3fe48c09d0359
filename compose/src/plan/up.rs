//! The plan of `up` and `create`: what is missing is made, what changed is made anew, the rest is left alone.
//!
//! A container is replaced so that it is missed for as short as can be: the old one gives up its name, the new
//! one is made beside it, and only then the old one stops, the new one starts and the old one goes. A run that
//! is cut off between two of these steps leaves a state the next one goes on from.

mod bystanders;
mod creations;
mod decide;
mod starts;
mod update;

use std::collections::{BTreeMap, BTreeSet};

use engine::container::spec::Grace;
use engine::id::ContainerId;
use jiff::Timestamp;

use super::images::{self, Building};
use super::provisions::{self, Provided};
use super::{Plan, PlanError, StepId};
use crate::cause::Cause;
use crate::desired::Desired;
use crate::graph;
use crate::observe::{Observed, SeenContainer};
use crate::operation::{Existing, Instance, Milestone};

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
    /// Whether providers and models have just told how they are reached.
    pub settled_provisions: bool,
    /// Whether all that nobody outside notices comes first (see [`super::stages`]): new containers are held back
    /// too, and what depends on a replaced service waits for its successor to be ready, not for it to take over.
    pub staged: bool,
    /// When that began: such a plan is made anew for each stage, and what has ended well since has done its work.
    pub began: Option<Timestamp>,
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
            settled_provisions: false,
            staged: false,
            began: None,
        }
    }
}

/// The services `up` answers for: those asked for and, unless told otherwise, all they depend on.
pub fn scope(desired: &Desired, options: &UpOptions) -> Result<BTreeSet<String>, PlanError> {
    if let Some(unknown) = options.services.iter().find(|name| !desired.services.contains_key(*name)) {
        return Err(PlanError::NoSuchService(unknown.clone()));
    }
    let provided = |name: &&String| desired.services[*name].provider.is_some();
    if let Some(one_off) =
        options.one_off_of.as_ref().filter(|name| desired.services.contains_key(*name)).filter(provided)
    {
        return Err(PlanError::Provided(one_off.clone()));
    }
    if options.no_dependencies && !options.services.is_empty() {
        return Ok(options.services.iter().cloned().collect());
    }
    Ok(graph::with_dependencies(desired, &options.services))
}

/// Plans `up`.
pub fn up(desired: &Desired, observed: &Observed, options: &UpOptions) -> Result<Plan, PlanError> {
    let scope = scope(desired, options)?;
    let all = graph::order(desired)?;
    let mut order = all.clone();
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
        surplus: Vec::new(),
        starting: BTreeSet::new(),
        restarting: BTreeMap::new(),
        superseded: BTreeMap::new(),
        plan: Plan::default(),
        images: BTreeMap::new(),
        provided: Provided::default(),
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
    if !options.settled_provisions {
        planner.provided = provisions::add(&mut planner.plan, desired, &planner.scope, &all);
    }
    planner.add_networks();
    planner.add_volumes();
    planner.add_removals();
    planner.add_creations();
    planner.add_stops();
    planner.add_starts();
    planner.add_needs_of_standing();
    planner.add_waits();
    planner.add_bystanders();
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
    /// Those of them that go when the update of their service is over, since it may have to go back.
    surplus: Vec<&'a SeenContainer>,
    /// Services of which containers will be started.
    starting: BTreeSet<String>,
    /// Running containers that stop and start again with something they depend on, and why.
    restarting: BTreeMap<ContainerId, Cause>,
    /// By the container that was made to take over and has not yet: the one that still serves.
    superseded: BTreeMap<ContainerId, &'a SeenContainer>,
    plan: Plan,
    images: BTreeMap<String, StepId>,
    provided: Provided,
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

// === impl Slot ===

impl<'a> Slot<'a> {
    /// Whether its container runs and stays.
    fn is_up(&self) -> bool {
        matches!(self.fate, Fate::Keep(seen) if seen.life.is_up())
    }

    /// When its container ended well.
    fn ended_well(&self) -> Option<Timestamp> {
        match self.fate {
            Fate::Keep(seen) => seen.ended_well,
            Fate::Replace(..) | Fate::New(_) => None,
        }
    }

    /// Whether its container has done its work since then.
    fn is_done_since(&self, began: Option<Timestamp>) -> bool {
        began.zip(self.ended_well()).is_some_and(|(began, ended)| ended >= began)
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
            // What it will be called says more than what it is called until it takes over.
            Fate::Keep(seen) if seen.held => {
                Instance::Existing(Existing { name: self.name.clone(), ..seen.existing() })
            }
            Fate::Keep(seen) => Instance::Existing(seen.existing()),
            Fate::Replace(..) | Fate::New(_) => {
                Instance::Planned { name: self.name.clone(), service: self.service.to_owned() }
            }
        }
    }
}
