//! How a launch fails: a step, its object and the kernel's reason, in a form that travels between processes.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

use crate::error::{self, Error, Kind};

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
    #[error("{}", reason(*.0))]
    System(i32),
    /// A sentence.
    #[error("{0}")]
    Other(String),
}

/// Names the step and the object of a failure.
pub(crate) trait AtStep<T> {
    /// The same result, whose failure says what was being done to what.
    fn at(self, step: &str, object: impl fmt::Display) -> Result<T, LaunchError>;
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

// === impl AtStep, Cause ===

impl<T, E: Into<Cause>> AtStep<T> for Result<T, E> {
    fn at(self, step: &str, object: impl fmt::Display) -> Result<T, LaunchError> {
        self.map_err(|cause| LaunchError::Step {
            step: step.to_owned(),
            object: object.to_string(),
            cause: cause.into(),
        })
    }
}

impl From<rustix::io::Errno> for Cause {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::System(errno.raw_os_error())
    }
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        error.raw_os_error().map_or_else(|| Self::Other(error.to_string()), Self::System)
    }
}

impl From<Error> for Cause {
    fn from(error: Error) -> Self {
        Self::Other(error::chain(&error))
    }
}

impl From<&str> for Cause {
    fn from(text: &str) -> Self {
        Self::Other(text.to_owned())
    }
}

/// The C library's sentence for an error number, in lower case and without the number.
pub(crate) fn reason(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    let bare = text.split(" (os error").next().unwrap_or_default();
    bare.to_lowercase()
}
