//! Reading a log: across rotated files, from the end, and as it grows.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::event::PollFlags;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use crate::container::client::{self, Connection};
use crate::container::logs::{LogLine, LogOptions, current, rotated};
use crate::container::protocol::ExitNews;
use crate::container::ready::Ready;
use crate::container::record::ContainerRecord;
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::paths::Root;

/// One file of a log, and where reading goes on in it.
struct Part {
    file: BufReader<File>,
    inode: u64,
    /// The beginning of an entry whose end is not written yet.
    rest: Vec<u8>,
}

/// What keeps a follower going.
struct Growth {
    changes: OwnedFd,
    monitor: Connection,
}

/// Why no further entry is wanted.
enum Next {
    More,
    Enough,
}

/// How much is read at a time from the end.
const BLOCK: u64 = 64 << 10;

/// Hands out the entries of a container's log in order, until there are no more or whoever takes them has enough. A follower learns of each of its ends, too, behind what was
/// written until then.
///
/// # Errors
/// When the container keeps no log, or a file cannot be read.
pub fn read(
    root: &Root,
    id: &ContainerId,
    options: &LogOptions,
    each: &mut dyn FnMut(&LogLine) -> ControlFlow<()>,
    ended: &mut dyn FnMut(ExitNews),
) -> Result<()> {
    let failed = |error: io::Error| Error::failed(format!("read the log of container {}", id.short()), error);
    let record = ContainerRecord::read(root, id).map_err(failed)?;
    let record = record.ok_or_else(|| Error::not_found(format!("no such container: {}", id.short())))?;
    if record.spec.log.driver == "none" {
        return Err(Error::conflict(format!("container {} keeps no log", record.name))
            .with_hint("it was made with the logging driver none"));
    }
    let path = current(root, id);
    // Watched before the first look: whatever is written after it is noticed.
    let growth = if options.follow { Growth::watch(root, id, &path)? } else { None };
    let mut parts = open_all(&path).map_err(failed)?;
    if let Some(lines) = options.tail {
        skip_to_tail(&mut parts, lines).map_err(failed)?;
    }
    let last = parts.pop();
    for mut part in parts {
        if let Next::Enough = part.hand_out(options, each).map_err(failed)? {
            return Ok(());
        }
    }
    let mut reading = last;
    if let Some(part) = &mut reading
        && let Next::Enough = part.hand_out(options, each).map_err(failed)?
    {
        return Ok(());
    }
    match growth {
        Some(growth) => growth.follow(&path, reading, options, each, ended).map_err(failed),
        None => Ok(()),
    }
}

/// Every file of a log, oldest first. A rotation between two of the opens shows a file twice: the second look at it
/// does not count.
fn open_all(current: &Path) -> io::Result<Vec<Part>> {
    let mut parts = Vec::new();
    let mut seen = HashSet::new();
    for ago in 0.. {
        match Part::open(&rotated(current, ago))? {
            Some(part) if seen.insert(part.inode) => parts.push(part),
            Some(_) => {}
            // There may be rotated files before a new current one was made.
            None if ago == 0 => {}
            None => break,
        }
    }
    parts.reverse();
    Ok(parts)
}

/// Moves all parts forward so that this many lines are left.
fn skip_to_tail(parts: &mut Vec<Part>, lines: usize) -> io::Result<()> {
    let mut wanted = lines;
    for at in (0..parts.len()).rev() {
        let found = parts[at].seek_to_tail(wanted)?;
        wanted -= found.min(wanted);
        if wanted == 0 {
            parts.drain(..at);
            break;
        }
    }
    Ok(())
}

// === impl Part ===

