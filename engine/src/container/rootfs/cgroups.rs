//! /sys/fs/cgroup as a container sees it: its own part of every hierarchy, which it cannot write.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, UnmountFlags};

use super::mount::{self, PLAIN};
use super::target;
use crate::container::failure::{AtStep, LaunchError};
use crate::sys;
use crate::sys::mount::Change;

/// One hierarchy of version 1 that this process is in.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy<'a> {
    /// `cpu,cpuacct` or `name=systemd`.
    controllers: &'a str,
    /// Where this process is in it, as its cgroup namespace shows it.
    path: &'a str,
}

const AT: &str = "/sys/fs/cgroup";

/// Mounts the hierarchies this process is in: one file system on a unified host, else a directory each.
pub(crate) fn mount(root: BorrowedFd<'_>, writable: bool) -> Result<(), LaunchError> {
    let place = match target::find(root, Path::new(AT)) {
        // A kernel without cgroups has no place to mount them at.
        Err(Errno::NOENT) => return Ok(()),
        other => other.at("find", AT)?,
    };
    mount_at(&place, writable)
}

/// The same at this place.
pub(crate) fn mount_at(place: &OwnedFd, writable: bool) -> Result<(), LaunchError> {
    let read_only = if writable { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY };
    let own = fs::read_to_string("/proc/self/cgroup").at("read", "/proc/self/cgroup")?;
    let legacy: Vec<Hierarchy<'_>> = own.lines().filter_map(legacy_hierarchy).collect();
    if legacy.is_empty() {
        let unified = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
        let tree = mount::make("cgroup2", &[], PLAIN | read_only).at("mount", AT)?;
        return attach_part(&tree, place.as_fd(), unified);
    }
    let directory = mount::make("tmpfs", &[("mode", "755")], PLAIN).at("mount", AT)?;
    mount::attach(&directory, place).at("mount", AT)?;
    for hierarchy in &legacy {
        mount_legacy(&directory, hierarchy, read_only)?;
    }
    let change = Change { set: u64::from(read_only.bits()), ..Change::default() };
    sys::mount::change(&directory, change).at("make read-only", AT)
}

fn mount_legacy(
    directory: &OwnedFd,
    hierarchy: &Hierarchy<'_>,
    read_only: MountAttrFlags,
) -> Result<(), LaunchError> {
    let controllers = hierarchy.controllers;
    let (name, options) = match controllers.split_once("name=") {
        Some((_, name)) => (name, vec![("none", ""), ("name", name)]),
        None => (controllers, controllers.split(',').map(|controller| (controller, "")).collect()),
    };
    rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(0o755)).at("mount the cgroup", name)?;
    let place = target::find(directory, Path::new(name)).at("mount the cgroup", name)?;
    match mount::make("cgroup", &options, PLAIN | read_only) {
        // The root of a user namespace may do so in a cgroup namespace of its own alone; the host's mount is in sight.
        Err(Errno::PERM) => {
            let host = Path::new(AT).join(name).join(hierarchy.path.trim_start_matches('/'));
            let part = mount::clone_path(&host, false).at("bind the cgroup", host.display())?;
            let change = Change { set: u64::from((PLAIN | read_only).bits()), ..Change::default() };
            sys::mount::change(&part, change).at("restrict the cgroup", name)?;
            mount::attach(&part, &place).at("bind the cgroup", name)?;
        }
        made => attach_part(&made.at("mount the cgroup", name)?, place.as_fd(), hierarchy.path)?,
    }
    for alias in name.split(',').filter(|alias| *alias != name) {
        rustix::fs::symlinkat(name, directory, alias).at("link the cgroup", alias)?;
    }
    Ok(())
}

/// Attaches what is at this path of a hierarchy. With a cgroup namespace of its own that is its root.
fn attach_part(tree: &OwnedFd, place: BorrowedFd<'_>, path: &str) -> Result<(), LaunchError> {
    mount::attach(tree, place).at("mount", AT)?;
    if path == "/" {
        return Ok(());
    }
    let part = target::find(tree, Path::new(path)).at("find the cgroup", path)?;
    let part = mount::clone_fd(part.as_fd(), false).at("bind the cgroup", path)?;
    rustix::process::fchdir(tree).at("enter the cgroup", path)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).at("leave the cgroup", path)?;
    rustix::process::chdir("/").at("enter", "/")?;
    mount::attach(&part, place).at("bind the cgroup", path)
}

/// `4:memory:/a` (cgroups(7)); the unified hierarchy `0::/a` is none.
fn legacy_hierarchy(line: &str) -> Option<Hierarchy<'_>> {
    let mut fields = line.splitn(3, ':');
    let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    (!controllers.is_empty()).then_some(Hierarchy { controllers, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hierarchies_of_version_1_have_controllers_in_their_line() {
        let line = legacy_hierarchy("4:cpu,cpuacct:/a:b");
        assert_eq!(line, Some(Hierarchy { controllers: "cpu,cpuacct", path: "/a:b" }));
        assert_eq!(legacy_hierarchy("0::/a"), None);
        assert_eq!(legacy_hierarchy(""), None);
    }
}
