//! What a container sees as `/`: layers, kernel file systems, devices, mounts asked for, masks; then the pivot.
//! Everything happens in the child's own mount namespace and vanishes with it.

mod cgroups;
mod dev;
mod mount;
mod rest;
mod sources;
mod target;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountPropagationFlags, UnmountFlags};

use crate::container::changes::MTAB;
use crate::container::failure::{AtStep, LaunchError};
use crate::container::idmap::UserMap;
use crate::container::plan::{LaunchPlan, ResolvedMount, ResolvedSource, RootfsPlan};
use crate::container::spec::Propagation;
use crate::sys;
use crate::sys::mount::Change;
use crate::volume;
use mount::PLAIN;

pub(crate) use dev::Terminal;
pub(crate) use rest::{enter_at_rest, without_mounts};
pub(crate) use sources::Sources;
pub(crate) use target::{Missing, find, find_or_make, open};

/// A root file system being put together.
#[derive(Debug)]
pub(crate) struct Rootfs {
    root: OwnedFd,
    /// None in a container at rest.
    proc: Option<OwnedFd>,
    devpts: Option<OwnedFd>,
    empty: Option<OwnedFd>,
}

/// Directories of the host that something is mounted over, which only its owner may find.
#[derive(Debug)]
pub(crate) struct Places {
    upper: OwnedFd,
    work: OwnedFd,
}

const RDONLY: u64 = MountAttrFlags::MOUNT_ATTR_RDONLY.bits() as u64;
/// statfs(2): the type of procfs.
pub(crate) const PROC_SUPER_MAGIC: i64 = 0x9fa0;
/// Where secrets are staged before they are bound to their places: over the overlay's scratch directory, which
/// nobody looks into once the overlay is there.
const STAGED: &str = "content";

// === impl Places ===

impl Places {
    /// Finds them in this mount namespace.
    pub(crate) fn find(plan: &RootfsPlan) -> Result<Self, LaunchError> {
        let open = |path: &Path| {
            rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at("open", path.display())
        };
        Ok(Self { upper: open(&plan.upper)?, work: open(&plan.work)? })
    }
}

// === impl Rootfs ===