impl Part {
    fn open(path: &Path) -> io::Result<Option<Self>> {
        match File::open(path) {
            Ok(file) => {
                let inode = file.metadata()?.ino();
                Ok(Some(Self { file: BufReader::new(file), inode, rest: Vec::new() }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Goes to where this many lines are left, or to the beginning. Returns how many there are.
    fn seek_to_tail(&mut self, lines: usize) -> io::Result<usize> {
        let file = self.file.get_mut();
        let end = file.seek(SeekFrom::End(0))?;
        let (mut block_start, mut found) = (end, 0);
        let mut start = if lines == 0 { end } else { 0 };
        let mut block = Vec::new();
        'file: while block_start > 0 && lines > 0 {
            let length = block_start.min(BLOCK);
            block_start -= length;
            block.resize(length as usize, 0);
            file.seek(SeekFrom::Start(block_start))?;
            file.read_exact(&mut block)?;
            for at in (0..block.len()).rev().filter(|at| block[*at] == b'\n') {
                let after = block_start + at as u64 + 1;
                // The last newline ends the last line; each one before it begins another.
                if after == end {
                    continue;
                }
                found += 1;
                if found == lines {
                    start = after;
                    break 'file;
                }
            }
        }
        if found < lines && end > 0 {
            found += 1;
        }
        self.file.seek(SeekFrom::Start(start))?;
        Ok(found)
    }

    /// Hands out what is written so far.
    fn hand_out(
        &mut self,
        options: &LogOptions,
        each: &mut dyn FnMut(&LogLine) -> ControlFlow<()>,
    ) -> io::Result<Next> {
        loop {
            self.file.read_until(b'\n', &mut self.rest)?;
            if self.rest.last() != Some(&b'\n') {
                return Ok(Next::More);
            }
            // Half an entry of a killed monitor says nothing.
            if let Ok(line) = serde_json::from_slice::<LogLine>(&self.rest) {
                let time = wants_time(options).then(|| line.time.parse::<Timestamp>().ok()).flatten();
                if let (Some(time), Some(until)) = (time, options.until)
                    && time > until
                {
                    return Ok(Next::Enough);
                }
                let early = matches!((time, options.since), (Some(time), Some(since)) if time < since);
                if !early && each(&line).is_break() {
                    return Ok(Next::Enough);
                }
            }
            self.rest.clear();
        }
    }
}

fn wants_time(options: &LogOptions) -> bool {
    options.since.is_some() || options.until.is_some()
}

// === impl Growth ===

impl Growth {
    /// Watches the log of a container that is alive; `None` for one that is not.
    fn watch(root: &Root, id: &ContainerId, path: &Path) -> Result<Option<Self>> {
        let failed =
            |error: Errno| Error::failed(format!("watch {}", path.display()), io::Error::from(error));
        let Some(mut monitor) = client::connect(root, id)? else { return Ok(None) };
        monitor.ask_exits()?;
        let changes = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(failed)?;
        let directory = path.parent().map(PathBuf::from).unwrap_or_default();
        inotify::add_watch(&changes, &directory, WatchFlags::MODIFY | WatchFlags::CREATE).map_err(failed)?;
        Ok(Some(Self { changes, monitor }))
    }

    /// Hands out what is written from now on, until the container has ended for good.
    fn follow(
        mut self,
        path: &Path,
        mut reading: Option<Part>,
        options: &LogOptions,
        each: &mut dyn FnMut(&LogLine) -> ControlFlow<()>,
        ended: &mut dyn FnMut(ExitNews),
    ) -> io::Result<()> {
        let (mut exits, mut is_over) = (Vec::new(), false);
        loop {
            if let Next::Enough = hand_out_new(path, &mut reading, options, each)? {
                return Ok(());
            }
            exits.drain(..).for_each(&mut *ended);
            if is_over {
                return Ok(());
            }
            let mut ready = Ready::new();
            ready.add(Source::Changes, self.changes.as_fd(), PollFlags::IN);
            ready.add(Source::Monitor, self.monitor.descriptor(), PollFlags::IN);
            let deadline = options.until.and_then(instant_of);
            let happened = ready.wait(deadline)?;
            if happened.is_empty() && deadline.is_some_and(|deadline| deadline <= std::time::Instant::now()) {
                // One more look at what was written before the moment.
                is_over = true;
            }
            for (source, _) in happened {
                match source {
                    Source::Changes => self.forget_changes()?,
                    // Behind the last entry of a run the monitor says that it ended, or it was killed.
                    Source::Monitor => {
                        let (came, is_last) = self.monitor.exits();
                        exits.extend(came);
                        is_over |= is_last;
                    }
                }
            }
        }
    }

    fn forget_changes(&self) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.changes, &mut space);
        loop {
            match reader.next() {
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Source {
    Changes,
    Monitor,
}

/// The same moment on the clock that waits are measured with; now when it has passed.
fn instant_of(moment: Timestamp) -> Option<std::time::Instant> {
    let left = std::time::Duration::try_from(moment.duration_since(Timestamp::now())).unwrap_or_default();
    std::time::Instant::now().checked_add(left)
}

/// Hands out what was written since the last look, in this file and in those that followed it.
fn hand_out_new(
    path: &Path,
    reading: &mut Option<Part>,
    options: &LogOptions,
    each: &mut dyn FnMut(&LogLine) -> ControlFlow<()>,
) -> io::Result<Next> {
    let newest = Part::open(path)?;
    if let Some(part) = reading {
        // The newest file is looked up before this one is read to its end: nothing can follow what is read here.
        let moved_on = newest.as_ref().is_some_and(|newest| newest.inode != part.inode);
        if let Next::Enough = part.hand_out(options, each)? {
            return Ok(Next::Enough);
        }
        if !moved_on {
            return Ok(Next::More);
        }
        // Files that came and went between two looks lie between this one and the newest.
        let inode = part.inode;
        let parts = open_all(path)?;
        let after = parts.iter().position(|part| part.inode == inode).map_or(0, |at| at + 1);
        for mut part in parts.into_iter().skip(after) {
            if let Next::Enough = part.hand_out(options, each)? {
                return Ok(Next::Enough);
            }
            *reading = Some(part);
        }
        return Ok(Next::More);
    }
    *reading = newest;
    match reading {
        Some(part) => part.hand_out(options, each),
        None => Ok(Next::More),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::logs::{LogWriter, Stream};
    use crate::container::spec::LogSpec;

    fn written(directory: &Path, count: usize, size: &str) -> PathBuf {
        let path = directory.join("container.log");
        let options = [("max-size", size), ("max-file", "9")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let spec = LogSpec { options: options.into(), ..LogSpec::default() };
        let mut log = LogWriter::open(&path, &spec).unwrap();
        for number in 0..count {
            let at = Timestamp::from_second(number as i64).unwrap();
            log.write(Stream::Stdout, format!("{number}\n").as_bytes(), at).unwrap();
        }
        path
    }

    fn keep(text: &mut String) -> impl FnMut(&LogLine) -> ControlFlow<()> {
        |line| {
            text.push_str(line.log.trim_end());
            ControlFlow::Continue(())
        }
    }

    fn shown(path: &Path, options: &LogOptions) -> String {
        let mut parts = open_all(path).unwrap();
        if let Some(lines) = options.tail {
            skip_to_tail(&mut parts, lines).unwrap();
        }
        let mut text = String::new();
        for mut part in parts {
            part.hand_out(options, &mut keep(&mut text)).unwrap();
        }
        text
    }

    #[test]
    fn rotated_files_are_one_log() {
        let directory = tempfile::tempdir().unwrap();
        let path = written(directory.path(), 8, "130");
        assert!(rotated(&path, 3).exists());
        assert_eq!(shown(&path, &LogOptions::default()), "01234567");
    }

    #[test]
    fn the_tail_reaches_over_files() {
        for size in ["130", "1000000"] {
            let directory = tempfile::tempdir().unwrap();
            let path = written(directory.path(), 8, size);
            for (tail, expected) in
                [(0, ""), (1, "7"), (2, "67"), (3, "567"), (8, "01234567"), (99, "01234567")]
            {
                let options = LogOptions { tail: Some(tail), ..LogOptions::default() };
                assert_eq!(shown(&path, &options), expected, "{tail} of files of {size}");
            }
        }
    }

    #[test]
    fn since_and_until_cut_both_ends() {
        let directory = tempfile::tempdir().unwrap();
        let path = written(directory.path(), 8, "1000");
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        let options = LogOptions { since: at(2), until: at(5), ..LogOptions::default() };
        assert_eq!(shown(&path, &options), "2345");
    }

    #[test]
    fn a_follower_misses_nothing_when_files_move_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = written(directory.path(), 3, "70");
        let mut text = String::new();
        let mut reading = None;
        let options = LogOptions::default();
        let mut look = |reading: &mut Option<Part>| {
            hand_out_new(&path, reading, &options, &mut keep(&mut text)).unwrap();
        };
        look(&mut reading);
        let directory = directory.path();
        let options = [("max-size", "70"), ("max-file", "9")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let spec = LogSpec { options: options.into(), ..LogSpec::default() };
        let mut log = LogWriter::open(&directory.join("container.log"), &spec).unwrap();
        for number in 3..7 {
            log.write(Stream::Stdout, format!("{number}\n").as_bytes(), Timestamp::UNIX_EPOCH).unwrap();
        }
        look(&mut reading);
        assert_eq!(text, "23456");
    }
}
