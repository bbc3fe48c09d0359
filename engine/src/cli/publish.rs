//! `-p` as docker writes it: `[ip:][host[-last]:]container[-last][/protocol]`.

use std::net::IpAddr;

use crate::container::merge::expand_exposed;
use crate::container::spec::PortBinding;
use crate::error::{Error, Result};

/// The bindings a `-p` stands for; equal ranges are paired port by port.
pub fn parse_publish(text: &str) -> Result<Vec<PortBinding>> {
    let wrong = |problem: &str| {
        Error::invalid(format!("invalid published port {text:?}: {problem}"))
            .with_hint("write [address:][host-port:]container-port[/udp], as in 127.0.0.1:8080:80")
    };
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (rest, container) = ports.rsplit_once(':').map_or((None, ports), |(rest, port)| (Some(rest), port));
    let (host_ip, host) = match rest {
        None => (None, ""),
        Some(rest) => match split_address(rest) {
            Some((ip, host)) => (Some(ip.parse::<IpAddr>().map_err(|_| wrong("not an IP address"))?), host),
            None => (None, rest),
        },
    };
    let containers = expand_exposed(&format!("{container}/{protocol}"))
        .map_err(|error| wrong("the container's port").with_source(error))?;
    if host.is_empty() {
        return Ok(containers
            .into_iter()
            .map(|container| PortBinding { host_ip, host_port: None, container })
            .collect());
    }
    let (first, last) = host.split_once('-').unwrap_or((host, host));
    let (first, last): (u16, u16) = match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first > 0 && first <= last => (first, last),
        _ => return Err(wrong("the host's port is no number from 1 to 65535, nor a range of them")),
    };
    match containers.as_slice() {
        [container] => {
            Ok(vec![PortBinding { host_ip, host_port: Some((first, last)), container: *container }])
        }
        several if several.len() == usize::from(last - first) + 1 => Ok((first..=last)
            .zip(several)
            .map(|(port, container)| PortBinding {
                host_ip,
                host_port: Some((port, port)),
                container: *container,
            })
            .collect()),
        _ => Err(wrong("the two ranges are of different length")),
    }
}

/// `ip:port` and `[ip]:port` in two; `None` when there is no address.
fn split_address(text: &str) -> Option<(&str, &str)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, port) = rest.split_once(']')?;
        return Some((ip, port.strip_prefix(':').unwrap_or(port)));
    }
    text.rsplit_once(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        parse_publish(text).map_or_else(
            |error| error.to_string(),
            |bindings| {
                let one = |b: &PortBinding| {
                    format!(
                        "{}:{}->{}",
                        b.host_ip.map_or("*".into(), |ip| ip.to_string()),
                        b.host_port.map_or("?".into(), |(first, last)| format!("{first}-{last}")),
                        b.container
                    )
                };
                bindings.iter().map(one).collect::<Vec<_>>().join(" ")
            },
        )
    }

    #[test]
    fn every_form_is_understood() {
        for (text, meaning) in [
            ("80", "*:?->80/tcp"),
            ("8080:80", "*:8080-8080->80/tcp"),
            ("127.0.0.1:8080:80/udp", "127.0.0.1:8080-8080->80/udp"),
            ("127.0.0.1::80", "127.0.0.1:?->80/tcp"),
            ("[::1]:8080:80", "::1:8080-8080->80/tcp"),
            ("0.0.0.0:8080:80", "0.0.0.0:8080-8080->80/tcp"),
            ("8000-8001:80-81", "*:8000-8000->80/tcp *:8001-8001->81/tcp"),
            ("8000-8009:80", "*:8000-8009->80/tcp"),
        ] {
            assert_eq!(shown(text), meaning, "{text}");
        }
        for wrong in ["", "x", "80:x", "8000-8002:80-81", "1.2.3:80:80", "99999:80", "80/icmp"] {
            assert!(shown(wrong).starts_with("invalid"), "{wrong:?}");
        }
    }
}
