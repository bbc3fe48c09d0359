//! Netlink messages: written into batches, sent in one call, answers read to their end. It needs no unsafe code,
//! but it is the kernel's wire format, so it lives here. Who calls it knows what the messages mean.
//!
//! The kernel handles a batch while it is being sent (netlink(7)), so every answer waits when the call returns,
//! and nothing here ever blocks.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use crate::sys::filter::Filter;

/// A request, as against an answer.
const REQUEST: u16 = 0x1;
/// Answer even when it went well.
pub(crate) const ACK: u16 = 0x4;
/// Answer with all there is.
pub(crate) const DUMP: u16 = 0x300;
/// Fail when it exists.
pub(crate) const EXCL: u16 = 0x200;
/// Make it when it does not exist.
pub(crate) const CREATE: u16 = 0x400;
/// Behind the others, for rules.
pub(crate) const APPEND: u16 = 0x800;

const MESSAGE_ERROR: u16 = 0x2;
const MESSAGE_DONE: u16 = 0x3;
const FIRST_REAL_MESSAGE: u16 = 0x10;
const HEADER: usize = 16;
const NESTED: u16 = 0x8000;
const ATTRIBUTE_KIND: u16 = 0x3fff;
/// What one receive call must be able to take: the kernel fills 32 KiB at most.
const ANSWER_BUFFER: usize = 64 * 1024;
/// Above this a batch does not fit into the send buffer a socket begins with.
const COMMON_SEND_BUFFER: usize = 128 * 1024;

/// Messages under construction.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    open: Option<usize>,
    steps: Vec<Step>,
}

#[derive(Debug)]
struct Step {
    text: String,
    tolerated: bool,
}

/// A socket of one netlink protocol, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

/// Hears what the kernel tells everybody, in the network namespace of the thread that opened it, as far as a filter
/// lets it through.
#[derive(Debug)]
pub(crate) struct Ear(OwnedFd);

/// The kernel refused a message of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// What the message was to do.
    pub(crate) step: String,
    /// Why not.
    pub(crate) errno: Errno,
}

/// A message from the kernel that is no acknowledgement.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// Its type.
    pub(crate) kind: u16,
    /// Everything behind the netlink header.
    pub(crate) body: Vec<u8>,
}

/// Walks over attributes; ends at the first one that is malformed.
#[derive(Debug, Clone)]
pub(crate) struct Attributes<'a>(&'a [u8]);

// === impl Batch ===

impl Batch {
    /// An empty batch.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing to send.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Begins the next message. The step says what it is to do, for the case that it is refused.
    pub(crate) fn message(
        &mut self,
        step: impl Into<String>,
        kind: u16,
        flags: u16,
        header: &[u8],
    ) -> &mut Self {
        self.close_message();
        self.steps.push(Step { text: step.into(), tolerated: false });
        self.open = Some(self.bytes.len());
        let sequence = u32::try_from(self.steps.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
        self.bytes.extend_from_slice(header);
        self.pad();
        self
    }

    /// Asks for an acknowledgement of the message begun last.
    pub(crate) fn acknowledged(&mut self) -> &mut Self {
        if let Some(start) = self.open {
            let flags = start + 6;
            let asked = u16::from_ne_bytes([self.bytes[flags], self.bytes[flags + 1]]) | ACK;
            self.bytes[flags..flags + 2].copy_from_slice(&asked.to_ne_bytes());
        }
        self
    }

    /// Takes no offence when the message begun last is refused.
    pub(crate) fn tolerated(&mut self) -> &mut Self {
        if let Some(step) = self.steps.last_mut() {
            step.tolerated = true;
        }
        self
    }

    /// An attribute of these bytes.
    pub(crate) fn attribute(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
        let length = u16::try_from(payload.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(payload);
        self.pad();
        self
    }

    /// A text, with the NUL that ends it.
    pub(crate) fn text(&mut self, kind: u16, text: &str) -> &mut Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// One byte.
    pub(crate) fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.attribute(kind, &[value])
    }

    /// A number in the machine's order, as rtnetlink has them.
    pub(crate) fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// A number in network order, as netfilter has them.
    pub(crate) fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// An attribute made of attributes.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.nest_behind(kind, &[], fill)
    }

