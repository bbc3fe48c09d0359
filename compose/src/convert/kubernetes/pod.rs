//! Which containers make a pod, and what the pod is besides them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json, json};

use super::Cluster;
use super::mount::Volumes;
use super::name::{is_key, is_value, label, literal, network_label, selector};
use crate::convert::losses::Losses;
use crate::model::{Project, Service};
use crate::value::Path;

/// Services whose containers share a pod: the one whose namespaces are shared, and those that join it.
pub(super) struct Pod<'a> {
    members: Vec<&'a Service>,
    /// The jobs that run before, and the services that are waited for, in order.
    before: Vec<Before<'a>>,
}

/// What an init container is for.
enum Before<'a> {
    Wait(&'a Service),
    Job(&'a Service),
}

/// The pods of a project, sorted by name.
pub(super) fn all<'a>(project: &'a Project, losses: &mut Losses<'_>) -> Vec<Pod<'a>> {
    let jobs = project.jobs();
    let mut members: BTreeMap<&str, Vec<&Service>> = BTreeMap::new();
    for service in project.services.values() {
        if service.provider.is_none() && !jobs.contains(service.name.as_str()) {
            members.entry(owner(project, service)).or_default().push(service);
        }
    }
    let mut pods = Vec::new();
    for (owner, mut members) in members {
        members.sort_by_key(|service| (service.name != owner, service.name.as_str()));
        let mut before = Vec::new();
        for member in &members {
            if member.replicas() != members[0].replicas() {
                let why = format!("it shares the pod of {owner}, and there are as many of both");
                losses.of_service(&member.name, &["scale"], why);
            }
            collect_before(project, member, owner, &jobs, &mut before, losses);
        }
        let mut seen = BTreeSet::new();
        before.retain(|before| seen.insert(before.service().name.as_str()));
        pods.push(Pod { members, before });
    }
    pods
}

/// The service whose pod this one is in: where `service:…` leads.
fn owner<'a>(project: &'a Project, service: &'a Service) -> &'a str {
    let mut at = service;
    for _ in 0..project.services.len() {
        let modes = [&at.network_mode, &at.pid, &at.ipc];
        let parent = modes.into_iter().flatten().find_map(|mode| mode.strip_prefix("service:"));
        match parent.and_then(|parent| project.services.get(parent)) {
            Some(parent) => at = parent,
            None => break,
        }
    }
    &at.name
}

fn collect_before<'a>(
    project: &'a Project,
    service: &'a Service,
    pod: &str,
    jobs: &BTreeSet<&str>,
    before: &mut Vec<Before<'a>>,
    losses: &mut Losses<'_>,
) {
    for (name, wants) in &service.depends_on {
        let Some(dependency) = project.services.get(name) else { continue };
        if dependency.provider.is_some() || owner(project, dependency) == pod {
            continue;
        }
        if wants.restart {
            let why = "pods are not restarted because another one was";
            losses.of_service(&service.name, &["depends_on", name, "restart"], why);
        }
        if jobs.contains(name.as_str()) {
            collect_before(project, dependency, pod, jobs, before, losses);
            before.push(Before::Job(dependency));
            let pods = service.replicas();
            if pods > 1 {
                let why = format!("the job runs in each of the {pods} pods, not once");
                losses.of_service(&service.name, &["depends_on", name], why);
            }
        } else if matches!(dependency.network_mode.as_deref(), Some("host" | "none")) {
            losses.of_service(&service.name, &["depends_on", name], "it has no name that can be waited for");
        } else {
            before.push(Before::Wait(dependency));
        }
    }
}

// === impl Before ===

impl<'a> Before<'a> {
    fn service(&self) -> &'a Service {
        match self {
            Self::Wait(service) | Self::Job(service) => service,
        }
    }
}

// === impl Pod ===

impl<'a> Pod<'a> {
    /// The service that gives the pod its name.
    pub(super) fn owner(&self) -> &'a Service {
        self.members[0]
    }

    /// All services in it.
    pub(super) fn members(&self) -> &[&'a Service] {
        &self.members
    }

    /// All services whose containers run in it at some time.
    pub(super) fn everybody(&self) -> impl Iterator<Item = &'a Service> + '_ {
        let jobs = self.before.iter().filter(|before| matches!(before, Before::Job(_)));
        jobs.map(Before::service).chain(self.members.iter().copied())
    }
}

