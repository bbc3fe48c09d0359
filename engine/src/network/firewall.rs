//! The firewall of one root: one table, named after it, whose chains never change and whose sets and maps say what
//! exists. A network or a published port is a handful of elements, added and removed in one transaction.
//!
//! What the chains do:
//! - a packet for an address of this host, at a published port, is led to the container (`ports*`, `bound*`);
//!   also one that the host or a container sends itself;
//! - what a container sends to the outside leaves with the host's address (`sources*`);
//! - nothing gets from the outside, or from another network, to a container, but through a published port;
//! - an internal network has no outside at all;
//! - no container reaches the host's loopback addresses, which `route_localnet` would allow otherwise.
//!
//! A rule here can only let pass what every other table lets pass too: a host whose own forward chain drops must
//! accept these bridges itself.

pub(crate) mod share;

use self::share::Draw;

use std::io;
use std::net::{IpAddr, SocketAddr};

use crate::container::spec::Protocol;
use crate::network::NetworkError;
use crate::network::cidr::Cidr;
use crate::network::nft::{
    self, Chain, Change, DataType, Element, Expression, FAMILY_IPV4, FAMILY_IPV6, Field, Hook, Meta, Place,
    PortField, REGISTER, REGISTER_2, Register, SetForm, Transaction, Verdict, WORD_1, WORD_2, WORD_3, WORD_5,
    WORD_6,
};
use crate::sys::netlink::{Ear, Refusal};

/// A network, as the firewall sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Zone {
    /// Its bridge.
    pub(crate) bridge: String,
    /// Whether it has no outside.
    pub(crate) internal: bool,
    /// Whether its members are kept from one another.
    pub(crate) isolated: bool,
    /// The ranges that leave with the host's address.
    pub(crate) masqueraded: Vec<Cidr>,
}

/// A published port, as the firewall sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Forward {
    /// The host's address; unspecified for every one of the family.
    pub(crate) host_ip: IpAddr,
    /// The host's port.
    pub(crate) host_port: u16,
    /// The protocol.
    pub(crate) protocol: Protocol,
    /// Where it leads.
    pub(crate) target: SocketAddr,
    /// Whose it is, for people and for the search for conflicts.
    pub(crate) owner: String,
}

/// The table of one root.
#[derive(Debug, Clone)]
pub(crate) struct Table<'a> {
    name: &'a str,
}

/// Exists in a table whose chains are those below. A table of another layout is made anew.
const LAYOUT: &str = "layout-1";
const BRIDGES: SetForm = SetForm { name: "bridges", key: &[DataType::LinkName], value: &[], ranges: false };
const INTERNAL: SetForm = SetForm { name: "internal", key: &[DataType::LinkName], value: &[], ranges: false };
const INSIDE: SetForm =
    SetForm { name: "inside", key: &[DataType::LinkName, DataType::LinkName], value: &[], ranges: false };
const SOURCES_4: SetForm = SetForm { name: "sources4", key: &[DataType::Ipv4], value: &[], ranges: true };
const SOURCES_6: SetForm = SetForm { name: "sources6", key: &[DataType::Ipv6], value: &[], ranges: true };
const PORTS_4: SetForm = SetForm {
    name: "ports4",
    key: &[DataType::Protocol, DataType::Port],
    value: &[DataType::Ipv4, DataType::Port],
    ranges: false,
};
const PORTS_6: SetForm = SetForm {
    name: "ports6",
    key: &[DataType::Protocol, DataType::Port],
    value: &[DataType::Ipv6, DataType::Port],
    ranges: false,
};
const BOUND_4: SetForm = SetForm {
    name: "bound4",
    key: &[DataType::Ipv4, DataType::Protocol, DataType::Port],
    value: &[DataType::Ipv4, DataType::Port],
    ranges: false,
};
const BOUND_6: SetForm = SetForm {
    name: "bound6",
    key: &[DataType::Ipv6, DataType::Protocol, DataType::Port],
    value: &[DataType::Ipv6, DataType::Port],
    ranges: false,
};
static FORMS: [&SetForm; 9] =
    [&BRIDGES, &INTERNAL, &INSIDE, &SOURCES_4, &SOURCES_6, &PORTS_4, &PORTS_6, &BOUND_4, &BOUND_6];

