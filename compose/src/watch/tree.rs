//! The directories that are watched, and what happened in them. A directory that every rule ignores is not watched
//! at all: the kernel has few watches to give.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use notify::event::ModifyKind;
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::{Rule, files_below};
use crate::model::WatchAction;

/// After this long without an event a batch is complete: an editor's save is several events.
const QUIET: Duration = Duration::from_millis(50);
/// The same where files are only copied: what comes too late is copied once more, and nothing is restarted twice.
const QUIET_TO_COPY: Duration = Duration::from_millis(20);
/// After this long it is complete in any case: a log file that is written all the time holds nobody up.
const PATIENCE: Duration = Duration::from_millis(250);

/// The watched directories below the paths of some rules.
pub struct Tree {
    rules: Vec<Rule>,
    quiet: Duration,
    watcher: RecommendedWatcher,
    watched: BTreeSet<PathBuf>,
    events: Receiver<Message>,
    sender: Sender<Message>,
}

/// Ends the waiting of a [`Tree`] from elsewhere.
#[derive(Debug, Clone)]
pub struct Stopper(Sender<Message>);

#[derive(Debug)]
enum Message {
    Event(notify::Result<Event>),
    Stop,
}

/// Why directories cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The kernel gives no more watches, or no queue for them.
    #[error("watch {}", path.display())]
    Watch {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: notify::Error,
    },
    /// The kernel gives no queue.
    #[error("start to watch files")]
    Start(#[source] notify::Error),
}

// === impl Tree ===

impl Tree {
    /// Watches what these rules are about.
    ///
    /// # Errors
    /// When the kernel gives no watches, which `fs.inotify.max_user_watches` limits.
    pub fn new(rules: &[Rule]) -> Result<Self, WatchError> {
        let (sender, events) = channel();
        let told = sender.clone();
        let watcher = notify::recommended_watcher(move |event| {
            // Nobody listens any more once the tree is gone.
            let _ = told.send(Message::Event(event));
        })
        .map_err(WatchError::Start)?;
        let only_copies = rules.iter().all(|rule| rule.action == WatchAction::Sync);
        let quiet = if only_copies { QUIET_TO_COPY } else { QUIET };
        let mut tree =
            Self { rules: rules.to_vec(), quiet, watcher, watched: BTreeSet::new(), events, sender };
        for rule in rules {
            // A file that is replaced is another file; its directory tells of both.
            let directory = if rule.path.is_dir() { Some(rule.path.as_path()) } else { rule.path.parent() };
            match directory {
                Some(directory) if rule.path.is_dir() => tree.watch_below(directory)?,
                Some(directory) => tree.watch(directory)?,
                None => {}
            }
        }
        Ok(tree)
    }

    /// Ends the waiting.
    pub fn stopper(&self) -> Stopper {
        Stopper(self.sender.clone())
    }

    /// Waits for changes and returns the files that changed or are gone; `None` when somebody ended the waiting.
    ///
    /// # Errors
    /// When a new directory cannot be watched.
    pub fn changed(&mut self) -> Result<Option<BTreeSet<PathBuf>>, WatchError> {
        let mut changed = BTreeSet::new();
        let mut begun: Option<Instant> = None;
        loop {
            let message = match begun {
                None => self.events.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(begun) => {
                    let left = PATIENCE.saturating_sub(begun.elapsed());
                    self.events.recv_timeout(left.min(self.quiet))
                }
            };
            match message {
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => return Ok(Some(changed)),
                Ok(Message::Event(event)) => self.take(event, &mut changed)?,
            }
            if !changed.is_empty() {
                let since = *begun.get_or_insert_with(Instant::now);
                if since.elapsed() >= PATIENCE {
                    return Ok(Some(changed));
                }
            }
        }
    }

    fn take(
        &mut self,
        event: notify::Result<Event>,
        changed: &mut BTreeSet<PathBuf>,
    ) -> Result<(), WatchError> {
        let event = match event {
            Ok(event) => event,
            // The queue ran over or something went away under it: what is there now is what counts.
            Err(_) => Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan),
        };
        if event.need_rescan() {
            for path in self.rules.iter().map(|rule| rule.path.clone()).collect::<Vec<_>>() {
                self.watch_below(&path)?;
                files_below(&self.rules, &path, changed);
            }
            return Ok(());
        }
        let counts = match event.kind {
            EventKind::Create(_) | EventKind::Remove(_) => true,
            EventKind::Modify(kind) => !matches!(kind, ModifyKind::Metadata(_)),
            _ => false,
        };
        for path in event.paths.into_iter().filter(|_| counts) {
            if path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
                // What was put into it before it was watched is found by looking.
                if !self.watched.contains(&path) {
                    self.watch_below(&path)?;
                    files_below(&self.rules, &path, changed);
                }
            } else if self.watched.contains(&path) || self.rules.iter().any(|rule| rule.is_about(&path)) {
                self.forget_below(&path);
                changed.insert(path);
            }
        }
        Ok(())
    }

    fn watch_below(&mut self, directory: &Path) -> Result<(), WatchError> {
        if !self.rules.iter().any(|rule| rule.looks_into(directory)) {
            return Ok(());
        }
        self.watch(directory)?;
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.watch_below(&entry.path())?;
            }
        }
        Ok(())
    }

    fn watch(&mut self, directory: &Path) -> Result<(), WatchError> {
        match self.watcher.watch(directory, RecursiveMode::NonRecursive) {
            Ok(()) => {
                self.watched.insert(directory.to_owned());
                Ok(())
            }
            Err(_) if !directory.exists() => Ok(()),
            Err(error) if is_denied(&error) => Ok(()),
            Err(source) => Err(WatchError::Watch { path: directory.to_owned(), source }),
        }
    }

    /// A directory that is gone, or that another one will take the place of, is not watched any more.
    fn forget_below(&mut self, directory: &Path) {
        self.watched.retain(|path| !path.starts_with(directory));
    }
}

fn is_denied(error: &notify::Error) -> bool {
    matches!(&error.kind, notify::ErrorKind::Io(error) if error.kind() == std::io::ErrorKind::PermissionDenied)
}

// === impl Stopper ===

impl Stopper {
    /// Ends the waiting.
    pub fn stop(&self) {
        // A tree that is gone waits for nothing.
        let _ = self.0.send(Message::Stop);
    }
}
