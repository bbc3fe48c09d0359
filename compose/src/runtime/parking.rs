//! A place for connections and datagrams to wait while a container stops before its successor starts: a listener on the
//! host takes them, and passes them on once the successor is ready.

mod datagrams;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use engine::Engine;
use engine::container::spec::Protocol;
use engine::error::{Error, Result};
use engine::id::ContainerId;
use engine::network::{Endpoint, PublishedPort};

use self::datagrams::Waiting;
use super::{Failure, Runtime};
use crate::operation::Operation;
use crate::plan::{Plan, Step};

/// The containers of a plan that stop before their successors start, and where those who connect meanwhile wait.
#[derive(Clone, Default)]
pub struct Parked {
    /// By the id of the one that stops: the name of the one that takes its place.
    successors: Arc<BTreeMap<ContainerId, String>>,
    /// Where those wait that are not passed on yet, with the one that stopped; by the name of the successor.
    lots: Arc<Mutex<BTreeMap<String, (ContainerId, Parking)>>>,
    carried: Arc<Carried>,
}

/// The listeners for the ports of one container.
struct Parking {
    listeners: HashMap<(SocketAddr, u16), (Listening, SocketAddr)>,
    datagrams: HashMap<(SocketAddr, u16), (Waiting, SocketAddr)>,
}

/// One listener with the thread that accepts.
struct Listening {
    waiting: Arc<Mutex<Queue>>,
}

/// How many connections are passed on now: they end with this process.
#[derive(Default)]
struct Carried {
    count: Mutex<usize>,
    fewer: Condvar,
    /// How many seats are taken.
    seats: Mutex<usize>,
    freed: Condvar,
}

/// What a connection needs to be accepted. Without one it waits in the kernel's queue, so that this process always has
/// descriptors for its own work.
struct Seat(Arc<Carried>);

/// A connection that is passed on, and counts as one until it is over.
struct Carrying(Seat);

/// The connections that wait; once it is known where to, they go there at once.
enum Queue {
    Waiting(Vec<(TcpStream, Seat)>),
    PassedOn(SocketAddr),
}

/// How long a container that is about to stop may take to answer those whom it serves, when nobody else is led to it:
/// many a program ends without a word to them.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// How long a packet may be on its way to a container on this machine, when that is busy: one that finds it gone is told that
/// there is no such host.
const ON_ITS_WAY: Duration = Duration::from_millis(50);

/// How many descriptors this process keeps for its own work.
const OWN_DESCRIPTORS: u64 = 256;

/// How often it is seen whom a container serves.
const GLANCE: Duration = Duration::from_millis(10);

// === impl Parked ===

impl Parked {
    /// Those of this plan.
    pub fn of(plan: &Plan) -> Self {
        let mut successors = BTreeMap::new();
        let takes_over = |step: &Step| match &step.operation {
            Operation::HandOver { from: Some(_), to, .. } => Some(to.name().to_owned()),
            _ => None,
        };
        let heirs: BTreeSet<String> = plan.steps().iter().filter_map(takes_over).collect();
        for step in plan.steps() {
            let Operation::StartContainer { instance } = &step.operation else { continue };
            // Any other one publishes its ports when it starts.
            if !heirs.contains(instance.name()) {
                continue;
            }
            for before in step.after.iter().filter_map(|before| plan.steps().get(*before)) {
                if let Operation::StopContainer { container, .. } = &before.operation {
                    successors.insert(container.id.clone(), instance.name().to_owned());
                }
            }
        }
        Self { successors: Arc::new(successors), ..Self::default() }
    }

    /// Does one operation, and what it means for those who wait.
    ///
    /// # Errors
    /// When the operation fails, or there is no place to wait.
    pub fn perform(&self, runtime: &Runtime, operation: &Operation) -> Result<(), Failure> {
        match operation {
            Operation::StopContainer { container, .. } => {
                if let Some(successor) = self.successors.get(&container.id) {
                    let lot =
                        Parking::open(runtime.engine(), &container.id, &self.carried).map_err(|error| {
                            Failure {
                                service: Some(container.service.clone()),
                                object: format!("container {}", container.name),
                                error,
                            }
                        })?;
                    let leads_away = !lot.listeners.is_empty();
                    self.lots().insert(successor.clone(), (container.id.clone(), lot));
                    // Without a port of its own it is led to as before, and those whom it serves may stay for ever.
                    if leads_away {
                        std::thread::sleep(ON_ITS_WAY);
                        drained(runtime.engine(), &container.id, LAST_ANSWERS);
                    }
                }
                runtime.perform(operation)
            }
            Operation::HandOver { to, name, .. } => {
                runtime.perform(operation)?;
                let lot = self.lots().remove(to.name());
                if let (Some((_, lot)), Ok(id)) = (lot, runtime.id_of(to)) {
                    return lot.pass_on(runtime.engine(), &id).map_err(|error| Failure {
                        service: Some(to.service().to_owned()),
                        object: format!("container {name}"),
                        error,
                    });
                }
                Ok(())
            }
            _ => runtime.perform(operation),
        }
    }

    /// Passes those who still wait on to the containers that stopped and run again.
    ///
    /// # Errors
    /// When one of these is not there.
    pub fn pass_back(&self, engine: &Engine) -> Result<()> {
        std::mem::take(&mut *self.lots()).into_values().try_for_each(|(id, lot)| lot.pass_on(engine, &id))
    }

    /// Waits until the connections that were passed on are over, or the time is up.
    pub fn drain(&self, limit: Duration) {
        if self.successors.is_empty() {
            return;
        }
        // One that was on its way when the ports were led elsewhere may not have been accepted yet.
        std::thread::sleep(GLANCE.min(limit));
        let count = self.carried.count.lock().unwrap_or_else(PoisonError::into_inner);
        // Whether the time is up is not of interest: what goes on then is cut.
        let _ = self.carried.fewer.wait_timeout_while(count, limit, |count| *count > 0);
    }

