//! `rcompose`: the Compose Specification's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A monitor is this same executable; it must be found out before anything else of the program wakes up.
    engine::enter_monitor_if_asked().unwrap_or_else(|| compose::cli::main(std::env::args_os().collect()))
}