// === impl Cluster ===

impl Cluster<'_, '_> {
    /// The pod of a workload, and the claims that each pod of it has for itself.
    pub(super) fn template(&mut self, pod: &Pod<'_>, own: &BTreeSet<String>) -> (Json, Vec<Json>) {
        let mut volumes = Volumes::new(own);
        let mut first = Vec::new();
        for before in &pod.before {
            first.push(match before {
                Before::Wait(service) => self.waiting(service),
                Before::Job(service) => self.container(service, &mut volumes, false),
            });
        }
        for member in &pod.members {
            first.extend(self.pre_start(member, &mut volumes));
        }
        let containers: Vec<Json> =
            pod.members.iter().map(|member| self.container(member, &mut volumes, true)).collect();
        let mut spec = Map::new();
        if !first.is_empty() {
            spec.insert("initContainers".to_owned(), Json::Array(first));
        }
        spec.insert("containers".to_owned(), Json::Array(containers));
        spec.extend(self.pod_settings(pod));
        let (volumes, claims) = volumes.into_parts(self);
        if !volumes.is_empty() {
            spec.insert("volumes".to_owned(), Json::Array(volumes));
        }
        (json!({ "metadata": self.pod_metadata(pod), "spec": spec }), claims)
    }

    /// An init container that waits until a name leads to a pod that is ready.
    fn waiting(&self, service: &Service) -> Json {
        let name = label(&service.name);
        let line = format!("until nslookup {name}.$NAMESPACE.svc.cluster.local; do sleep 1; done");
        json!({
            "name": format!("wait-for-{name}"),
            "image": self.options.wait_image,
            "command": ["sh", "-c", line],
            "env": [{ "name": "NAMESPACE", "valueFrom": { "fieldRef": { "fieldPath": "metadata.namespace" } } }],
        })
    }

    fn pod_metadata(&mut self, pod: &Pod<'_>) -> Json {
        let mut labels = selector(&self.project.name, &pod.owner().name);
        for network in super::networks(pod.owner()) {
            labels.insert(network_label(network), Json::from("true"));
        }
        let mut remarks = Map::new();
        for member in pod.members() {
            let path = Path::keys(&["services", &member.name, "labels"]);
            for (key, value) in &member.labels {
                if !is_key(key) {
                    self.losses.add(&path.key(key), "its key is not allowed in a cluster");
                } else if is_value(value) && !key.starts_with("app.kubernetes.io/") {
                    labels.insert(key.clone(), Json::from(value.clone()));
                } else {
                    remarks.insert(key.clone(), Json::from(value.clone()));
                }
            }
            let path = Path::keys(&["services", &member.name, "annotations"]);
            remarks.extend(self.annotations(&path, &member.annotations));
        }
        if let Some(digest) = self.configs_digest(pod) {
            // A pod mounts a ConfigMap once: with the digest in its template, `apply` rolls when the text changes.
            remarks.insert("compose-spec.io/configs-digest".to_owned(), Json::from(digest));
        }
        let mut metadata = json!({ "labels": labels });
        if !remarks.is_empty() {
            metadata["annotations"] = Json::Object(remarks);
        }
        metadata
    }

