//! Entries of connection tracking over ctnetlink: those that have outlived what they led to, and the two ends of a flow.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::network::nft::UDP;
use crate::sys::netlink::{Answer, Attributes, Batch, DUMP, ask_netfilter};

const SUBSYSTEM: u16 = 1;
const NEW: u16 = 0;
const GET: u16 = 1;
const DELETE: u16 = 2;
const HEADER: usize = 4;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_ADDRESSES: u16 = 1;
const SENDER_4: u16 = 1;
const RECEIVER_4: u16 = 2;
const SENDER_6: u16 = 3;
const RECEIVER_6: u16 = 4;
const ZONE: u16 = 18;
const ID: u16 = 12;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const PROTOCOL_SENDER_PORT: u16 = 2;
const PROTOCOL_RECEIVER_PORT: u16 = 3;
const FAMILY_4: u8 = 2;
const FAMILY_6: u8 = 10;

/// Forgets every UDP flow to one of these ports. Their next packet begins a flow anew, by the rules of now.
pub(crate) fn forget_udp(ports: &HashSet<u16>) -> io::Result<()> {
    let mut batch = Batch::new();
    batch.message("list flows", kind(GET), DUMP, &[0; HEADER]);
    let mut removals = Batch::new();
    for answer in ask_netfilter(batch)?.iter().filter(|answer| answer.kind == kind(NEW)) {
        if udp_port(answer).is_some_and(|port| ports.contains(&port)) {
            remove(&mut removals, answer);
        }
    }
    ask_netfilter(removals)?;
    Ok(())
}

/// The sender and the receiver of a UDP flow as they were before any translation, by whom its answers go between; `None`
/// when there is no such flow.
pub(crate) fn udp_ends(
    answerer: SocketAddr,
    asker: SocketAddr,
) -> io::Result<Option<(SocketAddr, SocketAddr)>> {
    let family = if answerer.is_ipv4() { FAMILY_4 } else { FAMILY_6 };
    let mut batch = Batch::new();
    // An entry that is not there is refused, and then there is no answer.
    batch.message("find a flow", kind(GET), 0, &[family, 0, 0, 0]).tolerated();
    batch.nest(TUPLE_REPLY, |tuple| {
        tuple.nest(TUPLE_ADDRESSES, |addresses| {
            for (address, kinds) in
                [(answerer.ip(), [SENDER_4, SENDER_6]), (asker.ip(), [RECEIVER_4, RECEIVER_6])]
            {
                match address {
                    IpAddr::V4(address) => addresses.attribute(kinds[0], &address.octets()),
                    IpAddr::V6(address) => addresses.attribute(kinds[1], &address.octets()),
                };
            }
        });
        tuple.nest(TUPLE_PROTOCOL, |protocol| {
            protocol.u8(PROTOCOL_NUMBER, UDP);
            protocol.attribute(PROTOCOL_SENDER_PORT, &answerer.port().to_be_bytes());
            protocol.attribute(PROTOCOL_RECEIVER_PORT, &asker.port().to_be_bytes());
        });
    });
    let answers = ask_netfilter(batch)?;
    Ok(answers.iter().find(|answer| answer.kind == kind(NEW)).and_then(ends))
}

/// The two ends that a flow began with.
fn ends(answer: &Answer) -> Option<(SocketAddr, SocketAddr)> {
    let tuple = Attributes::behind(&answer.body, HEADER).nested(TUPLE_ORIGINAL)?;
    let (addresses, protocol) = (tuple.nested(TUPLE_ADDRESSES)?, tuple.nested(TUPLE_PROTOCOL)?);
    let address = |v4, v6| {
        let of_4 = addresses.find(v4).and_then(|octets| <[u8; 4]>::try_from(octets).ok()).map(Ipv4Addr::from);
        let of_6 =
            addresses.find(v6).and_then(|octets| <[u8; 16]>::try_from(octets).ok()).map(Ipv6Addr::from);
        of_4.map(IpAddr::V4).or_else(|| of_6.map(IpAddr::V6))
    };
    let port = |kind| Some(u16::from_be_bytes(protocol.find(kind)?.try_into().ok()?));
    Some((
        SocketAddr::new(address(SENDER_4, SENDER_6)?, port(PROTOCOL_SENDER_PORT)?),
        SocketAddr::new(address(RECEIVER_4, RECEIVER_6)?, port(PROTOCOL_RECEIVER_PORT)?),
    ))
}

fn udp_port(answer: &Answer) -> Option<u16> {
    let protocol = Attributes::behind(&answer.body, HEADER).nested(TUPLE_ORIGINAL)?.nested(TUPLE_PROTOCOL)?;
    let is_udp = protocol.find(PROTOCOL_NUMBER)? == [UDP];
    let port = protocol.find(PROTOCOL_RECEIVER_PORT)?;
    is_udp.then(|| Some(u16::from_be_bytes(port.try_into().ok()?)))?
}

/// The entry is named by what it began with and its number, as it came; one that ended meanwhile is fine.
fn remove(batch: &mut Batch, answer: &Answer) {
    let header = answer.body.get(..HEADER).unwrap_or(&[0; HEADER]);
    batch.message("forget a flow", kind(DELETE), 0, header).tolerated();
    let attributes = Attributes::behind(&answer.body, HEADER);
    for (number, nested) in [(TUPLE_ORIGINAL, true), (ID, false), (ZONE, false)] {
        if let Some(payload) = attributes.find(number) {
            batch.attribute(if nested { number | 0x8000 } else { number }, payload);
        }
    }
}

fn kind(message: u16) -> u16 {
    SUBSYSTEM << 8 | message
}
