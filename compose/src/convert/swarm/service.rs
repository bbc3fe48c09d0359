//! One service of a stack.

use serde_json::{Map, Value as Json, json};

use crate::convert::image;
use crate::convert::limits::{self, Amount};
use crate::convert::losses::Losses;
use crate::model::{FileReference, Port, Project, Service, ServiceVolume};
use crate::value::Path;

/// Keys that a stack's file has just so.
const SAME: [&str; 22] = [
    "cap_add",
    "cap_drop",
    "command",
    "credential_spec",
    "dns",
    "dns_search",
    "entrypoint",
    "healthcheck",
    "hostname",
    "init",
    "isolation",
    "labels",
    "logging",
    "read_only",
    "stdin_open",
    "stop_grace_period",
    "stop_signal",
    "sysctls",
    "tty",
    "ulimits",
    "user",
    "working_dir",
];

/// The key of the network that stands for a mode.
pub(super) fn mode_network(mode: &str) -> String {
    format!("{mode}-mode")
}

/// The service as a stack's file has it.
pub(super) fn service(project: &Project, service: &Service, losses: &mut Losses<'_>) -> Json {
    let mut all = Map::new();
    if let Ok(Json::Object(said)) = serde_json::to_value(service) {
        all.extend(said.into_iter().filter(|(key, value)| SAME.contains(&key.as_str()) && !value.is_null()));
    }
    let mut set = |key: &str, value: Json| {
        let is_empty =
            value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty);
        if !is_empty {
            all.insert(key.to_owned(), value);
        }
    };
    set("image", image(project, service, "a swarm", losses).into());
    set("environment", environment(service, losses));
    let hosts = service.extra_hosts.iter().map(|line| line.replacen('=', ":", 1));
    set("extra_hosts", hosts.map(Json::from).collect());
    set("networks", networks(service, losses));
    set("ports", ports(service, losses));
    set("volumes", volumes(service, losses));
    set("secrets", service.secrets.iter().map(reference).collect());
    set("configs", service.configs.iter().map(reference).collect());
    set("deploy", deploy(project, service));
    for link in service.links.iter().filter(|link| link.contains(':')) {
        losses.of_service(&service.name, &["links"], format!("{link}: no other name leads to a service"));
    }
    Json::Object(all)
}

fn environment(service: &Service, losses: &mut Losses<'_>) -> Json {
    let mut all = Map::new();
    for (name, value) in &service.environment {
        match value {
            Some(value) => {
                all.insert(name.clone(), value.clone().into());
            }
            None => {
                let why = "a variable cannot be taken away: the image's value holds";
                losses.of_service(&service.name, &["environment", name], why);
            }
        }
    }
    Json::Object(all)
}

fn networks(service: &Service, losses: &mut Losses<'_>) -> Json {
    match service.network_mode.as_deref() {
        None | Some("" | "bridge" | "default") => {}
        Some(mode @ ("host" | "none")) => return json!({ mode_network(mode): {} }),
        Some(_) => {
            losses.of_service(&service.name, &["network_mode"], "tasks of a swarm share no namespaces");
        }
    }
    let each = service.networks.iter().map(|(key, network)| {
        let mut all = Map::new();
        if let Some(network) = network {
            if !network.aliases.is_empty() {
                all.insert("aliases".to_owned(), json!(network.aliases));
            }
            if !network.driver_opts.is_empty() {
                all.insert("driver_opts".to_owned(), json!(network.driver_opts));
            }
        }
        (key.clone(), Json::Object(all))
    });
    Json::Object(each.collect())
}

fn ports(service: &Service, losses: &mut Losses<'_>) -> Json {
    let each = service.ports.iter().enumerate().map(|(index, port)| {
        let mut all = json!({ "target": port.target, "protocol": port.protocol });
        if let Some((first, last)) = port.published_range() {
            if first != last {
                let path = Path::keys(&["services", &service.name, "ports"]).index(index);
                losses.add(&path, format!("one of {first}-{last} cannot be chosen: it is {first}"));
            }
            all["published"] = first.into();
        }
        // The reference writes `ingress` for every port; where it stands in the file it is the default as well.
        all["mode"] = mode(port).into();
        all
    });
    each.collect()
}

fn mode(port: &Port) -> &str {
    port.mode.as_deref().unwrap_or("ingress")
}

