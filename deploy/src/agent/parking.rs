//! A place for connections and datagrams to wait while a service that cannot stand beside itself is replaced: a listener
//! on the host takes them, and passes them on once the successor is ready.

mod datagrams;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::Engine;
use engine::container::spec::Protocol;
use engine::error::{Error, Result};
use engine::id::ContainerId;
use engine::network::{Endpoint, PublishedPort};

use self::datagrams::Waiting;

/// The listeners for the ports of one container.
pub(crate) struct Parking {
    listeners: HashMap<(SocketAddr, u16), (Listening, SocketAddr)>,
    datagrams: HashMap<(SocketAddr, u16), (Waiting, SocketAddr)>,
}

/// One listener with the thread that accepts.
struct Listening {
    waiting: Arc<Mutex<Queue>>,
}

/// The connections that wait; once it is known where to, they go there at once.
enum Queue {
    Waiting(Vec<TcpStream>),
    PassedOn(SocketAddr),
}

impl Parking {
    /// Leads the published ports of a container to listeners.
    pub(crate) fn open(engine: &Engine, from: &ContainerId) -> Result<Self> {
        let failed = |error| Error::failed("make a place for connections to wait", error);
        let (mut listeners, mut datagrams) = (HashMap::new(), HashMap::new());
        // The gateway of the container's own network is an address of this host that packets from outside reach.
        let container = engine.container(from.as_str())?;
        let gateway = |like: IpAddr| {
            let reached = container.endpoints.iter().filter(|endpoint| endpoint.is_reached_by_host());
            let mut gateways =
                reached.flat_map(|endpoint| &endpoint.addresses).filter_map(|entry| entry.gateway);
            gateways.find(|gateway| gateway.is_ipv4() == like.is_ipv4())
        };
        for port in engine.networks().published(from)? {
            let Some(gateway) = gateway(port.host_ip) else { continue };
            match port.container.protocol {
                Protocol::Tcp => {
                    let listener = TcpListener::bind((gateway, 0)).map_err(failed)?;
                    let address = listener.local_addr().map_err(failed)?;
                    listeners.insert(key(&port), (Listening::start(listener).map_err(failed)?, address));
                }
                Protocol::Udp => {
                    let socket = UdpSocket::bind((gateway, 0)).map_err(failed)?;
                    let address = socket.local_addr().map_err(failed)?;
                    let waiting = Waiting::start(socket, engine.clone()).map_err(failed)?;
                    datagrams.insert(key(&port), (waiting, address));
                }
                Protocol::Sctp => {}
            }
        }
        let find = |port: &PublishedPort| match port.container.protocol {
            Protocol::Tcp => listeners.get(&key(port)).map(|(_, address)| *address),
            Protocol::Udp => datagrams.get(&key(port)).map(|(_, address)| *address),
            Protocol::Sctp => None,
        };
        engine.park_ports(from, from, &find)?;
        Ok(Self { listeners, datagrams })
    }

    /// Passes on what waits, and what still comes, to the container that has taken over.
    pub(crate) fn pass_on(&self, engine: &Engine, to: &ContainerId) -> Result<()> {
        let container = engine.container(to.as_str())?;
        let address = |like: SocketAddr| {
            let mut reached = container.endpoints.iter().filter(|endpoint| endpoint.is_reached_by_host());
            let of_family = if like.is_ipv4() { Endpoint::ipv4 } else { Endpoint::ipv6 };
            reached.find_map(of_family)
        };
        for ((host, port), (listening, _)) in &self.listeners {
            let nowhere =
                if host.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
            listening.pass_on(SocketAddr::new(address(*host).unwrap_or(nowhere), *port));
        }
        self.datagrams.values().for_each(|(waiting, _)| waiting.pass_on());
        Ok(())
    }
}

/// What tells a published port from the others of its protocol.
fn key(port: &PublishedPort) -> (SocketAddr, u16) {
    (SocketAddr::new(port.host_ip, port.host_port), port.container.port)
}

impl Listening {
    fn start(listener: TcpListener) -> io::Result<Self> {
        let waiting = Arc::new(Mutex::new(Queue::Waiting(Vec::new())));
        let queue = waiting.clone();
        // It ends with the process: connections that are passed on live until then.
        std::thread::Builder::new().name("parking".to_owned()).spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                match &mut *queue {
                    Queue::Waiting(streams) => streams.push(stream),
                    Queue::PassedOn(target) => splice(stream, *target),
                }
            }
        })?;
        Ok(Self { waiting })
    }

    fn pass_on(&self, target: SocketAddr) {
        let mut queue = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Queue::Waiting(streams) = std::mem::replace(&mut *queue, Queue::PassedOn(target)) {
            streams.into_iter().filter(is_wanted).for_each(|stream| splice(stream, target));
        }
    }
}

/// Whether somebody still waits at the other end.
fn is_wanted(stream: &TcpStream) -> bool {
    let gone = stream.set_nonblocking(true).is_ok() && matches!(stream.peek(&mut [0]), Ok(0));
    !gone && stream.set_nonblocking(false).is_ok()
}

/// Carries bytes both ways until both sides are done. A failure ends the connection, as it would without us.
fn splice(here: TcpStream, target: SocketAddr) {
    let carry = move || -> io::Result<()> {
        let there = TcpStream::connect_timeout(&target, Duration::from_secs(5))?;
        let (mut from_here, mut to_there) = (here.try_clone()?, there.try_clone()?);
        let upward = std::thread::spawn(move || {
            let _ = io::copy(&mut from_here, &mut to_there);
            let _ = to_there.shutdown(Shutdown::Write);
        });
        let (mut from_there, mut to_here) = (there, here);
        let _ = io::copy(&mut from_there, &mut to_here);
        let _ = to_here.shutdown(Shutdown::Write);
        let _ = upward.join();
        Ok(())
    };
    std::thread::spawn(move || drop(carry()));
}
