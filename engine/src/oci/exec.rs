//! A second process in a container of a bundle.

use std::os::fd::AsFd;
use std::path::PathBuf;

use serde_json::Value;

use super::config::{Capabilities, Process};
use super::console::{self, Attendance};
use super::keys;
use super::life::{self, Runtime};
use super::limits;
use super::listener::ExecListener;
use super::plan::{self, Extras};
use super::state::{Record, Status};
use crate::container::cgroup::Cgroup;
use crate::container::exec;
use crate::container::launch::{Stdio, Streams};
use crate::container::plan::ProcessPlan;
use crate::error::{Error, Result};

/// What is to be run, and how.
#[derive(Debug, Clone, Default)]
pub struct NewProcess {
    /// The container.
    pub id: String,
    /// The whole process as a bundle would describe it, instead of the changes below.
    pub described: Option<Value>,
    /// The program and its arguments.
    pub args: Vec<String>,
    /// The working directory instead of the container's.
    pub cwd: Option<PathBuf>,
    /// `KEY=value` on top of the container's.
    pub env: Vec<String>,
    /// Whether it has a terminal.
    pub tty: bool,
    /// User, and group if it is said, by their numbers.
    pub user: Option<(u32, Option<u32>)>,
    /// Further groups.
    pub additional_gids: Vec<u32>,
    /// The AppArmor profile instead of the container's.
    pub apparmor: Option<String>,
    /// Whether setuid programs give no privileges, whatever holds for the container.
    pub no_new_privileges: bool,
    /// Capabilities on top of the container's.
    pub capabilities: Vec<String>,
    /// The group below the container's that it is put into.
    pub cgroup: Option<PathBuf>,
    /// Whether it may join a container that stands still.
    pub ignore_paused: bool,
    /// Whether it goes on by itself.
    pub detach: bool,
    /// Where the process's number is written.
    pub pid_file: Option<PathBuf>,
    /// The socket that gets its terminal.
    pub console_socket: Option<PathBuf>,
    /// How many descriptors besides the standard streams are passed on.
    pub preserve_fds: u32,
}

impl Runtime {
    /// The processes of a container, as the host numbers them.
    ///
    /// # Errors
    /// When there is no such container.
    pub fn processes(&self, id: &str) -> Result<Vec<i32>> {
        let processes = Record::read(&self.root, id)?.cgroup()?.processes()?;
        Ok(processes.iter().map(|pid| pid.as_raw_nonzero().get()).collect())
    }

    /// Runs a process in a container: its exit code, 0 at once when it goes on by itself.
    ///
    /// # Errors
    /// When the container cannot be joined, or the program cannot be executed.
    pub fn exec(&self, new: &NewProcess, warn: &dyn Fn(&str)) -> Result<u8> {
        let record = Record::read(&self.root, &new.id)?;
        let status = record.status(&self.root)?;
        match status {
            Status::Paused if !new.ignore_paused => {
                return Err(Error::conflict(
                    "cannot exec in a paused container (use --ignore-paused to override)",
                ));
            }
            Status::Stopped | Status::Creating => {
                return Err(Error::conflict("cannot exec in a stopped container"));
            }
            _ => {}
        }
        let init = record.process().ok_or_else(|| Error::conflict("cannot exec in a stopped container"))?;
        let process = process_plan(&record, new, warn)?;
        life::terminal_goes_somewhere(process.terminal.is_some(), new.console_socket.is_some(), new.detach)?;
        life::check_descriptors(new.preserve_fds)?;
        let cgroup = cgroup_of(&record, new)?;
        let mut attendance = if new.detach { None } else { Some(Attendance::begin()?) };
        let own = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let stdio = match process.terminal {
            Some(_) => Stdio::Terminal,
            None => Stdio::Streams(Streams::new(&own.0, &own.1, &own.2)),
        };
        let mut listener = ExecListener { record: &record, status };
        let mut child = exec::exec_with(init.as_fd(), &process, &cgroup, stdio, &mut listener)?;
        child.warnings.iter().for_each(|text| warn(text));
        if let Some(path) = &new.pid_file {
            life::write_pid(path, child.pid.as_raw_nonzero().get())?;
        }
        if let Some(master) = child.terminal.take() {
            match (&new.console_socket, &mut attendance) {
                (Some(socket), _) => console::send(socket, master.as_fd())?,
                (None, Some(attendance)) => attendance.carry(master)?,
                (None, None) => {}
            }
        }
        let Some(attendance) = attendance else { return Ok(0) };
        attendance.until_end_of(child.pidfd.as_fd())?;
        Ok(life::reap(child.pidfd.as_fd()))
    }
}

fn process_plan(record: &Record, new: &NewProcess, warn: &dyn Fn(&str)) -> Result<ProcessPlan> {
    let config = record.config()?;
    let mut warnings = Vec::new();
    let process = match &new.described {
        Some(described) => {
            keys::check_part("process", described, &mut warnings)?;
            serde_json::from_value(described.clone())
                .map_err(|error| Error::failed("understand the process", error))?
        }
        None => changed(config.process.clone().unwrap_or_default(), new),
    };
    let extras = Extras { preserve_fds: new.preserve_fds, ..Extras::default() };
    let plan = plan::process_plan(&process, &config.linux, extras, &mut warnings)?;
    warnings.iter().for_each(|text| warn(text));
    Ok(plan)
}

/// The container's own process with the changes that the command line asks for.
fn changed(mut process: Process, new: &NewProcess) -> Process {
    process.args.clone_from(&new.args);
    process.terminal = new.tty;
    process.console_size = None;
    process.env.extend(new.env.iter().cloned());
    if let Some(cwd) = &new.cwd {
        process.cwd.clone_from(cwd);
    }
    if let Some((uid, gid)) = new.user {
        process.user.uid = uid;
        process.user.gid = gid.unwrap_or(process.user.gid);
    }
    process.user.additional_gids.extend(&new.additional_gids);
    if new.apparmor.is_some() {
        process.apparmor_profile.clone_from(&new.apparmor);
    }
    process.no_new_privileges |= new.no_new_privileges;
    if !new.capabilities.is_empty() {
        let sets = process.capabilities.get_or_insert_with(Capabilities::default);
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted, &mut sets.ambient] {
            set.extend(new.capabilities.iter().cloned());
        }
    }
    process
}

fn cgroup_of(record: &Record, new: &NewProcess) -> Result<Cgroup> {
    let Some(below) = &new.cgroup else { return record.cgroup() };
    let place = record.cgroup.join(below.strip_prefix("/").unwrap_or(below));
    if !place.starts_with(&record.cgroup) || below.components().any(|part| part.as_os_str() == "..") {
        return Err(Error::invalid(format!("the cgroup {} is not the container's", below.display())));
    }
    Ok(Cgroup::open_in(&limits::layout()?, &place)?)
}
