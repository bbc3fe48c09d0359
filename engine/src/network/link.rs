//! Bridges and veth pairs, over rtnetlink. Nothing here knows who is attached or why.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;

use rustix::io::Errno;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::id::hex;
use crate::network::NetworkError;
use crate::network::cidr::Cidr;
use crate::network::endpoint::{Endpoint, EndpointAddress};
use crate::network::options::{Driver, MacvlanMode};
use crate::sys::netlink::{Answer, Attributes, Batch, CREATE, DUMP, EXCL, Refusal, Socket, u32_at};

/// What is left to do for one link inside the container's network namespace. It travels from the host's side to
/// the container's over the launch handshake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InsideLink {
    /// The link's name there.
    pub interface: String,
    /// Its addresses.
    pub addresses: Vec<EndpointAddress>,
    /// The gateways of the default routes that lead over this link: one per family at most.
    pub default_routes: Vec<IpAddr>,
    /// Kernel parameters of the link, by their paths below /proc/sys.
    #[serde(default)]
    pub sysctls: Vec<(String, String)>,
}

/// A bridge as it is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Bridge<'a> {
    /// Its name.
    pub(crate) name: &'a str,
    /// The host's addresses on it.
    pub(crate) gateways: Vec<EndpointAddress>,
    /// Bytes a frame may carry.
    pub(crate) mtu: Option<u32>,
}

/// A range of addresses in use on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UsedRange {
    /// The range.
    pub(crate) range: Cidr,
    /// By what, for people.
    pub(crate) user: String,
    /// Whether it is only a route, which lies over no link's own addresses.
    pub(crate) is_route: bool,
}

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;

const LINK_ADDRESS: u16 = 1;
const LINK_NAME: u16 = 3;
const LINK_MTU: u16 = 4;
const LINK_LINK: u16 = 5;
const LINK_MASTER: u16 = 10;
const LINK_INFO: u16 = 18;
const LINK_NAMESPACE_PID: u16 = 19;
const LINK_FAMILIES: u16 = 26;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const INFO_PORT_KIND: u16 = 4;
const INFO_PORT_DATA: u16 = 5;
const PORT_HAIRPIN: u16 = 4;
const PORT_ISOLATED: u16 = 33;
const VETH_PEER: u16 = 1;
const MACVLAN_MODE: u16 = 1;
const INET6_GENERATE: u16 = 8;
const GENERATE_NOTHING: u8 = 1;
const ADDRESS_ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;
const ADDRESS_BROADCAST: u16 = 4;
const ADDRESS_FLAGS: u16 = 8;
const NO_DUPLICATE_DETECTION: u32 = 0x02;
const ROUTE_DESTINATION: u16 = 1;
const ROUTE_LINK: u16 = 4;
const ROUTE_GATEWAY: u16 = 5;
const UP: u32 = 1;
const LOOPBACK: u32 = 1;
const FAMILY_INET: u8 = 2;
const FAMILY_INET6: u8 = 10;
/// Headers of the messages: `ifinfomsg`, `ifaddrmsg`, `rtmsg`.
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
const ROUTE_HEADER: usize = 12;
const ROUTE_UNICAST: u8 = 1;
const ROUTE_TABLE_MAIN: u8 = 254;
const ROUTE_BY_ADMINISTRATOR: u8 = 4;
/// A route this wide is a way out, not a place: a default route, or its halves as VPN clients set them.
const PLACE_PREFIX: u8 = 4;
/// How often a name is drawn before a clash is an error.
const NAME_DRAWS: usize = 8;

/// The host's end of a container's link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostEnd {
    /// Its number, which the kernel gives to no other link after it.
    pub(crate) index: u32,
    /// Its name.
    pub(crate) name: String,
    /// The number of the bridge it is plugged into.
    pub(crate) bridge: Option<u32>,
}

/// Plugs one veth per endpoint: one end into the bridge, the other one straight into the network namespace of
/// this process, in one netlink batch each. A macvlan has no end on the host: it is made inside, on its parent.
///
/// # Errors
/// When a bridge or the process is gone, or the kernel refuses.
pub fn plug(endpoints: &[Endpoint], pid: Pid) -> Result<Vec<InsideLink>, NetworkError> {
    if endpoints.is_empty() {
        return Ok(Vec::new());
    }
    let socket = Socket::route().map_err(|source| failed("open netlink for", "links", source))?;
    for endpoint in endpoints {
        let bridge = index(&socket, &endpoint.bridge)
            .map_err(|source| failed("find the link", &endpoint.bridge, source))?;
        match endpoint.driver {
            Driver::Bridge => plug_one(&socket, endpoint, bridge, &draw_name(), pid)?,
            Driver::Macvlan(mode) => put_on(&socket, endpoint, bridge, mode, pid)?,
        }
    }
    Ok(inside_links(endpoints))
}

