//! The name server of one container: at 127.0.0.11 in its network namespace, answered by its monitor. Names of
//! containers on its networks are answered from the endpoints' files; all others are asked of the servers outside,
//! from the host's network namespace, where the monitor lives. So a server that listens on the host's loopback can be
//! asked as well.

mod forward;
mod message;
mod names;
mod stream;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use rustix::event::epoll;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use self::forward::Forward;
use self::message::{Incoming, Question, Wanted};
use self::names::{Found, Names};
use self::stream::Stream;
use crate::container::spec::DnsSpec;
use crate::id::ContainerId;
use crate::network::nft::{
    Chain, Change, Expression, FAMILY_IPV4, Field, Hook, Meta, Place, PortField, REGISTER, TCP, Transaction,
    UDP,
};
use crate::network::{NetworkError, Networks, resolv};

/// The address of every container's name server.
pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The sockets of a container's name server, opened inside its network namespace.
#[derive(Debug)]
pub struct DnsSockets {
    udp: OwnedFd,
    tcp: OwnedFd,
}

/// Answers the queries of one container. It belongs into a poll loop: wait until its descriptor is readable, then
/// call [`Resolver::ready`]. Time-outs make the descriptor readable as well.
#[derive(Debug)]
pub struct Resolver {
    epoll: OwnedFd,
    timer: OwnedFd,
    udp: UdpSocket,
    tcp: TcpListener,
    names: Names,
    servers: Servers,
    clients: HashMap<u64, Client>,
    forwards: HashMap<u64, Pending>,
    next: u64,
}

/// Where names are asked that no container has.
#[derive(Debug)]
enum Servers {
    These(Vec<SocketAddr>),
    /// Those in this file, whatever they are now.
    Of(PathBuf),
}

/// A client that is connected by TCP.
#[derive(Debug)]
struct Client {
    stream: Stream,
    until: Instant,
}

/// A question that is being asked outside.
#[derive(Debug)]
struct Pending {
    forward: Forward,
    question: Box<Question>,
    from: Asker,
}

/// Who asked.
#[derive(Debug, Clone, Copy)]
enum Asker {
    Datagram(SocketAddr),
    Client(u64),
}

const TABLE: &str = "rengine-dns";
const PORT: u16 = 53;
const UDP_KEY: u64 = 0;
const TCP_KEY: u64 = 1;
const TIMER_KEY: u64 = 2;
const FIRST_KEY: u64 = 3;
/// Questions that are asked outside at the same time.
const MOST_FORWARDS: usize = 256;
/// Clients connected by TCP at the same time.
const MOST_CLIENTS: usize = 64;
/// How long a client may stay connected without asking.
const CLIENT_PATIENCE: Duration = Duration::from_secs(10);
/// Events and datagrams handled in one go, so that a flood of them does not keep the monitor from the rest.
const MOST_AT_ONCE: usize = 64;
const LARGEST_DATAGRAM: usize = 4096;
const PRIORITY_RAW: i32 = -300;

/// Opens the name server's sockets in the calling thread's network namespace and leads 127.0.0.11:53 to them. Loopback
/// must be up.
///
/// The sockets have a port of their own, so that a program in the container can serve port 53. Where nf_tables is
/// missing they take port 53 of this one address.
///
/// # Errors
/// When the kernel refuses.
pub fn open_dns_sockets() -> Result<DnsSockets, NetworkError> {
    let bind = |port| -> io::Result<(UdpSocket, TcpListener)> {
        let udp = UdpSocket::bind((NAME_SERVER, port))?;
        let tcp = TcpListener::bind((NAME_SERVER, udp.local_addr()?.port()))?;
        Ok((udp, tcp))
    };
    let open = || -> io::Result<DnsSockets> {
        let (udp, tcp) = bind(0)?;
        let (udp, tcp) = if lead_here(udp.local_addr()?.port()) { (udp, tcp) } else { bind(PORT)? };
        Ok(DnsSockets { udp: udp.into(), tcp: tcp.into() })
    };
    open().map_err(|source| NetworkError::Dns { step: "open its sockets", source })
}

