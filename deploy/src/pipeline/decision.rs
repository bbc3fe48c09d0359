//! From hosts that have all they need to one release everywhere: each step on all hosts, or on none.

use std::collections::BTreeSet;

use engine::error::{Error, Result};

use super::{Deployment, Task, on};
use crate::canary::CanaryStep;
use crate::fleet::{Failures, Fleet, Member};
use crate::heir::{self, Heir, Legacy, Will};
use crate::interrupt;
use crate::message::{Event, Outcome, Planned, Request, confused, millis};
use crate::release::ReleaseId;

impl Deployment<'_> {
    /// Prepares, commits and finishes. Whether anything changed.
    pub(super) fn roll_out(
        &self,
        fleet: &mut Fleet<Task>,
        id: &ReleaseId,
        canary: &[CanaryStep],
    ) -> Result<bool> {
        interrupt::rolls_out();
        if let Err(failures) = self.prepare(fleet) {
            return Err(self.call_off(fleet, id, failures, "prepared"));
        }
        if fleet.members.iter().all(|member| nothing_to_do(&member.task.planned)) {
            back_out(fleet, None);
            return Ok(false);
        }
        if let Err(error) = self.hook("before-commit", &self.settings.hooks.before_commit, id, fleet) {
            self.leave(fleet, Some(&engine::error::chain(&error)));
            return Err(error);
        }
        if let Err(failures) = self.canary(fleet, canary) {
            return Err(self.call_off(fleet, id, failures, "tried with a part of the connections"));
        }
        if let Err(failures) = self.commit(fleet) {
            return Err(self.call_off(fleet, id, failures, "changed over"));
        }
        self.finish(fleet)?;
        self.hook("after-commit", &self.settings.hooks.after_commit, id, fleet).map_err(|error| {
            error.with_hint(format!("the release {id} serves all the same; `rdeploy rollback` goes back"))
        })?;
        Ok(true)
    }

    fn prepare(&self, fleet: &mut Fleet<Task>) -> Result<(), Failures> {
        fleet.each(|host, task| {
            let rollout = task.rollout.clone().ok_or_else(confused)?;
            let name = host.name().to_owned();
            let request = Request::Prepare(Box::new(rollout));
            let outcome = host.ask(&request, &|event| (self.told)(&name, event))?;
            let Outcome::Plan(planned) = outcome else { return Err(confused()) };
            task.planned = planned;
            Ok(())
        })?;
        Ok(())
    }

    /// Gives the new release a part of the new connections, step by step, and sees how it does.
    fn canary(&self, fleet: &mut Fleet<Task>, steps: &[CanaryStep]) -> Result<(), Failures> {
        for step in steps {
            let shared = fleet.each(|host, _| {
                let request = Request::Share { percent: step.percent, draw: step.draw };
                let outcome = host.ask(&request, &|_| {})?;
                let Outcome::Shared(services) = outcome else { return Err(confused()) };
                Ok(services)
            })?;
            let services: BTreeSet<String> = shared.into_iter().flatten().collect();
            if services.is_empty() {
                let remark =
                    "WARNING: no service that changes can run twice and publishes a port: there is no canary";
                (self.told)("", Event::Remark(remark.to_owned()));
                return Ok(());
            }
            let services = services.into_iter().collect::<Vec<_>>().join(", ");
            (self.told)("", Event::Remark(format!("{services}: {step}")));
            fleet.each(|host, _| {
                host.ask(&Request::Watch { time_ms: millis(step.time.0) }, &|_| {}).map(drop)
            })?;
        }
        Ok(())
    }

    fn commit(&self, fleet: &mut Fleet<Task>) -> Result<(), Failures> {
        fleet.each(|host, task| {
            let name = host.name().to_owned();
            let outcome = host.ask(&Request::Commit, &|event| (self.told)(&name, event))?;
            let Outcome::Committed(measured) = outcome else { return Err(confused()) };
            task.measured = measured;
            Ok(())
        })?;
        Ok(())
    }

    /// Tells every host that all of them have changed over. From here on there is no way back: a host that is lost
    /// meanwhile may have gone back by itself, and is brought to the release again.
    fn finish(&self, fleet: &mut Fleet<Task>) -> Result<()> {
        let will = self.will(fleet)?;
        // One host alone decides for itself.
        let heir = (will.hosts.len() > 1).then(|| Heir::appoint(&will)).transpose();
        let heir = heir.inspect_err(|error| self.leave(fleet, Some(&engine::error::chain(error))))?;
        let finished = fleet.each(|host, _| {
            let name = host.name().to_owned();
            host.ask(&Request::Finish, &|event| (self.told)(&name, event)).map(drop)
        });
        if let Err(failures) = finished {
            self.catch_up(fleet, &will, failures)?;
        }
        if let Some(heir) = heir {
            heir.dismiss();
        }
        Ok(())
    }

    fn will(&self, fleet: &Fleet<Task>) -> Result<Will> {
        let legacy = |member: &Member<Task>| {
            Ok(Legacy {
                place: member.host.place().clone(),
                previous: member.task.planned.previous.clone(),
                rollout: member.task.rollout.clone().ok_or_else(confused)?,
            })
        };
        Ok(Will {
            project: self.project.name.clone(),
            author: self.author.clone(),
            hosts: fleet.members.iter().map(legacy).collect::<Result<_>>()?,
        })
    }

    fn catch_up(&self, fleet: &mut Fleet<Task>, will: &Will, failures: Failures) -> Result<()> {
        for (name, error) in failures.0 {
            let told = |event| (self.told)(&name, event);
            told(Event::Remark(format!("{}; trying again", engine::error::chain(&error))));
            let member = fleet.members.iter_mut().find(|member| member.host.name() == name);
            let legacy = will.hosts.iter().find(|legacy| legacy.place.name() == name);
            let (Some(member), Some(legacy)) = (member, legacy) else { continue };
            member.host = heir::see_through(&will.project, &will.author, legacy, &told).map_err(|error| {
                on(&name, error).with_hint(
                    "the other hosts have the new release, and this one may have gone back: run `rdeploy up` again when it is reached",
                )
            })?;
        }
        Ok(())
    }

    fn call_off(&self, fleet: &mut Fleet<Task>, id: &ReleaseId, failures: Failures, step: &str) -> Error {
        let error = Error::from(failures);
        let reason = format!("it could not be {step}: {}", engine::error::chain(&error));
        self.leave(fleet, Some(&reason));
        // What the hook ends with changes nothing any more.
        let _ = self.hook("after-failure", &self.settings.hooks.after_failure, id, fleet);
        error
    }

    /// Lets every host go back to how it was, and says so.
    fn leave(&self, fleet: &mut Fleet<Task>, reason: Option<&str>) {
        let lost = back_out(fleet, reason);
        let remark = if lost.is_empty() {
            "called off: every host is as it was before".to_owned()
        } else {
            let lost = lost.join(", ");
            format!(
                "called off: every host is as it was before; {lost} is not reached, and goes back by itself"
            )
        };
        (self.told)("", Event::Remark(remark));
    }
}

fn nothing_to_do(planned: &Planned) -> bool {
    planned.commit.is_empty() && planned.retire.is_empty() && planned.changed.is_empty()
}

/// Lets every host go back to how it was. Those that could not be told: they do so by themselves.
fn back_out(fleet: &mut Fleet<Task>, reason: Option<&str>) -> Vec<String> {
    let request = Request::BackOut { reason: reason.map(str::to_owned) };
    match fleet.each(|host, _| host.ask(&request, &|_| {}).map(drop)) {
        Ok(_) => Vec::new(),
        Err(Failures(lost)) => lost.into_iter().map(|(name, _)| name).collect(),
    }
}
