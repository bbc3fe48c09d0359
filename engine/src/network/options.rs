//! What a network's driver is told beside addresses, under docker's names, as types. An option that no driver here
//! has is refused by name: one that is accepted and ignored would be a promise nobody keeps.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::network::{INTERFACE_NAME, NetworkError};

/// A driver that makes networks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Driver {
    /// A bridge of the host, with a veth pair to each container.
    #[default]
    Bridge,
    /// A link of its own on a link of the host, with an address in that link's network.
    Macvlan(MacvlanMode),
}

/// Which packets pass between the links on one parent (ip-link(8)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MacvlanMode {
    /// Those between all of them.
    #[default]
    Bridge,
    /// None.
    Private,
    /// Those that the switch sends back.
    Vepa,
    /// There is one link only, which takes the parent over.
    Passthru,
}

/// The options of one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DriverOptions {
    /// What makes it.
    pub(crate) driver: Driver,
    /// How the bridge is called.
    pub(crate) bridge_name: Option<String>,
    /// Whether members are kept from one another.
    pub(crate) isolated: bool,
    /// Whether members leave the host with the host's address.
    pub(crate) masqueraded: bool,
    /// Where ports are published that name no address.
    pub(crate) host_binding: Option<IpAddr>,
    /// Bytes a frame may carry.
    pub(crate) mtu: Option<u32>,
    /// What links inside containers are called, before their number.
    pub(crate) interface_prefix: String,
    /// The link of the host that macvlan links are made on.
    pub(crate) parent: Option<String>,
}

const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
const ENABLE_ICC: &str = "com.docker.network.bridge.enable_icc";
const ENABLE_MASQUERADE: &str = "com.docker.network.bridge.enable_ip_masquerade";
const HOST_BINDING: &str = "com.docker.network.bridge.host_binding_ipv4";
const MTU: &str = "com.docker.network.driver.mtu";
const INTERFACE_PREFIX: &str = "com.docker.network.container_iface_prefix";
const GATEWAY_MODES: [&str; 2] =
    ["com.docker.network.bridge.gateway_mode_ipv4", "com.docker.network.bridge.gateway_mode_ipv6"];
const PARENT: &str = "parent";
const MACVLAN_MODE: &str = "macvlan_mode";
/// The smallest one that IPv4 works with (RFC 791).
const SMALLEST_MTU: u32 = 68;
const LARGEST_MTU: u32 = 65_535;

impl DriverOptions {
    /// Reads the options of a network with this driver.
    ///
    /// # Errors
    /// When the driver does not exist or does not have an option, or a value makes no sense.
    pub(crate) fn parse(driver: &str, options: &BTreeMap<String, String>) -> Result<Self, NetworkError> {
        let mut parsed = Self::default();
        match driver {
            "bridge" => {}
            "macvlan" => parsed.driver = Driver::Macvlan(MacvlanMode::default()),
            other => return Err(NetworkError::Unsupported(format!("the network driver {other:?}"))),
        }
        for (key, value) in options {
            parsed.read(driver, key, value)?;
        }
        if driver == "macvlan" && parsed.parent.is_none() {
            return Err(NetworkError::Invalid(
                "a macvlan network needs a link of the host to be on: -o parent=LINK".to_owned(),
            ));
        }
        Ok(parsed)
    }

