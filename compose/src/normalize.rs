//! What a file leaves unsaid is filled in: defaults, implicit networks and dependencies, names.

use std::collections::BTreeMap;

use crate::environment::Variables;
use crate::model::{Build, Condition, Dependency, FileObject, Network, Project, Service};
use crate::schema::Problem;
use crate::value::{Map, Path, Value};

/// What the loader fills in before anything is decoded: defaults of long forms, the legacy `external: {name: …}`.
/// Gives back warnings.
pub(crate) fn set_defaults(document: &mut Value) -> Vec<Problem> {
    let mut warnings = Vec::new();
    for section in ["networks", "volumes", "secrets", "configs"] {
        let Some(objects) = document.get_mut(section).and_then(Value::as_map_mut) else { continue };
        for (key, object) in objects {
            if *object == Value::Null {
                *object = Value::Map(Map::new());
            }
            if let Some(problem) = legacy_external(section, key, object) {
                warnings.push(problem);
            }
        }
    }
    let services = document.get_mut("services").and_then(Value::as_map_mut);
    for service in services.into_iter().flat_map(Map::values_mut) {
        if let Some(build) = service.get_mut("build") {
            default_in(build, "context", &Value::Text(".".to_owned()));
        }
        drop_empty(service, "dns");
        for secret in list(service, "secrets") {
            if let Some(source) = secret.get("source").and_then(Value::as_text).map(str::to_owned) {
                default_in(secret, "target", &Value::Text(format!("/run/secrets/{source}")));
            }
        }
        for port in list(service, "ports") {
            if let Some(map) = port.as_map_mut()
                && map.get("published").and_then(Value::as_text) == Some("")
            {
                map.remove("published");
            }
            default_in(port, "mode", &Value::Text("ingress".to_owned()));
            default_in(port, "protocol", &Value::Text("tcp".to_owned()));
        }
        for device in list(service, "gpus") {
            default_count(device);
        }
        let reservations = service
            .get_mut("deploy")
            .and_then(|deploy| deploy.get_mut("resources"))
            .and_then(|resources| resources.get_mut("reservations"));
        if let Some(reservations) = reservations {
            list(reservations, "devices").iter_mut().for_each(default_count);
        }
    }
    warnings
}

/// Variables and build arguments that are named without a value take it from the environment.
pub(crate) fn resolve_environment(document: &mut Value, environment: &Variables) {
    let services = document.get_mut("services").and_then(Value::as_map_mut);
    for service in services.into_iter().flat_map(Map::values_mut) {
        if let Some(variables) = service.get_mut("environment").and_then(Value::as_map_mut) {
            fill(variables, environment);
        }
        let args =
            service.get_mut("build").and_then(|build| build.get_mut("args")).and_then(Value::as_map_mut);
        if let Some(args) = args {
            fill(args, environment);
        }
    }
}

/// The two ways to say how many containers a service has agree.
pub(crate) fn agree_on_scale(project: &mut Project) {
    for service in project.services.values_mut() {
        if let (Some(scale), Some(deploy)) = (service.scale, &mut service.deploy) {
            deploy.replicas.get_or_insert(scale);
        }
    }
}

/// Fills in what a decoded project leaves unsaid.
pub(crate) fn normalize(project: &mut Project) {
    implicit_networks(project);
    for service in project.services.values_mut() {
        if service.pull_policy.as_deref() == Some("if_not_present") {
            service.pull_policy = Some("missing".to_owned());
        }
        if let Some(build) = &mut service.build {
            name_dockerfile(build);
            build.args.retain(|_, value| value.is_some());
        }
        implicit_dependencies(service);
    }
    name_resources(project);
}

/// Drops networks, volumes, secrets and configurations that no service uses.
pub(crate) fn drop_unused(project: &mut Project) {
    let services = &project.services;
    project.networks.retain(|key, _| services.values().any(|service| service.networks.contains_key(key)));
    project.volumes.retain(|key, _| services.values().any(|service| service.uses_volume(key)));
    project.configs.retain(|key, _| {
        services.values().any(|service| service.configs.iter().any(|config| config.source == *key))
    });
    project.secrets.retain(|key, _| {
        services.values().any(|service| {
            let build = service.build.iter().flat_map(|build| &build.secrets);
            service.secrets.iter().chain(build).any(|secret| secret.source == *key)
        })
    });
    project.models.retain(|key, _| services.values().any(|service| service.models.contains_key(key)));
}

