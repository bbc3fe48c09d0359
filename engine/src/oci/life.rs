//! A container's life: create, start, run, kill, pause, resume, update, delete (runtime-spec, runtime.md,
//! "Lifecycle").

use std::cell::RefCell;
use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rustix::process::{WaitId, WaitIdOptions};
use serde_json::Value;

use super::config::{self, Config};
use super::console::{self, Attendance};
use super::hooks::{self, LaunchHooks};
use super::plan::{self, Extras};
use super::state::{self, Record, Status};
use super::{keys, limits, listener};
use crate::container::cgroup::Cgroup;
use crate::container::end;
use crate::container::launch::{self, Child, Gate, Stdio, Streams};
use crate::container::plan::{LaunchPlan, Whose};
use crate::error::{Error, Result};
use crate::paths::RuntimeRoot;
use crate::signal::Signal;
use crate::store;
use crate::sys::pidfd;

/// Where containers are kept and how their control groups are named.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// Where.
    pub root: RuntimeRoot,
    /// Whether `cgroupsPath` is systemd's `slice:prefix:name`.
    pub systemd_cgroup: bool,
}

/// What `create` and `run` are asked for.
#[derive(Debug, Clone, Default)]
pub struct NewContainer {
    /// Its name.
    pub id: String,
    /// The directory with `config.json`.
    pub bundle: PathBuf,
    /// Where the process's number is written.
    pub pid_file: Option<PathBuf>,
    /// The socket that gets its terminal.
    pub console_socket: Option<PathBuf>,
    /// What the command line adds to the bundle.
    pub extras: Extras,
}

/// A container that was launched.
struct Launched {
    child: Child,
    record: Record,
    config: Config,
    warnings: Vec<String>,
}

/// How long a killed process may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(10);

// === impl Runtime ===

impl Runtime {
    /// Makes a container whose program waits for [`Runtime::start`]; what was not as asked.
    ///
    /// # Errors
    /// Names the step that failed. Nothing is left behind then.
    pub fn create(&self, new: &NewContainer) -> Result<Vec<String>> {
        check_descriptors(new.extras.preserve_fds)?;
        let launched = self.launch(new, true, true)?;
        Ok(launched.warnings)
    }

    /// Lets the program of a container go on that was made; what was not as asked.
    ///
    /// # Errors
    /// When it does not wait for that, or its program cannot be executed.
    pub fn start(&self, id: &str) -> Result<Vec<String>> {
        let record = Record::read(&self.root, id)?;
        match record.status(&self.root)? {
            Status::Created => {}
            Status::Stopped => return Err(Error::conflict("cannot start a container that has stopped")),
            _ => return Err(Error::conflict("cannot start an already running container")),
        }
        let (_held, directory) = state::short(&self.root.container(id))?;
        let gate = RuntimeRoot::gate_in(&directory);
        let process =
            record.process().ok_or_else(|| Error::conflict("cannot start a container that has stopped"))?;
        let mut listen = |taken| listener::hand_over(&record, Status::Created, record.pid, &taken);
        let opened = Gate::open(&gate, process.as_fd(), &mut listen);
        // From now on it counts as running.
        let _ = store::remove_file(&self.root.gate(id));
        if let Err(error) = opened {
            self.end(&record)?;
            return Err(error.into());
        }
        let mut warnings = Vec::new();
        let config = record.config()?;
        hooks::run_regardless(
            "poststart",
            &config.hooks.poststart,
            &record.for_hook(Status::Running),
            &mut warnings,
        );
        Ok(warnings)
    }

    /// Makes a container and starts its program, which goes on by itself; what was not as asked.
    ///
    /// # Errors
    /// As for [`Runtime::create`].
    pub fn run_detached(&self, new: &NewContainer) -> Result<Vec<String>> {
        check_descriptors(new.extras.preserve_fds)?;
        let mut launched = self.launch(new, false, true)?;
        launched.after_start();
        Ok(launched.warnings)
    }

