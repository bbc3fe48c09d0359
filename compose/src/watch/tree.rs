//! The directories that are watched, and what happened in them. A directory that every rule ignores is not watched
//! at all: the kernel has few watches to give.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use notify::event::{ModifyKind, RenameMode};
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
    /// The files that some rule is about, as far as they were seen: what is gone is told of them when the kernel tells
    /// of a directory alone, or of nothing because too much happened. With who may do what, as times change too often.
    files: BTreeMap<PathBuf, Access>,
    events: Receiver<Message>,
    sender: Sender<Message>,
}

/// What changed since it was asked for last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// Files that are new, that are different or that are gone, and directories that are new and empty.
    pub paths: BTreeSet<PathBuf>,
    /// Those that are something else than they were: a directory instead of a file, or a file instead of a directory.
    pub replaced: BTreeSet<PathBuf>,
}

/// Mode, user and group of a file.
type Access = (u32, u32, u32);

/// A batch while it grows.
#[derive(Default)]
struct Batch {
    paths: BTreeSet<PathBuf>,
    /// What was a directory, and what was a file, before the batch began.
    was_directory: BTreeMap<PathBuf, bool>,
}

// === impl Batch ===

impl Batch {
    /// Remembers what a path was, unless something is known of the time before.
    fn was(&mut self, path: &Path, directory: bool) {
        self.was_directory.entry(path.to_owned()).or_insert(directory);
    }

