//! The child that looks into a container: a program with one thread whose only root is the container's.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::process::DumpableBehavior;
use rustix::thread::ThreadNameSpaceType;

use crate::container::files::extract::{self, Rules};
use crate::container::files::{ARGV0, Answer, PIECE, PathKind, PathStat, Task};
use crate::container::namespaces;
use crate::container::protocol::Refusal;
use crate::container::record::ContainerRecord;
use crate::container::state::State;
use crate::container::{rootfs, userns};
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::layer::pack;
use crate::paths::Root;
use crate::rootless;
use crate::sys::mount::Change;

/// Does the work on a container's files when this process was executed for it. Every program on this crate calls it
/// first thing in `main`, before it makes a thread.
pub fn enter_if_asked() -> Option<ExitCode> {
    let mut args = std::env::args_os();
    (args.next()? == ARGV0).then(|| {
        let (answer, code) = match work(&args.collect::<Vec<_>>()) {
            Ok(answer) => (answer, ExitCode::SUCCESS),
            Err(error) => (Answer::Refused(Refusal::from(&error)), ExitCode::FAILURE),
        };
        // Whoever does not listen does not care.
        let _ = serde_json::to_writer(io::stderr(), &answer);
        code
    })
}

fn work(args: &[OsString]) -> Result<Answer> {
    let strange = || Error::invalid("the request makes no sense");
    let [state, id, task] = args else { return Err(strange()) };
    let root = Root::at(Path::new(state));
    let id: ContainerId = id.to_str().and_then(|text| text.parse().ok()).ok_or_else(strange)?;
    let (task, running, overrules): (Task, Option<i32>, bool) =
        serde_json::from_slice(task.as_bytes()).map_err(|error| strange().with_source(error))?;
    // Whoever started this process holds the lock that keeps the container at rest: it must not be outlived.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|error| failed("follow the parent", error))?;
    // What is inside must not read this process's memory, whatever namespaces it shares with the host.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| failed("hide from the container", error))?;
    match running {
        Some(pid) => join(&root, &id, pid)?,
        None => assemble(&root, &id, matches!(task, Task::Export))?,
    }
    if overrules {
        let_write().map_err(|error| Error::failed("make the root of the container writable", error))?;
    }
    let top = open_root().map_err(|error| failed("open /", error))?;
    act(&top, task)
}

fn open_root() -> Result<OwnedFd, Errno> {
    rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Makes the root writable to this process alone, in a copy of the mount namespace. What is mounted below stays as it is.
fn let_write() -> io::Result<()> {
    if rustix::fs::statvfs("/")?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        crate::sys::process::new_mount_namespace()?;
        let clear = u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits());
        crate::sys::mount::change(open_root()?, Change { clear, ..Change::default() })?;
    }
    Ok(())
}

/// Goes where the container's process 1 is.
fn join(root: &Root, id: &ContainerId, pid: i32) -> Result<()> {
    let mapped = record(root, id)?.users.is_some();
    let process = namespaces::hold(pid)?;
    let gone = || Error::conflict(format!("container {} has just ended", id.short()));
    // The number may have passed to another process between the look at the container's state and the hold.
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).map_err(|_| gone())?;
    if !groups.contains(id.as_str()) {
        // An ordinary user's container may be in no group of its own; what its monitor says is younger than the hold.
        let runs = State::read(root, id)
            .is_ok_and(|state| matches!(state, Some(State::Running(it)) if it.pid == pid));
        if !rootless::is_inside() || !runs {
            return Err(gone());
        }
    }
    let users = if mapped { ThreadNameSpaceType::USER } else { ThreadNameSpaceType::empty() };
    rustix::thread::move_into_thread_name_spaces(process.as_fd(), users | ThreadNameSpaceType::MOUNT)
        .map_err(|error| failed("join the mount namespace of the container", error))?;
    // Whatever is written belongs to the container's users, and the host's root is none of them.
    if mapped { Ok(userns::become_root()?) } else { Ok(()) }
}

fn record(root: &Root, id: &ContainerId) -> Result<ContainerRecord> {
    ContainerRecord::read(root, id)
        .map_err(|error| Error::failed("read the container's record", error))?
        .ok_or_else(|| Error::not_found(format!("no such container: {}", id.short())))
}

