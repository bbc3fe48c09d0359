//! The standard streams of a container, seen from outside: which one a piece of output came from, and the pipes
//! that carry them.

use std::io;
use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, pipe_with};
use serde::{Deserialize, Serialize};

/// Which of its two streams a program wrote to. A program with a terminal has only the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Which standard streams somebody is interested in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

/// A pipe by its two ends.
#[derive(Debug)]
pub(crate) struct Pipe {
    pub(crate) read: OwnedFd,
    pub(crate) write: OwnedFd,
}

// === impl Stream ===

impl Stream {
    /// The word the log files use.
    pub fn word(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

// === impl Streams ===

impl Streams {
    /// Standard output and error.
    pub const OUTPUT: Self = Self { stdin: false, stdout: true, stderr: true };

    /// Whether output of this stream is wanted.
    pub fn wants(self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        }
    }
}

// === impl Pipe ===

impl Pipe {
    /// A new pipe that no executed program inherits.
    pub(crate) fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        Ok(Self { read, write })
    }
}

/// Makes reads and writes on this end return at once. The flag belongs to the open file: with a pipe the other
/// end keeps its own.
pub(crate) fn never_block(end: &OwnedFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(end)?;
    Ok(rustix::fs::fcntl_setfl(end, flags | rustix::fs::OFlags::NONBLOCK)?)
}
