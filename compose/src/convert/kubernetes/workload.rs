//! What keeps a pod running, or runs it to its end.

use std::collections::BTreeSet;

use engine::container::spec::RestartPolicy;
use serde_json::{Map, Value as Json, json};

use super::mount::is_claimed;
use super::name::{label, selector};
use super::pod::Pod;
use super::probe::seconds_up;
use super::{Cluster, has_name};
use crate::model::{Service, UpdateConfig};
use crate::value::Path;

/// How pods are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Workload {
    Deployment,
    StatefulSet,
    DaemonSet,
    /// The policy of its pods, and how often it is tried again.
    Job(&'static str, u32),
}

// === impl Cluster ===

impl Cluster<'_, '_> {
    /// Whether the pod of one service alone has a volume, so that each pod may have it for itself.
    pub(super) fn is_own(&self, key: &str) -> bool {
        let Some(volume) = self.project.volumes.get(key) else { return false };
        let mut users = self.project.services.values().filter(|service| {
            service.uses_volume(key)
                || service.volumes_from.iter().any(|from| {
                    let other = self.project.services.get(from.split(':').next().unwrap_or(from));
                    other.is_some_and(|other| other.uses_volume(key))
                })
        });
        let (Some(user), None) = (users.next(), users.next()) else { return false };
        let is_free =
            |mode: &Option<String>| !mode.as_deref().is_some_and(|mode| mode.starts_with("service:"));
        let explicit = explicit_restart(user);
        !volume.external
            && is_claimed(volume)
            && !self.project.jobs().contains(user.name.as_str())
            && user.replicas() == 1
            && is_free(&user.network_mode)
            && is_free(&user.pid)
            && is_free(&user.ipc)
            && !matches!(explicit, Some(RestartPolicy::No))
            && !is_finite(user, explicit)
            && user
                .deploy
                .as_ref()
                .is_none_or(|deploy| deploy.mode.as_deref().is_none_or(|mode| mode == "replicated"))
    }

    pub(super) fn add_workload(&mut self, pod: &Pod<'_>) {
        let service = pod.owner();
        let workload = self.kind(pod);
        let own: BTreeSet<String> = if workload == Workload::StatefulSet {
            let volumes = self.project.volumes.keys();
            volumes
                .filter(|key| pod.members().iter().any(|member| member.uses_volume(key)) && self.is_own(key))
                .cloned()
                .collect()
        } else {
            BTreeSet::new()
        };
        let (mut template, claims) = self.template(pod, &own);
        let selector = json!({ "matchLabels": selector(&self.project.name, &service.name) });
        let mut spec = Map::new();
        let mut set = |key: &str, value: Json| spec.insert(key.to_owned(), value);
        match workload {
            Workload::Job(policy, tries) => {
                template["spec"]["restartPolicy"] = policy.into();
                set("backoffLimit", tries.into());
                let count = service.replicas();
                if count != 1 {
                    set("completions", count.into());
                    set("parallelism", count.into());
                }
            }
            Workload::DaemonSet => {
                set("selector", selector);
            }
            Workload::StatefulSet | Workload::Deployment => {
                set("replicas", service.replicas().into());
                set("selector", selector);
            }
        }
        if workload == Workload::StatefulSet {
            if has_name(pod) {
                set("serviceName", label(&service.name).into());
            }
            set("volumeClaimTemplates", claims.into());
        }
        let update = service.deploy.as_ref().and_then(|deploy| deploy.update_config.clone());
        for (key, value) in self.pace(service, workload, update.as_ref()) {
            set(key, value);
        }
        set("template", template);
        let deploy = service.deploy.clone().unwrap_or_default();
        let path = Path::keys(&["services", &service.name, "deploy", "labels"]);
        let annotations = self.annotations(&path, &deploy.labels);
        let (api, kind) = match workload {
            Workload::Deployment => ("apps/v1", "Deployment"),
            Workload::StatefulSet => ("apps/v1", "StatefulSet"),
            Workload::DaemonSet => ("apps/v1", "DaemonSet"),
            Workload::Job(..) => ("batch/v1", "Job"),
        };
        self.add_annotated(api, kind, &label(&service.name), annotations, json!({ "spec": spec }));
    }

