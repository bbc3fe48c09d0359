//! Before the machine goes down and after it came up: what has to stop, what comes back, and who sees to it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::container::client::{self, StopReason};
use crate::container::record::{ContainerRecord, Purpose};
use crate::container::spec::RestartPolicy;
use crate::container::state::State;
use crate::engine::{Container, Engine};
use crate::error::{Error, Kind, Result};
use crate::id::{ContainerId, ContainerName};
use crate::paths::{DEFAULT_STATE, Root};
use crate::store::{self, Durability};

/// The unit that starts containers when the machine comes up (systemd.service(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootUnit {
    /// The name of its file.
    pub name: String,
    /// What is in it.
    pub text: String,
}

/// Where a machine's own units are (systemd.unit(5)).
pub const UNITS: &str = "/etc/systemd/system";

impl BootUnit {
    /// The unit of an engine whose program is at this path.
    pub fn new(program: &Path, root: &Root) -> Self {
        let program = quoted(program);
        let option = if root.state() == Path::new(DEFAULT_STATE) {
            String::new()
        } else {
            format!(" --root {}", quoted(root.state()))
        };
        let text = format!(
            "[Unit]\n\
             Description=Containers of {root}\n\
             Wants=network-online.target\n\
             After=network-online.target nftables.service\n\
             RequiresMountsFor={root}\n\
             \n\
             [Service]\n\
             Type=oneshot\n\
             RemainAfterExit=yes\n\
             ExecStart={program}{option} system boot\n\
             ExecStop={program}{option} system down\n\
             TimeoutSec=infinity\n\
             \n\
             [Install]\n\
             WantedBy=multi-user.target\n",
            root = quoted(root.state()),
        );
        Self { name: format!("{}.service", root.tag()), text }
    }

    /// Writes the unit into a directory of units and has it started with every boot. Returns where it is.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn install(&self, directory: &Path) -> Result<PathBuf> {
        let path = directory.join(&self.name);
        let failed = |error| Error::failed(format!("write the unit {}", path.display()), error);
        let wanted = directory.join("multi-user.target.wants");
        fs::create_dir_all(&wanted).map_err(failed)?;
        store::write_atomic(&path, self.text.as_bytes(), 0o644, Durability::Sync).map_err(failed)?;
        let link = wanted.join(&self.name);
        store::remove_file(&link).and_then(|()| symlink(&path, &link)).map_err(failed)?;
        Ok(path)
    }

    /// Takes the unit back out of a directory of units; one that is not there is fine.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn remove(&self, directory: &Path) -> Result<()> {
        let path = directory.join(&self.name);
        let link = directory.join("multi-user.target.wants").join(&self.name);
        store::remove_file(&link)
            .and_then(|()| store::remove_file(&path))
            .map_err(|error| Error::failed(format!("remove the unit {}", path.display()), error))
    }
}

/// A path as systemd reads it: in quotes, with specifiers and variables made plain.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    if plain { escaped } else { format!("\"{escaped}\"") }
}

impl Engine {
    /// Starts the containers whose policy asks for it after a reboot: `always`, even when somebody had stopped them;
    /// `unless-stopped` when nobody had; `on-failure` when they had failed, as the end of the machine is. One that was
    /// never started is not started now.
    pub fn boot(&self) -> Result<Vec<(ContainerName, Result<()>)>> {
        let mut started = Vec::new();
        for id in self.ids()? {
            let Ok(Some(record)) = ContainerRecord::read(self.root(), &id) else { continue };
            let Ok(before) = self.read_state(&id) else { continue };
            if record.purpose == Purpose::Service && returns(&before, record.spec.restart) {
                // One that ran until the end is started by whoever looks at it first, which is this.
                let result = self.container(id.as_str()).and_then(|container| match container.state {
                    State::Running(_) | State::Restarting(_) => Ok(()),
                    _ => self.start(&id).map(drop),
                });
                started.push((record.name, result));
            }
        }
        Ok(started)
    }

