//! A deployment as its steps: build, send, prepare everywhere, commit everywhere, finish everywhere. A failure before the
//! commit changes no host; one during it takes all of them back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use compose::Project;
use engine::Engine;
use engine::error::{Error, Result};
use engine::id::ImageId;
use engine::image::{PushOptions, Reference, kept_login};
use jiff::Timestamp;

use crate::build;
use crate::canary::CanaryStep;
use crate::fleet::{Failures, Fleet, Member};
use crate::hooks::{self, Moment};
use crate::host::Host;
use crate::message::{Event, KeptFile, Measured, Outcome, Planned, RegistryLogin, Request, Rollout, millis};
use crate::project::{self, Parcel};
use crate::release::{self, Commit, Policy, Release, ReleaseId, SentImage};
use crate::settings::{Settings, Transfer};
use crate::transfer::{self, TransferError};

/// What is deployed, and how.
pub struct Deployment<'a> {
    /// The user's project.
    pub project: &'a Project,
    /// The settings.
    pub settings: &'a Settings,
    /// The services it is about; all when empty.
    pub services: Vec<String>,
    /// What it is made from.
    pub commit: Option<Commit>,
    /// Who makes it.
    pub author: String,
    /// What part of the connections it gets before it gets all.
    pub canary: &'a [CanaryStep],
    /// How long to wait for a project that somebody else changes.
    pub lock_wait: Duration,
    /// The engine of this machine, which has or builds the images.
    pub root: Option<PathBuf>,
    /// Takes what happens, with the host it happens on.
    pub told: &'a (dyn Fn(&str, Event) + Sync),
}

/// What a host is to do.
#[derive(Debug, Default)]
pub struct Task {
    services: Option<Vec<String>>,
    /// What is rolled out.
    rollout: Option<Rollout>,
    planned: Planned,
    measured: Measured,
    sent: u64,
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
}

/// How long a host that was lost at the end is tried to be reached.
const CATCH_UP: Duration = Duration::from_secs(30);

