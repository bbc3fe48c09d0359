//! A conversion on the disk.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use engine::error::{Error, Result};

use super::{Conversion, Document};

// === impl Conversion ===

impl Conversion {
    /// Writes all objects to one file; a file each when the path is a directory or ends with `/`.
    ///
    /// # Errors
    /// When it cannot be written, or one file cannot hold all of it.
    pub fn write(&self, place: &Path) -> Result<()> {
        if place.is_dir() || place.as_os_str().as_encoded_bytes().ends_with(b"/") {
            return self
                .documents
                .iter()
                .try_for_each(|document| document.write(&place.join(&document.file)));
        }
        self.whole()?.write(place)
    }

    /// For whoever wants all of a project or nothing.
    ///
    /// # Errors
    /// When anything is lost.
    pub fn refuse_losses(&self) -> Result<()> {
        match self.losses.len() {
            0 => Ok(()),
            1 => Err(Error::invalid("1 key has no counterpart, and nothing is written")),
            number => {
                Err(Error::invalid(format!("{number} keys have no counterpart, and nothing is written")))
            }
        }
    }

    /// All objects as one.
    ///
    /// # Errors
    /// When they name files that have to be beside them.
    pub fn whole(&self) -> Result<Document> {
        if let Some(beside) = self.documents.iter().find(|document| !document.is_manifest) {
            return Err(Error::invalid(format!("{} is a file beside the others", beside.file))
                .with_hint("name a directory with -o DIRECTORY/"));
        }
        Ok(Document {
            file: String::new(),
            bytes: self.text(),
            is_manifest: true,
            is_secret: self.documents.iter().any(|document| document.is_secret),
        })
    }
}

// === impl Document ===

impl Document {
    /// What holds secrets is for its owner alone, whatever was there before.
    fn write(&self, file: &Path) -> Result<()> {
        let failed = |error| Error::failed(format!("write {}", file.display()), error);
        if let Some(directory) = file.parent() {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        let mode = if self.is_secret { 0o600 } else { 0o644 };
        let mut open = OpenOptions::new();
        let mut opened =
            open.write(true).create(true).truncate(true).mode(mode).open(file).map_err(failed)?;
        if self.is_secret {
            opened.set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
        }
        opened.write_all(&self.bytes).map_err(failed)
    }
}