    /// Makes a container, starts its program and stays until that ends: its exit code. Warnings are told at once.
    ///
    /// # Errors
    /// As for [`Runtime::create`].
    pub fn run(&self, new: &NewContainer, keep: bool, warn: &dyn Fn(&str)) -> Result<u8> {
        // Before there are any of this process's own.
        check_descriptors(new.extras.preserve_fds)?;
        let mut attendance = Attendance::begin()?;
        let mut launched = self.launch(new, false, false)?;
        launched.after_start();
        launched.warnings.iter().for_each(|text| warn(text));
        if let Some(master) = launched.child.terminal.take() {
            attendance.carry(master)?;
        }
        attendance.until_end_of(launched.child.pidfd.as_fd())?;
        let code = reap(launched.child.pidfd.as_fd());
        if !keep {
            self.destroy(&launched.record)?.iter().for_each(|text| warn(text));
        }
        Ok(code)
    }

    /// Sends a signal to the first process, or to all.
    ///
    /// # Errors
    /// When there is nobody to get it.
    pub fn kill(&self, id: &str, signal: Signal, all: bool) -> Result<()> {
        let record = Record::read(&self.root, id)?;
        let failed = |error: io::Error| Error::failed(format!("send signal {signal} to {id}"), error);
        if all {
            let cgroup = record.cgroup()?;
            for pid in cgroup.processes()? {
                match crate::sys::process::signal_process(pid, signal.number()) {
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    other => other.map_err(failed)?,
                }
            }
            return self.thaw_for(signal, &cgroup);
        }
        let process = match record.status(&self.root)? {
            Status::Stopped => None,
            _ => record.process(),
        };
        let process = process.ok_or_else(|| Error::conflict("container not running"))?;
        pidfd::send_signal(process.as_fd(), signal.number()).map_err(failed)?;
        self.thaw_for(signal, &record.cgroup()?)
    }

    /// What stands still cannot be killed.
    fn thaw_for(&self, signal: Signal, cgroup: &Cgroup) -> Result<()> {
        if signal == Signal::KILL && cgroup.is_frozen() { Ok(cgroup.thaw()?) } else { Ok(()) }
    }

