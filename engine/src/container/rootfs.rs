//! What a container sees as `/`: layers, kernel file systems, devices, mounts asked for, masks; then the pivot.
//! Everything happens in the child's own mount namespace and vanishes with it.

mod cgroups;
mod dev;
mod mount;
mod rest;
mod target;

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::ThreadNameSpaceType;

use crate::container::failure::{AtStep, LaunchError};
use crate::container::namespaces::{self, Hosts};
use crate::container::plan::{LaunchPlan, ResolvedMount, ResolvedSource, RootfsPlan, Whose};
use crate::container::spec::Propagation;
use crate::sys;
use crate::sys::mount::Change;
use crate::volume::{self, FileSystem};
use mount::PLAIN;

pub(crate) use dev::Terminal;
pub(crate) use rest::{enter_at_rest, without_mounts};
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

/// The mounts that come from outside: taken before the host's tree is let go, in the order of the plan.
#[derive(Debug)]
pub(crate) struct Sources {
    mounts: Vec<Option<OwnedFd>>,
    shm: Option<OwnedFd>,
}

const RDONLY: u64 = MountAttrFlags::MOUNT_ATTR_RDONLY.bits() as u64;
/// statfs(2): the type of procfs.
pub(crate) const PROC_SUPER_MAGIC: i64 = 0x9fa0;
/// statfs(2): the types of file systems in memory.
const TMPFS_MAGIC: i64 = 0x0102_1994;
const RAMFS_MAGIC: i64 = 0x8584_58f6;
/// Where secrets are staged before they are bound to their places: over the overlay's scratch directory, which
/// nobody looks into once the overlay is there.
const STAGED: &str = "content";

// === impl Sources ===

impl Sources {
    /// Takes a detached copy of everything the plan binds. The host's tree still has its propagation here, so
    /// that a shared source stays shared.
    pub(crate) fn take(
        plan: &LaunchPlan,
        hosts: &Hosts,
        mut systems: FileSystems,
    ) -> Result<Self, LaunchError> {
        let mut mounts = Vec::new();
        for (mount, system) in plan.rootfs.mounts.iter().zip(&mut systems.0) {
            mounts.push(match &mount.source {
                ResolvedSource::Bind { path, recursive, subpath, .. } => {
                    let cloned = clone_bound(path, subpath.as_deref(), *recursive);
                    Some(cloned.map_err(|error| cannot_bind(path, subpath.as_deref(), error))?)
                }
                ResolvedSource::FileSystem { shown, .. } => match (system.take(), shown) {
                    (Some(Mounted::Here(mount)), _) => Some(mount),
                    (Some(Mounted::By(process)), Some((_, target))) => {
                        Some(copy_of_another(process.as_fd(), target)?)
                    }
                    _ => None,
                },
                ResolvedSource::Tmpfs { .. }
                | ResolvedSource::Content { .. }
                | ResolvedSource::Layers { .. } => None,
            });
        }
        Ok(Self { mounts, shm: take_shm(plan, hosts)? })
    }
}

/// File systems that the plan mounts: one a mount, where it is one.
#[derive(Debug)]
pub(crate) struct FileSystems(Vec<Option<Mounted>>);

#[derive(Debug)]
enum Mounted {
    /// Mounted already, attached to nothing.
    Here(OwnedFd),
    /// By a container whose process this is.
    By(OwnedFd),
}

impl FileSystems {
    /// Mounts them, attached to nothing yet. The caller is in the host's namespaces: a server is reached by way of the
    /// host's network, whatever the container's is.
    pub(crate) fn mount(plan: &RootfsPlan) -> Result<Self, LaunchError> {
        let mounted = plan.mounts.iter().map(|wanted| {
            let ResolvedSource::FileSystem { system, shown, .. } = &wanted.source else { return Ok(None) };
            // One that ended since has taken along what was in memory.
            match shown.as_ref().and_then(|(pid, _)| namespaces::hold(*pid).ok()) {
                Some(process) => Ok(Some(Mounted::By(process))),
                None => mount_system(system).map(|mount| Some(Mounted::Here(mount))),
            }
        });
        mounted.collect::<Result<_, _>>().map(Self)
    }
}

