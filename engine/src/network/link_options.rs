//! What is asked of the link of one container on one network, under docker's names, as types. What no link here has is
//! refused by name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::network::NetworkError;
use crate::network::options::is_link_name;

/// The options of one link.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkOptions {
    /// Its name inside; the network's prefix and a number when `None`.
    pub interface: Option<String>,
    /// Kernel parameters of the link, `IFNAME` standing for its name: `net.ipv4.conf.IFNAME.log_martians`.
    pub sysctls: BTreeMap<String, String>,
}

const SYSCTLS: &str = "com.docker.network.endpoint.sysctls";

/// What stands for the name of the link.
const NAME: &str = "IFNAME";

// === impl LinkOptions ===

impl LinkOptions {
    /// The option that names the link.
    pub const INTERFACE: &str = "com.docker.network.endpoint.ifname";

    /// Reads one option more.
    ///
    /// # Errors
    /// When no link has it, or not with this value.
    pub fn read(&mut self, key: &str, value: &str) -> Result<(), NetworkError> {
        let wrong = |wanted: &str| {
            NetworkError::Invalid(format!("the option {key} of a link is {wanted}, not {value:?}"))
        };
        match key {
            Self::INTERFACE => {
                if !is_link_name(value) || value == "lo" {
                    return Err(wrong("a link's name of 15 characters at most"));
                }
                self.interface = Some(value.to_owned());
            }
            SYSCTLS => {
                const WANTED: &str = "a list of net.FAMILY.KIND.IFNAME.NAME=VALUE";
                for pair in value.split(',') {
                    let (name, value) = pair.split_once('=').ok_or_else(|| wrong(WANTED))?;
                    let parts: Vec<&str> = name.split('.').collect();
                    // Nothing but this link's own parameters: net.ipv4.conf.IFNAME.log_martians.
                    let is_own = parts.len() == 5 && parts[0] == "net" && parts[3] == NAME;
                    let is_plain = |part: &&str| {
                        part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
                            && !part.is_empty()
                    };
                    if !is_own || !parts.iter().all(is_plain) {
                        return Err(wrong(WANTED));
                    }
                    self.sysctls.insert(name.to_owned(), value.to_owned());
                }
            }
            _ => return Err(NetworkError::Unsupported(format!("the option {key:?} of a link"))),
        }
        Ok(())
    }

    /// Whether links have an option of this name.
    pub fn knows(key: &str) -> bool {
        [Self::INTERFACE, SYSCTLS].contains(&key)
    }

    /// The kernel parameters of a link of this name, as paths below /proc/sys.
    pub(crate) fn sysctl_paths(&self, interface: &str) -> Vec<(String, String)> {
        let path = |name: &String| name.replace('.', "/").replace(NAME, interface);
        self.sysctls.iter().map(|(name, value)| (path(name), value.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_link_are_read_or_refused() {
        let mut options = LinkOptions::default();
        options.read(LinkOptions::INTERFACE, "lan.5").unwrap();
        options
            .read(SYSCTLS, "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.accept_ra=0")
            .unwrap();
        assert_eq!(
            options.sysctl_paths("lan.5"),
            [
                ("net/ipv4/conf/lan.5/log_martians".to_owned(), "1".to_owned()),
                ("net/ipv6/conf/lan.5/accept_ra".to_owned(), "0".to_owned()),
            ]
        );
        for (key, value) in [
            (LinkOptions::INTERFACE, "lo"),
            (LinkOptions::INTERFACE, "a/b"),
            (SYSCTLS, "net.ipv4.conf.IFNAME.x"),
            (SYSCTLS, "net.ipv4.conf.all.forwarding=1"),
            (SYSCTLS, "kernel.x.y.IFNAME.z=1"),
            (SYSCTLS, "net.ipv4./.IFNAME.z=1"),
            ("com.example.colour", "red"),
        ] {
            assert!(options.read(key, value).is_err(), "{key}={value}");
        }
    }
}