/// Plugs an endpoint again whose host's end was this one and is gone; inside it is yet to be configured.
///
/// # Errors
/// Like [`plug`].
pub(crate) fn plug_again(endpoint: &Endpoint, before: &HostEnd, pid: Pid) -> Result<(), NetworkError> {
    let socket = Socket::route().map_err(|source| failed("open netlink for", "links", source))?;
    let bridge = index(&socket, &endpoint.bridge)
        .map_err(|source| failed("find the link", &endpoint.bridge, source))?;
    plug_one(&socket, endpoint, bridge, &before.name, pid)
}

/// Puts a host's end that is there still into the bridge of its endpoint.
pub(crate) fn put_back(endpoint: &Endpoint, end: &HostEnd) -> Result<(), NetworkError> {
    let socket = Socket::route().map_err(|source| failed("open netlink for", "links", source))?;
    let bridge = index(&socket, &endpoint.bridge)
        .map_err(|source| failed("find the link", &endpoint.bridge, source))?;
    let mut batch = Batch::new();
    let step = format!("plug {} into {}", end.name, endpoint.bridge);
    batch.message(step, NEW_LINK, 0, &link_header(end.index, UP)).acknowledged();
    batch.u32(LINK_MASTER, bridge);
    set_port(&mut batch, &end.name, endpoint.isolated);
    socket.run(batch).map_err(|refusal| refused(&refusal))
}

/// The number of the other end of each of these links, in the order asked for, in the calling thread's network
/// namespace; `None` for a link that is not there or has no other end.
pub(crate) fn other_ends(names: &[&str]) -> Result<Vec<Option<u32>>, NetworkError> {
    let socket = Socket::route().map_err(|source| failed("open netlink for", "links", source))?;
    let mut batch = Batch::new();
    for name in names {
        ask_for_link(&mut batch, name);
        batch.tolerated();
    }
    let answers = socket.ask(batch).map_err(|refusal| refused(&refusal))?;
    let ends: BTreeMap<String, u32> = answers
        .iter()
        .filter_map(|answer| {
            let other = Attributes::behind(&answer.body, LINK_HEADER).u32(LINK_LINK)?;
            Some((named_index(answer)?.0, other))
        })
        .collect();
    Ok(names.iter().map(|name| ends.get(*name).copied()).collect())
}

/// The link of this number; `None` when there is none.
pub(crate) fn host_end(index: u32) -> Result<Option<HostEnd>, NetworkError> {
    let socket = Socket::route().map_err(|source| failed("open netlink for", "links", source))?;
    let mut batch = Batch::new();
    batch.message(format!("find the link {index}"), GET_LINK, 0, &link_header(index, 0)).tolerated();
    let answers = socket.ask(batch).map_err(|refusal| refused(&refusal))?;
    let end = answers.iter().find_map(|answer| {
        let (name, index) = named_index(answer)?;
        let bridge = Attributes::behind(&answer.body, LINK_HEADER).u32(LINK_MASTER);
        Some(HostEnd { index, name, bridge })
    });
    Ok(end)
}

/// The number of the link of this name; `None` when there is none.
pub(crate) fn number(name: &str) -> Result<Option<u32>, NetworkError> {
    let socket = Socket::route().map_err(|source| failed("open netlink for", name, source))?;
    match index(&socket, name) {
        Ok(index) => Ok(Some(index)),
        Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Ok(None),
        Err(error) => Err(failed("look at", name, error)),
    }
}

