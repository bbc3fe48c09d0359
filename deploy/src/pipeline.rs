//! A deployment as its steps: build, send, prepare everywhere, commit everywhere, finish everywhere. A failure before the
//! commit changes no host; one during it takes all of them back.

mod decision;
mod delivery;
mod elsewhere;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use compose::Project;
use engine::error::{Error, Result};
use jiff::Timestamp;

use crate::build;
use crate::builder::Builder;
use crate::commit;
use crate::fleet::{Failures, Fleet};
use crate::hooks::{self, Moment};
use crate::host::Host;
use crate::message::{Event, Measured, Outcome, Planned, Request, Rollout, confused, millis};
use crate::partial::Selection;
use crate::project::{self, Parcel};
use crate::release::{self, Commit, Entry, Policy, Release, ReleaseId, SentImage};
use crate::settings::Settings;

/// What is deployed, and how.
pub struct Deployment<'a> {
    /// The user's project.
    pub project: &'a Project,
    /// The settings.
    pub settings: &'a Settings,
    /// The services it is about; all when empty.
    pub services: Vec<String>,
    /// Who makes it.
    pub author: String,
    /// How long to wait for a project that somebody else changes.
    pub lock_wait: Duration,
    /// Whether the report says which ports are published.
    pub tells_ports: bool,
    /// The engine of this machine, which has or builds the images.
    pub root: Option<PathBuf>,
    /// Reaches a machine that is none of the hosts.
    pub reach: Reach<'a>,
    /// Takes what happens, with the host it happens on.
    pub told: &'a (dyn Fn(&str, Event) + Sync),
}

/// How a machine is reached, by its address.
pub type Reach<'a> = Box<dyn Fn(&str) -> Result<Host> + Sync + 'a>;

/// What a host is to do.
#[derive(Debug, Default)]
pub struct Task {
    services: Option<Vec<String>>,
    /// What is rolled out.
    rollout: Option<Rollout>,
    planned: Planned,
    measured: Measured,
    sent: u64,
    ports: Vec<String>,
}

/// What a deployment came to.
#[derive(Debug, Clone)]
pub struct Report {
    /// The release.
    pub release: ReleaseId,
    /// Whether anything changed.
    pub changed: bool,
    /// Host by host.
    pub hosts: Vec<HostReport>,
    /// The images that were built, by service.
    pub images: BTreeMap<String, SentImage>,
    /// How long all of it took.
    pub took: Duration,
}

/// What a deployment came to on one host.
#[derive(Debug, Clone)]
pub struct HostReport {
    /// The host.
    pub host: String,
    /// What was done.
    pub planned: Planned,
    /// What was measured.
    pub measured: Measured,
    /// Bytes that went there.
    pub sent: u64,
    /// The ports that its containers publish now: `0.0.0.0:8080->80/tcp`.
    pub ports: Vec<String>,
}

// === impl Task ===

impl Task {
    /// A host that runs these services; all when `None`.
    pub fn of(services: Option<Vec<String>>) -> Self {
        Self { services, ..Self::default() }
    }
}

// === impl Deployment ===

