//! The digests of files, remembered by what changes whenever a file's content does.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};

use crate::store::{Durability, Lock, write_atomic};

/// 32 bytes of SHA-256.
pub(crate) type Sum = [u8; 32];

/// What identifies one state of one file's content. The change time moves with every write, whatever a program
/// does to the modification time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Stamp {
    dev: u64,
    ino: u64,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

/// A table of known digests, read from one file and written back when something was added.
#[derive(Debug)]
pub(crate) struct Digests {
    file: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    sums: HashMap<Stamp, Sum>,
    used: HashMap<Stamp, Sum>,
    grown: bool,
}

/// A file younger than this may change again within one tick of the file system's clock, unseen by its stamp.
const RACY: i128 = 50_000_000;

const RECORD: usize = 7 * 8 + 32;
const MAGIC: &[u8; 8] = b"digests1";

// === impl Digests ===

impl Digests {
    /// The table in this file; an unreadable one is an empty one.
    pub(crate) fn open(file: PathBuf) -> Self {
        let sums = read(&file);
        Self { file, known: Mutex::new(Known { sums, ..Known::default() }) }
    }

    /// The digests of these files, in their order; unknown ones are read, several at once.
    pub(crate) fn of(&self, files: &[(&Path, &Metadata)]) -> io::Result<Vec<Sum>> {
        let mut sums: Vec<Option<Sum>> = {
            let mut known = lock(&self.known);
            files
                .iter()
                .map(|(_, metadata)| {
                    let stamp = Stamp::of(metadata);
                    let sum = known.sums.get(&stamp).copied();
                    if let Some(sum) = sum {
                        known.used.insert(stamp, sum);
                    }
                    sum
                })
                .collect()
        };
        let missing: Vec<usize> = (0..files.len()).filter(|at| sums[*at].is_none()).collect();
        let read = Mutex::new(Vec::with_capacity(missing.len()));
        let next = AtomicUsize::new(0);
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(missing.len());
        std::thread::scope(|scope| {
            let work = || {
                while let Some(at) = missing.get(next.fetch_add(1, Ordering::Relaxed)).copied() {
                    let result = hash_file(files[at].0);
                    lock(&read).push((at, result));
                }
            };
            for _ in 1..workers.max(1) {
                scope.spawn(work);
            }
            work();
        });
        let mut known = lock(&self.known);
        for (at, result) in read.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            let (stamp, sum, steady) = result?;
            sums[at] = Some(sum);
            if steady {
                known.used.insert(stamp, sum);
                known.grown = true;
            }
        }
        Ok(sums.into_iter().map(Option::unwrap_or_default).collect())
    }

    /// The digest of a file in this state, if it is known for good.
    pub(crate) fn known(&self, metadata: &Metadata) -> Option<Sum> {
        lock(&self.known).used.get(&Stamp::of(metadata)).copied()
    }

    /// Writes the table back if it grew. Failing to only costs time in the next build.
    pub(crate) fn save(&self) {
        let mut known = lock(&self.known);
        if !known.grown {
            return;
        }
        known.grown = false;
        // Another build of the same context may have written meanwhile. Without the lock only its records are lost.
        let _one_at_a_time = Lock::exclusive(&self.file.with_extension("lock")).ok();
        known.sums.extend(read(&self.file));
        // Records that this build did not ask for stay while they are few: another Dockerfile may want them.
        let limit = known.used.len() * 2 + 65_536;
        let Known { sums, used, .. } = &mut *known;
        for (stamp, sum) in sums.iter() {
            if used.len() >= limit {
                break;
            }
            used.entry(*stamp).or_insert(*sum);
        }
        let bytes = encode(used);
        if let Err(error) = write_atomic(&self.file, &bytes, 0o600, Durability::Rename) {
            tracing::debug!(file = %self.file.display(), %error, "file digests were not kept");
        }
    }
}

// === impl Stamp ===