    fn read(&mut self, driver: &str, key: &str, value: &str) -> Result<(), NetworkError> {
        let wrong = |wanted: &str| {
            NetworkError::Invalid(format!("the option {key} of a network is {wanted}, not {value:?}"))
        };
        let flag = || match value {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(wrong("true or false")),
        };
        match (key, driver) {
            (MTU, _) => {
                let mtu = value.parse().ok().filter(|mtu| (SMALLEST_MTU..=LARGEST_MTU).contains(mtu));
                self.mtu = Some(mtu.ok_or_else(|| wrong("a number of bytes from 68 to 65535"))?);
            }
            (INTERFACE_PREFIX, _) => {
                // A number of up to three digits comes behind it.
                if !is_link_name(value) || value.len() > INTERFACE_NAME - 3 {
                    return Err(wrong("the beginning of a link's name"));
                }
                value.clone_into(&mut self.interface_prefix);
            }
            (BRIDGE_NAME, "bridge") => {
                if !is_link_name(value) {
                    return Err(wrong("a link's name of 15 characters at most"));
                }
                self.bridge_name = Some(value.to_owned());
            }
            (ENABLE_ICC, "bridge") => self.isolated = !flag()?,
            (ENABLE_MASQUERADE, "bridge") => self.masqueraded = flag()?,
            (HOST_BINDING, "bridge") => {
                let address: Option<IpAddr> = value.parse().ok().filter(IpAddr::is_ipv4);
                let address = address.ok_or_else(|| wrong("an IPv4 address of the host"))?;
                self.host_binding = Some(address).filter(|address| !address.is_unspecified());
            }
            (key, "bridge") if GATEWAY_MODES.contains(&key) => {
                if value != "nat" {
                    return Err(NetworkError::Unsupported(format!("{key}={value}")));
                }
            }
            (PARENT, "macvlan") => {
                if !is_link_name(value) {
                    return Err(wrong("the name of a link of the host"));
                }
                self.parent = Some(value.to_owned());
            }
            (MACVLAN_MODE, "macvlan") => {
                self.driver = Driver::Macvlan(match value {
                    "" | "bridge" => MacvlanMode::Bridge,
                    "private" => MacvlanMode::Private,
                    "vepa" => MacvlanMode::Vepa,
                    "passthru" => MacvlanMode::Passthru,
                    _ => return Err(wrong("bridge, private, vepa or passthru")),
                });
            }
            (key, driver) => {
                return Err(NetworkError::Unsupported(format!("the option {key:?} of a {driver} network")));
            }
        }
        Ok(())
    }
}

impl Default for DriverOptions {
    fn default() -> Self {
        Self {
            driver: Driver::Bridge,
            bridge_name: None,
            isolated: false,
            masqueraded: true,
            host_binding: None,
            mtu: None,
            interface_prefix: "eth".to_owned(),
            parent: None,
        }
    }
}

/// Whether the kernel takes this as a link's name, and no path is made of it.
pub(crate) fn is_link_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= INTERFACE_NAME
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && name != "."
        && name != ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(driver: &str, options: &[(&str, &str)]) -> Result<DriverOptions, String> {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        DriverOptions::parse(driver, &options).map_err(|error| error.to_string())
    }

    #[test]
    fn options_under_dockers_names_are_read() {
        let options = parse(
            "bridge",
            &[
                (BRIDGE_NAME, "br-mine"),
                (ENABLE_ICC, "false"),
                (ENABLE_MASQUERADE, "false"),
                (HOST_BINDING, "127.0.0.1"),
                (MTU, "1400"),
                (INTERFACE_PREFIX, "lan"),
            ],
        )
        .unwrap();
        assert_eq!(options.bridge_name.as_deref(), Some("br-mine"));
        assert!(options.isolated && !options.masqueraded);
        assert_eq!((options.mtu, options.interface_prefix.as_str()), (Some(1400), "lan"));
        assert_eq!(options.host_binding, Some("127.0.0.1".parse().unwrap()));
        let macvlan = parse("macvlan", &[(PARENT, "lan0"), (MACVLAN_MODE, "private")]).unwrap();
        assert_eq!(macvlan.driver, Driver::Macvlan(MacvlanMode::Private));
        assert_eq!(parse("bridge", &[]), Ok(DriverOptions::default()));
    }

    #[test]
    fn what_would_be_ignored_is_refused_by_name() {
        for (driver, options, named) in [
            ("overlay", &[][..], "overlay"),
            ("bridge", &[("foo", "bar")], "foo"),
            ("bridge", &[(PARENT, "lan0")], PARENT),
            ("bridge", &[(MTU, "many")], "many"),
            ("bridge", &[(MTU, "67")], "67"),
            ("bridge", &[(ENABLE_ICC, "maybe")], "maybe"),
            ("bridge", &[(BRIDGE_NAME, "../x")], "../x"),
            ("bridge", &[(HOST_BINDING, "::1")], "::1"),
            ("bridge", &[(GATEWAY_MODES[0], "routed")], "routed"),
            ("macvlan", &[], "parent"),
            ("macvlan", &[(PARENT, "lan0"), (ENABLE_ICC, "false")], ENABLE_ICC),
        ] {
            let refusal = parse(driver, options).unwrap_err();
            assert!(refusal.contains(named), "{refusal}");
        }
    }
}
