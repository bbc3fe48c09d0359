//! What a service may use at most, and what is kept for it. Processors and memory are said in several places, of which
//! the checks let one pass.

use engine::quantity::ByteSize;

use crate::model::Service;

/// Processors and memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Amount {
    pub(super) processors: Option<f64>,
    pub(super) memory: Option<ByteSize>,
}

/// The period that a quota is of unless another one is given, in microseconds.
const PERIOD: f64 = 100_000.0;

/// What a service may use at most.
pub(super) fn most(service: &Service) -> Amount {
    let limits =
        service.deploy.as_ref().and_then(|deploy| deploy.resources.limits.clone()).unwrap_or_default();
    let period = if service.cpu_period > 0 { service.cpu_period as f64 } else { PERIOD };
    let quota = service.cpu_quota.max(0) as f64 / period;
    Amount::said(&[limits.cpus, service.cpus, quota], &[limits.memory, service.mem_limit])
}

/// What is kept for a service.
pub(super) fn least(service: &Service) -> Amount {
    let deploy = service.deploy.as_ref();
    let reserved = deploy.and_then(|deploy| deploy.resources.reservations.clone()).unwrap_or_default();
    Amount::said(&[reserved.cpus], &[reserved.memory, service.mem_reservation])
}

// === impl Amount ===

impl Amount {
    /// The first of each that says something.
    fn said(processors: &[f64], memory: &[ByteSize]) -> Self {
        Self {
            processors: processors.iter().copied().find(|number| *number > 0.0),
            memory: memory.iter().copied().find(|size| size.0 > 0),
        }
    }
}
