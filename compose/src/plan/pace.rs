//! How the steps of an update follow each other: so many containers at a time, some time between them, and no further
//! once too many have failed (as docker's swarm understands `update_config`).

use super::{Plan, StepId};
use crate::cause::Cause;
use crate::desired::Update;
use crate::operation::Operation;

/// How far the update of a service is.
pub(super) struct Pace {
    service: String,
    update: Update,
    /// How many containers are replaced, and how many of them may fail.
    of: usize,
    borne: usize,
    /// What the next containers wait for.
    gate: Vec<StepId>,
    /// How many are being replaced at the moment.
    batch: usize,
    /// The last step of each container so far.
    last: Vec<StepId>,
}

// === impl Pace ===

impl Pace {
    pub(super) fn new(service: &str, update: Update, of: usize) -> Self {
        Self {
            service: service.to_owned(),
            update,
            of,
            borne: update.borne(of),
            gate: Vec::new(),
            batch: 0,
            last: Vec::new(),
        }
    }

    /// What the next container waits for.
    pub(super) fn gate(&self) -> &[StepId] {
        &self.gate
    }

    /// Whether some may fail.
    pub(super) fn bears_failures(&self) -> bool {
        self.borne > 0
    }

    /// One more container has its steps, and this is the last of them.
    pub(super) fn follow(&mut self, plan: &mut Plan, last: StepId) {
        self.last.push(last);
        self.batch += 1;
        if self.update.parallelism > 0 && self.batch >= self.update.parallelism && self.last.len() < self.of {
            self.end_batch(plan);
        }
    }

    /// What depends on all of them waits for these.
    pub(super) fn end(self, plan: &mut Plan) -> Vec<StepId> {
        match self.proceed(plan) {
            Some(step) => vec![step],
            None => self.last,
        }
    }

    fn end_batch(&mut self, plan: &mut Plan) {
        self.gate = match self.proceed(plan) {
            Some(step) => vec![step],
            None => self.last[self.last.len() - self.batch..].to_vec(),
        };
        self.batch = 0;
        if let Some(time) = self.update.rest() {
            let rest = Operation::Rest { service: self.service.clone(), time };
            self.gate = vec![plan.add(rest, Cause::Asked, self.gate.iter().copied())];
        }
    }

    /// Where failures are borne: the step that tells whether there were too many so far.
    fn proceed(&self, plan: &mut Plan) -> Option<StepId> {
        let service = self.service.clone();
        let proceed = Operation::Proceed { service, borne: self.borne, of: self.of };
        self.bears_failures().then(|| plan.add(proceed, Cause::Asked, self.last.iter().copied()))
    }
}