    /// What a pod has once, taken from the service that owns it.
    fn pod_settings(&mut self, pod: &Pod<'_>) -> Map<String, Json> {
        let service = pod.owner();
        let mut spec = Map::new();
        let mut set = |key: &str, value: Json| spec.insert(key.to_owned(), value);
        if service.network_mode.as_deref() == Some("host") {
            set("hostNetwork", true.into());
            set("dnsPolicy", "ClusterFirstWithHostNet".into());
        }
        let modes = |of: fn(&Service) -> &Option<String>, mode: &str| {
            pod.members().iter().any(|member| of(member).as_deref() == Some(mode))
        };
        if modes(|service| &service.pid, "host") {
            set("hostPID", true.into());
        }
        if modes(|service| &service.ipc, "host") {
            set("hostIPC", true.into());
        }
        if service.userns_mode.as_deref() == Some("host") {
            set("hostUsers", true.into());
        }
        let shares = pod.members().iter().any(|member| {
            member.init == Some(true) || member.pid.as_deref().is_some_and(|pid| pid.starts_with("service:"))
        });
        if shares && !modes(|service| &service.pid, "host") {
            set("shareProcessNamespace", true.into());
        }
        match service.hostname.as_deref() {
            Some(hostname) if label(hostname) == hostname => {
                set("hostname", hostname.into());
            }
            Some(_) => self.losses.of_service(&service.name, &["hostname"], "it is no single host name"),
            None => {}
        }
        if let Some(grace) = service.stop_grace_period {
            set("terminationGracePeriodSeconds", Json::from(grace.0.as_secs_f64().ceil() as i64));
        }
        if let Some(runtime) = &service.runtime {
            set("runtimeClassName", label(runtime).into());
        }
        if let Some(platform) = &service.platform {
            let mut parts = platform.split('/');
            let mut nodes = Map::new();
            for key in ["kubernetes.io/os", "kubernetes.io/arch"] {
                if let Some(part) = parts.next() {
                    nodes.insert(key.to_owned(), part.into());
                }
            }
            set("nodeSelector", Json::Object(nodes));
        }
        let context = self.pod_security(pod);
        if !context.is_empty() {
            set("securityContext", Json::Object(context));
        }
        // No program of a Compose project expects to find the cluster's credentials.
        set("automountServiceAccountToken", false.into());
        set("enableServiceLinks", false.into());
        spec.extend(self.names(service));
        spec.extend(self.placement(pod));
        self.report_pod(service);
        spec
    }

    /// Name servers and lines of /etc/hosts.
    fn names(&mut self, service: &Service) -> Map<String, Json> {
        let mut spec = Map::new();
        let mut dns = Map::new();
        if !service.dns.is_empty() {
            dns.insert("nameservers".to_owned(), json!(service.dns));
        }
        if !service.dns_search.is_empty() {
            dns.insert("searches".to_owned(), json!(service.dns_search));
        }
        let option = |text: &String| match text.split_once(':') {
            Some((name, value)) => json!({ "name": name, "value": value }),
            None => json!({ "name": text }),
        };
        if !service.dns_opt.is_empty() {
            dns.insert("options".to_owned(), service.dns_opt.iter().map(option).collect());
        }
        if !dns.is_empty() {
            spec.insert("dnsConfig".to_owned(), Json::Object(dns));
        }
        let mut hosts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for line in &service.extra_hosts {
            let Some((name, address)) = line.split_once('=').or_else(|| line.split_once(':')) else {
                continue;
            };
            if address == "host-gateway" {
                let why = format!("a pod knows no address of its node by which {name} could be meant");
                self.losses.of_service(&service.name, &["extra_hosts"], why);
            } else {
                hosts.entry(address.trim_start_matches('[').trim_end_matches(']')).or_default().push(name);
            }
        }
        if !hosts.is_empty() {
            let alias = |(address, names)| json!({ "ip": address, "hostnames": names });
            spec.insert("hostAliases".to_owned(), hosts.into_iter().map(alias).collect());
        }
        spec
    }

    /// Modes that have no counterpart.
    fn report_pod(&mut self, service: &Service) {
        let mut lost = |key: &str, why: &str| self.losses.of_service(&service.name, &[key], why);
        for (key, mode) in
            [("network_mode", &service.network_mode), ("pid", &service.pid), ("ipc", &service.ipc)]
        {
            if mode.as_deref().is_some_and(|mode| mode.starts_with("container:")) {
                lost(key, "containers of other projects are in other pods");
            }
        }
        if service.uts.as_deref() == Some("host") && service.network_mode.as_deref() != Some("host") {
            lost("uts", "only a pod with the node's network has the node's name");
        }
        if service.userns_mode.as_deref().is_some_and(|mode| mode != "host") {
            lost("userns_mode", "a pod has the node's users or its own");
        }
        if service.stop_signal.as_deref().is_some_and(|signal| !matches!(signal, "SIGTERM" | "TERM" | "15")) {
            lost("stop_signal", "the image's STOPSIGNAL or SIGTERM asks it to end");
        }
    }
}

/// The environment of a container.
pub(super) fn environment(variables: &BTreeMap<String, Option<String>>) -> Vec<Json> {
    let known = variables.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
    known.map(|(name, value)| json!({ "name": name, "value": literal(value) })).collect()
}
