//! A file for `docker stack deploy`: version 3.13, with only what a swarm heeds.

mod service;
mod table;

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

pub(super) use self::table::TABLE;

use super::Document;
use super::losses::Losses;
use crate::model::{FileObject, Network, Project, Volume};
use crate::value::Path;

/// The stack's file, and the files that it names because no file of the user's holds what they do.
pub(super) fn convert(project: &Project, losses: &mut Losses<'_>) -> Vec<Document> {
    let mut files = Vec::new();
    let mut services = Map::new();
    for service in project.services.values().filter(|service| service.provider.is_none()) {
        services.insert(service.name.clone(), service::service(project, service, losses));
    }
    let mut networks = section(&project.networks, |network| self::network(project, network));
    for mode in ["host", "none"] {
        if project.services.values().any(|service| service.network_mode.as_deref() == Some(mode)) {
            networks.insert(service::mode_network(mode), json!({ "external": true, "name": mode }));
        }
    }
    for (key, network) in &project.networks {
        if network.driver.as_deref().is_some_and(|driver| driver != "overlay") && !network.external {
            losses.add(
                &Path::keys(&["networks", key, "driver"]),
                "networks of a stack lead from node to node: overlay",
            );
        }
    }
    let mut stack = Map::new();
    stack.insert("version".to_owned(), "3.13".into());
    stack.insert("services".to_owned(), Json::Object(services));
    let sections = [
        ("networks", networks),
        ("volumes", section(&project.volumes, |volume| self::volume(project, volume))),
        ("secrets", objects(project, "secrets", &project.secrets, losses, &mut files)),
        ("configs", objects(project, "configs", &project.configs, losses, &mut files)),
    ];
    for (key, section) in sections.into_iter().filter(|(_, section)| !section.is_empty()) {
        stack.insert(key.to_owned(), Json::Object(section));
    }
    // `docker stack deploy` interpolates the file once more.
    let text = crate::yaml::write(&Json::Object(stack)).replace('$', "$$");
    let stack = Document {
        file: "stack.yaml".to_owned(),
        bytes: text.into_bytes(),
        is_manifest: true,
        is_secret: false,
    };
    std::iter::once(stack).chain(files).collect()
}

fn section<T>(all: &BTreeMap<String, T>, json: impl Fn(&T) -> Map<String, Json>) -> Map<String, Json> {
    all.iter().map(|(key, item)| (key.clone(), Json::Object(json(item)))).collect()
}

/// A name, unless it is what the stack's own name and the key give anyway.
fn name(project: &Project, name: &str, external: bool) -> Option<Json> {
    (external || !name.starts_with(&format!("{}_", project.name))).then(|| name.into())
}

fn network(project: &Project, network: &Network) -> Map<String, Json> {
    let mut all = Map::new();
    let mut set = |key: &str, value: Option<Json>| value.map(|value| all.insert(key.to_owned(), value));
    set("name", name(project, &network.name, network.external));
    if network.external {
        set("external", Some(true.into()));
        return all;
    }
    set("driver", Some("overlay".into()));
    set("driver_opts", texts(&network.driver_opts));
    set("attachable", network.attachable.then(|| true.into()));
    set("internal", network.internal.then(|| true.into()));
    set("labels", texts(&network.labels));
    let pools: Vec<Json> = network
        .ipam
        .config
        .iter()
        .filter_map(|pool| Some(json!({ "subnet": pool.subnet.as_ref()? })))
        .collect();
    set("ipam", (!pools.is_empty()).then(|| json!({ "config": pools })));
    all
}

fn volume(project: &Project, volume: &Volume) -> Map<String, Json> {
    let mut all = Map::new();
    let mut set = |key: &str, value: Option<Json>| value.map(|value| all.insert(key.to_owned(), value));
    set("name", name(project, &volume.name, volume.external));
    set("external", volume.external.then(|| true.into()));
    set("driver", volume.driver.clone().map(Json::from));
    set("driver_opts", texts(&volume.driver_opts));
    set("labels", texts(&volume.labels));
    all
}

/// Secrets or configurations. What is in no file is written to one beside the stack's.
fn objects(
    project: &Project,
    section: &str,
    objects: &BTreeMap<String, FileObject>,
    losses: &mut Losses<'_>,
    files: &mut Vec<Document>,
) -> Map<String, Json> {
    let mut found = Map::new();
    for (key, object) in objects {
        let path = Path::keys(&[section, key]);
        let mut all = Map::new();
        let mut set = |key: &str, value: Option<Json>| value.map(|value| all.insert(key.to_owned(), value));
        if object.external {
            set("external", Some(true.into()));
            set("name", Some(object.name.clone().into()));
        } else {
            let digest = object.digest.as_ref().and_then(|digest| digest.hex().get(..8));
            match digest.filter(|_| section == "configs") {
                Some(digest) => set("name", Some(format!("{}_{digest}", object.name).into())),
                None => set("name", name(project, &object.name, false)),
            };
            set("labels", texts(&object.labels));
            set("driver", object.driver.clone().map(Json::from));
            set("driver_opts", texts(&object.driver_opts));
            set("template_driver", object.template_driver.clone().map(Json::from));
            match (&object.file, object.value.as_ref().or(object.content.as_ref())) {
                (Some(file), _) => set("file", Some(file.clone().into())),
                (None, Some(text)) => {
                    let file = format!("{section}/{key}");
                    set("file", Some(format!("./{file}").into()));
                    files.push(Document {
                        file,
                        bytes: text.clone().into_bytes(),
                        is_manifest: false,
                        is_secret: section == "secrets",
                    });
                    None
                }
                (None, None) if object.driver.is_some() => None,
                (None, None) => {
                    let variable = object.environment.as_deref().unwrap_or_default();
                    let help = "set it, or make the object in the swarm and write `external: true`";
                    losses.refuse(
                        &path.key("environment"),
                        format!("the variable {variable} is not set"),
                        help,
                    );
                    None
                }
            };
        }
        found.insert(key.clone(), Json::Object(all));
    }
    found
}

fn texts(texts: &BTreeMap<String, String>) -> Option<Json> {
    (!texts.is_empty()).then(|| json!(texts))
}
