//! Failures as the command line reports them.

use engine::error::{self, Error, Kind};

use crate::diagnostic::Diagnostics;
use crate::output;
use crate::plan::PlanError;
use crate::runtime::Failure;

/// Why a command failed.
#[derive(Debug)]
pub(super) enum CliError {
    /// The files make no sense.
    Load(Diagnostics),
    /// The engine refused.
    Engine(Error),
    /// No plan can be made.
    Plan(PlanError),
    /// Steps of a plan failed.
    Steps(Vec<Failure>),
    /// The request makes no sense.
    Invalid(String),
    /// The user pressed Ctrl-C.
    Interrupted,
    /// A program was to run and the engine failed.
    Program(Error),
}

// === impl CliError ===

impl CliError {
    pub(super) fn print(&self) {
        match self {
            Self::Load(diagnostics) => output::note(diagnostics.to_string().trim_end()),
            Self::Engine(error) | Self::Program(error) => output::failure(&error::chain(error), error.hint()),
            Self::Plan(error) => output::failure(&error.to_string(), None),
            Self::Steps(failures) => {
                for failure in failures {
                    output::failure(&failure.to_string(), failure.error.hint());
                }
            }
            Self::Invalid(text) => output::failure(text, None),
            Self::Interrupted => output::failure("interrupted", None),
        }
    }

    /// 130 after Ctrl-C, as a shell has it; docker's codes where a program was to run; else 1.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Interrupted => 130,
            Self::Program(error) if error.kind() == Kind::CommandNotFound => 127,
            Self::Program(error) if error.kind() == Kind::NotExecutable => 126,
            _ => 1,
        }
    }
}

impl From<Diagnostics> for CliError {
    fn from(diagnostics: Diagnostics) -> Self {
        Self::Load(diagnostics)
    }
}

impl From<Error> for CliError {
    fn from(error: Error) -> Self {
        Self::Engine(error)
    }
}

impl From<PlanError> for CliError {
    fn from(error: PlanError) -> Self {
        Self::Plan(error)
    }
}
