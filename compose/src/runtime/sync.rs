//! Work in the containers of a service that run: files brought to them, commands run in them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;

use engine::error::{Error, Result};
use engine::id::ContainerId;

use super::{Failure, Runtime};
use crate::model::Hook;
use crate::observe::{Life, SeenContainer};

impl Runtime {
    /// Brings files to every container of a service that runs, or takes them away where they are gone here: the
    /// engine writes them itself, so the image needs no program for it.
    /// What is in the way and of another kind goes first.
    pub fn sync(
        &self,
        service: &str,
        files: &BTreeMap<PathBuf, PathBuf>,
        in_the_way: &BTreeSet<PathBuf>,
    ) -> Vec<Failure> {
        self.in_all(service, |id| {
            let (present, gone): (Vec<_>, Vec<_>) =
                files.iter().partition(|(_, path)| path.symlink_metadata().is_ok());
            let gone = gone.into_iter().map(|(target, _)| target);
            let gone: Vec<PathBuf> = in_the_way.iter().chain(gone).cloned().collect();
            if !gone.is_empty() {
                self.engine.remove_paths(id, &gone)?;
            }
            if present.is_empty() {
                return Ok(());
            }
            self.engine.bring_files(id, &mut |writer| {
                pack(&present, writer).map_err(|error| Error::failed("pack the files that changed", error))
            })
        })
    }

    /// Runs a command in every container of a service that runs.
    pub fn run_in_all(&self, service: &str, hook: &Hook) -> Vec<Failure> {
        self.in_all(service, |id| self.run_hook(id, hook))
    }

    /// Does something in all containers of a service that run, at once.
    fn in_all(&self, service: &str, work: impl Fn(&ContainerId) -> Result<()> + Sync) -> Vec<Failure> {
        let failure = |object: &str, error| Failure {
            service: Some(service.to_owned()),
            object: format!("container {object}"),
            error,
        };
        let mut containers = match self.containers() {
            Ok(containers) => containers,
            Err(error) => return vec![failure("", error)],
        };
        containers.retain(|container| {
            container.service == service && !container.one_off && container.life == Life::Running
        });
        let work = &work;
        std::thread::scope(|scope| {
            let running: Vec<_> = containers
                .iter()
                .map(|container: &SeenContainer| (container, scope.spawn(move || work(&container.id))))
                .collect();
            running
                .into_iter()
                .filter_map(|(container, thread)| match thread.join() {
                    Ok(Ok(())) => None,
                    Ok(Err(error)) => Some(failure(&container.name, error)),
                    Err(panic) => std::panic::resume_unwind(panic),
                })
                .collect()
        })
    }
}

/// A tar of these files, each named as it is to be called in the container, with the owners and modes it has here.
fn pack(files: &[(&PathBuf, &PathBuf)], writer: &mut dyn Write) -> std::io::Result<()> {
    let mut archive = tar::Builder::new(writer);
    archive.follow_symlinks(false);
    for (target, path) in files {
        let name = target.strip_prefix("/").unwrap_or(target);
        let metadata = match path.symlink_metadata() {
            Ok(metadata) => metadata,
            // It went away since it was looked at; that is a change of its own.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let mut header = tar::Header::new_gnu();
        header.set_metadata(&metadata);
        if metadata.is_symlink() {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            archive.append_link(&mut header, name, std::fs::read_link(path)?)?;
        } else if metadata.is_file() {
            // What is read is what the header says, even while somebody writes.
            let bytes = std::fs::read(path)?;
            header.set_size(bytes.len() as u64);
            archive.append_data(&mut header, name, bytes.as_slice())?;
        } else if metadata.is_dir() {
            archive.append_data(&mut header, name, std::io::empty())?;
        }
    }
    archive.finish()
}
