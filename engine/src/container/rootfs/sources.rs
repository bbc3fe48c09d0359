//! What comes into a container from outside: taken before the launch, attached to nothing yet, with the owners that
//! the container's users see.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::thread::ThreadNameSpaceType;

use super::{RDONLY, Rootfs, dev, mount, tmpfs_attributes};
use crate::container::failure::{AtStep, LaunchError};
use crate::container::namespaces::{self, Hosts};
use crate::container::plan::{LaunchPlan, MappedOwners, ResolvedMount, ResolvedSource, RootfsPlan, Whose};
use crate::container::{idmap::UserMap, userns};
use crate::sys;
use crate::sys::mount::Change;
use crate::volume::FileSystem;

/// The mounts that come from outside, in the order of the plan.
#[derive(Debug)]
pub(crate) struct Sources {
    /// The layers, put together, where the container's users are mapped; it puts them together itself otherwise.
    pub(super) layers: Option<OwnedFd>,
    /// /dev, where the container's users are mapped and cannot make devices.
    pub(super) dev: Option<OwnedFd>,
    pub(super) mounts: Vec<Option<OwnedFd>>,
    pub(super) shm: Option<OwnedFd>,
    /// What is not as asked, but no reason to fail.
    pub(crate) warnings: Vec<String>,
}

/// statfs(2): the types of file systems in memory.
const TMPFS_MAGIC: i64 = 0x0102_1994;
const RAMFS_MAGIC: i64 = 0x8584_58f6;

// === impl Sources ===

impl Sources {
    /// Takes a detached copy of everything the plan binds, and mounts its file systems. The caller is in the host's
    /// namespaces: a shared source stays shared, and a server is reached by way of the host's network.
    pub(crate) fn take(plan: &LaunchPlan, hosts: &Hosts) -> Result<Self, LaunchError> {
        let rootfs = &plan.rootfs;
        let shm = take_shm(plan, hosts)?;
        let Some(users) = &plan.process.users else {
            let mounts = take_plain(rootfs)?;
            return Ok(Self { layers: None, dev: None, mounts, shm, warnings: Vec::new() });
        };
        if rootfs.listed {
            // A bundle's files have the owners that its users are to see.
            let layers = mount::clone_path(&rootfs.upper, true).at("bind", rootfs.upper.display())?;
            let mounts = take_plain(rootfs)?;
            return Ok(Self { layers: Some(layers), dev: None, mounts, shm, warnings: Vec::new() });
        }
        let namespace = userns::without_processes(users)?;
        let mut warnings = Vec::new();
        let mut mounts = Vec::new();
        for wanted in &rootfs.mounts {
            mounts.push(take_mapped(wanted, namespace.as_fd(), &mut warnings)?);
        }
        let layers = in_mounts_of_its_own(|| {
            map_layers(rootfs, namespace.as_fd())?;
            for (wanted, taken) in rootfs.mounts.iter().zip(&mut mounts) {
                if let ResolvedSource::Layers { lower, .. } = &wanted.source {
                    *taken = Some(image(lower, &wanted.target)?);
                }
            }
            let root = userns::as_root_of(users, || Rootfs::layers(rootfs))?;
            mount::clone_fd(root.as_fd(), false).at("take", "the layers")
        })?;
        let dev = own_dev(rootfs, users)?;
        Ok(Self { layers: Some(layers), dev, mounts, shm, warnings })
    }
}

/// What every mount shows, with the owners that it has on the host.
fn take_plain(plan: &RootfsPlan) -> Result<Vec<Option<OwnedFd>>, LaunchError> {
    let plain = |wanted: &ResolvedMount| match &wanted.source {
        ResolvedSource::Layers { lower, .. } => image(lower, &wanted.target).map(Some),
        _ => {
            let taken = take(wanted)?.map(|(mount, _)| mount);
            if let (Some(mount), Some(owners)) = (&taken, &wanted.owners) {
                map_as_asked(mount, owners, &wanted.target)?;
            }
            Ok(taken)
        }
    };
    plan.mounts.iter().map(plain).collect()
}

fn map_as_asked(mount: &OwnedFd, owners: &MappedOwners, target: &Path) -> Result<(), LaunchError> {
    let namespace = userns::without_processes(&owners.users)?;
    sys::mount::map_owners(mount, namespace.as_fd(), owners.recursive)
        .at("map the owners of the mount at", target.display())
}

