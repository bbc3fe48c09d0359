//! A container's root file system, for as long as it is mounted. When the last one lets go of an overlay, the kernel
//! first writes everything of the file system below to the disk, whoever it belongs to (`ovl_sync_fs`). The last process
//! of a container would do so before anybody hears of its end, which on a busy disk takes seconds: so somebody else
//! holds the root until then, and a lock keeps the next one from mounting it meanwhile.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};

use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::paths::Root;
use crate::store::{self, Lock};

/// The right to have a container's root mounted. What it holds of it goes first when it is dropped, then the lock.
#[derive(Debug)]
pub(crate) struct Mounted {
    root: Option<OwnedFd>,
    _lock: Lock,
}

impl Mounted {
    /// Waits until nobody has it mounted.
    ///
    /// # Errors
    /// When the lock cannot be opened.
    pub(crate) fn claim(root: &Root, id: &ContainerId) -> Result<Self> {
        let lock = store::private_directory(&root.container_run(id))
            .and_then(|()| Lock::exclusive(&root.mounted_lock(id)))
            .map_err(|error| Error::failed(format!("lock the root of container {}", id.short()), error))?;
        Ok(Self { root: None, _lock: lock })
    }

    /// Holds the root of this process, and nothing of what is mounted on it: that goes with the last process of the
    /// container, for the host may be waiting to unmount it. One that has ended already has nothing to hold.
    pub(crate) fn hold(&mut self, pid: i32) {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.root = rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty()).ok();
    }
}