    fn lots(&self) -> MutexGuard<'_, BTreeMap<String, (ContainerId, Parking)>> {
        self.lots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Parking ===

impl Parking {
    /// Leads the published ports of a container to listeners.
    fn open(engine: &Engine, from: &ContainerId, carried: &Arc<Carried>) -> Result<Self> {
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
            let Some(gateway) = gateway(port.target.ip()) else { continue };
            match port.container.protocol {
                Protocol::Tcp => {
                    let listener = TcpListener::bind((gateway, 0)).map_err(failed)?;
                    let address = listener.local_addr().map_err(failed)?;
                    let listening = Listening::start(listener, carried.clone()).map_err(failed)?;
                    listeners.insert(key(&port), (listening, address));
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
    fn pass_on(&self, engine: &Engine, to: &ContainerId) -> Result<()> {
        let container = engine.container(to.as_str())?;
        let address = |like: SocketAddr| {
            let mut reached = container.endpoints.iter().filter(|endpoint| endpoint.is_reached_by_host());
            let of_family = if like.is_ipv4() { Endpoint::ipv4 } else { Endpoint::ipv6 };
            reached.find_map(of_family)
        };
        for ((_, port), (listening, place)) in &self.listeners {
            let nowhere =
                if place.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
            listening.pass_on(SocketAddr::new(address(*place).unwrap_or(nowhere), *port));
        }
        self.datagrams.values().for_each(|(waiting, _)| waiting.pass_on());
        Ok(())
    }
}

/// What tells a published port from the others of its protocol.
fn key(port: &PublishedPort) -> (SocketAddr, u16) {
    (SocketAddr::new(port.host_ip, port.host_port), port.container.port)
}

// === impl Seat ===

impl Seat {
    /// Waits until one is free. A connection that is passed on takes two descriptors.
    fn take(carried: &Arc<Carried>) -> Self {
        let allowed = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let most = allowed.map_or(usize::MAX, |allowed| {
            usize::try_from(allowed.saturating_sub(OWN_DESCRIPTORS) / 2).unwrap_or(usize::MAX).max(16)
        });
        let seats = carried.seats.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seats =
            carried.freed.wait_while(seats, |taken| *taken >= most).unwrap_or_else(PoisonError::into_inner);
        *seats += 1;
        Self(carried.clone())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        *self.0.seats.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.freed.notify_all();
    }
}

// === impl Carrying ===

impl Carrying {
    fn begin(seat: Seat) -> Self {
        *seat.0.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self(seat)
    }
}

impl Drop for Carrying {
    fn drop(&mut self) {
        *self.0.0.count.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.0.fewer.notify_all();
    }
}

// === impl Listening ===

impl Listening {
    fn start(listener: TcpListener, carrier: Arc<Carried>) -> io::Result<Self> {
        let waiting = Arc::new(Mutex::new(Queue::Waiting(Vec::new())));
        let queue = waiting.clone();
        // It ends with the process: connections that are passed on live until then.
        std::thread::Builder::new().name("parking".to_owned()).spawn(move || {
            loop {
                let seat = Seat::take(&carrier);
                let Ok((stream, _)) = listener.accept() else {
                    // One that hung up, or no descriptor is free on the whole machine: that passes.
                    std::thread::sleep(GLANCE);
                    continue;
                };
                let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                match &mut *queue {
                    Queue::Waiting(streams) => streams.push((stream, seat)),
                    Queue::PassedOn(target) => splice(stream, *target, seat),
                }
            }
        })?;
        Ok(Self { waiting })
    }

    fn pass_on(&self, target: SocketAddr) {
        let mut queue = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Queue::Waiting(streams) = std::mem::replace(&mut *queue, Queue::PassedOn(target)) {
            let wanted = streams.into_iter().filter(|(stream, _)| is_wanted(stream));
            wanted.for_each(|(stream, seat)| splice(stream, target, seat));
        }
    }
}

/// Whether somebody still waits at the other end.
fn is_wanted(stream: &TcpStream) -> bool {
    let gone = stream.set_nonblocking(true).is_ok() && matches!(stream.peek(&mut [0]), Ok(0));
    !gone && stream.set_nonblocking(false).is_ok()
}

/// Waits until a container serves nobody any more, or the time is up; how many connections it has then. Nobody is nobody
/// twice: a connection may have been on its way when all others were led elsewhere.
pub fn drained(engine: &Engine, id: &ContainerId, limit: Duration) -> usize {
    let began = Instant::now();
    let (mut quiet, mut open) = (0, 0);
    while quiet < 2 && began.elapsed() < limit {
        // One that cannot be looked at has nobody to wait for.
        let Ok(now) = engine.open_connections(id) else { return 0 };
        open = now;
        quiet = if open == 0 { quiet + 1 } else { 0 };
        std::thread::sleep(GLANCE);
    }
    open
}

/// Carries bytes both ways until both sides are done. A failure ends the connection, as it would without us; so does a
/// machine that gives no more threads.
fn splice(here: TcpStream, target: SocketAddr, seat: Seat) {
    let carrying = Carrying::begin(seat);
    let thread = std::thread::Builder::new().name("splice".to_owned());
    let _ = thread.spawn(move || {
        let _carrying = carrying;
        let Ok(there) = TcpStream::connect_timeout(&target, Duration::from_secs(5)) else { return };
        std::thread::scope(|scope| {
            let back = std::thread::Builder::new().spawn_scoped(scope, || flow(&here, &there));
            if back.is_ok() {
                flow(&there, &here);
            }
        });
    });
}

/// Carries bytes one way until there are no more.
fn flow(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
