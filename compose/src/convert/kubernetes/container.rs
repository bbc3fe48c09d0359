//! One container of a pod.

use serde_json::{Map, Value as Json, json};

use super::Cluster;
use super::mount::Volumes;
use super::name::{bytes, label, literal, ports, processors};
use super::pod::environment;
use super::probe::probes;
use crate::convert::image;
use crate::convert::limits::{self, Amount};
use crate::model::{DeviceRequest, Hook, PreStart, Service};
use crate::value::Path;

// === impl Cluster ===

impl Cluster<'_, '_> {
    /// The container of a service; one that runs to its end before the others has no probes and no hooks.
    pub(super) fn container(&mut self, service: &Service, volumes: &mut Volumes<'_>, stays: bool) -> Json {
        let mut all = Map::new();
        let mut set = |key: &str, value: Json| all.insert(key.to_owned(), value);
        set("name", label(&service.name).into());
        set("image", image(self.project, service, "a cluster", self.losses).into());
        if let Some(policy) = pull_policy(service) {
            set("imagePullPolicy", policy.into());
        }
        self.program(service, &mut set);
        self.report_unset(service);
        let variables = environment(&service.environment);
        if !variables.is_empty() {
            set("env", variables.into());
        }
        let listens: Vec<Json> =
            ports(service).into_iter().map(|port| container_port(service, port)).collect();
        if stays && !listens.is_empty() {
            set("ports", listens.into());
        }
        let resources = self.resources(service);
        if !resources.is_empty() {
            set("resources", Json::Object(resources));
        }
        let context = self.container_security(service);
        if !context.is_empty() {
            set("securityContext", Json::Object(context));
        }
        if let Some(directory) = &service.working_dir {
            set("workingDir", directory.clone().into());
        }
        for (key, is_set) in [("stdin", service.stdin_open), ("tty", service.tty)] {
            if is_set {
                set(key, true.into());
            }
        }
        let mounts = self.mounts(service, volumes);
        if !mounts.is_empty() {
            set("volumeMounts", mounts.into());
        }
        if stays {
            for (key, probe) in probes(service, self.losses) {
                set(key, probe);
            }
            let lifecycle = self.lifecycle(service);
            if !lifecycle.is_empty() {
                set("lifecycle", Json::Object(lifecycle));
            }
        }
        Json::Object(all)
    }

    fn program(&mut self, service: &Service, set: &mut dyn FnMut(&str, Json) -> Option<Json>) {
        for (key, field, words) in
            [("entrypoint", "command", &service.entrypoint), ("command", "args", &service.command)]
        {
            match words.as_deref() {
                // With an entrypoint of its own the image's command is dropped anyway.
                Some([]) if key == "command" && service.entrypoint.is_some() => {}
                Some([]) => {
                    let why = "it cannot be emptied: the image's holds";
                    self.losses.of_service(&service.name, &[key], why);
                }
                Some(words) => {
                    set(field, words.iter().map(|word| literal(word)).collect());
                }
                None => {}
            }
        }
    }

