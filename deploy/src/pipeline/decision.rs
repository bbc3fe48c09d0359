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
            return Err(self.call_off(fleet, failures, "prepared"));
        }
        if fleet.members.iter().all(|member| nothing_to_do(&member.task.planned)) {
            // A host that is lost goes back to the same by itself.
            let _ = back_out(fleet, None);
            return Ok(false);
        }
        if let Err(error) = self.hook("before-commit", &self.settings.hooks.before_commit, id) {
            self.leave(fleet, Some(&engine::error::chain(&error)));
            return Err(error);
        }
        if let Err(failures) = self.canary(fleet, canary) {
            return Err(self.call_off(fleet, failures, "tried with a part of the connections"));
        }
        if let Err(failures) = self.commit(fleet) {
            return Err(self.call_off(fleet, failures, "changed over"));
        }
        self.finish(fleet)?;
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
            // An agent that is there all the same would keep the next one from the project.
            member.host.hang_up();
            member.host = heir::see_through(&will.project, &will.author, legacy, &told).map_err(|error| {
                let hint = if will.hosts.len() == 1 {
                    "the new release may serve there: `rdeploy status` says so, and `rdeploy resume` brings it to an end"
                } else {
                    "the other hosts have the new release, and this one may have gone back: run `rdeploy up` again when it is reached"
                };
                on(&name, error).with_hint(hint)
            })?;
        }
        Ok(())
    }

    fn call_off(&self, fleet: &mut Fleet<Task>, failures: Failures, step: &str) -> Error {
        let error = Error::from(failures);
        self.leave(fleet, Some(&format!("it could not be {step}: {}", engine::error::chain(&error))));
        error
    }

    /// Lets every host go back to how it was, and says so.
    fn leave(&self, fleet: &mut Fleet<Task>, reason: Option<&str>) {
        let said = |text: String| (self.told)("", Event::Remark(text));
        match back_out(fleet, reason) {
            Ok(()) => said("called off: every host is as it was before".to_owned()),
            Err(Failures(late)) => {
                said("called off: every host is as it was before, or goes back by itself".to_owned());
                for (name, error) in late {
                    let error = engine::error::chain(&error);
                    said(format!(
                        "WARNING: {name} has not said that it is: {error}; `rdeploy resume` waits for it"
                    ));
                }
            }
        }
    }
}

fn nothing_to_do(planned: &Planned) -> bool {
    planned.commit.is_empty() && planned.retire.is_empty() && planned.changed.is_empty()
}

/// Lets every host go back to how it was. Those that could not be told, or cannot, try it by themselves.
fn back_out(fleet: &mut Fleet<Task>, reason: Option<&str>) -> Result<(), Failures> {
    let request = Request::BackOut { reason: reason.map(str::to_owned) };
    fleet.each(|host, _| host.ask(&request, &|_| {}).map(drop)).map(drop)
}
