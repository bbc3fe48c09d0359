//! What follows when the update of a service fails: the rest stays as it is, or what was replaced comes back.

use std::collections::BTreeSet;
use std::time::Duration;

use super::failure::CliError;
use super::session::Opened;
use crate::desired::OnFailure;
use crate::observe::Observed;
use crate::operation::Operation;
use crate::output;
use crate::plan::Plan;
use crate::plan::rollback::rollback;
use crate::runtime::Failure;

/// Walks a plan of `up` that was made of what there was before. Services whose update fails go back when they say so.
pub(super) fn walk(
    opened: &Opened,
    before: &Observed,
    plan: Plan,
    timeout: Option<Duration>,
    done: &(dyn Fn(&Operation) + Sync),
) -> Result<(), CliError> {
    let updated = updated(&plan);
    let mut failures = match opened.execute_with(plan, timeout, done) {
        Err(CliError::Steps(failures)) => failures,
        other => return other,
    };
    let failed: BTreeSet<String> = failures.iter().filter_map(|failure| failure.service.clone()).collect();
    let failed: BTreeSet<String> = failed.intersection(&updated).cloned().collect();
    let those = |action| failed.iter().filter(move |service| on_failure(opened, service) == Some(action));
    let back: BTreeSet<String> = those(OnFailure::Rollback).cloned().collect();
    for service in those(OnFailure::Pause) {
        output::note(&format!("Service {service}: its update is paused; `rcompose up` goes on with it"));
    }
    failures.extend(go_back(opened, before, &back, done)?);
    Err(CliError::Steps(failures))
}

/// Brings these services back to what there was before. What fails on the way.
fn go_back(
    opened: &Opened,
    before: &Observed,
    services: &BTreeSet<String>,
    done: &(dyn Fn(&Operation) + Sync),
) -> Result<Vec<Failure>, CliError> {
    if services.is_empty() {
        return Ok(Vec::new());
    }
    let names = services.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    output::note(&format!("Service {names}: its update failed; what was replaced comes back"));
    let plan = rollback(opened.desired(), before, &opened.observe()?, services);
    match opened.execute_with(plan, None, done) {
        Ok(()) => {
            output::note(&format!("Service {names}: rolled back"));
            Ok(Vec::new())
        }
        Err(CliError::Steps(failures)) => Ok(failures),
        Err(error) => Err(error),
    }
}

/// The services of which a plan replaces containers.
fn updated(plan: &Plan) -> BTreeSet<String> {
    let replaced = plan.steps().iter().filter_map(|step| match &step.operation {
        Operation::CreateContainer { service, replaces: Some(_), .. } => Some(service.clone()),
        Operation::HandOver { from: Some(_), to, .. } => Some(to.service().to_owned()),
        _ => None,
    });
    replaced.collect()
}

/// What a service says of failures; `None` for one that says nothing of how it is updated.
fn on_failure(opened: &Opened, service: &str) -> Option<OnFailure> {
    let service = opened.desired().services.get(service)?;
    service.update.map(|update| update.on_failure)
}
