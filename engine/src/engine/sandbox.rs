//! The builder's commands as containers of this engine: nothing is left of one but its writable layer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::builder::{self, BuildEvent, BuildRequest, Garbage, Kept, RunStep, Runner, Stream};
use crate::container::client::{self, AttachEnd, AttachOptions, Connection};
use crate::container::merge::DEFAULT_PATH;
use crate::container::mounted::Mounted;
use crate::container::record::{ContainerRecord, Purpose};
use crate::container::spec::{ContainerSpec, DnsSpec, LogSpec, ProcessSpec, Security};
use crate::container::state::State;
use crate::container::stdio::Streams;
use crate::engine::Engine;
use crate::engine::life::remove_files;
use crate::error::{Error, Result};
use crate::id::{ContainerId, ImageId};
use crate::image::{Image, Platform, PullOptions, Reference, proxies};
use crate::signal::Signal;
use crate::store;

/// Runs the commands of a build on an engine.
struct Sandbox<'a> {
    engine: &'a Engine,
    /// The containers of those that run; `None` when none is wanted any more.
    running: Mutex<Option<BTreeSet<ContainerId>>>,
}

impl Engine {
    /// Builds an image from a Dockerfile. Its commands have the proxies of docker's configuration file where the request
    /// names none.
    ///
    /// # Errors
    /// When the Dockerfile is wrong, a command fails, or a base image cannot be had.
    pub fn build(&self, request: &BuildRequest, events: &mut dyn FnMut(BuildEvent)) -> Result<Vec<Image>> {
        let mut request = request.clone();
        for (name, value) in proxies() {
            let is_given = |args: &BTreeMap<String, String>| {
                args.contains_key(name) || args.contains_key(&name.to_ascii_lowercase())
            };
            if !is_given(&request.args) {
                request.args.insert(name.to_owned(), value);
            }
        }
        builder::build(self.root(), &Sandbox::on(self), &request, events)
    }

    /// Tells of every rule that a Dockerfile does not keep, without building it.
    ///
    /// # Errors
    /// When the Dockerfile is wrong or a base image cannot be had.
    pub fn check_dockerfile(&self, request: &BuildRequest, events: &mut dyn FnMut(BuildEvent)) -> Result<()> {
        builder::check(self.root(), &Sandbox::on(self), request, events)
    }

    /// Everything the builder keeps, what was wanted longest ago first.
    ///
    /// # Errors
    /// When its directories cannot be read.
    pub fn build_cache(&self) -> Result<Vec<Kept>> {
        builder::kept(self.root())
    }

    /// Removes what the builder keeps. Returns what went; the images stay.
    ///
    /// # Errors
    /// When somebody builds at the moment, or a file cannot be removed.
    pub fn prune_build_cache(&self, garbage: &Garbage) -> Result<Vec<Kept>> {
        let removed = builder::remove(self.root(), garbage)?;
        self.images().collect_unnamed()?;
        Ok(removed)
    }
}

impl<'a> Sandbox<'a> {
    fn on(engine: &'a Engine) -> Self {
        Self { engine, running: Mutex::new(Some(BTreeSet::new())) }
    }

