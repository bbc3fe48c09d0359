//! Does single operations on the engine, for one project. It blocks, and it decides nothing.

mod hook;
mod image;
mod listeners;
pub mod parking;
mod pre_start;
mod provide;
pub mod ready;
mod resource;
mod sync;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use engine::container::logs::LogOptions;
use engine::container::spec::{ContainerSpec, MountSource, Seccomp};
use engine::container::state::{HealthStatus, Probe, State};
use engine::engine::{Engine, RemoveOptions, StopOptions};
use engine::error::{Error, Kind, Result};
use engine::id::{ContainerId, ImageId, VolumeName};
use engine::image::Login;
use engine::quantity::Span;
use engine::signal::Signal;
use engine::store;

use crate::build::BuildFlags;
use crate::desired::{Desired, DesiredService};
use crate::labels;
use crate::model::{Project, Service};
use crate::names;
use crate::observe::Life;
use crate::operation::{Existing, Instance, Milestone, Operation};
use crate::provision::Told;
use crate::translate::{self, Circumstances};

/// The engine as one project sees it.
pub struct Runtime {
    engine: Engine,
    project: Project,
    desired: Desired,
    flags: Flags,
    /// Containers made so far, by name.
    made: Mutex<BTreeMap<String, ContainerId>>,
    /// What runs once before the containers of a service.
    prepared: pre_start::Once,
    /// What providers and models have told.
    told: Mutex<Told>,
    tell: Tell,
}

/// What the command line says about how things are done.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// How images are built.
    pub build: BuildFlags,
    /// Whether anonymous volumes start empty.
    pub renew_volumes: bool,
    /// Whether pulling is not shown.
    pub quiet_pull: bool,
    /// Whether a container that is held back and does not get ready stays, for whoever goes back from a rollout.
    pub keep_failed: bool,
    /// How long a container that is held back may take until it is ready; by its health check, or 60 s, when `None`.
    pub ready_within: Option<Duration>,
    /// Who asks which registry; for all others what `rengine login` has kept.
    pub logins: Vec<Login>,
}

/// How many lines of a container that did not get ready its failure shows.
const LAST_WORDS: usize = 10;

/// The directory of a project's secrets and configurations that are in no file, and the two places in it.
pub(crate) const CONTENTS: &str = "contents";
pub(crate) const PLACES: [&str; 2] = ["0", "1"];

/// Takes lines for people: the steps of a build, the layers of a pull, warnings.
pub type Tell = Box<dyn Fn(Telling<'_>) + Send + Sync>;

/// A line for people.
#[derive(Debug)]
pub enum Telling<'a> {
    /// What a build says, as it is.
    Build(&'a str, &'a [u8]),
    /// The images that a build has made for a service, one a platform, and their name, which may soon mean another one.
    Built(&'a str, &'a [ImageId]),
    /// How far an image's layers are.
    Pull(&'a str, engine::image::Progress),
    /// What is done about a service or a model, by somebody else.
    Said(String, String),
    /// A line that a hook wrote, and the container it ran in.
    Hook(String, String),
    /// Something is not as it should be and goes on nevertheless.
    Warning(String),
}

/// A failure of one operation, with what it was done to.
#[derive(Debug)]
pub struct Failure {
    /// The service, when it is about one.
    pub service: Option<String>,
    /// The container, network, volume or image.
    pub object: String,
    /// Why.
    pub error: Error,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = engine::error::chain(&self.error);
        let service = self.service.as_ref().map(|service| format!("service {service}"));
        if let Some(service) = service.filter(|service| !text.starts_with(service) && self.object != *service)
        {
            write!(f, "{service}: ")?;
        }
        if !text.contains(&self.object) {
            write!(f, "{}: ", self.object)?;
        }
        f.write_str(&text)
    }
}

// === impl Runtime ===