impl Deployment<'_> {
    /// Builds, sends and rolls out on the hosts that `connect` reaches. Building and connecting take their time beside
    /// each other, unless a hook has to come between them.
    ///
    /// # Errors
    /// When a step failed. Every host is as it was before.
    pub fn up(&self, connect: impl FnOnce() -> Result<Fleet<Task>>) -> Result<Report> {
        let id = ReleaseId::new(Timestamp::now());
        self.with_hooks(&id, || self.build_and_roll_out(&id, connect))
    }

    fn build_and_roll_out(
        &self,
        id: &ReleaseId,
        connect: impl FnOnce() -> Result<Fleet<Task>>,
    ) -> Result<Report> {
        let began = Instant::now();
        let commit = commit::ask(&self.project.working_dir);
        let build = || build::start(self.root.as_deref(), self.project, &self.services);
        let is_here = self.settings.builder == Builder::Here;
        let is_early = is_here && self.settings.hooks.before_build.is_empty();
        let early = if is_early { Some(build()?) } else { None };
        let fleet = &mut connect()?;
        self.lock(fleet)?;
        self.hook("before-build", &self.settings.hooks.before_build, id)?;
        let images = if is_here {
            let building = early.map_or_else(build, Ok)?;
            building.finish(&|line| (self.told)("", Event::Remark(line.to_owned())))?
        } else {
            self.build_elsewhere(fleet)?
        };
        self.hook("before-prepare", &self.settings.hooks.before_prepare, id)?;
        let parcels = self.pack(fleet, &images, id, commit.answer().as_ref())?;
        self.send(fleet, &images, &parcels)?;
        let changed = self.roll_out(fleet, id, &self.settings.canary)?;
        self.ask_ports(fleet)?;
        Ok(report(fleet, id.clone(), changed, images, began))
    }

    /// Runs the hook for what became of a deployment. What one for a failure ends with changes nothing any more.
    fn with_hooks(&self, id: &ReleaseId, deploy: impl FnOnce() -> Result<Report>) -> Result<Report> {
        match deploy() {
            Ok(report) => {
                if report.changed {
                    self.hook("after-commit", &self.settings.hooks.after_commit, id).map_err(|error| {
                        let hint =
                            format!("the release {id} serves all the same; `rdeploy rollback` goes back");
                        error.with_hint(hint)
                    })?;
                }
                Ok(report)
            }
            Err(error) => {
                let failure = engine::error::chain(&error);
                let moment = Moment { failure: Some(&failure), ..self.moment("after-failure", id) };
                if let Err(error) =
                    hooks::run(&self.settings.hooks.after_failure, &self.project.working_dir, &moment)
                {
                    (self.told)("", Event::Remark(format!("WARNING: {}", engine::error::chain(&error))));
                }
                Err(error)
            }
        }
    }

    /// Lets a release that is kept on the hosts serve again: the `back`-th before the one that serves, or this one.
    ///
    /// # Errors
    /// When a host does not keep it, or a step failed. Every host is as it was before.
    pub fn rollback(
        &self,
        fleet: &mut Fleet<Task>,
        back: usize,
        wanted: Option<&ReleaseId>,
    ) -> Result<Report> {
        let began = Instant::now();
        self.lock(fleet)?;
        let id = match wanted {
            Some(id) => id.clone(),
            None => self.earlier(fleet, back)?,
        };
        self.with_hooks(&id, || {
            self.take_kept(fleet, &id)?;
            // What has served before serves all at once: whoever goes back is in a hurry.
            let changed = self.roll_out(fleet, &id, &[])?;
            self.ask_ports(fleet)?;
            Ok(report(fleet, id.clone(), changed, BTreeMap::new(), began))
        })
    }

    /// Has the hosts roll out a release that they keep.
    fn take_kept(&self, fleet: &mut Fleet<Task>, id: &ReleaseId) -> Result<()> {
        fleet.each(|host, task| {
            let request = Request::Release { project: self.project.name.clone(), id: id.clone() };
            let Outcome::Release(mut release) = host.ask(&request, &|_| {})? else { return Err(confused()) };
            self.overrule(&mut release.policy);
            task.rollout = Some(Rollout {
                release: *release,
                rollback: true,
                author: self.author.clone(),
                services: Vec::new(),
                credentials: BTreeMap::new(),
            });
            Ok(())
        })?;
        Ok(())
    }

    /// What [`Deployment::up`] would do. Images that this machine builds are built for it; what other machines build is
    /// taken as it is here from the last time. Nothing is sent and no host is changed.
    ///
    /// # Errors
    /// When a host cannot tell.
    pub fn plan(&self, fleet: &mut Fleet<Task>) -> Result<Report> {
        let began = Instant::now();
        let id = ReleaseId::new(Timestamp::now());
        let images = if self.settings.builder == Builder::Here {
            build::start(self.root.as_deref(), self.project, &self.services)?
                .finish(&|line| (self.told)("", Event::Remark(line.to_owned())))?
        } else {
            let text = "other machines build the images: the plan takes those that were built last";
            (self.told)("", Event::Remark(text.to_owned()));
            build::known(self.root.as_deref(), self.project)?
        };
        self.pack(fleet, &images, &id, commit::ask(&self.project.working_dir).answer().as_ref())?;
        fleet.each(|host, task| {
            let rollout = task.rollout.clone().ok_or_else(confused)?;
            let Outcome::Plan(planned) = host.ask(&Request::Plan(Box::new(rollout)), &|_| {})? else {
                return Err(confused());
            };
            task.planned = planned;
            Ok(())
        })?;
        let changed = fleet.members.iter().any(|member| !member.task.planned.changed.is_empty());
        Ok(report(fleet, id, changed, images, began))
    }

    /// Finds out where those are served who connect, for whoever wants to be told.
    fn ask_ports(&self, fleet: &mut Fleet<Task>) -> Result<()> {
        if !self.tells_ports {
            return Ok(());
        }
        let project = &self.project.name;
        fleet.each(|host, task| {
            let request = Request::Status { project: project.clone() };
            let Outcome::Status(status) = host.ask(&request, &|_| {})? else { return Err(confused()) };
            task.ports = status.containers.into_iter().flat_map(|container| container.ports).collect();
            Ok(())
        })?;
        Ok(())
    }

    fn lock(&self, fleet: &mut Fleet<Task>) -> Result<()> {
        fleet.lock(&self.project.name, &self.author, millis(self.lock_wait), self.told)
    }

    /// What goes to each host: one parcel for all that run the same services.
    fn pack(
        &self,
        fleet: &mut Fleet<Task>,
        images: &BTreeMap<String, SentImage>,
        id: &ReleaseId,
        commit: Option<&Commit>,
    ) -> Result<Vec<Parcel>> {
        let mut parcels = Vec::new();
        let mut remarks = BTreeSet::new();
        let selection = Selection::of(self.project, &self.services)?;
        for member in &mut fleet.members {
            let mut part = project::only(self.project, member.task.services.as_deref());
            let mut images = images.clone();
            if let Some(selection) = &selection {
                let serving = self.serving(&mut member.host)?;
                (part, images) = selection
                    .beside(&part, &images, serving.as_ref())
                    .map_err(|error| on(member.host.name(), error))?;
            }
            let mut parcel = project::pack(&part, &images, self.settings.transfer, id)?;
            remarks.extend(std::mem::take(&mut parcel.remarks));
            let release = Release {
                version: release::VERSION,
                id: id.clone(),
                project: self.project.name.clone(),
                model: parcel.model.clone(),
                images: images
                    .iter()
                    .filter(|(service, _)| part.services.contains_key(*service))
                    .map(|(service, image)| (service.clone(), image.clone()))
                    .collect(),
                pins: BTreeMap::new(),
                commit: commit.cloned(),
                author: self.author.clone(),
                created: Timestamp::now(),
                policy: self.policy(&part),
            };
            member.task.rollout = Some(Rollout {
                release,
                rollback: false,
                author: self.author.clone(),
                services: self
                    .services
                    .iter()
                    .filter(|name| part.services.contains_key(*name))
                    .cloned()
                    .collect(),
                credentials: delivery::credentials(&part, &images)?,
            });
            parcels.push(parcel);
        }
        remarks.into_iter().for_each(|remark| (self.told)("", Event::Remark(remark)));
        Ok(parcels)
    }

    /// The release that serves on a host.
    fn serving(&self, host: &mut Host) -> Result<Option<Release>> {
        let project = &self.project.name;
        let request = Request::History { project: project.clone() };
        let Outcome::History(entries) = host.ask(&request, &|_| {})? else { return Err(confused()) };
        let Some(id) = release::before(&entries, 0) else { return Ok(None) };
        let request = Request::Release { project: project.clone(), id };
        let Outcome::Release(release) = host.ask(&request, &|_| {})? else { return Err(confused()) };
        Ok(Some(*release))
    }

    fn policy(&self, project: &Project) -> Policy {
        let strategy = |(name, service): (&String, &compose::model::Service)| {
            let asked = self.settings.strategy.get(name).copied();
            (name.clone(), asked.unwrap_or_else(|| project::strategy(service)))
        };
        Policy {
            strategies: project.services.iter().map(strategy).collect(),
            drain_ms: millis(self.settings.drain()),
            ready_ms: self.settings.deploy_timeout.map(|limit| millis(limit.time())),
            keep: self.settings.keep(),
        }
    }

    /// What is said now, by a flag or the settings, counts more than what was said when a release was made.
    fn overrule(&self, policy: &mut Policy) {
        if let Some(drain) = self.settings.drain {
            policy.drain_ms = millis(drain.0);
        }
        if let Some(limit) = self.settings.deploy_timeout {
            policy.ready_ms = Some(millis(limit.time()));
        }
        if let Some(keep) = self.settings.keep {
            policy.keep = keep;
        }
    }

    fn hook(&self, name: &'static str, commands: &[String], id: &ReleaseId) -> Result<()> {
        hooks::run(commands, &self.project.working_dir, &self.moment(name, id))
    }

    fn moment<'a>(&'a self, name: &'static str, id: &'a ReleaseId) -> Moment<'a> {
        let hosts: Vec<&str> = self.settings.hosts.iter().map(|host| host.address.as_str()).collect();
        let hosts = hosts.join(" ");
        Moment { name, project: &self.project.name, release: id.as_str(), hosts, failure: None }
    }

    /// The release so many rollouts before the one that serves, which every host has to agree on.
    fn earlier(&self, fleet: &mut Fleet<Task>, back: usize) -> Result<ReleaseId> {
        let project = self.project.name.clone();
        let found = fleet.each(|host, _| {
            let request = Request::History { project: project.clone() };
            let Outcome::History(entries) = host.ask(&request, &|_| {})? else { return Err(confused()) };
            release::before(&entries, back).ok_or_else(|| nothing_before(&entries, back))
        })?;
        let first = found.first().cloned().ok_or_else(|| Error::invalid("there is no host"))?;
        if found.iter().any(|other| *other != first) {
            return Err(Error::conflict("the hosts had different releases before this one")
                .with_hint("name the release: `rdeploy rollback --to RELEASE`"));
        }
        Ok(first)
    }
}

