//! The plan of `down`: everything of the project goes, dependents first.

use std::collections::{BTreeMap, BTreeSet};

use engine::container::spec::Grace;
use engine::id::ContainerId;

use super::up::orphans;
use super::{Plan, PlanError, StepId};
use crate::cause::Cause;
use crate::desired::{Desired, DesiredService};
use crate::observe::{Observed, SeenContainer};
use crate::operation::{Operation, Provision};

/// What the command line says.
#[derive(Debug, Clone, Default)]
pub struct DownOptions {
    /// The services to take down; the whole project when empty.
    pub services: Vec<String>,
    /// Whether named and anonymous volumes go too (`-v`): of services that are named, those that no other one uses.
    pub volumes: bool,
    /// Which images go too, of services that are named those that no other one uses.
    pub images: Option<Images>,
    /// Whether containers of services that are in no file go too.
    pub remove_orphans: bool,
    /// How long containers may take to end.
    pub grace: Option<Grace>,
}

/// Which images `down --rmi` removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Images {
    /// Those no file names: built here for a service without `image`.
    Local,
    /// Every one.
    All,
}

/// Plans `down`.
pub fn down(desired: &Desired, observed: &Observed, options: &DownOptions) -> Result<Plan, PlanError> {
    if let Some(unknown) = options.services.iter().find(|name| {
        !desired.services.contains_key(*name)
            && !observed.containers.iter().any(|seen| seen.service == **name)
    }) {
        return Err(PlanError::NoSuchService(unknown.clone()));
    }
    let mut plan = Plan::default();
    let removed = remove_containers(&mut plan, desired, observed, options)?;
    take_provisions_away(&mut plan, desired, options, &removed)?;
    let stays = |seen: &SeenContainer| !removed.iter().any(|(gone, _)| gone.id == seen.id);
    let is_in_use =
        |name: &String| observed.containers.iter().any(|seen| seen.networks.contains(name) && stays(seen));
    for (name, network) in ours(&observed.networks, desired, |network| network.project.as_deref()) {
        if !options.services.is_empty() && is_in_use(name) {
            continue;
        }
        let after: Vec<StepId> =
            removed.iter().filter(|(seen, _)| seen.networks.contains(name)).map(|(_, step)| *step).collect();
        let remove = Operation::RemoveNetwork { id: network.id.clone(), name: name.clone() };
        plan.add(remove, Cause::Asked, after);
    }
    if options.volumes {
        remove_volumes(&mut plan, desired, observed, &options.services, &removed);
    }
    remove_images(&mut plan, desired, observed, options, &removed);
    Ok(plan)
}

type Removed<'a> = Vec<(&'a SeenContainer, StepId)>;

/// Stops and removes containers; one waits for those that depend on it.
fn remove_containers<'a>(
    plan: &mut Plan,
    desired: &Desired,
    observed: &'a Observed,
    options: &DownOptions,
) -> Result<Removed<'a>, PlanError> {
    let orphans = orphans(desired, observed);
    let lost: BTreeSet<&ContainerId> =
        orphans.iter().filter(|orphan| !orphan.one_off).map(|orphan| &orphan.id).collect();
    let is_orphan = |seen: &SeenContainer| lost.contains(&seen.id);
    let mut doomed: Vec<&SeenContainer> = observed
        .containers
        .iter()
        .filter(|seen| options.services.is_empty() || options.services.contains(&seen.service))
        .filter(|seen| options.remove_orphans || !is_orphan(seen) || options.services.contains(&seen.service))
        .collect();
    let order = crate::graph::order(desired)?;
    let ranks: BTreeMap<&str, usize> =
        order.iter().enumerate().map(|(rank, name)| (name.as_str(), rank)).collect();
    // What no file knows goes first: nothing can be said of what it depends on.
    let rank = |seen: &SeenContainer| ranks.get(seen.service.as_str()).copied().unwrap_or(order.len());
    doomed.sort_by(|a, b| rank(b).cmp(&rank(a)).then_with(|| a.name.cmp(&b.name)));
    let dependents = crate::graph::dependents(desired);
    let mut stops: BTreeMap<&str, Vec<StepId>> = BTreeMap::new();
    let mut removed = Removed::new();
    for seen in doomed {
        let cause = if is_orphan(seen) { Cause::Orphan } else { Cause::Asked };
        let dependents = dependents.get(seen.service.as_str()).into_iter().flatten();
        let after: Vec<StepId> =
            dependents.filter_map(|dependent| stops.get(dependent)).flatten().copied().collect();
        let mut before_removal = after.clone();
        if seen.life.is_up() {
            let stop = Operation::StopContainer { container: seen.existing(), grace: options.grace };
            let step = plan.add(stop, cause.clone(), after);
            stops.entry(&seen.service).or_default().push(step);
            before_removal = vec![step];
        }
        let remove = Operation::RemoveContainer { container: seen.existing(), volumes: options.volumes };
        removed.push((seen, plan.add(remove, cause, before_removal)));
    }
    if !options.remove_orphans && options.services.is_empty() {
        let names: Vec<&str> =
            orphans.iter().filter(|seen| is_orphan(seen)).map(|seen| seen.name.as_str()).collect();
        if !names.is_empty() {
            plan.warn(format!(
                "found orphan containers ({}) for this project; run this command with --remove-orphans to remove them too",
                names.join(", ")
            ));
        }
    }
    Ok(removed)
}

