//! A second process in a running container: it joins every namespace and the cgroup, under the same filters.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::thread::ThreadNameSpaceType;
use serde::{Deserialize, Serialize};

use crate::container::capabilities::CapabilitySet;
use crate::container::failure::{AtStep, LaunchError};
use crate::container::handshake::{ChildEnd, Report};
use crate::container::launch::{self, Child, Enclosure, Links, NoLinks, Stdio};
use crate::container::namespaces::Births;
use crate::container::plan::{PLAIN_TERMINAL, ProcessPlan, TerminalSize};
use crate::container::privileges;
use crate::container::program::{self, Program};
use crate::container::rootfs::Terminal;
use crate::container::userns;
use crate::container::users::Identity;
use crate::sys::process::NewNamespaces;

/// What `exec` was asked to run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecSpec {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// `KEY=value` on top of the container's.
    pub env: Vec<String>,
    /// `user[:group]` instead of the container's.
    pub user: Option<String>,
    /// The working directory instead of the container's.
    pub working_dir: Option<PathBuf>,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Whether its standard input is read.
    pub interactive: bool,
    /// Whether it may do everything the engine itself may do.
    pub privileged: bool,
}

/// Every namespace of a container but the one for process ids, which one is born into.
const ALL: ThreadNameSpaceType = ThreadNameSpaceType::MOUNT
    .union(ThreadNameSpaceType::NETWORK)
    .union(ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION)
    .union(ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME)
    .union(ThreadNameSpaceType::CONTROL_GROUP);

/// Runs a process in the container whose process 1 this pidfd refers to. `process` is made by
/// [`ProcessPlan::for_exec`]. The caller must have one thread only.
///
/// # Errors
/// Names the step that failed.
pub fn exec(
    init: BorrowedFd<'_>,
    process: &ProcessPlan,
    enclosure: &dyn Enclosure,
    stdio: Stdio<'_>,
) -> Result<Child, LaunchError> {
    exec_with(init, process, enclosure, stdio, &mut NoLinks)
}

/// As [`exec`], with somebody who takes the listener of its filter, if it has one.
///
/// # Errors
/// As for [`exec`].
pub fn exec_with(
    init: BorrowedFd<'_>,
    process: &ProcessPlan,
    enclosure: &dyn Enclosure,
    stdio: Stdio<'_>,
    links: &mut dyn Links,
) -> Result<Child, LaunchError> {
    let births = Births::default().into_pid(init)?;
    if let (Some(users), Stdio::Streams(streams)) = (&process.users, &stdio) {
        userns::give_streams(streams, users);
    }
    let birth = launch::Birth { new: NewNamespaces::default(), births, enclosure, process };
    launch::bear(birth, links, |channel| run(init, process, stdio, &channel))
}

/// What the joining child does; the exit code it ends with when it fails.
fn run(init: BorrowedFd<'_>, process: &ProcessPlan, stdio: Stdio<'_>, channel: &ChildEnd) -> i32 {
    let failure = match join(init, process, stdio, channel) {
        Ok((program, identity)) => match privileges::limit(&process.limits)
            .and_then(|()| privileges::filter(process, &identity, channel))
        {
            Ok(()) => program.execute(),
            Err(failure) => failure,
        },
        Err(failure) => failure,
    };
    channel.give_up(failure)
}

fn join(
    init: BorrowedFd<'_>,
    process: &ProcessPlan,
    stdio: Stdio<'_>,
    channel: &ChildEnd,
) -> Result<(Program, Identity), LaunchError> {
    let mut warn = |text| channel.warn(text);
    program::start_clean(process, &mut warn)?;
    if let Stdio::Streams(streams) = &stdio {
        program::use_streams(streams)?;
    }
    let mut namespaces = ALL;
    if process.users.is_some() {
        // What only the host's root can give is taken while this is it.
        privileges::raise_limits(&process.limits, &mut warn)?;
        // The kernel joins this one first.
        namespaces |= ThreadNameSpaceType::USER;
    }
    rustix::thread::move_into_thread_name_spaces(init, namespaces)
        .at("join the namespaces of", "the container")?;
    if process.users.is_some() {
        userns::become_root()?;
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty()).at("open", "/")?;
    let (program, identity) = Program::prepare(process, root.as_fd())?;
    if matches!(stdio, Stdio::Terminal) {
        let terminal = Terminal::open(root.as_fd(), Path::new("dev/pts/ptmx"))?;
        terminal.resize(process.terminal.unwrap_or_default())?;
        channel.send(&Report::Terminal, &[terminal.master.as_fd()]).at("hand over", "the terminal")?;
        program::use_terminal(&terminal.slave)?;
    }
    program::start_session(matches!(stdio, Stdio::Terminal))?;
    program::settle(process, &identity, root.as_fd(), &mut warn)?;
    program::announce(process, channel)?;
    Ok((program, identity))
}

impl ProcessPlan {
    /// The plan of a process that joins a container whose first process was launched by `self`.
    pub fn for_exec(&self, spec: &ExecSpec) -> Self {
        let mut process = self.clone();
        process.argv.clone_from(&spec.argv);
        // The kind of the first process's terminal says nothing of this one's.
        process.env.retain(|entry| self.terminal.is_none() || entry != PLAIN_TERMINAL);
        for entry in &spec.env {
            let key = entry.split('=').next().unwrap_or_default();
            process.env.retain(|known| known.split('=').next() != Some(key));
            if entry.contains('=') {
                process.env.push(entry.clone());
            }
        }
        if let Some(user) = &spec.user {
            process.user.clone_from(user);
        }
        if let Some(cwd) = &spec.working_dir {
            process.cwd.clone_from(cwd);
        }
        process.terminal = spec.tty.then(TerminalSize::default);
        if spec.tty && !process.env.iter().any(|entry| entry.starts_with("TERM=")) {
            process.env.push(PLAIN_TERMINAL.to_owned());
        }
        if spec.privileged {
            process.capabilities = CapabilitySet::bounding();
            process.seccomp = None;
        }
        process
    }
}
