//! A container's files as an archive reads and writes them, whether the container runs or not.
//!
//! A path of a container means something inside of it alone. So it is looked up there: by a child process that joins
//! the mount namespace of the running container, or puts the one at rest together in a namespace of its own, with
//! the container's root as its only root. Nothing of the container is ever executed (CVE-2019-14271).

mod extract;
mod inside;

use std::ffi::OsStr;
use std::io::{BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::container::client;
use crate::container::protocol::Refusal;
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::layer::pack;
use crate::paths::Root;
use crate::sys::self_exec;

pub use extract::Owner;
pub use inside::enter_if_asked;

/// How many bytes of paths a child is told at once: the kernel takes 128 KiB as one argument (execve(2)).
const LONGEST_TASK: usize = 64 << 10;

/// The files of one container.
#[derive(Debug)]
pub struct Files<'a> {
    root: &'a Root,
    id: &'a ContainerId,
    running: Option<i32>,
    overrules: bool,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathStat {
    /// What kind of file.
    pub kind: PathKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Bytes.
    pub size: u64,
}

/// What kind of file is at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link to this path.
    Link(PathBuf),
    /// A device, pipe or socket.
    Special,
}

/// What the child is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Task {
    /// Say what is at a path; `None` in the answer is nothing.
    Stat(PathBuf),
    /// Write the tar of a file or tree to standard output, under this name.
    Read { path: PathBuf, shown: Vec<u8> },
    /// Unpack the tar on standard input into a directory.
    Write { directory: PathBuf, owner: Owner },
    /// Take away what is at these paths, a directory with all that is in it.
    Remove(Vec<PathBuf>),
    /// Write the tar of the root file system, without what is mounted into it, to standard output.
    Export,
}

/// What the child says before it ends.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Stat(Option<PathStat>),
    Done,
    Refused(Refusal),
}

/// How a child knows that it is one.
const ARGV0: &str = "rengine-files";

/// Bytes of an archive read at a time.
const PIECE: usize = 1 << 18;

// === impl Files ===

impl<'a> Files<'a> {
    /// The files of a container whose process 1 this is, or which is at rest. One at rest must stay so: its monitor's
    /// lock is held by the caller, because a writable layer has one user at a time.
    pub fn new(root: &'a Root, id: &'a ContainerId, running: Option<i32>) -> Self {
        Self { root, id, running, overrules: false }
    }

    /// The same, written to also where the root can only be read by what runs in it. Mounts stay what they are.
    #[must_use]
    pub fn overruling(self) -> Self {
        Self { overrules: true, ..self }
    }

    /// What is at a path; a symbolic link there is not followed. `None` when there is nothing.
    ///
    /// # Errors
    /// When the way there cannot be walked.
    pub fn stat(&self, path: &Path) -> Result<Option<PathStat>> {
        let child = self.spawn(&Task::Stat(path.to_owned()), Stdio::null(), Stdio::null())?;
        match self.answer(child)? {
            Answer::Stat(stat) => Ok(stat),
            _ => Err(self.failed("look into", "its answer makes no sense")),
        }
    }

    /// Takes away what is at some paths, a directory with all that is in it. Nothing there is success.
    ///
    /// # Errors
    /// When it cannot be taken away, as from a file system that can only be read.
    pub fn remove(&self, paths: &[PathBuf]) -> Result<()> {
        let mut left = paths;
        while !left.is_empty() {
            let mut room = LONGEST_TASK;
            let fits = |path: &&PathBuf| {
                let needed = path.as_os_str().len() + 8;
                let fits = needed <= room;
                room = room.saturating_sub(needed);
                fits
            };
            let count = left.iter().take_while(fits).count().max(1);
            let (now, later) = left.split_at(count);
            let child = self.spawn(&Task::Remove(now.to_vec()), Stdio::null(), Stdio::null())?;
            self.answer(child)?;
            left = later;
        }
        Ok(())
    }

    /// Hands out the tar of what is at a path, whose top is called `shown` in it.
    ///
    /// # Errors
    /// When there is nothing, or it cannot be read.
    pub fn read(
        &self,
        path: &Path,
        shown: &OsStr,
        take: &mut dyn FnMut(&mut dyn Read) -> Result<()>,
    ) -> Result<()> {
        self.pour(&Task::Read { path: path.to_owned(), shown: shown.as_bytes().to_vec() }, take)
    }

