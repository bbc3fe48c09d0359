//! The relay: the process that takes whoever comes by IPv6 to containers that have IPv4 alone. The firewall, which cannot
//! translate one family into the other, leads them to an address of this host that is the relay's own; the relay asks
//! the kernel what they called, looks up whose it is, and calls the container itself.
//!
//! There is at most one for each root, and none where nobody publishes such a port. It begins with the first one, and ends
//! some seconds after the last one is gone and the last connection over.

mod ports;

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SocketType, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use self::ports::Ports;
use crate::network::{NetworkError, Networks, file_error};
use crate::paths::Root;
use crate::rootless::porter::{self, stream};
use crate::store::{self, Lock};
use crate::sys::loopback::{self, Source};
use crate::sys::{detached, listener};

/// The first of the relays' addresses.
const RANGE: u128 = 0xfd2e_7265_6e67_0002 << 64;
/// How a process knows that it is one.
const ARGV0: &str = "rengine-relay";
/// Nobody else has the relay's address, so that every port of it is free. No program of a user's asks for this one.
const PORT: u16 = 1;
/// Where the kernel says whether this network namespace has IPv6 (ip-sysctl).
const IPV6_OF_LOOPBACK: &str = "/proc/sys/net/ipv6/conf/lo/disable_ipv6";
/// For how long it stays when nobody needs it: whoever takes back one port often publishes another one.
const LINGER: Duration = Duration::from_secs(3);

/// For how long an earlier relay may take to go, and how often it is looked whether it has.
const PATIENCE: Duration = Duration::from_secs(2);
const TURN: Duration = Duration::from_millis(5);

/// A relay at work.
struct Relay {
    networks: Networks,
    ports: Ports,
    /// How many connections it carries.
    carried: Cell<usize>,
    /// A port or a connection came or went.
    changed: Notify,
}

/// Where the firewall leads what the relay is to carry: each root has an address of its own, of a unique local range
/// (RFC 4193) drawn for this purpose, on `lo` while the relay lives.
pub(super) fn place(root: &Root) -> SocketAddr {
    SocketAddr::new(address(root).into(), PORT)
}

fn address(root: &Root) -> Ipv6Addr {
    let number = u32::from_str_radix(root.short_tag(), 16).unwrap_or_default();
    Ipv6Addr::from_bits(RANGE | u128::from(number))
}

/// Whether anybody could come by IPv6 at all.
pub(super) fn is_needed_here() -> bool {
    fs::read(IPV6_OF_LOOPBACK).is_ok_and(|text| text.starts_with(b"0"))
}

/// Starts the relay unless it is there. The caller holds the lock on the networks.
///
/// # Errors
/// When it cannot be started.
pub(super) fn ensure(root: &Root) -> Result<(), NetworkError> {
    let failed = |source: io::Error| NetworkError::Link {
        step: "start the relay for",
        object: "published ports of IPv6".to_owned(),
        source,
    };
    let path = root.relay();
    // It holds the lock as long as it lives.
    let Some(alive) = Lock::try_exclusive(&path).map_err(|source| file_error("lock", &path, source))? else {
        return Ok(());
    };
    let number = alive.file().as_raw_fd().to_string();
    let arguments = [OsStr::new(&number), root.state().as_os_str()];
    detached::post(ARGV0, &arguments, &[alive.file().as_fd()]).map_err(failed)
}

/// Whether there was one that was killed.
pub(super) fn is_lost(root: &Root) -> bool {
    let path = root.relay();
    path.exists() && Lock::try_exclusive(&path).is_ok_and(|lock| lock.is_some())
}

/// Takes away what one left that was killed, and has one that lives end.
///
/// # Errors
/// When something of it cannot be removed.
pub(super) fn clear_away(root: &Root) -> Result<(), NetworkError> {
    let failed =
        |source| NetworkError::Link { step: "take from lo", object: address(root).to_string(), source };
    loopback::take(address(root)).map_err(failed)?;
    let path = root.relay();
    store::remove_file(&path).map_err(|source| file_error("remove", &path, source))
}

/// Becomes the relay when this process was executed as one.
pub(crate) fn enter_if_asked() -> Option<ExitCode> {
    detached::enter(ARGV0, serve)
}

