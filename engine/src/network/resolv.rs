//! The three files a container finds its names with: /etc/hosts, /etc/hostname and /etc/resolv.conf. Pure rendering;
//! where they are written is decided elsewhere.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::container::spec::DnsSpec;
use crate::network::dns::NAME_SERVER;
use crate::network::endpoint::Endpoint;

/// Where the host keeps the names it knows without asking.
pub const HOST_HOSTS: &str = "/etc/hosts";

/// Where the host keeps its name servers.
pub const HOST_RESOLV_CONF: &str = "/etc/resolv.conf";

/// The address that stands for the host itself in `extra_hosts`.
const HOST_GATEWAY: &str = "host-gateway";

/// The content of /etc/hosts. `host-gateway` becomes the gateway of the first network that has one, and is left out
/// when none has.
pub fn render_hosts(
    hostname: &str,
    domainname: Option<&str>,
    endpoints: &[Endpoint],
    dns: &DnsSpec,
) -> String {
    let mut text = String::from("127.0.0.1\tlocalhost\n");
    if endpoints.iter().any(|endpoint| endpoint.ipv6().is_some()) {
        text.push_str("::1\tlocalhost ip6-localhost ip6-loopback\n");
        text.push_str("fe00::\tip6-localnet\nff00::\tip6-mcastprefix\n");
        text.push_str("ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n");
    }
    for (name, address) in &dns.extra_hosts {
        if address == HOST_GATEWAY {
            for gateway in host_gateways(endpoints) {
                text.push_str(&format!("{gateway}\t{name}\n"));
            }
        } else {
            text.push_str(&format!("{address}\t{name}\n"));
        }
    }
    let own_names = match domainname.filter(|domain| !domain.is_empty()) {
        Some(domain) => format!("{hostname}.{domain} {hostname}"),
        None => match hostname.split_once('.') {
            Some((short, _)) if !short.is_empty() => format!("{hostname} {short}"),
            _ => hostname.to_owned(),
        },
    };
    for entry in endpoints.iter().flat_map(|endpoint| &endpoint.addresses) {
        text.push_str(&format!("{}\t{own_names}\n", entry.address));
    }
    text
}

/// The content of /etc/hosts in the host's own network: what the host has there, and the names asked for. There
/// `host-gateway` is the machine itself.
pub fn render_hosts_of_host(host: &str, dns: &DnsSpec) -> String {
    let mut text = host.to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for (name, address) in &dns.extra_hosts {
        let address = if address == HOST_GATEWAY { "127.0.0.1" } else { address };
        text.push_str(&format!("{address}\t{name}\n"));
    }
    text
}

/// The content of /etc/hostname.
pub fn render_hostname(hostname: &str) -> String {
    format!("{hostname}\n")
}

/// Whether a container needs a name server of its own: on a network that resolves names, and where the host's servers
/// are at loopback addresses alone, which mean another place in another network namespace.
pub fn needs_name_server(endpoints: &[Endpoint], dns: &DnsSpec, host: &str) -> bool {
    if endpoints.iter().any(|endpoint| endpoint.resolves) {
        return true;
    }
    let servers = name_servers(host);
    let unreachable = !servers.is_empty() && servers.iter().all(IpAddr::is_loopback);
    unreachable && dns.servers.is_empty() && !endpoints.is_empty()
}

/// The content of /etc/resolv.conf, made from the host's own. It leads to the container's own name server where there
/// is one; else, as with docker, to the servers asked for or to those of the host that can be reached from another
/// network namespace.
pub fn render_resolv_conf(endpoints: &[Endpoint], dns: &DnsSpec, host: &str) -> String {
    let resolves = endpoints.iter().any(|endpoint| endpoint.resolves);
    let servers: Vec<IpAddr> = if needs_name_server(endpoints, dns, host) {
        vec![NAME_SERVER.into()]
    } else if !dns.servers.is_empty() {
        dns.servers.clone()
    } else {
        name_servers(host)
            .into_iter()
            .filter(|server| endpoints.is_empty() || !server.is_loopback())
            .collect()
    };
    let mut text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    let search =
        if dns.search.is_empty() { words_of(host, &["search", "domain"]) } else { dns.search.clone() };
    // A lone dot says that there is no search domain at all (docker run --dns-search=.).
    if !search.is_empty() && search != ["."] {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    let mut options = if dns.options.is_empty() { words_of(host, &["options"]) } else { dns.options.clone() };
    if resolves && !options.iter().any(|option| option.starts_with("ndots:")) {
        options.push("ndots:0".to_owned());
    }
    if !options.is_empty() {
        text.push_str(&format!("options {}\n", options.join(" ")));
    }
    text
}

/// The name servers of a resolv.conf(5).
pub(crate) fn name_servers(text: &str) -> Vec<IpAddr> {
    lines(text)
        .filter_map(|mut words| (words.next()? == "nameserver").then(|| words.next())?)
        // A zone behind an address (`fe80::1%eth0`) names a link of the host.
        .filter_map(|address| address.parse().ok())
        .collect()
}

/// The words behind the last line that begins with one of these.
fn words_of(text: &str, beginnings: &[&str]) -> Vec<String> {
    lines(text)
        .filter_map(|mut words| {
            beginnings.contains(&words.next()?).then(|| words.map(str::to_owned).collect::<Vec<_>>())
        })
        .last()
        .unwrap_or_default()
}

fn lines(text: &str) -> impl Iterator<Item = std::str::SplitWhitespace<'_>> {
    text.lines().filter(|line| !line.starts_with(['#', ';'])).map(str::split_whitespace)
}