    /// Lets everything in it stand still.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self, id: &str) -> Result<()> {
        let record = Record::read(&self.root, id)?;
        match record.status(&self.root)? {
            Status::Running | Status::Created => Ok(record.cgroup()?.freeze()?),
            _ => Err(Error::conflict("container not running or created: paused")),
        }
    }

    /// Lets everything in it go on.
    ///
    /// # Errors
    /// When it does not stand still.
    pub fn resume(&self, id: &str) -> Result<()> {
        let record = Record::read(&self.root, id)?;
        let cgroup = record.cgroup()?;
        if record.status(&self.root)? == Status::Stopped || !cgroup.is_frozen() {
            return Err(Error::conflict("container not paused"));
        }
        Ok(cgroup.thaw()?)
    }

    /// Changes its limits to what is said here, in the form of `linux.resources`; what does not hold.
    ///
    /// # Errors
    /// When it has stopped, or the kernel refuses one.
    pub fn update(&self, id: &str, resources: &Value) -> Result<Vec<String>> {
        let record = Record::read(&self.root, id)?;
        if record.status(&self.root)? == Status::Stopped {
            return Err(Error::conflict("container not running"));
        }
        let mut warnings = Vec::new();
        keys::check_part("linux.resources", resources, &mut warnings)?;
        let asked: config::Resources = serde_json::from_value(resources.clone())
            .map_err(|error| Error::failed("understand the resources", error))?;
        if !asked.devices.is_empty() {
            warnings.push("linux.resources.devices has no effect: device rules do not change".to_owned());
        }
        let held = record.cgroup()?.update(&limits::resources(&asked)?)?;
        warnings.extend(held.iter().map(ToString::to_string));
        Ok(warnings)
    }

    /// Forgets a container that has stopped, or with `force` ends it; what was not as asked.
    ///
    /// # Errors
    /// When it still runs.
    pub fn delete(&self, id: &str, force: bool) -> Result<Vec<String>> {
        let record = match Record::read(&self.root, id) {
            Err(_) if force && self.root.container(id).is_dir() && state::validate(id).is_ok() => {
                // Whoever made it was killed before there was anything to tell of.
                let directory = self.root.container(id);
                let removed = store::remove_tree(&directory);
                removed.map_err(|error| Error::failed(format!("remove {}", directory.display()), error))?;
                return Ok(Vec::new());
            }
            Err(error) if force && error.kind() == crate::error::Kind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        match record.status(&self.root)? {
            Status::Stopped => {}
            Status::Created | Status::Creating => self.end(&record)?,
            _ if force => self.end(&record)?,
            status => {
                return Err(Error::conflict(format!(
                    "cannot delete container {id} that is not stopped: {}",
                    status.word()
                )));
            }
        }
        self.destroy(&record)
    }

    /// Kills its first process and waits until it is gone.
    fn end(&self, record: &Record) -> Result<()> {
        let Some(process) = record.process() else { return Ok(()) };
        // It may end in this very moment.
        let _ = pidfd::send_signal(process.as_fd(), Signal::KILL.number());
        self.thaw_for(Signal::KILL, &record.cgroup()?)?;
        if end::ended_within(process.as_fd(), GONE_WITHIN).unwrap_or(false) {
            Ok(())
        } else {
            Err(Error::conflict("container init still running"))
        }
    }

    /// Removes what is left of a container whose first process is gone.
    fn destroy(&self, record: &Record) -> Result<Vec<String>> {
        let cgroup = record.cgroup()?;
        // Without a namespace of their own for process ids, others may have outlived it.
        cgroup.kill()?;
        cgroup.remove()?;
        let directory = self.root.container(&record.id);
        let removed = store::remove_tree(&directory);
        removed.map_err(|error| Error::failed(format!("remove {}", directory.display()), error))?;
        let mut warnings = Vec::new();
        let state = Record { pid: 0, ..record.clone() }.for_hook(Status::Stopped);
        if let Ok(config) = record.config() {
            hooks::run_regardless("poststop", &config.hooks.poststop, &state, &mut warnings);
        }
        Ok(warnings)
    }

    fn launch(&self, new: &NewContainer, gated: bool, detached: bool) -> Result<Launched> {
        state::validate(&new.id)?;
        let bundle = new.bundle.canonicalize();
        let bundle = bundle
            .map_err(|error| Error::failed(format!("find the bundle {}", new.bundle.display()), error))?;
        let value = config::read(&bundle)?;
        let mut warnings = Vec::new();
        keys::check(&value, &mut warnings)?;
        let config = Config::parse(&value)?;
        check_terminal(&config, new, detached)?;
        let mut plan = plan::launch_plan(&bundle, &config, new.extras)?;
        warnings.append(&mut plan.warnings);
        if self.systemd_cgroup && limits::systemd_runs() {
            warnings.push("systemd is not told of the container's scope".to_owned());
        }
        let record = Record {
            id: new.id.clone(),
            bundle: bundle.clone(),
            rootfs: plan.rootfs.upper.clone(),
            pid: 0,
            birth: 0,
            created: Timestamp::now(),
            cgroup: limits::place(&config.linux.cgroups_path, &new.id, self.systemd_cgroup)?,
            gated,
            config: value,
        };
        self.claim(&new.id, &record.cgroup)?;
        let mut launched = Prepared { runtime: self, new, plan, record, config, warnings };
        let child = match launched.bear(gated) {
            Ok(child) => child,
            Err(error) => {
                launched.give_up();
                return Err(error);
            }
        };
        let Prepared { record, config, mut warnings, .. } = launched;
        warnings.extend(child.warnings.iter().cloned());
        Ok(Launched { child, record, config, warnings })
    }

    /// Takes the name: its directory is there for whoever comes first. Its control group must be nobody else's, who
    /// would end with the container.
    fn claim(&self, id: &str, cgroup: &Path) -> Result<()> {
        let directory = self.root.container(id);
        let occupants = if directory.exists() { 0 } else { Cgroup::occupants(&limits::layout()?, cgroup) };
        if occupants > 0 {
            return Err(Error::conflict(format!(
                "container's cgroup is not empty: {occupants} process(es) found in /{}",
                cgroup.display()
            )));
        }
        let failed = |error| Error::failed(format!("make the directory {}", directory.display()), error);
        DirBuilder::new().recursive(true).mode(0o711).create(self.root.directory()).map_err(failed)?;
        match DirBuilder::new().mode(0o711).create(&directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(Error::conflict("container with given ID already exists"))
            }
            other => other.map_err(failed),
        }
    }
}

/// A container whose name is taken and which has no process yet.
struct Prepared<'a> {
    runtime: &'a Runtime,
    new: &'a NewContainer,
    plan: LaunchPlan,
    record: Record,
    config: Config,
    warnings: Vec<String>,
}

