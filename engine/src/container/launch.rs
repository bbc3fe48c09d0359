//! Starting process 1: one clone, everything mounted and configured by the child in namespaces of its own, then
//! the program. Nothing it mounts ever exists on the host. The caller must have one thread only.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::container::plan::LaunchPlan;
use crate::error::{Error, Kind};

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

    /// Moves the process into every hierarchy that the directory does not cover.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn place(&self, pid: Pid) -> Result<(), Error>;
}

/// How a network namespace gets its links, from both sides.
pub trait Links {
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
}

/// Why a process could not be launched: a step, its object and the kernel's reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum LaunchError {
    /// The kernel refused a step.
    #[error("{step} {object}")]
    Step {
        /// What was being done.
        step: String,
        /// To what.
        object: String,
        /// Why not.
        #[source]
        cause: Cause,
    },
    /// The plan asks for something that makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The program is not there: exit code 127.
    #[error("exec: {program:?}: {reason}")]
    NotFound {
        /// As it was asked for.
        program: String,
        /// What is missing.
        reason: String,
    },
    /// The program is there and cannot be executed: exit code 126.
    #[error("exec: {program:?}: {reason}")]
    NotExecutable {
        /// As it was asked for.
        program: String,
        /// Why not.
        reason: String,
    },
    /// The child ended without a word, as when it was killed.
    #[error("the process ended before its program was executed")]
    Vanished,
}

/// A reason that can travel between processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Cause {
    /// An error number of the kernel.
    #[error("{}", io::Error::from_raw_os_error(*.0))]
    System(i32),
    /// A sentence.
    #[error("{0}")]
    Other(String),
}

/// No cgroup of its own: the process stays in its parent's.
#[derive(Debug, Clone, Copy)]
pub struct Unenclosed;

/// A network namespace with nothing to configure: somebody else's, or the host's.
#[derive(Debug, Clone, Copy)]
pub struct NoLinks;

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
    let _ = (plan, enclosure, stdio, links);
    Err(LaunchError::Invalid("launching is not built yet".to_owned()))
}

// === impl LaunchError ===

impl LaunchError {
    /// The exit code docker gives: 127, 126, or 125.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::NotFound { .. } => 127,
            Self::NotExecutable { .. } => 126,
            _ => 125,
        }
    }
}

impl From<LaunchError> for Error {
    fn from(error: LaunchError) -> Self {
        let kind = match &error {
            LaunchError::NotFound { .. } => Kind::CommandNotFound,
            LaunchError::NotExecutable { .. } => Kind::NotExecutable,
            LaunchError::Invalid(_) => Kind::Invalid,
            LaunchError::Step { .. } | LaunchError::Vanished => Kind::Failed,
        };
        let wrapped = Self::new(kind, error.to_string());
        match error {
            LaunchError::Step { cause, .. } => wrapped.with_source(cause),
            _ => wrapped,
        }
    }
}

// === impl Enclosure, Links ===

impl Enclosure for Unenclosed {
    fn directory(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn place(&self, _pid: Pid) -> Result<(), Error> {
        Ok(())
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
