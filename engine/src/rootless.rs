//! An ordinary user's engine: one user, mount and network namespace a user, in which that user is root, held by a small
//! process, the *keeper*. Every command of the user goes there before it opens the engine, and everything after that is
//! as for root: bridges, nft tables, monitors. What leads out is one `pasta` or `slirp4netns`, which the *outpost*, a
//! process that stays on the host's side, watches over; what leads in are sockets that the outpost makes and the *porter*,
//! a process inside, serves. A command that finds one of the two gone starts another one.

pub(crate) mod delegation;
pub(crate) mod door;
mod ids;
mod keeper;
pub(crate) mod outpost;
pub(crate) mod porter;
mod tree;
pub(crate) mod uplink;

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
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

/// The host's name servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// What an engine's namespaces have in its place.
const RESOLV_CONF_INSIDE: &str = "/run/rengine-resolv.conf";

/// Becomes one of the processes of a user's engine when this process was executed as one.
pub fn enter_if_asked() -> Option<ExitCode> {
    keeper::enter_if_asked().or_else(outpost::enter_if_asked).or_else(porter::enter_if_asked)
}

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
    staff(&run, keeper)?;
    let host = fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    join(keeper)?;
    name_servers(&host);
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

/// Starts a keeper. It holds the lock `alive` as long as it lives.
fn start(run: &RootlessRun, alive: &Lock) -> Result<Pid> {
    let failed = |error: std::io::Error| Error::failed("start a keeper for the user's engine", error);
    let ranges = ids::Ranges::of_this_user()?;
    let (told, tells) = pipe().map_err(failed)?;
    let (orders, order) = pipe().map_err(failed)?;
    let kept = [tells.as_fd(), orders.as_fd(), alive.file().as_fd()];
    let numbers: Vec<String> = kept.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
    let mut args: Vec<&OsStr> = numbers.iter().map(OsStr::new).collect();
    args.push(run.directory().as_os_str());
    detached::spawn(own_program().map_err(failed)?.as_fd(), keeper::ARGV0, &args, &kept).map_err(failed)?;
    drop((tells, orders));
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
    // What an earlier keeper's porter had open went with its containers.
    store::remove_file(&run.doors()).map_err(failed)?;
    let record = KeeperRecord { version: 1, pid: pid.as_raw_nonzero().get() };
    store::write_json(&run.keeper(), &record, Durability::Rename).map_err(failed)?;
    // Whoever does not get this word goes away again.
    order.write_all(b".").map_err(failed)?;
    Ok(pid)
}

/// Starts those of the outpost and the porter that are not there, and has the way out looked for where there is none.
fn staff(run: &RootlessRun, keeper: Pid) -> Result<()> {
    let failed = |error: std::io::Error| Error::failed("look for the processes of the user's engine", error);
    let is_absent = |path: PathBuf| Lock::try_exclusive(&path).map(|lock| lock.is_some()).map_err(failed);
    let number = keeper.as_raw_nonzero().to_string();
    if is_absent(run.outpost_alive())? {
        let again = run.outpost_record().exists();
        let programs = uplink::Programs::find();
        let arguments = outpost::arguments(run, OsStr::new(&number), &programs);
        post(outpost::ARGV0, &arguments)?;
        if again && run.doors().exists() {
            note(run, "started the outpost of the user's engine again");
        }
    } else if uplink::is_missed(run) {
        // Whoever misses it is told why by those who need it.
        let _ = outpost::lead(run, &uplink::Programs::find());
    }
    if is_absent(run.porter_alive())? {
        let again = run.doors().exists();
        post(porter::ARGV0, &[run.directory().as_os_str(), OsStr::new(&number)])?;
        if again {
            note(run, "opened the published ports of the host again");
        }
    }
    Ok(())
}

/// Starts such a process and waits until it is ready.
fn post(name: &str, arguments: &[&OsStr]) -> Result<()> {
    detached::post(name, arguments, &[]).map_err(|error| Error::failed(format!("start {name}"), error))
}

/// Writes down what was put right, for whoever is told next.
fn note(run: &RootlessRun, text: &str) {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(run.repairs());
    // What nobody can be told is right all the same.
    let _ = file.and_then(|mut file| writeln!(file, "{text}"));
}

/// What was put right since this was last asked, in words.
pub(crate) fn take_repairs() -> Vec<String> {
    if !is_inside() {
        return Vec::new();
    }
    let path = door::inside().repairs();
    let Ok(text) = fs::read_to_string(&path) else { return Vec::new() };
    let _ = store::remove_file(&path);
    text.lines().map(str::to_owned).collect()
}

/// Lets names be looked up where the host has them looked up now.
fn name_servers(host: &str) {
    let program = uplink::program();
    let wanted = uplink::resolv_conf(host, program.as_deref());
    if fs::read_to_string(RESOLV_CONF_INSIDE).is_ok_and(|text| text != wanted) {
        // Names are looked up as before then.
        let _ = fs::write(RESOLV_CONF_INSIDE, wanted);
    }
}

fn pipe() -> std::io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

fn own_program() -> std::io::Result<OwnedFd> {
    Ok(rustix::fs::open("/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
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