impl Rootfs {
    /// Lets the host's tree go private, so that nothing done here ever reaches the host.
    pub(crate) fn isolate() -> Result<(), LaunchError> {
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).at("make private", "/")
    }

    /// The layers with /proc on them.
    pub(crate) fn mount(
        plan: &RootfsPlan,
        places: &Places,
        sources: &mut Sources,
    ) -> Result<Self, LaunchError> {
        let root = match sources.layers.take() {
            Some(layers) => {
                mount::attach(&layers, &places.upper).at("mount the layers at", plan.upper.display())?;
                layers
            }
            None => Self::layers(plan)?,
        };
        if plan.listed {
            return Ok(Self { root, proc: None, devpts: None, empty: None });
        }
        let at = target::real_directory(root.as_fd(), "proc").at("prepare", "/proc")?;
        let proc = mount::make("proc", &[], PLAIN).at("mount", "/proc")?;
        mount::attach(&proc, &at).at("mount", "/proc")?;
        Ok(Self { root, proc: Some(proc), devpts: None, empty: None })
    }

    /// /etc/mtab, unless the image has one or has no /etc.
    pub(crate) fn link_mtab(&self) {
        let (link, leads_to) = MTAB;
        let name = Path::new(link).file_name().unwrap_or_default();
        if let Ok(directory) = target::find(self.root(), &Path::new("/").join(link).with_file_name("")) {
            // No program needs it so much that the container should not start without it.
            let _ = rustix::fs::symlinkat(leads_to, &directory, name);
        }
    }

    /// The layers, mounted over the writable one, in this namespace alone: no further directory is needed.
    fn layers(plan: &RootfsPlan) -> Result<OwnedFd, LaunchError> {
        let RootfsPlan { lower, upper, work, volatile, .. } = plan;
        let shown = upper.display();
        if !lower.is_empty() {
            let overlay = mount::Overlay { lower, upper, work, volatile: *volatile };
            return overlay.mount().at("mount the layers at", &shown);
        }
        let root = mount::clone_path(upper, plan.listed).at("bind", &shown)?;
        let place =
            rustix::fs::open(upper, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at("open", &shown)?;
        mount::attach(&root, &place).at("bind", &shown)?;
        Ok(root)
    }

    /// A root that is no more than its layers.
    fn at_rest(root: OwnedFd) -> Self {
        Self { root, proc: None, devpts: None, empty: None }
    }

    /// The root, as a directory to look paths up in.
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// /sys, unless the plan mounts something there.
    pub(crate) fn mount_sys(&self, plan: &RootfsPlan) -> Result<(), LaunchError> {
        if plan.has_mount("/sys") {
            return Ok(());
        }
        let read_only =
            if plan.privileged { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY };
        let at = target::real_directory(self.root(), "sys").at("prepare", "/sys")?;
        let sys = mount::make("sysfs", &[], PLAIN | read_only).at("mount", "/sys")?;
        mount::attach(&sys, &at).at("mount", "/sys")
    }

    /// /dev and what is in it, unless the plan mounts something there.
    pub(crate) fn mount_dev(
        &mut self,
        plan: &RootfsPlan,
        users: Option<&UserMap>,
        sources: &mut Sources,
    ) -> Result<(), LaunchError> {
        if plan.has_mount("/dev") {
            return Ok(());
        }
        let made = sources.dev.take();
        let is_made = made.is_some();
        let dev = dev::mount(self.root(), made)?;
        self.devpts = Some(dev::mount_pts(dev.as_fd(), users)?);
        if !plan.has_mount("/dev/shm") {
            dev::mount_shm(dev.as_fd(), plan.shm_size, sources.shm.take())?;
        }
        if plan.mqueue && !plan.has_mount("/dev/mqueue") {
            dev::mount_mqueue(dev.as_fd())?;
        }
        // Whoever made it beforehand has made these, too.
        if is_made { Ok(()) } else { dev::make_nodes(self.root(), &plan.devices) }
    }

    /// The container's own part of the cgroup tree, unless the plan mounts something there.
    pub(crate) fn mount_cgroups(&self, plan: &LaunchPlan) -> Result<(), LaunchError> {
        if plan.rootfs.has_mount("/sys") || plan.rootfs.has_mount("/sys/fs/cgroup") {
            return Ok(());
        }
        cgroups::mount(self.root(), plan.rootfs.privileged || plan.rootfs.writable_cgroups)
    }

    /// What the plan asks for, in its order.
    pub(crate) fn mount_requested(
        &mut self,
        plan: &RootfsPlan,
        mapped: bool,
        places: &Places,
        sources: &mut Sources,
    ) -> Result<(), LaunchError> {
        let mut staged = None;
        // What can only be read is closed when everything is in its place: mounts and nodes below need one.
        let mut closed = Vec::new();
        for (index, (wanted, source)) in plan.mounts.iter().zip(&mut sources.mounts).enumerate() {
            let target = wanted.target.display();
            let tree = match &wanted.source {
                ResolvedSource::Bind { propagation, .. } => {
                    let tree = source.take().ok_or(Errno::BADF).at("bind", &target)?;
                    propagate(tree.as_fd(), *propagation).at("set the propagation of", &target)?;
                    tree
                }
                ResolvedSource::FileSystem { .. } => {
                    source.take().ok_or(Errno::BADF).at("mount the volume at", &target)?
                }
                ResolvedSource::Kind { kind, device, options, .. } => {
                    let tree = self.mount_kind(kind, device, options, wanted)?;
                    if wanted.stated.set & RDONLY != 0 {
                        closed.push((tree.try_clone().at("hold", &target)?, &wanted.target));
                    }
                    if matches!(kind.as_str(), "proc" | "devpts") {
                        let copy = tree.try_clone().at("hold", &target)?;
                        let kept = if kind == "proc" { &mut self.proc } else { &mut self.devpts };
                        *kept = Some(copy);
                    }
                    tree
                }
                ResolvedSource::Cgroups => {
                    let place = target::find_or_make(self.root(), &wanted.target, Missing::Directory)
                        .at("create the mount point", &target)?;
                    cgroups::mount_at(&place, wanted.stated.set & RDONLY == 0)?;
                    continue;
                }
                ResolvedSource::Tmpfs { options, exec, suid, dev } => {
                    let mut options: Vec<_> = options.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
                    let hidden;
                    if !options.iter().any(|(name, _)| *name == "mode") {
                        hidden = mode_of_hidden(self.root(), &wanted.target);
                        options.push(("mode", &hidden));
                    }
                    let attributes = tmpfs_attributes(*exec, *suid, *dev);
                    mount::make("tmpfs", &options, attributes).at("mount a tmpfs at", &target)?
                }
                ResolvedSource::Layers { subpath, .. } => {
                    let whole = source.take().ok_or(Errno::BADF).at("mount the image at", &target)?;
                    let stage = stage_of(&mut staged, places)?;
                    part(whole, stage, &format!("{STAGED}{index}"), subpath.as_deref())
                        .at("mount the image at", &target)?
                }
                ResolvedSource::Content { file, mode, uid, gid } => {
                    let opened = source.take().ok_or(Errno::BADF).at("read", file.display())?;
                    let stage = stage_of(&mut staged, places)?;
                    let owner = (Uid::from_raw(*uid), Gid::from_raw(*gid));
                    content(stage, &format!("{STAGED}{index}"), (file, opened), *mode, owner)?
                }
            };
            attach_requested(self.root(), wanted, tree.as_fd())?;
        }
        if plan.listed && !plan.binds("/dev") {
            // Only the host's root makes devices.
            let how = if mapped { dev::Nodes::Bound } else { dev::Nodes::Made };
            dev::populate(self.root(), how, &plan.devices)?;
        }
        for (tree, target) in closed {
            let change = Change { set: RDONLY, ..Change::default() };
            sys::mount::change(&tree, change).at("make read-only", target.display())?;
        }
        Ok(())
    }

    /// A file system of this kind, attached to nothing yet. The kernel's own go to real directories only.
    fn mount_kind(
        &self,
        kind: &str,
        device: &str,
        options: &[(String, String)],
        wanted: &ResolvedMount,
    ) -> Result<OwnedFd, LaunchError> {
        let target = wanted.target.display();
        let name = wanted.target.strip_prefix("/").ok().and_then(Path::to_str).unwrap_or_default();
        if matches!(kind, "proc" | "sysfs") && !name.contains('/') {
            target::real_directory(self.root(), name).at("prepare", &target)?;
        }
        let options = options.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let options: Vec<_> = std::iter::once(("source", device)).chain(options).collect();
        mount::make(kind, &options, MountAttrFlags::empty()).at(&format!("mount {kind} at"), &target)
    }

    /// A terminal of the container's own devpts.
    pub(crate) fn open_terminal(&self) -> Result<Terminal, LaunchError> {
        match &self.devpts {
            Some(devpts) => dev::Terminal::open(devpts.as_fd(), Path::new("ptmx")),
            None => dev::Terminal::open(self.root(), Path::new("dev/ptmx")),
        }
    }

    /// /dev/console is this terminal.
    pub(crate) fn bind_console(&self, terminal: &Terminal) -> Result<(), LaunchError> {
        if self.devpts.is_none() {
            return Ok(());
        }
        terminal.bind_console(self.root())
    }

    /// Writes kernel parameters through the /proc made here, never through a path the image could have changed.
    pub(crate) fn write_sysctls(&self, sysctls: &[(String, String)]) -> Result<(), LaunchError> {
        let Some(proc) = &self.proc else {
            return match sysctls.first() {
                None => Ok(()),
                Some((name, _)) => Err(LaunchError::Invalid(format!(
                    "the kernel parameter {name} cannot be set: nothing mounts a proc file system"
                ))),
            };
        };
        for (name, value) in sysctls {
            let path = format!("sys/{}", name.replace('.', "/"));
            let resolve = rustix::fs::ResolveFlags::BENEATH
                | rustix::fs::ResolveFlags::NO_SYMLINKS
                | rustix::fs::ResolveFlags::NO_XDEV;
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            let file = rustix::fs::openat2(proc, path, flags, Mode::empty(), resolve)
                .at("set the kernel parameter", name)?;
            rustix::io::write(&file, value.as_bytes()).at("set the kernel parameter", name)?;
        }
        Ok(())
    }

    /// Hides what a container has no business with. What is not there needs no hiding.
    pub(crate) fn mask(&mut self, plan: &RootfsPlan) -> Result<(), LaunchError> {
        let mut null = None;
        for path in &plan.masked {
            let Some(place) = self.existing(path)? else { continue };
            let kind = file_type(place.as_fd()).at("inspect", path.display())?;
            let cover = if kind == FileType::Directory {
                self.empty_directory()?
            } else {
                let node = match null.take() {
                    Some(node) => node,
                    None => dev::verified_null(self.root())?,
                };
                let node: &OwnedFd = null.insert(node);
                mount::clone_fd(node.as_fd(), false).at("copy", "/dev/null")?
            };
            mount::attach(&cover, &place).at("hide", path.display())?;
        }
        Ok(())
    }

    /// Makes parts of /proc read-only.
    pub(crate) fn protect(&self, plan: &RootfsPlan) -> Result<(), LaunchError> {
        for path in &plan.readonly {
            let Some(place) = self.existing(path)? else { continue };
            let tree = mount::clone_fd(place.as_fd(), true).at("make read-only", path.display())?;
            let change = Change { set: RDONLY, recursive: true, ..Change::default() };
            sys::mount::change(&tree, change).at("make read-only", path.display())?;
            mount::attach(&tree, &place).at("make read-only", path.display())?;
        }
        Ok(())
    }

    fn existing(&self, path: &Path) -> Result<Option<OwnedFd>, LaunchError> {
        match target::find(self.root(), path) {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            other => other.map(Some).at("find", path.display()),
        }
    }

    /// One file system for every directory that is hidden.
    fn empty_directory(&mut self) -> Result<OwnedFd, LaunchError> {
        let copy = match &self.empty {
            Some(attached) => mount::clone_fd(attached.as_fd(), false),
            None => {
                let read_only = MountAttrFlags::MOUNT_ATTR_RDONLY;
                let options = [("size", "0"), ("nr_inodes", "2"), ("mode", "755")];
                let made = mount::make("tmpfs", &options, PLAIN | read_only);
                self.empty = made.as_ref().ok().and_then(|fd| fd.try_clone().ok());
                made
            }
        };
        copy.at("mount", "an empty directory")
    }

    /// Turns the root into `/` and lets everything else of the host go.
    pub(crate) fn pivot(self, plan: &RootfsPlan) -> Result<OwnedFd, LaunchError> {
        rustix::process::fchdir(&self.root).at("enter", "the root")?;
        if plan.moves_root {
            rustix::mount::mount_move(".", "/").at("move", "the root")?;
            rustix::process::chroot(".").at("change to", "the root")?;
        } else {
            rustix::process::pivot_root(".", ".").at("pivot to", "the root")?;
            // The old root lies on top of the new one now and is where the dot leads.
            rustix::mount::unmount(".", UnmountFlags::DETACH).at("leave", "the host's root")?;
        }
        rustix::process::chdir("/").at("enter", "/")?;
        if let Some(propagation) = plan.propagation {
            propagate(self.root.as_fd(), propagation).at("set the propagation of", "/")?;
        }
        if plan.read_only {
            let change = Change { set: RDONLY, ..Change::default() };
            sys::mount::change(&self.root, change).at("make read-only", "/")?;
        }
        Ok(self.root)
    }
}