fn volumes(service: &Service, losses: &mut Losses<'_>) -> Json {
    let mut all = Vec::new();
    for (index, volume) in service.volumes.iter().enumerate() {
        let path = Path::keys(&["services", &service.name, "volumes"]).index(index);
        let mut mount = json!({ "target": volume.target() });
        match volume {
            ServiceVolume::Bind { source, bind, .. } => {
                losses.add(&path, format!("each node's own {source} is mounted, and it has to be there"));
                mount["type"] = "bind".into();
                mount["source"] = source.clone().into();
                if let Some(propagation) = bind.as_ref().and_then(|bind| bind.propagation.clone()) {
                    mount["bind"] = json!({ "propagation": propagation });
                }
            }
            ServiceVolume::Volume { source, volume: options, .. } => {
                mount["type"] = "volume".into();
                if let Some(source) = source.as_ref().filter(|source| !source.is_empty()) {
                    mount["source"] = source.clone().into();
                }
                if let Some(options) =
                    options.as_ref().filter(|options| options.nocopy || options.subpath.is_some())
                {
                    let mut details = json!({ "nocopy": options.nocopy });
                    if let Some(path) = &options.subpath {
                        details["subpath"] = path.clone().into();
                    }
                    mount["volume"] = details;
                }
            }
            ServiceVolume::Tmpfs { tmpfs, .. } => {
                mount["type"] = "tmpfs".into();
                if let Some(size) = tmpfs.as_ref().map(|options| options.size.0).filter(|size| *size > 0) {
                    mount["tmpfs"] = json!({ "size": size });
                }
            }
            ServiceVolume::Cluster { source, .. } => {
                mount["type"] = "cluster".into();
                mount["source"] = source.clone().into();
            }
            ServiceVolume::Npipe { source, .. } => {
                mount["type"] = "npipe".into();
                mount["source"] = source.clone().into();
            }
            ServiceVolume::Image { .. } => {
                losses.add(&path, "`docker stack deploy` takes no mounts of images");
                continue;
            }
        }
        if volume.read_only() {
            mount["read_only"] = true.into();
        }
        all.push(mount);
    }
    for (index, text) in service.tmpfs.iter().enumerate() {
        let (target, options) = text.split_once(':').unwrap_or((text, ""));
        let mut mount = json!({ "type": "tmpfs", "target": target });
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("size", size)) => {
                    let size = size.parse::<engine::quantity::ByteSize>().map_or(0, |size| size.0);
                    mount["tmpfs"] = json!({ "size": size });
                }
                _ => {
                    let path = Path::keys(&["services", &service.name, "tmpfs"]).index(index);
                    losses.add(&path, format!("`docker stack deploy` takes no option {option:?} of a tmpfs"));
                }
            }
        }
        all.push(mount);
    }
    all.into()
}

fn reference(reference: &FileReference) -> Json {
    let mut all = json!({ "source": reference.source });
    let texts = [("target", &reference.target), ("uid", &reference.uid), ("gid", &reference.gid)];
    for (key, text) in texts {
        if let Some(text) = text {
            all[key] = text.clone().into();
        }
    }
    if let Some(mode) = reference.mode {
        all["mode"] = mode.into();
    }
    all
}

/// `deploy`, with what stands beside it in the service.
fn deploy(project: &Project, service: &Service) -> Json {
    let said = service.deploy.clone().unwrap_or_default();
    let Ok(Json::Object(mut all)) = serde_json::to_value(&said) else { return Json::Null };
    all.remove("resources");
    if all.get("placement").is_some_and(|placement| *placement == json!({})) {
        all.remove("placement");
    }
    if service.scale.is_some() || said.replicas.is_some() {
        all.insert("replicas".to_owned(), service.replicas().into());
    }
    if let Some(policy) = restart_policy(project, service).filter(|_| said.restart_policy.is_none()) {
        all.insert("restart_policy".to_owned(), policy);
    }
    let resources = resources(service);
    if resources.as_object().is_some_and(|resources| !resources.is_empty()) {
        all.insert("resources".to_owned(), resources);
    }
    if let Some(platform) = &service.platform {
        let mut constraints = said.placement.constraints.clone();
        for (key, part) in ["node.platform.os", "node.platform.arch"].into_iter().zip(platform.split('/')) {
            // Nodes call these processors by the kernel's names.
            let part = match part {
                "amd64" => "x86_64",
                "arm64" => "aarch64",
                part => part,
            };
            constraints.push(format!("{key}=={part}"));
        }
        let placement = all.entry("placement").or_insert_with(|| json!({}));
        placement["constraints"] = json!(constraints);
    }
    Json::Object(all)
}

fn restart_policy(project: &Project, service: &Service) -> Option<Json> {
    use engine::container::spec::RestartPolicy;
    let is_job = project.jobs().contains(service.name.as_str());
    Some(match service.restart {
        Some(RestartPolicy::Always | RestartPolicy::UnlessStopped) => json!({ "condition": "any" }),
        Some(RestartPolicy::OnFailure(0)) => json!({ "condition": "on-failure" }),
        Some(RestartPolicy::OnFailure(tries)) => json!({ "condition": "on-failure", "max_attempts": tries }),
        Some(RestartPolicy::No) => json!({ "condition": "none" }),
        None if is_job => json!({ "condition": "on-failure" }),
        None => return None,
    })
}

fn resources(service: &Service) -> Json {
    let said = service.deploy.clone().unwrap_or_default().resources;
    let (limits, reserved) = (said.limits.unwrap_or_default(), said.reservations.unwrap_or_default());
    let mut most = quantities(limits::most(service));
    let mut least = quantities(limits::least(service));
    if let Some(pids) = [limits.pids, service.pids_limit].into_iter().find(|pids| *pids > 0) {
        most.insert("pids".to_owned(), pids.into());
    }
    if !reserved.generic_resources.is_empty() {
        least.insert("generic_resources".to_owned(), json!(reserved.generic_resources));
    }
    let mut all = Map::new();
    for (key, map) in [("limits", most), ("reservations", least)] {
        if !map.is_empty() {
            all.insert(key.to_owned(), Json::Object(map));
        }
    }
    Json::Object(all)
}

fn quantities(amount: Amount) -> Map<String, Json> {
    let processors = amount.processors.map(|number| ("cpus".to_owned(), number.to_string().into()));
    let memory = amount.memory.map(|size| ("memory".to_owned(), size.0.to_string().into()));
    processors.into_iter().chain(memory).collect()
}
