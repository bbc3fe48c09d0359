//! A plan in three stages, for a rollout that can be called off: what nobody outside notices, what changes who
//! answers, and what takes the old away. Pure.

use std::collections::BTreeSet;

use super::{Plan, Step, StepId};
use crate::cause::Cause;
use crate::operation::Operation;

/// The steps of a plan, each in one stage. A step waits for steps of its own stage and of earlier ones only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stages {
    /// Makes things ready: images, networks, volumes, and containers that are held back. Taking all of it away again
    /// leaves what there was.
    pub prepare: BTreeSet<StepId>,
    /// Changes who answers.
    pub commit: BTreeSet<StepId>,
    /// Takes away what nobody is led to any more.
    pub retire: BTreeSet<StepId>,
}

impl Stages {
    /// The stages of a plan that was made with `staged`.
    pub fn of(plan: &Plan) -> Self {
        let steps = plan.steps();
        let mut prepare: BTreeSet<StepId> = BTreeSet::new();
        for (id, step) in steps.iter().enumerate() {
            if goes_unnoticed(step) && step.after.iter().all(|before| prepare.contains(before)) {
                prepare.insert(id);
            }
        }
        let mut retire: BTreeSet<StepId> = BTreeSet::new();
        for (id, step) in steps.iter().enumerate().rev().filter(|(id, _)| !prepare.contains(id)) {
            let mut dependents = steps.iter().enumerate().filter(|(_, other)| other.after.contains(&id));
            if takes_away(step) && dependents.all(|(other, _)| retire.contains(&other)) {
                retire.insert(id);
            }
        }
        let commit = (0..steps.len()).filter(|id| !prepare.contains(id) && !retire.contains(id)).collect();
        Self { prepare, commit, retire }
    }
}

fn goes_unnoticed(step: &Step) -> bool {
    match &step.operation {
        Operation::PullImage { .. }
        | Operation::BuildImage { .. }
        | Operation::CreateNetwork { .. }
        | Operation::CreateVolume { .. }
        | Operation::CreateContainer { .. }
        | Operation::StartContainer { .. }
        | Operation::Await { .. }
        | Operation::Prove { .. } => true,
        Operation::StopContainer { .. } | Operation::RemoveContainer { .. } => {
            step.cause == Cause::NeverServed
        }
        _ => false,
    }
}

fn takes_away(step: &Step) -> bool {
    matches!(step.operation, Operation::StopContainer { .. } | Operation::RemoveContainer { .. })
}