impl RootfsPlan {
    /// Whether something of the host is shown there.
    fn binds(&self, target: &str) -> bool {
        let is_bind = |mount: &ResolvedMount| matches!(mount.source, ResolvedSource::Bind { .. });
        self.mounts.iter().any(|mount| mount.target == Path::new(target) && is_bind(mount))
    }

    fn has_mount(&self, target: &str) -> bool {
        self.mounts.iter().any(|mount| mount.target == Path::new(target))
    }
}

/// Puts a mount that was asked for in its place, making the place when it is missing.
fn attach_requested(
    root: BorrowedFd<'_>,
    wanted: &ResolvedMount,
    tree: BorrowedFd<'_>,
) -> Result<(), LaunchError> {
    let target = wanted.target.display();
    let is_directory = file_type(tree).at("inspect", &target)? == FileType::Directory;
    let missing = if is_directory { Missing::Directory } else { Missing::File };
    let place = target::find_or_make(root, &wanted.target, missing).at("create the mount point", &target)?;
    // Whoever could cover a part of /proc could redirect what is written there (CVE-2019-16884).
    let system = rustix::fs::fstatfs(&place).at("inspect", &target)?;
    if system.f_type == PROC_SUPER_MAGIC && !is_harmless_in_proc(&wanted.target) {
        return Err(LaunchError::Invalid(format!("cannot mount over {target}: it is inside /proc")));
    }
    let place_is_directory = file_type(place.as_fd()).at("inspect", &target)? == FileType::Directory;
    if place_is_directory != is_directory {
        let (what, other) = if is_directory { ("directory", "a file") } else { ("file", "a directory") };
        return Err(LaunchError::Invalid(format!(
            "cannot mount a {what} at {target}: there is {other} in the image"
        )));
    }
    let seed = matches!(
        wanted.source,
        ResolvedSource::Bind { seed: true, .. }
            | ResolvedSource::FileSystem { seed: true, .. }
            | ResolvedSource::Kind { seed: true, .. }
    );
    if seed && is_directory && !is_read_only(tree).at("inspect", &target)? {
        let open = |directory: BorrowedFd<'_>| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::openat(directory, ".", flags, Mode::empty()).at("open the volume at", &target)
        };
        volume::seed(open(place.as_fd())?.as_fd(), open(tree)?.as_fd()).at("fill the volume at", &target)?;
    }
    if wanted.attributes != 0 {
        let change = Change { set: wanted.attributes, recursive: true, ..Change::default() };
        sys::mount::change(tree, change).at("restrict", &target)?;
    }
    state_attributes(tree, wanted).at("set the attributes of", &target)?;
    if wanted.read_only {
        let change = Change { set: RDONLY, recursive: !wanted.writable_below, ..Change::default() };
        sys::mount::change(tree, change).at("make read-only", &target)?;
    }
    mount::attach(tree, &place).at("mount at", &target)
}

