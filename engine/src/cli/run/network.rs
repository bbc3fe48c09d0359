//! How a container meets the network: attachments, names, ports.

use std::net::IpAddr;

use clap::Args;

use super::FindContainer;
use crate::cli::publish;
use crate::container::merge::expand_exposed;
use crate::container::spec::{ContainerSpec, DnsSpec, NetworkAttachment, NetworkMode};
use crate::error::{Error, Result};
use crate::network::LinkOptions;

#[derive(Debug, Args)]
pub(super) struct NetworkArgs {
    /// bridge, host, none, container:NAME, or a network's name
    #[arg(long, visible_alias = "net", value_name = "NETWORK")]
    network: Vec<String>,
    /// Further name on the network
    #[arg(long, visible_alias = "net-alias", value_name = "NAME")]
    network_alias: Vec<String>,
    /// IPv4 address on the network
    #[arg(long)]
    ip: Option<std::net::Ipv4Addr>,
    /// IPv6 address on the network
    #[arg(long)]
    ip6: Option<std::net::Ipv6Addr>,
    /// Further address that is good on the link alone
    #[arg(long, value_name = "ADDRESS")]
    link_local_ip: Vec<IpAddr>,
    /// Hardware address of the link
    #[arg(long)]
    mac_address: Option<String>,
    /// Name of another container that this one alone knows: `container[:name]`
    #[arg(long, value_name = "CONTAINER[:NAME]")]
    link: Vec<String>,
    /// Publish a port: `[address:][host:]container[/protocol]`
    #[arg(short, long, value_name = "PORT")]
    publish: Vec<String>,
    /// Publish every exposed port on a free port
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// Say that the program listens on a port
    #[arg(long, value_name = "PORT")]
    expose: Vec<String>,
    /// Name server
    #[arg(long)]
    dns: Vec<IpAddr>,
    /// Search domain
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Resolver option
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    dns_option: Vec<String>,
    /// Line of /etc/hosts: name:address
    #[arg(long, value_name = "NAME:ADDRESS")]
    add_host: Vec<String>,
}

// === impl NetworkArgs ===

impl NetworkArgs {
    pub(super) fn apply(
        self,
        spec: &mut ContainerSpec,
        find: FindContainer<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<()> {
        spec.network = self.mode(find)?;
        self.check(spec)?;
        let unlinked = matches!(spec.network, NetworkMode::Host | NetworkMode::None);
        if unlinked && (!self.publish.is_empty() || self.publish_all) {
            let mode = if spec.network == NetworkMode::Host { "host" } else { "none" };
            warnings.push(format!("published ports are discarded when using {mode} network mode"));
        } else {
            spec.publish_all = self.publish_all;
            for text in &self.publish {
                spec.ports.extend(publish::parse_publish(text)?);
            }
        }
        for text in &self.expose {
            spec.expose.extend(expand_exposed(text)?);
        }
        spec.dns = DnsSpec {
            servers: self.dns,
            search: self.dns_search,
            options: self.dns_option,
            extra_hosts: self.add_host.iter().map(|text| parse_host(text)).collect::<Result<_>>()?,
            links: Vec::new(),
        };
        for text in &self.link {
            let (name, alias) = parse_link(text)?;
            spec.dns.links.push((alias, find(&name)?));
        }
        Ok(())
    }

    fn mode(&self, find: FindContainer<'_>) -> Result<NetworkMode> {
        Ok(match self.network.as_slice() {
            [one] if one == "host" => NetworkMode::Host,
            [one] if one == "none" => NetworkMode::None,
            [one] if one.starts_with("container:") => {
                NetworkMode::Container(find(&one["container:".len()..])?)
            }
            several if several.len() > 1 && several.iter().any(|one| is_alone(one)) => {
                return Err(Error::invalid(
                    "conflicting options: host, none and container networks stand alone",
                ));
            }
            [one] if matches!(one.as_str(), "default" | "bridge") => self.bridge(&[])?,
            several => self.bridge(several)?,
        })
    }

    /// Attachments to these networks; aliases and addresses belong to the first one, as in docker.
    fn bridge(&self, networks: &[String]) -> Result<NetworkMode> {
        let own = self.attachment_options();
        if networks.is_empty() && own.is_none() {
            return Ok(NetworkMode::Bridge(Vec::new()));
        }
        let default = ["bridge".to_owned()];
        let names = if networks.is_empty() { &default[..] } else { networks };
        let mut attachments = Vec::new();
        for name in names {
            attachments.push(parse_attachment(name)?);
        }
        if let Some(first) = attachments.first_mut() {
            first.aliases.extend(self.network_alias.iter().cloned());
            first.addresses.extend(self.ip.map(IpAddr::from).into_iter().chain(self.ip6.map(IpAddr::from)));
            first.link_local.extend(&self.link_local_ip);
            first.mac_address = self.mac_address.clone().or(first.mac_address.take());
        }
        for attachment in &attachments {
            let known = attachment.mac_address.as_deref();
            if let Some(mac) = known.filter(|mac| !is_hardware_address(mac)) {
                return Err(Error::invalid(format!("{mac:?} is not a hardware address")));
            }
            check_default(attachment)?;
        }
        Ok(NetworkMode::Bridge(attachments))
    }

    /// The first of the flags that say something about an attachment.
    fn attachment_options(&self) -> Option<&'static str> {
        [
            (!self.network_alias.is_empty(), "--network-alias"),
            (self.ip.is_some(), "--ip"),
            (self.ip6.is_some(), "--ip6"),
            (!self.link_local_ip.is_empty(), "--link-local-ip"),
            (self.mac_address.is_some(), "--mac-address"),
        ]
        .into_iter()
        .find_map(|(given, flag)| given.then_some(flag))
    }