    fn kind(&mut self, pod: &Pod<'_>) -> Workload {
        let service = pod.owner();
        let mode = service.deploy.as_ref().and_then(|deploy| deploy.mode.as_deref());
        let restart = explicit_restart(service);
        match (mode, restart) {
            (Some("global"), _) => return Workload::DaemonSet,
            (Some("global-job"), _) => {
                self.losses.of_service(
                    &service.name,
                    &["deploy", "mode"],
                    "the job runs once, not on each node",
                );
                return Workload::Job("OnFailure", 6);
            }
            (Some("replicated-job"), _) => return Workload::Job("OnFailure", 6),
            (_, Some(RestartPolicy::No)) => return Workload::Job("Never", 0),
            (_, Some(RestartPolicy::OnFailure(tries))) if is_finite(service, restart) => {
                return Workload::Job("OnFailure", if tries == 0 { 6 } else { tries });
            }
            (_, Some(RestartPolicy::OnFailure(_))) => {
                let why = "it has ports or a health check and is kept running, also after it ended well";
                let in_deploy = service.deploy.as_ref().is_some_and(|deploy| deploy.restart_policy.is_some());
                let keys: &[&str] = if in_deploy { &["deploy", "restart_policy"] } else { &["restart"] };
                self.losses.of_service(&service.name, keys, why);
            }
            _ => {}
        }
        let volumes = self.project.volumes.keys();
        let has_own = volumes.into_iter().any(|key| service.uses_volume(key) && self.is_own(key));
        if has_own { Workload::StatefulSet } else { Workload::Deployment }
    }

    /// How a change of the pods rolls.
    fn pace(
        &mut self,
        service: &Service,
        workload: Workload,
        update: Option<&UpdateConfig>,
    ) -> Vec<(&'static str, Json)> {
        let mut all = Vec::new();
        let mounts_claims =
            self.project.volumes.iter().any(|(key, volume)| is_claimed(volume) && service.uses_volume(key));
        let Some(update) = update else {
            // Two pods must not write to one volume: the old one ends first, as in Compose.
            if workload == Workload::Deployment && mounts_claims && service.replicas() <= 1 {
                all.push(("strategy", json!({ "type": "Recreate" })));
            }
            return all;
        };
        let at_once = match update.parallelism.unwrap_or(1) {
            0 => Json::from("100%"),
            number => Json::from(number),
        };
        let starts_first = update.order.as_deref() == Some("start-first");
        let (more, fewer) = if starts_first { (at_once, Json::from(0)) } else { (Json::from(0), at_once) };
        match workload {
            Workload::Deployment | Workload::DaemonSet => {
                let rolling = json!({ "maxSurge": more, "maxUnavailable": fewer });
                let field = if workload == Workload::Deployment { "strategy" } else { "updateStrategy" };
                all.push((field, json!({ "type": "RollingUpdate", "rollingUpdate": rolling })));
            }
            Workload::StatefulSet => {
                if starts_first {
                    let why = "its pod owns a volume, and the old one ends first";
                    self.losses.of_service(&service.name, &["deploy", "update_config", "order"], why);
                }
            }
            Workload::Job(..) => {
                let why = "a Job does not roll: delete it and apply it again";
                self.losses.of_service(&service.name, &["deploy", "update_config"], why);
                return all;
            }
        }
        let waits = [update.delay, update.monitor].into_iter().flatten().max();
        if let Some(time) = waits.filter(|time| !time.0.is_zero()) {
            all.push(("minReadySeconds", seconds_up(time).into()));
            if workload == Workload::Deployment {
                // It has to be more than the time that a pod must be ready.
                all.push(("progressDeadlineSeconds", (seconds_up(time) + 600).into()));
            }
        }
        all
    }

