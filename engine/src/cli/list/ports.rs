//! The ports of a container in one line, ranges as ranges.

use std::net::{IpAddr, SocketAddr};

use crate::container::spec::{ContainerPort, Protocol};
use crate::engine::Container;
use crate::network::ports::PublishedPort;

/// The ports of a container as `ps` prints them, as docker's `DisplayablePorts` does: neighbours that lead to
/// themselves are one range, and a port that leads to another one stands alone behind them.
pub fn ports_text(container: &Container) -> String {
    if !container.state.is_running() {
        return String::new();
    }
    text(&container.ports, &container.record.spec.expose)
}

/// `0.0.0.0:8080` or `[::]:8080`.
pub fn host_side(port: &PublishedPort) -> String {
    SocketAddr::new(port.host_ip, port.host_port).to_string()
}

/// A port of the container, and the address it is published on under the same number.
type Plain = (ContainerPort, Option<IpAddr>);

/// Neighbouring ports of one protocol and address.
struct Range {
    address: Option<IpAddr>,
    protocol: Protocol,
    first: u16,
    last: u16,
}

fn text(published: &[PublishedPort], exposed: &[ContainerPort]) -> String {
    let mut plain: Vec<Plain> = Vec::new();
    let mut led: Vec<&PublishedPort> = Vec::new();
    for port in published {
        if port.host_port == port.container.port {
            plain.push((port.container, Some(port.host_ip)));
        } else {
            led.push(port);
        }
    }
    let unpublished = exposed.iter().filter(|port| published.iter().all(|other| other.container != **port));
    plain.extend(unpublished.map(|port| (*port, None)));
    plain.sort_by_key(|(port, address)| (*address, port.protocol, port.port));
    led.sort_by_key(|port| (port.container, port.host_ip, port.host_port));
    let mut ranges: Vec<Range> = Vec::new();
    for (port, address) in plain {
        match ranges.last_mut() {
            Some(range)
                if range.address == address
                    && range.protocol == port.protocol
                    && range.last.checked_add(1) == Some(port.port) =>
            {
                range.last = port.port;
            }
            _ => ranges.push(Range { address, protocol: port.protocol, first: port.port, last: port.port }),
        }
    }
    // Published ports come first, those only exposed after them.
    ranges.sort_by_key(|range| (range.address.is_none(), range.protocol, range.first, range.address));
    let ranges = ranges.iter().map(ToString::to_string);
    let led = led.iter().map(|port| format!("{}->{}", host_side(port), port.container));
    ranges.chain(led).collect::<Vec<_>>().join(", ")
}

/// `0.0.0.0:8000-8002->8000-8002/tcp`, or `8000/tcp`.
impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let group = match self.last {
            last if last == self.first => last.to_string(),
            last => format!("{}-{last}", self.first),
        };
        match self.address {
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:{group}->")?,
            Some(address) => write!(f, "{address}:{group}->")?,
            None => {}
        }
        write!(f, "{group}/{}", self.protocol)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn neighbours_are_one_range_and_what_leads_elsewhere_stands_alone() {
        let container = |port| ContainerPort { port, protocol: Protocol::Tcp };
        let published = |host_port, port| PublishedPort {
            host_ip: Ipv4Addr::UNSPECIFIED.into(),
            host_port,
            container: container(port),
            target: (Ipv4Addr::LOCALHOST, port).into(),
        };
        let ports =
            [published(8002, 8002), published(8000, 8000), published(9000, 80), published(8001, 8001)];
        let exposed = [container(7001), container(7000), container(80)];
        assert_eq!(
            text(&ports, &exposed),
            "0.0.0.0:8000-8002->8000-8002/tcp, 7000-7001/tcp, 0.0.0.0:9000->80/tcp"
        );
        assert_eq!(text(&[], &[container(65_535)]), "65535/tcp");
    }
}