    /// Refuses what a container without links of its own cannot have.
    fn check(&self, spec: &ContainerSpec) -> Result<()> {
        let mode = match &spec.network {
            NetworkMode::Bridge(_) => return Ok(()),
            NetworkMode::Host => "host",
            NetworkMode::None => "none",
            NetworkMode::Container(_) => "container",
        };
        let joined = matches!(spec.network, NetworkMode::Container(_));
        let conflicts = [
            (joined && spec.hostname.is_some(), "--hostname"),
            (!self.link.is_empty(), "--link"),
            (joined && !self.dns.is_empty(), "--dns"),
            (joined && !self.dns_search.is_empty(), "--dns-search"),
            (joined && !self.dns_option.is_empty(), "--dns-option"),
            (joined && !self.add_host.is_empty(), "--add-host"),
            (joined && !self.publish.is_empty(), "--publish"),
            (joined && self.publish_all, "--publish-all"),
            (joined && !self.expose.is_empty(), "--expose"),
        ];
        let found = conflicts.into_iter().find_map(|(conflict, flag)| conflict.then_some(flag));
        match found.or_else(|| self.attachment_options()) {
            Some(flag) => Err(Error::invalid(format!("conflicting options: {flag} and the network {mode}"))),
            None => Ok(()),
        }
    }
}

fn is_alone(network: &str) -> bool {
    matches!(network, "host" | "none") || network.starts_with("container:")
}

/// The default network has neither names nor addresses of one's choice, as in docker.
fn check_default(attachment: &NetworkAttachment) -> Result<()> {
    if !matches!(attachment.network.as_str(), "bridge" | "default") {
        return Ok(());
    }
    let wish = if !attachment.aliases.is_empty() {
        "an alias"
    } else if !attachment.addresses.is_empty() {
        "an address of one's choice"
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!("{wish} is for networks that were made with network create")))
}

fn is_hardware_address(text: &str) -> bool {
    let bytes: Vec<&str> = text.split([':', '-']).collect();
    let is_byte = |byte: &&str| byte.len() == 2 && byte.chars().all(|c| c.is_ascii_hexdigit());
    bytes.len() == 6 && bytes.iter().all(is_byte)
}

/// A network's name, or `name=…,alias=…,ip=…,ip6=…,mac-address=…,gw-priority=…,link-local-ip=…`.
fn parse_attachment(text: &str) -> Result<NetworkAttachment> {
    let mut attachment = NetworkAttachment {
        network: text.to_owned(),
        aliases: Vec::new(),
        addresses: Vec::new(),
        mac_address: None,
        gateway_priority: 0,
        link_local: Vec::new(),
        link: LinkOptions::default(),
    };
    if !text.contains('=') {
        return Ok(attachment);
    }
    let wrong = |problem: &str| Error::invalid(format!("invalid network {text:?}: {problem}"));
    let address = |value: &str| value.parse().map_err(|_| wrong("not an IP address"));
    for field in text.split(',') {
        match field.split_once('=').ok_or_else(|| wrong("key=value is needed"))? {
            ("name", value) => value.clone_into(&mut attachment.network),
            ("alias", value) => attachment.aliases.push(value.to_owned()),
            ("ip" | "ip6", value) => attachment.addresses.push(address(value)?),
            ("link-local-ip", value) => attachment.link_local.push(address(value)?),
            ("mac-address", value) => attachment.mac_address = Some(value.to_owned()),
            ("gw-priority", value) => {
                attachment.gateway_priority = value.parse().map_err(|_| wrong("gw-priority is a number"))?;
            }
            ("driver-opt", option) => {
                let (key, value) =
                    option.split_once('=').ok_or_else(|| wrong("driver-opt=key=value is needed"))?;
                attachment.link.read(key, value)?;
            }
            (key, _) => return Err(wrong(&format!("unknown key {key:?}"))),
        }
    }
    Ok(attachment)
}

/// `name:address` or `name=address`, the address an IP address or `host-gateway`.
///
/// # Errors
/// When it is something else.
pub(crate) fn parse_host(text: &str) -> Result<(String, String)> {
    let (name, address) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .ok_or_else(|| Error::invalid(format!("invalid host {text:?}: name:address is needed")))?;
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    if name.is_empty() {
        return Err(Error::invalid(format!("invalid host {text:?}: it has no name")));
    }
    if bare != "host-gateway" && bare.parse::<IpAddr>().is_err() {
        return Err(Error::invalid(format!("invalid host {text:?}: {address:?} is not an IP address")));
    }
    Ok((name.to_owned(), bare.to_owned()))
}

/// `container[:name]` in two.
fn parse_link(text: &str) -> Result<(String, String)> {
    let (container, alias) = text.split_once(':').unwrap_or((text, text));
    if container.is_empty() || alias.is_empty() || alias.contains(':') {
        return Err(Error::invalid(format!("invalid link {text:?}: container[:name] is needed")));
    }
    Ok((container.to_owned(), alias.to_owned()))
}