/// How long to wait before a host is tried again.
const BETWEEN_TRIES: Duration = Duration::from_secs(1);

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
        let began = Instant::now();
        let id = ReleaseId::new(Timestamp::now());
        let build = || build::start(self.root.as_deref(), self.project, &self.services);
        let early = if self.settings.hooks.before_build.is_empty() { Some(build()?) } else { None };
        let fleet = &mut connect()?;
        self.lock(fleet)?;
        self.hook("before-build", &self.settings.hooks.before_build, &id, fleet)?;
        let building = early.map_or_else(build, Ok)?;
        let images = building.finish(&|line| (self.told)("", Event::Remark(line.to_owned())))?;
        self.hook("before-prepare", &self.settings.hooks.before_prepare, &id, fleet)?;
        let parcels = self.pack(fleet, &images, &id)?;
        self.send(fleet, &images, &parcels)?;
        let changed = self.roll_out(fleet, &id)?;
        Ok(report(fleet, id, changed, images, began))
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
        let project = self.project.name.clone();
        let author = &self.author;
        fleet.each(|host, task| {
            let request = Request::Release { project: project.clone(), id: id.clone() };
            let Outcome::Release(release) = host.ask(&request, &|_| {})? else { return Err(confused()) };
            task.rollout = Some(Rollout {
                release: *release,
                rollback: true,
                author: author.clone(),
                services: Vec::new(),
                credentials: BTreeMap::new(),
            });
            Ok(())
        })?;
        let changed = self.roll_out(fleet, &id)?;
        Ok(report(fleet, id, changed, BTreeMap::new(), began))
    }

    /// What [`Deployment::up`] would do, with images as they are here now: nothing is built, sent or changed.
    ///
    /// # Errors
    /// When a host cannot tell.
    pub fn plan(&self, fleet: &mut Fleet<Task>) -> Result<Report> {
        let began = Instant::now();
        let id = ReleaseId::new(Timestamp::now());
        let images = build::known(self.root.as_deref(), self.project)?;
        self.pack(fleet, &images, &id)?;
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

    fn lock(&self, fleet: &mut Fleet<Task>) -> Result<()> {
        fleet.lock(&self.project.name, &self.author, millis(self.lock_wait), self.told)
    }

    /// What goes to each host: one parcel for all that run the same services.
    fn pack(
        &self,
        fleet: &mut Fleet<Task>,
        images: &BTreeMap<String, SentImage>,
        id: &ReleaseId,
    ) -> Result<Vec<Parcel>> {
        let mut parcels = Vec::new();
        let mut remarks = BTreeSet::new();
        for member in &mut fleet.members {
            let part = project::only(self.project, member.task.services.as_deref());
            let mut parcel = project::pack(&part, images, self.settings.transfer, id)?;
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
                commit: self.commit.clone(),
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
                credentials: credentials(&part, images)?,
            });
            parcels.push(parcel);
        }
        remarks.into_iter().for_each(|remark| (self.told)("", Event::Remark(remark)));
        Ok(parcels)
    }

    fn policy(&self, project: &Project) -> Policy {
        let strategy = |(name, service): (&String, &compose::model::Service)| {
            let asked = self.settings.strategy.get(name).copied();
            (name.clone(), asked.unwrap_or_else(|| project::strategy(service)))
        };
        Policy {
            strategies: project.services.iter().map(strategy).collect(),
            drain_ms: millis(self.settings.drain()),
            keep: self.settings.keep(),
        }
    }

    /// Sends every image to the registry that its name says; the hosts fetch it from there.
    fn push(&self, images: &BTreeMap<String, SentImage>) -> Result<()> {
        let engine = Engine::open(self.root.as_deref())?;
        let names: BTreeMap<&String, &String> =
            images.values().map(|image| (&image.name, &image.id)).collect();
        for (name, id) in names {
            let reference: Reference =
                name.parse().map_err(|error| Error::invalid(format!("image {name:?}")).with_source(error))?;
            engine.images().tag(id, &reference)?;
            engine.images().push(&reference, &PushOptions::default(), &|_| {})?;
            (self.told)("", Event::Remark(format!("{name} pushed")));
        }
        Ok(())
    }

    fn send(
        &self,
        fleet: &mut Fleet<Task>,
        images: &BTreeMap<String, SentImage>,
        parcels: &[Parcel],
    ) -> Result<()> {
        if self.settings.transfer == Transfer::Registry {
            self.push(images)?;
        }
        let by_name: BTreeMap<String, &Parcel> =
            fleet.names().into_iter().map(str::to_owned).zip(parcels).collect();
        let project = &self.project.name;
        fleet.each(|host, task| {
            let before = host.sent();
            if let Some(parcel) = by_name.get(host.name()).filter(|parcel| !parcel.files.is_empty()) {
                send_files(host, project, parcel)?;
            }
            let here = task.rollout.as_ref().map(|rollout| &rollout.release.images);
            let wanted: BTreeMap<&String, &SentImage> = images
                .iter()
                .filter(|(service, _)| here.is_some_and(|here| here.contains_key(*service)))
                .collect();
            if !wanted.is_empty() && self.settings.transfer == Transfer::Direct {
                let engine = Engine::open(self.root.as_deref())?;
                send_images(&engine, host, wanted.into_values(), self.told)?;
            }
            task.sent = host.sent() - before;
            Ok(())
        })?;
        Ok(())
    }

    /// Prepares, commits and finishes. Whether anything changed.
    fn roll_out(&self, fleet: &mut Fleet<Task>, id: &ReleaseId) -> Result<bool> {
        let told = self.told;
        let prepared = fleet.each(|host, task| {
            let rollout = task.rollout.clone().ok_or_else(confused)?;
            let name = host.name().to_owned();
            let outcome = host.ask(&Request::Prepare(Box::new(rollout)), &|event| told(&name, event))?;
            let Outcome::Plan(planned) = outcome else { return Err(confused()) };
            task.planned = planned;
            Ok(())
        });
        if let Err(failures) = prepared {
            return Err(self.call_off(fleet, id, failures, "prepared"));
        }
        if fleet.members.iter().all(|member| nothing_to_do(&member.task.planned)) {
            leave(fleet, None);
            return Ok(false);
        }
        if let Err(error) = self.hook("before-commit", &self.settings.hooks.before_commit, id, fleet) {
            leave(fleet, Some(&engine::error::chain(&error)));
            return Err(error);
        }
        if let Err(failures) = self.canary(fleet) {
            return Err(self.call_off(fleet, id, failures, "tried with a part of the connections"));
        }
        let committed = fleet.each(|host, task| {
            let name = host.name().to_owned();
            let Outcome::Committed(measured) = host.ask(&Request::Commit, &|event| told(&name, event))?
            else {
                return Err(confused());
            };
            task.measured = measured;
            Ok(())
        });
        if let Err(failures) = committed {
            return Err(self.call_off(fleet, id, failures, "changed over"));
        }
        let finished = fleet.each(|host, _| {
            let name = host.name().to_owned();
            host.ask(&Request::Finish, &|event| told(&name, event)).map(drop)
        });
        if let Err(failures) = finished {
            self.catch_up(fleet, failures)?;
        }
        self.hook("after-commit", &self.settings.hooks.after_commit, id, fleet)?;
        Ok(true)
    }

    /// Gives the new release a part of the new connections, step by step, and sees how it does.
    fn canary(&self, fleet: &mut Fleet<Task>) -> Result<(), Failures> {
        for step in self.canary {
            let shared = fleet.each(|host, _| {
                let outcome = host.ask(&Request::Share { percent: step.percent }, &|_| {})?;
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

    /// A host that was lost when it was told to finish may have gone back by itself, and the others have not: it is
    /// brought to the release again.
    fn catch_up(&self, fleet: &mut Fleet<Task>, failures: Failures) -> Result<()> {
        let began = Instant::now();
        for (name, mut error) in failures.0 {
            let Some(member) = fleet.members.iter_mut().find(|member| member.host.name() == name) else {
                continue;
            };
            while began.elapsed() < CATCH_UP {
                (self.told)(&name, Event::Remark(format!("{}; trying again", engine::error::chain(&error))));
                match self.roll_out_again(member) {
                    Ok(()) => break,
                    Err(next) => error = next,
                }
                std::thread::sleep(BETWEEN_TRIES);
            }
            if began.elapsed() >= CATCH_UP {
                return Err(on(&name, error).with_hint(
                    "the other hosts have the new release, and this one may have gone back: run `rdeploy up` again when it is reached",
                ));
            }
        }
        Ok(())
    }

    fn roll_out_again(&self, member: &mut Member<Task>) -> Result<()> {
        let mut host = member.host.again()?;
        let rollout = member.task.rollout.clone().ok_or_else(confused)?;
        let wait_ms = millis(CATCH_UP);
        let lock = Request::Lock { project: self.project.name.clone(), author: self.author.clone(), wait_ms };
        let name = host.name().to_owned();
        for request in [lock, Request::Prepare(Box::new(rollout)), Request::Commit, Request::Finish] {
            host.ask(&request, &|event| (self.told)(&name, event))?;
        }
        member.host = host;
        Ok(())
    }

    fn call_off(&self, fleet: &mut Fleet<Task>, id: &ReleaseId, failures: Failures, step: &str) -> Error {
        let names = failures.0.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>().join(", ");
        let error = Error::from(failures);
        let reason = format!("it could not be {step} on {names}: {}", engine::error::chain(&error));
        leave(fleet, Some(&reason));
        // What the hook ends with changes nothing any more.
        let _ = self.hook("after-failure", &self.settings.hooks.after_failure, id, fleet);
        error
    }

    fn hook(
        &self,
        name: &'static str,
        commands: &[String],
        id: &ReleaseId,
        fleet: &Fleet<Task>,
    ) -> Result<()> {
        let hosts = fleet.names().join(" ");
        let moment = Moment { name, project: &self.project.name, release: id.as_str(), hosts: &hosts };
        hooks::run(commands, &self.project.working_dir, &moment)
    }

    /// The release so many rollouts before the one that serves, which every host has to agree on.
    fn earlier(&self, fleet: &mut Fleet<Task>, back: usize) -> Result<ReleaseId> {
        let project = self.project.name.clone();
        let found = fleet.each(|host, _| {
            let request = Request::History { project: project.clone() };
            let Outcome::History(entries) = host.ask(&request, &|_| {})? else { return Err(confused()) };
            release::before(&entries, back).ok_or_else(|| {
                Error::not_found(format!("there is no release {back} before the one that serves"))
                    .with_hint("`rdeploy history` lists them")
            })
        })?;
        let first = found.first().cloned().ok_or_else(|| Error::invalid("there is no host"))?;
        if found.iter().any(|other| *other != first) {
            return Err(Error::conflict("the hosts had different releases before this one")
                .with_hint("name the release: `rdeploy rollback --to RELEASE`"));
        }
        Ok(first)
    }
}

fn nothing_to_do(planned: &Planned) -> bool {
    planned.commit.is_empty() && planned.retire.is_empty() && planned.changed.is_empty()
}

/// Lets every host go back to how it was. One that cannot be reached does so by itself.
fn leave(fleet: &mut Fleet<Task>, reason: Option<&str>) {
    let request = Request::BackOut { reason: reason.map(str::to_owned) };
    // The failure that led here is the one to tell.
    let _ = fleet.each(|host, _| host.ask(&request, &|_| {}).map(drop));
}

fn send_files(host: &mut Host, project: &str, parcel: &Parcel) -> Result<()> {
    let files: Vec<KeptFile> = parcel.files.iter().map(|piece| piece.file.clone()).collect();
    host.say(&Request::KeepFiles { project: project.to_owned(), files })?;
    let name = host.name().to_owned();
    let failed = |error| Error::failed(format!("host {name}: send files"), error);
    for piece in &parcel.files {
        for bytes in piece.bytes.chunks(crate::protocol::LONGEST) {
            host.channel().send_data(bytes).map_err(failed)?;
        }
    }
    host.channel().flush().map_err(failed)?;
    host.answer(&|_| {}).map(drop)
}

fn send_images<'a>(
    engine: &Engine,
    host: &mut Host,
    images: impl Iterator<Item = &'a SentImage>,
    told: &(dyn Fn(&str, Event) + Sync),
) -> Result<()> {
    let mut ids: Vec<ImageId> = Vec::new();
    let mut names: Vec<(ImageId, Reference)> = Vec::new();
    for image in images {
        let id: ImageId = image
            .id
            .parse()
            .map_err(|error| Error::invalid(format!("image {:?}", image.id)).with_source(error))?;
        let name = image
            .name
            .parse()
            .map_err(|error| Error::invalid(format!("image {:?}", image.name)).with_source(error))?;
        if !ids.contains(&id) {
            ids.push(id.clone());
        }
        names.push((id, name));
    }
    host.say(&Request::ReceiveImages)?;
    let name = host.name().to_owned();
    let sent = transfer::send(host.channel(), engine, &ids, &names, &|_| {})
        .map_err(|error| failed(&format!("host {name}: send the images"), error));
    let answered = host.answer(&|_| {});
    let sent = sent?;
    answered?;
    let layers: usize = sent.images.iter().map(|image| image.layers_sent).sum();
    if layers > 0 {
        let size = engine::quantity::ByteSize(sent.bytes_out).to_string();
        told(&name, Event::Remark(format!("{layers} layers sent in {size}")));
    }
    Ok(())
}

/// A transfer that failed, with what to do about it.
fn failed(step: &str, error: TransferError) -> Error {
    let hint = error.hint();
    Error::failed(step, error).with_hint_if(hint)
}

/// What the hosts need to say to the registries of images that they fetch themselves.
fn credentials(
    project: &Project,
    images: &BTreeMap<String, SentImage>,
) -> Result<BTreeMap<String, RegistryLogin>> {
    let mut all = BTreeMap::new();
    let named = project.services.values().filter_map(|service| service.image.as_ref());
    for image in named.chain(images.values().map(|image| &image.name)) {
        let Ok(reference) = image.parse::<Reference>() else { continue };
        let registry = reference.registry().to_owned();
        let login = kept_login(&registry, reference.repository())
            .map_err(|error| Error::failed(format!("find the login of {registry}"), error))?;
        if let Some(login) = login {
            all.insert(registry, RegistryLogin { username: login.username, password: login.password });
        }
    }
    Ok(all)
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
        })
        .collect();
    Report { release, changed, hosts, images, took: began.elapsed() }
}

fn on(name: &str, error: Error) -> Error {
    Error::from(Failures(vec![(name.to_owned(), error)]))
}

fn confused() -> Error {
    Error::conflict("the agent answered something else than it was asked")
}
