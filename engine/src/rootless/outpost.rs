//! The outpost: the process of a user's engine that stays on the host's side. It makes the sockets that listen on the
//! host, and sees to it that there is a way out.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};

use super::door::{Door, inside};
use super::note;
use super::uplink::{Programs, Uplink};
use crate::paths::RootlessRun;
use crate::store::{self, Durability, Lock};
use crate::sys::{detached, listener};

/// How a process knows that it is one.
pub(super) const ARGV0: &str = "rengine-outpost";

/// What it is asked for.
#[derive(Debug, Serialize, Deserialize)]
enum Request {
    /// A socket at a port of the host, which comes with the answer.
    Open(Door),
    /// To look for a way out again, among these programs.
    Lead(Vec<PathBuf>),
}

/// What is kept of it.
#[derive(Debug, Serialize, Deserialize)]
struct OutpostRecord {
    version: u32,
    pid: u32,
}

/// Somebody who asks does so at once.
const PATIENCE: Duration = Duration::from_secs(1);
/// An answer is the number of an error, or zero.
const ANSWER: usize = 4;

/// Becomes an outpost when this process was executed as one.
pub(super) fn enter_if_asked() -> Option<ExitCode> {
    detached::enter(ARGV0, watch)
}

/// A socket at a port of the host.
///
/// # Errors
/// As the host's kernel has it.
pub(super) fn open(run: &RootlessRun, door: &Door) -> Result<OwnedFd, Errno> {
    let failed = |_: io::Error| Errno::CONNREFUSED;
    let mut stream = UnixStream::connect(run.outpost()).map_err(failed)?;
    let request = serde_json::to_vec(&Request::Open(*door)).map_err(|_| Errno::INVAL)?;
    stream.write_all(&request).map_err(failed)?;
    stream.shutdown(std::net::Shutdown::Write).map_err(failed)?;
    receive(&stream)
}

/// Whether a port of the host could be had now.
///
/// # Errors
/// As the host's kernel has it.
pub(crate) fn try_to_open(door: &Door) -> Result<(), Errno> {
    open(&inside(), door).map(drop)
}

/// Has it look for a way out again.
pub(super) fn lead(run: &RootlessRun, programs: &Programs) -> io::Result<()> {
    let mut stream = UnixStream::connect(run.outpost())?;
    stream.write_all(&serde_json::to_vec(&Request::Lead(programs.0.clone()))?)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    receive(&stream)
        .map(drop)
        .or_else(|errno| if errno == Errno::NODATA { Ok(()) } else { Err(errno.into()) })
}

/// Where the kernel tells of the sockets of the host (proc(5), `/proc/<pid>/net`).
pub(crate) fn sockets_of_the_host() -> Option<PathBuf> {
    let record: OutpostRecord = store::read_json(&inside().outpost_record()).ok()??;
    Some(PathBuf::from(format!("/proc/{}/net", record.pid)))
}

fn watch(args: &[OsString]) -> Option<()> {
    let [tells, directory, keeper, programs @ ..] = args else { return None };
    let tells = File::from(detached::inherited(tells)?);
    let run = RootlessRun::at(PathBuf::from(directory));
    let keeper = Pid::from_raw(keeper.to_str()?.parse().ok()?)?;
    let _ = rustix::thread::set_name(c"rengine-outpost");
    let keeper_alive = rustix::process::pidfd_open(keeper, PidfdFlags::empty()).ok()?;
    let _alive = Lock::try_exclusive(&run.outpost_alive()).ok()??;
    store::remove_file(&run.outpost()).ok()?;
    let listener = UnixListener::bind(run.outpost()).ok()?;
    let record = OutpostRecord { version: 1, pid: std::process::id() };
    store::write_json(&run.outpost_record(), &record, Durability::Rename).ok()?;
    let mut uplink =
        Uplink::begin(run.clone(), keeper, Programs(programs.iter().map(PathBuf::from).collect()));
    (&tells).write_all(b".").ok()?;
    drop(tells);
    loop {
        let (is_asked, is_over, is_cut_off) = {
            let mut fds =
                vec![PollFd::new(&listener, PollFlags::IN), PollFd::new(&keeper_alive, PollFlags::IN)];
            fds.extend(uplink.process().map(|process| PollFd::from_borrowed_fd(process, PollFlags::IN)));
            match rustix::event::poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                polled => polled.ok()?,
            };
            let spoke = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
            (spoke(0), spoke(1), spoke(2))
        };
        if is_over {
            uplink.end();
            return Some(());
        }
        if is_cut_off {
            note(&run, &uplink.renew());
        }
        if is_asked && let Ok((stream, _)) = listener.accept() {
            // Whoever asks badly or goes away meanwhile has no answer.
            let _ = answer(&stream, &mut uplink);
        }
    }
}

fn answer(mut stream: &UnixStream, uplink: &mut Uplink) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = Vec::new();
    stream.read_to_end(&mut text)?;
    match serde_json::from_slice(&text)? {
        Request::Open(door) => match listener::listen(door.outside(), door.transport.kind()) {
            Ok(socket) => send(stream, 0, Some(&socket)),
            Err(errno) => send(stream, errno.raw_os_error(), None),
        },
        Request::Lead(programs) => {
            uplink.look_again(Programs(programs));
            send(stream, 0, None)
        }
    }
}

fn send(stream: &UnixStream, errno: i32, socket: Option<&OwnedFd>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let sockets: Vec<_> = socket.iter().map(|socket| socket.as_fd()).collect();
    if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(Errno::TOOMANYREFS.into());
    }
    let word = errno.to_ne_bytes();
    rustix::net::sendmsg(stream, &[IoSlice::new(&word)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive(stream: &UnixStream) -> Result<OwnedFd, Errno> {
    let mut word = [0; ANSWER];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut slices = [IoSliceMut::new(&mut word)];
        match rustix::net::recvmsg(stream, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    if received.bytes != ANSWER {
        return Err(Errno::CONNRESET);
    }
    let errno = i32::from_ne_bytes(word);
    if errno != 0 {
        return Err(Errno::from_raw_os_error(errno));
    }
    let sockets = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
        _ => None,
    });
    sockets.ok_or(Errno::NODATA)
}

/// What it is started with.
pub(super) fn arguments<'a>(
    run: &'a RootlessRun,
    keeper: &'a OsStr,
    programs: &'a Programs,
) -> Vec<&'a OsStr> {
    let mut args = vec![run.directory().as_os_str(), keeper];
    args.extend(programs.0.iter().map(|path: &PathBuf| OsStr::from_bytes(Path::as_os_str(path).as_bytes())));
    args
}