    /// An attribute made of a fixed header and attributes.
    pub(crate) fn nest_behind(
        &mut self,
        kind: u16,
        header: &[u8],
        fill: impl FnOnce(&mut Self),
    ) -> &mut Self {
        let start = self.bytes.len();
        self.attribute(kind | NESTED, header);
        fill(self);
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// How many bytes the message begun last has so far.
    pub(crate) fn message_length(&self) -> usize {
        self.open.map_or(0, |start| self.bytes.len() - start)
    }

    fn close_message(&mut self) {
        if let Some(start) = self.open.take() {
            let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
            self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        }
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

// === impl Socket ===

impl Socket {
    /// Links, addresses and routes.
    pub(crate) fn route() -> io::Result<Self> {
        Self::open(None)
    }

    fn open(protocol: Option<rustix::net::Protocol>) -> io::Result<Self> {
        let socket = unbound(protocol)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self(socket))
    }

    /// Sends the batch and returns every answer that is no acknowledgement. A dump is read to its end.
    pub(crate) fn ask(&self, mut batch: Batch) -> Result<Vec<Answer>, Refusal> {
        batch.close_message();
        let refused = |step: &str, errno| Refusal { step: step.to_owned(), errno };
        // An empty message is an error to the kernel, not to us: a container with loopback alone has no links.
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        if batch.bytes.len() > COMMON_SEND_BUFFER {
            sockopt::set_socket_send_buffer_size_force(&self.0, batch.bytes.len() * 2)
                .map_err(|errno| refused("enlarge the buffer for", errno))?;
        }
        rustix::io::retry_on_intr(|| {
            rustix::net::sendto(&self.0, &batch.bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))
        })
        .map_err(|errno| refused(batch.steps.first().map_or("send", |step| step.text.as_str()), errno))?;
        self.read_answers(&batch.steps)
    }

    /// Sends the batch; answers that are no errors are of no interest.
    pub(crate) fn run(&self, batch: Batch) -> Result<(), Refusal> {
        self.ask(batch).map(drop)
    }

    fn read_answers(&self, steps: &[Step]) -> Result<Vec<Answer>, Refusal> {
        let mut answers = Vec::new();
        let mut first_error: Option<Refusal> = None;
        let mut buffer = vec![0; ANSWER_BUFFER];
        loop {
            let received =
                rustix::io::retry_on_intr(|| rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::empty()));
            let length = match received {
                Ok((length, _)) => length,
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(Refusal { step: "receive answers".to_owned(), errno }),
            };
            for message in messages(&buffer[..length]) {
                match message.kind {
                    MESSAGE_ERROR => {
                        let step = step_of(steps, message.sequence);
                        if let Some(errno) = errno_of(message.body)
                            && !step.is_some_and(|step| step.tolerated)
                        {
                            let step = step.map_or("commit", |step| step.text.as_str()).to_owned();
                            first_error.get_or_insert(Refusal { step, errno });
                        }
                    }
                    MESSAGE_DONE => {}
                    kind if kind >= FIRST_REAL_MESSAGE => {
                        answers.push(Answer { kind, body: message.body.to_vec() });
                    }
                    _ => {}
                }
            }
        }
        first_error.map_or(Ok(answers), Err)
    }
}

/// Asks the firewall or connection tracking, by a socket that this thread keeps. To close one takes as long as to
/// destroy what transactions of anybody have removed, which is several RCU grace periods
/// (`nft_rcv_nl_event` in the kernel's nf_tables_api.c); this way nobody waits for it but the end of the process.
pub(crate) fn ask_netfilter(batch: Batch) -> Result<Vec<Answer>, Refusal> {
    thread_local! {
        static KEPT: RefCell<Option<(Namespace, Socket)>> = const { RefCell::new(None) };
    }
    let failed = |error: io::Error| Refusal {
        step: "open netlink".to_owned(),
        errno: Errno::from_io_error(&error).unwrap_or(Errno::IO),
    };
    let here = network_namespace().map_err(failed)?;
    let kept = KEPT.take().filter(|(namespace, _)| *namespace == here);
    let (_, socket) = match kept {
        Some(kept) => kept,
        None => (here, Socket::open(Some(netlink::NETFILTER)).map_err(failed)?),
    };
    // One that failed may still have answers in it.
    let answers = socket.ask(batch)?;
    KEPT.set(Some((here, socket)));
    Ok(answers)
}

/// A network namespace, by the file that stands for it (namespaces(7)).
type Namespace = (u64, u64);

fn network_namespace() -> io::Result<Namespace> {
    let status = rustix::fs::stat("/proc/thread-self/ns/net")?;
    Ok((status.st_dev, status.st_ino))
}

// === impl Ear ===

impl Ear {
    /// For changes of links, addresses and routes: groups of rtnetlink(7), one bit each.
    pub(crate) fn route(groups: u32, filter: &Filter) -> io::Result<Self> {
        Self::open(None, groups, filter)
    }

