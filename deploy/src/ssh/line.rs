//! A connection as commands share it: as many at once as a server allows, and up as long as one of them runs.

use std::io;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::failure::SshError;
use super::master::{Master, ready};

/// The connection, shared by the session and by the commands that still run.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) remote: Arc<openssh::Session>,
    pub(super) master: Master,
    slots: Slots,
}

/// How many commands run.
#[derive(Debug, Default)]
struct Slots {
    taken: Mutex<usize>,
    freed: Condvar,
}

/// The right to run one command. It keeps the connection up.
#[derive(Debug)]
pub(super) struct Slot(Arc<Line>);

/// A little less than sshd's MaxSessions, which is 10.
const AT_ONCE: usize = 8;

/// How long a master may take to end after its commands have said that they did.
const ABOUT_TO_END: Duration = Duration::from_millis(500);

// === impl Line ===

impl Line {
    /// A connection over which nothing runs yet.
    pub(super) fn over(master: Master) -> Arc<Self> {
        let remote = openssh::Session::resume_mux(master.control().into(), None);
        Arc::new(Self { remote: Arc::new(remote), master, slots: Slots::default() })
    }

    /// Whether the connection is down, or goes down now: what its commands say comes a moment before its end shows.
    pub(super) fn goes_down(&self) -> bool {
        ready(self.master.process(), ABOUT_TO_END)
    }

    /// Why a command did not start or end.
    pub(super) fn failure(&self, at: &str, error: &openssh::Error) -> SshError {
        let at = at.to_owned();
        let text = full(error);
        // A server that refuses one more command is there; nothing of it is waited for.
        let within = if text.contains("refused") { Duration::ZERO } else { ABOUT_TO_END };
        if ready(self.master.process(), within) {
            return SshError::Lost { at, said: self.master.last_words() };
        }
        if text.contains("refused") {
            SshError::SessionRefused { at }
        } else {
            SshError::Lost { at, said: text }
        }
    }
}

/// An error with all its causes.
fn full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}

// === impl Slot ===

impl Slot {
    /// Waits until one more command may run.
    pub(super) fn take(line: &Arc<Line>) -> Self {
        let slots = &line.slots;
        let taken = slots.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken =
            slots.freed.wait_while(taken, |taken| *taken >= AT_ONCE).unwrap_or_else(PoisonError::into_inner);
        *taken += 1;
        Self(line.clone())
    }

    /// The connection.
    pub(super) fn line(&self) -> &Line {
        &self.0
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *self.0.slots.taken.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.slots.freed.notify_one();
    }
}

/// What the ssh client runs on: one small runtime for all sessions of the process.
pub(crate) fn runtime() -> io::Result<&'static tokio::runtime::Runtime> {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    if RUNTIME.get().is_none() {
        let made = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        // Another thread may have been quicker.
        let _ = RUNTIME.set(made);
    }
    RUNTIME.get().ok_or_else(|| io::ErrorKind::NotFound.into())
}
