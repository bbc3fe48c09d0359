//! Reading the journal and waiting for what comes: the kernel tells when its directory changes (inotify(7)).

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::io::Errno;

use crate::event::{CURRENT, Event, PREVIOUS};

/// The events of a journal, one after the other.
#[derive(Debug)]
pub struct Reader {
    directory: PathBuf,
    watch: OwnedFd,
    file: Option<File>,
    /// The beginning of a line whose end is still being written.
    half: Vec<u8>,
    arrived: VecDeque<Event>,
}

// === impl Reader ===

impl Reader {
    pub(super) fn new(directory: &Path, since: Option<Timestamp>) -> io::Result<Self> {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let changes =
            inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&watch, directory, changes)?;
        let mut reader = Self {
            directory: directory.to_owned(),
            watch,
            file: None,
            half: Vec::new(),
            arrived: VecDeque::new(),
        };
        match since {
            Some(since) => {
                reader.file = open(&directory.join(PREVIOUS))?;
                reader.read()?;
                reader.switch()?;
                reader.read()?;
                reader.arrived.retain(|event| event.time >= since);
            }
            None => {
                reader.switch()?;
                if let Some(file) = &mut reader.file {
                    file.seek(SeekFrom::End(0))?;
                }
            }
        }
        Ok(reader)
    }

    /// The next event; waits for one as long as until this moment, and for ever without one. `None` when the moment
    /// came first.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn next(&mut self, until: Option<Timestamp>) -> io::Result<Option<Event>> {
        loop {
            if let Some(event) = self.arrived.pop_front() {
                return Ok(Some(event).filter(|event| until.is_none_or(|until| event.time <= until)));
            }
            // Before the files: what changes after the look wakes the wait.
            self.forget_changes();
            let turned = self.turned();
            self.read()?;
            if turned {
                self.switch()?;
                self.read()?;
            }
            if self.arrived.is_empty() && !self.wait(until)? {
                return Ok(None);
            }
        }
    }

    /// Whether the journal goes on in another file than the one that is open.
    fn turned(&self) -> bool {
        let now = fs::metadata(self.directory.join(CURRENT)).map(|found| found.ino()).ok();
        let open = self.file.as_ref().and_then(|file| file.metadata().ok()).map(|found| found.ino());
        now.is_some() && now != open
    }

    fn switch(&mut self) -> io::Result<()> {
        self.half.clear();
        self.file = open(&self.directory.join(CURRENT))?;
        Ok(())
    }

    /// Takes in whole lines. One that is no event, as from another version, is passed over.
    fn read(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.read_to_end(&mut self.half)?;
        let Some(end) = self.half.iter().rposition(|byte| *byte == b'\n') else { return Ok(()) };
        let rest = self.half.split_off(end + 1);
        let lines = std::mem::replace(&mut self.half, rest);
        let events = lines.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
        self.arrived.extend(events);
        Ok(())
    }

    fn forget_changes(&self) {
        let mut changes = [0; 4096];
        while rustix::io::read(&self.watch, &mut changes).is_ok_and(|length| length > 0) {}
    }

    /// Waits for a change; whether there was one in time.
    fn wait(&self, until: Option<Timestamp>) -> io::Result<bool> {
        let timeout = match until.map(|until| until.duration_since(Timestamp::now())) {
            None => None,
            Some(left) if left.is_positive() => {
                Some(Timespec { tv_sec: left.as_secs(), tv_nsec: left.subsec_nanos().into() })
            }
            Some(_) => return Ok(false),
        };
        match poll(&mut [PollFd::new(&self.watch, PollFlags::IN)], timeout.as_ref()) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
