//! A container's files: copied in and out, exported, compared with its image, and made an image of.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::builder;
use crate::container::changes::{self, Change};
use crate::container::client;
use crate::container::files::{Files, Owner, PathStat};
use crate::container::mounted::Mounted;
use crate::container::record::ContainerRecord;
use crate::container::spec::{Grace, HealthCheck, MountSource};
use crate::container::state::State;
use crate::engine::{Container, Engine};
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::image::config::{Empty, History, ImageHealthCheck, RunConfig};
use crate::image::{Image, Reference};
use crate::layer::Layers;

/// How an image is made of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommitOptions {
    /// A remark.
    pub message: Option<String>,
    /// Who made it.
    pub author: Option<String>,
    /// Dockerfile instructions applied to its configuration.
    pub changes: Vec<String>,
    /// Whether the container stands still meanwhile.
    pub pause: bool,
    /// The image's name.
    pub reference: Option<Reference>,
}

impl Engine {
    /// What is at a path of a container; a symbolic link there is not followed. `None` when there is nothing.
    ///
    /// # Errors
    /// When the way there cannot be walked.
    pub fn stat_path(&self, id: &ContainerId, path: &Path) -> Result<Option<PathStat>> {
        self.with_files(id, |files| files.stat(path))
    }

    /// Hands out the tar of what is at a path of a container, whose top is called `shown` in it.
    ///
    /// # Errors
    /// When there is nothing, or it cannot be read.
    pub fn read_archive(
        &self,
        id: &ContainerId,
        path: &Path,
        shown: &OsStr,
        take: &mut dyn FnMut(&mut dyn Read) -> Result<()>,
    ) -> Result<()> {
        self.with_files(id, |files| files.read(path, shown, take))?;
        self.announce(id, "archive-path", &[("path", path.display().to_string())])
    }

    /// Unpacks a tar into a directory of a container.
    ///
    /// # Errors
    /// When the directory is none, or an entry cannot be made.
    pub fn write_archive(
        &self,
        id: &ContainerId,
        directory: &Path,
        owner: Owner,
        give: &mut dyn FnMut(&mut dyn Write) -> Result<()>,
    ) -> Result<()> {
        self.with_files(id, |files| files.write(directory, owner, give))?;
        self.announce(id, "extract-to-dir", &[("path", directory.display().to_string())])
    }

    /// Takes away what is at some paths of a container, a directory with all that is in it. Nothing there is success. A root
    /// that can only be read by what runs in it is written to all the same.
    ///
    /// # Errors
    /// When it cannot be taken away, as from a volume that can only be read.
    pub fn remove_paths(&self, id: &ContainerId, paths: &[PathBuf]) -> Result<()> {
        self.with_files(id, |files| files.overruling().remove(paths))
    }

    /// Unpacks a tar over the root of a container, as [`Self::remove_paths`] takes away.
    ///
    /// # Errors
    /// When an entry cannot be made, as in a volume that can only be read.
    pub fn bring_files(
        &self,
        id: &ContainerId,
        give: &mut dyn FnMut(&mut dyn Write) -> Result<()>,
    ) -> Result<()> {
        let root = Path::new("/");
        self.with_files(id, |files| files.overruling().write(root, Owner::Archived, give))?;
        self.announce(id, "extract-to-dir", &[("path", root.display().to_string())])
    }

