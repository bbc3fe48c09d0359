//! Walks a plan: every step runs as soon as the steps it names are done, as many at once as the limit allows.
//! It takes no decisions; a step that failed keeps those behind it from running and nothing else.

use std::collections::BTreeSet;
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
        walk.start_ready(tell);
    }
    let skipped = walk.waiting.iter().copied().collect();
    Walked { failures: walk.failures, skipped }
}

struct Walk<'a, E, P> {
    plan: &'a Arc<Plan>,
    perform: Arc<P>,
    slots: Arc<Semaphore>,
    waiting: BTreeSet<StepId>,
    done: BTreeSet<StepId>,
    /// Steps that failed or were kept from running.
    lost: BTreeSet<StepId>,
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
            lost: BTreeSet::new(),
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
        self.lost.insert(step);
        self.failures.push((step, error));
        self.forgive_behind(tell);
    }

    /// A wait that need not succeed is over when what it waits for cannot come any more.
    fn forgive_behind(&mut self, tell: &(dyn Fn(Event<'_>) + Sync)) {
        for step in self.waiting.clone() {
            let Some(culprit) =
                self.plan.steps()[step].after.iter().find(|before| self.lost.contains(before)).copied()
            else {
                continue;
            };
            let operation = &self.plan.steps()[step].operation;
            self.waiting.remove(&step);
            if matches!(operation, Operation::Await { required: false, .. }) {
                let why = format!("{} did not get done", self.plan.steps()[culprit].operation);
                tell(Event::Forgiven(operation, why));
                self.finish(step);
            } else {
                self.lost.insert(step);
            }
        }
        // What was lost on the way has not been told; it is what the caller finds in `skipped`.
        let failed: BTreeSet<StepId> = self.failures.iter().map(|(step, _)| *step).collect();
        self.waiting.extend(self.lost.difference(&failed));
    }
}
