//! What tells a command to come to an end: Ctrl-C, and the SIGTERM of whoever manages it as a service.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::CliError;

/// The signals that ask for an end. Once they are listened to, none of them ends the program by itself.
pub(super) struct Interrupts {
    ctrl_c: Signal,
    terminate: Signal,
}

/// Signals so close to each other are one: `timeout`, a shell that ends or a supervisor sends the same one to a program
/// and to its group, and nobody presses a key twice in that time.
const TWICE: Duration = Duration::from_millis(100);

/// When the last one came: signals are the process's, whoever listens at the moment.
static LAST: Mutex<Option<Instant>> = Mutex::new(None);

// === impl Interrupts ===

impl Interrupts {
    /// Listens, inside of an executor.
    pub(super) fn listen() -> Result<Self, CliError> {
        let to = |kind| {
            signal(kind)
                .map_err(|error| CliError::Invalid(format!("listen for signals that interrupt: {error}")))
        };
        Ok(Self { ctrl_c: to(SignalKind::interrupt())?, terminate: to(SignalKind::terminate())? })
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.ctrl_c.recv() => {}
                _ = self.terminate.recv() => {}
            }
            let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
            if is_another(&mut last, Instant::now()) {
                return;
            }
        }
    }
}

/// Whether a signal that comes now is another one than the last.
fn is_another(last: &mut Option<Instant>, now: Instant) -> bool {
    let before = last.replace(now);
    before.is_none_or(|before| now.duration_since(before) > TWICE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_at_once_is_one_and_what_comes_later_another() {
        let (mut last, first) = (None, Instant::now());
        let after = |millis| first + Duration::from_millis(millis);
        let told = [0, 1, 90, 300, 301].map(|millis| is_another(&mut last, after(millis)));
        assert_eq!(told, [true, false, false, true, false]);
    }
}
