//! Files that came with a release, put where containers mount them from.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use engine::error::{Error, Result};
use engine::store::{self, Durability};

use super::places::Places;
use crate::message::KeptFile;
use crate::protocol::Channel;

/// Takes the bytes of a file from the channel and keeps them, whole or not at all.
pub(crate) fn keep(channel: &mut Channel, places: &Places, file: &KeptFile) -> Result<()> {
    let broken =
        |error: crate::protocol::ChannelError| Error::failed(format!("receive {}", file.name), error);
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < file.size {
        bytes.extend(channel.receive_data().map_err(broken)?);
    }
    if file.name.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err(Error::invalid(format!("{:?} is not a name that a release gives", file.name)));
    }
    let failed = |error| Error::failed(format!("keep {}", file.name), error);
    let path = if file.secret { places.secret(&file.name) } else { places.kept(&file.name) };
    if let Some(parent) = path.parent() {
        store::private_directory(parent).map_err(failed)?;
        reachable(places, parent).map_err(failed)?;
    }
    if file.directory {
        return unpack(&path, &bytes).map_err(failed);
    }
    // What has the digest of its contents for a name is the same already.
    if !file.secret && path.exists() {
        return Ok(());
    }
    let durability = if file.secret { Durability::Rename } else { Durability::Sync };
    store::write_atomic(&path, &bytes, file.mode & 0o777, durability).map_err(failed)
}

/// Programs in containers open the file by a mount of it alone; the directories above stay the owner's.
fn reachable(places: &Places, parent: &Path) -> io::Result<()> {
    for directory in parent
        .ancestors()
        .take_while(|above| above.starts_with(places.state()) || above.starts_with(places.run()))
    {
        fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

fn unpack(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(path);
    let scratch = tempfile::tempdir_in(parent)?;
    let inner = scratch.path().join("tree");
    fs::create_dir(&inner)?;
    let mut archive = tar::Archive::new(bytes);
    archive.set_preserve_permissions(true);
    archive.unpack(&inner)?;
    match fs::rename(&inner, path) {
        // Another rollout was quicker; it has the same contents, since it has the same name.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        other => other,
    }
}