/// A service that a program provides goes when those that depend on it are gone.
fn take_provisions_away(
    plan: &mut Plan,
    desired: &Desired,
    options: &DownOptions,
    removed: &Removed<'_>,
) -> Result<(), PlanError> {
    let mut gone: BTreeMap<&str, StepId> = BTreeMap::new();
    let order = crate::graph::order(desired)?;
    for (name, service) in order.iter().rev().filter_map(|name| desired.services.get_key_value(name)) {
        let Some(by) = &service.provider else { continue };
        if !options.services.is_empty() && !options.services.contains(name) {
            continue;
        }
        let depends = |other: &str| {
            desired.services.get(other).is_some_and(|other| other.depends_on.contains_key(name))
        };
        let containers = removed.iter().filter(|(seen, _)| depends(&seen.service)).map(|(_, step)| *step);
        let provided = gone.iter().filter(|(other, _)| depends(other)).map(|(_, step)| *step);
        let after: Vec<StepId> = containers.chain(provided).collect();
        let provide =
            Operation::Provide { service: name.clone(), by: by.clone(), provision: Provision::Down };
        gone.insert(name, plan.add(provide, Cause::Asked, after));
    }
    Ok(())
}

fn ours<'a, T>(
    things: &'a BTreeMap<String, T>,
    desired: &'a Desired,
    project: impl Fn(&T) -> Option<&str> + 'a,
) -> impl Iterator<Item = (&'a String, &'a T)> {
    things.iter().filter(move |(_, thing)| project(thing) == Some(&desired.project))
}

/// What services that were named have for themselves, or everything when none was.
struct Share<'a> {
    desired: &'a Desired,
    services: &'a [String],
}

impl Share<'_> {
    /// Whether something goes that services are known to use. It stays where a service uses it that was not named.
    fn has(&self, uses: impl Fn(&DesiredService) -> bool) -> bool {
        let (mine, others): (Vec<_>, Vec<_>) =
            self.desired.services.iter().partition(|(name, _)| self.services.contains(name));
        let is_used =
            |services: Vec<(&String, &DesiredService)>| services.iter().any(|(_, service)| uses(service));
        self.services.is_empty() || (is_used(mine) && !is_used(others))
    }
}

fn remove_volumes(
    plan: &mut Plan,
    desired: &Desired,
    observed: &Observed,
    services: &[String],
    removed: &Removed<'_>,
) {
    let share = Share { desired, services };
    for (name, seen) in ours(&observed.volumes, desired, |volume| volume.project.as_deref()) {
        let external = desired.volumes.values().any(|volume| volume.external && volume.name == *name);
        if !external && share.has(|service| service.volumes.contains(&seen.key)) {
            let after: Vec<StepId> = removed.iter().map(|(_, step)| *step).collect();
            plan.add(Operation::RemoveVolume { name: name.clone() }, Cause::Asked, after);
        }
    }
}

fn remove_images(
    plan: &mut Plan,
    desired: &Desired,
    observed: &Observed,
    options: &DownOptions,
    removed: &Removed<'_>,
) {
    let Some(images) = options.images else { return };
    let share = Share { desired, services: &options.services };
    let names: BTreeSet<&str> = desired
        .services
        .values()
        .map(|service| &service.image)
        .filter(|image| images == Images::All || !image.named)
        .map(|image| image.name.as_str())
        .filter(|name| observed.images.contains_key(*name))
        .filter(|name| share.has(|service| service.image.name == **name))
        .collect();
    for name in names {
        let after: Vec<StepId> = removed.iter().map(|(_, step)| *step).collect();
        plan.add(Operation::RemoveImage { image: name.to_owned() }, Cause::Asked, after);
    }
}