/// Configures the links of the calling thread's network namespace: loopback up, addresses, links up, default
/// routes. Without links it only brings up loopback.
///
/// # Errors
/// When the kernel refuses.
pub fn configure_inside(links: &[InsideLink]) -> Result<(), NetworkError> {
    let socket = Socket::route().map_err(|source| failed("open netlink for", "links", source))?;
    let mut batch = Batch::new();
    batch.message("bring up lo", NEW_LINK, 0, &link_header(LOOPBACK, UP)).acknowledged();
    for link in links {
        ask_for_link(&mut batch, &link.interface);
    }
    let indices = indices(&socket, batch)?;
    let mut batch = Batch::new();
    for link in links {
        let index = index_of(link, &indices)?;
        if link.addresses.iter().all(|entry| entry.address.is_ipv4()) {
            generate_no_addresses(&mut batch, index, None);
        }
        for entry in &link.addresses {
            add_address(&mut batch, index, &link.interface, entry);
        }
        batch
            .message(format!("bring up {}", link.interface), NEW_LINK, 0, &link_header(index, UP))
            .acknowledged();
        for gateway in &link.default_routes {
            add_default_route(&mut batch, index, *gateway);
        }
    }
    socket.run(batch).map_err(|refusal| refused(&refusal))?;
    links.iter().try_for_each(write_sysctls)
}

/// /proc/sys/net shows the network namespace of whoever looks (proc_sys_net(5)).
fn write_sysctls(link: &InsideLink) -> Result<(), NetworkError> {
    for (path, value) in &link.sysctls {
        std::fs::write(format!("/proc/sys/{path}"), value)
            .map_err(|source| failed("set a kernel parameter of", path, source))?;
    }
    Ok(())
}

/// Leads the default routes of the calling thread's network namespace over these links, which are configured already.
pub(crate) fn route_over(links: &[InsideLink]) -> Result<(), NetworkError> {
    let ways_out: Vec<&InsideLink> = links.iter().filter(|link| !link.default_routes.is_empty()).collect();
    if ways_out.is_empty() {
        return Ok(());
    }
    let socket = Socket::route().map_err(|source| failed("open netlink for", "routes", source))?;
    let mut batch = Batch::new();
    for link in &ways_out {
        ask_for_link(&mut batch, &link.interface);
    }
    let indices = indices(&socket, batch)?;
    let mut batch = Batch::new();
    for link in ways_out {
        let index = index_of(link, &indices)?;
        for gateway in &link.default_routes {
            add_default_route(&mut batch, index, *gateway);
        }
    }
    socket.run(batch).map_err(|refusal| refused(&refusal))
}

/// Makes the bridge unless it is there, and brings it up. Tells whether it was made.
pub(crate) fn ensure_bridge(bridge: &Bridge<'_>) -> Result<bool, NetworkError> {
    let socket = Socket::route().map_err(|source| failed("open netlink for", bridge.name, source))?;
    let made = make_bridge(&socket, bridge)?;
    let index =
        index(&socket, bridge.name).map_err(|source| failed("find the bridge", bridge.name, source))?;
    let mut batch = Batch::new();
    if made {
        set_parameter("ipv4", bridge.name, "route_localnet", "1")?;
        // Router advertisements could give the host a route through a container (CVE-2020-13401).
        let _ = set_parameter("ipv6", bridge.name, "accept_ra", "0");
        // The host's link-local address has no duplicate on its own bridge; it would not ask for neighbours before
        // it has waited for one.
        let _ = set_parameter("ipv6", bridge.name, "accept_dad", "0");
        if bridge.gateways.iter().all(|entry| entry.address.is_ipv4()) {
            generate_no_addresses(&mut batch, index, None);
        }
    }
    for entry in &bridge.gateways {
        add_address(&mut batch, index, bridge.name, entry);
    }
    batch.message(format!("bring up {}", bridge.name), NEW_LINK, 0, &link_header(index, UP)).acknowledged();
    socket.run(batch).map_err(|refusal| refused(&refusal))?;
    Ok(made)
}

/// Whether a link of this name exists.
pub(crate) fn exists(name: &str) -> Result<bool, NetworkError> {
    Ok(number(name)?.is_some())
}

/// Whether the link of this name has all of these addresses.
pub(crate) fn has_addresses(name: &str, wanted: &[EndpointAddress]) -> Result<bool, NetworkError> {
    let Some(index) = number(name)? else { return Ok(false) };
    let socket = Socket::route().map_err(|source| failed("open netlink for", name, source))?;
    let mut batch = Batch::new();
    batch.message("list addresses", GET_ADDRESS, DUMP, &[0; ADDRESS_HEADER]);
    let answers = socket.ask(batch).map_err(|refusal| refused(&refusal))?;
    let has = |wanted: &EndpointAddress| {
        answers.iter().any(|answer| {
            let attributes = Attributes::behind(&answer.body, ADDRESS_HEADER);
            let address = attributes.find(ADDRESS_LOCAL).or(attributes.find(ADDRESS_ADDRESS));
            u32_at(&answer.body, 4) == Some(index) && address.and_then(address_of) == Some(wanted.address)
        })
    };
    Ok(wanted.iter().all(has))
}

