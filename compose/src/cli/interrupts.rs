//! What tells a command to come to an end: Ctrl-C, and the SIGTERM of whoever manages it as a service.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::CliError;

/// The signals that ask for an end. Once they are listened to, none of them ends the program by itself.
pub(super) struct Interrupts {
    ctrl_c: Signal,
    terminate: Signal,
}

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
        tokio::select! {
            _ = self.ctrl_c.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
