//! Why a build failed.

use std::path::PathBuf;

use super::fault::Fault;
use crate::error::{Error, Kind};

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A file that the build starts with cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The ignore file cannot be understood.
    #[error("{}: {message}", path.display())]
    Ignore {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// There is no such stage.
    #[error("target stage {target:?} could not be found")]
    Target {
        /// What was asked for.
        target: String,
        /// The stages there are.
        known: Vec<String>,
    },
    /// Something in the Dockerfile is wrong.
    #[error("{place}: {message}")]
    Dockerfile {
        /// `Dockerfile:3:1`.
        place: String,
        /// What.
        message: String,
    },
    /// A command failed.
    #[error("{place}: process {command:?} did not complete successfully: exit code: {code}")]
    Command {
        /// `Dockerfile:3`.
        place: String,
        /// The command on one line.
        command: String,
        /// Its exit code.
        code: i32,
        /// What may be behind it.
        hint: Option<String>,
    },
    /// An instruction failed.
    #[error("{place}: {step}")]
    Step {
        /// `Dockerfile:3`.
        place: String,
        /// What was done.
        step: String,
        /// Why it failed.
        source: Error,
    },
    /// A file of the engine's own cannot be written.
    #[error("{step}")]
    Store {
        /// What was done.
        step: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// A failure on its way out of an instruction, before it is known by the file's name.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The instruction is wrong.
    Fault(Fault),
    /// The command failed.
    Command {
        /// The command on one line.
        command: String,
        /// Its exit code.
        code: i32,
        /// What may be behind it.
        hint: Option<String>,
    },
    /// What the instruction asked for failed.
    Step(Error),
    /// Something else has failed.
    CalledOff,
}

// === impl BuildError ===

impl From<BuildError> for Error {
    fn from(error: BuildError) -> Self {
        let kind = match &error {
            BuildError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Kind::NotFound
            }
            BuildError::Target { .. } | BuildError::Dockerfile { .. } | BuildError::Ignore { .. } => {
                Kind::Invalid
            }
            BuildError::Step { source, .. } => source.kind(),
            _ => Kind::Failed,
        };
        let hint = match &error {
            BuildError::Target { known, .. } if !known.is_empty() => {
                Some(format!("the stages are {}", known.join(", ")))
            }
            BuildError::Step { source, .. } => source.hint().map(str::to_owned),
            BuildError::Command { hint, .. } => hint.clone(),
            BuildError::Dockerfile { message, .. } if message.contains("unknown instruction") => {
                let is_guessed = message.contains("did you mean");
                let hint = "an instruction that goes on in the next line needs a \\ at the end of this one";
                (!is_guessed).then(|| hint.to_owned())
            }
            BuildError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Some(
                "a Dockerfile that is elsewhere is named by -f, or `dockerfile:` in a compose file"
                    .to_owned(),
            ),
            _ => None,
        };
        let mut wrapped = Error::new(kind, error.to_string());
        if let Some(hint) = hint {
            wrapped = wrapped.with_hint(hint);
        }
        match error {
            BuildError::Read { source, .. } | BuildError::Store { source, .. } => wrapped.with_source(source),
            BuildError::Step { source, .. } => wrapped.with_source(source),
            _ => wrapped,
        }
    }
}

// === impl Trouble ===

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Step(error)
    }
}

impl From<crate::layer::LayerError> for Trouble {
    fn from(error: crate::layer::LayerError) -> Self {
        Self::Step(error.into())
    }
}

impl Trouble {
    /// A step that the system refused.
    pub(crate) fn io(step: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let step = step.into();
        move |error| Self::Step(Error::failed(step, error))
    }

    /// All of it on one line.
    pub(crate) fn summary(&self) -> String {
        match self {
            Self::Fault(fault) => fault.message.clone(),
            Self::Command { command, code, .. } => {
                format!("process {command:?} did not complete successfully: exit code: {code}")
            }
            Self::Step(error) => crate::error::chain(error),
            Self::CalledOff => "called off".to_owned(),
        }
    }

    /// What is wrong with the request, in one sentence.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Step(Error::invalid(message))
    }
}