fn report(
    fleet: &Fleet<Task>,
    release: ReleaseId,
    changed: bool,
    images: BTreeMap<String, SentImage>,
    began: Instant,
) -> Report {
    let hosts = fleet
        .members
        .iter()
        .map(|member| HostReport {
            host: member.host.name().to_owned(),
            planned: member.task.planned.clone(),
            measured: member.task.measured,
            sent: member.task.sent,
            ports: member.task.ports.clone(),
        })
        .collect();
    Report { release, changed, hosts, images, took: began.elapsed() }
}

/// Says why nobody can go back so far, and where else one may go: who went back too far wants the release after.
fn nothing_before(entries: &[Entry], back: usize) -> Error {
    let line = release::line(entries);
    let Some((serving, earlier)) = line.split_last() else {
        return Error::not_found("no release has served yet").with_hint("the first one is for `rdeploy up`");
    };
    let text = match earlier.len() {
        0 => format!("no release served before {serving}, which serves"),
        count => {
            format!(
                "only {count} served before {serving}, which serves, and it is {back} that one is to go back"
            )
        }
    };
    let served = entries.iter().rev().filter(|entry| entry.outcome == release::Outcome::Served);
    let after = served.map(|entry| &entry.release).find(|id| !line.contains(id));
    Error::not_found(text).with_hint(match after {
        Some(id) => format!("`rdeploy rollback --to {id}` leads to the one that this one came back for"),
        None => "`rdeploy history` lists them".to_owned(),
    })
}

fn on(name: &str, error: Error) -> Error {
    Error::from(Failures(vec![(name.to_owned(), error)]))
}