    /// Hands out the tar of the root file system, without what is mounted into it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn export(&self, take: &mut dyn FnMut(&mut dyn Read) -> Result<()>) -> Result<()> {
        self.pour(&Task::Export, take)
    }

    /// Unpacks a tar into a directory of the container.
    ///
    /// # Errors
    /// When the directory is none, or an entry cannot be made.
    pub fn write(
        &self,
        directory: &Path,
        owner: Owner,
        give: &mut dyn FnMut(&mut dyn Write) -> Result<()>,
    ) -> Result<()> {
        let task = Task::Write { directory: directory.to_owned(), owner };
        let mut child = self.spawn(&task, Stdio::piped(), Stdio::null())?;
        let given = match child.stdin.take() {
            Some(mut stdin) => give(&mut stdin),
            None => Ok(()),
        };
        // A child that refused has the better reason than a pipe that broke.
        self.answer(child)?;
        given
    }

    fn pour(&self, task: &Task, take: &mut dyn FnMut(&mut dyn Read) -> Result<()>) -> Result<()> {
        let mut child = self.spawn(task, Stdio::null(), Stdio::piped())?;
        let taken = match child.stdout.take() {
            Some(mut stdout) => take(&mut stdout),
            None => Ok(()),
        };
        match (self.answer(child), taken) {
            // The child was cut off by us.
            (Err(_), Err(error)) if !is_truncation(&error) => Err(error),
            (Err(error), _) => Err(error),
            (Ok(_), taken) => taken,
        }
    }

    fn spawn(&self, task: &Task, stdin: Stdio, stdout: Stdio) -> Result<Child> {
        let failed = |error: std::io::Error| self.failed("start a process for the files of", error);
        let task = serde_json::to_string(&(task, self.running, self.overrules))
            .map_err(|error| failed(error.into()))?;
        let program = self_exec::read_only_program(client::program()).map_err(failed)?;
        let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
        command.arg0(ARGV0).arg(self.root.state()).arg(self.id.as_str()).arg(task);
        command.env_clear().current_dir("/").stdin(stdin).stdout(stdout).stderr(Stdio::piped());
        command.spawn().map_err(failed)
    }

    fn answer(&self, mut child: Child) -> Result<Answer> {
        let mut text = String::new();
        let read = child.stderr.take().map_or(Ok(0), |mut stderr| stderr.read_to_string(&mut text));
        let ended = child.wait();
        read.and(ended.map(|_| 0)).map_err(|error| self.failed("hear of the files of", error))?;
        match serde_json::from_str(text.trim()) {
            Ok(Answer::Refused(refusal)) => Err(refusal.into()),
            Ok(answer) => Ok(answer),
            Err(_) => Err(self.failed("read the files of", format!("the process ended early: {text}"))),
        }
    }

    fn failed(&self, step: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::failed(format!("{step} container {}", self.id.short()), source)
    }
}

/// Whether an archive ended before its end, which its writer can explain better.
fn is_truncation(error: &Error) -> bool {
    use crate::layer::members::MemberError;
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<MemberError>())
        .is_some_and(|error| matches!(error, MemberError::Truncated))
}

/// Writes the tar of a file or tree of the host: what has this name in a directory, under another name.
///
/// # Errors
/// When it cannot be read.
pub fn pack_host(parent: &OwnedFd, name: &OsStr, shown: &OsStr, writer: &mut dyn Write) -> Result<u64> {
    let packed = pack::pack_tree(parent, name.as_bytes(), shown.as_bytes(), writer);
    packed
        .map(|contents| contents.size)
        .map_err(|error| Error::failed(format!("read {}", name.to_string_lossy()), error))
}

/// Unpacks a container's tar into a directory of the host, following nothing.
///
/// # Errors
/// When an entry cannot be made.
pub fn extract_host(directory: OwnedFd, owner: Owner, reader: &mut dyn Read) -> Result<u64> {
    extract::extract(
        directory,
        BufReader::with_capacity(PIECE, reader),
        extract::Rules { owner, follow: false },
    )
}
