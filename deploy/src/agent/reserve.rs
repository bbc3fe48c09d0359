//! Room on the disk that a rollout keeps until it is decided: what has to be written down then must not fail for want of
//! it, when there is no way back any more.

use std::fs::File;
use std::io;

use engine::error::{Error, Result};
use engine::store;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::places::Places;
use crate::release::Release;

/// Besides the release, which is written several times: the history, names, states. In bytes.
const LEAST: u64 = 128 << 10;

/// Keeps room for what a rollout of this release has to write down in the end.
///
/// # Errors
/// When there is none.
pub(crate) fn keep(places: &Places, release: &Release) -> Result<()> {
    let keep = || -> io::Result<()> {
        let length = LEAST + 4 * serde_json::to_vec(release)?.len() as u64;
        let file = File::create(places.reserve())?;
        match fallocate(&file, FallocateFlags::empty(), 0, length) {
            // A file system that cannot keep room may have it all the same.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    };
    keep().map_err(|error| {
        // The first failure is the one to tell.
        let _ = release_room(places);
        Error::failed(format!("keep room for the records of {}", release.id), error)
    })
}

/// Gives the room back to who needs it now. None at all is fine.
///
/// # Errors
/// When it cannot be given back.
pub(crate) fn give_back(places: &Places) -> Result<()> {
    release_room(places).map_err(|error| Error::failed("give back the room that was kept", error))
}

fn release_room(places: &Places) -> io::Result<()> {
    store::remove_file(&places.reserve())
}
