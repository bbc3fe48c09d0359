//! The canonical form of a project, as `config` prints it and as the configuration hash is taken of it.

use serde::Serialize;
use serde_json::{Map, Value as Json};
use sha2::{Digest as _, Sha256};

use crate::model::{Project, Service};

/// The project as the reference's canonical JSON: keys sorted on top, empty sections left out.
pub fn to_json(project: &Project) -> Json {
    let Ok(Json::Object(mut whole)) = serde_json::to_value(project) else { return Json::Null };
    whole.retain(|key, section| key == "services" || section.as_object().is_none_or(|map| !map.is_empty()));
    whole.extend(project.extensions.clone());
    whole.sort_keys();
    Json::Object(whole)
}

/// What `config --format json` prints: [`to_json`] in lines, with every `$` doubled so that it loads as it is.
pub fn to_json_text(project: &Project) -> String {
    json_text(&to_json(project)).replace('$', "$$")
}

/// What `config` prints: the project as YAML, with every `$` doubled so that it loads as it is.
pub fn to_yaml(project: &Project) -> String {
    yaml_text(project).replace('$', "$$")
}

/// JSON in lines, as Go writes it.
pub fn json_text(json: &Json) -> String {
    go_escapes(&serde_json::to_string_pretty(json).unwrap_or_default())
}

fn yaml_text(project: &Project) -> String {
    let Ok(Json::Object(mut whole)) = serde_json::to_value(project) else { return String::new() };
    let mut ordered = Map::new();
    for key in ["name", "services", "networks", "volumes", "secrets", "configs", "models"] {
        if let Some(section) = whole.remove(key) {
            ordered.insert(key.to_owned(), section);
        }
    }
    ordered.retain(|key, section| key == "services" || section.as_object().is_none_or(|map| !map.is_empty()));
    let mut services = ordered.get_mut("services").and_then(Json::as_object_mut);
    for (name, service) in &project.services {
        if let Some(Json::Object(map)) = services.as_mut().and_then(|map| map.get_mut(name)) {
            without_empty(map);
            if let Some(blkio) = map.get_mut("blkio_config") {
                lower_keys(blkio);
            }
            map.extend(service.extensions.clone());
        }
    }
    for network in ordered.get_mut("networks").and_then(Json::as_object_mut).into_iter().flatten() {
        if let Json::Object(map) = network.1 {
            without_empty(map);
        }
    }
    ordered.extend(project.extensions.clone());
    let mut whole = Json::Object(ordered);
    for (path, value) in &project.inner_extensions {
        let Some((key, above)) = path.split_last() else { continue };
        // What holds it may have been left out: nobody uses it.
        if let Some(Json::Object(map)) = above.iter().try_fold(&mut whole, inside) {
            map.entry(key).or_insert_with(|| value.clone());
        }
    }
    crate::yaml::write(&whole)
}

fn inside<'a>(value: &'a mut Json, step: &String) -> Option<&'a mut Json> {
    match value {
        Json::Object(map) => map.get_mut(step),
        Json::Array(items) => items.get_mut(step.parse::<usize>().ok()?),
        _ => None,
    }
}

/// What tells whether a container still is as its service asks for: sha256, in hex, of the service's JSON without
/// what does not change a container.
pub fn config_hash(service: &Service) -> String {
    let mut bare = service.clone();
    bare.build = None;
    bare.pull_policy = None;
    bare.scale = None;
    bare.depends_on.clear();
    bare.profiles.clear();
    if let Some(deploy) = &mut bare.deploy {
        deploy.replicas = None;
    }
    let text = go_escapes(&text_of(&bare));
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text_of<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Go writes these characters as escapes; outside of strings they do not occur in JSON.
fn go_escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// What JSON writes out as empty and YAML leaves out.
fn without_empty(map: &mut Map<String, Json>) {
    const NULL_KEYS: [&str; 2] = ["command", "entrypoint"];
    const EMPTY_KEYS: [&str; 4] = ["ipam", "placement", "resources", "exec"];
    for (_, value) in map.iter_mut() {
        match value {
            Json::Object(inner) => without_empty(inner),
            Json::Array(items) => {
                items.iter_mut().filter_map(Json::as_object_mut).for_each(without_empty);
            }
            _ => {}
        }
    }
    map.retain(|key, value| match value {
        Json::Null => !NULL_KEYS.contains(&key.as_str()),
        Json::Object(inner) => !(inner.is_empty() && EMPTY_KEYS.contains(&key.as_str())),
        _ => true,
    });
}

/// The devices of `blkio_config` have capital letters in JSON only.
fn lower_keys(value: &mut Json) {
    match value {
        Json::Object(map) => {
            let entries = std::mem::take(map);
            for (key, mut value) in entries {
                lower_keys(&mut value);
                map.insert(key.to_lowercase(), value);
            }
        }
        Json::Array(items) => items.iter_mut().for_each(lower_keys),
        _ => {}
    }
}