fn mount_system(system: &FileSystem) -> Result<OwnedFd, LaunchError> {
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
fn clone_bound(path: &Path, subpath: Option<&Path>, recursive: bool) -> Result<OwnedFd, Errno> {
    let Some(subpath) = subpath else { return mount::clone_path(path, recursive) };
    let top = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let found = rustix::fs::openat2(&top, subpath, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    mount::clone_fd(found.as_fd(), recursive)
}

fn cannot_bind(path: &Path, subpath: Option<&Path>, error: Errno) -> LaunchError {
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
    match plan.namespaces.ipc {
        _ if plan.rootfs.shm_size.is_none() => Ok(None),
        Whose::Own => Ok(None),
        Whose::Host => mount::clone_path(shm, true).map(Some).at("bind", shm.display()),
        whose @ Whose::Of(_) => {
            let Some(other) = hosts.of(whose) else { return Ok(None) };
            in_its_mounts(other, || mount::clone_path(shm, true))?.map(Some).at("bind", shm.display())
        }
    }
}

/// Does something in the mount namespace of a process and comes back: a mount can only be copied by somebody who is
/// in its namespace.
fn in_its_mounts<T>(process: BorrowedFd<'_>, act: impl FnOnce() -> T) -> Result<T, LaunchError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let own = rustix::fs::open("/proc/self/ns/mnt", flags, Mode::empty()).at("open", "/proc/self/ns/mnt")?;
    let join =
        |fd: BorrowedFd<'_>| rustix::thread::move_into_thread_name_spaces(fd, ThreadNameSpaceType::MOUNT);
    join(process).at("join the namespace", "mount")?;
    let done = act();
    join(own.as_fd()).at("return to the namespace", "mount")?;
    Ok(done)
}

// === impl Rootfs ===

impl Rootfs {
    /// Lets the host's tree go private, so that nothing done here ever reaches the host.
    pub(crate) fn isolate() -> Result<(), LaunchError> {
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).at("make private", "/")
    }

    /// The layers with /proc on them.
    pub(crate) fn mount(plan: &RootfsPlan) -> Result<Self, LaunchError> {
        // The merged view covers its upper directory, in this namespace alone: no further directory is needed.
        let upper = plan.upper.display();
        let root = if plan.lower.is_empty() {
            let root = mount::clone_path(&plan.upper, false).at("bind", &upper)?;
            let place = rustix::fs::open(&plan.upper, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
                .at("open", &upper)?;
            mount::attach(&root, &place).at("bind", &upper)?;
            root
        } else {
            let RootfsPlan { lower, upper: writable, work, volatile, .. } = plan;
            let overlay = mount::Overlay { lower, upper: writable, work, volatile: *volatile };
            overlay.mount().at("mount the layers at", &upper)?
        };
        let at = target::real_directory(root.as_fd(), "proc").at("prepare", "/proc")?;
        let proc = mount::make("proc", &[], PLAIN).at("mount", "/proc")?;
        mount::attach(&proc, &at).at("mount", "/proc")?;
        Ok(Self { root, proc: Some(proc), devpts: None, empty: None })
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
    pub(crate) fn mount_dev(&mut self, plan: &RootfsPlan, sources: &mut Sources) -> Result<(), LaunchError> {
        if plan.has_mount("/dev") {
            return Ok(());
        }
        let dev = dev::mount(self.root())?;
        self.devpts = Some(dev::mount_pts(dev.as_fd())?);
        if !plan.has_mount("/dev/shm") {
            dev::mount_shm(dev.as_fd(), plan.shm_size, sources.shm.take())?;
        }
        if plan.mqueue && !plan.has_mount("/dev/mqueue") {
            dev::mount_mqueue(dev.as_fd())?;
        }
        dev::make_nodes(self.root(), &plan.devices)
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
        &self,
        plan: &RootfsPlan,
        sources: &mut Sources,
    ) -> Result<(), LaunchError> {
        let mut staged = None;
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
                ResolvedSource::Tmpfs { options, exec, suid, dev } => {
                    let options: Vec<_> = options.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
                    let attributes = tmpfs_attributes(*exec, *suid, *dev);
                    mount::make("tmpfs", &options, attributes).at("mount a tmpfs at", &target)?
                }
                ResolvedSource::Layers { lower, subpath } => {
                    let stage = stage_of(&mut staged, &plan.work)?;
                    layers(stage, &format!("{STAGED}{index}"), lower, subpath.as_deref())
                        .at("mount the image at", &target)?
                }
                ResolvedSource::Content { file, mode, uid, gid } => {
                    let stage = stage_of(&mut staged, &plan.work)?;
                    let owner = (Uid::from_raw(*uid), Gid::from_raw(*gid));
                    content(stage, &format!("{STAGED}{index}"), file, *mode, owner)?
                }
            };
            attach_requested(self.root(), wanted, tree.as_fd())?;
        }
        Ok(())
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
        let Some(proc) = &self.proc else { return Ok(()) };
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
        rustix::process::pivot_root(".", ".").at("pivot to", "the root")?;
        // The old root lies on top of the new one now and is where the dot leads.
        rustix::mount::unmount(".", UnmountFlags::DETACH).at("leave", "the host's root")?;
        rustix::process::chdir("/").at("enter", "/")?;
        if plan.read_only {
            let change = Change { set: RDONLY, ..Change::default() };
            sys::mount::change(&self.root, change).at("make read-only", "/")?;
        }
        Ok(self.root)
    }
}

impl RootfsPlan {
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
    if system.f_type == PROC_SUPER_MAGIC {
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
        ResolvedSource::Bind { seed: true, .. } | ResolvedSource::FileSystem { seed: true, .. }
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
    if wanted.read_only {
        let change = Change { set: RDONLY, recursive: !wanted.writable_below, ..Change::default() };
        sys::mount::change(tree, change).at("make read-only", &target)?;
    }
    mount::attach(tree, &place).at("mount at", &target)
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
fn stage_of<'a>(staged: &'a mut Option<OwnedFd>, work: &Path) -> Result<&'a OwnedFd, LaunchError> {
    let stage = match staged.take() {
        Some(stage) => stage,
        None => stage_at(work)?,
    };
    Ok(staged.insert(stage))
}

/// The layers of an image as a mount of its own. What they show inside is looked up with them as the whole world.
fn layers(stage: &OwnedFd, name: &str, lower: &[PathBuf], subpath: Option<&Path>) -> Result<OwnedFd, Errno> {
    let whole = match lower {
        [only] => mount::clone_path(only, false)?,
        several => mount::layers(several)?,
    };
    let change = Change { set: RDONLY, ..Change::default() };
    sys::mount::change(&whole, change).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let Some(subpath) = subpath else { return Ok(whole) };
    // Only what is attached somewhere can be copied in part.
    rustix::fs::mkdirat(stage, name, Mode::from_raw_mode(0o700))?;
    mount::attach(&whole, target::find(stage, Path::new(name))?)?;
    let part = target::find(&whole, subpath)?;
    mount::clone_fd(part.as_fd(), false)
}

fn stage_at(work: &Path) -> Result<OwnedFd, LaunchError> {
    let place =
        rustix::fs::open(work, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at("open", work.display())?;
    let stage = mount::make("tmpfs", &[("mode", "700")], PLAIN).at("mount", "a tmpfs for secrets")?;
    mount::attach(&stage, &place).at("mount", "a tmpfs for secrets")?;
    Ok(stage)
}

/// A copy of a file on the stage, as a mount of its own.
fn content(
    stage: &OwnedFd,
    name: &str,
    file: &PathBuf,
    mode: u32,
    (uid, gid): (Uid, Gid),
) -> Result<OwnedFd, LaunchError> {
    let bytes = fs::read(file).at("read", file.display())?;
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
