//! /dev: a tmpfs with the few nodes every program expects, a devpts of its own, and the terminal.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Access, AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::mount::{self, PLAIN};
use super::target::{self, Missing};
use crate::container::failure::{AtStep, LaunchError};
use crate::container::idmap::{IdMap, UserMap};
use crate::container::plan::{DeviceNode, NodeKind, TerminalSize};
use crate::rootless;

/// A terminal: the side that the engine holds and the side that the program holds.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// The engine's side.
    pub(crate) master: OwnedFd,
    /// The program's side.
    pub(crate) slave: OwnedFd,
}

/// Documentation/admin-guide/devices.txt of the kernel: name, major, minor.
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// The kernel's memory as a core file (proc(5)).
const MEMORY: &str = "/proc/kcore";

const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", MEMORY),
    ("ptmx", "pts/ptmx"),
];

/// Debian's group `tty`, and docker's.
const TTY: u32 = 5;

const EVERYBODY: Mode = Mode::from_raw_mode(0o666);

/// /dev, made now or beforehand.
pub(crate) fn mount(root: BorrowedFd<'_>, made: Option<OwnedFd>) -> Result<OwnedFd, LaunchError> {
    let at = target::real_directory(root, "dev").at("prepare", "/dev")?;
    let dev = made.map_or_else(make, Ok)?;
    mount::attach(&dev, &at).at("mount", "/dev")?;
    if rootless::is_inside() {
        for (name, major, minor) in NODES {
            bind_node(root, &Path::new("/dev").join(name), rustix::fs::makedev(major, minor))?;
        }
    }
    Ok(dev)
}

/// /dev with its nodes and links, attached to nothing yet.
pub(crate) fn make() -> Result<OwnedFd, LaunchError> {
    let options = [("mode", "755"), ("size", "65536k")];
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    let dev = mount::make("tmpfs", &options, attributes).at("mount", "/dev")?;
    fill(dev.as_fd())?;
    Ok(dev)
}

/// How the nodes of a container come to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nodes {
    /// New ones.
    Made,
    /// The host's, mounted onto files.
    Bound,
}

/// The nodes and links of every container in a /dev that is there, and these. What it has already stays.
pub(crate) fn populate(
    root: BorrowedFd<'_>,
    nodes: Nodes,
    devices: &[DeviceNode],
) -> Result<(), LaunchError> {
    let dev = target::real_directory(root, "dev").at("prepare", "/dev")?;
    if nodes == Nodes::Made {
        fill(dev.as_fd())?;
        return make_nodes(root, devices);
    }
    let standard = NODES
        .iter()
        .map(|(name, major, minor)| (Path::new("/dev").join(name), rustix::fs::makedev(*major, *minor)));
    for (path, number) in standard.chain(devices.iter().map(|device| (device.path.clone(), device.rdev))) {
        bind_node(root, &path, number)?;
    }
    link(dev.as_fd())
}

/// The host's node of this path, which must be this device, at the same path of the container.
fn bind_node(root: BorrowedFd<'_>, path: &Path, number: u64) -> Result<(), LaunchError> {
    let shown = path.display();
    let tree = mount::clone_path(path, false).at("bind the device", &shown)?;
    if rustix::fs::fstat(&tree).at("inspect the device", &shown)?.st_rdev != number {
        return Err(LaunchError::Invalid(format!("{shown} of the host is another device")));
    }
    let place = target::find_or_make(root, path, Missing::File).at("make the device", &shown)?;
    mount::attach(&tree, &place).at("bind the device", &shown)
}

/// What is there already stays.
fn there(made: Result<(), Errno>) -> Result<(), Errno> {
    match made {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

fn fill(dev: BorrowedFd<'_>) -> Result<(), LaunchError> {
    for (name, major, minor) in NODES.into_iter().filter(|_| !rootless::is_inside()) {
        let number = rustix::fs::makedev(major, minor);
        there(rustix::fs::mknodat(dev, name, FileType::CharacterDevice, EVERYBODY, number))
            .at("make the device", name)?;
    }
    link(dev)
}

fn link(dev: BorrowedFd<'_>) -> Result<(), LaunchError> {
    // As runc: a kernel may have no image of its memory.
    let has_memory = rustix::fs::access(MEMORY, Access::EXISTS).is_ok();
    for (name, to) in LINKS.into_iter().filter(|(_, to)| *to != MEMORY || has_memory) {
        there(rustix::fs::symlinkat(to, dev, name)).at("link", name)?;
    }
    Ok(())
}

/// Gives everything in a /dev to the container's root. It was made by the host's, because nobody else makes devices.
pub(crate) fn give_away(dev: BorrowedFd<'_>, users: &UserMap) -> Result<(), LaunchError> {
    let Some(root) = users.root() else { return Ok(()) };
    let outside = |map: &IdMap, id: u32, root: u32| map.outside(id).unwrap_or(root);
    let open = |directory: BorrowedFd<'_>, name: &CStr| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(directory, name, flags, Mode::empty()).at("open", "/dev")
    };
    let mut directories = vec![open(dev, c".")?];
    while let Some(directory) = directories.pop() {
        for entry in Dir::read_from(&directory).at("list", "/dev")? {
            let entry = entry.at("list", "/dev")?;
            let name = entry.file_name();
            if name == c".." {
                continue;
            }
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            let stat = rustix::fs::statat(&directory, name, flags).at("inspect", "/dev")?;
            let uid = Uid::from_raw(outside(&users.uids, stat.st_uid, root.0));
            let gid = Gid::from_raw(outside(&users.gids, stat.st_gid, root.1));
            rustix::fs::chownat(&directory, name, Some(uid), Some(gid), flags).at("give away", "/dev")?;
            if name != c"." && FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                directories.push(open(directory.as_fd(), name)?);
            }
        }
    }
    Ok(())
}

