//! Entries of connection tracking that have outlived what they led to, over ctnetlink.

use std::collections::HashSet;
use std::io;

use crate::network::nft::UDP;
use crate::sys::netlink::{Answer, Attributes, Batch, DUMP, ask_netfilter};

const SUBSYSTEM: u16 = 1;
const NEW: u16 = 0;
const GET: u16 = 1;
const DELETE: u16 = 2;
const HEADER: usize = 4;
const TUPLE_ORIGINAL: u16 = 1;
const ZONE: u16 = 18;
const ID: u16 = 12;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const PROTOCOL_RECEIVER_PORT: u16 = 3;

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
