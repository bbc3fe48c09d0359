//! What the builds of one request, one for each platform, have in common.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Runner;

/// What the builds of one request have in common.
#[derive(Debug, Default)]
pub(crate) struct Joint {
    /// Directories of cache mounts that have been begun anew, because no cache is used: once for all.
    pub(super) renewed: Mutex<BTreeSet<PathBuf>>,
    is_called_off: AtomicBool,
}

// === impl Joint ===

impl Joint {
    /// Ends the commands that run, because something has failed; no further step begins.
    pub(super) fn call_off(&self, runner: &dyn Runner) {
        if !self.is_called_off.swap(true, Ordering::Relaxed) {
            runner.stop();
        }
    }

    /// Whether work that goes on would be for nothing.
    pub(super) fn is_called_off(&self) -> bool {
        self.is_called_off.load(Ordering::Relaxed)
    }
}
