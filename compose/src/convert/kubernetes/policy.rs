//! Networks as NetworkPolicies: who is on none in common cannot talk to each other.

use serde_json::{Value as Json, json};

use super::name::{label, network_label, protocol, selector};
use super::{Cluster, networks};
use crate::model::Network;
use crate::value::Path;

// === impl Cluster ===

impl Cluster<'_, '_> {
    pub(super) fn add_policies(&mut self) {
        for (key, network) in self.project.networks.clone() {
            self.add_ingress(&key, &network);
            if network.internal {
                self.add_egress(&key);
            }
        }
        for service in self.project.services.values() {
            match service.network_mode.as_deref() {
                Some("none") => {
                    let pods = json!({ "matchLabels": selector(&self.project.name, &service.name) });
                    let spec = json!({ "podSelector": pods, "policyTypes": ["Ingress", "Egress"] });
                    let name = label(&format!("{}-alone", label(&service.name)));
                    self.add("networking.k8s.io/v1", "NetworkPolicy", &name, json!({ "spec": spec }));
                }
                Some("host") => {}
                _ => self.admit_published(service),
            }
        }
    }

    /// The pods of a network are reached by each other.
    fn add_ingress(&mut self, key: &str, network: &Network) {
        let on = json!({ "matchLabels": { network_label(key): "true" } });
        let mut peer = json!({ "podSelector": on });
        if network.external {
            // It is shared with other projects, which are in other namespaces.
            peer["namespaceSelector"] = json!({});
        }
        let spec = json!({
            "podSelector": on,
            "policyTypes": ["Ingress"],
            "ingress": [{ "from": [peer] }],
        });
        let annotations = self.annotations(&Path::keys(&["networks", key, "labels"]), &network.labels);
        let name = label(&format!("network-{key}"));
        self.add_annotated(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            &name,
            annotations,
            json!({ "spec": spec }),
        );
    }

    /// Whoever is on internal networks alone reaches nothing but them, and names.
    fn add_egress(&mut self, key: &str) {
        let open = self.project.networks.iter().filter(|(_, network)| !network.internal);
        let mut expressions = vec![json!({ "key": network_label(key), "operator": "Exists" })];
        expressions
            .extend(open.map(|(key, _)| json!({ "key": network_label(key), "operator": "DoesNotExist" })));
        let on = json!({ "matchLabels": { network_label(key): "true" } });
        let ports: Vec<Json> =
            ["UDP", "TCP"].into_iter().map(|protocol| json!({ "port": 53, "protocol": protocol })).collect();
        let system = json!({ "matchLabels": { "kubernetes.io/metadata.name": "kube-system" } });
        let spec = json!({
            "podSelector": { "matchExpressions": expressions },
            "policyTypes": ["Egress"],
            "egress": [
                { "to": [{ "podSelector": on }] },
                { "to": [{ "namespaceSelector": system }], "ports": ports },
            ],
        });
        let name = label(&format!("network-{key}-internal"));
        self.add("networking.k8s.io/v1", "NetworkPolicy", &name, json!({ "spec": spec }));
    }

    /// Published ports are reached from everywhere.
    fn admit_published(&mut self, service: &crate::model::Service) {
        if service.ports.is_empty() || networks(service).is_empty() {
            return;
        }
        let mut ports: Vec<(u16, &str)> =
            service.ports.iter().map(|port| (port.target, protocol(port.protocol))).collect();
        ports.sort_unstable();
        ports.dedup();
        let ports: Vec<Json> =
            ports.into_iter().map(|(port, protocol)| json!({ "port": port, "protocol": protocol })).collect();
        let spec = json!({
            "podSelector": { "matchLabels": selector(&self.project.name, &service.name) },
            "policyTypes": ["Ingress"],
            "ingress": [{ "ports": ports }],
        });
        let name = label(&format!("{}-published", label(&service.name)));
        self.add("networking.k8s.io/v1", "NetworkPolicy", &name, json!({ "spec": spec }));
    }
}