/// Rewrites ports without tracking connections: a container whose connections nobody tracks stays as fast as it was. On
/// the way in this comes after connection tracking, on the way out before it, so that one who does track sees port 53
/// both times.
fn lead_here(port: u16) -> bool {
    use Expression::{Equal, Load, Meta as Known, SetPort};
    let mut transaction = Transaction::new();
    transaction.push(Change::Table);
    transaction.push(Change::NoTable);
    transaction.push(Change::Table);
    let sides = [
        ("question", Place::Input, 0, Field::IPV4_RECEIVER, PortField::Destination, PORT, port),
        ("answer", Place::Output, PRIORITY_RAW, Field::IPV4_SENDER, PortField::Source, port, PORT),
    ];
    for (chain, place, priority, address, field, before, after) in sides {
        let hook = Some(Hook { kind: "filter", place, priority });
        transaction.push(Change::Chain(Chain { name: chain, hook }));
        for protocol in [UDP, TCP] {
            let rule = vec![
                Known(Meta::Family, REGISTER),
                Equal(REGISTER, vec![FAMILY_IPV4]),
                Load(address, REGISTER),
                Equal(REGISTER, NAME_SERVER.octets().to_vec()),
                Known(Meta::Protocol, REGISTER),
                Equal(REGISTER, vec![protocol]),
                Load(Field::port(field), REGISTER),
                Equal(REGISTER, before.to_be_bytes().to_vec()),
                SetPort(field, protocol, after),
            ];
            transaction.rule(chain, rule);
        }
    }
    transaction.commit(TABLE).is_ok()
}

// === impl DnsSockets ===

impl DnsSockets {
    /// The descriptors, to be passed to another process: UDP, then TCP.
    pub fn into_descriptors(self) -> Vec<OwnedFd> {
        vec![self.udp, self.tcp]
    }

    /// The sockets from the descriptors that [`DnsSockets::into_descriptors`] gave; `None` when they are not two.
    pub fn from_descriptors(descriptors: Vec<OwnedFd>) -> Option<Self> {
        let [udp, tcp] = <[OwnedFd; 2]>::try_from(descriptors).ok()?;
        Some(Self { udp, tcp })
    }
}

// === impl Resolver ===

