//! The steps that have services provided by programs of others, and language models made ready.

use std::collections::{BTreeMap, BTreeSet};

use super::{Plan, PlanError, StepId};
use crate::cause::Cause;
use crate::desired::Desired;
use crate::graph;
use crate::operation::{Operation, Provision};

/// The steps of a plan by what they provide.
#[derive(Debug, Default)]
pub(super) struct Provided {
    services: BTreeMap<String, StepId>,
    models: BTreeMap<String, StepId>,
}

/// What services of this scope need and is not a container. Providers are asked each time, as they have to tell how
/// they are reached; also those of a service whose dependencies are left alone.
pub fn add_up(plan: &mut Plan, desired: &Desired, scope: &BTreeSet<String>) -> Result<(), PlanError> {
    add(plan, desired, scope, &graph::order(desired)?);
    Ok(())
}

pub(super) fn add(
    plan: &mut Plan,
    desired: &Desired,
    scope: &BTreeSet<String>,
    order: &[String],
) -> Provided {
    let mut provided = Provided::default();
    let in_scope = || scope.iter().filter_map(|name| desired.services.get(name));
    let needed: BTreeSet<&String> =
        scope.iter().chain(in_scope().flat_map(|service| service.depends_on.keys())).collect();
    for name in order.iter().filter(|name| needed.contains(name)) {
        let Some((service, by)) =
            desired.services.get(name).and_then(|service| Some((service, service.provider.clone()?)))
        else {
            continue;
        };
        let after: Vec<StepId> =
            service.depends_on.keys().filter_map(|other| provided.services.get(other).copied()).collect();
        let provide = Operation::Provide { service: name.clone(), by, provision: Provision::Up };
        provided.services.insert(name.clone(), plan.add(provide, Cause::Asked, after));
    }
    let models: BTreeSet<&String> = in_scope().flat_map(|service| &service.models).collect();
    for key in models {
        let step = plan.add(Operation::PrepareModel { model: key.clone() }, Cause::Asked, []);
        provided.models.insert(key.clone(), step);
    }
    provided
}

// === impl Provided ===

impl Provided {
    /// What a container of a service is made after: its variables have to be known.
    pub(super) fn before<'a>(
        &'a self,
        desired: &'a Desired,
        service: &str,
    ) -> impl Iterator<Item = StepId> + 'a {
        let service = desired.services.get(service);
        let providers = service.into_iter().flat_map(|service| service.depends_on.keys());
        let models = service.into_iter().flat_map(|service| &service.models);
        providers
            .filter_map(|name| self.services.get(name))
            .chain(models.filter_map(|key| self.models.get(key)))
            .copied()
    }
}