    fn running(&self) -> MutexGuard<'_, Option<BTreeSet<ContainerId>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, step: &RunStep) -> Result<ContainerRecord> {
        let id = ContainerId::random();
        let mut env = step.env.clone();
        if !env.iter().any(|entry| entry.starts_with("PATH=")) {
            env.insert(0, DEFAULT_PATH.to_owned());
        }
        let spec = ContainerSpec {
            image: "build step".to_owned(),
            process: ProcessSpec {
                env,
                user: Some(step.user.clone().unwrap_or_default()),
                working_dir: Some(step.cwd.clone()),
                ..ProcessSpec::default()
            },
            hostname: Some(step.hostname.clone()),
            network: step.network.clone(),
            dns: DnsSpec { extra_hosts: step.extra_hosts.clone(), ..DnsSpec::default() },
            mounts: step.mounts.clone(),
            security: Security { privileged: step.privileged, ..Security::default() },
            shm_size: step.shm_size,
            ulimits: step.ulimits.clone(),
            resources: step.resources.clone(),
            cdi_devices: step.devices.clone(),
            cgroup_parent: step.cgroup_parent.clone(),
            log: LogSpec { driver: "none".to_owned(), ..LogSpec::default() },
            ..ContainerSpec::default()
        };
        let name = format!("build-{}", id.short())
            .parse()
            .map_err(|error| Error::invalid("name a build step").with_source(error))?;
        Ok(ContainerRecord {
            version: ContainerRecord::VERSION,
            image: ImageId::of(id.as_str().as_bytes()),
            id,
            name,
            created: Timestamp::now(),
            spec,
            argv: step.argv.clone(),
            lower: step.lower.clone(),
            purpose: Purpose::Build,
            users: None,
        })
    }

    /// Writes the record; the step's own directories stand in for the container's writable layer.
    fn prepare(&self, record: &ContainerRecord, step: &RunStep) -> io::Result<()> {
        let root = self.engine.root();
        let directory = root.container(&record.id);
        store::private_directory(&directory)?;
        for (name, target) in [("upper", &step.upper), ("work", &step.work)] {
            fs::create_dir_all(target)?;
            symlink(target, directory.join(name))?;
        }
        State::Created.write(root, record)?;
        record.write(root)
    }
}

impl Sandbox<'_> {
    /// Runs a step's container to its end. Nothing is left of it but what it wrote.
    fn run_as<T>(
        &self,
        record: &ContainerRecord,
        step: &RunStep,
        watch: impl FnOnce(Connection) -> Result<T>,
    ) -> Result<T> {
        let outcome = self
            .prepare(record, step)
            .map_err(|error| Error::failed("prepare a build step", error))
            .and_then(|()| client::spawn_monitor(self.engine.root(), &record.id))
            .and_then(watch);
        let _no_monitor = self.engine.monitor_lock(&record.id)?;
        // Its upper directory is about to become a layer.
        let _unmounted = Mounted::claim(self.engine.root(), &record.id)?;
        remove_files(self.engine, record, false)?;
        outcome
    }
}

impl Runner for Sandbox<'_> {
    fn run(&self, step: &RunStep, output: &mut dyn FnMut(Stream, &[u8])) -> Result<i32> {
        let record = self.record(step)?;
        self.run_as(&record, step, |mut connection| {
            connection.subscribe(Streams::OUTPUT)?;
            connection.started()?;
            let is_wanted =
                self.running().as_mut().map(|running| running.insert(record.id.clone())).is_some();
            if !is_wanted {
                self.engine.kill(&record.id, Signal::KILL)?;
            }
            let ended = connection.follow(output);
            self.running().as_mut().map(|running| running.remove(&record.id));
            ended
        })
    }

    fn stop(&self) {
        for id in self.running().take().into_iter().flatten() {
            // One that has ended by itself needs no end.
            let _ = self.engine.kill(&id, Signal::KILL);
        }
    }

    fn prompt(&self, step: &RunStep) -> Result<()> {
        let mut record = self.record(step)?;
        (record.spec.process.tty, record.spec.process.open_stdin) = (true, true);
        let options = AttachOptions {
            stdin: true,
            stdout: true,
            stderr: true,
            tty: true,
            sig_proxy: false,
            detach_keys: None,
        };
        self.run_as(&record, step, |mut connection| {
            connection.subscribe(options.streams())?;
            connection.started()?;
            if connection.attach(&options)? == AttachEnd::Detached {
                // There is nothing to come back to.
                self.engine.kill(&record.id, Signal::KILL)?;
            }
            Ok(())
        })
    }

    fn pull(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        progress: &mut dyn FnMut(&str),
    ) -> Result<()> {
        progress(&format!("resolve {reference}"));
        let options = PullOptions { platform: platform.cloned(), ..PullOptions::default() };
        let pulled = self.engine.images().pull(reference, &options, &|_| {})?;
        progress(&format!("{} done", pulled.digest));
        Ok(())
    }
}
