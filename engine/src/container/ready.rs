//! Waiting for several descriptors at once. Whoever is not interesting now is not waited for at all: poll(2) reports
//! a hang-up of everything it is given.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// The descriptors of one wait, each with the caller's word for it.
#[derive(Debug)]
pub(crate) struct Ready<'a, T> {
    polled: Vec<PollFd<'a>>,
    tokens: Vec<T>,
}

// === impl Ready ===

impl<'a, T: Copy> Ready<'a, T> {
    pub(crate) fn new() -> Self {
        Self { polled: Vec::new(), tokens: Vec::new() }
    }

    /// Waits for this descriptor too, unless nothing of it is interesting.
    pub(crate) fn add(&mut self, token: T, descriptor: BorrowedFd<'a>, interest: PollFlags) {
        if !interest.is_empty() {
            self.polled.push(PollFd::from_borrowed_fd(descriptor, interest));
            self.tokens.push(token);
        }
    }

    /// Waits until something happens or the deadline has passed, and says what: readable and hung up both count
    /// as [`PollFlags::IN`] to those who asked for it. Empty after the deadline or a signal.
    pub(crate) fn wait(mut self, deadline: Option<Instant>) -> io::Result<Vec<(T, PollFlags)>> {
        let timeout = deadline.map(|deadline| timespec(deadline.saturating_duration_since(Instant::now())));
        match poll(&mut self.polled, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let happened =
            self.polled.iter().zip(&self.tokens).filter(|(polled, _)| !polled.revents().is_empty());
        Ok(happened.map(|(polled, token)| (*token, polled.revents())).collect())
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}
