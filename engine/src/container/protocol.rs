//! What a monitor and its clients say to each other: frames on a stream socket, messages as JSON, and the bytes
//! of the standard streams as they are. It knows nothing of who speaks.
//!
//! A frame is one byte of kind, four bytes of length (little-endian), then that many bytes. Descriptors travel with
//! the first byte of the frame they belong to.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::container::exec::ExecSpec;
use crate::container::spec::{Grace, NetworkAttachment};
use crate::container::state::HealthStatus;
use crate::container::stdio::{Stream, Streams};
use crate::error::{Error, Kind};
use crate::signal::Signal;

/// What a container is stopped for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopReason {
    /// Somebody wants it stopped.
    #[default]
    ByHand,
    /// The machine goes down: what wants to run comes back with it.
    Shutdown,
    /// It is started again at once: one that removes itself stays for that.
    Restart,
    /// Somebody killed it, which no event calls a stop.
    Kill,
}

/// What a client asks of a monitor. Each request but `Detach` and `Resize` is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Launch the container. Only the connection the monitor was born with may ask it, once.
    Start {
        /// What that connection gets to see from the first byte on.
        attach: Option<Streams>,
    },
    /// Send me its output and take my input, from now on.
    Attach(Streams),
    /// I leave, and its standard input stays open.
    Detach,
    /// Ask it to end, and kill it when the grace is over. Answered when it has ended.
    Stop {
        /// The signal that asks; the container's own when `None`.
        signal: Option<Signal>,
        /// How long it may take; as the container says when `None`.
        grace: Option<Grace>,
        /// What for.
        #[serde(default)]
        reason: StopReason,
    },
    /// Send its first process a signal.
    Kill(Signal),
    /// Run a process beside it. Without a terminal, three descriptors come along.
    Exec {
        /// What to run.
        spec: Box<ExecSpec>,
        /// The terminal's first size: rows and columns.
        size: (u16, u16),
    },
    /// The terminal has another size now: rows and columns.
    Resize(u16, u16),
    /// Stand still.
    Pause,
    /// Go on.
    Resume,
    /// Tell me when it has ended: each time, or only when it will not start again.
    Wait {
        /// Whether an end that its restart policy undoes does not count.
        last: bool,
    },
    /// Tell me its health now and whenever it changes; until then probe eagerly.
    WatchHealth,
    /// The record was rewritten: obey its restart policy and limits from now on.
    Reload,
    /// Say that you are there.
    Ping,
    /// Attach it to one more network, and put that on record.
    Connect(NetworkAttachment),
    /// Detach it from this network, and put that on record.
    Disconnect(String),
}

/// What a monitor says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The program is being executed.
    Started {
        /// Its process 1, as the host numbers it.
        pid: i32,
        /// What was not as asked, but no reason to fail.
        warnings: Vec<String>,
    },
    /// The request was done.
    Done,
    /// The record was read again, and its limits hold but for these.
    Reloaded {
        /// What this kernel cannot do.
        warnings: Vec<String>,
    },
    /// The request was refused.
    Refused(Refusal),
    /// The container ended.
    Exited(ExitNews),
    /// What its probes say; `None` when it has none.
    Health(Option<HealthStatus>),
    /// The process of `Exec` is being executed. The terminal's master side comes along when it has one.
    ExecStarted {
        /// As the host numbers it.
        pid: i32,
    },
    /// The process of `Exec` ended.
    ExecExited {
        /// Its exit code.
        code: i32,
    },
    /// This client read too slowly and gets no more output.
    FellBehind,
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitNews {
    /// Its exit code.
    pub code: i32,
    /// Whether the kernel killed it for its memory.
    pub oom_killed: bool,
    /// Whether its restart policy starts it again.
    pub again: bool,
}

/// An [`Error`] on its way between processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    kind: String,
    message: String,
    hint: Option<String>,
}

/// One frame that arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A message.
    Message(Vec<u8>),
    /// Bytes for standard input; none at its end.
    Input(Vec<u8>),
    /// Bytes of the container's output.
    Output(Stream, Vec<u8>),
}

/// What a look at a socket brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Something.
    Bytes,
    /// Nothing yet.
    Nothing,
    /// The other end is closed.
    End,
}

/// One end of a connection. Nothing here ever blocks: what cannot be sent now is kept.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: OwnedFd,
    arrived: Vec<u8>,
    taken: usize,
    descriptors: VecDeque<OwnedFd>,
    outgoing: VecDeque<Parcel>,
    waiting: usize,
}

/// Bytes on their way out, with the descriptor that goes with the first of them.
#[derive(Debug)]
struct Parcel {
    bytes: Vec<u8>,
    sent: usize,
    descriptors: Vec<OwnedFd>,
}

const HEADER: usize = 5;
/// More than any honest frame: an exec with a full argument list is some hundred kilobytes.
const LONGEST: usize = 8 << 20;
/// How much is read or put into one parcel at a time.
const PIECE: usize = 16 << 10;

