//! Starting process 1: one clone, everything mounted and configured by the child in namespaces of its own, then
//! the program. Nothing it mounts ever exists on the host. The caller must have one thread only.

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::process::{DumpableBehavior, Pid, Signal, WaitId, WaitIdOptions};

use crate::container::failure::AtStep;
pub use crate::container::failure::{Cause, LaunchError};
use crate::container::handshake::{self, ChildEnd, Order, ParentEnd, Report};
use crate::container::init;
use crate::container::namespaces::Births;
use crate::container::plan::{LaunchPlan, ProcessPlan};
use crate::container::rootfs::Sources;
use crate::container::userns;
use crate::error::Error;
use crate::sys;
use crate::sys::process::NewNamespaces;

/// A process that was launched and is the caller's child.
#[derive(Debug)]
pub struct Child {
    /// As the host numbers it.
    pub pid: Pid,
    /// Readable once it has ended; waitid(2) takes it.
    pub pidfd: OwnedFd,
    /// The master side of its terminal, when it has one.
    pub terminal: Option<OwnedFd>,
    /// What [`Links::inside`] opened in the container's network namespace.
    pub sockets: Vec<OwnedFd>,
    /// What was not as asked, but no reason to fail.
    pub warnings: Vec<String>,
}

/// The standard streams of a process without a terminal.
#[derive(Debug, Clone, Copy)]
pub struct Streams<'a> {
    /// Standard input.
    pub stdin: BorrowedFd<'a>,
    /// Standard output.
    pub stdout: BorrowedFd<'a>,
    /// Standard error.
    pub stderr: BorrowedFd<'a>,
}

/// What a process reads from and writes to.
#[derive(Debug, Clone, Copy)]
pub enum Stdio<'a> {
    /// These descriptors.
    Streams(Streams<'a>),
    /// A terminal of the container's own devpts; its master comes back in [`Child::terminal`].
    Terminal,
}

/// The cgroup a process is put into before it does anything.
pub trait Enclosure {
    /// The directory for `CLONE_INTO_CGROUP`, where the kernel has a unified hierarchy.
    fn directory(&self) -> Option<BorrowedFd<'_>>;

    /// Runs in the child, which has one thread: moves it into every hierarchy that the directory does not cover.
    ///
    /// # Errors
    /// Ends the launch.
    fn enter(&self) -> Result<(), Error>;
}

/// How a network namespace gets its links, from both sides.
pub trait Links {
    /// A network namespace that was made before, for the process to have as its own.
    fn namespace(&mut self) -> Option<OwnedFd> {
        None
    }

    /// Runs in the caller once the namespace of this process exists: plugs the host's side. What it returns is
    /// given to [`Links::inside`].
    ///
    /// # Errors
    /// Ends the launch.
    fn outside(&mut self, pid: Pid) -> Result<Vec<u8>, Error>;

    /// Runs in the child inside the namespace, before its root is pivoted: configures the links. The descriptors
    /// it returns come back in [`Child::sockets`].
    ///
    /// # Errors
    /// Ends the launch.
    fn inside(&self, message: &[u8]) -> Result<Vec<OwnedFd>, Error>;

    /// Whether [`Links::outside`] waits until everything is mounted in the container.
    fn after_mounts(&self) -> bool {
        false
    }

    /// Takes the listener of the filter of this process, which waits for that before it executes its program
    /// (seccomp_unotify(2)).
    ///
    /// # Errors
    /// Ends the launch.
    fn listen(&mut self, _pid: Pid, _listener: OwnedFd) -> Result<(), Error> {
        Err(Error::invalid("nobody listens to the system call filter"))
    }

    /// Runs in the child inside the container, with the privileges of its program, right before that is executed.
    ///
    /// # Errors
    /// Ends the launch.
    fn before_program(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// No cgroup of its own: the process stays in its parent's.
#[derive(Debug, Clone, Copy)]
pub struct Unenclosed;

/// A network namespace with nothing to configure: somebody else's, or the host's.
#[derive(Debug, Clone, Copy)]
pub struct NoLinks;

/// Where a child is born.
pub(crate) struct Birth<'a> {
    pub(crate) new: NewNamespaces,
    pub(crate) births: Births,
    pub(crate) enclosure: &'a dyn Enclosure,
    /// What it will be.
    pub(crate) process: &'a ProcessPlan,
}

/// A child that is killed and reaped unless it is released.
struct Unfinished {
    pidfd: Option<OwnedFd>,
}

/// Launches process 1 of a container. Returns once its program is being executed.
///
/// # Errors
/// Names the step that failed. Nothing is left behind then, the child's namespaces and mounts included.
pub fn launch(
    plan: &LaunchPlan,
    enclosure: &dyn Enclosure,
    stdio: Stdio<'_>,
    links: &mut dyn Links,
) -> Result<Child, LaunchError> {
    launch_to(None, plan, enclosure, stdio, links)
}

/// A process that stands right before its program until somebody lets it go on: a socket that it listens at.
#[derive(Debug)]
pub struct Gate(OwnedFd);

impl Gate {
    /// A new one at this path.
    ///
    /// # Errors
    /// When the path is taken or too long.
    pub fn at(path: &Path) -> Result<Self, LaunchError> {
        handshake::gate(path).map(Self).at("make the start's socket", path.display())
    }