/// A devpts whose terminals nobody else sees. They belong to the group that docker gives them, where there is one.
pub(crate) fn mount_pts(dev: BorrowedFd<'_>, users: Option<&UserMap>) -> Result<OwnedFd, LaunchError> {
    let mut options = vec![("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620")];
    if users.is_none_or(|users| users.gids.outside(TTY).is_some()) {
        options.push(("gid", "5"));
    }
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let pts = mount::make("devpts", &options, attributes).at("mount", "/dev/pts")?;
    attach_new(dev, "pts", &pts)?;
    Ok(pts)
}

/// /dev/shm: somebody else's, one of this size, or none.
pub(crate) fn mount_shm(
    dev: BorrowedFd<'_>,
    size: Option<u64>,
    shared: Option<OwnedFd>,
) -> Result<(), LaunchError> {
    let shm = match (shared, size) {
        (Some(shared), _) => shared,
        (None, Some(size)) => {
            let size = size.to_string();
            let options = [("source", "shm"), ("mode", "1777"), ("size", &size)];
            mount::make("tmpfs", &options, PLAIN).at("mount", "/dev/shm")?
        }
        (None, None) => return Ok(()),
    };
    attach_new(dev, "shm", &shm)
}

/// /dev/mqueue of the IPC namespace this process is in.
pub(crate) fn mount_mqueue(dev: BorrowedFd<'_>) -> Result<(), LaunchError> {
    let mqueue = mount::make("mqueue", &[], PLAIN).at("mount", "/dev/mqueue")?;
    attach_new(dev, "mqueue", &mqueue)
}

fn attach_new(dev: BorrowedFd<'_>, name: &str, mount: &OwnedFd) -> Result<(), LaunchError> {
    rustix::fs::mkdirat(dev, name, Mode::from_raw_mode(0o755)).at("make /dev directory", name)?;
    let at = target::find(dev, Path::new(name)).at("find /dev directory", name)?;
    mount::attach(mount, &at).at("mount at /dev directory", name)
}

/// As [`make_nodes`], in a /dev that is attached to nothing yet.
pub(crate) fn make_nodes_in(dev: BorrowedFd<'_>, devices: &[DeviceNode]) -> Result<(), LaunchError> {
    let inside = devices.iter().map(|device| match device.path.strip_prefix("/dev") {
        Ok(path) => Ok(DeviceNode { path: Path::new("/").join(path), ..device.clone() }),
        Err(_) => Err(LaunchError::Invalid(format!(
            "the device {} cannot be made: with mapped users all devices lie in /dev",
            device.path.display()
        ))),
    });
    make_nodes(dev, &inside.collect::<Result<Vec<_>, _>>()?)
}

/// Devices of the host that the container was given.
pub(crate) fn make_nodes(root: BorrowedFd<'_>, devices: &[DeviceNode]) -> Result<(), LaunchError> {
    for device in devices {
        let path = device.path.display();
        if rootless::is_inside() && device.kind != NodeKind::Fifo {
            // Under its own name: what a node is called elsewhere on the host is not known any more.
            bind_node(root, &device.path, device.rdev)?;
            continue;
        }
        let kind = match device.kind {
            NodeKind::Block => FileType::BlockDevice,
            NodeKind::Character => FileType::CharacterDevice,
            NodeKind::Fifo => FileType::Fifo,
        };
        let (parent, name) = target::parent_of(root, &device.path).at("make the device", &path)?;
        let mode = Mode::from_raw_mode(device.mode);
        match rustix::fs::mknodat(&parent, &name, kind, mode, device.rdev) {
            // A node that the container has anyway, as /dev/null.
            Err(Errno::EXIST) => continue,
            other => other.at("make the device", &path)?,
        }
        let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(&parent, &name, Some(uid), Some(gid), flags).at("give away", &path)?;
    }
    Ok(())
}

/// /dev/null as something to hide files behind: it must be the real one (CVE-2025-31133).
pub(crate) fn verified_null(root: BorrowedFd<'_>) -> Result<OwnedFd, LaunchError> {
    let null = target::find(root, Path::new("/dev/null")).at("find", "/dev/null")?;
    let stat = rustix::fs::fstat(&null).at("inspect", "/dev/null")?;
    let is_device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    if is_device && stat.st_rdev == rustix::fs::makedev(1, 3) {
        Ok(null)
    } else {
        Err(LaunchError::Invalid("/dev/null of the container is not the null device".to_owned()))
    }
}

// === impl Terminal ===

impl Terminal {
    /// Opens a new terminal. The program's side comes from the engine's side, not from a path (CVE-2025-52565).
    pub(crate) fn open(directory: BorrowedFd<'_>, ptmx: &Path) -> Result<Self, LaunchError> {
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let master = target::open(directory, ptmx, flags).at("open", "/dev/ptmx")?;
        rustix::pty::unlockpt(&master).at("unlock", "the terminal")?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).at("open", "the terminal")?;
        Ok(Self { master, slave })
    }

    /// Sets its size, unless that is left to the first resize.
    pub(crate) fn resize(&self, size: TerminalSize) -> Result<(), LaunchError> {
        if size == TerminalSize::default() {
            return Ok(());
        }
        let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.master, size).at("resize", "the terminal")
    }

    /// Makes this the container's /dev/console.
    pub(crate) fn bind_console(&self, root: BorrowedFd<'_>) -> Result<(), LaunchError> {
        let path = Path::new("/dev/console");
        let place = target::find_or_make(root, path, Missing::File).at("create", "/dev/console")?;
        let tree = mount::clone_fd(self.slave.as_fd(), false).at("bind", "/dev/console")?;
        mount::attach(&tree, &place).at("bind", "/dev/console")
    }
}
