//! Changes of files in a project's directory, gathered until they have settled.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use engine::error::{Error, Result};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

/// A directory that is watched with all that is below it.
pub struct Changes {
    _watcher: RecommendedWatcher,
    events: Receiver<notify::Result<Event>>,
    directory: PathBuf,
}

/// How long nothing may change until what changed is told: an editor saves in several steps.
const SETTLED: Duration = Duration::from_millis(100);

/// What is in no image: repositories write there with every look at them.
const UNWATCHED: [&str; 3] = [".git", ".hg", ".svn"];

// === impl Changes ===

impl Changes {
    /// Watches a directory.
    ///
    /// # Errors
    /// When the kernel gives no more watches.
    pub fn of(directory: &Path) -> Result<Self> {
        let failed = |error: notify::Error| Error::failed(format!("watch {}", directory.display()), error);
        let (sender, events) = channel();
        let mut watcher = notify::recommended_watcher(sender).map_err(failed)?;
        watcher.watch(directory, RecursiveMode::Recursive).map_err(failed)?;
        Ok(Self { _watcher: watcher, events, directory: directory.to_owned() })
    }

    /// Waits until something has changed and nothing more does; what it was, relative to the directory.
    ///
    /// # Errors
    /// When the kernel lost count.
    pub fn next(&self) -> Result<Vec<PathBuf>> {
        let failed =
            |error: notify::Error| Error::failed(format!("watch {}", self.directory.display()), error);
        let mut changed: Vec<PathBuf> = Vec::new();
        loop {
            let event = if changed.is_empty() {
                self.events.recv().map_err(|error| Error::failed("watch files", error))?
            } else {
                match self.events.recv_timeout(SETTLED) {
                    Ok(event) => event,
                    Err(_) => return Ok(changed),
                }
            };
            for path in self.wanted(&event.map_err(failed)?) {
                if !changed.contains(&path) {
                    changed.push(path);
                }
            }
        }
    }

    fn wanted(&self, event: &Event) -> Vec<PathBuf> {
        if matches!(event.kind, EventKind::Access(_) | EventKind::Other) {
            return Vec::new();
        }
        let inside = event.paths.iter().filter_map(|path| path.strip_prefix(&self.directory).ok());
        inside
            .filter(|path| !UNWATCHED.iter().any(|name| path.starts_with(name)))
            .map(Path::to_owned)
            .collect()
    }
}