const PRIORITY_RAW: i32 = -300;
const PRIORITY_DESTINATION_NAT: i32 = -100;
const PRIORITY_FILTER: i32 = 0;
const PRIORITY_SOURCE_NAT: i32 = 100;
/// Bits of a connection's state: established and related.
const KNOWN: u32 = 0x6;
/// The bit of a connection's status: its destination was translated.
const TRANSLATED: u32 = 0x20;
const LOOPBACK_NET: u8 = 127;

/// What every root's table is named or begins with.
const TABLES: &str = "rengine";

/// Every published port of every root in this network namespace, by the name of the root's table.
pub(crate) fn all_forwards() -> Result<Vec<(String, Forward)>, NetworkError> {
    let tables = nft::tables().map_err(|refusal| refused(TABLES, &refusal))?;
    let mut forwards = Vec::new();
    for table in tables.iter().filter(|name| *name == TABLES || name.starts_with("rengine-")) {
        forwards.extend(Table::named(table).forwards()?.into_iter().map(|forward| (table.clone(), forward)));
    }
    Ok(forwards)
}

// === impl Table ===

impl<'a> Table<'a> {
    /// The table of this name, whether it exists or not.
    pub(crate) fn named(name: &'a str) -> Self {
        Self { name }
    }

    /// Whether it exists, with the chains of today.
    pub(crate) fn is_current(&self) -> Result<bool, NetworkError> {
        nft::has_chain(self.name, LAYOUT).map_err(|refusal| self.refused(&refusal))
    }

    /// Whether it exists with the chains of today and all of their rules.
    pub(crate) fn is_whole(&self) -> Result<bool, NetworkError> {
        if !self.is_current()? {
            return Ok(false);
        }
        let mut wanted = Transaction::new();
        add_rules(&mut wanted);
        let rules = nft::count_rules(self.name).map_err(|refusal| self.refused(&refusal))?;
        Ok(rules == wanted.len())
    }

    /// Hears when something of the table is removed that the engine removes only to make all of it anew. A table that
    /// is flushed is told of in several messages: one of them begins with something of this table, whatever else was
    /// flushed with it.
    pub(crate) fn listen(&self) -> Result<Ear, NetworkError> {
        nft::hear_of_removals(self.name).map_err(|source| NetworkError::Firewall {
            step: "listen to changes".to_owned(),
            table: self.name.to_owned(),
            source,
        })
    }

    /// Makes the table with all it holds, in place of an older one.
    pub(crate) fn make(&self, zones: &[Zone], forwards: &[Forward]) -> Result<(), NetworkError> {
        let mut transaction = Transaction::new();
        // The first of the three makes sure that there is something for the second one to remove.
        transaction.push(Change::Table);
        transaction.push(Change::NoTable);
        transaction.push(Change::Table);
        for form in FORMS {
            transaction.push(Change::Set(form));
        }
        add_chains(&mut transaction);
        add_rules(&mut transaction);
        let entries: Vec<Entry> =
            zones.iter().flat_map(zone_entries).chain(forwards.iter().map(forward_entry)).collect();
        change(&mut transaction, FORMS, &entries, Change::Add);
        self.commit(&transaction)
    }

    /// Adds a network.
    pub(crate) fn add_zone(&self, zone: &Zone) -> Result<(), NetworkError> {
        let mut transaction = Transaction::new();
        change(&mut transaction, FORMS, &zone_entries(zone), Change::Add);
        self.commit(&transaction)
    }

    /// Removes a network; one that is not there is fine.
    pub(crate) fn remove_zone(&self, zone: &Zone) -> Result<(), NetworkError> {
        self.remove_entries(zone_entries(zone))
    }

