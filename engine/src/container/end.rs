//! The end of a process that is held by descriptor.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::process::{WaitId, WaitIdOptions};

use crate::container::ready::Ready;

/// Waits for the end of a process; whether it came in time. It need not be a child.
///
/// # Errors
/// When the process cannot be waited for.
pub(crate) fn ended_within(process: BorrowedFd<'_>, limit: Duration) -> io::Result<bool> {
    // A time beyond the clock's is none.
    let deadline = Instant::now().checked_add(limit);
    loop {
        let mut ready = Ready::new();
        ready.add((), process, PollFlags::IN);
        if !ready.wait(deadline)?.is_empty() {
            return Ok(true);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(false);
        }
    }
}

/// The exit code of a child that has ended or is about to; 128 and the signal when one ended it.
pub(crate) fn reap(process: BorrowedFd<'_>) -> i32 {
    loop {
        match rustix::process::waitid(WaitId::PidFd(process), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                let signal = status.terminating_signal().map(|signal| 128 + signal);
                return status.exit_status().or(signal).unwrap_or(255);
            }
            Err(rustix::io::Errno::INTR) => {}
            // Not our child any more: there is no code to be had.
            Ok(None) | Err(_) => return 255,
        }
    }
}
