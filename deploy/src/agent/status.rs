//! What runs of a project on this host, and what is not as its release says.

use compose::labels;
use compose::operation::{Instance, Operation};
use engine::Engine;
use engine::container::state::{HealthStatus, State};
use engine::engine::Container;
use engine::error::Result;

use super::opened::Opened;
use super::places::Places;
use super::{Tell, history, taking};
use crate::message::{ContainerStatus, Status};
use crate::release::ReleaseId;

/// Looks.
pub(crate) fn status(engine: &Engine, places: &Places, project: &str, tell: &Tell) -> Result<Status> {
    let serving = history::serving(places)?;
    let containers = engine
        .containers()?
        .iter()
        .filter(|container| labels::belongs_to(&container.record.spec.labels, project))
        .map(seen)
        .collect();
    let drift = serving.as_ref().map(|id| drift(engine, places, id, tell)).transpose()?;
    Ok(Status {
        release: serving,
        containers,
        drift: drift.unwrap_or_default(),
        locked_by: taking::holder(places, project)?,
        frozen: taking::frozen(places)?,
    })
}

/// What is not as the release says.
fn drift(engine: &Engine, places: &Places, id: &ReleaseId, tell: &Tell) -> Result<Vec<String>> {
    let release = match history::find(places, id) {
        Ok(release) => release,
        // What runs can be seen all the same.
        Err(error) => return Ok(vec![engine::error::chain(&error)]),
    };
    let (_, plan, _) = Opened::as_it_serves(engine, places, release, tell)?.plan()?;
    let steps = plan.steps().iter().filter(|step| !starts_what_is_done(engine, &step.operation));
    Ok(steps.map(|step| format!("{} ({})", step.operation, step.cause)).collect())
}

/// Whether a step starts a program again that has done its work: `up` runs it once more, but nothing is wrong with it.
/// Whoever is connected to or asked for its health is meant to go on.
fn starts_what_is_done(engine: &Engine, operation: &Operation) -> bool {
    let Operation::StartContainer { instance: Instance::Existing(existing) } = operation else {
        return false;
    };
    engine.container(existing.id.as_str()).is_ok_and(|container| {
        let spec = &container.record.spec;
        container.state.ended_well().is_some() && spec.ports.is_empty() && spec.healthcheck.is_none()
    })
}

fn seen(container: &Container) -> ContainerStatus {
    let state = match &container.state {
        State::Running(running) => {
            let health = match running.health.as_ref().map(|health| health.status) {
                Some(HealthStatus::Healthy) => " (healthy)",
                Some(HealthStatus::Unhealthy) => " (unhealthy)",
                Some(HealthStatus::Starting) => " (starting)",
                None => "",
            };
            format!("running{health}")
        }
        State::Exited(exited) => format!("exited ({})", exited.code),
        other => other.word().to_owned(),
    };
    ContainerStatus {
        name: container.name().to_string(),
        service: labels::value(&container.record.spec.labels, labels::SERVICE).to_owned(),
        state,
        image: container.record.spec.image.clone(),
        ports: container.ports.iter().map(ToString::to_string).collect(),
    }
}