/// Files of /proc that only tell, which lxcfs and its like replace.
fn is_harmless_in_proc(target: &Path) -> bool {
    const TOLD: [&str; 8] =
        ["cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo"];
    target.strip_prefix("/proc").is_ok_and(|name| TOLD.iter().any(|told| name == Path::new(told)))
}

/// Sets the attributes that were said one by one. What is made here can only be read later, when it is filled.
fn state_attributes(tree: BorrowedFd<'_>, wanted: &ResolvedMount) -> std::io::Result<()> {
    let stated = &wanted.stated;
    let late = if matches!(wanted.source, ResolvedSource::Kind { .. }) { RDONLY } else { 0 };
    let own = Change { set: stated.set & !late, clear: stated.clear, ..Change::default() };
    let below =
        Change { set: stated.set_below, clear: stated.clear_below, recursive: true, ..Change::default() };
    for change in [own, below] {
        if change.set != 0 || change.clear != 0 {
            sys::mount::change(tree, change)?;
        }
    }
    Ok(())
}

/// The mode of the directory that a tmpfs hides, in octal; the usual one of a tmpfs where there is none.
fn mode_of_hidden(root: BorrowedFd<'_>, target: &Path) -> String {
    let hidden = target::find(root, target).and_then(rustix::fs::fstat);
    let mode = hidden.map_or(0o1777, |hidden| Mode::from_raw_mode(hidden.st_mode).as_raw_mode());
    format!("{mode:o}")
}

