//! Which namespaces a process gets new, and joining those of others.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::process::{Pid, PidfdFlags};
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space};

use crate::container::failure::{AtStep, LaunchError};
use crate::container::plan::{Namespaces, Whose};
use crate::sys::process::NewNamespaces;

/// Processes whose namespaces are joined, held so that their numbers cannot pass to others meanwhile, and namespaces
/// that are joined by a file.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    held: Vec<(Whose, OwnedFd)>,
}

/// The PID namespace that this process's next children are born into; the former one returns on drop.
#[derive(Debug)]
pub(crate) struct Births {
    own: Option<OwnedFd>,
}

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
    /// Children are born where this one is.
    pub(crate) fn here() -> Self {
        Self { own: None }
    }

    /// Children are born into the PID namespace of this process, or into this one, until the value is dropped.
    pub(crate) fn into(process: BorrowedFd<'_>) -> Result<Self, LaunchError> {
        let own = open(Path::new("/proc/self/ns/pid")).at("open", "/proc/self/ns/pid")?;
        rustix::thread::move_into_thread_name_spaces(process, ThreadNameSpaceType::PROCESS_ID)
            .at("join the namespace", "pid")?;
        Ok(Self { own: Some(own) })
    }
}

impl Drop for Births {
    fn drop(&mut self) {
        if let Some(own) = &self.own {
            // The namespace one is in can always be chosen again for one's children.
            let _ = move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::ProcessID));
        }
    }
}

fn open(path: &Path) -> rustix::io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}
