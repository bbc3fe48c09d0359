//! The standard streams of a container, seen from outside: which one a piece of output came from, and the pipes
//! that carry them.

use serde::{Deserialize, Serialize};

pub(crate) use crate::sys::pipe::{Pipe, never_block};

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
