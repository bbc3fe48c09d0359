//! Finding what crashes left behind and putting it right, one step a kind of thing that can be left.
//!
//! A step takes the lock of what it looks at, so that what somebody is making right now is never taken for a wreck.

use std::fs;
use std::path::{Path, PathBuf};

use crate::container::cgroup::Cgroup;
use crate::container::record::{ContainerRecord, Purpose};
use crate::container::state::State;
use crate::engine::life::{remove_directories, remove_files};
use crate::engine::{Engine, RemoveOptions};
use crate::error::{self, Error, Result};
use crate::event::{Event, EventKind, Journal};
use crate::id::{ContainerId, ContainerName};
use crate::rootless;
use crate::store::{self, Lock, scratch};

/// What a check came to, in words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// What was put right.
    pub repaired: Vec<String>,
    /// What a person has to look at.
    pub damaged: Vec<String>,
}

impl Engine {
    /// Finds what crashes left behind, removes it, and says what it was.
    ///
    /// # Errors
    /// When a step of a repair fails.
    pub fn check(&self) -> Result<Findings> {
        let mut findings = Findings::default();
        self.check_containers(&mut findings)?;
        self.check_halves(&mut findings)?;
        self.check_names(&mut findings)?;
        self.check_attachments(&mut findings)?;
        self.check_cgroups(&mut findings)?;
        self.check_mounts(&mut findings)?;
        self.check_runs(&mut findings)?;
        self.check_layers(&mut findings)?;
        findings.damaged.extend(self.images().damaged()?);
        self.check_temporary(&mut findings)?;
        Ok(findings)
    }

