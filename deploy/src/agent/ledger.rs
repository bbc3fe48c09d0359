//! Files with an object a line, which only grow.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Puts an object at the end. Half a line that a full disk or a power cut left there spoils none but itself.
pub(crate) fn append(path: &Path, object: &impl Serialize) -> io::Result<File> {
    let mut line = serde_json::to_vec(object)?;
    line.push(b'\n');
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    if !ends_a_line(&file)? {
        line.insert(0, b'\n');
    }
    file.write_all(&line)?;
    Ok(file)
}

fn ends_a_line(file: &File) -> io::Result<bool> {
    let Some(last) = file.metadata()?.len().checked_sub(1) else { return Ok(true) };
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    Ok(byte == *b"\n")
}

/// All objects, the oldest first. Half a line is passed over.
///
/// # Errors
/// When the file cannot be read, or a whole line has another meaning than this program knows.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Vec<T>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut all = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        match serde_json::from_slice(line) {
            Ok(object) => all.push(object),
            Err(error) if error.is_data() => return Err(error.into()),
            Err(_) => {}
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_line_spoils_none_but_itself() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        append(&path, &("first", 1)).unwrap();
        // What a full disk left, in the middle of a letter.
        File::options()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all("[\"ü".as_bytes().split_last().unwrap().1)
            .unwrap();
        append(&path, &("second", 2)).unwrap();
        let all: Vec<(String, u8)> = read(&path).unwrap();
        assert_eq!(all, [("first".to_owned(), 1), ("second".to_owned(), 2)]);
        append(&path, &("third", "three")).unwrap();
        read::<(String, u8)>(&path).unwrap_err();
    }
}
