//! What stands between this program and the `ssh` that it starts: this executable again, which sees to it that ssh
//! ends with whoever started it, and then becomes ssh.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal, setsid};

/// The name that asks for it; the arguments are the parent's process id, then ssh's.
const NAME: &str = "rdeploy-ssh";

/// What it says when there is no ssh to become.
pub(super) const MISSING: &str = "rdeploy-ssh: cannot start ssh: ";

/// A command for `ssh` that dies with the thread that spawns it.
pub(super) fn command(executable: &Path) -> Command {
    let mut command = Command::new(executable);
    command.arg0(NAME).arg(std::process::id().to_string());
    command
}

/// Becomes ssh when this process was started to.
#[expect(clippy::print_stderr, reason = "whoever started this reads there what ssh says, too")]
pub(super) fn enter_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os();
    if arguments.next()? != NAME {
        return None;
    }
    let parent = arguments.next().and_then(|pid| pid.to_str()?.parse().ok()).and_then(Pid::from_raw);
    // Of its own session: Ctrl-C is for the program to act on, and ssh finds no terminal to ask on.
    let _ = setsid();
    let _ = set_parent_process_death_signal(Some(Signal::TERM));
    if getppid() != parent {
        return Some(ExitCode::FAILURE);
    }
    let error = Command::new("ssh").args(arguments).exec();
    eprintln!("{MISSING}{error}");
    Some(ExitCode::from(127))
}
