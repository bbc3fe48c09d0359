//! Walks a plan: every step runs as soon as the steps it names are done, as many at once as the limit allows.
//! It takes no decisions; a step that failed keeps those behind it from running and nothing else. What is different for
//! an update that bears failures, the plan says (`Operation::Proceed`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::operation::Operation;
use crate::plan::{Plan, StepId};

/// What is told while a plan is walked.
#[derive(Debug)]
pub enum Event<'a> {
    /// A step runs.
    Began(&'a Operation),
    /// A step is done.
    Done(&'a Operation, Duration),
    /// A step failed.
    Failed(&'a Operation),
    /// A step failed without which the others go on, and why.
    Forgiven(&'a Operation, String),
}

/// How a walk ended.
#[derive(Debug)]
pub struct Walked<E> {
    /// The steps that failed, in the order they did.
    pub failures: Vec<(StepId, E)>,
    /// The steps that did not run because of that.
    pub skipped: BTreeSet<StepId>,
}

/// Runs the steps of the plan. `perform` blocks until its step is done; each call has a thread of its own.
pub async fn walk<E, P>(
    plan: &Arc<Plan>,
    limit: usize,
    perform: P,
    tell: &(dyn Fn(Event<'_>) + Sync),
) -> Walked<E>
where
    E: std::fmt::Display + Send + 'static,
    P: Fn(&Operation) -> Result<(), E> + Send + Sync + 'static,
{
    let mut walk = Walk::new(plan, limit, Arc::new(perform));
    walk.start_ready(tell);
    while let Some(joined) = walk.running.join_next().await {
        match joined {
            Ok((step, started, Ok(()))) => {
                tell(Event::Done(&walk.plan.steps()[step].operation, started.elapsed()));
                walk.finish(step);
            }
            Ok((step, _, Err(error))) => walk.fail(step, error, tell),
            // The thread panicked: its step is neither done nor failed, and what waits for it never runs.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
        walk.settle(tell);
        walk.start_ready(tell);
    }
    let failed: BTreeSet<StepId> = walk.failures.iter().map(|(step, _)| *step).collect();
    let skipped = walk.lost.keys().copied().filter(|step| !failed.contains(step)).collect();
    Walked { failures: walk.failures, skipped }
}

struct Walk<'a, E, P> {
    plan: &'a Arc<Plan>,
    perform: Arc<P>,
    slots: Arc<Semaphore>,
    waiting: BTreeSet<StepId>,
    done: BTreeSet<StepId>,
    /// Steps that failed or were kept from running, with the step whose failure is the reason.
    lost: BTreeMap<StepId, StepId>,
    failures: Vec<(StepId, E)>,
    running: JoinSet<(StepId, Instant, Result<(), E>)>,
}

impl<'a, E, P> Walk<'a, E, P>
where
    E: std::fmt::Display + Send + 'static,
    P: Fn(&Operation) -> Result<(), E> + Send + Sync + 'static,
{
    fn new(plan: &'a Arc<Plan>, limit: usize, perform: Arc<P>) -> Self {
        Self {
            plan,
            perform,
            slots: Arc::new(Semaphore::new(limit.max(1))),
            waiting: (0..plan.steps().len()).collect(),
            done: BTreeSet::new(),
            lost: BTreeMap::new(),
            failures: Vec::new(),
            running: JoinSet::new(),
        }
    }

    fn start_ready(&mut self, tell: &(dyn Fn(Event<'_>) + Sync)) {
        let ready: Vec<StepId> = self
            .waiting
            .iter()
            .copied()
            .filter(|step| self.plan.steps()[*step].after.iter().all(|before| self.done.contains(before)))
            .collect();
        for step in ready {
            self.waiting.remove(&step);
            tell(Event::Began(&self.plan.steps()[step].operation));
            let (plan, perform, slots) = (self.plan.clone(), self.perform.clone(), self.slots.clone());
            self.running.spawn(async move {
                let started = Instant::now();
                let operation = &plan.steps()[step].operation;
                // Waiting for others costs nothing and must not keep them from running.
                let slot = match operation {
                    Operation::Await { .. } | Operation::Prove { .. } | Operation::Rest { .. } => None,
                    _ => slots.acquire_owned().await.ok(),
                };
                let work = tokio::task::spawn_blocking({
                    let plan = plan.clone();
                    move || perform(&plan.steps()[step].operation)
                });
                let result = match work.await {
                    Ok(result) => result,
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                };
                drop(slot);
                (step, started, result)
            });
        }
    }

    fn finish(&mut self, step: StepId) {
        self.done.insert(step);
    }

    fn fail(&mut self, step: StepId, error: E, tell: &(dyn Fn(Event<'_>) + Sync)) {
        let operation = &self.plan.steps()[step].operation;
        if matches!(operation, Operation::Await { required: false, .. }) {
            tell(Event::Forgiven(operation, error.to_string()));
            self.finish(step);
            return;
        }
        tell(Event::Failed(operation));
        self.lost.insert(step, step);
        self.failures.push((step, error));
    }

    /// Draws what follows from what is done and what is lost, as far as it goes.
    fn settle(&mut self, tell: &(dyn Fn(Event<'_>) + Sync)) {
        loop {
            self.lose_behind(tell);
            let settled = |step: &StepId| {
                let mut before = self.plan.steps()[*step].after.iter();
                before.all(|before| self.done.contains(before) || self.lost.contains_key(before))
            };
            let gate = self.waiting.iter().copied().find(|step| self.is_gate(*step) && settled(step));
            let Some(gate) = gate else { return };
            self.waiting.remove(&gate);
            self.pass(gate, tell);
        }
    }

    /// What waits for something that is lost is lost too; a wait that need not succeed is over then.
    fn lose_behind(&mut self, tell: &(dyn Fn(Event<'_>) + Sync)) {
        if self.lost.is_empty() {
            return;
        }
        for step in self.waiting.clone() {
            let after = &self.plan.steps()[step].after;
            let Some(culprit) = after.iter().find(|before| self.lost.contains_key(before)).copied() else {
                continue;
            };
            let operation = &self.plan.steps()[step].operation;
            if self.is_gate(step) {
                continue;
            }
            self.waiting.remove(&step);
            if matches!(operation, Operation::Await { required: false, .. }) {
                let why = format!("{} did not get done", self.plan.steps()[culprit].operation);
                tell(Event::Forgiven(operation, why));
                self.finish(step);
            } else {
                self.lost.insert(step, self.lost[&culprit]);
            }
        }
    }

    fn is_gate(&self, step: StepId) -> bool {
        matches!(self.plan.steps()[step].operation, Operation::Proceed { .. })
    }

    /// An update goes on when no more was lost than it bears, and nothing but its own containers is the reason.
    fn pass(&mut self, gate: StepId, tell: &(dyn Fn(Event<'_>) + Sync)) {
        let steps = self.plan.steps();
        let Operation::Proceed { service, borne, .. } = &steps[gate].operation else { return };
        let reasons: Vec<StepId> =
            steps[gate].after.iter().filter_map(|before| self.lost.get(before)).copied().collect();
        let foreign = reasons.iter().find(|reason| {
            let operation = &steps[**reason].operation;
            operation.service() != Some(service) || !operation.tells_of_a_container()
        });
        if let Some(reason) = foreign.or_else(|| reasons.first().filter(|_| reasons.len() > *borne)) {
            self.lost.insert(gate, *reason);
            return;
        }
        self.finish(gate);
        let borne: Vec<(StepId, E)> =
            self.failures.extract_if(.., |(step, _)| reasons.contains(step)).collect();
        for (step, error) in borne {
            tell(Event::Forgiven(&steps[step].operation, error.to_string()));
        }
    }
}