    /// Hands out the tar of a container's root file system, without what is mounted into it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn export(&self, id: &ContainerId, take: &mut dyn FnMut(&mut dyn Read) -> Result<()>) -> Result<()> {
        self.with_files(id, |files| files.export(take))?;
        self.announce(id, "export", &[])
    }

    /// What a container changed of its image.
    ///
    /// # Errors
    /// When a layer cannot be read.
    pub fn changes(&self, id: &ContainerId) -> Result<Vec<Change>> {
        let container = self.container(id.as_str())?;
        let upper = container.directory(self.root()).join("upper");
        changes::changes(&upper, &container.record.lower).map_err(|error| {
            Error::failed(format!("compare container {} with its image", container.name()), error)
        })
    }

    /// Makes an image of what a container is now.
    ///
    /// # Errors
    /// When its image is gone, a change makes no sense, or a file cannot be read.
    pub fn commit(&self, id: &ContainerId, options: &CommitOptions) -> Result<Image> {
        let container = self.container(id.as_str())?;
        let images = self.images();
        let mut config = images.get(container.image().as_str())?.config;
        config.config = run_config(&container, &config.config);
        // Before the long part: a typing mistake should not cost the packing.
        builder::change(&mut config.config, &options.changes)?;
        let layers = self.layers();
        let _hold = layers.hold()?;
        let paused = options.pause && container.state.word() == "running";
        if paused {
            self.pause(id)?;
        }
        let upper = container.directory(self.root()).join("upper");
        let layer = changes::made_by_engine(&upper, &container.record.lower)
            .map_err(|error| {
                Error::failed(format!("read the files of container {}", container.name()), error)
            })
            .and_then(|without| Ok(layers.copy(&upper, &without)?));
        let resumed = if paused { self.unpause(id) } else { Ok(()) };
        let layer = layer?;
        resumed?;
        let now = Timestamp::now().to_string();
        config.created = Some(now.clone());
        config.author = options.author.clone().or(config.author);
        let empty_layer = layer == Layers::empty();
        if !empty_layer {
            config.rootfs.diff_ids.push(layer);
        }
        config.history.push(History {
            created: Some(now),
            created_by: Some(container.record.argv.join(" ")),
            author: options.author.clone(),
            comment: options.message.clone(),
            empty_layer,
        });
        let image = images.commit(&config, options.reference.as_slice())?;
        let named = options.reference.as_ref().map(ToString::to_string).unwrap_or_default();
        let comment = options.message.clone().unwrap_or_default();
        let details = [("comment", comment), ("imageID", image.id.to_string()), ("imageRef", named)];
        container.record.announce(self.root(), "commit", &details);
        Ok(image)
    }

    /// Tells everybody who listens to events; a container that is gone by now has nothing to be told of.
    fn announce(&self, id: &ContainerId, action: &str, details: &[(&str, String)]) -> Result<()> {
        let failed = |error| Error::failed(format!("read the record of container {}", id.short()), error);
        if let Some(record) = ContainerRecord::read(self.root(), id).map_err(failed)? {
            record.announce(self.root(), action, details);
        }
        Ok(())
    }

    /// Works on a container's files: inside of it while it runs, and with its monitor kept from starting while it
    /// does not.
    fn with_files<T>(&self, id: &ContainerId, mut work: impl FnMut(Files<'_>) -> Result<T>) -> Result<T> {
        loop {
            let container = self.container(id.as_str())?;
            match &container.state {
                State::Running(running) => return work(Files::new(self.root(), id, Some(running.pid))),
                State::Restarting(_) | State::Removing => {
                    return Err(Error::conflict(format!(
                        "cannot reach the files of container {}: it is {}",
                        container.name(),
                        container.state.word()
                    )));
                }
                State::Created | State::Exited(_) => {}
            }
            if let Some(_at_rest) = self.try_monitor_lock(id)? {
                let _unmounted = Mounted::claim(self.root(), id)?;
                if matches!(self.read_state(id)?, State::Created | State::Exited(_)) {
                    return work(Files::new(self.root(), id, None));
                }
            } else if let Some(mut monitor) = client::connect(self.root(), id)? {
                // A monitor answers after the start it is busy with; one that ends meanwhile says so by ending.
                let _ = monitor.reload();
            }
        }
    }
}

/// How containers of the image that is made of this one run: as this one does.
fn run_config(container: &Container, image: &RunConfig) -> RunConfig {
    let spec = &container.record.spec;
    let process = &spec.process;
    let volumes = spec.mounts.iter().filter(|mount| matches!(mount.source, MountSource::Volume { .. }));
    let mut config = RunConfig {
        user: process.user.clone().unwrap_or_default(),
        env: process.env.clone(),
        entrypoint: process.entrypoint.clone().or_else(|| image.entrypoint.clone()),
        cmd: match (&process.command, &process.entrypoint) {
            (Some(command), _) => Some(command.clone()),
            (None, Some(_)) => None,
            (None, None) => image.cmd.clone(),
        },
        working_dir: process.working_dir.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
        labels: spec.labels.clone(),
        stop_signal: spec.stop_signal.map(|signal| signal.to_string()),
        stop_timeout: match spec.stop_timeout {
            Some(Grace::Limited(span)) => Some(span.0.as_secs()),
            _ => None,
        },
        healthcheck: spec.healthcheck.as_ref().map(image_health_check),
        shell: image.shell.clone(),
        on_build: image.on_build.clone(),
        ..RunConfig::default()
    };
    config.exposed_ports.extend(spec.expose.iter().map(|port| (port.to_string(), Empty {})));
    // A volume that a person named is that person's; one without a name belongs to the image.
    let declared = volumes.map(|mount| mount.target.display().to_string());
    config
        .volumes
        .extend(declared.filter(|path| image.volumes.contains_key(path)).map(|path| (path, Empty {})));
    config
}

fn image_health_check(check: &HealthCheck) -> ImageHealthCheck {
    let test = check.test.as_ref().map_or_else(
        || vec!["NONE".to_owned()],
        |words| std::iter::once("CMD".to_owned()).chain(words.iter().cloned()).collect(),
    );
    ImageHealthCheck {
        test,
        interval: check.interval,
        timeout: check.timeout,
        start_period: check.start_period,
        start_interval: check.start_interval,
        retries: check.retries,
    }
}
