//! Networks and published ports.

use std::net::IpAddr;

use engine::container::spec::{ContainerPort, NetworkAttachment, NetworkMode, PortBinding};
use engine::network::{DEFAULT_NETWORK, LinkOptions};

use super::{Circumstances, Of, TranslateError};
use crate::model::{Project, ServiceNetwork};

/// How the container meets the network. On each network it answers to its service's name.
pub(super) fn mode(
    project: &Project,
    of: &Of<'_>,
    around: &Circumstances<'_>,
) -> Result<NetworkMode, TranslateError> {
    match of.service.network_mode.as_deref() {
        None | Some("") => attachments(project, of).map(NetworkMode::Bridge),
        Some("host") => Ok(NetworkMode::Host),
        Some("none") => Ok(NetworkMode::None),
        Some("bridge" | "default") => Ok(NetworkMode::Bridge(Vec::new())),
        Some(other) => match around.parents.get(other) {
            Some(parent) => Ok(NetworkMode::Container(parent.clone())),
            None if other.starts_with("service:") || other.starts_with("container:") => {
                Err(of.wrong("network_mode", &format!("no container for {other:?}")))
            }
            // Any other word is the name of a network.
            None => {
                let name = other.parse().map_err(|error| of.wrong("network_mode", &error))?;
                Ok(NetworkMode::Bridge(vec![NetworkAttachment::to(&name)]))
            }
        },
    }
}

fn attachments(project: &Project, of: &Of<'_>) -> Result<Vec<NetworkAttachment>, TranslateError> {
    let none = ServiceNetwork::default();
    let mut attachments = Vec::new();
    for (place, (key, network)) in of.service.networks_by_priority().into_iter().enumerate() {
        let network = network.unwrap_or(&none);
        let target = project
            .networks
            .get(key)
            .ok_or_else(|| of.wrong("networks", &format!("network {key:?} is not defined")))?;
        let mut aliases = network.aliases.clone();
        // On the default network there are no names, so none is given there unless it is asked for.
        if target.name != DEFAULT_NETWORK {
            aliases.push(of.service.name.clone());
            aliases.extend(linked_as(project, &of.service.name));
        }
        aliases.sort();
        aliases.dedup();
        let address = |text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => {
                let parsed: Result<IpAddr, _> = text.parse();
                parsed.map(Some).map_err(|_| of.wrong("networks", &format!("{text:?} is no address")))
            }
        };
        let addresses = [address(&network.ipv4_address)?, address(&network.ipv6_address)?];
        let main_mac = of.service.mac_address.clone().filter(|_| place == 0);
        attachments.push(NetworkAttachment {
            network: target.name.clone(),
            aliases,
            addresses: addresses.into_iter().flatten().collect(),
            mac_address: network.mac_address.clone().or(main_mac),
            gateway_priority: network.gw_priority,
            link_local: link_local(of, network)?,
            link: link(of, network)?,
        });
    }
    Ok(attachments)
}

/// What is asked of the link; what no link has is warned about elsewhere.
fn link(of: &Of<'_>, network: &ServiceNetwork) -> Result<LinkOptions, TranslateError> {
    let mut link = LinkOptions::default();
    let known = network.driver_opts.iter().filter(|(key, _)| LinkOptions::knows(key));
    let name = network.interface_name.as_ref().map(|name| (LinkOptions::INTERFACE, name));
    for (key, value) in known.map(|(key, value)| (key.as_str(), value)).chain(name) {
        link.read(key, value).map_err(|error| of.wrong("networks", &error))?;
    }
    Ok(link)
}

fn link_local(of: &Of<'_>, network: &ServiceNetwork) -> Result<Vec<IpAddr>, TranslateError> {
    let address =
        |text: &String| text.parse().map_err(|_| of.wrong("networks", &format!("{text:?} is no address")));
    network.link_local_ips.iter().map(address).collect()
}

/// The names other services link this one by.
fn linked_as<'a>(project: &'a Project, service: &'a str) -> impl Iterator<Item = String> + 'a {
    project.services.values().flat_map(move |other| {
        other.links.iter().filter_map(move |link| {
            let (target, alias) = link.split_once(':')?;
            (target == service).then(|| alias.to_owned())
        })
    })
}

pub(super) fn ports(of: &Of<'_>) -> Result<Vec<PortBinding>, TranslateError> {
    let binding = |port: &crate::model::Port| {
        let host_ip = match port.host_ip.as_deref().filter(|address| !address.is_empty()) {
            None => None,
            Some(text) => {
                Some(text.parse().map_err(|_| of.wrong("ports", &format!("{text:?} is no address")))?)
            }
        };
        Ok(PortBinding {
            host_ip,
            host_port: port.published_range(),
            container: ContainerPort { port: port.target, protocol: port.protocol },
        })
    };
    of.service.ports.iter().map(binding).collect()
}
