//! An ordinary user's engine: one user, mount and network namespace a user, in which that user is root, held by a small
//! process, the *keeper*. Every command of the user goes there before it opens the engine, and everything after that is
//! as for root: bridges, nft tables, monitors. What leads out is one `slirp4netns`.

pub(crate) mod delegation;
mod ids;
mod keeper;
mod tree;
pub(crate) mod uplink;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags};
use rustix::process::{DumpableBehavior, Pid, PidfdFlags};
use rustix::thread::ThreadNameSpaceType;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};
use crate::paths::{self, RootlessRun};
use crate::store::{self, Durability, Lock};
use crate::sys::{detached, self_exec};

pub(crate) use ids::subordinate_ranges;
pub use keeper::enter_if_asked;

/// What is kept of a keeper.
#[derive(Debug, Serialize, Deserialize)]
struct KeeperRecord {
    version: u32,
    pid: i32,
}

/// What a keeper says while it settles in.
#[derive(Debug, Serialize, Deserialize)]
enum Word {
    /// It is in its user namespace and waits for its ids.
    Unmapped(i32),
    /// Everything but the way out is there.
    Settled,
    /// It could not.
    Failed { step: String, reason: String },
}

/// What is joined, the user namespace first.
const ALL: ThreadNameSpaceType = ThreadNameSpaceType::USER
    .union(ThreadNameSpaceType::MOUNT)
    .union(ThreadNameSpaceType::NETWORK)
    .union(ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION)
    .union(ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME);

/// Whether this process lives in the namespaces of an ordinary user's engine.
pub fn is_inside() -> bool {
    static INSIDE: OnceLock<bool> = OnceLock::new();
    *INSIDE.get_or_init(|| Path::new(paths::ROOTLESS_INSIDE).exists())
}

/// Where an ordinary user's engine keeps itself, unless told otherwise (XDG Base Directory Specification).
///
/// # Errors
/// When neither `XDG_DATA_HOME` nor `HOME` is set.
pub fn default_state() -> Result<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| Some(absolute("HOME")?.join(".local/share")))
        .map(|data| data.join("rengine"))
        .ok_or_else(|| {
            Error::invalid("find a place for the engine: HOME is not set").with_hint("set RENGINE_ROOT")
        })
}

/// Goes where this user is root, making that place when it is not there. Nothing is done for root itself. The process
/// must have one thread.
///
/// # Errors
/// When the system lacks something that this takes, which is named.
pub fn enter() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    // The kernel moves single threads into no user namespace (setns(2)).
    if fs::read_dir("/proc/self/task").map_or(0, Iterator::count) > 1 {
        return Err(Error::new(
            Kind::Unsupported,
            "open the engine as an ordinary user, which this program cannot",
        )
        .with_hint("the engine needs root here: run it with sudo"));
    }
    let run = run_directory()?;
    let failed = |error| Error::failed("lock the user's engine", error);
    let one_at_a_time = Lock::exclusive(&run.lock()).map_err(failed)?;
    let keeper = match Lock::try_exclusive(&run.alive()).map_err(failed)? {
        None => recorded(&run)?,
        Some(alive) => start(&run, &alive)?,
    };
    join(keeper)?;
    // What cannot be taken is missed by name, limit by limit.
    let taken = delegation::take(&run_inside());
    if let Err(error) = &taken {
        tracing::debug!("{}", crate::error::chain(error));
    }
    drop(one_at_a_time);
    Ok(())
}

/// The same directory as it is seen from inside.
fn run_inside() -> RootlessRun {
    RootlessRun::at(paths::ROOTLESS_INSIDE.into())
}

/// A directory that only this user can look into.
fn run_directory() -> Result<RootlessRun> {
    let uid = rustix::process::getuid().as_raw();
    let given = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let usual =
        given.or_else(|| Some(PathBuf::from(format!("/run/user/{uid}"))).filter(|path| path.is_dir()));
    let path = match usual {
        Some(directory) => directory.join("rengine"),
        // In memory, as secrets must be.
        None => PathBuf::from(format!("/dev/shm/rengine-{uid}")),
    };
    let shown = path.display();
    let failed = |error| Error::failed(format!("make the directory {shown}"), error);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed)?;
    // Where everybody may make directories, somebody else may have made it.
    let found = fs::symlink_metadata(&path).map_err(failed)?;
    if !found.is_dir() || found.uid() != uid || found.mode() & 0o077 != 0 {
        return Err(Error::conflict(format!("{shown} is not a directory that only you can look into"))
            .with_hint("set XDG_RUNTIME_DIR to one, or remove it"));
    }
    Ok(RootlessRun::at(path))
}