impl Runtime {
    /// The engine as this project sees it.
    pub fn new(engine: Engine, project: Project, desired: Desired, flags: Flags, tell: Tell) -> Self {
        Self {
            engine,
            project,
            desired,
            flags,
            made: Mutex::default(),
            prepared: pre_start::Once::default(),
            told: Mutex::default(),
            tell,
        }
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The project.
    pub fn project(&self) -> &Project {
        &self.project
    }

    /// What the project wants.
    pub fn desired(&self) -> &Desired {
        &self.desired
    }

    /// Does one operation.
    pub fn perform(&self, operation: &Operation) -> Result<(), Failure> {
        self.act(operation).map_err(|error| {
            let (service, object) = subject(operation);
            Failure { service, object, error }
        })
    }

    fn act(&self, operation: &Operation) -> Result<()> {
        match operation {
            Operation::PullImage { image, service, or_build } => self.pull(image, service, *or_build),
            Operation::BuildImage { service, .. } => self.build(service),
            Operation::Provide { service, provision, .. } => self.provide(service, *provision),
            Operation::PrepareModel { model } => self.prepare_model(model),
            Operation::CreateNetwork { key, .. } => self.create_network(key),
            Operation::RemoveNetwork { name, .. } => self.still_used(self.engine.remove_network(name)),
            Operation::CreateVolume { key, .. } => self.create_volume(key),
            Operation::RemoveVolume { name } => self.still_used(self.engine.remove_volume(name)),
            Operation::RemoveImage { image } => {
                self.still_used(self.engine.remove_image(image, false).map(drop))
            }
            Operation::CreateContainer { service, number, name, replaces, held } => {
                self.create_container(service, *number, name, replaces.as_ref(), *held)
            }
            Operation::Prove { instance, monitor, kept } => self.prove(instance, *monitor, *kept),
            Operation::Watch { instance, time } => self.watch(instance, *time),
            // Whether it goes on is seen from the steps before it.
            Operation::Proceed { .. } => Ok(()),
            Operation::HoldBack { container } => self.engine.hold_back(&container.id),
            Operation::HandOver { from, to, name } => self.hand_over(from.as_ref(), to, name),
            Operation::Rest { time, .. } => {
                std::thread::sleep(time.0);
                Ok(())
            }
            Operation::RenameContainer { container, to } => {
                self.engine.rename(&container.id, &to.parse().map_err(|error| invalid_name(to, error))?)
            }
            Operation::StartContainer { instance } => self.start(instance),
            Operation::StopContainer { container, grace } => {
                self.run_pre_stop(&container.service, &container.id)?;
                gone_is_fine(self.engine.stop(&container.id, &StopOptions { signal: None, grace: *grace }))
            }
            Operation::KillContainer { container, signal } => self.kill(&container.id, *signal),
            Operation::PauseContainer { container } => self.engine.pause(&container.id),
            Operation::UnpauseContainer { container } => self.engine.unpause(&container.id),
            Operation::RemoveContainer { container, volumes } => gone_is_fine(
                self.engine.remove(&container.id, &RemoveOptions { force: true, volumes: *volumes }),
            ),
            Operation::Await { instances, milestone, .. } => self.wait(instances, *milestone),
        }
    }

    /// A network, volume or image that others use stays, with a warning; one that is gone is gone.
    fn still_used(&self, result: Result<()>) -> Result<()> {
        match result {
            Err(error) if error.kind() == Kind::Conflict => {
                (self.tell)(Telling::Warning(format!("left in place: {}", engine::error::chain(&error))));
                Ok(())
            }
            other => gone_is_fine(other),
        }
    }

    /// A container that has ended by itself meanwhile needs no signal.
    fn kill(&self, id: &ContainerId, signal: Signal) -> Result<()> {
        let runs =
            || self.engine.container(id.as_str()).is_ok_and(|container| Life::of(&container.state).is_up());
        match self.engine.kill(id, signal) {
            Err(_) if !runs() => Ok(()),
            other => other,
        }
    }

    fn service(&self, name: &str) -> Result<&Service> {
        self.project.services.get(name).ok_or_else(|| Error::not_found(format!("no such service: {name}")))
    }

    /// The id of a container that was there or was made on the way.
    pub fn id_of(&self, instance: &Instance) -> Result<ContainerId> {
        match instance {
            Instance::Existing(Existing { id, .. }) => Ok(id.clone()),
            Instance::Planned { name, .. } => {
                let made = self.made.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
                made.map_or_else(|| self.engine.find_id(name), Ok)
            }
        }
    }
}

// === impl Runtime: containers ===

/// A container `run` makes: what differs from the service's own.
#[derive(Debug, Clone)]
pub struct OneOff {
    /// Its name.
    pub name: String,
    /// What tells it apart from others.
    pub slug: String,
}

impl Runtime {
    fn create_container(
        &self,
        service: &str,
        number: u32,
        name: &str,
        replaces: Option<&ContainerId>,
        held: bool,
    ) -> Result<()> {
        let service = self.service(service)?;
        let until_then = if held { names::candidate(name) } else { name.to_owned() };
        let mut spec = self.specification(service, &until_then, number, None, replaces)?;
        spec.held = held;
        let id = self.create(spec, name)?;
        self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), id);
        Ok(())
    }

    /// Makes a container for `run`, after `change` had its way with the specification.
    pub fn create_one_off(
        &self,
        service: &str,
        one_off: &OneOff,
        change: impl FnOnce(&mut ContainerSpec) -> Result<()>,
    ) -> Result<ContainerId> {
        let service = self.service(service)?;
        let mut spec = self.specification(service, &one_off.name, 0, Some(&one_off.slug), None)?;
        change(&mut spec)?;
        self.create(spec, &one_off.name)
    }

    /// Makes a container, and tells what is odd about it under the name that people know it by.
    fn create(&self, spec: ContainerSpec, name: &str) -> Result<ContainerId> {
        let created = self.engine.create(spec)?;
        for warning in created.warnings {
            (self.tell)(Telling::Warning(format!("container {name}: {warning}")));
        }
        Ok(created.id)
    }

    fn specification(
        &self,
        service: &Service,
        name: &str,
        number: u32,
        slug: Option<&str>,
        replaces: Option<&ContainerId>,
    ) -> Result<ContainerSpec> {
        let desired = &self.desired.services[service.name.as_str()];
        let image = self.engine.images().get(&desired.image.name)?;
        let inherited = match replaces {
            Some(old) if !self.flags.renew_volumes => self.anonymous_volumes(old)?,
            _ => BTreeMap::new(),
        };
        let replaced = replaces.map(|old| old.short().to_owned());
        let around = Circumstances {
            name,
            number,
            image: &desired.image.name,
            image_id: &image.id,
            image_config: &image.config.config,
            config_hash: &desired.config_hash,
            contents_label: &desired
                .contents
                .with(&self.told_digests(service))
                .seal(ContainerId::random().short()),
            slug,
            replaces: replaced.as_deref(),
            parents: &self.parents(service)?,
            inherited: &inherited,
            contents: &self.contents_place(desired, replaces)?,
        };
        let translated = translate::container(&self.project, &self.with_what_was_told(service), &around)
            .map_err(|error| Error::invalid(error.to_string()))?;
        self.write_contents(&translated.files)?;
        let mut spec = translated.spec;
        // What the service says of one counts.
        let proxies = engine::image::proxy_variables(|name| service.environment.contains_key(name));
        spec.process.env.splice(0..0, proxies);
        self.read_seccomp(&mut spec)?;
        Ok(spec)
    }

    /// The containers whose namespaces or volumes the service's are to share, by the name the file gives them.
    fn parents(&self, service: &Service) -> Result<BTreeMap<String, ContainerId>> {
        let mut parents = BTreeMap::new();
        for text in translate::parents(service) {
            let id = match text.split_once(':') {
                Some(("service", other)) => self.first_of(other)?,
                _ => self.engine.find_id(text.trim_start_matches("container:"))?,
            };
            parents.insert(text, id);
        }
        Ok(parents)
    }

    /// The project's containers.
    fn containers(&self) -> Result<Vec<crate::observe::SeenContainer>> {
        crate::observe::containers(&self.engine, &self.project.name, self.project.home.as_deref())
    }

    /// A service's container with the lowest number; of two with one number, the one made last.
    fn first_of(&self, service: &str) -> Result<ContainerId> {
        let mut all = self.containers()?;
        all.retain(|container| container.service == service && !container.one_off);
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = |id: &ContainerId| made.values().any(|new| new == id);
        all.into_iter()
            .min_by_key(|container| (container.number, !is_new(&container.id), -container.created))
            .map(|container| container.id)
            .ok_or_else(|| Error::not_found(format!("service {service} has no container")))
    }

    fn anonymous_volumes(&self, old: &ContainerId) -> Result<BTreeMap<PathBuf, VolumeName>> {
        let mounts = self.engine.container(old.as_str())?.record.spec.mounts;
        let volumes = self.engine.volumes();
        Ok(translate::anonymous(
            &mounts,
            |name| matches!(volumes.find(name), Ok(Some(volume)) if volume.anonymous),
        ))
    }

    /// Where secrets and configurations are written down. There are two places: what a container that is replaced was given
    /// is not overwritten by something else, for it may run again.
    fn contents_place(&self, desired: &DesiredService, replaces: Option<&ContainerId>) -> Result<PathBuf> {
        let all = self.engine.root().project(&self.project.name).join(CONTENTS);
        let [first, second] = PLACES.map(|name| all.join(name));
        let Some(old) = replaces else { return Ok(first) };
        let spec = self.engine.container(old.as_str())?.record.spec;
        let uses_second = spec.mounts.iter().any(
            |mount| matches!(&mount.source, MountSource::Content { file, .. } if file.starts_with(&second)),
        );
        let changes = desired.contents.changed(labels::value(&spec.labels, labels::CONTENTS)).is_some();
        Ok(if uses_second == changes { first } else { second })
    }

    fn write_contents(&self, files: &[translate::ContentFile]) -> Result<()> {
        for file in files {
            let failed = |error| Error::failed(format!("write {}", file.path.display()), error);
            if let Some(directory) = file.path.parent() {
                store::private_directory(directory).map_err(failed)?;
            }
            store::write_atomic(&file.path, &file.bytes, 0o600, store::Durability::Rename).map_err(failed)?;
        }
        Ok(())
    }

    /// A profile is named by its file, which starts from the project's directory.
    fn read_seccomp(&self, spec: &mut ContainerSpec) -> Result<()> {
        if let Seccomp::Profile(file) = &spec.security.seccomp {
            let path = self.project.working_dir.join(file);
            let text = std::fs::read_to_string(&path).map_err(|error| {
                Error::failed(format!("read the seccomp profile {}", path.display()), error)
            })?;
            spec.security.seccomp = Seccomp::Profile(text);
        }
        Ok(())
    }
}