fn host_gateways(endpoints: &[Endpoint]) -> BTreeSet<IpAddr> {
    let gateways = |ipv4: bool| {
        endpoints
            .iter()
            .flat_map(|endpoint| &endpoint.addresses)
            .filter_map(|entry| entry.gateway)
            .find(|gateway| gateway.is_ipv4() == ipv4)
    };
    [gateways(true), gateways(false)].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ContainerId, NetworkId};
    use crate::network::endpoint::{EndpointAddress, Party};

    fn endpoint(resolves: bool) -> Endpoint {
        let container = ContainerId::random();
        Endpoint {
            version: 1,
            network: NetworkId::random(),
            network_name: "back".parse().unwrap(),
            party: Party { container, name: "web".parse().unwrap(), hostname: None, held: false },
            aliases: Vec::new(),
            interface: "eth0".to_owned(),
            link_local: Vec::new(),
            mac_address: String::new(),
            addresses: vec![EndpointAddress {
                address: "172.18.0.2".parse().unwrap(),
                prefix: 16,
                gateway: Some("172.18.0.1".parse().unwrap()),
            }],
            gateway_priority: 0,
            internal: false,
            isolated: false,
            resolves,
            bridge: String::new(),
            driver: crate::network::options::Driver::Bridge,
            host_binding: None,
            mtu: None,
            place: None,
            sysctls: Vec::new(),
        }
    }

    const HOST: &str =
        "# made by hand\nnameserver 127.0.0.53\nnameserver 192.0.2.1\nsearch lan home\noptions edns0\n";

    #[test]
    fn hosts_name_the_container_and_what_was_asked_for() {
        let dns = DnsSpec {
            extra_hosts: vec![
                ("db".to_owned(), "10.0.0.5".to_owned()),
                ("host.docker.internal".to_owned(), "host-gateway".to_owned()),
            ],
            ..DnsSpec::default()
        };
        assert_eq!(
            render_hosts("web", Some("example.org"), &[endpoint(true)], &dns),
            "127.0.0.1\tlocalhost\n10.0.0.5\tdb\n172.18.0.1\thost.docker.internal\n\
             172.18.0.2\tweb.example.org web\n"
        );
    }

    #[test]
    fn a_user_network_leads_to_its_own_name_server() {
        assert_eq!(
            render_resolv_conf(&[endpoint(true)], &DnsSpec::default(), HOST),
            "nameserver 127.0.0.11\nsearch lan home\noptions edns0 ndots:0\n"
        );
        let dns = DnsSpec {
            servers: vec!["9.9.9.9".parse().unwrap()],
            search: vec![".".to_owned()],
            options: vec!["ndots:2".to_owned()],
            ..DnsSpec::default()
        };
        assert_eq!(
            render_resolv_conf(&[endpoint(true)], &dns, HOST),
            "nameserver 127.0.0.11\noptions ndots:2\n"
        );
    }

    #[test]
    fn the_default_network_gets_the_servers_it_can_reach() {
        assert_eq!(
            render_resolv_conf(&[endpoint(false)], &DnsSpec::default(), HOST),
            "nameserver 192.0.2.1\nsearch lan home\noptions edns0\n"
        );
        // Where only the host itself can ask, it is asked by way of the container's own name server.
        let stub = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch lan\n";
        assert_eq!(
            render_resolv_conf(&[endpoint(false)], &DnsSpec::default(), stub),
            "nameserver 127.0.0.11\nsearch lan\noptions edns0 trust-ad\n"
        );
        let asked = DnsSpec { servers: vec!["9.9.9.9".parse().unwrap()], ..DnsSpec::default() };
        assert!(render_resolv_conf(&[endpoint(false)], &asked, stub).starts_with("nameserver 9.9.9.9\n"));
        // A container on the host's own network reaches all of them.
        assert_eq!(
            render_resolv_conf(&[], &DnsSpec::default(), HOST),
            "nameserver 127.0.0.53\nnameserver 192.0.2.1\nsearch lan home\noptions edns0\n"
        );
    }
}