    /// Lets this process go on, which waits at this path. Returns once its program is being executed.
    ///
    /// # Errors
    /// When nobody waits there, or the program cannot be executed.
    pub fn open(
        path: &Path,
        process: BorrowedFd<'_>,
        listen: &mut dyn FnMut(OwnedFd) -> Result<(), Error>,
    ) -> Result<(), LaunchError> {
        let channel = ParentEnd::connect(path).at("let go on", "the process")?;
        Reported::default().read(&channel, true, process, listen)
    }
}

/// As [`launch`], but returns once the process waits at the gate for [`Gate::open`].
///
/// # Errors
/// As for [`launch`].
pub fn launch_to_gate(
    gate: &Gate,
    plan: &LaunchPlan,
    enclosure: &dyn Enclosure,
    stdio: Stdio<'_>,
    links: &mut dyn Links,
) -> Result<Child, LaunchError> {
    launch_to(Some(gate.0.as_fd()), plan, enclosure, stdio, links)
}

fn launch_to(
    gate: Option<BorrowedFd<'_>>,
    plan: &LaunchPlan,
    enclosure: &dyn Enclosure,
    stdio: Stdio<'_>,
    links: &mut dyn Links,
) -> Result<Child, LaunchError> {
    let hosts = plan.namespaces.hosts()?;
    let process = &plan.process;
    let mut new = NewNamespaces { user: process.users.is_some(), ..plan.namespaces.new_ones() };
    let mut births = Births::default();
    if let Some(process) = hosts.of(&plan.namespaces.pid) {
        births = births.into_pid(process)?;
    }
    // One that was made here belongs to this user namespace.
    if let Some(made) = links.namespace().filter(|_| new.net && !new.user) {
        births = births.into_network(made.as_fd())?;
        new.net = false;
    }
    let birth = Birth { new, births, enclosure, process };
    let links = RefCell::new(links);
    let mut outside = Outside(&links);
    let mut sources = Sources::take(plan, &hosts)?;
    let mut warnings = std::mem::take(&mut sources.warnings);
    if let (Some(users), Stdio::Streams(streams)) = (&process.users, &stdio) {
        userns::give_streams(streams, users);
    }
    let run = |channel| init::run(plan, &hosts, stdio, &**links.borrow(), sources, gate, channel);
    let mut child = bear(birth, &mut outside, run)?;
    child.warnings.append(&mut warnings);
    Ok(child)
}

/// Clones and plugs a child, and waits until it executes its program.
pub(crate) fn bear(
    birth: Birth<'_>,
    links: &mut dyn Links,
    run: impl FnOnce(ChildEnd) -> i32,
) -> Result<Child, LaunchError> {
    let Birth { new, births, enclosure, process } = birth;
    let (parent, child) = handshake::pair().at("open", "a channel to the child")?;
    let parent = Cell::new(Some(parent));
    // What is inside the container must not read this process's memory through a child that has not yet executed
    // its program, nor open its executable (CVE-2016-9962).
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).at("set", "dumpable")?;
    let cloned = sys::process::clone_process(new, enclosure.directory(), || {
        drop(parent.take());
        match enclosure.enter().at("enter the cgroups of", "the process") {
            Ok(()) => run(child),
            Err(failure) => child.give_up(failure),
        }
    });
    drop(births);
    let (pid, pidfd) = cloned.at("clone", "the process")?;
    let mut unfinished = Unfinished { pidfd: Some(pidfd) };
    let channel = parent.take().ok_or(LaunchError::Vanished)?;
    let mut report = Reported::default();
    let ready = describe(pid, &channel, new, process).and_then(|()| plug(pid, &channel, links, &mut report));
    let held = unfinished.pidfd.as_ref().ok_or(LaunchError::Vanished)?;
    // A child that failed meanwhile has the better reason.
    report.read(&channel, ready.is_ok(), held.as_fd(), &mut |listener| links.listen(pid, listener))?;
    ready?;
    let pidfd = unfinished.pidfd.take().ok_or(LaunchError::Vanished)?;
    Ok(Child { pid, pidfd, terminal: report.terminal, sockets: report.sockets, warnings: report.warnings })
}