    /// Puts back what the host has lost of the networks that live containers use, and says what it was. A short look
    /// when nothing is missing.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn heal_networks(&self) -> Result<Vec<String>> {
        let networks = self.networks();
        let mut healed = self.tell_repairs();
        if !networks.is_whole()? {
            healed.extend(networks.heal()?);
        }
        Ok(healed)
    }

    /// Containers whose monitor was killed, whose removal was interrupted, or whose records make no sense.
    fn check_containers(&self, findings: &mut Findings) -> Result<()> {
        let claimed_alive = |state: &State| matches!(state, State::Running(_) | State::Restarting(_));
        for id in self.ids()? {
            let before = self.read_state(&id);
            let container = match self.container(id.as_str()) {
                Ok(container) => container,
                Err(_) if !self.has_record(&id) => continue,
                Err(error) => {
                    findings.damaged.push(damage(&id, &error));
                    continue;
                }
            };
            let name = container.name().clone();
            if before.as_ref().is_ok_and(claimed_alive) && !before.is_ok_and(|state| state == container.state)
            {
                findings.repaired.push(format!(
                    "found container {name}, whose monitor was killed: it is {} now",
                    container.state.word()
                ));
            }
            if container.state == State::Removing {
                self.remove(&id, &RemoveOptions { force: true, volumes: false })?;
                findings.repaired.push(format!("finished the removal of container {name}"));
            }
        }
        Ok(())
    }

    /// Containers without a record and volumes without a container, whose makers or removers were killed.
    fn check_halves(&self, findings: &mut Findings) -> Result<()> {
        let failed = |error| Error::failed("remove what is left of a container", error);
        let Some(_nobody_makes_any) = Lock::try_exclusive(&self.root().making_lock()).map_err(failed)? else {
            return Ok(());
        };
        for id in self.ids()?.into_iter().filter(|id| !self.has_record(id)) {
            if let Some(_lock) = self.try_monitor_lock(&id)? {
                remove_directories(self.root(), &id).map_err(failed)?;
                findings.repaired.push(format!("removed what was left of container {}", id.short()));
            }
        }
        let mut used = Vec::new();
        for id in self.ids()? {
            match ContainerRecord::read(self.root(), &id) {
                Ok(record) => record.iter().for_each(|record| used.extend(record.volumes())),
                // Nobody knows what it mounts, so no volume is surely unused.
                Err(_) => return Ok(()),
            }
        }
        for volume in self.volumes().sweep(&|name| used.contains(name))? {
            findings.repaired.push(format!("removed volume {volume}, which was made for no container"));
        }
        Ok(())
    }

    /// Names that lead nowhere or to a container of another name, and containers without their name.
    fn check_names(&self, findings: &mut Findings) -> Result<()> {
        let names = self.root().container_names();
        let failed = |error| Error::failed("put the names of containers right", error);
        let _one_at_a_time = Lock::exclusive(&names.join(".lock")).map_err(failed)?;
        for entry in fs::read_dir(&names).map_err(failed)?.flatten() {
            let Some(name) = entry.file_name().to_str().and_then(|name| name.parse::<ContainerName>().ok())
            else {
                continue;
            };
            let named = match self.claimed(&name).map(|id| ContainerRecord::read(self.root(), &id)) {
                None => false,
                Some(Ok(record)) => record.is_some_and(|record| record.name == name),
                // A record that cannot be read must keep its name, by which it is removed.
                Some(Err(_)) => true,
            };
            if !named {
                store::remove_file(&entry.path()).map_err(failed)?;
                findings.repaired.push(format!("freed the name {name}, which no container has"));
            }
        }
        for id in self.ids()? {
            let Ok(Some(record)) = ContainerRecord::read(self.root(), &id) else { continue };
            if record.purpose == Purpose::Service && self.claimed(&record.name).is_none() {
                std::os::unix::fs::symlink(id.as_str(), names.join(record.name.as_str())).map_err(failed)?;
                findings.repaired.push(format!("gave container {} its name back", record.name));
            }
        }
        Ok(())
    }

    /// Addresses and ports of containers that do not live; bridges and firewall that are not as the records say.
    fn check_attachments(&self, findings: &mut Findings) -> Result<()> {
        for id in self.networks().holders()? {
            if let Some(_lock) = self.try_monitor_lock(&id)? {
                self.networks().sweep(&id)?;
                let text = format!("gave back the addresses and ports of container {}", id.short());
                findings.repaired.push(text);
            }
        }
        findings.repaired.extend(self.tell_repairs());
        findings.repaired.extend(self.networks().heal()?);
        Ok(())
    }

    /// What was put right of the way out and in of an ordinary user's engine, which is told as an event.
    fn tell_repairs(&self) -> Vec<String> {
        let repairs = rootless::take_repairs();
        for text in &repairs {
            let details = [("name", "host"), ("repair", text.as_str())];
            Journal::of(self.root()).append(&Event::now(EventKind::Network, "repair", "host", details));
        }
        repairs
    }

    fn check_cgroups(&self, findings: &mut Findings) -> Result<()> {
        let groups = Cgroup::list(self.root()).map_err(|error| Error::failed("list the cgroups", error))?;
        for id in groups {
            let failed =
                |error| Error::failed(format!("remove the cgroup of container {}", id.short()), error);
            // A container that lives, or is starting right now, holds its lock and is left alone.
            if let Some(_lock) = self.try_monitor_lock(&id)? {
                let cgroup = Cgroup::open(self.root(), &id).map_err(failed)?;
                cgroup.kill().and_then(|()| cgroup.remove()).map_err(failed)?;
                findings.repaired.push(format!("removed the cgroup of container {}", id.short()));
            }
        }
        Ok(())
    }

    /// No mount of a container is ever made where the host sees it; what is there all the same keeps its directory
    /// from being removed.
    fn check_mounts(&self, findings: &mut Findings) -> Result<()> {
        let failed = |error| Error::failed("list the mounts", error);
        let table = fs::read_to_string("/proc/self/mountinfo").map_err(failed)?;
        for mount in mounts_below(&table, &self.root().containers()) {
            rustix::mount::unmount(&mount, rustix::mount::UnmountFlags::DETACH)
                .map_err(|error| Error::failed(format!("unmount {}", mount.display()), error))?;
            findings.repaired.push(format!("unmounted {}", mount.display()));
        }
        Ok(())
    }

    /// Run directories of containers that do not exist.
    fn check_runs(&self, findings: &mut Findings) -> Result<()> {
        for id in ids_in(&self.root().container_runs())? {
            let failed =
                |error| Error::failed(format!("remove the run directory of container {}", id.short()), error);
            if self.root().container(&id).exists() {
                continue;
            }
            if let Some(_lock) = self.try_monitor_lock(&id)? {
                store::remove_tree(&self.root().container_run(&id)).map_err(failed)?;
                findings.repaired.push(format!("removed the run directory of container {}", id.short()));
            }
        }
        Ok(())
    }

    /// Steps of builds that were killed, and half layers. While anybody makes an image, nothing of it is touched.
    fn check_layers(&self, findings: &mut Findings) -> Result<()> {
        let Some(_nobody_makes_any) = self.layers().collector()? else { return Ok(()) };
        for id in self.ids()? {
            let Ok(Some(record)) = ContainerRecord::read(self.root(), &id) else { continue };
            if record.purpose != Purpose::Build {
                continue;
            }
            if let Some(_lock) = self.try_monitor_lock(&id)? {
                remove_files(self, &record, false)?;
                findings.repaired.push(format!("removed the build step {}", id.short()));
            }
        }
        for layer in self.layers().sweep()? {
            findings.repaired.push(format!("removed half of the layer {layer}"));
        }
        Ok(())
    }

    fn check_temporary(&self, findings: &mut Findings) -> Result<()> {
        let failed = |error| Error::failed("remove temporary files", error);
        let root = self.root();
        let mut swept = scratch::sweep(root).map_err(failed)?;
        let mut rooms = vec![root.state().to_owned(), root.images(), root.content(), root.networks()];
        rooms.extend([root.port_runs(), root.run().to_owned(), root.build_cache()]);
        let (build, fetched) = (root.build_cache(), root.build_cache().join("http"));
        for parent in [root.containers(), root.volumes(), root.network_runs(), root.layers(), build, fetched]
        {
            rooms.extend(directories_in(&parent).map_err(failed)?);
        }
        for room in rooms {
            swept += store::sweep_temporary(&room).map_err(failed)?;
        }
        if swept > 0 {
            let noun = if swept == 1 { "file" } else { "files" };
            findings.repaired.push(format!("removed {swept} temporary {noun}"));
        }
        Ok(())
    }
}

