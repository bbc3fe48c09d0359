//! What the machine's operator says about registries, in docker's `daemon.json`: mirrors of Docker Hub, and hosts
//! that are spoken to without TLS or without its proof.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;

/// The registries of this machine.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct Hosts {
    /// Addresses that are asked before Docker Hub, in this order.
    registry_mirrors: Vec<String>,
    /// `host[:port]`, or networks in CIDR notation.
    insecure_registries: Vec<String>,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("read {path}")]
pub struct HostsError {
    pub(super) path: PathBuf,
    pub(super) source: io::Error,
}

/// Names another file than docker's.
const VARIABLE: &str = "RENGINE_DAEMON_JSON";

/// Where docker's own is.
const USUAL: &str = "/etc/docker/daemon.json";

// === impl Hosts ===

impl Hosts {
    /// What is said; nothing when there is no file.
    pub(crate) fn read() -> Result<Self, HostsError> {
        let path = Self::path();
        let parse = |bytes: Vec<u8>| serde_json::from_slice(&bytes).map_err(io::Error::from);
        match std::fs::read(&path).and_then(parse) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            other => other.map_err(|source| HostsError { path, source }),
        }
    }

    /// The file.
    pub(crate) fn path() -> PathBuf {
        std::env::var_os(VARIABLE).map_or_else(|| PathBuf::from(USUAL), PathBuf::from)
    }

    /// The addresses of Docker Hub's mirrors.
    pub(crate) fn mirrors(&self) -> &[String] {
        &self.registry_mirrors
    }

    /// Whether this host may be spoken to without TLS.
    pub(crate) fn is_insecure(&self, registry: &str) -> bool {
        let host = match registry.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or(rest),
            None => registry.split(':').next().unwrap_or(registry),
        };
        self.insecure_registries.iter().any(|known| {
            known == registry || known == host || host.parse().is_ok_and(|address| is_in(address, known))
        })
    }
}

/// Whether an address is in a network such as `10.0.0.0/8`.
fn is_in(address: IpAddr, network: &str) -> bool {
    let Some((start, bits)) = network.split_once('/') else { return false };
    let (Ok(start), Ok(bits)) = (start.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    let same = |one: u128, other: u128, width: u32| {
        bits <= width && (bits == 0 || (one ^ other) >> (width - bits) == 0)
    };
    match (address, start) {
        (IpAddr::V4(one), IpAddr::V4(other)) => same(u32::from(one).into(), u32::from(other).into(), 32),
        (IpAddr::V6(one), IpAddr::V6(other)) => same(one.into(), other.into(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn insecure_hosts_are_named_or_in_a_network() {
        let text =
            r#"{"insecure-registries": ["reg:5000", "10.1.0.0/16", "fd00::/8", "plain"], "debug": true}"#;
        let hosts: Hosts = serde_json::from_str(text).unwrap();
        for host in ["reg:5000", "10.1.2.3:5000", "10.1.9.9", "[fd00::1]:443", "plain:80", "plain"] {
            assert!(hosts.is_insecure(host), "{host}");
        }
        for host in ["reg", "reg:5001", "10.2.0.1", "[fe00::1]", "docker.io"] {
            assert!(!hosts.is_insecure(host), "{host}");
        }
        assert!(is_in("1.2.3.4".parse().unwrap(), "0.0.0.0/0"));
        assert!(hosts.mirrors().is_empty());
    }
}