/// The names of all links of this host.
pub(crate) fn names() -> Result<Vec<String>, NetworkError> {
    let socket = Socket::route().map_err(|source| failed("open netlink for", "links", source))?;
    let mut batch = Batch::new();
    batch.message("list links", GET_LINK, DUMP, &[0; LINK_HEADER]);
    let links = socket.ask(batch).map_err(|refusal| refused(&refusal))?;
    Ok(links.iter().filter_map(named_index).map(|(name, _)| name).collect())
}

/// Removes a link; one that is not there is fine.
pub(crate) fn remove(name: &str) -> Result<(), NetworkError> {
    let socket = Socket::route().map_err(|source| failed("open netlink for", name, source))?;
    let mut batch = Batch::new();
    batch.message(format!("remove {name}"), DELETE_LINK, 0, &link_header(0, 0)).acknowledged();
    batch.text(LINK_NAME, name);
    match socket.run(batch) {
        Err(refusal) if refusal.errno != Errno::NODEV => Err(refused(&refusal)),
        _ => Ok(()),
    }
}

/// Lets the host pass packets on between its links.
pub(crate) fn enable_forwarding(ipv6: bool) -> Result<(), NetworkError> {
    write_when_different("/proc/sys/net/ipv4/ip_forward", "1")?;
    if ipv6 {
        write_when_different("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

/// Every range of addresses that this host has on a link or a route to, without the ways out of it.
pub(crate) fn used_ranges() -> Result<Vec<UsedRange>, NetworkError> {
    let socket = Socket::route().map_err(|source| failed("open netlink for", "addresses", source))?;
    let dump = |step: &str, kind, header: &[u8]| {
        let mut batch = Batch::new();
        batch.message(step, kind, DUMP, header);
        socket.ask(batch).map_err(|refusal| refused(&refusal))
    };
    let links = dump("list links", GET_LINK, &[0; LINK_HEADER])?;
    let names: BTreeMap<u32, String> =
        links.iter().filter_map(named_index).map(|(name, index)| (index, name)).collect();
    let addresses = dump("list addresses", GET_ADDRESS, &[0; ADDRESS_HEADER])?;
    let routes = dump("list routes", GET_ROUTE, &[0; ROUTE_HEADER])?;
    let mut used: Vec<UsedRange> =
        addresses.iter().filter_map(|answer| address_range(answer, &names)).collect();
    used.extend(routes.iter().filter_map(|answer| route_range(answer, &names)));
    Ok(used)
}

/// What is to be configured inside for these attachments, which are all that the container has: among them is found
/// which one leads outside.
pub fn inside_links(endpoints: &[Endpoint]) -> Vec<InsideLink> {
    let way_out = |ipv4: bool| {
        endpoints
            .iter()
            .filter(|endpoint| !endpoint.internal)
            .filter_map(|endpoint| {
                let entry = endpoint.addresses.iter().find(|entry| entry.address.is_ipv4() == ipv4)?;
                Some((endpoint, entry.gateway?))
            })
            // The first one of those with the highest priority.
            .rev()
            .max_by_key(|(endpoint, _)| endpoint.gateway_priority)
            .map(|(endpoint, gateway)| (endpoint.interface.as_str(), gateway))
    };
    let ways_out: Vec<(&str, IpAddr)> = [way_out(true), way_out(false)].into_iter().flatten().collect();
    endpoints
        .iter()
        .map(|endpoint| InsideLink {
            interface: endpoint.interface.clone(),
            addresses: endpoint.addresses.iter().copied().chain(link_local(endpoint)).collect(),
            default_routes: ways_out
                .iter()
                .filter(|(interface, _)| *interface == endpoint.interface)
                .map(|(_, gateway)| *gateway)
                .collect(),
            sysctls: endpoint.sysctls.clone(),
        })
        .collect()
}

/// Addresses that are good on the link alone, with the prefixes that RFC 3927 and RFC 4291 give them.
fn link_local(endpoint: &Endpoint) -> impl Iterator<Item = EndpointAddress> {
    endpoint.link_local.iter().map(|&address| {
        let prefix = if address.is_ipv4() { 16 } else { 64 };
        EndpointAddress { address, prefix, gateway: None }
    })
}

fn plug_one(
    socket: &Socket,
    endpoint: &Endpoint,
    bridge: u32,
    name: &str,
    pid: Pid,
) -> Result<(), NetworkError> {
    let mac = parse_mac(&endpoint.mac_address).ok_or_else(|| {
        NetworkError::Invalid(format!("invalid hardware address {:?}", endpoint.mac_address))
    })?;
    let mut draws = 0;
    let mut name = name.to_owned();
    loop {
        let mut batch = Batch::new();
        let step = format!("plug {} into {} as", endpoint.interface, endpoint.bridge);
        batch.message(step, NEW_LINK, CREATE | EXCL, &link_header(0, UP)).acknowledged();
        batch.text(LINK_NAME, &name).u32(LINK_MASTER, bridge);
        if let Some(mtu) = endpoint.mtu {
            batch.u32(LINK_MTU, mtu);
        }
        batch.nest(LINK_INFO, |info| {
            info.text(INFO_KIND, "veth").nest(INFO_DATA, |data| {
                data.nest_behind(VETH_PEER, &link_header(0, 0), |peer| {
                    describe_peer(peer, endpoint, &mac, pid)
                });
            });
        });
        set_port(&mut batch, &name, endpoint.isolated);
        match socket.run(batch) {
            Ok(()) => return Ok(()),
            Err(refusal) if refusal.errno == Errno::EXIST && draws < NAME_DRAWS => {
                draws += 1;
                name = draw_name();
            }
            Err(refusal) => return Err(failed("plug the link", &endpoint.interface, refusal.into())),
        }
    }
}

/// Makes a macvlan in the network namespace of this process, on a link of the host.
fn put_on(
    socket: &Socket,
    endpoint: &Endpoint,
    parent: u32,
    mode: MacvlanMode,
    pid: Pid,
) -> Result<(), NetworkError> {
    let mac = parse_mac(&endpoint.mac_address).ok_or_else(|| {
        NetworkError::Invalid(format!("invalid hardware address {:?}", endpoint.mac_address))
    })?;
    let mut batch = Batch::new();
    let step = format!("put {} on {}", endpoint.interface, endpoint.bridge);
    batch.message(step, NEW_LINK, CREATE | EXCL, &link_header(0, 0)).acknowledged();
    batch.u32(LINK_LINK, parent);
    describe_peer(&mut batch, endpoint, &mac, pid);
    batch.nest(LINK_INFO, |info| {
        info.text(INFO_KIND, "macvlan").nest(INFO_DATA, |data| {
            data.u32(MACVLAN_MODE, macvlan_mode(mode));
        });
    });
    socket.run(batch).map_err(|refusal| refused(&refusal))
}

/// `enum macvlan_mode` of linux/if_link.h.
fn macvlan_mode(mode: MacvlanMode) -> u32 {
    match mode {
        MacvlanMode::Private => 1,
        MacvlanMode::Vepa => 2,
        MacvlanMode::Bridge => 4,
        MacvlanMode::Passthru => 8,
    }
}

fn describe_peer(peer: &mut Batch, endpoint: &Endpoint, mac: &[u8; 6], pid: Pid) {
    peer.text(LINK_NAME, &endpoint.interface).attribute(LINK_ADDRESS, mac);
    peer.u32(LINK_NAMESPACE_PID, pid.as_raw_pid().unsigned_abs());
    if let Some(mtu) = endpoint.mtu {
        peer.u32(LINK_MTU, mtu);
    }
}

/// Hairpin: with `bridge-nf-call-iptables` a container that calls its own published port is answered through the
/// port its call came from.
fn set_port(batch: &mut Batch, name: &str, isolated: bool) {
    batch.message(format!("set up the bridge port {name}"), NEW_LINK, 0, &link_header(0, 0)).acknowledged();
    batch.text(LINK_NAME, name).nest(LINK_INFO, |info| {
        info.text(INFO_PORT_KIND, "bridge").nest(INFO_PORT_DATA, |port| {
            port.u8(PORT_HAIRPIN, 1).u8(PORT_ISOLATED, u8::from(isolated));
        });
    });
    generate_no_addresses(batch, 0, Some(name));
}

fn generate_no_addresses(batch: &mut Batch, index: u32, name: Option<&str>) {
    // A kernel without IPv6 refuses this, and has no addresses to generate either.
    batch.message("keep IPv6 off", NEW_LINK, 0, &link_header(index, 0)).tolerated();
    if let Some(name) = name {
        batch.text(LINK_NAME, name);
    }
    batch.nest(LINK_FAMILIES, |families| {
        families.nest(u16::from(FAMILY_INET6), |inet6| {
            inet6.u8(INET6_GENERATE, GENERATE_NOTHING);
        });
    });
}

fn make_bridge(socket: &Socket, bridge: &Bridge<'_>) -> Result<bool, NetworkError> {
    let mut batch = Batch::new();
    batch
        .message(format!("make the bridge {}", bridge.name), NEW_LINK, CREATE | EXCL, &link_header(0, 0))
        .acknowledged();
    batch.text(LINK_NAME, bridge.name);
    if let Some(first) = bridge.gateways.first() {
        // Without an address of its own it would take the lowest one of its ports, and change with them.
        batch.attribute(LINK_ADDRESS, &mac_for(first.address));
    }
    if let Some(mtu) = bridge.mtu {
        batch.u32(LINK_MTU, mtu);
    }
    batch.nest(LINK_INFO, |info| {
        info.text(INFO_KIND, "bridge");
    });
    match socket.run(batch) {
        Ok(()) => Ok(true),
        Err(refusal) if refusal.errno == Errno::EXIST => Ok(false),
        Err(refusal) => Err(refused(&refusal)),
    }
}

fn add_address(batch: &mut Batch, index: u32, link: &str, entry: &EndpointAddress) {
    let (family, bytes) = address_bytes(entry.address);
    let mut header = vec![family, entry.prefix, 0, 0];
    header.extend_from_slice(&index.to_ne_bytes());
    // Replaces rather than refuses when it is there already.
    batch
        .message(
            format!("give {}/{} to {link}", entry.address, entry.prefix),
            NEW_ADDRESS,
            CREATE | 0x100,
            &header,
        )
        .acknowledged();
    batch.attribute(ADDRESS_LOCAL, &bytes).attribute(ADDRESS_ADDRESS, &bytes);
    match Cidr::around(entry.address, entry.prefix) {
        Some(range) if entry.address.is_ipv4() && entry.prefix < 31 => {
            batch.attribute(ADDRESS_BROADCAST, &address_bytes(range.last()).1);
        }
        _ => {}
    }
    if entry.address.is_ipv6() {
        // The pool gives an address once; waiting for its duplicate would hold up the start for a second.
        batch.u32(ADDRESS_FLAGS, NO_DUPLICATE_DETECTION);
    }
}

fn add_default_route(batch: &mut Batch, index: u32, gateway: IpAddr) {
    let (family, bytes) = address_bytes(gateway);
    let header = [family, 0, 0, 0, ROUTE_TABLE_MAIN, ROUTE_BY_ADMINISTRATOR, 0, ROUTE_UNICAST, 0, 0, 0, 0];
    batch.message(format!("route by way of {gateway}"), NEW_ROUTE, CREATE | 0x100, &header).acknowledged();
    batch.attribute(ROUTE_GATEWAY, &bytes).u32(ROUTE_LINK, index);
}

fn indices(socket: &Socket, questions: Batch) -> Result<BTreeMap<String, u32>, NetworkError> {
    let answers = socket.ask(questions).map_err(|refusal| refused(&refusal))?;
    Ok(answers.iter().filter_map(named_index).collect())
}

fn index_of(link: &InsideLink, indices: &BTreeMap<String, u32>) -> Result<u32, NetworkError> {
    let missing = || failed("find the link", &link.interface, io::Error::from(io::ErrorKind::NotFound));
    indices.get(&link.interface).copied().ok_or_else(missing)
}

fn ask_for_link(batch: &mut Batch, name: &str) {
    batch.message(format!("find the link {name}"), GET_LINK, 0, &link_header(0, 0)).text(LINK_NAME, name);
}

fn index(socket: &Socket, name: &str) -> io::Result<u32> {
    let mut batch = Batch::new();
    ask_for_link(&mut batch, name);
    let answers = socket.ask(batch)?;
    answers.iter().find_map(named_index).map(|(_, index)| index).ok_or_else(|| Errno::NODEV.into())
}

fn named_index(answer: &Answer) -> Option<(String, u32)> {
    if answer.kind != NEW_LINK {
        return None;
    }
    let name = Attributes::behind(&answer.body, LINK_HEADER).text(LINK_NAME)?;
    Some((name.to_owned(), u32_at(&answer.body, 4)?))
}

fn address_range(answer: &Answer, names: &BTreeMap<u32, String>) -> Option<UsedRange> {
    let prefix = *answer.body.get(1)?;
    let link = name_of(u32_at(&answer.body, 4)?, names);
    let attributes = Attributes::behind(&answer.body, ADDRESS_HEADER);
    let address = address_of(attributes.find(ADDRESS_LOCAL).or(attributes.find(ADDRESS_ADDRESS))?)?;
    Some(UsedRange {
        range: Cidr::around(address, prefix)?,
        user: format!("the address {address} of {link}"),
        is_route: false,
    })
}

fn route_range(answer: &Answer, names: &BTreeMap<u32, String>) -> Option<UsedRange> {
    let prefix = *answer.body.get(1)?;
    if *answer.body.get(7)? != ROUTE_UNICAST || prefix < PLACE_PREFIX {
        return None;
    }
    let attributes = Attributes::behind(&answer.body, ROUTE_HEADER);
    let range = Cidr::around(address_of(attributes.find(ROUTE_DESTINATION)?)?, prefix)?;
    let link =
        attributes.u32(ROUTE_LINK).map_or_else(|| "the host".to_owned(), |index| name_of(index, names));
    Some(UsedRange { range, user: format!("the route to {range} over {link}"), is_route: true })
}

fn name_of(index: u32, names: &BTreeMap<u32, String>) -> String {
    names.get(&index).cloned().unwrap_or_else(|| format!("link {index}"))
}

fn link_header(index: u32, flags: u32) -> [u8; LINK_HEADER] {
    let mut header = [0; LINK_HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    header
}

fn address_bytes(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (FAMILY_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (FAMILY_INET6, address.octets().to_vec()),
    }
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(octets));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// A hardware address made from the network address, so that a neighbour who remembers the last owner of the
/// address remembers the right hardware address as well.
pub(crate) fn mac_for(address: IpAddr) -> [u8; 6] {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [0x02, 0x42, a, b, c, d]
        }
        IpAddr::V6(address) => {
            let octets = address.octets();
            [0x02, 0x43, octets[12], octets[13], octets[14], octets[15]]
        }
    }
}

/// A hardware address as people write it.
pub(crate) fn render_mac(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// A hardware address as people write it; `None` when it is none, or a multicast one, which no link can have.
pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Vec<u8> = text
        .split([':', '-'])
        .map(|part| {
            let digits = part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
            if digits { u8::from_str_radix(part, 16).ok() } else { None }
        })
        .collect::<Option<_>>()?;
    <[u8; 6]>::try_from(bytes).ok().filter(|mac| mac[0] & 1 == 0)
}

fn draw_name() -> String {
    let mut bytes = [0; 4];
    // An interrupted call leaves zeros: the name clashes at worst, and is drawn again.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    format!("veth{}", &hex(&bytes)[..7])
}

fn set_parameter(family: &str, link: &str, name: &str, value: &str) -> Result<(), NetworkError> {
    write_when_different(&format!("/proc/sys/net/{family}/conf/{link}/{name}"), value)
}

fn write_when_different(path: &str, value: &str) -> Result<(), NetworkError> {
    let error = |source| NetworkError::Link { step: "set", object: path.to_owned(), source };
    if fs::read_to_string(path).map_err(error)?.trim() == value {
        return Ok(());
    }
    fs::write(path, value).map_err(error)
}

fn refused(refusal: &Refusal) -> NetworkError {
    NetworkError::Link { step: "netlink:", object: refusal.step.clone(), source: refusal.errno.into() }
}

fn failed(step: &'static str, object: &str, source: io::Error) -> NetworkError {
    NetworkError::Link { step, object: object.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_are_read_and_written() {
        let mac = mac_for("172.18.0.2".parse().unwrap());
        assert_eq!(render_mac(mac), "02:42:ac:12:00:02");
        assert_eq!(parse_mac("02:42:AC:12:00:02"), Some(mac));
        for wrong in
            ["", "02:42", "01:00:5e:00:00:01", "02:42:ac:12:00:2", "+2:42:ac:12:00:02", "02:42:ac:12:00:02:1"]
        {
            assert_eq!(parse_mac(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_drawn_name_fits_an_interface() {
        assert!(draw_name().len() < 16);
    }
}
