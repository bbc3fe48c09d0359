//! What the child does between the clone and its program: a list of steps, each of which either succeeds or ends
//! the launch with its name.

use std::os::fd::{AsFd, BorrowedFd};

use crate::container::failure::{AtStep, LaunchError};
use crate::container::handshake::{ChildEnd, Order, Report};
use crate::container::launch::{Links, Stdio};
use crate::container::namespaces::Hosts;
use crate::container::plan::{LaunchPlan, Whose};
use crate::container::privileges;
use crate::container::program::{self, Program};
use crate::container::reaper;
use crate::container::rootfs::{Places, Rootfs, Sources, Terminal};
use crate::container::userns;
use crate::container::users::Identity;
use crate::sys;

/// A process 1 that is not yet what it will be.
struct Newborn<'a> {
    plan: &'a LaunchPlan,
    hosts: &'a Hosts,
    stdio: Stdio<'a>,
    links: &'a dyn Links,
    channel: ChildEnd,
    sources: Sources,
    places: Option<Places>,
    rootfs: Option<Rootfs>,
    terminal: Option<Terminal>,
    gate: Option<BorrowedFd<'a>>,
}

type Step<T> = fn(&mut T) -> Result<(), LaunchError>;

/// Runs the steps and the program; the exit code to end with when one fails.
pub(crate) fn run(
    plan: &LaunchPlan,
    hosts: &Hosts,
    stdio: Stdio<'_>,
    links: &dyn Links,
    sources: Sources,
    gate: Option<BorrowedFd<'_>>,
    channel: ChildEnd,
) -> i32 {
    let mut newborn = Newborn {
        plan,
        hosts,
        stdio,
        links,
        channel,
        sources,
        places: None,
        rootfs: None,
        terminal: None,
        gate,
    };
    match Newborn::STEPS
        .iter()
        .try_for_each(|step| step(&mut newborn))
        .and_then(|()| newborn.become_program())
    {
        Ok(code) => code,
        Err(failure) => newborn.channel.give_up(failure),
    }
}

// === impl Newborn ===