    /// Stops every container and removes every trace of this root from the kernel, as before the machine goes down.
    /// Files stay, and so does what [`Engine::boot`] has to start again.
    pub fn down(&self) -> Result<()> {
        let running =
            |container: &Container| matches!(container.state, State::Running(_) | State::Restarting(_));
        let containers = self.containers()?;
        // All of them at once: each may take as long as its grace.
        std::thread::scope(|scope| {
            let stopping: Vec<_> = containers
                .iter()
                .filter(|container| running(container))
                .map(|container| scope.spawn(|| self.shut_down(container.id())))
                .collect();
            stopping.into_iter().try_for_each(|stopping| {
                stopping.join().unwrap_or_else(|_| Err(Error::new(Kind::Failed, "stop a container")))
            })
        })?;
        for container in &containers {
            drop(self.monitor_lock(container.id())?);
        }
        self.networks().teardown()?;
        crate::container::cgroup::Cgroup::sweep(self.root())
            .map_err(|error| Error::failed("remove the cgroups", error))?;
        store::remove_tree(self.root().run())
            .map_err(|error| Error::failed("remove the run directory", error))
    }

    fn shut_down(&self, id: &ContainerId) -> Result<()> {
        match client::connect(self.root(), id) {
            Ok(Some(mut connection)) => connection.stop(None, None, StopReason::Shutdown),
            Ok(None) => Ok(()),
            // What does not answer must not keep the machine from going down.
            Err(_) => client::kill_monitor(self.root(), id),
        }
    }
}

/// Whether a container is started after a reboot, or after its monitor was killed.
pub(super) fn returns(state: &State, policy: RestartPolicy) -> bool {
    match (state, policy) {
        (State::Created | State::Removing, _) | (_, RestartPolicy::No) => false,
        (_, RestartPolicy::Always) | (State::Running(_) | State::Restarting(_), _) => true,
        (State::Exited(exit), RestartPolicy::UnlessStopped) => !exit.stopped_by_hand,
        (State::Exited(exit), RestartPolicy::OnFailure(limit)) => {
            exit.code != 0 && (limit == 0 || exit.restarts < limit)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::state::{Exited, Running};

    fn exited(code: i32, stopped_by_hand: bool) -> State {
        State::Exited(Exited {
            code,
            started: None,
            finished: jiff::Timestamp::UNIX_EPOCH,
            oom_killed: false,
            error: None,
            stopped_by_hand,
            restarts: 0,
        })
    }

    #[test]
    fn what_returns_is_what_docker_brings_back() {
        use RestartPolicy::{Always, No, OnFailure, UnlessStopped};
        let running = State::Running(Running {
            pid: 1,
            started: jiff::Timestamp::UNIX_EPOCH,
            health: None,
            paused: false,
            restarts: 0,
        });
        for (state, policy, expected) in [
            (&running, No, false),
            (&running, Always, true),
            (&running, UnlessStopped, true),
            (&running, OnFailure(3), true),
            (&exited(0, true), Always, true),
            (&exited(0, true), UnlessStopped, false),
            (&exited(0, false), UnlessStopped, true),
            (&exited(0, false), OnFailure(0), false),
            (&exited(1, false), OnFailure(0), true),
            (&State::Created, Always, false),
        ] {
            assert_eq!(returns(state, policy), expected, "{} {policy}", state.word());
        }
    }

    #[test]
    fn the_unit_names_the_program_and_the_root() {
        let unit = BootUnit::new(Path::new("/usr/local/bin/rengine"), &Root::at(Path::new(DEFAULT_STATE)));
        assert_eq!(unit.name, "rengine.service");
        assert!(unit.text.contains("\nExecStart=/usr/local/bin/rengine system boot\n"), "{}", unit.text);
        assert!(unit.text.contains("\nExecStop=/usr/local/bin/rengine system down\n"), "{}", unit.text);
        let unit = BootUnit::new(Path::new("/opt/a b/rengine"), &Root::at(Path::new("/srv/50%")));
        let expected = "ExecStart=\"/opt/a b/rengine\" --root \"/srv/50%%\" system boot";
        assert!(unit.text.contains(expected), "{}", unit.text);
    }

    #[test]
    fn an_installed_unit_is_wanted() {
        let directory = tempfile::tempdir().unwrap();
        let unit = BootUnit::new(Path::new("/bin/rengine"), &Root::at(Path::new(DEFAULT_STATE)));
        for _ in 0..2 {
            let path = unit.install(directory.path()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), unit.text);
            let link = directory.path().join("multi-user.target.wants/rengine.service");
            assert_eq!(fs::read_link(link).unwrap(), path);
        }
    }
}