// === impl Runtime: waiting ===

impl Runtime {
    /// Waits for all of them at once, so that the first failure is seen first.
    fn wait(&self, instances: &[Instance], milestone: Milestone) -> Result<()> {
        let (sender, results) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            for instance in instances {
                let sender = sender.clone();
                scope.spawn(move || {
                    // The receiver lives as long as this scope does.
                    let _ = sender.send(self.wait_for_one(instance, milestone));
                });
            }
            drop(sender);
            results.iter().collect()
        })
    }

    /// What failed has its last words in the failure.
    fn wait_for_one(&self, instance: &Instance, milestone: Milestone) -> Result<()> {
        self.wait_for(instance, milestone).map_err(|error| match self.id_of(instance) {
            Ok(id) if error.kind() == Kind::Conflict => self.with_last_words(&id, &error),
            _ => error,
        })
    }

    /// Waits until a container that is held back is ready. One that does not get ready goes, and its last words are
    /// in the failure.
    fn prove(&self, instance: &Instance, monitor: Option<Span>, kept: bool) -> Result<()> {
        let id = self.id_of(instance)?;
        let limit = self.flags.ready_within;
        let ready = self
            .wait_until(instance, Milestone::Ready, limit)
            .and_then(|()| ready::listening(&self.engine, &id, limit));
        let ready = ready.and_then(|()| match monitor {
            None => Ok(()),
            Some(time) => ready::steady(&self.engine, &id, time.0),
        });
        ready.map_err(|error| {
            let error = self.with_last_words(&id, &error);
            if !kept && !self.flags.keep_failed {
                // The failure that led here is the one to report; nobody was served by this one.
                let _ = self.engine.remove(&id, &RemoveOptions { force: true, volumes: false });
                // Whoever waits for the container of this name means the one that goes on serving.
                self.made.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, made| *made != id);
            }
            error
        })
    }

    /// Sees that a container does not fail for so long.
    fn watch(&self, instance: &Instance, time: Span) -> Result<()> {
        let id = self.id_of(instance)?;
        ready::steady(&self.engine, &id, time.0).map_err(|error| self.with_last_words(&id, &error))
    }

    /// A failure of a container, with the last lines that it wrote.
    pub fn with_last_words(&self, id: &ContainerId, error: &Error) -> Error {
        let told = self.last_words(id);
        if told.is_empty() {
            // Nobody need be sent to look for what is not there.
            return Error::new(
                error.kind(),
                format!("{}; it wrote nothing", engine::error::chain(error).trim_end()),
            );
        }
        Error::new(error.kind(), format!("{}\n{told}", engine::error::chain(error).trim_end()))
    }

    /// The last lines a container wrote, each behind a bar.
    fn last_words(&self, id: &ContainerId) -> String {
        let mut lines: Vec<String> = Vec::new();
        let options = LogOptions { tail: Some(LAST_WORDS), ..LogOptions::default() };
        // Whoever cannot be read has said nothing.
        let _ = self.engine.logs(id, &options, &mut |line| {
            lines.push(format!("  | {}", line.log.trim_end()));
            ControlFlow::Continue(())
        });
        lines.join("\n")
    }

    fn hand_over(&self, from: Option<&Existing>, to: &Instance, name: &str) -> Result<()> {
        let id = self.id_of(to)?;
        self.engine.hand_over(from.map(|from| &from.id), &id)?;
        let named = |text: &str| text.parse().map_err(|error| invalid_name(text, error));
        if let Some(from) = from.filter(|from| from.name == name) {
            self.engine.rename(&from.id, &named(&names::replaced(&from.id, name))?)?;
        }
        if self.engine.container(id.as_str())?.name().as_str() == name {
            return Ok(());
        }
        self.engine.rename(&id, &named(name)?)
    }

    fn wait_for(&self, instance: &Instance, milestone: Milestone) -> Result<()> {
        self.wait_until(instance, milestone, None)
    }

    /// As [`Runtime::wait_for`]; health is waited for so long at most.
    fn wait_until(&self, instance: &Instance, milestone: Milestone, limit: Option<Duration>) -> Result<()> {
        let id = self.id_of(instance)?;
        let name = instance.name();
        let container = self.engine.container(id.as_str())?;
        let checked = container.record.spec.healthcheck.is_some();
        match milestone {
            Milestone::Started => Ok(()),
            Milestone::Completed => match self.last_exit(&id)? {
                0 => Ok(()),
                code => Err(Error::conflict(format!(
                    "container {name} did not complete successfully: it ended with code {code}"
                ))),
            },
            Milestone::Healthy if !checked => {
                let missing = Error::invalid(format!("container {name} has no healthcheck configured"));
                Err(missing
                    .with_hint("give it one with `healthcheck:`, or depend on it with service_started"))
            }
            Milestone::Ready if !checked => ready::running(&container),
            Milestone::Settled if !checked => ready::settled(&self.engine, &id),
            Milestone::Healthy | Milestone::Ready | Milestone::Settled => {
                self.engine.wait_healthy(&id, limit).map_err(|error| self.unhealthy(&id, name, limit, error))
            }
        }
    }

    /// How a container ended that is not started again by itself.
    fn last_exit(&self, id: &ContainerId) -> Result<i32> {
        loop {
            let code = self.engine.wait(id)?;
            if matches!(self.engine.container(id.as_str())?.state, State::Exited(_)) {
                return Ok(code);
            }
        }
    }

    fn unhealthy(&self, id: &ContainerId, name: &str, limit: Option<Duration>, error: Error) -> Error {
        let state = self.engine.container(id.as_str()).map(|container| container.state);
        match state {
            Ok(State::Running(running)) => {
                let last = running.health.as_ref().and_then(|health| health.log.last());
                let said = last.map_or_else(
                    || ": its first check has not come to an end".to_owned(),
                    |probe| format!(": its last check {}", outcome(probe)),
                );
                let is_late =
                    running.health.as_ref().is_some_and(|health| health.status == HealthStatus::Starting);
                let what = match limit.filter(|_| is_late) {
                    Some(limit) => format!("not healthy {} after its start", Span(limit)),
                    None => "unhealthy".to_owned(),
                };
                Error::conflict(format!("container {name} is {what}{said}"))
            }
            Ok(State::Exited(exited) | State::Restarting(exited)) => {
                Error::conflict(format!("container {name} ended with code {}", exited.code))
            }
            _ => error,
        }
    }
}