fn tmpfs_attributes(exec: bool, suid: bool, dev: bool) -> MountAttrFlags {
    let mut attributes = MountAttrFlags::empty();
    attributes.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, !exec);
    attributes.set(MountAttrFlags::MOUNT_ATTR_NOSUID, !suid);
    attributes.set(MountAttrFlags::MOUNT_ATTR_NODEV, !dev);
    attributes
}

fn propagate(tree: BorrowedFd<'_>, propagation: Propagation) -> std::io::Result<()> {
    let (kind, recursive) = match propagation {
        Propagation::Rprivate => (MountPropagationFlags::PRIVATE, true),
        Propagation::Private => (MountPropagationFlags::PRIVATE, false),
        Propagation::Rshared => (MountPropagationFlags::SHARED, true),
        Propagation::Shared => (MountPropagationFlags::SHARED, false),
        Propagation::Rslave => (MountPropagationFlags::DOWNSTREAM, true),
        Propagation::Slave => (MountPropagationFlags::DOWNSTREAM, false),
    };
    let change = Change { propagation: kind.bits().into(), recursive, ..Change::default() };
    sys::mount::change(tree, change)
}

/// The stage, set up by the first who needs it.
fn stage_of<'a>(staged: &'a mut Option<OwnedFd>, places: &Places) -> Result<&'a OwnedFd, LaunchError> {
    let stage = match staged.take() {
        Some(stage) => stage,
        None => {
            let stage = mount::make("tmpfs", &[("mode", "700")], PLAIN).at("mount", "a tmpfs for secrets")?;
            mount::attach(&stage, &places.work).at("mount", "a tmpfs for secrets")?;
            stage
        }
    };
    Ok(staged.insert(stage))
}