/// Says what its user ids mean, when they are its own.
fn describe(
    pid: Pid,
    channel: &ParentEnd,
    new: NewNamespaces,
    process: &ProcessPlan,
) -> Result<(), LaunchError> {
    let Some(users) = process.users.as_ref().filter(|_| new.user) else { return Ok(()) };
    userns::describe(pid, users)?;
    userns::grant(pid, process);
    channel.send(&Order::Mapped).at("order", "the child")
}

fn plug(
    pid: Pid,
    channel: &ParentEnd,
    links: &mut dyn Links,
    report: &mut Reported,
) -> Result<(), LaunchError> {
    if links.after_mounts() {
        report.read_until_mounted(channel)?;
    }
    let message = links.outside(pid).at("plug", "the network")?;
    channel.send(&Order::Plugged(message)).at("order", "the child")
}

/// What a child said until it executed its program.
#[derive(Default)]
struct Reported {
    terminal: Option<OwnedFd>,
    sockets: Vec<OwnedFd>,
    warnings: Vec<String>,
    executing: bool,
}

/// What a report says of how far the child is.
enum Heard {
    Listens(RawFd),
    Mounted,
    Waiting,
    Else,
}

// === impl Reported ===

impl Reported {
    /// Reads to the end. A child that waits for an order that will not come is not waited for.
    fn read(
        &mut self,
        channel: &ParentEnd,
        ordered: bool,
        process: BorrowedFd<'_>,
        listen: &mut dyn FnMut(OwnedFd) -> Result<(), Error>,
    ) -> Result<(), LaunchError> {
        if !ordered {
            channel.close().at("order", "the child")?;
        }
        while let Some(heard) = self.hear(channel)? {
            match heard {
                Heard::Waiting => return Ok(()),
                Heard::Listens(number) => {
                    let listener = sys::pidfd::copy_descriptor(process, number).at("take", "the listener")?;
                    listen(listener).at("hand over", "the listener")?;
                    channel.send(&Order::Taken).at("order", "the child")?;
                }
                Heard::Mounted | Heard::Else => {}
            }
        }
        if ordered && !self.executing { Err(LaunchError::Vanished) } else { Ok(()) }
    }

    /// Reads until everything is mounted.
    fn read_until_mounted(&mut self, channel: &ParentEnd) -> Result<(), LaunchError> {
        while let Some(heard) = self.hear(channel)? {
            if matches!(heard, Heard::Mounted) {
                return Ok(());
            }
        }
        Err(LaunchError::Vanished)
    }

    /// The next report; `None` at the end.
    fn hear(&mut self, channel: &ParentEnd) -> Result<Option<Heard>, LaunchError> {
        let Some((report, mut fds)) = channel.receive().at("hear from", "the child")? else {
            return Ok(None);
        };
        match report {
            Report::Warning(text) => self.warnings.push(text),
            Report::Terminal => self.terminal = fds.pop(),
            Report::Sockets => self.sockets = fds,
            Report::Mounted => return Ok(Some(Heard::Mounted)),
            Report::Waiting => return Ok(Some(Heard::Waiting)),
            Report::Listener(number) => return Ok(Some(Heard::Listens(number))),
            Report::Executing => self.executing = true,
            Report::Failed(LaunchError::Vanished) => self.executing = false,
            Report::Failed(failure) => return Err(failure),
        }
        Ok(Some(Heard::Else))
    }
}

// === impl Unfinished ===

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(pidfd) = &self.pidfd {
            // It may have ended by itself; then there is only its status to take.
            let _ = rustix::process::pidfd_send_signal(pidfd, Signal::KILL);
            let _ = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
        }
    }
}

// === impl Enclosure, Links ===

impl Enclosure for Unenclosed {
    fn directory(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn enter(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// The caller's half of links that the child holds the other half of.
struct Outside<'a, 'b>(&'a RefCell<&'b mut dyn Links>);

impl Links for Outside<'_, '_> {
    fn outside(&mut self, pid: Pid) -> Result<Vec<u8>, Error> {
        self.0.borrow_mut().outside(pid)
    }

    fn inside(&self, message: &[u8]) -> Result<Vec<OwnedFd>, Error> {
        self.0.borrow().inside(message)
    }

    fn after_mounts(&self) -> bool {
        self.0.borrow().after_mounts()
    }

    fn listen(&mut self, pid: Pid, listener: OwnedFd) -> Result<(), Error> {
        self.0.borrow_mut().listen(pid, listener)
    }
}

impl Links for NoLinks {
    fn outside(&mut self, _pid: Pid) -> Result<Vec<u8>, Error> {
        Ok(Vec::new())
    }

    fn inside(&self, _message: &[u8]) -> Result<Vec<OwnedFd>, Error> {
        Ok(Vec::new())
    }
}

impl<'a> Streams<'a> {
    /// All three from the caller's own descriptors.
    pub fn new(stdin: &'a impl AsFd, stdout: &'a impl AsFd, stderr: &'a impl AsFd) -> Self {
        Self { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: stderr.as_fd() }
    }
}