impl Stamp {
    /// The state a file is in now.
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            dev: metadata.dev(),
            ino: metadata.ino(),
            size: metadata.size(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    pub(crate) fn is_racy(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as i128;
        now - (i128::from(self.ctime.0) * 1_000_000_000 + i128::from(self.ctime.1)) < RACY
    }

    fn words(&self) -> [u64; 7] {
        [
            self.dev,
            self.ino,
            self.size,
            self.mtime.0 as u64,
            self.mtime.1 as u64,
            self.ctime.0 as u64,
            self.ctime.1 as u64,
        ]
    }
}

/// Opens a regular file without following a link and without waiting for whoever may be at a pipe's other end.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A file's stamp and digest, and whether the two belong together for good.
fn hash_file(path: &Path) -> io::Result<(Stamp, Sum, bool)> {
    let name_it = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let mut file = open_regular(path).map_err(name_it)?;
    let before = Stamp::of(&file.metadata().map_err(name_it)?);
    let racy = before.is_racy();
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; (before.size as usize + 1).clamp(4096, 1 << 20)];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => hasher.update(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(name_it(error)),
        }
    }
    let after = Stamp::of(&file.metadata().map_err(name_it)?);
    Ok((after, hasher.finalize().into(), !racy && before == after))
}

fn read(file: &Path) -> HashMap<Stamp, Sum> {
    std::fs::read(file).ok().and_then(|bytes| decode(&bytes)).unwrap_or_default()
}

fn encode(sums: &HashMap<Stamp, Sum>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MAGIC.len() + sums.len() * RECORD);
    bytes.extend_from_slice(MAGIC);
    for (stamp, sum) in sums {
        stamp.words().iter().for_each(|word| bytes.extend_from_slice(&word.to_le_bytes()));
        bytes.extend_from_slice(sum);
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<HashMap<Stamp, Sum>> {
    let records = bytes.strip_prefix(MAGIC)?;
    let mut sums = HashMap::with_capacity(records.len() / RECORD);
    for record in records.chunks_exact(RECORD) {
        let word =
            |at: usize| record[at * 8..at * 8 + 8].try_into().map(u64::from_le_bytes).unwrap_or_default();
        let stamp = Stamp {
            dev: word(0),
            ino: word(1),
            size: word(2),
            mtime: (word(3) as i64, word(4) as i64),
            ctime: (word(5) as i64, word(6) as i64),
        };
        sums.insert(stamp, record[56..].try_into().ok()?);
    }
    Some(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn age(path: &Path) -> Metadata {
        // Until the file is older than the racy limit its digest is read every time; that is waited for here.
        loop {
            let metadata = std::fs::symlink_metadata(path).unwrap();
            if !Stamp::of(&metadata).is_racy() {
                return metadata;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_known_file_is_not_read_again() {
        let temp = tempfile::tempdir().unwrap();
        let (file, table) = (temp.path().join("file"), temp.path().join("table"));
        std::fs::write(&file, "one").unwrap();
        let metadata = age(&file);
        let digests = Digests::open(table.clone());
        let sum = digests.of(&[(&file, &metadata)]).unwrap();
        digests.save();
        std::fs::remove_file(&file).unwrap();
        // The file is gone, so the answer can only come from the table.
        assert_eq!(Digests::open(table).of(&[(&file, &metadata)]).unwrap(), sum);
    }

    #[test]
    fn what_two_builds_learn_at_once_is_all_kept() {
        let temp = tempfile::tempdir().unwrap();
        let (table, paths) = (temp.path().join("table"), ["a", "b"].map(|name| temp.path().join(name)));
        let builds = [(); 2].map(|()| Digests::open(table.clone()));
        let files = paths.each_ref().map(|path| {
            std::fs::write(path, "content").unwrap();
            (path.as_path(), age(path))
        });
        for (digests, (path, metadata)) in builds.iter().zip(&files) {
            digests.of(&[(path, metadata)]).unwrap();
        }
        builds.iter().for_each(Digests::save);
        paths.iter().for_each(|path| std::fs::remove_file(path).unwrap());
        // The files are gone, so the answers can only come from the table.
        let files = files.each_ref().map(|(path, metadata)| (*path, metadata));
        Digests::open(table).of(&files).unwrap();
    }

    #[test]
    fn new_content_under_an_old_modification_time_is_seen() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("file");
        std::fs::write(&file, "one").unwrap();
        let metadata = age(&file);
        let digests = Digests::open(temp.path().join("table"));
        let sum = digests.of(&[(&file, &metadata)]).unwrap();
        std::fs::write(&file, "two").unwrap();
        File::options().write(true).open(&file).unwrap().set_modified(metadata.modified().unwrap()).unwrap();
        let after = std::fs::symlink_metadata(&file).unwrap();
        assert_eq!((after.mtime(), after.size()), (metadata.mtime(), metadata.size()));
        assert_ne!(digests.of(&[(&file, &after)]).unwrap(), sum);
    }
}