/// What a mount shows, and whether its owners are mapped already. What is made inside the container gives nothing here.
fn take(wanted: &ResolvedMount) -> Result<Option<(OwnedFd, bool)>, LaunchError> {
    match &wanted.source {
        ResolvedSource::Bind { path, recursive, subpath, .. } => {
            let cloned = clone_bound(path, subpath.as_deref(), *recursive)
                .map_err(|error| cannot_bind(path, subpath.as_deref(), error))?;
            Ok(Some((cloned, false)))
        }
        ResolvedSource::FileSystem { system, shown, .. } => {
            // One that ended since has taken along what was in memory.
            let shown = shown.as_ref().and_then(|(pid, at)| Some((namespaces::hold(*pid).ok()?, at)));
            match shown {
                Some((process, target)) => {
                    copy_of_another(process.as_fd(), target).map(|copy| Some((copy, true)))
                }
                None => mount_system(system).map(|mount| Some((mount, false))),
            }
        }
        ResolvedSource::Content { file, .. } => {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let opened = rustix::fs::open(file, flags, Mode::empty()).at("read", file.display())?;
            Ok(Some((opened, true)))
        }
        ResolvedSource::Kind { .. }
        | ResolvedSource::Cgroups
        | ResolvedSource::Tmpfs { .. }
        | ResolvedSource::Layers { .. } => Ok(None),
    }
}

/// As [`take`], with the owners that the container's users see. A file system that cannot map them shows its own, which
/// are nobody's inside.
fn take_mapped(
    wanted: &ResolvedMount,
    namespace: BorrowedFd<'_>,
    warnings: &mut Vec<String>,
) -> Result<Option<OwnedFd>, LaunchError> {
    let Some((taken, done)) = take(wanted)? else { return Ok(None) };
    let recursive = matches!(wanted.source, ResolvedSource::Bind { recursive: true, .. });
    if !done && let Err(error) = sys::mount::map_owners(&taken, namespace, recursive) {
        warnings.push(format!(
            "the files at {} keep the host's owners, which are nobody in the container: their file system cannot map \
             them ({error})",
            wanted.target.display()
        ));
    }
    Ok(Some(taken))
}

/// The layers of an image as a mount that can only be read.
fn image(lower: &[PathBuf], target: &Path) -> Result<OwnedFd, LaunchError> {
    let whole = match lower {
        [only] => mount::clone_path(only, false),
        several => mount::layers(several),
    };
    let whole = whole.at("mount the image at", target.display())?;
    let change = Change { set: RDONLY, ..Change::default() };
    sys::mount::change(&whole, change).at("mount the image at", target.display())?;
    Ok(whole)
}

/// Covers every directory that overlays are made of with itself, its owners mapped. What is written in the container
/// thus gets its ids inside on the disk, and every tool that reads a writable layer finds the image's own ids.
fn map_layers(plan: &RootfsPlan, namespace: BorrowedFd<'_>) -> Result<(), LaunchError> {
    let mut directories: BTreeSet<&Path> = plan.lower.iter().map(PathBuf::as_path).collect();
    for wanted in &plan.mounts {
        if let ResolvedSource::Layers { lower, .. } = &wanted.source {
            directories.extend(lower.iter().map(PathBuf::as_path));
        }
    }
    // The overlay wants its two directories in one mount.
    directories.extend(plan.upper.parent());
    for directory in directories {
        let shown = directory.display();
        let copy = mount::clone_path(directory, false).at("take the layer", &shown)?;
        sys::mount::map_owners(&copy, namespace, false).map_err(|error| cannot_map(directory, &error))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let place = rustix::fs::open(directory, flags, Mode::empty()).at("open", &shown)?;
        mount::attach(&copy, &place).at("map the owners of", &shown)?;
    }
    Ok(())
}

fn cannot_map(directory: &Path, error: &std::io::Error) -> LaunchError {
    LaunchError::Invalid(format!(
        "users cannot be mapped: the owners of {} cannot be shown mapped ({error}); that takes Linux 5.19 and a file \
         system like ext4, xfs, btrfs or, from 6.3 on, tmpfs",
        directory.display()
    ))
}

/// /dev with its devices, which belong to the container's root.
fn own_dev(plan: &RootfsPlan, users: &UserMap) -> Result<Option<OwnedFd>, LaunchError> {
    if plan.has_mount("/dev") {
        return Ok(None);
    }
    let mask = rustix::process::umask(Mode::empty());
    let made = dev::make().and_then(|dev| dev::make_nodes_in(dev.as_fd(), &plan.devices).map(|()| dev));
    rustix::process::umask(mask);
    let dev = made?;
    dev::give_away(dev.as_fd(), users)?;
    Ok(Some(dev))
}