const MESSAGE: u8 = 0;
const INPUT: u8 = 1;
const OUTPUT: u8 = 2;
const ERRORS: u8 = 3;

// === impl Refusal ===

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        Self {
            kind: format!("{:?}", error.kind()),
            message: crate::error::chain(error),
            hint: error.hint().map(str::to_owned),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let kinds = [
            Kind::NotFound,
            Kind::Conflict,
            Kind::Invalid,
            Kind::Unsupported,
            Kind::Denied,
            Kind::NotExecutable,
            Kind::CommandNotFound,
        ];
        let kind = kinds.into_iter().find(|kind| format!("{kind:?}") == refusal.kind);
        let error = Self::new(kind.unwrap_or(Kind::Failed), refusal.message);
        match refusal.hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

// === impl Frame ===

impl Frame {
    /// The message inside, of the type this side expects.
    pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
        serde_json::from_slice(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

// === impl Wire ===

impl Wire {
    /// A connection over this stream socket.
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            arrived: Vec::new(),
            taken: 0,
            descriptors: VecDeque::new(),
            outgoing: VecDeque::new(),
            waiting: 0,
        }
    }

    /// The socket, to wait on.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// What to wait for: room to send, when something waits to be sent.
    pub(crate) fn sending(&self) -> PollFlags {
        if self.waiting > 0 { PollFlags::OUT } else { PollFlags::empty() }
    }

    /// How many bytes wait to be sent.
    pub(crate) fn backlog(&self) -> usize {
        self.waiting
    }

    /// Queues a message.
    pub(crate) fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        self.send_with(message, Vec::new())
    }

    /// Queues a message with descriptors.
    pub(crate) fn send_with(
        &mut self,
        message: &impl Serialize,
        descriptors: Vec<OwnedFd>,
    ) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > LONGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"));
        }
        self.queue(MESSAGE, &bytes, descriptors);
        Ok(())
    }

    /// Queues bytes for standard input; none to close it.
    pub(crate) fn send_input(&mut self, bytes: &[u8]) {
        self.queue(INPUT, bytes, Vec::new());
    }

    /// Queues bytes of the container's output.
    pub(crate) fn send_output(&mut self, stream: Stream, bytes: &[u8]) {
        let kind = match stream {
            Stream::Stdout => OUTPUT,
            Stream::Stderr => ERRORS,
        };
        self.queue(kind, bytes, Vec::new());
    }

    /// Forgets the output that waits to be sent and has not begun to be.
    pub(crate) fn forget_output(&mut self) {
        let begun = self.outgoing.front().is_some_and(|parcel| parcel.sent > 0);
        let keep = self.outgoing.len().min(usize::from(begun));
        self.outgoing.truncate(keep);
        self.waiting = self.outgoing.iter().map(|parcel| parcel.bytes.len() - parcel.sent).sum();
    }

    /// Sends as much as the other end takes now.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while let Some(parcel) = self.outgoing.front_mut() {
            match parcel.send(self.socket.as_fd()) {
                Ok(sent) => {
                    self.waiting -= sent;
                    if parcel.sent == parcel.bytes.len() {
                        self.outgoing.pop_front();
                    }
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Takes in what has arrived, one piece at a time.
    pub(crate) fn receive(&mut self) -> io::Result<Arrival> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut piece = [0; PIECE];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = loop {
            match rustix::net::recvmsg(&self.socket, &mut [IoSliceMut::new(&mut piece)], &mut control, flags)
            {
                Ok(received) => break received.bytes,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Arrival::Nothing),
                Err(Errno::CONNRESET | Errno::PIPE) => return Ok(Arrival::End),
                Err(error) => return Err(error.into()),
            }
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        if received == 0 {
            return Ok(Arrival::End);
        }
        self.arrived.extend_from_slice(&piece[..received]);
        Ok(Arrival::Bytes)
    }

    /// The next whole frame of what has arrived.
    pub(crate) fn next(&mut self) -> io::Result<Option<Frame>> {
        let rest = &self.arrived[self.taken..];
        let Some((header, rest)) = rest.split_first_chunk::<HEADER>() else {
            self.forget_taken();
            return Ok(None);
        };
        let [kind, length @ ..] = *header;
        let length = u32::from_le_bytes(length) as usize;
        if length > LONGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is too long"));
        }
        let Some(body) = rest.get(..length) else {
            self.forget_taken();
            return Ok(None);
        };
        let body = body.to_vec();
        self.taken += HEADER + length;
        match kind {
            MESSAGE => Ok(Some(Frame::Message(body))),
            INPUT => Ok(Some(Frame::Input(body))),
            OUTPUT => Ok(Some(Frame::Output(Stream::Stdout, body))),
            ERRORS => Ok(Some(Frame::Output(Stream::Stderr, body))),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is of no known kind")),
        }
    }

    /// The oldest descriptors that have arrived, if there are this many.
    pub(crate) fn take_descriptors<const N: usize>(&mut self) -> Option<[OwnedFd; N]> {
        if self.descriptors.len() < N {
            return None;
        }
        self.descriptors.drain(..N).collect::<Vec<_>>().try_into().ok()
    }

    fn queue(&mut self, kind: u8, body: &[u8], descriptors: Vec<OwnedFd>) {
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
        let whole = HEADER + body.len();
        self.waiting += whole;
        let joins = |last: &&mut Parcel| last.bytes.len() + whole <= PIECE && last.sent == 0;
        let parcel = match self.outgoing.back_mut().filter(joins) {
            Some(last) if descriptors.is_empty() => last,
            _ => {
                self.outgoing.push_back(Parcel { bytes: Vec::with_capacity(whole), sent: 0, descriptors });
                let last = self.outgoing.len() - 1;
                &mut self.outgoing[last]
            }
        };
        parcel.bytes.push(kind);
        parcel.bytes.extend_from_slice(&length);
        parcel.bytes.extend_from_slice(body);
    }

    /// Gives the memory of what was taken back: a monitor lives long and has little.
    fn forget_taken(&mut self) {
        self.arrived.drain(..self.taken);
        self.taken = 0;
        if self.arrived.is_empty() && self.arrived.capacity() > PIECE {
            self.arrived = Vec::new();
        }
    }
}