    /// Removes published ports and adds others, at once.
    pub(crate) fn replace(&self, remove: &[Forward], add: &[Forward]) -> Result<(), NetworkError> {
        let mut transaction = Transaction::new();
        let entries: Vec<Entry> = remove.iter().map(forward_entry).collect();
        change(&mut transaction, FORMS, &entries, Change::Remove);
        let entries: Vec<Entry> = add.iter().map(forward_entry).collect();
        change(&mut transaction, FORMS, &entries, Change::Add);
        self.commit(&transaction)
    }

    /// Removes published ports; those that are not there are fine.
    pub(crate) fn remove(&self, forwards: &[Forward]) -> Result<(), NetworkError> {
        self.remove_entries(forwards.iter().map(forward_entry).collect())
    }

    /// The published ports in it.
    pub(crate) fn forwards(&self) -> Result<Vec<Forward>, NetworkError> {
        let mut forwards = Vec::new();
        for form in [&PORTS_4, &PORTS_6, &BOUND_4, &BOUND_6] {
            let elements = nft::elements(self.name, form.name).map_err(|refusal| self.refused(&refusal))?;
            forwards.extend(elements.iter().filter_map(|element| forward_of(form, element)));
        }
        Ok(forwards)
    }

    /// The bridges it knows.
    pub(crate) fn bridges(&self) -> Result<Vec<String>, NetworkError> {
        let elements = nft::elements(self.name, BRIDGES.name).map_err(|refusal| self.refused(&refusal))?;
        let name =
            |element: &Element| String::from_utf8_lossy(&element.key).trim_end_matches('\0').to_owned();
        Ok(elements.iter().map(name).collect())
    }

    /// Takes the table away; one that is not there is fine.
    pub(crate) fn delete(&self) -> Result<(), NetworkError> {
        let mut transaction = Transaction::new();
        transaction.push(Change::Table);
        transaction.push(Change::NoTable);
        self.commit(&transaction)
    }

    fn remove_entries(&self, entries: Vec<Entry>) -> Result<(), NetworkError> {
        let mut transaction = Transaction::new();
        change(&mut transaction, FORMS, &entries, Change::Remove);
        match transaction.commit(self.name) {
            Err(refusal) if refusal.errno == rustix::io::Errno::NOENT && entries.len() > 1 => {
                // Something is gone already, which undid the whole: what is left goes one by one.
                entries.into_iter().try_for_each(|entry| self.remove_entries(vec![entry]))
            }
            Err(refusal) if refusal.errno != rustix::io::Errno::NOENT => Err(self.refused(&refusal)),
            _ => Ok(()),
        }
    }

    fn commit(&self, transaction: &Transaction) -> Result<(), NetworkError> {
        transaction.commit(self.name).map_err(|refusal| self.refused(&refusal))
    }

    fn refused(&self, refusal: &Refusal) -> NetworkError {
        refused(self.name, refusal)
    }
}

/// An element or the two ends of a range, and where they belong.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    set: &'static str,
    elements: Vec<Element>,
}

