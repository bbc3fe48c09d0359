//! One question on its way to the servers outside: one after the other, until one answers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

use super::message;
use super::stream::Stream;

/// A question that is being asked.
#[derive(Debug)]
pub(super) struct Forward {
    request: Vec<u8>,
    id: u16,
    by_stream: bool,
    servers: std::vec::IntoIter<SocketAddr>,
    channel: Channel,
    until: Instant,
    refusal: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Channel {
    Datagrams(UdpSocket),
    Stream(Stream),
}

/// What a server said.
#[derive(Debug)]
pub(super) enum Heard {
    /// Nothing yet, or nothing that belongs to the question.
    Nothing,
    /// This.
    Answer(Vec<u8>),
    /// It will not answer.
    Failed,
}

/// How long one server may take.
const PATIENCE: Duration = Duration::from_secs(4);
/// How many servers are asked.
const MOST_SERVERS: usize = 3;
const LARGEST_ANSWER: usize = 65_535;

// === impl Forward ===

impl Forward {
    /// Asks the first of the servers that can be asked; `None` when there is none.
    pub(super) fn begin(request: &[u8], mut servers: Vec<SocketAddr>, by_stream: bool) -> Option<Self> {
        servers.truncate(MOST_SERVERS);
        let mut servers = servers.into_iter();
        // An id and a port of its own for each question, so that nobody else can guess what to answer.
        let mut bytes = [0; 2];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).ok()?;
        let id = u16::from_ne_bytes(bytes);
        let request = message::with_id(request, id);
        let channel = servers.by_ref().find_map(|server| Channel::open(server, &request, by_stream))?;
        let until = Instant::now() + PATIENCE;
        Some(Self { request, id, by_stream, servers, channel, until, refusal: None })
    }

    /// When to stop waiting for this server.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// What to wait for.
    pub(super) fn interest(&self) -> EventFlags {
        match &self.channel {
            Channel::Datagrams(_) => EventFlags::IN,
            Channel::Stream(stream) => stream.interest(),
        }
    }

    /// Asks the next server; whether there was one.
    pub(super) fn next_server(&mut self) -> bool {
        let next =
            self.servers.by_ref().find_map(|server| Channel::open(server, &self.request, self.by_stream));
        let Some(channel) = next else { return false };
        self.channel = channel;
        self.until = Instant::now() + PATIENCE;
        true
    }

    /// The last refusal of a server, when no other one had an answer.
    pub(super) fn last_words(&self) -> Option<Vec<u8>> {
        self.refusal.clone()
    }

    /// Reads what a server said.
    pub(super) fn hear(&mut self) -> Heard {
        let reply = match &mut self.channel {
            Channel::Datagrams(socket) => {
                let mut buffer = vec![0; LARGEST_ANSWER];
                match socket.recv(&mut buffer) {
                    Ok(length) => {
                        buffer.truncate(length);
                        Some(buffer)
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
                    // Nobody is there: an error has come back in place of an answer.
                    Err(_) => return Heard::Failed,
                }
            }
            Channel::Stream(stream) => match stream.exchange() {
                Ok(messages) => messages.into_iter().next(),
                Err(_) => return Heard::Failed,
            },
        };
        match reply {
            Some(reply) if message::is_reply_to(&reply, &self.request, self.id) => {
                if message::is_refusal(&reply) {
                    self.refusal = Some(reply);
                    Heard::Failed
                } else {
                    Heard::Answer(reply)
                }
            }
            _ => Heard::Nothing,
        }
    }
}

impl AsFd for Forward {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.channel {
            Channel::Datagrams(socket) => socket.as_fd(),
            Channel::Stream(stream) => stream.as_fd(),
        }
    }
}

impl Channel {
    fn open(server: SocketAddr, request: &[u8], by_stream: bool) -> Option<Self> {
        if by_stream {
            let mut stream = Stream::connect(server).ok()?;
            stream.send(request).ok()?;
            return Some(Self::Stream(stream));
        }
        let any = match server {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.set_nonblocking(true).ok()?;
        socket.connect(server).ok()?;
        socket.send(request).ok()?;
        Some(Self::Datagrams(socket))
    }
}
