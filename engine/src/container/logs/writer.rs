//! Writing a log: lines are cut from the streams as they arrive, and full files make room for new ones.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::container::logs::{Stream, rotated};
use crate::container::spec::LogSpec;
use crate::quantity::ByteSize;

/// Writes one container's log.
#[derive(Debug)]
pub(crate) struct LogWriter {
    file: Option<LogFile>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    batch: Vec<u8>,
    /// What every entry says besides: `,"attrs":{…}`, or nothing.
    attributes: Vec<u8>,
}

#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    limit: Option<u64>,
    files: u32,
}

/// A longer line is cut into entries of this length, as in docker.
const LONGEST_LINE: usize = 16 << 10;
/// Without limits of its own a log is kept within 100 MB: nothing fills a disk unasked.
const DEFAULT_LIMIT: u64 = 20 << 20;
const DEFAULT_FILES: u32 = 5;

// === impl LogWriter ===

impl LogWriter {
    /// Goes on writing the log at this path.
    pub(crate) fn open(path: &Path, spec: &LogSpec) -> io::Result<Self> {
        let file = if spec.driver == "none" { None } else { Some(LogFile::open(path, spec)?) };
        Ok(Self { file, stdout: Vec::new(), stderr: Vec::new(), batch: Vec::new(), attributes: Vec::new() })
    }

    /// Says this with every entry.
    pub(crate) fn with_attributes(mut self, attributes: &BTreeMap<String, String>) -> Self {
        if !attributes.is_empty() {
            self.attributes.extend_from_slice(b",\"attrs\":");
            // A vector takes everything.
            let _ = serde_json::to_writer(&mut self.attributes, attributes);
        }
        self
    }

    /// Takes what a stream brought. Lines that have not ended wait for their end.
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8], now: Timestamp) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let line = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let time = now.to_string();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let mut piece = piece;
            while line.len() + piece.len() > LONGEST_LINE {
                let (head, tail) = piece.split_at(LONGEST_LINE - line.len());
                line.extend_from_slice(head);
                let cut = whole_characters(line);
                append(&mut self.batch, &line[..cut], stream, &self.attributes, &time);
                line.drain(..cut);
                piece = tail;
            }
            line.extend_from_slice(piece);
            if line.last() == Some(&b'\n') {
                append(&mut self.batch, line, stream, &self.attributes, &time);
                line.clear();
            }
        }
        if line.is_empty() && line.capacity() > 1024 {
            // Most containers are silent most of the time, and their monitors small.
            *line = Vec::new();
        }
        Self::put(file, &mut self.batch)
    }

    /// The streams have ended: what waits is all there will be of its line.
    pub(crate) fn finish(&mut self, now: Timestamp) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let time = now.to_string();
        for (stream, line) in [(Stream::Stdout, &mut self.stdout), (Stream::Stderr, &mut self.stderr)] {
            if !line.is_empty() {
                append(&mut self.batch, line, stream, &self.attributes, &time);
                line.clear();
            }
        }
        Self::put(file, &mut self.batch)
    }

    fn put(file: &mut LogFile, batch: &mut Vec<u8>) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let written = file.append(batch);
        // On a full disk these lines are lost; the container goes on.
        *batch = Vec::new();
        written
    }
}

/// One entry as docker writes it.
fn append(batch: &mut Vec<u8>, line: &[u8], stream: Stream, attributes: &[u8], time: &str) {
    batch.extend_from_slice(b"{\"log\":");
    let text = String::from_utf8_lossy(line);
    // A vector takes everything.
    let _ = serde_json::to_writer(&mut *batch, &text);
    batch.extend_from_slice(b",\"stream\":\"");
    batch.extend_from_slice(stream.word().as_bytes());
    batch.push(b'"');
    batch.extend_from_slice(attributes);
    batch.extend_from_slice(b",\"time\":\"");
    batch.extend_from_slice(time.as_bytes());
    batch.extend_from_slice(b"\"}\n");
}

/// Where a full line is cut: not inside a character.
fn whole_characters(line: &[u8]) -> usize {
    let last = line.iter().rposition(|byte| byte & 0b1100_0000 != 0b1000_0000);
    let Some(start) = last.filter(|start| *start > 0 && line.len() - start < 4) else { return line.len() };
    let complete = match line[start].leading_ones() {
        2..=4 => line.len() - start >= line[start].leading_ones() as usize,
        _ => true,
    };
    if complete { line.len() } else { start }
}

/// How many bytes of whole entries fit into this much room.
fn fitting_entries(entries: &[u8], room: usize) -> usize {
    if entries.len() <= room {
        return entries.len();
    }
    entries[..room].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
}

/// The length of the first entry.
fn first_entry(entries: &[u8]) -> usize {
    entries.iter().position(|byte| *byte == b'\n').map_or(entries.len(), |end| end + 1)
}

// === impl LogFile ===