    /// For changes of the firewall.
    pub(crate) fn netfilter(groups: u32, filter: &Filter) -> io::Result<Self> {
        Self::open(Some(netlink::NETFILTER), groups, filter)
    }

    fn open(protocol: Option<rustix::net::Protocol>, groups: u32, filter: &Filter) -> io::Result<Self> {
        let socket = unbound(protocol)?;
        // The filter first: what came before it would have to be looked at.
        filter.attach(&socket)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
        Ok(Self(socket))
    }

    /// Whether anything was told since the last look. What was lost for want of room was told, too.
    pub(crate) fn heard(&self) -> bool {
        let mut heard = false;
        // The beginning of a message is enough: what is so is asked for, not read from here.
        let mut buffer = [0; HEADER];
        loop {
            match rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::empty()) {
                Ok(_) | Err(Errno::NOBUFS) => heard = true,
                Err(Errno::INTR) => {}
                Err(_) => return heard,
            }
        }
    }
}

impl AsFd for Ear {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn unbound(protocol: Option<rustix::net::Protocol>) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?)
}

struct Message<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
}

fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let kind = u16_at(bytes, 4)?;
        let sequence = u32_at(bytes, 8)?;
        let body = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, sequence, body })
    })
}

/// The error an acknowledgement carries, as a negative number; zero is success.
fn errno_of(body: &[u8]) -> Option<Errno> {
    let code = i32::from_ne_bytes(body.get(..4)?.try_into().ok()?);
    (code != 0).then(|| Errno::from_raw_os_error(code.wrapping_neg()))
}

fn step_of(steps: &[Step], sequence: u32) -> Option<&Step> {
    steps.get(usize::try_from(sequence).ok()?.checked_sub(1)?)
}

// === impl Refusal ===

impl From<Refusal> for io::Error {
    fn from(refusal: Refusal) -> Self {
        refusal.errno.into()
    }
}

// === impl Attributes ===

impl<'a> Attributes<'a> {
    /// The attributes in these bytes, behind a fixed header of this length.
    pub(crate) fn behind(bytes: &'a [u8], header: usize) -> Self {
        Self(bytes.get(header..).unwrap_or_default())
    }

    /// The payload of the first attribute of this kind.
    pub(crate) fn find(&self, kind: u16) -> Option<&'a [u8]> {
        self.clone().find_map(|(found, payload)| (found == kind).then_some(payload))
    }

    /// The attributes inside the first attribute of this kind.
    pub(crate) fn nested(&self, kind: u16) -> Option<Attributes<'a>> {
        self.find(kind).map(Attributes)
    }

    /// The text in the first attribute of this kind.
    pub(crate) fn text(&self, kind: u16) -> Option<&'a str> {
        let payload = self.find(kind)?;
        std::str::from_utf8(payload.strip_suffix(&[0]).unwrap_or(payload)).ok()
    }

    /// The number, in the machine's order, in the first attribute of this kind.
    pub(crate) fn u32(&self, kind: u16) -> Option<u32> {
        u32_at(self.find(kind)?, 0)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & ATTRIBUTE_KIND;
        let payload = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    }
}

/// A number in the machine's order at this place.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A short number in the machine's order at this place.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let mut batch = Batch::new();
        batch.message("first", 16, 0, &[7; 3]).text(1, "abc").nest(2, |inner| {
            inner.u32(5, 99).u8(6, 1);
        });
        batch.message("second", 17, ACK, &[]);
        batch.close_message();
        let read: Vec<Message<'_>> = messages(&batch.bytes).collect();
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].kind, read[0].sequence, read[1].sequence), (16, 1, 2));
        let attributes = Attributes::behind(read[0].body, 4);
        assert_eq!(attributes.text(1), Some("abc"));
        assert_eq!(attributes.nested(2).and_then(|inner| inner.u32(5)), Some(99));
    }

    #[test]
    fn malformed_answers_end_the_walk() {
        for bytes in
            [&[][..], &[1, 0], &[0; 16], &[255; 40], &[17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]]
        {
            assert!(messages(bytes).count() <= 1);
            assert!(Attributes(bytes).count() <= 1);
        }
    }

    #[test]
    fn a_refusal_names_the_step() {
        let socket = Socket::route().unwrap();
        let mut batch = Batch::new();
        // RTM_GETLINK of an interface that cannot exist.
        batch.message("look at link", 18, ACK, &[0; 16]).text(3, "no-such-link-0");
        let refusal = socket.run(batch).unwrap_err();
        assert_eq!(refusal, Refusal { step: "look at link".to_owned(), errno: Errno::NODEV });
    }
}