impl Newborn<'_> {
    /// Everything up to the pivot. What is taken from the host comes before the mounts; what the parent does
    /// meanwhile is waited for as late as possible.
    const STEPS: [Step<Self>; 16] = [
        Self::await_ids,
        Self::start_clean,
        Self::isolate_mounts,
        Self::become_root_inside,
        Self::join_namespaces,
        Self::mount_layers,
        Self::mount_kernel_file_systems,
        Self::join_cgroup_namespace,
        Self::mount_cgroups,
        Self::mount_requested,
        Self::make_working_directory,
        Self::open_terminal,
        Self::configure_links,
        Self::name_itself,
        Self::write_sysctls,
        Self::hide_paths,
    ];

    fn start_clean(&mut self) -> Result<(), LaunchError> {
        program::start_clean(&self.plan.process, &mut |text| self.channel.warn(text))?;
        match &self.stdio {
            Stdio::Streams(streams) => program::use_streams(streams),
            Stdio::Terminal => Ok(()),
        }
    }

    fn join_namespaces(&mut self) -> Result<(), LaunchError> {
        self.plan.namespaces.join(self.hosts)
    }

    /// Before anything that takes rights which the parent gives it together with its ids.
    fn await_ids(&mut self) -> Result<(), LaunchError> {
        if self.plan.process.users.is_none() {
            return Ok(());
        }
        match self.channel.receive().at("wait for", "the user ids")? {
            Some(Order::Mapped) => Ok(()),
            _ => Err(LaunchError::Vanished),
        }
    }

    fn isolate_mounts(&mut self) -> Result<(), LaunchError> {
        Rootfs::isolate()?;
        self.places = Some(Places::find(&self.plan.rootfs)?);
        Ok(())
    }

    /// The last that needs the host's root as the owner of its directories has been done.
    fn become_root_inside(&mut self) -> Result<(), LaunchError> {
        if self.plan.process.users.is_none() {
            return Ok(());
        }
        userns::become_root()?;
        if self.plan.namespaces.ipc != Whose::Own {
            return Ok(());
        }
        // The one it was born into keeps its message queues in a directory of the host's root.
        sys::process::new_ipc_namespace().at("make a namespace for", "ipc")
    }

    fn mount_layers(&mut self) -> Result<(), LaunchError> {
        let Some(places) = &self.places else { return OUT_OF_ORDER };
        self.rootfs = Some(Rootfs::mount(&self.plan.rootfs, places, &mut self.sources)?);
        Ok(())
    }

    fn mount_kernel_file_systems(&mut self) -> Result<(), LaunchError> {
        if self.plan.rootfs.listed {
            return Ok(());
        }
        let Some(rootfs) = &mut self.rootfs else { return OUT_OF_ORDER };
        if self.plan.rootfs.mtab {
            rootfs.link_mtab();
        }
        rootfs.mount_sys(&self.plan.rootfs)?;
        rootfs.mount_dev(&self.plan.rootfs, self.plan.process.users.as_ref(), &mut self.sources)
    }

    /// This process was in its cgroups before its first step.
    fn join_cgroup_namespace(&mut self) -> Result<(), LaunchError> {
        match &self.plan.namespaces.cgroup {
            Whose::Own => sys::process::new_cgroup_namespace().at("make a namespace for", "the cgroup"),
            Whose::Host => Ok(()),
            whose @ (Whose::Of(_) | Whose::At(_)) => {
                let Some(process) = self.hosts.of(whose) else { return OUT_OF_ORDER };
                let kind = rustix::thread::ThreadNameSpaceType::CONTROL_GROUP;
                rustix::thread::move_into_thread_name_spaces(process, kind).at("join the namespace", "cgroup")
            }
        }
    }

    fn mount_cgroups(&mut self) -> Result<(), LaunchError> {
        if self.plan.rootfs.listed {
            return Ok(());
        }
        self.rootfs()?.mount_cgroups(self.plan)
    }

    fn mount_requested(&mut self) -> Result<(), LaunchError> {
        let (Some(rootfs), Some(places)) = (&mut self.rootfs, &self.places) else { return OUT_OF_ORDER };
        let mapped = self.plan.process.users.is_some();
        rootfs.mount_requested(&self.plan.rootfs, mapped, places, &mut self.sources)
    }

    /// The root may be read-only later, and the directory may be in a volume.
    fn make_working_directory(&mut self) -> Result<(), LaunchError> {
        program::make_working_directory(self.rootfs()?.root(), &self.plan.process.cwd)
    }

    fn open_terminal(&mut self) -> Result<(), LaunchError> {
        if matches!(self.stdio, Stdio::Streams(_)) {
            return Ok(());
        }
        let rootfs = self.rootfs()?;
        let terminal = rootfs.open_terminal()?;
        terminal.resize(self.plan.process.terminal.unwrap_or_default())?;
        rootfs.bind_console(&terminal)?;
        self.channel.send(&Report::Terminal, &[terminal.master.as_fd()]).at("hand over", "the terminal")?;
        program::use_terminal(&terminal.slave)?;
        self.terminal = Some(terminal);
        Ok(())
    }

    fn configure_links(&mut self) -> Result<(), LaunchError> {
        if self.links.after_mounts() {
            self.channel.send(&Report::Mounted, &[]).at("report to", "the parent")?;
        }
        let message = match self.channel.receive().at("wait for", "the network")? {
            Some(Order::Plugged(message)) => message,
            _ => return Err(LaunchError::Vanished),
        };
        let sockets = self.links.inside(&message).at("configure", "the network")?;
        if sockets.is_empty() {
            return Ok(());
        }
        let fds: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        self.channel.send(&Report::Sockets, &fds).at("hand over", "the network's sockets")
    }

    fn name_itself(&mut self) -> Result<(), LaunchError> {
        if !matches!(self.plan.namespaces.uts, Whose::Own | Whose::At(_)) {
            return Ok(());
        }
        if let Some(name) = &self.plan.hostname {
            rustix::system::sethostname(name.as_bytes()).at("set the hostname", name)?;
        }
        if let Some(name) = &self.plan.domainname {
            rustix::system::setdomainname(name.as_bytes()).at("set the domain name", name)?;
        }
        Ok(())
    }

    fn write_sysctls(&mut self) -> Result<(), LaunchError> {
        self.rootfs()?.write_sysctls(&self.plan.sysctls)
    }

    fn hide_paths(&mut self) -> Result<(), LaunchError> {
        let plan = &self.plan.rootfs;
        let Some(rootfs) = &mut self.rootfs else { return OUT_OF_ORDER };
        rootfs.mask(plan)?;
        rootfs.protect(plan)
    }

    /// Leaves the host for good and executes the program, or becomes an init that has it as its child.
    fn become_program(&mut self) -> Result<i32, LaunchError> {
        let process = &self.plan.process;
        let root = match self.rootfs.take() {
            Some(rootfs) => rootfs.pivot(&self.plan.rootfs)?,
            None => return Err(LaunchError::Vanished),
        };
        let (program, identity) = Program::prepare(process, root.as_fd())?;
        if !self.plan.init {
            program::start_session(self.terminal.is_some())?;
        }
        program::settle(process, &identity, root.as_fd(), &mut |text| self.channel.warn(text))?;
        self.await_start(&program)?;
        self.links.before_program().at("prepare", "the program")?;
        if self.plan.init { self.become_init(&program, &identity) } else { self.execute(&program, &identity) }
    }

    /// Stands at the gate until somebody comes through it, and goes on talking with whoever that is.
    fn await_start(&mut self, program: &Program) -> Result<(), LaunchError> {
        let Some(gate) = self.gate else { return Ok(()) };
        program.check()?;
        self.channel.send(&Report::Waiting, &[]).at("report to", "the parent")?;
        self.channel = ChildEnd::accept(gate).at("wait for", "the start")?;
        Ok(())
    }

    fn execute(&self, program: &Program, identity: &Identity) -> Result<i32, LaunchError> {
        program::announce(&self.plan.process, &self.channel)?;
        privileges::limit(&self.plan.process.limits)?;
        privileges::filter(&self.plan.process, identity, &self.channel)?;
        Err(program.execute())
    }

    fn become_init(&self, program: &Program, identity: &Identity) -> Result<i32, LaunchError> {
        // Where process 1 is somebody else, orphans must still come to us.
        let own = rustix::process::getpid();
        rustix::process::set_child_subreaper(Some(own)).at("become", "the reaper")?;
        sys::process::block_signals().at("block", "the signals")?;
        let child =
            sys::process::fork_process(|| self.be_child(program, identity)).at("fork", "the program")?;
        // The watch closes descriptors that are still owned here, so there is no way back.
        sys::process::exit_now(reaper::watch(child))
    }

    fn be_child(&self, program: &Program, identity: &Identity) -> i32 {
        let ended = program::start_session(self.terminal.is_some())
            .and_then(|()| sys::process::reset_signals().at("reset", "the signals"))
            .and_then(|()| self.execute(program, identity));
        ended.unwrap_or_else(|failure| self.channel.give_up(failure))
    }

    fn rootfs(&self) -> Result<&Rootfs, LaunchError> {
        self.rootfs.as_ref().ok_or(LaunchError::Vanished)
    }
}

/// A step that ran before the one it needs: the list is wrong.
const OUT_OF_ORDER: Result<(), LaunchError> = Err(LaunchError::Vanished);