fn change(
    transaction: &mut Transaction,
    forms: impl IntoIterator<Item = &'static SetForm>,
    entries: &[Entry],
    how: fn(&'static str, Vec<Element>) -> Change,
) {
    for form in forms {
        let elements: Vec<Element> = entries
            .iter()
            .filter(|entry| entry.set == form.name)
            .flat_map(|entry| entry.elements.iter().cloned())
            .collect();
        if !elements.is_empty() {
            transaction.push(how(form.name, elements));
        }
    }
}

fn zone_entries(zone: &Zone) -> Vec<Entry> {
    let link = link_name(&zone.bridge);
    let pair = [link.clone(), link.clone()].concat();
    let mut entries = vec![Entry { set: BRIDGES.name, elements: vec![Element::key(link.clone())] }];
    if zone.internal {
        entries.push(Entry { set: INTERNAL.name, elements: vec![Element::key(link)] });
    }
    if !zone.isolated {
        entries.push(Entry { set: INSIDE.name, elements: vec![Element::key(pair)] });
    }
    entries.extend(zone.masqueraded.iter().map(|range| {
        let set = if range.is_ipv4() { SOURCES_4.name } else { SOURCES_6.name };
        let mut elements = vec![Element::key(address_bytes(range.first()))];
        // A range that ends where all addresses end has no end element.
        if let Some(end) = following(range.last()) {
            elements.push(Element { ends_range: true, ..Element::key(address_bytes(end)) });
        }
        Entry { set, elements }
    }));
    entries
}

fn forward_entry(forward: &Forward) -> Entry {
    let is_ipv4 = forward.target.is_ipv4();
    let set = match (forward.host_ip.is_unspecified(), is_ipv4) {
        (true, true) => PORTS_4.name,
        (true, false) => PORTS_6.name,
        (false, true) => BOUND_4.name,
        (false, false) => BOUND_6.name,
    };
    let mut key = if forward.host_ip.is_unspecified() { Vec::new() } else { address_bytes(forward.host_ip) };
    key.extend_from_slice(&[protocol_number(forward.protocol), 0, 0, 0]);
    key.extend_from_slice(&port_bytes(forward.host_port));
    let mut value = address_bytes(forward.target.ip());
    value.extend_from_slice(&port_bytes(forward.target.port()));
    let element =
        Element { key, value: Some(value), ends_range: false, comment: Some(forward.owner.clone()) };
    Entry { set, elements: vec![element] }
}

fn forward_of(form: &SetForm, element: &Element) -> Option<Forward> {
    let bound = form.key.len() == 3;
    let is_ipv4 = form.value[0] == DataType::Ipv4;
    let width = if is_ipv4 { 4 } else { 16 };
    let unspecified = address_bytes(if is_ipv4 { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) });
    let (host_ip, rest) = if bound {
        element.key.split_at_checked(width)?
    } else {
        (unspecified.as_slice(), element.key.as_slice())
    };
    let value = element.value.as_ref()?;
    let port = |bytes: &[u8]| Some(u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?));
    Some(Forward {
        host_ip: address_of(host_ip)?,
        host_port: port(rest.get(4..)?)?,
        protocol: protocol_of(*rest.first()?)?,
        target: SocketAddr::new(address_of(value.get(..width)?)?, port(value.get(width..)?)?),
        owner: element.comment.clone().unwrap_or_default(),
    })
}

fn add_chains(transaction: &mut Transaction) {
    let mut chain = |name, hook| transaction.push(Change::Chain(Chain { name, hook }));
    chain(LAYOUT, None);
    chain("publish", None);
    chain("inward", None);
    let hook = |kind, place, priority| Some(Hook { kind, place, priority });
    chain("shield", hook("filter", Place::Prerouting, PRIORITY_RAW));
    chain("prerouting", hook("nat", Place::Prerouting, PRIORITY_DESTINATION_NAT));
    chain("output", hook("nat", Place::Output, PRIORITY_DESTINATION_NAT));
    chain("forward", hook("filter", Place::Forward, PRIORITY_FILTER));
    chain("postrouting", hook("nat", Place::Postrouting, PRIORITY_SOURCE_NAT));
}