/// What a probe came to, with the last line it wrote.
fn outcome(probe: &Probe) -> String {
    let verdict = match probe.exit_code {
        -1 => "took too long".to_owned(),
        code => format!("ended with code {code}"),
    };
    match probe.output.trim_end().lines().last() {
        Some(line) => format!("{verdict}: {line}"),
        None => verdict,
    }
}

fn gone_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() == Kind::NotFound => Ok(()),
        other => other,
    }
}

fn invalid_name(name: &str, error: engine::id::ParseIdError) -> Error {
    Error::invalid(format!("the name {name:?}")).with_source(error)
}

fn subject(operation: &Operation) -> (Option<String>, String) {
    let service = operation.service().map(str::to_owned);
    let object = operation.object();
    let (kind, name) = object.split_once(' ').unwrap_or(("", &object));
    (service, format!("{} {name}", kind.to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_its_service_and_its_object_once() {
        let said = |object: &str, message: &str| {
            let service = Some("web".to_owned());
            Failure { service, object: object.to_owned(), error: Error::conflict(message) }.to_string()
        };
        assert_eq!(said("image shop-web", "no space"), "service web: image shop-web: no space");
        assert_eq!(
            said("container shop-web-1", "container shop-web-1 ended"),
            "service web: container shop-web-1 ended"
        );
        assert_eq!(
            said("service web", "container shop-web-1 ended"),
            "service web: container shop-web-1 ended"
        );
        assert_eq!(
            said("container c", "service web: ports: \"x\""),
            "container c: service web: ports: \"x\""
        );
    }
}
