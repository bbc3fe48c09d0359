//! Services: the names of a pod, and the ports it publishes.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};

use super::name::{label, ports, protocol, selector};
use super::pod::Pod;
use super::{Cluster, has_name};
use crate::model::{Port, Service};
use crate::value::Path;

/// Where published ports are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    /// From outside, under the number that is published.
    Everywhere,
    /// From outside, under a number that the cluster chooses.
    AnyNumber,
    /// Inside alone: it was published on a loopback address.
    Inside,
}

// === impl Cluster ===

impl Cluster<'_, '_> {
    /// The names by which a pod's services are found, and what they publish.
    pub(super) fn add_services(&mut self, pod: &Pod<'_>) {
        if has_name(pod) {
            let names = self.names_of(pod);
            for name in names {
                self.add_name(pod, &name);
            }
        }
        for service in pod.members() {
            self.publish(pod, service);
        }
    }

    /// Service names, container names, aliases and the aliases of links; a name that is taken is left to its owner.
    fn names_of(&mut self, pod: &Pod<'_>) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for service in pod.members() {
            names.insert(label(&service.name));
            let aliases = service.networks.values().flatten().flat_map(|network| &network.aliases);
            for alias in aliases.chain(&service.container_name) {
                if label(alias) != *alias {
                    let key = if service.container_name.as_ref() == Some(alias) {
                        "container_name"
                    } else {
                        "networks"
                    };
                    let why =
                        format!("{alias:?} is no host name in a cluster; it is {:?} there", label(alias));
                    self.losses.of_service(&service.name, &[key], why);
                }
                names.insert(label(alias));
            }
            for other in self.project.services.values() {
                let links = other.links.iter().filter_map(|link| link.split_once(':'));
                names.extend(links.filter(|(to, _)| *to == service.name).map(|(_, alias)| label(alias)));
            }
        }
        let others = self.project.services.keys();
        let own: BTreeSet<&str> = pod.members().iter().map(|service| service.name.as_str()).collect();
        for other in others.filter(|other| !own.contains(other.as_str())) {
            names.remove(&label(other));
        }
        names
    }

    fn add_name(&mut self, pod: &Pod<'_>, name: &str) {
        let known: BTreeSet<_> = pod.members().iter().flat_map(|service| ports(service)).collect();
        let listens: Vec<Json> = known
            .iter()
            .map(|(port, protocol)| {
                let name = format!("{}-{port}", protocol.to_lowercase());
                json!({ "name": name, "port": port, "targetPort": port, "protocol": protocol })
            })
            .collect();
        let deploy = pod.owner().deploy.as_ref();
        let one_address = deploy.and_then(|deploy| deploy.endpoint_mode.as_deref()) == Some("vip");
        let mut spec = Map::new();
        if !one_address || listens.is_empty() {
            spec.insert("clusterIP".to_owned(), "None".into());
        }
        if !listens.is_empty() {
            spec.insert("ports".to_owned(), listens.into());
        }
        spec.insert("selector".to_owned(), Json::Object(selector(&self.project.name, &pod.owner().name)));
        self.add("v1", "Service", name, json!({ "spec": spec }));
    }

    fn publish(&mut self, pod: &Pod<'_>, service: &Service) {
        for (reach, kind, suffix) in [
            (Reach::Everywhere, "LoadBalancer", "published"),
            (Reach::AnyNumber, "NodePort", "node"),
            (Reach::Inside, "ClusterIP", "local"),
        ] {
            let mut list = Vec::new();
            for (index, port) in service.ports.iter().enumerate() {
                let path = Path::keys(&["services", &service.name, "ports"]).index(index);
                if reach_of(port, service) == Some(reach) {
                    list.push(self.published(&path, port, reach));
                }
            }
            if !list.is_empty() {
                let selector = selector(&self.project.name, &pod.owner().name);
                let spec = json!({ "type": kind, "ports": list, "selector": selector });
                let name = label(&format!("{}-{suffix}", label(&service.name)));
                self.add("v1", "Service", &name, json!({ "spec": spec }));
            }
        }
    }

    fn published(&mut self, path: &Path, port: &Port, reach: Reach) -> Json {
        let number = match port.published_range() {
            Some((first, last)) => {
                if first != last {
                    self.losses.add(path, format!("one of {first}-{last} cannot be chosen: it is {first}"));
                }
                first
            }
            None => port.target,
        };
        match (reach, port.host_ip.as_deref()) {
            (Reach::Inside, Some(address)) => {
                let why = format!(
                    "only pods reach it, as nobody has {address} in common; use `kubectl port-forward`"
                );
                self.losses.add(path, why);
            }
            (_, Some(address)) if !matches!(address, "" | "0.0.0.0" | "::") => {
                self.losses.add(path, format!("the load balancer has an address of its own, not {address}"));
            }
            _ => {}
        }
        let own = port.name.as_deref().filter(|name| label(name) == **name && name.len() <= 15);
        let transport = protocol(port.protocol);
        let name = own.map_or_else(|| format!("{}-{number}", transport.to_lowercase()), str::to_owned);
        let mut all =
            json!({ "name": name, "port": number, "targetPort": port.target, "protocol": transport });
        if let Some(spoken) = &port.app_protocol {
            all["appProtocol"] = spoken.clone().into();
        }
        all
    }
}

/// Where a port is reached; `None` when it is the node's own, or a pod with the node's network has it anyway.
fn reach_of(port: &Port, service: &Service) -> Option<Reach> {
    let on_node = port.mode.as_deref() == Some("host") && service.deploy.is_some();
    if on_node || service.network_mode.as_deref() == Some("host") {
        return None;
    }
    let is_local =
        |address: &str| address.starts_with("127.") || matches!(address, "::1" | "[::1]" | "localhost");
    Some(match (&port.host_ip, port.published_range()) {
        (Some(address), _) if is_local(address) => Reach::Inside,
        (_, None) => Reach::AnyNumber,
        _ => Reach::Everywhere,
    })
}
