//! Where the programs of a container listen, for who waits in vain for one of them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where the engine's own name server of each container is.
const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The state of a socket that listens, as /proc/net/tcp writes it (proc_pid_net(5)).
const LISTENS: &str = "0A";

/// Where somebody listens by TCP in the network of this process, by port. Empty when it cannot be seen.
pub(super) fn of(pid: i32) -> Vec<SocketAddr> {
    let read = |table: &str| fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
    let mut all: Vec<SocketAddr> =
        ["tcp", "tcp6"].iter().flat_map(|table| listed(&read(table)).collect::<Vec<_>>()).collect();
    // That is ours, not the program's.
    all.retain(|address| address.ip() != NAME_SERVER);
    all.sort_by_key(|address| (address.port(), address.ip()));
    all.dedup();
    all
}

/// What a person reads of it: `it listens on 127.0.0.1:80`.
pub(super) fn described(listeners: &[SocketAddr]) -> String {
    if listeners.is_empty() {
        return "it listens nowhere".to_owned();
    }
    let listed: Vec<String> = listeners.iter().map(ToString::to_string).collect();
    format!("it listens on {}", listed.join(", "))
}

fn listed(table: &str) -> impl Iterator<Item = SocketAddr> {
    table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, state) = (fields.next()?, fields.nth(1)?);
        let (address, port) = local.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        (state == LISTENS).then_some(SocketAddr::new(address_of(address)?, port))
    })
}

/// An address as four or sixteen bytes, in words of this machine's own order.
fn address_of(text: &str) -> Option<IpAddr> {
    let words: Vec<u32> = (0..text.len() / 8)
        .map(|word| u32::from_str_radix(text.get(word * 8..word * 8 + 8)?, 16).ok())
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    if let Ok(octets) = <[u8; 4]>::try_from(bytes.as_slice()) {
        return Some(Ipv4Addr::from(octets).into());
    }
    <[u8; 16]>::try_from(bytes.as_slice()).ok().map(|octets| Ipv6Addr::from(octets).into())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn those_who_listen_are_seen_and_connections_are_not() {
        let four = TcpListener::bind("127.0.0.1:0").unwrap();
        let six = TcpListener::bind("[::1]:0").unwrap();
        let connection = TcpStream::connect(four.local_addr().unwrap()).unwrap();
        let seen = of(i32::try_from(std::process::id()).unwrap());
        assert!(seen.contains(&four.local_addr().unwrap()), "{seen:?}");
        assert!(seen.contains(&six.local_addr().unwrap()), "{seen:?}");
        assert!(!seen.contains(&connection.local_addr().unwrap()), "{seen:?}");
        assert_eq!(described(&[]), "it listens nowhere");
        let both = ["127.0.0.1:80", "[::]:81"].map(|address| address.parse().unwrap());
        assert_eq!(described(&both), "it listens on 127.0.0.1:80, [::]:81");
    }
}
