//! Datagrams that wait for the successor of a service that stops first. They are sent on as they came, from their
//! sender's address to the one that it sent them to, so that the firewall leads them as it leads what comes later, and
//! answers go straight back.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

use engine::Engine;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, sendto, socket_with};

/// A listener with what it has heard.
pub(super) struct Waiting(Arc<Mutex<Queue>>);

/// The datagrams that wait; once it is known who answers, they go there at once.
enum Queue {
    Waiting { held: VecDeque<Datagram>, size: usize },
    PassedOn,
}

/// A datagram with its two ends, as its sender sees them.
struct Datagram {
    from: SocketAddr,
    to: SocketAddr,
    payload: Vec<u8>,
}

/// The most that waits at one port, in bytes: a sender who gets no answer sends the same again, and the first is as good
/// as the last.
const ROOM: usize = 4 << 20;

/// The most senders whose addresses are remembered at one port.
const SENDERS: usize = 4096;

/// The longest datagram, in bytes.
const LONGEST: usize = 65_536;

/// IP's number for UDP.
const UDP: u8 = 17;

/// How many routers a datagram may still pass: as many as one that begins its way.
const HOPS: u8 = 64;

// === impl Waiting ===

impl Waiting {
    pub(super) fn start(socket: UdpSocket, engine: Engine) -> io::Result<Self> {
        let queue = Arc::new(Mutex::new(Queue::Waiting { held: VecDeque::new(), size: 0 }));
        let here = socket.local_addr()?;
        let shared = queue.clone();
        // It ends with the process.
        std::thread::Builder::new().name("parking".to_owned()).spawn(move || {
            let mut ends = HashMap::new();
            let mut buffer = vec![0; LONGEST];
            while let Ok((length, seen)) = socket.recv_from(&mut buffer) {
                if let Some((from, to)) = ends_of(&engine, &mut ends, here, seen) {
                    hear(&shared, Datagram { from, to, payload: buffer[..length].to_vec() });
                }
            }
        })?;
        Ok(Self(queue))
    }

    /// Sends on what waits and what still comes.
    pub(super) fn pass_on(&self) {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Queue::Waiting { held, .. } = std::mem::replace(&mut *queue, Queue::PassedOn) {
            held.iter().for_each(Datagram::send);
        }
    }
}

/// The two ends of a flow, whose receiver was translated into `here` on its way. One that connection tracking does not
/// know has no way back, and is nobody's.
fn ends_of(
    engine: &Engine,
    known: &mut HashMap<SocketAddr, (SocketAddr, SocketAddr)>,
    here: SocketAddr,
    seen: SocketAddr,
) -> Option<(SocketAddr, SocketAddr)> {
    if let Some(ends) = known.get(&seen) {
        return Some(*ends);
    }
    let ends = engine.networks().datagram_ends(here, seen).ok()??;
    if known.len() >= SENDERS {
        known.clear();
    }
    known.insert(seen, ends);
    Some(ends)
}

fn hear(queue: &Mutex<Queue>, datagram: Datagram) {
    let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
    match &mut *queue {
        Queue::Waiting { held, size } if *size + datagram.payload.len() <= ROOM => {
            *size += datagram.payload.len().max(1);
            held.push_back(datagram);
        }
        Queue::Waiting { .. } => {}
        Queue::PassedOn => datagram.send(),
    }
}

// === impl Datagram ===