fn add_rules(transaction: &mut Transaction) {
    use Expression::{In, Load, Masquerade, NotIn, Verdict as Then};
    let link_in = || Expression::Meta(Meta::LinkIn, REGISTER);
    let link_out = || Expression::Meta(Meta::LinkOut, REGISTER);

    // No container reaches 127.0.0.0/8 of the host (CVE-2020-8558). Every packet comes by here, and the address is
    // cheaper to compare than the link.
    let from_bridge = vec![link_in(), In(REGISTER, BRIDGES.name)];
    transaction.rule("shield", [to_loopback(), from_bridge, vec![Then(Verdict::Drop)]].concat());

    add_entrance(transaction);
    add_publish_rules(transaction, None, [[BOUND_4.name, PORTS_4.name], [BOUND_6.name, PORTS_6.name]]);

    let inside = vec![
        link_in(),
        Expression::Meta(Meta::LinkOut, REGISTER_2),
        In(REGISTER, INSIDE.name),
        Then(Verdict::Accept),
    ];
    transaction.rule("forward", inside);
    transaction.rule("forward", vec![link_in(), In(REGISTER, INTERNAL.name), Then(Verdict::Drop)]);
    transaction.rule("forward", vec![link_out(), In(REGISTER, INTERNAL.name), Then(Verdict::Drop)]);
    transaction.rule("forward", vec![link_out(), In(REGISTER, BRIDGES.name), Then(Verdict::Jump("inward"))]);
    transaction.rule("inward", vec![Expression::ConnectionState(KNOWN), Then(Verdict::Accept)]);
    transaction.rule("inward", vec![Expression::ConnectionStatus(TRANSLATED), Then(Verdict::Accept)]);
    transaction.rule("inward", vec![Then(Verdict::Drop)]);

    for (number, sender, sources) in
        [(FAMILY_IPV4, Field::IPV4_SENDER, SOURCES_4.name), (FAMILY_IPV6, Field::IPV6_SENDER, SOURCES_6.name)]
    {
        let from_source = || [&family(number)[..], &[Load(sender, REGISTER), In(REGISTER, sources)]].concat();
        let outward = vec![link_out(), NotIn(REGISTER, BRIDGES.name)];
        transaction.rule("postrouting", [outward, from_source(), vec![Masquerade]].concat());
        // A container that calls a published port of its own network would be answered directly, by an address it
        // did not call.
        let translated =
            vec![link_out(), In(REGISTER, BRIDGES.name), Expression::ConnectionStatus(TRANSLATED)];
        transaction.rule("postrouting", [translated, from_source(), vec![Masquerade]].concat());
    }
    // Nobody outside this host can answer 127.0.0.1.
    let from_loopback = loopback(Field::IPV4_SENDER_NET);
    let to_bridge = vec![link_out(), In(REGISTER, BRIDGES.name)];
    transaction.rule("postrouting", [to_bridge, from_loopback, vec![Masquerade]].concat());
}

/// What is for an address of this host is looked up among the published ports.
fn add_entrance(transaction: &mut Transaction) {
    use Expression::{Differs, Verdict as Then};
    // What came over the wire to a loopback address is for nobody: a port published there stays there.
    let not_local = vec![Expression::Meta(Meta::LinkIn, REGISTER), Differs(REGISTER, link_name("lo"))];
    transaction.rule("prerouting", [not_local, to_loopback(), vec![Then(Verdict::Return)]].concat());
    for chain in ["prerouting", "output"] {
        transaction.rule(chain, vec![Expression::DestinationIsLocal, Then(Verdict::Jump("publish"))]);
    }
}

fn family(family: u8) -> [Expression; 2] {
    [Expression::Meta(Meta::Family, REGISTER), Expression::Equal(REGISTER, vec![family])]
}

/// Whether the address whose first byte this field is belongs to a loopback network.
fn loopback(field: Field) -> Vec<Expression> {
    let is_loopback = [Expression::Load(field, REGISTER), Expression::Equal(REGISTER, vec![LOOPBACK_NET])];
    [family(FAMILY_IPV4), is_loopback].concat()
}

fn to_loopback() -> Vec<Expression> {
    loopback(Field::IPV4_RECEIVER_NET)
}