/// What is said of a container whose record or state cannot be read.
pub(crate) fn damage(id: &ContainerId, error: &Error) -> String {
    format!("container {} is damaged: {}; remove it with: rengine rm -f {0}", id.short(), error::chain(error))
}

/// The mount points below a directory, the deepest first (proc(5), `/proc/pid/mountinfo`).
fn mounts_below(table: &str, directory: &Path) -> Vec<PathBuf> {
    let point = |line: &str| line.split(' ').nth(4).map(|text| PathBuf::from(unescape(text)));
    let below = |path: &PathBuf| path.starts_with(directory) && path != directory;
    let mut mounts: Vec<PathBuf> = table.lines().filter_map(point).filter(below).collect();
    mounts.reverse();
    mounts
}

/// Blanks and backslashes are written as three octal digits.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

fn directories_in(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => Ok(entries?.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()),
    }
}

/// The containers that have a directory in this one.
pub(super) fn ids_in(directory: &Path) -> Result<Vec<ContainerId>> {
    let failed = |error| Error::failed(format!("list {}", directory.display()), error);
    let entries = fs::read_dir(directory).map_err(failed)?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_deepest_first() {
        let table = "22 1 8:1 / / rw - ext4 /dev/root rw\n\
                     40 22 0:40 / /r/containers/a/merged rw - overlay overlay rw\n\
                     41 40 0:41 / /r/containers/a/merged/with\\040blank rw - tmpfs tmpfs rw\n\
                     42 22 0:42 / /r/volumes/v rw - tmpfs tmpfs rw\n";
        assert_eq!(
            mounts_below(table, Path::new("/r/containers")),
            [Path::new("/r/containers/a/merged/with blank"), Path::new("/r/containers/a/merged")]
        );
    }
}