impl Datagram {
    /// Sends it as if it came only now. One that cannot be sent is lost, as datagrams may be.
    fn send(&self) {
        let Some(packet) = self.packet() else { return };
        let raw = |family| socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW));
        let _ = match self.to.ip() {
            IpAddr::V4(to) => raw(AddressFamily::INET)
                .and_then(|socket| sendto(&socket, &packet, SendFlags::empty(), &SocketAddrV4::new(to, 0))),
            IpAddr::V6(to) => raw(AddressFamily::INET6).and_then(|socket| {
                sendto(&socket, &packet, SendFlags::empty(), &SocketAddrV6::new(to, 0, 0, 0))
            }),
        };
    }

    /// The packet with its header of IP (RFC 791, RFC 8200) and of UDP (RFC 768); `None` when its two ends are of
    /// different kinds or it is too long.
    fn packet(&self) -> Option<Vec<u8>> {
        let length = u16::try_from(self.payload.len() + 8).ok()?;
        let mut segment = [self.from.port(), self.to.port(), length, 0].map(u16::to_be_bytes).concat();
        segment.extend_from_slice(&self.payload);
        let (header, addresses) = match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                (header_4(from, to, length)?, [from.octets(), to.octets()].concat())
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                (header_6(from, to, length), [from.octets(), to.octets()].concat())
            }
            _ => return None,
        };
        let pseudo = [&addresses[..], &[0, UDP], &length.to_be_bytes()].concat();
        let sum = checksum(&[&pseudo, &segment]);
        segment[6..8].copy_from_slice(&sum.to_be_bytes());
        Some([header, segment].concat())
    }
}

/// The kernel fills in the identification and the checksum (raw(7)).
fn header_4(from: Ipv4Addr, to: Ipv4Addr, length: u16) -> Option<Vec<u8>> {
    let total = length.checked_add(20)?.to_be_bytes();
    let fixed = [0x45, 0, total[0], total[1], 0, 0, 0, 0, HOPS, UDP, 0, 0];
    Some([&fixed[..], &from.octets(), &to.octets()].concat())
}

fn header_6(from: Ipv6Addr, to: Ipv6Addr, length: u16) -> Vec<u8> {
    let length = length.to_be_bytes();
    let fixed = [0x60, 0, 0, 0, length[0], length[1], UDP, HOPS];
    [&fixed[..], &from.octets(), &to.octets()].concat()
}

/// The internet checksum (RFC 1071) of parts that have an even length but for the last. Zero would mean that there is
/// none.
fn checksum(parts: &[&[u8]]) -> u16 {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    let mut sum: u32 = 0;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        sum += word(pair);
        sum = (sum & 0xffff) + (sum >> 16);
    }
    match !u16::try_from(sum).unwrap_or(u16::MAX) {
        0 => u16::MAX,
        sum => sum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_what_the_standards_say() {
        let datagram = Datagram {
            from: "192.0.2.1:1000".parse().unwrap(),
            to: "198.51.100.2:53".parse().unwrap(),
            payload: b"abc".to_vec(),
        };
        let packet = datagram.packet().unwrap();
        assert_eq!(packet[..4], [0x45, 0, 0, 31]);
        assert_eq!(packet[12..24], [192, 0, 2, 1, 198, 51, 100, 2, 3, 232, 0, 53]);
        assert_eq!((&packet[24..26], &packet[28..]), (&[0, 11][..], &b"abc"[..]));
        // Summed up with its own checksum, everything is ones.
        let pseudo = [&packet[12..20], &[0, UDP], &packet[24..26]].concat();
        assert_eq!(checksum(&[&pseudo, &packet[20..]]), u16::MAX);
        let six =
            Datagram { from: "[fd00::1]:1".parse().unwrap(), to: "[fd00::2]:2".parse().unwrap(), ..datagram };
        assert_eq!(six.packet().unwrap().len(), 40 + 8 + 3);
        assert!(
            Datagram {
                to: "[fd00::2]:2".parse().unwrap(),
                ..Datagram { from: "1.1.1.1:1".parse().unwrap(), ..six }
            }
            .packet()
            .is_none()
        );
    }

    #[test]
    fn what_waits_at_a_port_has_a_bound() {
        let queue = Mutex::new(Queue::Waiting { held: VecDeque::new(), size: 0 });
        let end: SocketAddr = "192.0.2.1:1".parse().unwrap();
        for _ in 0..5 {
            hear(&queue, Datagram { from: end, to: end, payload: vec![0; 1 << 20] });
        }
        let Queue::Waiting { held, size } = queue.into_inner().unwrap() else {
            panic!("nobody passed it on")
        };
        assert_eq!((held.len(), size), (4, ROOM));
    }
}