fn legacy_external(section: &str, key: &str, object: &mut Value) -> Option<Problem> {
    let map = object.as_map_mut()?;
    let legacy = map.get("external")?.as_map()?.clone();
    map.insert("external".to_owned(), Value::Bool(true));
    let name = legacy.get("name")?.clone();
    map.entry("name".to_owned()).or_insert(name);
    let path = Path::keys(&[section, key, "external"]);
    let message = "external.name is deprecated";
    Some(Problem::key(&path, message).with_help("write `name:` and `external: true` next to each other"))
}

fn list<'a>(value: &'a mut Value, key: &str) -> &'a mut [Value] {
    match value.get_mut(key) {
        Some(Value::List(items)) => items,
        _ => &mut [],
    }
}

/// An address that a variable leaves empty is none.
fn drop_empty(service: &mut Value, key: &str) {
    let Some(map) = service.as_map_mut() else { return };
    if let Some(Value::List(items)) = map.get_mut(key) {
        items.retain(|item| item.as_text() != Some(""));
        if items.is_empty() {
            map.remove(key);
        }
    }
}

fn default_in(value: &mut Value, key: &str, default: &Value) {
    if let Value::Map(map) = value {
        map.entry(key.to_owned()).or_insert_with(|| default.clone());
    }
}

fn default_count(device: &mut Value) {
    if device.get("device_ids").is_none() {
        default_in(device, "count", &Value::Int(-1));
    }
}

fn fill(variables: &mut Map, environment: &Variables) {
    for (key, value) in variables.iter_mut().filter(|(_, value)| **value == Value::Null) {
        if let Some(text) = environment.get(key) {
            *value = Value::Text(text.clone());
        }
    }
}

fn implicit_networks(project: &mut Project) {
    let mut uses_default = false;
    for service in project.services.values_mut() {
        if service.provider.is_some() || service.network_mode.is_some() {
            continue;
        }
        if service.networks.is_empty() {
            service.networks.insert("default".to_owned(), None);
        }
        uses_default |= service.networks.contains_key("default");
    }
    if uses_default {
        project.networks.entry("default".to_owned()).or_default();
    }
}

fn name_dockerfile(build: &mut Build) {
    if build.dockerfile.is_none() && build.dockerfile_inline.is_none() {
        build.dockerfile = Some("Dockerfile".to_owned());
    }
}

fn implicit_dependencies(service: &mut Service) {
    let mut add = |name: &str, restart: bool| {
        service.depends_on.entry(name.to_owned()).or_insert(Dependency {
            condition: Condition::Started,
            restart,
            required: true,
        });
    };
    for link in &service.links {
        add(link.split(':').next().unwrap_or_default(), true);
    }
    for namespace in [&service.network_mode, &service.ipc, &service.pid, &service.uts, &service.cgroup] {
        if let Some(name) = namespace.as_deref().and_then(|text| text.strip_prefix("service:")) {
            add(name, true);
        }
    }
    for source in &service.volumes_from {
        if !source.starts_with("container:") {
            add(source.split(':').next().unwrap_or_default(), false);
        }
    }
}

fn name_resources(project: &mut Project) {
    let prefix = project.name.clone();
    let named = |key: &str, external: bool| if external { key.to_owned() } else { format!("{prefix}_{key}") };
    for (key, Network { name, external, .. }) in &mut project.networks {
        if name.is_empty() {
            *name = named(key, *external);
        }
    }
    for (key, volume) in &mut project.volumes {
        if volume.name.is_empty() {
            volume.name = named(key, volume.external);
        }
    }
    let objects: [&mut BTreeMap<String, FileObject>; 2] = [&mut project.secrets, &mut project.configs];
    for (key, object) in objects.into_iter().flatten() {
        if object.name.is_empty() {
            object.name = named(key, object.external);
        }
    }
}
