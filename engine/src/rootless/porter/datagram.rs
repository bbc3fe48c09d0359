//! Datagrams of the host, carried to where their port leads, and the answers back.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::{Rc, Weak};
use std::time::Duration;

use rustix::net::SendFlags;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What one sender and the container have to say to one another.
struct Flow {
    inside: UdpSocket,
    used: Cell<Instant>,
}

/// As long as the kernel remembers a flow that was answered (nf_conntrack_udp_timeout_stream).
const IDLE: Duration = Duration::from_secs(120);
/// As many senders at once; others are not heard meanwhile.
const MOST_FLOWS: usize = 8192;
/// The longest datagram.
const LONGEST: usize = 64 << 10;
/// For how long nothing is received after a failure.
const BREATH: Duration = Duration::from_millis(100);

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; LONGEST]);
}

/// Takes whatever comes; the flows end with this.
pub(super) async fn receive(outside: UdpSocket, target: SocketAddr) {
    let outside = Rc::new(outside);
    let mut flows: HashMap<SocketAddr, Rc<Flow>> = HashMap::new();
    let mut answers: JoinSet<SocketAddr> = JoinSet::new();
    loop {
        tokio::select! {
            // A flow that has ended takes no further datagram.
            biased;
            Some(ended) = answers.join_next() => drop(ended.map(|sender| flows.remove(&sender))),
            received = outside.readable() => {
                let handed_on = received.and_then(|()| {
                    hand_on(&outside, target, &mut flows, &mut answers)
                });
                match handed_on {
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => tokio::time::sleep(BREATH).await,
                    _ => {}
                }
            }
        }
    }
}

fn hand_on(
    outside: &Rc<UdpSocket>,
    target: SocketAddr,
    flows: &mut HashMap<SocketAddr, Rc<Flow>>,
    answers: &mut JoinSet<SocketAddr>,
) -> io::Result<()> {
    BUFFER.with_borrow_mut(|buffer| {
        let (length, sender) = outside.try_recv_from(buffer)?;
        let flow = match flows.get(&sender) {
            Some(flow) => flow,
            None if flows.len() >= MOST_FLOWS => return Ok(()),
            None => {
                let flow = Rc::new(Flow::to(target)?);
                answers.spawn_local(answer(flow.clone(), Rc::downgrade(outside), sender));
                flows.entry(sender).or_insert(flow)
            }
        };
        flow.used.set(Instant::now());
        // As on any way: what nobody has room for is lost. The runtime does not know yet that a new socket has room.
        let _ =
            rustix::net::send(&flow.inside, buffer.get(..length).unwrap_or_default(), SendFlags::DONTWAIT);
        Ok(())
    })
}

/// Carries answers until neither side says anything any more. It does not keep the port of the host.
async fn answer(flow: Rc<Flow>, outside: Weak<UdpSocket>, sender: SocketAddr) -> SocketAddr {
    loop {
        match tokio::time::timeout_at(flow.used.get() + IDLE, flow.inside.readable()).await {
            Err(_) if flow.used.get().elapsed() >= IDLE => return sender,
            Err(_) => {}
            Ok(Err(_)) => return sender,
            Ok(Ok(())) => BUFFER.with_borrow_mut(|buffer| {
                // That nobody receives there now is nothing that this sender could be told.
                if let (Ok(length), Some(outside)) = (flow.inside.try_recv(buffer), outside.upgrade()) {
                    flow.used.set(Instant::now());
                    let bytes = buffer.get(..length).unwrap_or_default();
                    let _ = rustix::net::sendto(&outside, bytes, SendFlags::DONTWAIT, &sender);
                }
            }),
        }
    }
}

// === impl Flow ===

impl Flow {
    fn to(target: SocketAddr) -> io::Result<Self> {
        let any: IpAddr = match target {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let inside = std::net::UdpSocket::bind((any, 0))?;
        inside.connect(target)?;
        inside.set_nonblocking(true)?;
        Ok(Self { inside: UdpSocket::from_std(inside)?, used: Cell::new(Instant::now()) })
    }
}
