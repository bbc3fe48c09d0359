//! The porter: the process inside the network namespace of a user's engine that takes what comes in by ports of the host
//! to where it belongs. It knows no container: it connects to the port of the same number inside, and the firewall there
//! leads every new connection to whoever has that port at the moment. One that is established stays where it is, also
//! when its door is shut.

mod datagram;
mod here;
pub(crate) mod stream;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Resource};
use rustix::thread::ThreadNameSpaceType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::door::{Change, Changed, Door, Transport};
use super::{note, outpost};
use crate::paths::RootlessRun;
use crate::store::{self, Durability, Lock};
use crate::sys::detached;

/// How a process knows that it is one.
pub(super) const ARGV0: &str = "rengine-porter";

/// The doors that are open, each with the task that stands in it.
struct Doors {
    run: RootlessRun,
    open: BTreeMap<Door, JoinHandle<()>>,
}

/// Becomes a porter when this process was executed as one.
pub(super) fn enter_if_asked() -> Option<ExitCode> {
    detached::enter(ARGV0, serve)
}

fn serve(args: &[OsString]) -> Option<()> {
    let [tells, directory, keeper] = args else { return None };
    let tells = File::from(detached::inherited(tells)?);
    let run = RootlessRun::at(PathBuf::from(directory));
    let keeper = Pid::from_raw(keeper.to_str()?.parse().ok()?)?;
    let _ = rustix::thread::set_name(c"rengine-porter");
    let keeper = rustix::process::pidfd_open(keeper, PidfdFlags::empty()).ok()?;
    let inside = ThreadNameSpaceType::USER | ThreadNameSpaceType::NETWORK;
    rustix::thread::move_into_thread_name_spaces(keeper.as_fd(), inside).ok()?;
    let _alive = Lock::try_exclusive(&run.porter_alive()).ok()??;
    allow_many_descriptors();
    here::prepare();
    store::remove_file(&run.porter()).ok()?;
    std::thread::Builder::new().name("keeper".to_owned()).spawn(move || end_with(&keeper)).ok()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    tokio::task::LocalSet::new().block_on(&runtime, watch(run, tells))
}

/// Nobody needs a porter without a keeper.
fn end_with(keeper: &OwnedFd) {
    let mut fds = [PollFd::new(keeper, PollFlags::IN)];
    while rustix::event::poll(&mut fds, None) == Err(Errno::INTR) {}
    std::process::exit(0);
}

async fn watch(run: RootlessRun, mut tells: File) -> Option<()> {
    let listener = UnixListener::bind(run.porter()).ok()?;
    let mut doors = Doors { run, open: BTreeMap::new() };
    doors.open_those_of_before();
    tells.write_all(b".").ok()?;
    drop(tells);
    let doors = Rc::new(Mutex::new(doors));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let doors = doors.clone();
                tokio::task::spawn_local(async move { answer(stream, &doors).await });
            }
            Err(_) => tokio::time::sleep(stream::BREATH).await,
        }
    }
}

async fn answer(mut stream: UnixStream, doors: &Mutex<Doors>) -> io::Result<()> {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await?;
    let change: Change = serde_json::from_slice(&text)?;
    let refused = doors.lock().await.change(&change).await.err();
    let changed = Changed { refused: refused.map(|(door, errno)| (door, errno.raw_os_error())) };
    stream.write_all(&serde_json::to_vec(&changed)?).await
}

/// Each connection takes two.
pub(crate) fn allow_many_descriptors() {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = rustix::process::setrlimit(Resource::Nofile, limit);
}

// === impl Doors ===

impl Doors {
    /// Shuts those that were and shall not be any more, and opens those that were not. None that has been opened stays
    /// open when another one cannot be.
    async fn change(&mut self, change: &Change) -> Result<(), (Door, Errno)> {
        let leaving: Vec<Door> =
            change.before.iter().filter(|door| !change.now.contains(door)).copied().collect();
        self.shut(&leaving).await;
        let mut opened = Vec::new();
        let mut outcome = Ok(());
        for door in &change.now {
            if self.open.contains_key(door) && change.before.contains(door) {
                continue;
            }
            match self.open(*door) {
                Ok(()) => opened.push(*door),
                Err(errno) => {
                    outcome = Err((*door, errno));
                    self.shut(&opened).await;
                    break;
                }
            }
        }
        self.write();
        outcome
    }

    /// An earlier porter has had these.
    fn open_those_of_before(&mut self) {
        let doors: Vec<Door> = store::read_json(&self.run.doors()).ok().flatten().unwrap_or_default();
        for door in doors {
            if let Err(errno) = self.open(door) {
                note(&self.run, &format!("lost the port {door} of the host: {errno}"));
            }
        }
        self.write();
    }

    fn open(&mut self, door: Door) -> Result<(), Errno> {
        let socket = match outpost::open(&self.run, &door) {
            // A host without IPv6 has nobody who could come by it.
            Err(Errno::AFNOSUPPORT) if door.host.is_unspecified() => return Ok(()),
            socket => socket?,
        };
        let failed = |error: io::Error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL);
        let target = door.target();
        let task = match door.transport {
            Transport::Tcp => {
                let listener = std::net::TcpListener::from(socket);
                listener.set_nonblocking(true).map_err(failed)?;
                let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
                tokio::task::spawn_local(stream::accept(listener, target))
            }
            Transport::Udp => {
                let socket = std::net::UdpSocket::from(socket);
                socket.set_nonblocking(true).map_err(failed)?;
                let socket = tokio::net::UdpSocket::from_std(socket).map_err(failed)?;
                tokio::task::spawn_local(datagram::receive(socket, target))
            }
        };
        self.open.insert(door, task);
        Ok(())
    }

    /// A port is free again when this comes back.
    async fn shut(&mut self, doors: &[Door]) {
        for door in doors {
            if let Some(task) = self.open.remove(door) {
                task.abort();
                let _ = task.await;
            }
        }
    }

    fn write(&self) {
        let doors: Vec<&Door> = self.open.keys().collect();
        // Without it they are shut when this process ends.
        let _ = store::write_json(&self.run.doors(), &doors, Durability::Rename);
    }
}