    /// Where pods may run.
    pub(super) fn placement(&mut self, pod: &Pod<'_>) -> Map<String, Json> {
        let service = pod.owner();
        let Some(deploy) = &service.deploy else { return Map::new() };
        let mut all = Map::new();
        let mut affinity = Map::new();
        let mut expressions = Vec::new();
        for constraint in &deploy.placement.constraints {
            match node_expression(constraint) {
                Some(expression) => expressions.push(expression),
                None => {
                    let why = format!("nodes of a cluster have nothing that {constraint:?} asks for");
                    self.losses.of_service(&service.name, &["deploy", "placement", "constraints"], why);
                }
            }
        }
        if !expressions.is_empty() {
            let terms = json!({ "nodeSelectorTerms": [{ "matchExpressions": expressions }] });
            let rule = json!({ "requiredDuringSchedulingIgnoredDuringExecution": terms });
            affinity.insert("nodeAffinity".to_owned(), rule);
        }
        let own = json!({ "matchLabels": selector(&self.project.name, &service.name) });
        match deploy.placement.max_replicas_per_node {
            0 => {}
            1 => {
                let term = json!({ "labelSelector": own, "topologyKey": "kubernetes.io/hostname" });
                let rule = json!({ "requiredDuringSchedulingIgnoredDuringExecution": [term] });
                affinity.insert("podAntiAffinity".to_owned(), rule);
            }
            _ => {
                let keys = ["deploy", "placement", "max_replicas_per_node"];
                self.losses.of_service(&service.name, &keys, "only one pod on a node can be demanded");
            }
        }
        if !affinity.is_empty() {
            all.insert("affinity".to_owned(), Json::Object(affinity));
        }
        let spread: Vec<Json> = deploy
            .placement
            .preferences
            .iter()
            .filter_map(|preference| Some(node_key(preference.spread.as_deref()?)?.to_owned()))
            .map(|key| {
                json!({
                    "maxSkew": 1,
                    "topologyKey": key,
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": own,
                })
            })
            .collect();
        if spread.len() < deploy.placement.preferences.len() {
            let keys = ["deploy", "placement", "preferences"];
            self.losses.of_service(&service.name, &keys, "pods are spread over labels of nodes alone");
        }
        if !spread.is_empty() {
            all.insert("topologySpreadConstraints".to_owned(), spread.into());
        }
        all
    }
}

/// What the file says about starting again; `None` where it says nothing, and a cluster's own way holds.
fn explicit_restart(service: &Service) -> Option<RestartPolicy> {
    let deployed = service.deploy.as_ref().and_then(|deploy| deploy.restart_policy.as_ref());
    let Some(policy) = deployed else { return service.restart };
    Some(match policy.condition.as_deref()? {
        "none" | "no" => RestartPolicy::No,
        "on-failure" => RestartPolicy::OnFailure(policy.max_attempts.unwrap_or(0) as u32),
        _ => RestartPolicy::Always,
    })
}

/// Whether a service that is started again on failure alone is one that ends: it serves nobody.
fn is_finite(service: &Service, restart: Option<RestartPolicy>) -> bool {
    matches!(restart, Some(RestartPolicy::OnFailure(_)))
        && service.ports.is_empty()
        && service.expose.is_empty()
        && service.healthcheck.is_none()
}

/// The label of a node that a swarm's word means.
fn node_key(word: &str) -> Option<&str> {
    match word {
        "node.hostname" => Some("kubernetes.io/hostname"),
        "node.platform.os" => Some("kubernetes.io/os"),
        "node.platform.arch" => Some("kubernetes.io/arch"),
        _ => word.strip_prefix("node.labels.").filter(|key| super::name::is_key(key)),
    }
}

fn node_expression(constraint: &str) -> Option<Json> {
    let (word, operator, value) = match constraint.split_once("!=") {
        Some((word, value)) => (word, "NotIn", value),
        None => {
            let (word, value) = constraint.split_once("==")?;
            (word, "In", value)
        }
    };
    let (word, value) = (word.trim(), value.trim());
    if word == "node.role" && matches!(value, "manager" | "worker") {
        let is_manager = (value == "manager") == (operator == "In");
        let operator = if is_manager { "Exists" } else { "DoesNotExist" };
        return Some(json!({ "key": "node-role.kubernetes.io/control-plane", "operator": operator }));
    }
    Some(json!({ "key": node_key(word)?, "operator": operator, "values": [value] }))
}
