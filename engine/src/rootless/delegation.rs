//! The control group that a user has been given (Documentation/admin-guide/cgroup-v2.rst, "Delegation"), in which the
//! user's engine limits and counts containers.
//!
//! It is that of the first command that has one; the following ones find it on record. Processes can only be put there
//! by a command that shares with it a group of the user's, as the kernel wants it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use crate::error::{Error, Result};
use crate::paths::{self, RootlessRun};
use crate::store::{self, Durability};

/// Where commands and monitors go that were in the group itself: a group that hands controllers down has no processes.
const COMMANDS: &str = "rengine-commands";
/// systemd says by this attribute that a unit's group is somebody else's to arrange (systemd.resource-control(5),
/// `Delegate=`).
const DELEGATED: &str = "user.delegate";
/// Processes may be born while the others are moved.
const ROUNDS: usize = 50;

/// The group on record, below which this user's containers are; `None` when the user has not been given any.
pub(crate) fn group() -> Option<PathBuf> {
    recorded(&RootlessRun::at(paths::ROOTLESS_INSIDE.into()))
}

/// Whether this process may start others in that group.
pub(crate) fn is_in_reach(group: &Path) -> bool {
    let Some(own) = own() else { return false };
    let common = own.ancestors().find(|above| group.starts_with(above));
    common.is_some_and(|common| is_writable(&common.join("cgroup.procs")))
}

/// Takes the group that this process is in, when none is on record and it is the user's.
///
/// # Errors
/// When it cannot be prepared or recorded.
pub(super) fn take(run: &RootlessRun) -> Result<()> {
    if recorded(run).is_some() {
        return Ok(());
    }
    let Some(group) = own().filter(|group| is_delegated(group)) else { return Ok(()) };
    let failed = |error| Error::failed(format!("take the control group {}", group.display()), error);
    vacate(&group).map_err(failed)?;
    let text = group.as_os_str().as_encoded_bytes();
    store::write_atomic(&run.cgroup(), text, 0o600, Durability::Rename).map_err(failed)
}

fn recorded(run: &RootlessRun) -> Option<PathBuf> {
    let text = fs::read_to_string(run.cgroup()).ok()?;
    Some(PathBuf::from(text)).filter(|path| path.join("cgroup.procs").exists())
}

/// Moves every process of the group one further down.
fn vacate(group: &Path) -> io::Result<()> {
    let commands = group.join(COMMANDS);
    match fs::create_dir(&commands) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    for _ in 0..ROUNDS {
        let inside = fs::read_to_string(group.join("cgroup.procs"))?;
        if inside.trim().is_empty() {
            return Ok(());
        }
        for pid in inside.lines() {
            match fs::write(commands.join("cgroup.procs"), pid) {
                // It has ended meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                moved => moved?,
            }
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// The group this process is in, by its path on this machine.
fn own() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let (mount, system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        // One that shows a part of the hierarchy is of no use: its paths are others.
        (system.starts_with("cgroup2 ") && fields.next() == Some("/")).then(|| fields.next()).flatten()
    })?;
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new(mount).join(path))
}

/// Whether the group is this user's to arrange. A unit of the user's own service manager belongs to the user as well,
/// but is that manager's to arrange unless it says otherwise.
fn is_delegated(group: &Path) -> bool {
    let files = ["", "cgroup.procs", "cgroup.subtree_control"];
    let owned = files.iter().all(|file| is_writable(&group.join(file)));
    let managed = group.components().any(|part| part.as_os_str().to_string_lossy().starts_with("user@"));
    owned && (!managed || says_delegated(group))
}

fn says_delegated(group: &Path) -> bool {
    let mut value = [0; 1];
    rustix::fs::getxattr(group, DELEGATED, &mut value).is_ok_and(|length| value[..length] == *b"1")
}

fn is_writable(path: &Path) -> bool {
    rustix::fs::access(path, Access::WRITE_OK).is_ok()
}
