//! What runs of a project on this host, and what is not as its release says.

use compose::labels;
use engine::Engine;
use engine::container::state::{HealthStatus, State};
use engine::engine::Container;
use engine::error::Result;

use super::opened::Opened;
use super::places::Places;
use super::{Tell, history, taking};
use crate::message::{ContainerStatus, Status};

/// Looks.
pub(crate) fn status(engine: &Engine, places: &Places, project: &str, tell: &Tell) -> Result<Status> {
    let serving = history::serving(places)?;
    let containers = engine
        .containers()?
        .iter()
        .filter(|container| labels::belongs_to(&container.record.spec.labels, project))
        .map(seen)
        .collect();
    let drift = match &serving {
        None => Vec::new(),
        Some(id) => {
            let opened = Opened::as_it_serves(engine, places, history::find(places, id)?, tell)?;
            let (_, plan, _) = opened.plan()?;
            plan.steps().iter().map(|step| format!("{} ({})", step.operation, step.cause)).collect()
        }
    };
    Ok(Status {
        release: serving,
        containers,
        drift,
        locked_by: taking::holder(places, project)?,
        frozen: taking::frozen(places)?,
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
