//! Ctrl-C, and the SIGTERM of whoever manages this as a service, while a release is rolled out. The hosts see to themselves
//! when their client is gone; whoever ends it is told so.

use std::io::Write as _;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

use engine::error::{Error, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::ssh;

/// As long as this lives, an interruption says what becomes of the hosts.
#[derive(Debug)]
pub struct Watched(());

/// How far a deployment is: signals are the process's, and so is this.
static STAGE: AtomicU8 = AtomicU8::new(IDLE);

const IDLE: u8 = 0;
const BEFORE: u8 = 1;
const ROLLING_OUT: u8 = 2;

/// How a shell counts a program that a signal has ended.
const BY_SIGNAL: i32 = 128;

/// Begins to watch: no host has been changed so far.
///
/// # Errors
/// When the system does not let signals be listened to.
pub fn watch() -> Result<Watched> {
    static LISTENING: OnceLock<()> = OnceLock::new();
    if LISTENING.get().is_none() {
        let failed = |error| Error::failed("listen for signals that interrupt", error);
        let runtime = ssh::runtime().map_err(failed)?;
        let _inside = runtime.enter();
        let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
        let signals = (signal(interrupt).map_err(failed)?, signal(terminate).map_err(failed)?);
        runtime.spawn(end_when_told(signals.0, signals.1));
        // Nobody else listens in this process.
        let _ = LISTENING.set(());
    }
    STAGE.store(BEFORE, Ordering::SeqCst);
    Ok(Watched(()))
}

/// From now on hosts are changed.
pub(crate) fn rolls_out() {
    STAGE.store(ROLLING_OUT, Ordering::SeqCst);
}

impl Drop for Watched {
    fn drop(&mut self) {
        STAGE.store(IDLE, Ordering::SeqCst);
    }
}

async fn end_when_told(mut interrupt: Signal, mut terminate: Signal) {
    let kind = tokio::select! {
        _ = interrupt.recv() => SignalKind::interrupt(),
        _ = terminate.recv() => SignalKind::terminate(),
    };
    let said = match STAGE.load(Ordering::SeqCst) {
        BEFORE => "interrupted: no host was changed\n",
        ROLLING_OUT => {
            "interrupted: within seconds the hosts are of one version by themselves, of the one before unless all of them had changed \
             over; `rdeploy history` says which\n"
        }
        _ => "",
    };
    // Whoever read it may be gone, too.
    let _ = std::io::stderr().lock().write_all(said.as_bytes());
    std::process::exit(BY_SIGNAL + kind.as_raw_value());
}
