//! Walks a plan: every step runs as soon as the steps it names are done, as many at once as the limit allows.
//! It takes no decisions; a step that failed keeps those behind it from running and nothing else. What is different for
//! an update that bears failures, the plan says (`Operation::Proceed`).

use std::collections::{BTreeSet, VecDeque};
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
    walk.begin(tell);
    walk.start_ready(tell);
    while let Some(joined) = walk.running.join_next().await {
        match joined {
            Ok((step, started, Ok(()))) => {
                tell(Event::Done(&walk.plan.steps()[step].operation, started.elapsed()));
                walk.settle(step, Fate::Done, tell);
            }
            Ok((step, _, Err(error))) => walk.fail(step, error, tell),
            // The thread panicked: its step is neither done nor failed, and what waits for it never runs.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
        walk.start_ready(tell);
    }
    let failed: BTreeSet<StepId> = walk.failures.iter().map(|(step, _)| *step).collect();
    let lost = walk.fates.iter().enumerate().filter(|(_, fate)| matches!(fate, Fate::Lost(_)));
    let skipped = lost.map(|(step, _)| step).filter(|step| !failed.contains(step)).collect();
    Walked { failures: walk.failures, skipped }
}

/// A walk: each step is looked at once for each step that it waits for, however long the plan is.
struct Walk<'a, E, P> {
    plan: &'a Arc<Plan>,
    perform: Arc<P>,
    slots: Arc<Semaphore>,
    /// What became of each step.
    fates: Vec<Fate>,
    /// For how many steps each one still waits.
    left: Vec<usize>,
    /// The steps that wait for each one.
    behind: Vec<Vec<StepId>>,
    /// The steps that wait for nothing any more.
    ready: BTreeSet<StepId>,
    failures: Vec<(StepId, E)>,
    running: JoinSet<(StepId, Instant, Result<(), E>)>,
}

/// What became of a step.
#[derive(Clone, Copy)]
enum Fate {
    /// It waits or runs.
    Open,
    /// It is done, or need not have been.
    Done,
    /// It failed or was kept from running; the step whose failure is the reason.
    Lost(StepId),
}

impl<'a, E, P> Walk<'a, E, P>
where
    E: std::fmt::Display + Send + 'static,
    P: Fn(&Operation) -> Result<(), E> + Send + Sync + 'static,
{
    fn new(plan: &'a Arc<Plan>, limit: usize, perform: Arc<P>) -> Self {
        let steps = plan.steps();
        let mut behind = vec![Vec::new(); steps.len()];
        for (step, waits) in steps.iter().enumerate() {
            waits.after.iter().for_each(|before| behind[*before].push(step));
        }
        Self {
            plan,
            perform,
            slots: Arc::new(Semaphore::new(limit.max(1))),
            fates: vec![Fate::Open; steps.len()],
            left: steps.iter().map(|step| step.after.len()).collect(),
            behind,
            ready: BTreeSet::new(),
            failures: Vec::new(),
            running: JoinSet::new(),
        }
    }

    /// What waits for nothing from the beginning on.
    fn begin(&mut self, tell: &(dyn Fn(Event<'_>) + Sync)) {
        let first: Vec<StepId> = (0..self.left.len()).filter(|step| self.left[*step] == 0).collect();
        for step in first {
            match self.unhindered(step, tell) {
                Fate::Open => {}
                fate => self.settle(step, fate, tell),
            }
        }
    }

    fn start_ready(&mut self, tell: &(dyn Fn(Event<'_>) + Sync)) {
        for step in std::mem::take(&mut self.ready) {
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

    fn fail(&mut self, step: StepId, error: E, tell: &(dyn Fn(Event<'_>) + Sync)) {
        let operation = &self.plan.steps()[step].operation;
        if matches!(operation, Operation::Await { required: false, .. }) {
            tell(Event::Forgiven(operation, error.to_string()));
            self.settle(step, Fate::Done, tell);
            return;
        }
        tell(Event::Failed(operation));
        self.failures.push((step, error));
        self.settle(step, Fate::Lost(step), tell);
    }

    /// Draws what follows from what became of a step, as far as it goes.
    fn settle(&mut self, step: StepId, fate: Fate, tell: &(dyn Fn(Event<'_>) + Sync)) {
        self.fates[step] = fate;
        let mut settled = VecDeque::from([step]);
        while let Some(before) = settled.pop_front() {
            for step in std::mem::take(&mut self.behind[before]) {
                self.left[step] -= 1;
                if !matches!(self.fates[step], Fate::Open) {
                    continue;
                }
                let fate = match self.fates[before] {
                    Fate::Lost(reason) if !self.is_gate(step) => self.lose(step, before, reason, tell),
                    _ if self.left[step] == 0 => self.unhindered(step, tell),
                    _ => Fate::Open,
                };
                self.fates[step] = fate;
                if !matches!(fate, Fate::Open) {
                    settled.push_back(step);
                }
            }
        }
    }

    /// What waits for something that is lost is lost too; a wait that need not succeed is over then.
    fn lose(&self, step: StepId, before: StepId, reason: StepId, tell: &(dyn Fn(Event<'_>) + Sync)) -> Fate {
        let operation = &self.plan.steps()[step].operation;
        if !matches!(operation, Operation::Await { required: false, .. }) {
            return Fate::Lost(reason);
        }
        let why = format!("{} did not get done", self.plan.steps()[before].operation);
        tell(Event::Forgiven(operation, why));
        Fate::Done
    }

    /// A step that waits for nothing any more runs; a gate opens, or does not.
    fn unhindered(&mut self, step: StepId, tell: &(dyn Fn(Event<'_>) + Sync)) -> Fate {
        if self.is_gate(step) {
            return self.pass(step, tell);
        }
        self.ready.insert(step);
        Fate::Open
    }

    fn is_gate(&self, step: StepId) -> bool {
        matches!(self.plan.steps()[step].operation, Operation::Proceed { .. })
    }

    /// An update goes on when no more was lost than it bears, and nothing but its own containers is the reason.
    fn pass(&mut self, gate: StepId, tell: &(dyn Fn(Event<'_>) + Sync)) -> Fate {
        let steps = self.plan.steps();
        let Operation::Proceed { service, borne, .. } = &steps[gate].operation else { return Fate::Done };
        let reason = |before: &StepId| match self.fates[*before] {
            Fate::Lost(reason) => Some(reason),
            _ => None,
        };
        let reasons: Vec<StepId> = steps[gate].after.iter().filter_map(reason).collect();
        let foreign = reasons.iter().find(|reason| {
            let operation = &steps[**reason].operation;
            operation.service() != Some(service) || !operation.tells_of_a_container()
        });
        if let Some(reason) = foreign.or_else(|| reasons.first().filter(|_| reasons.len() > *borne)) {
            return Fate::Lost(*reason);
        }
        let borne: Vec<(StepId, E)> =
            self.failures.extract_if(.., |(step, _)| reasons.contains(step)).collect();
        for (step, error) in borne {
            tell(Event::Forgiven(&steps[step].operation, error.to_string()));
        }
        Fate::Done
    }
}
