//! The host's tree as a user's engine sees it: a /run of its own, and name servers that can be reached.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::mount::{
    MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount_bind, mount_change, move_mount, open_tree,
};

use super::{RESOLV_CONF, RESOLV_CONF_INSIDE, uplink};
use crate::{paths, store};

type Step<T> = Result<T, (&'static str, io::Error)>;

/// Arranges the mount namespace this process is in. Mounts that are made on the host later still come in.
pub(super) fn arrange(directory: &Path) -> Step<()> {
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", slave).at("let mounts of the host come in")?;
    let host = fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let run = rustix::fs::open("/run", flags, Mode::empty()).at("open /run")?;
    // Everything that is root's in /run on a host is the user's here.
    let own = paths::RootlessRun::at(directory.to_owned()).run();
    store::private_directory(&own).at("make a /run")?;
    // Covered below, where it lies in the former /run.
    let own =
        open_tree(rustix::fs::CWD, &own, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
            .at("take a /run")?;
    let way_out = open_tree(
        rustix::fs::CWD,
        directory,
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC,
    )
    .at("take the way out")?;
    attach(&own, "/run").at("show a /run")?;
    show_former(&run)?;
    store::private_directory(Path::new(paths::ROOTLESS_INSIDE)).at("make the place of the way out")?;
    attach(&way_out, paths::ROOTLESS_INSIDE).at("show the way out")?;
    // Each command sees to it that they are those of its own time.
    fs::write(RESOLV_CONF_INSIDE, uplink::resolv_conf(&host, None)).at("write the name servers")?;
    if Path::new(RESOLV_CONF).exists() {
        mount_bind(RESOLV_CONF_INSIDE, RESOLV_CONF).at("show the name servers")?;
    }
    Ok(())
}

/// What was in /run stays in sight: sockets of programs, the user's own directory. What cannot be shown is left out.
fn show_former(run: &OwnedFd) -> Step<()> {
    for entry in rustix::fs::Dir::read_from(run).at("list /run")? {
        let entry = entry.at("list /run")?;
        let name = entry.file_name();
        // Root's own engines are none of this one's business.
        if matches!(name.to_bytes(), b"." | b"..") || name.to_bytes().starts_with(b"rengine") {
            continue;
        }
        let place = Path::new("/run").join(OsStr::from_bytes(name.to_bytes()));
        match entry.file_type() {
            FileType::Symlink => {
                if let Ok(target) = rustix::fs::readlinkat(run, name, Vec::new()) {
                    let target: &OsStr = OsStr::from_bytes(target.to_bytes());
                    unless_there(symlink(target, &place)).at("link in /run")?;
                }
                continue;
            }
            FileType::Directory => unless_there(fs::create_dir(&place)).at("make a directory in /run")?,
            _ => unless_there(File::create_new(&place).map(drop)).at("make a file in /run")?,
        }
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE
            | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
        if let Ok(tree) = open_tree(run.as_fd(), name, flags) {
            // What has become another kind of file since the last keeper has no place.
            let _ = attach(&tree, &place);
        }
    }
    Ok(())
}

fn attach(tree: &OwnedFd, place: impl AsRef<Path>) -> rustix::io::Result<()> {
    move_mount(tree, "", rustix::fs::CWD, place.as_ref(), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// An earlier keeper has made the same.
fn unless_there(made: io::Result<()>) -> io::Result<()> {
    match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

trait At<T> {
    fn at(self, step: &'static str) -> Step<T>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, step: &'static str) -> Step<T> {
        self.map_err(|error| (step, error.into()))
    }
}