/// What is at this path inside of an image's layers, which are the whole world of that path.
fn part(whole: OwnedFd, stage: &OwnedFd, name: &str, subpath: Option<&Path>) -> Result<OwnedFd, Errno> {
    let Some(subpath) = subpath else { return Ok(whole) };
    // Only what is attached somewhere can be copied in part.
    rustix::fs::mkdirat(stage, name, Mode::from_raw_mode(0o700))?;
    mount::attach(&whole, target::find(stage, Path::new(name))?)?;
    let part = target::find(&whole, subpath)?;
    mount::clone_fd(part.as_fd(), false)
}

/// A copy of a file on the stage, as a mount of its own.
fn content(
    stage: &OwnedFd,
    name: &str,
    (file, opened): (&Path, OwnedFd),
    mode: u32,
    (uid, gid): (Uid, Gid),
) -> Result<OwnedFd, LaunchError> {
    let mut bytes = Vec::new();
    File::from(opened).read_to_end(&mut bytes).at("read", file.display())?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let copy =
        rustix::fs::openat(stage, name, flags, Mode::from_raw_mode(0o600)).at("copy", file.display())?;
    let mut written = 0;
    while written < bytes.len() {
        written += rustix::io::write(&copy, &bytes[written..]).at("copy", file.display())?;
    }
    rustix::fs::fchown(&copy, Some(uid), Some(gid)).at("give away", file.display())?;
    rustix::fs::fchmod(&copy, Mode::from_raw_mode(mode)).at("set the mode of", file.display())?;
    mount::clone_fd(copy.as_fd(), false).at("copy", file.display())
}

/// statvfs(3): nothing can be put there.
fn is_read_only(tree: BorrowedFd<'_>) -> Result<bool, Errno> {
    Ok(rustix::fs::fstatvfs(tree)?.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

fn file_type(fd: BorrowedFd<'_>) -> Result<FileType, Errno> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode))
}