impl Resolver {
    /// A name server for this container, which is attached already. Names come from the endpoints of its networks;
    /// other names are asked of the servers in the specification, else of the host's.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new(
        sockets: DnsSockets,
        networks: &Networks,
        container: &ContainerId,
        dns: &DnsSpec,
    ) -> Result<Self, NetworkError> {
        let failed = |step| move |source: io::Error| NetworkError::Dns { step, source };
        let errno = |step| move |source: rustix::io::Errno| NetworkError::Dns { step, source: source.into() };
        let udp = UdpSocket::from(sockets.udp);
        let tcp = TcpListener::from(sockets.tcp);
        udp.set_nonblocking(true).map_err(failed("set up UDP"))?;
        tcp.set_nonblocking(true).map_err(failed("set up TCP"))?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(errno("wait for queries"))?;
        let timer = rustix::time::timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )
        .map_err(errno("set a timer"))?;
        let resolver = Self {
            names: Names::new(networks.root.network_runs(), container.clone(), &dns.links),
            servers: if dns.servers.is_empty() {
                Servers::Of(PathBuf::from(resolv::HOST_RESOLV_CONF))
            } else {
                Servers::These(dns.servers.iter().map(|server| SocketAddr::new(*server, PORT)).collect())
            },
            epoll,
            timer,
            udp,
            tcp,
            clients: HashMap::new(),
            forwards: HashMap::new(),
            next: FIRST_KEY,
        };
        resolver.watch(&resolver.udp, UDP_KEY, epoll::EventFlags::IN).map_err(failed("wait for UDP"))?;
        resolver.watch(&resolver.tcp, TCP_KEY, epoll::EventFlags::IN).map_err(failed("wait for TCP"))?;
        resolver
            .watch(&resolver.timer, TIMER_KEY, epoll::EventFlags::IN)
            .map_err(failed("wait for a timer"))?;
        Ok(resolver)
    }

    /// The same, asking these servers outside. The port of a server is 53 everywhere but in tests.
    pub fn asking(mut self, servers: Vec<SocketAddr>) -> Self {
        self.servers = Servers::These(servers);
        self
    }

    /// Handles everything that is readable or due, without blocking.
    pub fn ready(&mut self) {
        let mut events = Vec::with_capacity(MOST_AT_ONCE);
        let no_wait = Timespec { tv_sec: 0, tv_nsec: 0 };
        let spare = rustix::buffer::spare_capacity(&mut events);
        if epoll::wait(&self.epoll, spare, Some(&no_wait)).is_err() {
            return;
        }
        for event in &events {
            match event.data.u64() {
                UDP_KEY => self.read_datagrams(),
                TCP_KEY => self.accept_clients(),
                TIMER_KEY => {
                    // Only to make it unreadable again.
                    let _ = rustix::io::read(&self.timer, &mut [0u8; 8]);
                }
                key if self.clients.contains_key(&key) => self.serve_client(key),
                key => self.hear_server(key),
            }
        }
        self.give_up_what_is_due();
        self.set_timer();
    }

    fn read_datagrams(&mut self) {
        let mut buffer = [0; LARGEST_DATAGRAM];
        for _ in 0..MOST_AT_ONCE {
            match self.udp.recv_from(&mut buffer) {
                Ok((length, peer)) => self.handle(&buffer[..length], Asker::Datagram(peer)),
                Err(_) => return,
            }
        }
    }

    fn accept_clients(&mut self) {
        for _ in 0..MOST_AT_ONCE {
            let Ok((stream, _)) = self.tcp.accept() else { return };
            if self.clients.len() >= MOST_CLIENTS {
                // Closed at once: the client asks again, and a slot is free within seconds.
                continue;
            }
            let Ok(stream) = Stream::accepted(stream) else { continue };
            let key = self.take_key();
            if self.watch(&stream, key, epoll::EventFlags::IN).is_ok() {
                self.clients.insert(key, Client { stream, until: Instant::now() + CLIENT_PATIENCE });
            }
        }
    }

    fn serve_client(&mut self, key: u64) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        let Ok(messages) = client.stream.exchange() else {
            self.clients.remove(&key);
            return;
        };
        if !messages.is_empty() {
            client.until = Instant::now() + CLIENT_PATIENCE;
        }
        for message in messages {
            self.handle(&message, Asker::Client(key));
        }
        self.rewatch_client(key);
    }

    fn handle(&mut self, bytes: &[u8], from: Asker) {
        match message::read(bytes) {
            Incoming::Nothing => {}
            Incoming::Malformed(answer) => self.send(&answer, from),
            Incoming::Foreign(question) => {
                // Whether there is an outside is decided like that of any unknown name.
                let found: Found<IpAddr> = self.names.addresses("", false, false);
                self.ask_outside(bytes, question, from, found == Found::AskOutside);
            }
            Incoming::Question(question) => self.answer(bytes, question, from),
        }
    }

    fn answer(&mut self, bytes: &[u8], question: Box<Question>, from: Asker) {
        let (found, outside) = match question.wanted() {
            Wanted::Addresses { name, ipv4, ipv6 } => match self.names.addresses(&name, ipv4, ipv6) {
                Found::Here(addresses) => (Some(question.addresses(&addresses)), false),
                other => (None, other == Found::AskOutside),
            },
            // A name that is known has no other records, and nobody outside shall be asked for them.
            Wanted::Other { name } => match self.names.addresses(&name, false, false) {
                Found::Here(_) => (Some(question.addresses(&[])), false),
                other => (None, other == Found::AskOutside),
            },
            Wanted::Names(address) => match self.names.names(address) {
                Found::Here(names) => (Some(question.names(&names)), false),
                other => (None, other == Found::AskOutside),
            },
        };
        match found {
            Some(answer) => self.reply(&question, answer, from),
            None => self.ask_outside(bytes, question, from, outside),
        }
    }

    fn ask_outside(&mut self, bytes: &[u8], question: Box<Question>, from: Asker, outside: bool) {
        if !outside {
            let answer = question.refusal(ResponseCode::NXDomain);
            return self.reply(&question, answer, from);
        }
        let servers = match &self.servers {
            Servers::These(servers) => servers.clone(),
            Servers::Of(file) => servers_of(file),
        };
        let by_stream = matches!(from, Asker::Client(_));
        let forward = (self.forwards.len() < MOST_FORWARDS)
            .then(|| Forward::begin(bytes, servers, by_stream))
            .flatten();
        match forward {
            Some(forward) => self.keep(Pending { forward, question, from }),
            None => {
                let answer = question.refusal(ResponseCode::ServFail);
                self.reply(&question, answer, from);
            }
        }
    }

    /// Waits for a server, or tells the client when there is none left to wait for.
    fn keep(&mut self, mut pending: Pending) {
        let key = self.take_key();
        loop {
            if self.watch(&pending.forward, key, pending.forward.interest()).is_ok() {
                self.forwards.insert(key, pending);
                return;
            }
            if !pending.forward.next_server() {
                return self.fail(&pending);
            }
        }
    }

    fn hear_server(&mut self, key: u64) {
        let Some(mut pending) = self.forwards.remove(&key) else { return };
        // The descriptor is closed when the next server is asked; one that stays is watched anew.
        let _ = epoll::delete(&self.epoll, &pending.forward);
        match pending.forward.hear() {
            forward::Heard::Nothing => self.keep(pending),
            forward::Heard::Answer(bytes) => self.pass_on(&pending, &bytes),
            forward::Heard::Failed => self.ask_next(pending),
        }
    }

    fn ask_next(&mut self, mut pending: Pending) {
        if pending.forward.next_server() {
            return self.keep(pending);
        }
        match pending.forward.last_words() {
            Some(refusal) => self.pass_on(&pending, &refusal),
            None => self.fail(&pending),
        }
    }

    fn pass_on(&mut self, pending: &Pending, bytes: &[u8]) {
        let too_long = matches!(pending.from, Asker::Datagram(_)) && !pending.question.takes(bytes.len());
        if too_long {
            let mut answer = pending.question.refusal(ResponseCode::NoError);
            answer.metadata.truncation = true;
            return self.reply(&pending.question, answer, pending.from);
        }
        self.send(&message::with_id(bytes, pending.question.id()), pending.from);
    }

    fn fail(&mut self, pending: &Pending) {
        let answer = pending.question.refusal(ResponseCode::ServFail);
        self.reply(&pending.question, answer, pending.from);
    }

    fn reply(&mut self, question: &Question, answer: hickory_proto::op::Message, to: Asker) {
        let bytes = match to {
            Asker::Datagram(_) => question.datagram(answer),
            Asker::Client(_) => answer.to_vec().unwrap_or_default(),
        };
        self.send(&bytes, to);
    }

    fn send(&mut self, bytes: &[u8], to: Asker) {
        match to {
            Asker::Datagram(peer) => {
                // A datagram that does not go out is like one that got lost: the client asks again.
                let _ = self.udp.send_to(bytes, peer);
            }
            Asker::Client(key) => {
                // One that has gone meanwhile wants no answer.
                let Some(client) = self.clients.get_mut(&key) else { return };
                if client.stream.send(bytes).is_err() {
                    self.clients.remove(&key);
                } else {
                    self.rewatch_client(key);
                }
            }
        }
    }

    fn give_up_what_is_due(&mut self) {
        let now = Instant::now();
        self.clients.retain(|_, client| client.until > now);
        let due: Vec<u64> = self
            .forwards
            .iter()
            .filter(|(_, pending)| pending.forward.until() <= now)
            .map(|(key, _)| *key)
            .collect();
        for key in due {
            if let Some(pending) = self.forwards.remove(&key) {
                self.ask_next(pending);
            }
        }
    }

    fn set_timer(&self) {
        let deadlines = self.forwards.values().map(|pending| pending.forward.until());
        let next = deadlines.chain(self.clients.values().map(|client| client.until)).min();
        // Zero switches a timer off, so what is due already is due in a nanosecond.
        let value = next.map_or(Timespec { tv_sec: 0, tv_nsec: 0 }, |next| {
            let wait = next.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
            Timespec {
                tv_sec: wait.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: wait.subsec_nanos().into(),
            }
        });
        let setting = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        // It can only fail for a time that makes no sense.
        let _ = rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &setting);
    }

    fn take_key(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn watch(&self, source: &impl AsFd, key: u64, interest: epoll::EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, source, epoll::EventData::new_u64(key), interest)?)
    }

    fn rewatch_client(&mut self, key: u64) {
        let Some(client) = self.clients.get(&key) else { return };
        let data = epoll::EventData::new_u64(key);
        if epoll::modify(&self.epoll, &client.stream, data, client.stream.interest()).is_err() {
            self.clients.remove(&key);
        }
    }
}

impl AsFd for Resolver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

fn servers_of(file: &Path) -> Vec<SocketAddr> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    resolv::name_servers(&text).into_iter().map(|server| SocketAddr::new(server, PORT)).collect()
}
