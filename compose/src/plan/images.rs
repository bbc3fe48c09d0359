//! Which images are fetched or built, and why.

use std::collections::{BTreeMap, BTreeSet};

use engine::quantity::Span;

use super::{Plan, PlanError, StepId};
use crate::cause::Cause;
use crate::desired::{Desired, DesiredService, ImagePolicy};
use crate::observe::Observed;
use crate::operation::Operation;

/// What the command line says about building.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Building {
    /// As each service says: when the image is missing.
    #[default]
    AsNeeded,
    /// Every service that can be built (`--build`).
    Always,
    /// None (`--no-build`).
    Never,
}

/// The images whose fetching or building can change a container that exists. They come first, because what is
/// done to those containers depends on the outcome; all others are steps of the plan itself.
pub fn decisive(
    desired: &Desired,
    observed: &Observed,
    scope: &BTreeSet<String>,
    building: Building,
) -> Result<Plan, PlanError> {
    let mut plan = Plan::default();
    let with_containers: BTreeSet<String> =
        scope.iter().filter(|service| observed.of_service(service).next().is_some()).cloned().collect();
    add(&mut plan, desired, observed, &with_containers, building, &BTreeSet::new())?;
    Ok(plan)
}

/// The plan of `build`: the images of these services that can be built, of all when none is named.
pub fn build(desired: &Desired, services: &[String]) -> Result<Plan, PlanError> {
    if let Some(unknown) = services.iter().find(|name| !desired.services.contains_key(*name)) {
        return Err(PlanError::NoSuchService(unknown.clone()));
    }
    let scope: BTreeSet<String> = desired
        .services
        .iter()
        .filter(|(name, service)| {
            service.image.buildable && (services.is_empty() || services.contains(*name))
        })
        .map(|(name, _)| name.clone())
        .collect();
    let mut plan = Plan::default();
    add(&mut plan, desired, &Observed::default(), &scope, Building::Always, &BTreeSet::new())?;
    Ok(plan)
}

/// The plan of `pull`: each image once, for these services, for all when none is named.
pub fn pull(desired: &Desired, services: &[String], ignore_buildable: bool) -> Result<Plan, PlanError> {
    if let Some(unknown) = services.iter().find(|name| !desired.services.contains_key(*name)) {
        return Err(PlanError::NoSuchService(unknown.clone()));
    }
    let mut plan = Plan::default();
    let mut seen = BTreeSet::new();
    for (name, service) in &desired.services {
        let image = &service.image;
        let wanted = (services.is_empty() || services.contains(name))
            && image.named
            && image.policy != ImagePolicy::Never
            && !(ignore_buildable && image.buildable);
        if wanted && seen.insert(image.name.clone()) {
            let pull =
                Operation::PullImage { image: image.name.clone(), service: name.clone(), or_build: false };
            plan.add(pull, Cause::Asked, []);
        }
    }
    Ok(plan)
}

/// The image steps of every service in the scope, by the name of the image.
pub(super) fn add(
    plan: &mut Plan,
    desired: &Desired,
    observed: &Observed,
    scope: &BTreeSet<String>,
    building: Building,
    settled: &BTreeSet<String>,
) -> Result<BTreeMap<String, StepId>, PlanError> {
    let mut steps = BTreeMap::new();
    let mut open: Vec<String> = scope.iter().rev().cloned().collect();
    let mut visiting: BTreeSet<String> = BTreeSet::new();
    while let Some(name) = open.pop() {
        let service = desired.services.get(&name).filter(|service| service.provider.is_none());
        let Some(service) = service else { continue };
        if steps.contains_key(&service.image.name) || settled.contains(&service.image.name) {
            continue;
        }
        let Some((operation, cause)) = wanted(&name, service, observed, building)? else { continue };
        let bases: Vec<String> = service
            .builds_from
            .iter()
            .filter(|base| !visiting.contains(*base) && !is_placed(desired, base, &steps))
            .cloned()
            .collect();
        if !bases.is_empty() && visiting.insert(name.clone()) {
            open.push(name);
            open.extend(bases);
            continue;
        }
        let after: Vec<StepId> = service
            .builds_from
            .iter()
            .filter_map(|base| steps.get(&desired.services.get(base)?.image.name).copied())
            .collect();
        steps.insert(service.image.name.clone(), plan.add(operation, cause, after));
    }
    Ok(steps)
}

fn is_placed(desired: &Desired, service: &str, steps: &BTreeMap<String, StepId>) -> bool {
    desired.services.get(service).is_none_or(|service| steps.contains_key(&service.image.name))
}

fn is_older(observed: &Observed, image: &str, age: Span) -> bool {
    observed.image_ages.get(image).is_none_or(|known| *known > age.0)
}

/// What is done about one service's image.
fn wanted(
    name: &str,
    service: &DesiredService,
    observed: &Observed,
    building: Building,
) -> Result<Option<(Operation, Cause)>, PlanError> {
    let image = &service.image;
    let build = || Operation::BuildImage { service: name.to_owned(), image: image.name.clone() };
    let pull =
        |or_build| Operation::PullImage { image: image.name.clone(), service: name.to_owned(), or_build };
    if image.name.is_empty() {
        return Err(PlanError::NoImage(name.to_owned()));
    }
    if image.buildable && building == Building::Always {
        return Ok(Some((build(), Cause::Asked)));
    }
    let here = observed.images.contains_key(&image.name);
    let may_build = image.buildable && building != Building::Never;
    Ok(match image.policy {
        ImagePolicy::Build if may_build => Some((build(), Cause::Asked)),
        ImagePolicy::Always if image.named => Some((pull(may_build), Cause::PulledEachTime)),
        ImagePolicy::After(age) if image.named && here && is_older(observed, &image.name, age) => {
            Some((pull(may_build), Cause::Stale))
        }
        _ if here => None,
        ImagePolicy::Missing | ImagePolicy::Always | ImagePolicy::After(_) if image.named => {
            Some((pull(may_build), Cause::Missing))
        }
        _ if may_build => Some((build(), Cause::Missing)),
        _ if image.buildable => {
            return Err(PlanError::NeverBuilt { image: image.name.clone(), service: name.to_owned() });
        }
        _ => return Err(PlanError::NeverPulled { image: image.name.clone(), service: name.to_owned() }),
    })
}