/// Puts the container's root together in a mount namespace of our own, which ends with this process.
fn assemble(root: &Root, id: &ContainerId, bare: bool) -> Result<()> {
    let record = record(root, id)?;
    crate::sys::process::new_mount_namespace()
        .map_err(|error| Error::failed("make a mount namespace", error))?;
    Ok(rootfs::enter_at_rest(root, &record, bare)?)
}

fn act(top: &OwnedFd, task: Task) -> Result<Answer> {
    match task {
        Task::Stat(path) => Ok(Answer::Stat(stat(top, &path)?)),
        Task::Read { path, shown } => read(top, &path, &shown),
        Task::Write { directory, owner } => {
            let base = rootfs::open(top, &directory, OFlags::RDONLY | OFlags::DIRECTORY)
                .map_err(|error| no_directory(&directory, error))?;
            let reader = BufReader::with_capacity(PIECE, io::stdin().lock());
            extract::extract(base, reader, Rules { owner, follow: true })?;
            Ok(Answer::Done)
        }
        Task::Remove(paths) => paths.iter().try_for_each(|path| remove(path)).map(|()| Answer::Done),
        Task::Export => {
            let bare = rootfs::without_mounts(top).map_err(|error| failed("open the root", error))?;
            pour(|writer| {
                pack::pack(&bare, writer, pack::Treatment::Plain)
                    .map(drop)
                    .map_err(|error| Error::failed("export the container", error))
            })
        }
    }
}

fn stat(top: &OwnedFd, path: &Path) -> Result<Option<PathStat>> {
    let looked = locate(top, path).and_then(|(parent, name)| {
        let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok((kind_of(parent.as_fd(), name, &stat)?, stat))
    });
    match looked {
        Ok((kind, stat)) => {
            Ok(Some(PathStat { kind, mode: stat.st_mode & 0o7777, size: stat.st_size.cast_unsigned() }))
        }
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(failed(&format!("look at {}", path.display()), error)),
    }
}

/// The container's root is ours, so a path leads where it leads for its programs.
fn remove(path: &Path) -> Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(Error::failed(format!("remove {} in the container", path.display()), error))
        }
        _ => Ok(()),
    }
}

fn kind_of(parent: BorrowedFd<'_>, name: &OsStr, stat: &Stat) -> Result<PathKind, Errno> {
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => PathKind::Directory,
        FileType::RegularFile => PathKind::File,
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(parent, name, Vec::new())?;
            PathKind::Link(PathBuf::from(OsStr::from_bytes(target.as_bytes())))
        }
        _ => PathKind::Special,
    })
}

fn read(top: &OwnedFd, path: &Path, shown: &[u8]) -> Result<Answer> {
    let (parent, name) =
        locate(top, path).map_err(|error| failed(&format!("find {}", path.display()), error))?;
    pour(|writer| {
        pack::pack_tree(&parent, name.as_bytes(), shown, writer)
            .map(drop)
            .map_err(|error| Error::failed(format!("read {}", path.display()), error))
    })
}

fn pour(write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<Answer> {
    let mut writer = BufWriter::with_capacity(PIECE, io::stdout().lock());
    write(&mut writer)?;
    writer.flush().map_err(|error| Error::failed("write the archive", error))?;
    Ok(Answer::Done)
}

/// The directory a path lies in, and its last name, which is not followed: `.` when the path ends in a slash.
fn locate<'p>(top: &OwnedFd, path: &'p Path) -> Result<(OwnedFd, &'p OsStr), Errno> {
    let text = path.as_os_str().as_bytes();
    let directory = |path: &Path| rootfs::open(top, path, OFlags::PATH | OFlags::DIRECTORY);
    match path.file_name() {
        Some(name) if !text.ends_with(b"/") && !text.ends_with(b"/.") => {
            Ok((directory(path.parent().unwrap_or(Path::new("/")))?, name))
        }
        _ => Ok((directory(path)?, OsStr::new("."))),
    }
}

fn no_directory(path: &Path, error: Errno) -> Error {
    match error {
        Errno::NOENT => {
            Error::not_found(format!("could not find the directory {} in the container", path.display()))
        }
        Errno::NOTDIR => Error::invalid(format!("{} is not a directory in the container", path.display())),
        error => failed(&format!("open {}", path.display()), error),
    }
}

fn failed(step: &str, error: Errno) -> Error {
    Error::failed(step, io::Error::from(error))
}