/// Leads what is for a published port to where it is published, by these maps: for each family that of ports on one
/// address and that of ports on all. With `drawn` the keys of the maps have a number before the protocol, which is drawn
/// for each connection.
fn add_publish_rules(transaction: &mut Transaction, drawn: Option<Draw>, maps: [[&'static str; 2]; 2]) {
    use Expression::{DestinationNat, Equal, Load, Map, Meta as Known};
    // The parts of a key lie in consecutive registers of four bytes, and so do the address and port found there.
    let [of_ipv4, of_ipv6] = maps;
    for (family, receiver, sender, rest, port_found, [bound, any]) in [
        (FAMILY_IPV4, Field::IPV4_RECEIVER, Field::IPV4_SENDER, [WORD_1, WORD_2, WORD_3], WORD_1, of_ipv4),
        (
            FAMILY_IPV6,
            Field::IPV6_RECEIVER,
            Field::IPV6_SENDER,
            [REGISTER_2, WORD_5, WORD_6],
            REGISTER_2,
            of_ipv6,
        ),
    ] {
        let number = |register| drawn.map(|draw| draw.below(share::WHOLE, sender, register));
        let of_family = vec![Known(Meta::Family, REGISTER), Equal(REGISTER, vec![family])];
        let found = DestinationNat(family, REGISTER, port_found);
        let bound_key = [vec![Load(receiver, REGISTER)], port_key(number, rest)].concat();
        let bound_lookup = vec![Map(REGISTER, bound), found.clone()];
        transaction.rule("publish", [of_family.clone(), bound_key, bound_lookup].concat());
        let any_key = port_key(number, [REGISTER, WORD_1, WORD_2]);
        transaction.rule("publish", [of_family, any_key, vec![Map(REGISTER, any), found]].concat());
    }
}

/// The protocol and port that a packet is for, behind the number that is drawn.
fn port_key(
    number: impl Fn(Register) -> Option<Expression>,
    [first, second, third]: [Register; 3],
) -> Vec<Expression> {
    use Expression::{Load, Meta as Known};
    let port = Field::port(PortField::Destination);
    match number(first) {
        None => vec![Known(Meta::Protocol, first), Load(port, second)],
        Some(number) => vec![number, Known(Meta::Protocol, second), Load(port, third)],
    }
}

fn link_name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

fn address_bytes(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(octets));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

fn following(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => {
            address.to_bits().checked_add(1).map(|bits| IpAddr::V4(std::net::Ipv4Addr::from_bits(bits)))
        }
        IpAddr::V6(address) => {
            address.to_bits().checked_add(1).map(|bits| IpAddr::V6(std::net::Ipv6Addr::from_bits(bits)))
        }
    }
}

fn port_bytes(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

fn protocol_of(number: u8) -> Option<Protocol> {
    match number {
        6 => Some(Protocol::Tcp),
        17 => Some(Protocol::Udp),
        132 => Some(Protocol::Sctp),
        _ => None,
    }
}

fn refused(table: &str, refusal: &Refusal) -> NetworkError {
    NetworkError::Firewall {
        step: refusal.step.clone(),
        table: table.to_owned(),
        source: io::Error::from(refusal.errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(host: &str, target: &str) -> Forward {
        let host: SocketAddr = host.parse().unwrap();
        Forward {
            host_ip: host.ip(),
            host_port: host.port(),
            protocol: Protocol::Udp,
            target: target.parse().unwrap(),
            owner: "0123456789ab web".to_owned(),
        }
    }

    #[test]
    fn a_published_port_reads_back_from_its_element() {
        for (host, target, set) in [
            ("0.0.0.0:53", "172.18.0.2:5353", "ports4"),
            ("127.0.0.1:53", "172.18.0.2:5353", "bound4"),
            ("[::]:53", "[fd00::2]:5353", "ports6"),
            ("[fd12::1]:53", "[fd00::2]:5353", "bound6"),
        ] {
            let forward = forward(host, target);
            let entry = forward_entry(&forward);
            assert_eq!(entry.set, set);
            let form = FORMS.into_iter().find(|form| form.name == set).unwrap();
            assert_eq!(forward_of(form, &entry.elements[0]), Some(forward));
        }
    }

    #[test]
    fn a_network_is_a_handful_of_elements() {
        let zone = Zone {
            bridge: "br0".to_owned(),
            internal: false,
            isolated: false,
            masqueraded: vec!["172.18.0.0/16".parse().unwrap(), "fd00::/64".parse().unwrap()],
        };
        let sets: Vec<&str> = zone_entries(&zone).iter().map(|entry| entry.set).collect();
        assert_eq!(sets, ["bridges", "inside", "sources4", "sources6"]);
        let closed = Zone { internal: true, isolated: true, masqueraded: Vec::new(), ..zone };
        let sets: Vec<&str> = zone_entries(&closed).iter().map(|entry| entry.set).collect();
        assert_eq!(sets, ["bridges", "internal"]);
    }
}
