//! Changes of files in a project's directory, gathered until they have settled.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use engine::error::{Error, Result};
use engine::id::Digest;
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use sha2::{Digest as _, Sha256};

/// A directory that is watched with all that is below it.
pub struct Changes {
    _watcher: RecommendedWatcher,
    events: Receiver<notify::Result<Event>>,
    directory: PathBuf,
    /// What was in the files that have changed so far.
    known: RefCell<BTreeMap<PathBuf, Content>>,
}

/// What is in a file: its permissions and the digest of its bytes; `None` for what is no file, or none any more.
type Content = Option<(u32, Digest)>;

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
        Ok(Self { _watcher: watcher, events, directory: directory.to_owned(), known: RefCell::default() })
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
                if self.is_news(&path) && !changed.contains(&path) {
                    changed.push(path);
                }
            }
        }
    }

    /// Whether there is something else in it than the last time: a hook that makes the same file anew would be a reason to
    /// deploy again, for ever.
    fn is_news(&self, path: &Path) -> bool {
        let content = content(&self.directory.join(path)).ok();
        self.known.borrow_mut().insert(path.to_owned(), content.clone()) != Some(content)
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

fn content(path: &Path) -> io::Result<(u32, Digest)> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut hash = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hash)?;
    Ok((metadata.permissions().mode(), Digest::from_sha256(&hash.finalize())))
}
