//! New containers that get a part of the connections before they get all of them.

use std::time::{Duration, Instant};

use compose::names;
use compose::operation::Operation;
use compose::runtime::Runtime;
use engine::container::state::{HealthStatus, State};
use engine::error::{Error, Kind, Result};
use engine::id::ContainerId;
use engine::network::Draw;
use engine::quantity::Percent;

use super::opened::Opened;

/// A container that is ready to take over from another one that runs.
#[derive(Debug, Clone)]
struct Pair {
    service: String,
    from: ContainerId,
    to: ContainerId,
    /// How often its restart policy had started it when it got its part.
    restarts: u32,
}

/// The containers that have a part of the connections.
#[derive(Debug, Default)]
pub(crate) struct Canary {
    pairs: Vec<Pair>,
}

/// How often it is looked how they do. A health check that fails and a program that ends are seen then.
const GLANCE: Duration = Duration::from_millis(100);

// === impl Canary ===

impl Canary {
    /// Leads a part of the new connections to the containers that are ready beside those that they replace. The others
    /// wait for the commit.
    pub(crate) fn share(opened: &Opened, percent: Percent, draw: Draw) -> Result<Self> {
        let (_, plan, stages) = opened.plan()?;
        let steps = stages.commit.iter().filter_map(|step| plan.steps().get(*step));
        let mut canary = Self::default();
        for step in steps {
            let Operation::HandOver { from: Some(from), to, .. } = &step.operation else { continue };
            let Ok(id) = opened.runtime.id_of(to) else { continue };
            let Some(restarts) = restarts(&opened.runtime, &id)? else { continue };
            let shared = opened.runtime.engine().share_ports(&from.id, &id, percent, draw)?;
            if !shared.is_empty() {
                let service = to.service().to_owned();
                canary.pairs.push(Pair { service, from: from.id.clone(), to: id, restarts });
            }
        }
        Ok(canary)
    }

    /// The services whose containers have a part.
    pub(crate) fn services(&self) -> Vec<String> {
        let mut services: Vec<String> = self.pairs.iter().map(|pair| pair.service.clone()).collect();
        services.sort();
        services.dedup();
        services
    }

    /// Looks at them for so long.
    ///
    /// # Errors
    /// When one ends, is started again or gets unhealthy; with its last words.
    pub(crate) fn watch(&self, runtime: &Runtime, time: Duration) -> Result<()> {
        let began = Instant::now();
        loop {
            for pair in &self.pairs {
                pair.look(runtime).map_err(|error| runtime.with_last_words(&pair.to, &error))?;
            }
            let left = time.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(GLANCE));
        }
    }
}

impl Pair {
    fn look(&self, runtime: &Runtime) -> Result<()> {
        let container = runtime.engine().container(self.to.as_str())?;
        let wrong = match &container.state {
            State::Running(running) if running.restarts > self.restarts => "was started again".to_owned(),
            State::Running(running) => match running.health.as_ref().map(|health| health.status) {
                Some(HealthStatus::Unhealthy) => "is unhealthy".to_owned(),
                _ => return Ok(()),
            },
            State::Exited(exited) | State::Restarting(exited) => {
                format!("ended with code {}", exited.code)
            }
            other => format!("is {}", other.word()),
        };
        Err(Error::new(
            Kind::Failed,
            format!(
                "container {} {wrong} while it had a part of the connections of {}",
                names::lasting(container.name().as_str(), container.record.spec.held),
                self.from.short()
            ),
        ))
    }
}

/// How often a container that runs has been started again; `None` for one that does not run.
fn restarts(runtime: &Runtime, id: &ContainerId) -> Result<Option<u32>> {
    Ok(match runtime.engine().container(id.as_str())?.state {
        State::Running(running) => Some(running.restarts),
        _ => None,
    })
}