// === impl Parcel ===

impl Parcel {
    fn send(&mut self, socket: BorrowedFd<'_>) -> Result<usize, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let borrowed: Vec<BorrowedFd<'_>> = self.descriptors.iter().map(AsFd::as_fd).collect();
        if !borrowed.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
            return Err(Errno::TOOMANYREFS);
        }
        let bytes = [IoSlice::new(&self.bytes[self.sent..])];
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        let sent = rustix::net::sendmsg(socket, &bytes, &mut control, flags)?;
        self.sent += sent;
        // The other end has them now; ours would keep its pipes open.
        self.descriptors.clear();
        Ok(sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::stdio::Pipe;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (Wire, Wire) {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        (Wire::new(a), Wire::new(b))
    }

    fn frames(wire: &mut Wire) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            while let Some(frame) = wire.next().unwrap() {
                frames.push(frame);
            }
            if wire.receive().unwrap() != Arrival::Bytes {
                return frames;
            }
        }
    }

    #[test]
    fn frames_arrive_whole_and_in_order() {
        let (mut here, mut there) = pair();
        here.send(&Request::Stop { signal: Some(Signal::TERM), grace: None, reason: StopReason::ByHand })
            .unwrap();
        here.send_input(b"abc");
        here.send_input(b"");
        here.flush().unwrap();
        let arrived = frames(&mut there);
        let Frame::Message(bytes) = &arrived[0] else { panic!("no message") };
        assert_eq!(
            Frame::parse::<Request>(bytes).unwrap(),
            Request::Stop { signal: Some(Signal::TERM), grace: None, reason: StopReason::ByHand }
        );
        assert_eq!(arrived[1..], [Frame::Input(b"abc".to_vec()), Frame::Input(Vec::new())]);
    }

    #[test]
    fn descriptors_come_with_their_message() {
        let (mut here, mut there) = pair();
        let pipe = Pipe::new().unwrap();
        here.send_output(Stream::Stderr, b"before");
        here.send_with(&Reply::ExecStarted { pid: 7 }, vec![pipe.write]).unwrap();
        here.flush().unwrap();
        assert_eq!(frames(&mut there).len(), 2);
        let [write] = there.take_descriptors().unwrap();
        assert!(there.take_descriptors::<1>().is_none());
        rustix::io::write(&write, b"x").unwrap();
        assert_eq!(rustix::io::read(&pipe.read, &mut [0; 4]).unwrap(), 1);
    }

    #[test]
    fn what_the_other_end_does_not_take_waits() {
        let (mut here, mut there) = pair();
        let block = vec![b'x'; 100_000];
        for _ in 0..20 {
            here.send_output(Stream::Stdout, &block);
        }
        here.flush().unwrap();
        assert!(here.backlog() > 0);
        let mut received = 0;
        while received < 20 * block.len() {
            here.flush().unwrap();
            for frame in frames(&mut there) {
                let Frame::Output(Stream::Stdout, bytes) = frame else { panic!("not output") };
                received += bytes.len();
            }
        }
        assert_eq!(here.backlog(), 0);
    }

    #[test]
    fn the_other_end_leaving_is_an_end() {
        let (mut here, there) = pair();
        drop(there);
        assert_eq!(here.receive().unwrap(), Arrival::End);
        here.send(&Reply::Done).unwrap();
        assert!(here.flush().is_err());
    }

    #[test]
    fn a_refusal_keeps_kind_and_hint() {
        let error = Error::new(Kind::CommandNotFound, "exec: \"x\": not found").with_hint("look");
        let back = Error::from(Refusal::from(&error));
        assert_eq!((back.kind(), back.hint()), (Kind::CommandNotFound, Some("look")));
        assert_eq!(back.to_string(), error.to_string());
    }
}
