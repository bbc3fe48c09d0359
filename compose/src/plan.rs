//! A plan: the steps that turn what exists into what is wanted, each after the ones it needs. Pure: the same
//! project, observation and options give the same plan, and its text is what tests compare.

pub mod down;
pub mod images;
mod pace;
pub mod provisions;
pub mod rollback;
pub mod stages;
pub mod up;
pub mod verbs;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::cause::Cause;
use crate::graph::Cycle;
use crate::operation::Operation;

/// Steps in an order in which they could be done one by one; a step waits for those it names and no others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    steps: Vec<Step>,
    warnings: Vec<String>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What is done.
    pub operation: Operation,
    /// Why.
    pub cause: Cause,
    /// The steps that come first, all of them earlier in the plan.
    pub after: BTreeSet<StepId>,
}

/// The place of a step in its plan, from 0.
pub type StepId = usize;

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Services in a ring.
    #[error(transparent)]
    Cycle(#[from] Cycle),
    /// A name that is no service.
    #[error("no such service: {0}")]
    NoSuchService(String),
    /// A service that was never brought up.
    #[error("service {0:?} has no container to start")]
    NothingToStart(String),
    /// Neither `image` nor `build`.
    #[error("service {0} has neither an image nor a build context")]
    NoImage(String),
    /// A container of a service that has none.
    #[error("service {0} is provided by a program and has no containers")]
    Provided(String),
    /// A network somebody else should have made.
    #[error("network {0} declared as external, but could not be found")]
    ExternalNetwork(String),
    /// A volume somebody else should have made.
    #[error("external volume {0:?} not found")]
    ExternalVolume(String),
    /// Several containers and one name.
    #[error(
        "service {service} has the container name {name:?} and cannot have {scale} containers; remove the name to scale it"
    )]
    NamedReplicas {
        /// The service.
        service: String,
        /// The name.
        name: String,
        /// How many were wanted.
        scale: u32,
    },
    /// An image that is missing and may not be fetched.
    #[error("image {image} of service {service} is not here and its pull policy is never")]
    NeverPulled {
        /// The image.
        image: String,
        /// The service.
        service: String,
    },
    /// An image that is missing and may not be built.
    #[error("image {image} of service {service} is not here and --no-build forbids building it")]
    NeverBuilt {
        /// The image.
        image: String,
        /// The service.
        service: String,
    },
    /// A container whose start makes no sense without another one.
    #[error("service {service} depends on {dependency}, which is not defined or has no active profile")]
    NoDependency {
        /// The service.
        service: String,
        /// What it depends on.
        dependency: String,
    },
}

// === impl PlanError ===

impl PlanError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NothingToStart(service) => format!("`rcompose up {service}` makes one"),
            Self::ExternalNetwork(name) => format!("`rengine network create {name}` makes it"),
            Self::ExternalVolume(name) => format!("`rengine volume create {name}` makes it"),
            Self::NeverPulled { service, .. } => format!("`rcompose pull {service}` fetches it"),
            Self::NeverBuilt { service, .. } => format!("`rcompose build {service}` makes it"),
            _ => return None,
        })
    }
}

// === impl Plan ===

impl Plan {
    /// The steps, in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// What the user should know and need not stop at.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    pub(crate) fn add(
        &mut self,
        operation: Operation,
        cause: Cause,
        after: impl IntoIterator<Item = StepId>,
    ) -> StepId {
        let id = self.steps.len();
        let after: BTreeSet<StepId> = after.into_iter().collect();
        debug_assert!(after.iter().all(|step| *step < id), "a step waits for a later one");
        self.steps.push(Step { operation, cause, after });
        id
    }

    /// The plan of these steps alone. What they wait for and is not among them is taken for done.
    pub fn only(&self, wanted: &BTreeSet<StepId>) -> Self {
        let places: BTreeMap<StepId, StepId> =
            wanted.iter().enumerate().map(|(place, step)| (*step, place)).collect();
        let place = |step: &StepId| places.get(step).copied();
        let steps = wanted
            .iter()
            .filter_map(|step| self.steps.get(*step))
            .map(|step| Step { after: step.after.iter().filter_map(place).collect(), ..step.clone() });
        Self { steps: steps.collect(), warnings: self.warnings.clone() }
    }

    /// The plan without some steps, which nothing waits for.
    pub fn without(&self, unwanted: impl Fn(&Operation) -> bool) -> Self {
        let wanted = self.steps.iter().enumerate().filter(|(_, step)| !unwanted(&step.operation));
        self.only(&wanted.map(|(id, _)| id).collect())
    }

    pub(crate) fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }
}

/// One line a step: `3 container shop-web-1: start (missing) after 1, 2`.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.steps.is_empty() {
            return f.write_str("nothing to do");
        }
        for (id, step) in self.steps.iter().enumerate() {
            if id > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{} {} ({})", id + 1, step.operation, step.cause)?;
            for (place, before) in step.after.iter().enumerate() {
                write!(f, "{}{}", if place == 0 { " after " } else { ", " }, before + 1)?;
            }
        }
        Ok(())
    }
}