    fn complete(self) -> Changed {
        let is_other = |(path, was_directory): &(PathBuf, bool)| {
            path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir() != *was_directory)
        };
        let replaced: BTreeSet<PathBuf> =
            self.was_directory.into_iter().filter(is_other).map(|(path, _)| path).collect();
        let mut paths = self.paths;
        paths.extend(replaced.iter().cloned());
        Changed { paths, replaced }
    }
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
        let (watched, files) = (BTreeSet::new(), BTreeMap::new());
        let mut tree = Self { rules: rules.to_vec(), quiet, watcher, watched, files, events, sender };
        for rule in rules {
            // A file that is replaced is another file; its directory tells of both.
            let directory = if rule.path.is_dir() { Some(rule.path.as_path()) } else { rule.path.parent() };
            match directory {
                Some(directory) if rule.path.is_dir() => tree.watch_below(directory)?,
                Some(directory) => tree.watch(directory)?,
                None => {}
            }
        }
        let mut found = BTreeSet::new();
        for rule in rules {
            files_below(rules, &rule.path, &mut found);
        }
        tree.know(&found);
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
    pub fn changed(&mut self) -> Result<Option<Changed>, WatchError> {
        let mut changed = Batch::default();
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
                Err(RecvTimeoutError::Timeout) => return Ok(Some(changed.complete())),
                Ok(Message::Event(event)) => self.take(event, &mut changed)?,
            }
            if !changed.paths.is_empty() {
                let since = *begun.get_or_insert_with(Instant::now);
                if since.elapsed() >= PATIENCE {
                    return Ok(Some(changed.complete()));
                }
            }
        }
    }

    fn take(&mut self, event: notify::Result<Event>, changed: &mut Batch) -> Result<(), WatchError> {
        let event = match event {
            Ok(event) => event,
            // The queue ran over or something went away under it: what is there now is what counts.
            Err(_) => Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan),
        };
        if event.need_rescan() {
            return self.look_again(changed);
        }
        if let EventKind::Modify(ModifyKind::Metadata(_)) = event.kind {
            event.paths.into_iter().for_each(|path| self.access_changed(path, changed));
            return Ok(());
        }
        // Where a file came from and where it went were told of each by itself already: told again, a moment later,
        // they would make another batch.
        if let EventKind::Modify(ModifyKind::Name(RenameMode::Both)) = event.kind {
            return Ok(());
        }
        if !matches!(event.kind, EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(_)) {
            return Ok(());
        }
        for path in event.paths {
            if path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
                self.directory_came(path, changed)?;
            } else if self.watched.contains(&path) || self.rules.iter().any(|rule| rule.is_about(&path)) {
                self.file_changed(path, changed);
            }
        }
        Ok(())
    }

    /// Remembers files that are there.
    fn know(&mut self, found: &BTreeSet<PathBuf>) {
        self.files.extend(found.iter().filter_map(|path| Some((path.clone(), access(path)?))));
    }

    /// Mode or owner of a file may be another one: the kernel tells of times, too.
    fn access_changed(&mut self, path: PathBuf, changed: &mut Batch) {
        if let (Some(known), Some(now)) = (self.files.get_mut(&path), access(&path))
            && *known != now
        {
            *known = now;
            changed.paths.insert(path);
        }
    }

    /// A directory is new, or another one took its place. What was put into it before it was watched is found by
    /// looking.
    fn directory_came(&mut self, path: PathBuf, changed: &mut Batch) -> Result<(), WatchError> {
        let was_file = self.files.remove(&path).is_some();
        if was_file || self.watched.contains(&path) {
            changed.was(&path, !was_file);
        }
        self.forget_below(&path);
        self.watch_below(&path)?;
        let mut found = BTreeSet::new();
        files_below(&self.rules, &path, &mut found);
        self.lose_below(&path, &found, changed);
        if found.is_empty() && self.rules.iter().any(|rule| rule.is_about(&path)) {
            changed.paths.insert(path);
        }
        self.know(&found);
        changed.paths.extend(found);
        Ok(())
    }

    /// A file is new, is different or is gone, or what was a directory is.
    fn file_changed(&mut self, path: PathBuf, changed: &mut Batch) {
        let was_directory = self.watched.contains(&path);
        if was_directory || self.files.contains_key(&path) {
            changed.was(&path, was_directory);
        }
        self.forget_below(&path);
        self.lose_below(&path, &BTreeSet::new(), changed);
        if let Some(access) = access(&path) {
            self.files.insert(path.clone(), access);
        }
        changed.paths.insert(path);
    }

    /// What was there below a path and is not any more has changed too.
    fn lose_below(&mut self, path: &Path, there: &BTreeSet<PathBuf>, changed: &mut Batch) {
        let from = (Bound::Included(path), Bound::Unbounded);
        let below = self.files.range::<Path, _>(from).map(|(file, _)| file);
        let below = below.take_while(|file| file.starts_with(path));
        let gone: Vec<PathBuf> = below.filter(|file| !there.contains(*file)).cloned().collect();
        for file in gone {
            self.files.remove(&file);
            changed.paths.insert(file);
        }
    }

    /// The kernel lost count: what is there now is compared with what was there.
    fn look_again(&mut self, changed: &mut Batch) -> Result<(), WatchError> {
        let mut found = BTreeSet::new();
        for path in self.rules.iter().map(|rule| rule.path.clone()).collect::<Vec<_>>() {
            if path.is_dir() {
                self.watch_below(&path)?;
            }
            files_below(&self.rules, &path, &mut found);
        }
        for file in self.files.keys().filter(|file| !found.contains(*file)) {
            changed.was(file, false);
            changed.paths.insert(file.clone());
        }
        for directory in found.intersection(&self.watched) {
            changed.was(directory, true);
        }
        let (there, gone) = self.watched.iter().cloned().partition(|directory| directory.is_dir());
        self.watched = there;
        changed.paths.extend::<BTreeSet<PathBuf>>(gone);
        self.files.clear();
        self.know(&found);
        changed.paths.extend(found);
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
        let from = (Bound::Included(directory), Bound::Unbounded);
        let below = self.watched.range::<Path, _>(from).take_while(|path| path.starts_with(directory));
        let below: Vec<PathBuf> = below.cloned().collect();
        for path in &below {
            self.watched.remove(path);
        }
    }
}

fn access(path: &Path) -> Option<Access> {
    let metadata = path.symlink_metadata().ok()?;
    Some((metadata.mode(), metadata.uid(), metadata.gid()))
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
