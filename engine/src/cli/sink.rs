//! Where an archive goes: standard output, or a file that is there whole or not at all.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A file, or standard output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sink {
    /// A file that everybody may read.
    File(PathBuf),
    /// A file for its owner alone: what is in an image or a container is nobody else's business.
    Private(PathBuf),
    /// Standard output.
    Stdout,
}

// === impl Sink ===

impl Sink {
    /// What `-o FILE` says, or that it is not there.
    pub(super) fn private(path: Option<PathBuf>) -> Self {
        path.map_or(Self::Stdout, Self::Private)
    }

    /// Writes an archive.
    ///
    /// # Errors
    /// When it would go to a terminal, the file cannot be written, or what fills it fails.
    pub(super) fn write(&self, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                if rustix::termios::isatty(&stdout) {
                    return Err(Error::invalid("an archive is not written to a terminal")
                        .with_hint("name a file or redirect standard output"));
                }
                fill(&mut stdout)?;
                stdout.flush().map_err(|error| Error::failed("write the archive", error))
            }
            Self::File(path) => whole(path, 0o644, fill),
            Self::Private(path) => whole(path, 0o600, fill),
        }
    }
}

/// Writes a file beside its name and gives it that when it is done: half an archive would be taken for a whole one.
fn whole(path: &Path, mode: u32, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let failed = |error: io::Error| Error::failed(format!("write {}", path.display()), error);
    // What a link leads to is written, and the link stays.
    let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    match std::fs::metadata(path) {
        Ok(there) if there.is_dir() => return Err(failed(io::ErrorKind::IsADirectory.into())),
        // A pipe or a device is written to: it must not be replaced.
        Ok(there) if !there.is_file() => {
            return fill(&mut File::options().write(true).open(path).map_err(failed)?);
        }
        _ => {}
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !directory.exists() {
        return Err(Error::not_found(format!(
            "write {}: there is no directory {}",
            path.display(),
            directory.display()
        )));
    }
    let partial = tempfile::Builder::new().prefix(".rengine-").tempfile_in(directory).map_err(failed)?;
    let mut file = File::options().write(true).open(partial.path()).map_err(failed)?;
    fill(&mut file)?;
    let (file, partial) = partial.keep().map_err(|error| failed(error.error))?;
    file.set_permissions(PermissionsExt::from_mode(mode))
        .and_then(|()| std::fs::rename(&partial, path))
        .inspect_err(|_| drop(std::fs::remove_file(&partial)))
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_whole_and_its_owners_or_is_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("archive.tar");
        let sink = Sink::private(Some(path.clone()));
        sink.write(|file| file.write_all(b"whole").map_err(|error| Error::failed("write", error))).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        sink.write(|file| {
            file.write_all(b"half").map_err(|error| Error::failed("write", error))?;
            Err(Error::invalid("no more"))
        })
        .unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_stays_one_and_a_directory_is_refused_before_anything_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("file"), directory.path().join("link"));
        std::fs::write(&file, "before").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let write = |path: &Path| {
            Sink::private(Some(path.to_owned()))
                .write(|file| file.write_all(b"after").map_err(|error| Error::failed("write", error)))
        };
        write(&link).unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&file).unwrap(), b"after");
        Sink::private(Some(directory.path().to_owned())).write(|_| panic!("it is written")).unwrap_err();
    }

    #[test]
    fn a_pipe_stays_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let reader = {
            let path = path.clone();
            std::thread::spawn(move || std::fs::read(path).unwrap())
        };
        let sink = Sink::private(Some(path));
        sink.write(|file| file.write_all(b"whole").map_err(|error| Error::failed("write", error))).unwrap();
        assert_eq!(reader.join().unwrap(), b"whole");
    }
}