fn serve(args: &[OsString]) -> Option<()> {
    let [tells, alive, state] = args else { return None };
    let tells = File::from(detached::inherited(tells)?);
    let alive = detached::inherited(alive)?;
    let _ = rustix::thread::set_name(c"rengine-relay");
    porter::allow_many_descriptors();
    let root = Root::at(Path::new(state));
    let address = address(&root);
    let listener = std::net::TcpListener::from(listen(address).ok()?);
    listener.set_nonblocking(true).ok()?;
    let held = listener.try_clone().ok()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    let ended =
        tokio::task::LocalSet::new().block_on(&runtime, work(Networks::at(&root), listener, alive, tells));
    // In this order: the next one has neither before it has both.
    let _ = loopback::take(address);
    drop(held);
    ended
}

/// A relay whose directories somebody removed may be on its way out.
fn listen(address: Ipv6Addr) -> io::Result<OwnedFd> {
    let end = Instant::now() + PATIENCE;
    loop {
        loopback::lend(address, Source::Never)?;
        match listener::listen(SocketAddr::new(address.into(), PORT), SocketType::STREAM) {
            Err(Errno::ADDRINUSE | Errno::ADDRNOTAVAIL) if Instant::now() < end => {
                std::thread::sleep(TURN);
            }
            listener => return Ok(listener?),
        }
    }
}

async fn work(
    networks: Networks,
    listener: std::net::TcpListener,
    alive: OwnedFd,
    mut tells: File,
) -> Option<()> {
    let listener = TcpListener::from_std(listener).ok()?;
    let ports = Ports::watch(&networks, alive).ok()?;
    let relay = Rc::new(Relay { networks, ports, carried: Cell::new(0), changed: Notify::new() });
    tells.write_all(b".").ok()?;
    drop(tells);
    tokio::select! {
        () = relay.clone().accept(listener) => {}
        () = relay.watch_ports() => {}
        () = relay.wait_for_nobody() => {}
    }
    Some(())
}

// === impl Relay ===

impl Relay {
    async fn accept(self: Rc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((outside, _)) => {
                    let Some(target) = self.target(&outside) else { continue };
                    let relay = self.clone();
                    drop(tokio::task::spawn_local(async move { relay.carry(outside, target).await }));
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => tokio::time::sleep(stream::BREATH).await,
            }
        }
    }

    /// Where a connection is to be led. It is closed when nobody has the port any more, or somebody called the relay.
    fn target(&self, outside: &TcpStream) -> Option<SocketAddr> {
        let called = sockopt::ipv6_original_dst(outside).ok()?;
        if *called.ip() == address(&self.networks.root) {
            return None;
        }
        self.ports.target((*called.ip()).into(), called.port())
    }

    async fn carry(&self, outside: TcpStream, target: SocketAddr) {
        self.carried.set(self.carried.get() + 1);
        stream::carry(outside, target).await;
        self.carried.set(self.carried.get() - 1);
        self.changed.notify_one();
    }

    /// Comes back when its lock or the directory of published ports is gone, and the engine with it.
    async fn watch_ports(&self) {
        while self.ports.change().await.is_ok() {
            self.changed.notify_one();
        }
    }

    /// Comes back when nobody has needed it for a while. Who publishes a port meanwhile starts another one: both go
    /// by the lock on the networks.
    async fn wait_for_nobody(&self) {
        loop {
            // While much changes, as when a project goes up, it is too soon to look.
            while tokio::time::timeout(LINGER, self.changed.notified()).await.is_ok() {}
            if !self.is_needed() {
                let Ok(_lock) = self.networks.lock() else { return };
                if !self.is_needed() {
                    // One whose lock somebody else removed leaves the next one's alone.
                    if !self.ports.are_gone() {
                        let _ = store::remove_file(&self.networks.root.relay());
                    }
                    return;
                }
            }
            self.changed.notified().await;
        }
    }

    fn is_needed(&self) -> bool {
        self.carried.get() > 0 || !self.ports.are_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_root_has_a_place_of_its_own() {
        let at = |path: &str| place(&Root::at(Path::new(path)));
        assert!(at("/var/lib/rengine").to_string().starts_with("[fd2e:7265:6e67:2"));
        assert_ne!(at("/var/lib/rengine"), at("/srv/other"));
        assert_eq!(at("/srv/other"), at("/srv/other"));
    }
}
