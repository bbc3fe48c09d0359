//! The command line of `rdeploy`.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// From a commit to running on the servers
///
/// This release knows its version only; `rengine` and `rcompose` in the same file do the work on one machine.
#[derive(Debug, Parser)]
#[command(name = "rdeploy", version, arg_required_else_help = true, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the version
    Version,
}

/// Runs `rdeploy` with this command line, name first.
#[expect(clippy::print_stdout, reason = "the version is data")]
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    match Cli::try_parse_from(arguments) {
        Ok(Cli { command: Command::Version }) => {
            println!("rdeploy version {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            // Help is data and success; anything else is the user's mistake.
            let _ = error.print();
            if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS }
        }
    }
}
