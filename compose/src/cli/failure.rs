//! Failures as the command line reports them.

use engine::error::{self, Error, Kind};
use serde_json::json;

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::output;
use crate::plan::PlanError;
use crate::runtime::Failure;

/// The exit code after Ctrl-C, as a shell has it.
pub(super) const INTERRUPTED: u8 = 130;

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
    /// As text, or as a JSON object a line.
    pub(super) fn print(&self, as_json: bool) {
        if as_json {
            self.diagnostics().iter().for_each(|one| output::note(&json!(one).to_string()));
            return;
        }
        match self {
            Self::Load(diagnostics) => output::note(diagnostics.to_string().trim_end()),
            Self::Engine(error) | Self::Program(error) => output::failure(&error::chain(error), error.hint()),
            Self::Plan(error) => output::failure(&error.to_string(), error.hint().as_deref()),
            Self::Steps(failures) => {
                for failure in failures {
                    output::failure(&failure.to_string(), failure.error.hint());
                }
            }
            Self::Invalid(text) => output::failure(text, None),
            Self::Interrupted => output::failure("interrupted", None),
        }
    }

    /// What went wrong, thing by thing.
    fn diagnostics(&self) -> Vec<Diagnostic> {
        let said = |text: String, help: Option<&str>| Diagnostic {
            help: help.map(str::to_owned),
            ..Diagnostic::error(text)
        };
        match self {
            Self::Load(diagnostics) => diagnostics.0.clone(),
            Self::Engine(error) | Self::Program(error) => vec![said(error::chain(error), error.hint())],
            Self::Plan(error) => vec![said(error.to_string(), error.hint().as_deref())],
            Self::Steps(failures) => {
                failures.iter().map(|failure| said(failure.to_string(), failure.error.hint())).collect()
            }
            Self::Invalid(text) => vec![said(text.clone(), None)],
            Self::Interrupted => vec![said("interrupted".to_owned(), None)],
        }
    }

    /// 130 after Ctrl-C, as a shell has it; docker's codes where a program was to run; else 1.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Interrupted => INTERRUPTED,
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
