//! Which namespaces a process gets new, and joining those of others.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::process::{Pid, PidfdFlags};
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space};

use crate::container::failure::{AtStep, LaunchError};
use crate::container::plan::{Namespaces, Whose};
use crate::sys::{self, process::NewNamespaces};

/// Processes whose namespaces are joined, held so that their numbers cannot pass to others meanwhile, and namespaces
/// that are joined by a file.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    held: Vec<(Whose, OwnedFd)>,
}

/// The namespaces that this process's next children are born into, where they are not its own; its own return on drop.
#[derive(Debug, Default)]
pub(crate) struct Births {
    own_pid: Option<OwnedFd>,
    own_network: Option<OwnedFd>,
}

const PID: &str = "/proc/self/ns/pid";
const NETWORK: &str = "/proc/self/ns/net";

// === impl Namespaces ===

impl Namespaces {
    /// What the clone makes new. The cgroup namespace is not among it: it is made by the child, once it is in its
    /// cgroup, which is the namespace's root from then on.
    pub(crate) fn new_ones(&self) -> NewNamespaces {
        NewNamespaces {
            mount: true,
            pid: self.pid == Whose::Own,
            net: self.net == Whose::Own,
            ipc: self.ipc == Whose::Own,
            uts: self.uts == Whose::Own,
            user: false,
        }
    }

    /// Takes hold of every process whose namespaces are joined.
    pub(crate) fn hosts(&self) -> Result<Hosts, LaunchError> {
        let mut hosts = Hosts::default();
        for whose in [&self.pid, &self.net, &self.ipc, &self.uts, &self.cgroup] {
            let descriptor = match whose {
                _ if hosts.of(whose).is_some() => continue,
                Whose::Own | Whose::Host => continue,
                Whose::Of(pid) => hold(*pid)?,
                Whose::At(path) => open(path).at("open the namespace", path.display())?,
            };
            hosts.held.push((whose.clone(), descriptor));
        }
        Ok(hosts)
    }

    /// Joins what is somebody else's, but for the PID namespace, which one is born into.
    pub(crate) fn join(&self, hosts: &Hosts) -> Result<(), LaunchError> {
        for (whose, kind, name) in [
            (&self.net, ThreadNameSpaceType::NETWORK, "network"),
            (&self.ipc, ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION, "ipc"),
            (&self.uts, ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME, "uts"),
        ] {
            if let Some(pidfd) = hosts.of(whose) {
                rustix::thread::move_into_thread_name_spaces(pidfd, kind).at("join the namespace", name)?;
            }
        }
        Ok(())
    }
}

// === impl Hosts ===

impl Hosts {
    /// The process whose namespace it is, or the namespace itself: setns(2) takes either.
    pub(crate) fn of(&self, whose: &Whose) -> Option<BorrowedFd<'_>> {
        self.held.iter().find(|(held, _)| held == whose).map(|(_, fd)| fd.as_fd())
    }
}

/// A descriptor of this process, which must be alive.
pub(crate) fn hold(pid: i32) -> Result<OwnedFd, LaunchError> {
    let pid = Pid::from_raw(pid).ok_or_else(|| LaunchError::Invalid(format!("no process {pid}")))?;
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).at("find process", pid.as_raw_nonzero())
}

// === impl Births ===

impl Births {
    /// Children are born into the PID namespace of this process, or into this one, until the value is dropped.
    pub(crate) fn into_pid(mut self, process: BorrowedFd<'_>) -> Result<Self, LaunchError> {
        let own = open_own(PID)?;
        rustix::thread::move_into_thread_name_spaces(process, ThreadNameSpaceType::PROCESS_ID)
            .at("join the namespace", "pid")?;
        self.own_pid = Some(own);
        Ok(self)
    }

    /// Children are born into this network namespace, in which this process is, too, until the value is dropped.
    pub(crate) fn into_network(mut self, namespace: BorrowedFd<'_>) -> Result<Self, LaunchError> {
        let own = open_own(NETWORK)?;
        move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))
            .at("join the namespace", "network")?;
        self.own_network = Some(own);
        Ok(self)
    }
}

impl Drop for Births {
    fn drop(&mut self) {
        let owned =
            [(&self.own_pid, LinkNameSpaceType::ProcessID), (&self.own_network, LinkNameSpaceType::Network)];
        for (own, kind) in owned {
            if let Some(own) = own {
                // The namespace that one has been in can always be chosen again.
                let _ = move_into_link_name_space(own.as_fd(), Some(kind));
            }
        }
    }
}

/// A network namespace that nobody is in, with `lo` up; this process stays in its own. The kernel takes longer for it
/// than for all else of a clone, so it is worth making while there is nothing else to do.
pub(crate) fn new_network() -> Result<OwnedFd, LaunchError> {
    let births = Births { own_network: Some(open_own(NETWORK)?), own_pid: None };
    sys::process::new_network_namespace().at("make", "a network namespace")?;
    let made = open_own(NETWORK)?;
    // Whoever plugs it does so, too, and says why it cannot be.
    let _ = sys::loopback::bring_up();
    drop(births);
    Ok(made)
}

fn open_own(path: &'static str) -> Result<OwnedFd, LaunchError> {
    open(Path::new(path)).at("open", path)
}

fn open(path: &Path) -> rustix::io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}
