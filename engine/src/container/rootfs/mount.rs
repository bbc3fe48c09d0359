//! Mounts held by descriptor: made, cloned, attached. No path of a container is ever looked up here.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use crate::rootless;
use crate::store;

/// Nothing of the host's privileges comes in through it.
pub(crate) const PLAIN: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Makes a file system. An option with an empty value is a flag.
pub(crate) fn make(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Errno> {
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    if options.iter().all(|(key, _)| *key != "source") {
        // What mount(8) and df(1) show in the first column.
        fsconfig_set_string(&context, "source", kind)?;
    }
    for (key, value) in options {
        if value.is_empty() {
            fsconfig_set_flag(&context, *key)?;
        } else {
            fsconfig_set_string(&context, *key, *value)?;
        }
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// The layers of an overlay and how it keeps changes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Overlay<'a> {
    /// Read-only layers, topmost first.
    pub(crate) lower: &'a [PathBuf],
    /// The writable layer.
    pub(crate) upper: &'a Path,
    /// The overlay's own scratch directory.
    pub(crate) work: &'a Path,
    /// Whether the writable layer need not survive a power cut.
    pub(crate) volatile: bool,
}

/// The upper directory must be readable as a layer by itself, whatever the kernel's defaults are.
fn overlay_features() -> [(&'static str, &'static str); 3] {
    // With attributes that belong to the user, redirections must not even be followed.
    let redirections = if rootless::is_inside() { "nofollow" } else { "off" };
    [("redirect_dir", redirections), ("metacopy", "off"), ("index", "off")]
}

impl Overlay<'_> {
    /// Mounts it over its own upper directory; the root of what is mounted.
    pub(crate) fn mount(&self) -> Result<OwnedFd, Errno> {
        self.forget_volatile();
        match self.make() {
            Ok(mount) => {
                let place = open_directory(self.upper)?;
                attach(&mount, &place)?;
                Ok(mount)
            }
            // Before 6.7 the kernel does not take layers one by one.
            Err(Errno::INVAL) => self.mount_old(),
            Err(error) => Err(error),
        }
    }

    /// The kernel marks what a power cut may have damaged, and mounts it no more (overlayfs, "Volatile mount"). What
    /// would not have survived a power cut has seen none.
    fn forget_volatile(&self) {
        // One that stays is what the mount then fails for.
        let _ = store::remove_tree(&self.work.join("work/incompat"));
    }

    /// Each layer is an option of its own, so that no character in a path means anything.
    fn make(&self) -> Result<OwnedFd, Errno> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for layer in self.lower {
            fsconfig_set_string(&context, "lowerdir+", layer)?;
        }
        fsconfig_set_string(&context, "upperdir", self.upper)?;
        fsconfig_set_string(&context, "workdir", self.work)?;
        fsconfig_set_string(&context, "source", "overlay")?;
        for (feature, value) in overlay_features() {
            fsconfig_set_string(&context, feature, value)?;
        }
        if self.volatile {
            fsconfig_set_flag(&context, "volatile")?;
        }
        if rootless::is_inside() {
            fsconfig_set_flag(&context, "userxattr")?;
        }
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    }

    /// The old call takes all options in one page. The layers are given as descriptors, which are short and have
    /// no character that means anything.
    fn mount_old(&self) -> Result<OwnedFd, Errno> {
        let lower = self.lower.iter().map(|path| open_directory(path)).collect::<Result<Vec<_>, _>>()?;
        let (upper, work) = (open_directory(self.upper)?, open_directory(self.work)?);
        let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
        let lower: Vec<String> = lower.iter().map(name).collect();
        let mut options =
            format!("lowerdir={},upperdir={},workdir={}", lower.join(":"), name(&upper), name(&work));
        for (feature, value) in overlay_features() {
            options.push_str(&format!(",{feature}={value}"));
        }
        if self.volatile {
            options.push_str(",volatile");
        }
        if rootless::is_inside() {
            options.push_str(",userxattr");
        }
        let options = CString::new(options).map_err(|_| Errno::INVAL)?;
        rustix::mount::mount("overlay", self.upper, "overlay", MountFlags::empty(), options.as_c_str())?;
        open_directory(self.upper)
    }
}

/// Several read-only layers, topmost first, as one file system that cannot be written.
pub(crate) fn layers(lower: &[PathBuf]) -> Result<OwnedFd, Errno> {
    let directories = lower.iter().map(|path| open_directory(path)).collect::<Result<Vec<_>, _>>()?;
    let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
    let names: Vec<String> = directories.iter().map(name).collect();
    let mut context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let one_by_one = lower.iter().try_for_each(|layer| fsconfig_set_string(&context, "lowerdir+", layer));
    match one_by_one {
        // Before 6.7 the kernel does not take layers one by one.
        Err(Errno::INVAL) => {
            context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_set_string(&context, "lowerdir", names.join(":"))?;
        }
        other => other?,
    }
    if rootless::is_inside() {
        fsconfig_set_flag(&context, "userxattr")?;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_RDONLY)
}

fn open_directory(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// Puts a detached mount onto what this descriptor refers to.
pub(crate) fn attach(mount: impl AsFd, target: impl AsFd) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH.union(MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH);
    move_mount(mount, "", target, "", flags)
}

/// A detached copy of what is at this path of the host, with mounts below it if wanted.
pub(crate) fn clone_path(path: &Path, recursive: bool) -> Result<OwnedFd, Errno> {
    open_tree(CWD, path, clone_flags(recursive))
}

/// A detached copy of what this descriptor refers to.
pub(crate) fn clone_fd(fd: BorrowedFd<'_>, recursive: bool) -> Result<OwnedFd, Errno> {
    open_tree(fd, "", clone_flags(recursive) | OpenTreeFlags::AT_EMPTY_PATH)
}

fn clone_flags(recursive: bool) -> OpenTreeFlags {
    let depth = if recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
    OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | depth
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn both_calls_mount_the_same_overlay() {
        // A thread of its own can have a mount namespace of its own, and takes it along when it ends.
        std::thread::spawn(|| {
            crate::sys::process::new_mount_namespace().unwrap();
            let private =
                rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private).unwrap();
            for old in [false, true] {
                let directory = tempfile::tempdir().unwrap();
                let at = |name: &str| directory.path().join(name);
                for (name, file) in [("top:,1", "a"), ("low", "b"), ("upper", "c"), ("work", "")] {
                    fs::create_dir(at(name)).unwrap();
                    if !file.is_empty() {
                        fs::write(at(name).join(file), name).unwrap();
                    }
                }
                let (lower, upper, work) = ([at("top:,1"), at("low")], at("upper"), at("work"));
                let overlay = Overlay { lower: &lower, upper: &upper, work: &work, volatile: true };
                let root = if old { overlay.mount_old() } else { overlay.mount() }.unwrap();
                let seen = |name: &str| rustix::fs::statat(&root, name, rustix::fs::AtFlags::empty()).is_ok();
                assert!(seen("a") && seen("b") && seen("c"), "old: {old}");
                assert!(at("upper").join("a").exists(), "old: {old}");
                rustix::mount::unmount(&upper, rustix::mount::UnmountFlags::DETACH).unwrap();
            }
        })
        .join()
        .unwrap();
    }
}
