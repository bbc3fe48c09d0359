//! Manifests for `kubectl apply`, into a namespace of the project's own.
//!
//! A service is a Deployment; a StatefulSet where one container alone mounts a named volume, so that never two of
//! them write to it; a DaemonSet when it is global; a Job when it is not to be started again. A job that others wait
//! for becomes an init container of theirs, and whoever shares a namespace with another service its pod.
//! Names lead to the containers themselves (headless Services), as in Compose.

mod container;
mod file;
mod mount;
mod name;
mod pod;
mod policy;
mod probe;
mod security;
mod service;
mod table;
mod workload;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json, json};

pub(super) use self::table::TABLE;

use self::pod::Pod;
use super::losses::Losses;
use super::{ConvertOptions, Document};
use crate::model::{Project, Service};
use crate::value::Path;

/// What all parts of the conversion work with.
struct Cluster<'a, 'b> {
    project: &'a Project,
    options: &'a ConvertOptions,
    losses: &'a mut Losses<'b>,
    objects: Vec<Manifest>,
}

/// One object.
struct Manifest {
    kind: &'static str,
    name: String,
    body: Json,
}

/// The objects of a project, those that others need first.
pub(super) fn convert(project: &Project, options: &ConvertOptions, losses: &mut Losses<'_>) -> Vec<Document> {
    let mut cluster = Cluster { project, options, losses, objects: Vec::new() };
    cluster.check_names();
    cluster.add_files();
    cluster.add_claims();
    cluster.add_policies();
    let pods = pod::all(project, cluster.losses);
    for pod in &pods {
        cluster.add_services(pod);
        cluster.add_workload(pod);
    }
    cluster.into_documents()
}

// === impl Cluster ===

impl Cluster<'_, '_> {
    fn add(&mut self, api: &str, kind: &'static str, name: &str, parts: Json) {
        self.add_annotated(api, kind, name, Map::new(), parts);
    }

    /// Adds an object; `parts` is all but what identifies it.
    fn add_annotated(
        &mut self,
        api: &str,
        kind: &'static str,
        name: &str,
        annotations: Map<String, Json>,
        parts: Json,
    ) {
        let mut metadata = json!({
            "name": name,
            "labels": {
                "app.kubernetes.io/managed-by": "rcompose",
                "app.kubernetes.io/part-of": name::label(&self.project.name),
            },
        });
        if !annotations.is_empty() {
            metadata["annotations"] = Json::Object(annotations);
        }
        let mut body = json!({ "apiVersion": api, "kind": kind, "metadata": metadata });
        if let (Some(body), Json::Object(parts)) = (body.as_object_mut(), parts) {
            body.extend(parts);
        }
        self.objects.push(Manifest { kind, name: name.to_owned(), body });
    }

    /// Services whose names fall together as host names cannot be told apart; one that changes is reported.
    fn check_names(&mut self) {
        let mut taken: BTreeMap<String, &str> = BTreeMap::new();
        for name in self.project.services.keys() {
            let label = name::label(name);
            let path = Path::keys(&["services", name]);
            if let Some(other) = taken.insert(label.clone(), name) {
                let message = format!("services {other:?} and {name:?} would both be {label:?} in a cluster");
                self.losses.refuse(&path, message, "host names there have lower-case letters, digits and -");
            } else if label != *name {
                self.losses
                    .add(&path, format!("the name is no host name in a cluster; it is {label:?} there"));
            }
        }
    }

    /// Labels as annotations; those that cannot be one are reported.
    fn annotations(&mut self, path: &Path, texts: &BTreeMap<String, String>) -> Map<String, Json> {
        let (good, bad) = name::annotations(texts);
        for key in bad {
            self.losses.add(&path.key(key), "its key is not allowed in a cluster");
        }
        good
    }

    fn into_documents(mut self) -> Vec<Document> {
        const ORDER: [&str; 9] = [
            "ConfigMap",
            "Secret",
            "PersistentVolumeClaim",
            "NetworkPolicy",
            "Service",
            "StatefulSet",
            "DaemonSet",
            "Deployment",
            "Job",
        ];
        let rank = |kind: &str| ORDER.iter().position(|known| *known == kind);
        self.objects.sort_by(|a, b| (rank(a.kind), &a.name).cmp(&(rank(b.kind), &b.name)));
        let mut seen = BTreeSet::new();
        self.objects
            .into_iter()
            .filter(|object| seen.insert((object.kind, object.name.clone())))
            .map(|object| Document {
                file: format!("{}-{}.yaml", object.name, object.kind.to_lowercase()),
                bytes: crate::yaml::write(&object.body).into_bytes(),
                is_manifest: true,
                is_secret: object.kind == "Secret",
            })
            .collect()
    }
}

/// The names of a service's own network, as `services.<name>` says it: none where it has no network of its own.
fn networks(service: &Service) -> Vec<&str> {
    match service.network_mode.as_deref() {
        None | Some("") => service.networks.keys().map(String::as_str).collect(),
        Some(_) => Vec::new(),
    }
}

/// Whether a pod can be found by a name: not when it has the node's network, or none.
fn has_name(pod: &Pod<'_>) -> bool {
    !matches!(pod.owner().network_mode.as_deref(), Some("host" | "none"))
}