    fn report_unset(&mut self, service: &Service) {
        for name in service.environment.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| name) {
            let why = "a variable cannot be taken away: the image's value holds";
            self.losses.of_service(&service.name, &["environment", name], why);
        }
    }

    /// Limits and requests.
    fn resources(&mut self, service: &Service) -> Map<String, Json> {
        let shares = service.cpu_shares.max(0) as f64 / 1024.0;
        let mut asked = limits::least(service);
        asked.processors = asked.processors.or(Some(shares).filter(|number| *number > 0.0));
        let mut most = quantities(limits::most(service));
        let least = quantities(asked);
        let path = Path::keys(&["services", &service.name, "gpus"]);
        self.devices(&service.gpus, &path, &mut most);
        let reserved = service.deploy.as_ref().and_then(|deploy| deploy.resources.reservations.as_ref());
        let path = Path::keys(&["services", &service.name, "deploy", "resources", "reservations", "devices"]);
        self.devices(reserved.map_or(&[], |reserved| &reserved.devices), &path, &mut most);
        let mut all = Map::new();
        for (key, map) in [("limits", most), ("requests", least)] {
            if !map.is_empty() {
                all.insert(key.to_owned(), Json::Object(map));
            }
        }
        all
    }

    fn devices(&mut self, requests: &[DeviceRequest], path: &Path, limits: &mut Map<String, Json>) {
        for (index, request) in requests.iter().enumerate() {
            let vendor = match request.driver.as_deref() {
                None | Some("" | "nvidia") => "nvidia.com/gpu",
                Some("amd") => "amd.com/gpu",
                Some(_) => {
                    self.losses.add(&path.index(index), "no device plug-in is known for this driver");
                    continue;
                }
            };
            if !request.device_ids.is_empty() {
                let why = "a device plug-in chooses the devices";
                self.losses.add(&path.index(index).key("device_ids"), why);
            }
            let count = match (request.count, request.device_ids.len()) {
                (count, _) if count > 0 => count,
                (_, 0) => {
                    self.losses.add(&path.index(index), "a pod asks for a number of devices: 1 is asked for");
                    1
                }
                (_, ids) => ids as i64,
            };
            limits.insert(vendor.to_owned(), count.to_string().into());
        }
    }

    fn lifecycle(&mut self, service: &Service) -> Map<String, Json> {
        let mut all = Map::new();
        for (key, field, hooks) in
            [("post_start", "postStart", &service.post_start), ("pre_stop", "preStop", &service.pre_stop)]
        {
            let commands: Vec<Vec<String>> = hooks.iter().filter_map(hook_command).collect();
            let command = match commands.as_slice() {
                [] => continue,
                [one] => one.clone(),
                several => {
                    let lines: Vec<String> = several.iter().map(|words| shell_line(words)).collect();
                    vec!["sh".to_owned(), "-c".to_owned(), lines.join(" && ")]
                }
            };
            all.insert(field.to_owned(), json!({ "exec": { "command": command } }));
            if key == "post_start" {
                // Docker runs it after the start as well, but does not hold the container back.
                continue;
            }
            if service.stop_grace_period.is_none() {
                let why =
                    "the command and the end of the program share 30 s, unless stop_grace_period is given";
                self.losses.of_service(&service.name, &[key], why);
            }
        }
        all
    }

    /// The init containers of a service.
    pub(super) fn pre_start(&mut self, service: &Service, volumes: &mut Volumes<'_>) -> Vec<Json> {
        service
            .pre_start
            .iter()
            .enumerate()
            .map(|(index, step)| self.step(service, index, step, volumes))
            .collect()
    }

    fn step(&mut self, service: &Service, index: usize, step: &PreStart, volumes: &mut Volumes<'_>) -> Json {
        let mut like = service.clone();
        like.entrypoint = None;
        like.command.clone_from(&step.command);
        like.privileged = step.privileged;
        like.user = step.user.clone().or(like.user);
        like.working_dir = step.working_dir.clone().or(like.working_dir);
        like.environment.extend(step.environment.clone());
        if let Some(image) = &step.image {
            like.image = Some(image.clone());
        }
        let mut container = self.container(&like, volumes, false);
        container["name"] = format!("{}-before-{}", label(&service.name), index + 1).into();
        container
    }
}

fn quantities(amount: Amount) -> Map<String, Json> {
    let processors = amount.processors.map(|number| ("cpu".to_owned(), processors(number)));
    let memory = amount.memory.map(|size| ("memory".to_owned(), bytes(size)));
    processors.into_iter().chain(memory).collect()
}

fn pull_policy(service: &Service) -> Option<&'static str> {
    use crate::model::PullPolicy;
    Some(match service.pull()? {
        PullPolicy::Always | PullPolicy::After(_) => "Always",
        PullPolicy::Never => "Never",
        PullPolicy::Missing | PullPolicy::Build => "IfNotPresent",
    })
}

fn container_port(service: &Service, (port, protocol): (u16, &'static str)) -> Json {
    let mut all = json!({ "containerPort": port, "protocol": protocol });
    let on_node = service.ports.iter().find(|published| {
        published.target == port
            && super::name::protocol(published.protocol) == protocol
            && published.mode.as_deref() == Some("host")
            && service.deploy.is_some()
    });
    if let Some((first, _)) = on_node.and_then(crate::model::Port::published_range) {
        all["hostPort"] = first.into();
    }
    all
}

/// The command of a hook with its directory and variables, which the API has no fields for.
fn hook_command(hook: &Hook) -> Option<Vec<String>> {
    let command = hook.command.clone().filter(|command| !command.is_empty())?;
    let variables: Vec<String> = hook
        .environment
        .iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?)))
        .collect();
    if variables.is_empty() && hook.working_dir.is_none() {
        return Some(command);
    }
    let enter = hook.working_dir.iter().map(|directory| format!("cd {} && ", shell_word(directory)));
    let mut words = Vec::new();
    if !variables.is_empty() {
        words.push("env".to_owned());
        words.extend(variables);
    }
    words.extend(command);
    Some(vec!["sh".to_owned(), "-c".to_owned(), enter.collect::<String>() + "exec " + &shell_line(&words)])
}

fn shell_line(words: &[String]) -> String {
    words.iter().map(|word| shell_word(word)).collect::<Vec<_>>().join(" ")
}

fn shell_word(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
