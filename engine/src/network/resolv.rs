//! The three files a container finds its names with: /etc/hosts, /etc/hostname and /etc/resolv.conf. Pure
//! rendering; where they are written is decided elsewhere.

use crate::container::spec::DnsSpec;
use crate::network::endpoint::Endpoint;

/// The content of /etc/hosts.
pub fn render_hosts(
    hostname: &str,
    domainname: Option<&str>,
    endpoints: &[Endpoint],
    dns: &DnsSpec,
) -> String {
    let _ = (hostname, domainname, endpoints, dns);
    String::new()
}

/// The content of /etc/hostname.
pub fn render_hostname(hostname: &str) -> String {
    format!("{hostname}\n")
}

/// The content of /etc/resolv.conf, made from the host's own.
pub fn render_resolv_conf(endpoints: &[Endpoint], dns: &DnsSpec, host: &str) -> String {
    let _ = (endpoints, dns, host);
    String::new()
}