// === impl Prepared ===

impl Prepared<'_> {
    /// Makes its control group and its process, and tells of it.
    fn bear(&mut self, gated: bool) -> Result<Child> {
        let layout = limits::layout()?;
        let resources = limits::resources(&self.config.linux.resources)?;
        let place = &self.record.cgroup;
        let (cgroup, held) = Cgroup::create_in(&layout, place, &resources, &self.plan.device_rules)?;
        self.warnings.extend(held.iter().map(ToString::to_string));
        let root = &self.runtime.root;
        let own = (io::stdin(), io::stdout(), io::stderr());
        let stdio = match self.plan.process.terminal {
            Some(_) => Stdio::Terminal,
            None => Stdio::Streams(Streams::new(&own.0, &own.1, &own.2)),
        };
        let mut links = LaunchHooks {
            root,
            record: &mut self.record,
            hooks: &self.config.hooks,
            own_network: self.plan.namespaces.net == Whose::Own,
            heard: RefCell::new(Value::Null),
        };
        let child = if gated {
            let (_held, directory) = state::short(&root.container(&self.new.id))?;
            let gate = Gate::at(&RuntimeRoot::gate_in(&directory))?;
            launch::launch_to_gate(&gate, &self.plan, &cgroup, stdio, &mut links)?
        } else {
            launch::launch(&self.plan, &cgroup, stdio, &mut links)?
        };
        self.tell(&child)?;
        Ok(child)
    }

    /// Hands over its terminal and its number to whoever asked for them.
    fn tell(&self, child: &Child) -> Result<()> {
        if let (Some(socket), Some(master)) = (&self.new.console_socket, &child.terminal) {
            console::send(socket, master.as_fd())?;
        }
        match &self.new.pid_file {
            Some(path) => write_pid(path, child.pid.as_raw_nonzero().get()),
            None => Ok(()),
        }
    }

    /// Undoes what was done. What fails now was not made, or goes with what is removed.
    fn give_up(&self) {
        if let Some(process) = self.record.process() {
            let _ = pidfd::send_signal(process.as_fd(), Signal::KILL.number());
            let _ = end::ended_within(process.as_fd(), GONE_WITHIN);
            let _ = rustix::process::waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED);
        }
        let _ = self.runtime.destroy(&self.record);
    }
}

// === impl Launched ===

impl Launched {
    /// What comes after the program's start.
    fn after_start(&mut self) {
        let state = self.record.for_hook(Status::Running);
        hooks::run_regardless("poststart", &self.config.hooks.poststart, &state, &mut self.warnings);
    }
}

/// A terminal goes to whoever asks for it; without anybody who stays, somebody must.
fn check_terminal(config: &Config, new: &NewContainer, detached: bool) -> Result<()> {
    let wanted = config.process.as_ref().is_some_and(|process| process.terminal);
    terminal_goes_somewhere(wanted, new.console_socket.is_some(), detached)
}

pub(super) fn terminal_goes_somewhere(wanted: bool, socket: bool, detached: bool) -> Result<()> {
    match (wanted, socket, detached) {
        (true, false, true) => {
            Err(Error::invalid("cannot allocate tty if runc will detach without setting console socket"))
        }
        (false, true, _) | (_, true, false) => {
            Err(Error::invalid("cannot use console socket if runc will not detach or allocate tty"))
        }
        _ => Ok(()),
    }
}

/// What is to be passed on must be there.
pub(super) fn check_descriptors(count: u32) -> Result<()> {
    for number in 3..3 + count {
        if !Path::new(&format!("/proc/self/fd/{number}")).exists() {
            return Err(Error::invalid(format!(
                "please check that preserved-fd {number} (of {count}) is present"
            )));
        }
    }
    Ok(())
}

/// Writes a process's number where it is waited for: whole or not at all.
pub(super) fn write_pid(path: &Path, pid: i32) -> Result<()> {
    store::write_atomic(path, pid.to_string().as_bytes(), 0o644, store::Durability::Rename)
        .map_err(|error| Error::failed(format!("write {}", path.display()), error))
}

/// The exit code of a child; 128 and the signal when one ended it.
pub(super) fn reap(process: BorrowedFd<'_>) -> u8 {
    u8::try_from(end::reap(process)).unwrap_or(255)
}