impl LogFile {
    fn open(path: &Path, spec: &LogSpec) -> io::Result<Self> {
        let limit = match spec.options.get("max-size").map(String::as_str) {
            None => Some(DEFAULT_LIMIT),
            Some("-1" | "0") => None,
            Some(text) => Some(text.parse::<ByteSize>().map_err(|error| invalid(&error))?.0),
        };
        let files = match spec.options.get("max-file") {
            None if spec.options.contains_key("max-size") => 1,
            None => DEFAULT_FILES,
            Some(text) => text.parse::<u32>().map_err(|error| invalid(&error))?.max(1),
        };
        let mut file = create(path)?;
        let size = file.seek(SeekFrom::End(0))?;
        let mut log = Self { path: path.to_owned(), file, size, limit, files };
        log.mend()?;
        Ok(log)
    }

    /// A monitor that was killed may have left half an entry.
    fn mend(&mut self) -> io::Result<()> {
        if self.size == 0 {
            return Ok(());
        }
        let mut last = [0];
        self.file.seek(SeekFrom::End(-1))?;
        self.file.read_exact(&mut last)?;
        if last == *b"\n" { Ok(()) } else { self.append(b"\n") }
    }

    fn append(&mut self, mut entries: &[u8]) -> io::Result<()> {
        while !entries.is_empty() {
            let fitting = self.limit.map_or(entries.len(), |limit| {
                fitting_entries(
                    entries,
                    usize::try_from(limit.saturating_sub(self.size)).unwrap_or(usize::MAX),
                )
            });
            // An entry longer than a whole file gets one to itself.
            let count = match fitting {
                0 if self.size == 0 => first_entry(entries),
                count => count,
            };
            if count == 0 {
                self.rotate()?;
                continue;
            }
            self.file.write_all(&entries[..count])?;
            self.size += count as u64;
            entries = &entries[count..];
        }
        Ok(())
    }

    /// Moves every file one further from the present; the oldest one goes. Readers keep what they have open.
    fn rotate(&mut self) -> io::Result<()> {
        for ago in (1..self.files).rev() {
            match fs::rename(rotated(&self.path, ago - 1), rotated(&self.path, ago)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.files == 1 {
            fs::remove_file(&self.path)?;
        }
        self.file = create(&self.path)?;
        self.size = 0;
        Ok(())
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)
}

fn invalid(error: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::logs::LogLine;

    fn spec(options: &[(&str, &str)]) -> LogSpec {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        LogSpec { options: options.collect(), ..LogSpec::default() }
    }

    fn entries(path: &Path) -> Vec<(String, Stream)> {
        let text = fs::read_to_string(path).unwrap();
        let parse = |line| serde_json::from_str::<LogLine>(line).unwrap();
        text.lines().map(parse).map(|line| (line.log, line.stream)).collect()
    }

    #[test]
    fn lines_of_both_streams_are_put_together_from_pieces() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("container.log");
        let mut log = LogWriter::open(&path, &spec(&[])).unwrap();
        let at = Timestamp::UNIX_EPOCH;
        log.write(Stream::Stdout, b"on", at).unwrap();
        log.write(Stream::Stderr, b"oops \"x\"\n", at).unwrap();
        log.write(Stream::Stdout, b"e\ntwo\nthr", at).unwrap();
        log.finish(at).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with(r#"{"log":"oops \"x\"\n","stream":"stderr","time":"1970-01-01T00:00:00Z"}"#)
        );
        let expected = [
            ("oops \"x\"\n", Stream::Stderr),
            ("one\n", Stream::Stdout),
            ("two\n", Stream::Stdout),
            ("thr", Stream::Stdout),
        ];
        assert_eq!(entries(&path), expected.map(|(log, stream)| (log.to_owned(), stream)));
    }

    #[test]
    fn a_very_long_line_is_cut_between_characters() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("container.log");
        let mut log = LogWriter::open(&path, &spec(&[])).unwrap();
        let text = format!("x{}\n", "é".repeat(10_000));
        log.write(Stream::Stdout, text.as_bytes(), Timestamp::UNIX_EPOCH).unwrap();
        let entries = entries(&path);
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].0.len(), LONGEST_LINE - 1);
        assert_eq!(entries.iter().map(|(log, _)| log.as_str()).collect::<String>(), text);
    }

    #[test]
    fn full_files_move_on_and_the_oldest_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("container.log");
        let mut log = LogWriter::open(&path, &spec(&[("max-size", "100"), ("max-file", "3")])).unwrap();
        for number in 0..5 {
            log.write(Stream::Stdout, format!("{number}\n").as_bytes(), Timestamp::UNIX_EPOCH).unwrap();
        }
        // One entry is 61 bytes: each file holds one.
        let names = ["container.log", "container.log.1", "container.log.2"];
        let kept = names.map(|name| entries(&directory.path().join(name))[0].0.clone());
        assert_eq!(kept, ["4\n", "3\n", "2\n"]);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
    }

    #[test]
    fn half_an_entry_of_a_killed_monitor_is_closed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("container.log");
        fs::write(&path, "{\"log\":\"ha").unwrap();
        let mut log = LogWriter::open(&path, &spec(&[])).unwrap();
        log.write(Stream::Stdout, b"whole\n", Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
    }

    #[test]
    fn nothing_is_written_for_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("container.log");
        let none = LogSpec { driver: "none".to_owned(), ..LogSpec::default() };
        let mut log = LogWriter::open(&path, &none).unwrap();
        log.write(Stream::Stdout, b"x\n", Timestamp::UNIX_EPOCH).unwrap();
        assert!(!path.exists());
    }
}
