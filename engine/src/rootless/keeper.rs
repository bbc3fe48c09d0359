//! The keeper: a process that makes the namespaces of a user's engine and then only lives.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use super::{Word, tree};
use crate::sys::{self, detached};

/// How a process knows that it is one.
pub(super) const ARGV0: &str = "rengine-keeper";

/// Becomes a keeper when this process was executed as one.
pub(super) fn enter_if_asked() -> Option<ExitCode> {
    detached::enter(ARGV0, keep)
}

fn keep(args: &[OsString]) -> Option<()> {
    let [tells, orders, alive, directory] = args else { return None };
    let (mut tells, mut orders) =
        (File::from(detached::inherited(tells)?), File::from(detached::inherited(orders)?));
    // Held as long as this lives: others know by it.
    let _held = detached::inherited(alive)?;
    let mut tell = |word: &Word| {
        let line = serde_json::to_string(word).ok()? + "\n";
        tells.write_all(line.as_bytes()).ok()
    };
    let failed = |step: &str, error: &dyn std::fmt::Display| Word::Failed {
        step: step.to_owned(),
        reason: error.to_string(),
    };
    if let Err(error) = sys::process::new_user_namespace() {
        return tell(&failed("make a user namespace", &error));
    }
    tell(&Word::Unmapped(rustix::process::getpid().as_raw_nonzero().get()))?;
    let mut wait = || orders.read_exact(&mut [0]).ok();
    wait()?;
    if let Err((step, error)) = settle(&PathBuf::from(directory)) {
        return tell(&failed(step, &error));
    }
    tell(&Word::Settled)?;
    wait()?;
    loop {
        rustix::event::pause();
    }
}

fn settle(directory: &std::path::Path) -> Result<(), (&'static str, std::io::Error)> {
    sys::process::new_host_namespaces().map_err(|error| ("make mount and network namespaces", error))?;
    tree::arrange(directory)
}