fn recorded(run: &RootlessRun) -> Result<Pid> {
    let record: Option<KeeperRecord> = store::read_json(&run.keeper())
        .map_err(|error| Error::failed("read who keeps the user's engine", error))?;
    let pid = record.and_then(|record| Pid::from_raw(record.pid));
    pid.ok_or_else(|| Error::conflict("the user's engine is kept by a process that is not on record"))
}

/// Starts a keeper and leads it out. It holds the lock `alive` as long as it lives.
fn start(run: &RootlessRun, alive: &Lock) -> Result<Pid> {
    let failed = |error: std::io::Error| Error::failed("start a keeper for the user's engine", error);
    let ranges = ids::Ranges::of_this_user()?;
    let uplink = uplink::Program::find()?;
    let (told, tells) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    let (orders, order) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    // The way out ends when nobody holds the other end of this any more, which is the keeper alone.
    let (ends, end) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    let program = rustix::fs::open("/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| failed(error.into()))?;
    let kept = [tells.as_fd(), orders.as_fd(), end.as_fd(), alive.file().as_fd()];
    let numbers: Vec<String> = kept.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
    let mut args: Vec<&std::ffi::OsStr> = numbers.iter().map(std::ffi::OsStr::new).collect();
    args.push(run.directory().as_os_str());
    detached::spawn(program.as_fd(), keeper::ARGV0, &args, &kept).map_err(failed)?;
    drop((tells, orders, end));
    let mut told = File::from(told);
    let pid = match hear(&mut told)? {
        Word::Unmapped(pid) => {
            Pid::from_raw(pid).ok_or_else(|| failed(std::io::ErrorKind::InvalidData.into()))?
        }
        word => return Err(refused(word)),
    };
    ranges.give(pid)?;
    let mut order = File::from(order);
    order.write_all(b".").map_err(failed)?;
    match hear(&mut told)? {
        Word::Settled => {}
        word => return Err(refused(word)),
    }
    uplink.start(pid, &run.uplink(), ends)?;
    let record = KeeperRecord { version: 1, pid: pid.as_raw_nonzero().get() };
    store::write_json(&run.keeper(), &record, Durability::Rename).map_err(failed)?;
    // Whoever does not get this word goes away again.
    order.write_all(b".").map_err(failed)?;
    Ok(pid)
}

fn hear(told: &mut File) -> Result<Word> {
    let failed = |error: std::io::Error| Error::failed("hear from the keeper of the user's engine", error);
    let mut line = Vec::new();
    let mut byte = [0];
    while told.read(&mut byte).map_err(failed)? == 1 && byte != *b"\n" {
        line.extend(byte);
    }
    serde_json::from_slice(&line).map_err(|error| failed(error.into()))
}

fn refused(word: Word) -> Error {
    match word {
        Word::Failed { step, reason } => Error::new(Kind::Unsupported, format!("{step}: {reason}")).with_hint(
            "an ordinary user's engine needs unprivileged user namespaces (sysctl user.max_user_namespaces, \
             kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns); or run it with sudo",
        ),
        Word::Unmapped(_) | Word::Settled => Error::failed("start a keeper for the user's engine", "it talks nonsense"),
    }
}

fn join(keeper: Pid) -> Result<()> {
    let failed = |error: rustix::io::Errno| Error::failed("join the namespaces of the user's engine", error);
    let here = std::env::current_dir();
    self_exec::remember_name().map_err(|error| Error::failed("find this program", error))?;
    let held = rustix::process::pidfd_open(keeper, PidfdFlags::empty()).map_err(failed)?;
    rustix::thread::move_into_thread_name_spaces(held.as_fd(), ALL).map_err(failed)?;
    // As after any start of a program: its own files in /proc are its own.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable).map_err(failed)?;
    if let Ok(here) = here {
        // A directory that is not there any more is where one was anyway.
        let _ = std::env::set_current_dir(here);
    }
    Ok(())
}

/// A descriptor that this program was started with, by its number in the arguments.
fn inherited(number: &std::ffi::OsStr) -> Option<OwnedFd> {
    self_exec::inherited(number.to_str()?.parse().ok()?).ok()
}
