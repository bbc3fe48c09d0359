//! The root of a container at rest: its layers and what is bound into it, for whoever reads and writes its files.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;

use crate::container::failure::LaunchError;
use crate::container::plan::{ResolvedSource, RootfsPlan};
use crate::container::record::ContainerRecord;
use crate::container::rootfs::sources::{cannot_bind, clone_bound, mount_system};
use crate::container::rootfs::{Rootfs, attach_requested, mount};
use crate::paths::Root;

/// Turns this process's root into the container's, in the mount namespace it is in, which must be its own. With
/// `bare`, without what is bound into it. What exists only while the container runs is not there: kernel file
/// systems, memory, secrets.
pub(crate) fn enter_at_rest(root: &Root, record: &ContainerRecord, bare: bool) -> Result<(), LaunchError> {
    let plan = RootfsPlan::at_rest(root, record)?;
    // Before the host's tree goes private, as in a start: a shared source is cloned as it is.
    let sources = if bare { Vec::new() } else { sources(&plan)? };
    Rootfs::isolate()?;
    let top = Rootfs::layers(&plan)?;
    for (wanted, tree) in plan.mounts.iter().zip(&sources) {
        if let Some(tree) = tree {
            attach_requested(top.as_fd(), wanted, tree.as_fd())?;
        }
    }
    Rootfs::at_rest(top).pivot(&plan).map(drop)
}

/// What the plan binds. A source that is gone leaves its place empty, which a start would refuse.
fn sources(plan: &RootfsPlan) -> Result<Vec<Option<OwnedFd>>, LaunchError> {
    let bound = plan.mounts.iter().map(|mount| match &mount.source {
        ResolvedSource::Bind { path, recursive, subpath, .. } => {
            match clone_bound(path, subpath.as_deref(), *recursive) {
                Err(Errno::NOENT) => Ok(None),
                other => other.map(Some).map_err(|error| cannot_bind(path, subpath.as_deref(), error)),
            }
        }
        ResolvedSource::FileSystem { system, .. } if !system.is_memory() => mount_system(system).map(Some),
        ResolvedSource::FileSystem { .. }
        | ResolvedSource::Kind { .. }
        | ResolvedSource::Cgroups
        | ResolvedSource::Tmpfs { .. }
        | ResolvedSource::Content { .. }
        | ResolvedSource::Layers { .. } => Ok(None),
    });
    bound.collect()
}

/// The root as its layers alone show it, without anything that is mounted below it.
pub(crate) fn without_mounts(top: &OwnedFd) -> Result<OwnedFd, Errno> {
    use rustix::fs::{Mode, OFlags};
    let alone = mount::clone_fd(top.as_fd(), false)?;
    rustix::fs::openat(&alone, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}
