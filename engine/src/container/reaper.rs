//! Process 1 of a container that asked for an init: takes in orphans, passes signals on, ends as its child ends.

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus};

use crate::sys;

/// Watches over the program until it ends; the exit code to end with.
pub(crate) fn watch(program: Pid) -> i32 {
    let_go_of_streams();
    loop {
        match sys::process::take_signal() {
            Ok(libc::SIGCHLD) => {
                if let Some(code) = reap(program) {
                    return code;
                }
            }
            // A program that has just ended needs no signal.
            Ok(number) => drop(sys::process::signal_process(program, number)),
            Err(error) => return error.raw_os_error().unwrap_or(1),
        }
    }
}

/// Whoever reads the program's output must see its end, not ours.
fn let_go_of_streams() {
    if let Ok(null) = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        // The first three are never closed, so that no later descriptor takes their place.
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
        std::mem::forget(null);
    }
    let _ = sys::process::close_from(3);
    let _ = rustix::thread::set_name(c"init");
    // Of the monitor's arguments, nobody inside needs to know.
    let _ = sys::title::set("init");
}

fn reap(program: Pid) -> Option<i32> {
    let mut code = None;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == program => code = Some(exit_code(status)),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(_) => return code,
        }
    }
}

fn exit_code(status: WaitStatus) -> i32 {
    let signalled = || status.terminating_signal().map(|signal| 128 + signal);
    status.exit_status().or_else(signalled).unwrap_or(1)
}