/// Does something in a mount namespace of this process's own, which ends with it, and comes back.
fn in_mounts_of_its_own<T>(act: impl FnOnce() -> Result<T, LaunchError>) -> Result<T, LaunchError> {
    let own = own_mounts()?;
    sys::process::new_mount_namespace().at("make a namespace for", "mounts")?;
    let done = Rootfs::isolate().and_then(|()| act());
    return_to(&own)?;
    done
}

/// Does something in the mount namespace of a process and comes back: a mount can only be copied by somebody who is
/// in its namespace.
fn in_its_mounts<T>(process: BorrowedFd<'_>, act: impl FnOnce() -> T) -> Result<T, LaunchError> {
    let own = own_mounts()?;
    rustix::thread::move_into_thread_name_spaces(process, ThreadNameSpaceType::MOUNT)
        .at("join the namespace", "mount")?;
    let done = act();
    return_to(&own)?;
    Ok(done)
}

fn own_mounts() -> Result<OwnedFd, LaunchError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open("/proc/self/ns/mnt", flags, Mode::empty()).at("open", "/proc/self/ns/mnt")
}

fn return_to(own: &OwnedFd) -> Result<(), LaunchError> {
    rustix::thread::move_into_thread_name_spaces(own.as_fd(), ThreadNameSpaceType::MOUNT)
        .at("return to the namespace", "mount")
}

pub(super) fn mount_system(system: &FileSystem) -> Result<OwnedFd, LaunchError> {
    let flags = system.flags;
    let mut attributes = tmpfs_attributes(!flags.no_exec, !flags.no_suid, !flags.no_dev);
    attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, flags.read_only);
    attributes.set(MountAttrFlags::MOUNT_ATTR_NOATIME, flags.no_access_times);
    let mut options = vec![("source", system.device.as_str())];
    if flags.read_only {
        // The file system itself must know, too: a device may not be writable at all.
        options.push(("ro", ""));
    }
    options.extend(system.options.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    let shown = format!("the {} volume {}", system.kind, system.device);
    mount::make(&system.kind, &options, attributes).at("mount", shown)
}

/// A copy of the mount that another container has there.
fn copy_of_another(process: BorrowedFd<'_>, target: &Path) -> Result<OwnedFd, LaunchError> {
    let copy = in_its_mounts(process, || mount::clone_path(target, false))?.at("bind", target.display())?;
    // Whatever that container has done to its own tree: this one gets memory, and nothing of a host's disk.
    let system = rustix::fs::fstatfs(&copy).at("inspect", target.display())?;
    if !matches!(system.f_type, TMPFS_MAGIC | RAMFS_MAGIC) {
        return Err(LaunchError::Invalid(format!(
            "another container hides the volume at {}",
            target.display()
        )));
    }
    Ok(copy)
}

/// A copy of what is at this path of the host, or at a path inside of it. That one is looked up by the kernel with the
/// directory as the end of the world, once: nobody who can write there leads it elsewhere in between.
pub(super) fn clone_bound(path: &Path, subpath: Option<&Path>, recursive: bool) -> Result<OwnedFd, Errno> {
    let Some(subpath) = subpath else { return mount::clone_path(path, recursive) };
    let top = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let found = rustix::fs::openat2(&top, subpath, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    mount::clone_fd(found.as_fd(), recursive)
}

pub(super) fn cannot_bind(path: &Path, subpath: Option<&Path>, error: Errno) -> LaunchError {
    let step = |step: &str, object: &Path| LaunchError::Step {
        step: step.to_owned(),
        object: object.display().to_string(),
        cause: error.into(),
    };
    match subpath {
        Some(subpath) if error == Errno::XDEV => {
            LaunchError::Invalid(format!("the subpath {} leads out of its volume", subpath.display()))
        }
        Some(subpath) => step("find the volume's", subpath),
        None => step("bind", path),
    }
}

/// Whoever shares an IPC namespace shares its /dev/shm.
fn take_shm(plan: &LaunchPlan, hosts: &Hosts) -> Result<Option<OwnedFd>, LaunchError> {
    let shm = Path::new("/dev/shm");
    match &plan.namespaces.ipc {
        _ if plan.rootfs.shm_size.is_none() => Ok(None),
        Whose::Own => Ok(None),
        Whose::Host => mount::clone_path(shm, true).map(Some).at("bind", shm.display()),
        // Whoever joins by a file alone says by a mount of its own what is at /dev/shm.
        Whose::At(_) => Ok(None),
        whose @ Whose::Of(_) => {
            let Some(other) = hosts.of(whose) else { return Ok(None) };
            in_its_mounts(other, || mount::clone_path(shm, true))?.map(Some).at("bind", shm.display())
        }
    }
}
