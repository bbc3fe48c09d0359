//! Whether what is referred to is there and what is said twice is said the same way. It judges, it changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::impossible::scope;
use crate::model::{DeviceRequest, FileObject, Project, Service, ServiceVolume, WatchAction};
use crate::schema::{Problem, suggestion};
use crate::value::Path;

/// Everything that is inconsistent in a project whose profiles have been applied.
pub(crate) fn check(project: &Project) -> Vec<Problem> {
    let mut problems = Vec::new();
    for service in project.services.values() {
        let mut found = Found { service, problems: &mut problems };
        found.source(&project.services);
        found.networks(project);
        found.dependencies(project);
        found.mounts(project);
        found.references(project);
        found.agreement();
        found.devices();
        found.watch();
        found.health();
    }
    container_names(project, &mut problems);
    resources(project, &mut problems);
    problems.extend(circles(project));
    problems
}

/// The files of secrets and configurations that services asked for, and those that they depend on, see and nobody can
/// read; those of every service when none is asked for.
pub(crate) fn missing_files(project: &Project, asked: &[String]) -> Vec<Problem> {
    let scope = scope(project, asked);
    let used = |key: &String| {
        let sees = |service: &Service| {
            service.secrets.iter().chain(&service.configs).any(|reference| reference.source == *key)
        };
        scope.iter().filter_map(|name| project.services.get(*name)).any(sees)
    };
    let mut problems = Vec::new();
    for (section, kind, objects) in
        [("secrets", "secret", &project.secrets), ("configs", "config", &project.configs)]
    {
        for (key, object) in objects.iter().filter(|(key, _)| used(key)) {
            let Some(Err(error)) = object.file.as_ref().map(std::fs::metadata) else { continue };
            let path = Path::keys(&[section, key, "file"]);
            problems
                .push(Problem::value(&path, format!("the file of {kind} {key:?} cannot be read: {error}")));
        }
    }
    problems
}

struct Found<'a> {
    service: &'a Service,
    problems: &'a mut Vec<Problem>,
}

// === impl Found ===

impl Found<'_> {
    fn path(&self, keys: &[&str]) -> Path {
        keys.iter().fold(Path::keys(&["services", &self.service.name]), |path, key| path.key(key))
    }

    fn push(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    fn name(&self) -> &str {
        &self.service.name
    }

    fn undefined<'n>(
        &mut self,
        path: &Path,
        kind: &str,
        wanted: &str,
        section: &str,
        known: impl Iterator<Item = &'n String>,
    ) {
        let mut problem = Problem::value(
            path,
            format!("service {:?} uses {kind} {wanted:?}, which is not defined", self.name()),
        )
        .resting_on(Path::keys(&[section, wanted]));
        problem.help = suggestion(wanted, known.map(String::as_str))
            .or_else(|| Some(format!("add it under the top-level key `{section}`")));
        self.push(problem);
    }

    fn source(&mut self, known: &BTreeMap<String, Service>) {
        let service = self.service;
        if service.build.is_none() && service.image.is_none() && service.provider.is_none() {
            let message = format!("service {:?} has neither an image nor a build", self.name());
            let problem = Problem::key(&self.path(&[]), message).with_help("add `image:` or `build:`");
            let keys = ["image", "build", "provider"];
            self.push(keys.iter().fold(problem, |problem, key| problem.resting_on(self.path(&[key]))));
        }
        let Some(build) = &service.build else { return };
        for (key, context) in &build.additional_contexts {
            let Some(name) = context.strip_prefix("service:") else { continue };
            if known.get(name).is_none_or(|service| service.build.is_none()) {
                let path = self.path(&["build", "additional_contexts", key]);
                let message =
                    format!("service {:?} builds from service {name:?}, which has no build", self.name());
                let other = Path::keys(&["services", name, "build"]);
                self.push(Problem::value(&path, message).resting_on(other));
            }
        }
        if build.dockerfile.is_some() && build.dockerfile_inline.is_some() {
            let path = self.path(&["build", "dockerfile_inline"]);
            self.push(Problem::key(&path, "dockerfile and dockerfile_inline exclude each other"));
        }
        if let Some(platform) = &service.platform
            && !build.platforms.is_empty()
            && !build.platforms.contains(platform)
        {
            let path = self.path(&["build", "platforms"]);
            self.push(Problem::value(
                &path,
                format!("build.platforms does not contain platform {platform:?}"),
            ));
        }
    }

    fn health(&mut self) {
        let test = self.service.healthcheck.as_ref().and_then(|check| check.test.first());
        if test.is_some_and(|first| !matches!(first.as_str(), "NONE" | "CMD" | "CMD-SHELL")) {
            let path = self.path(&["healthcheck", "test"]);
            let message = "a list begins with CMD, CMD-SHELL or NONE";
            let help = "write [CMD, program, argument], or one line for the shell";
            self.push(Problem::value(&path, message).with_help(help));
        }
    }

    fn networks(&mut self, project: &Project) {
        let service = self.service;
        if service.network_mode.is_some() && !service.networks.is_empty() {
            let path = self.path(&["network_mode"]);
            self.push(Problem::key(&path, "network_mode and networks exclude each other"));
        }
        for key in service.networks.keys().filter(|key| !project.networks.contains_key(*key)) {
            let path = self.path(&["networks", key]);
            self.undefined(&path, "network", key, "networks", project.networks.keys());
        }
    }

    fn dependencies(&mut self, project: &Project) {
        for (name, dependency) in &self.service.depends_on {
            if project.services.contains_key(name) || !dependency.required {
                continue;
            }
            let path = self.path(&["depends_on", name]);
            if let Some(disabled) = project.disabled_services.get(name) {
                let message = format!(
                    "service {:?} depends on {name:?}, which no active profile asks for",
                    self.name()
                );
                let help = format!("activate one of its profiles: {}", disabled.profiles.join(", "));
                self.push(Problem::value(&path, message).with_help(help));
            } else {
                let message = format!("service {:?} depends on {name:?}, which is not defined", self.name());
                let mut problem = Problem::value(&path, message).resting_on(Path::keys(&["services", name]));
                let known = project.services.keys().chain(project.disabled_services.keys());
                problem.help = suggestion(name, known.map(String::as_str));
                self.push(problem);
            }
        }
    }

    fn mounts(&mut self, project: &Project) {
        let service = self.service;
        let mut taken: BTreeMap<&str, String> = BTreeMap::new();
        for (index, entry) in service.tmpfs.iter().enumerate() {
            let target = entry.split(':').next().unwrap_or_default();
            taken.insert(target, format!("tmpfs[{index}]"));
        }
        for (index, volume) in service.volumes.iter().enumerate() {
            let path = self.path(&["volumes"]).index(index);
            if let Some(other) = taken.get(volume.target()) {
                let message = format!("{} is mounted by {other} already", volume.target());
                self.push(Problem::value(&path, message));
            }
            taken.insert(volume.target(), format!("volumes[{index}]"));
            match volume {
                ServiceVolume::Volume { source: Some(key), .. } if !project.volumes.contains_key(key) => {
                    self.undefined(&path, "volume", key, "volumes", project.volumes.keys());
                }
                ServiceVolume::Bind { source, .. } if source.is_empty() => {
                    self.push(Problem::value(&path, "a bind mount needs a source"));
                }
                _ => {}
            }
        }
    }

    fn references(&mut self, project: &Project) {
        let service = self.service;
        let groups = [
            (&["secrets"][..], &service.secrets, "secret", &project.secrets),
            (&["configs"], &service.configs, "config", &project.configs),
        ];
        let build = service.build.as_ref().map(|build| &build.secrets);
        let build = build.map(|secrets| (&["build", "secrets"][..], secrets, "secret", &project.secrets));
        for (keys, references, kind, known) in groups.into_iter().chain(build) {
            for (index, reference) in references.iter().enumerate() {
                if !known.contains_key(&reference.source) {
                    let path = self.path(keys).index(index);
                    let section = format!("{kind}s");
                    self.undefined(&path, kind, &reference.source, &section, known.keys());
                }
            }
        }
        for key in service.models.keys().filter(|key| !project.models.contains_key(*key)) {
            let path = self.path(&["models", key]);
            self.undefined(&path, "model", key, "models", project.models.keys());
        }
    }

    /// What can be said in two places must be said the same way in both.
    fn agreement(&mut self) {
        let service = self.service;
        let Some(deploy) = &service.deploy else { return };
        let limits = deploy.resources.limits.clone().unwrap_or_default();
        let reservations = deploy.resources.reservations.clone().unwrap_or_default();
        let differ = |a: f64, b: f64| a != 0.0 && b != 0.0 && a.total_cmp(&b).is_ne();
        let number = |size: engine::quantity::ByteSize| size.0 as f64;
        let scale = service.scale.zip(deploy.replicas).is_some_and(|(scale, replicas)| scale != replicas);
        let pairs = [
            ("scale", "deploy.replicas", scale),
            ("cpus", "deploy.resources.limits.cpus", differ(service.cpus, limits.cpus)),
            (
                "mem_limit",
                "deploy.resources.limits.memory",
                differ(number(service.mem_limit), number(limits.memory)),
            ),
            (
                "mem_reservation",
                "deploy.resources.reservations.memory",
                differ(number(service.mem_reservation), number(reservations.memory)),
            ),
            (
                "pids_limit",
                "deploy.resources.limits.pids",
                differ(service.pids_limit as f64, limits.pids as f64),
            ),
        ];
        for (short, long, _) in pairs.into_iter().filter(|(.., differ)| *differ) {
            let path = self.path(&[short]);
            self.push(Problem::value(&path, format!("{short} and {long} say different things")));
        }
    }

    fn devices(&mut self) {
        let service = self.service;
        let reserved = service
            .deploy
            .as_ref()
            .and_then(|deploy| deploy.resources.reservations.as_ref())
            .map_or(&[][..], |reservations| &reservations.devices);
        let both = |device: &DeviceRequest| device.count != 0 && !device.device_ids.is_empty();
        for (index, _) in service.gpus.iter().enumerate().filter(|(_, device)| both(device)) {
            let path = self.path(&["gpus"]).index(index);
            self.push(Problem::value(&path, "count and device_ids exclude each other"));
        }
        for (index, device) in reserved.iter().enumerate() {
            let path = self.path(&["deploy", "resources", "reservations", "devices"]).index(index);
            if both(device) {
                self.push(Problem::value(&path, "count and device_ids exclude each other"));
            }
            if device.capabilities.is_empty() {
                self.push(Problem::value(&path, "capabilities is missing, as in [gpu]"));
            }
        }
    }

    fn watch(&mut self) {
        let rules = self.service.develop.iter().flat_map(|develop| &develop.watch);
        let mut wrong = Vec::new();
        for (index, rule) in rules.enumerate() {
            let path = self.path(&["develop", "watch"]).index(index);
            let needs_target =
                matches!(rule.action, WatchAction::Sync | WatchAction::SyncRestart | WatchAction::SyncExec);
            if needs_target && rule.target.is_none() {
                wrong.push(Problem::value(&path, "a rule that syncs needs a target"));
            }
        }
        self.problems.extend(wrong);
    }
}

fn container_names(project: &Project, problems: &mut Vec<Problem>) {
    let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
    for service in project.services.values() {
        let Some(name) = service.container_name.as_deref() else { continue };
        let path = Path::keys(&["services", &service.name, "container_name"]);
        if service.replicas() > 1 {
            let message = format!(
                "service {:?} has {} containers and cannot have one name for all of them",
                service.name,
                service.replicas()
            );
            problems.push(Problem::value(&path, message).with_help("leave out container_name or the scale"));
        }
        match taken.get(name) {
            Some(other) => {
                let message = format!("the container name {name:?} is taken by service {other:?}");
                problems.push(Problem::value(&path, message));
            }
            None => drop(taken.insert(name, &service.name)),
        }
    }
}

fn resources(project: &Project, problems: &mut Vec<Problem>) {
    let mut external = |section: &str, key: &str, others: &[(&str, bool)]| {
        for (other, _) in others.iter().filter(|(_, is_set)| *is_set) {
            let path = Path::keys(&[section, key, other]);
            problems.push(Problem::key(&path, format!("external and {other} exclude each other")));
        }
    };
    for (key, network) in project.networks.iter().filter(|(_, network)| network.external) {
        let others = [
            ("driver", network.driver.is_some()),
            ("driver_opts", !network.driver_opts.is_empty()),
            ("ipam", network.ipam != crate::model::Ipam::default()),
            ("internal", network.internal),
            ("attachable", network.attachable),
            ("labels", !network.labels.is_empty()),
        ];
        external("networks", key, &others);
    }
    for (key, volume) in project.volumes.iter().filter(|(_, volume)| volume.external) {
        let others = [
            ("driver", volume.driver.is_some()),
            ("driver_opts", !volume.driver_opts.is_empty()),
            ("labels", !volume.labels.is_empty()),
        ];
        external("volumes", key, &others);
    }
    for (section, objects) in [("secrets", &project.secrets), ("configs", &project.configs)] {
        for (key, object) in objects {
            problems.extend(one_source(section, key, object));
        }
    }
}

fn one_source(section: &str, key: &str, object: &FileObject) -> Option<Problem> {
    let sources = [
        ("file", object.file.is_some()),
        ("environment", object.environment.is_some()),
        ("content", object.content.is_some()),
        ("external", object.external),
    ];
    let named: Vec<&str> = sources.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| *name).collect();
    let path = Path::keys(&[section, key]);
    match named.len() {
        1 => None,
        0 if object.driver.is_some() => None,
        0 => {
            let choice =
                if section == "secrets" { "file or environment" } else { "file, environment or content" };
            let problem = Problem::key(&path, format!("{section}.{key} needs a source: {choice}"));
            let keys = sources.iter().map(|(name, _)| *name).chain(["driver"]);
            Some(keys.fold(problem, |problem, key| problem.resting_on(path.key(key))))
        }
        _ => Some(Problem::key(
            &path,
            format!("{} exclude each other in {section}.{key}", named.join(" and ")),
        )),
    }
}

/// Circles of dependencies, each as a problem that names it, and none that has a service with another one in common. Each
/// edge is looked at once.
fn circles(project: &Project) -> Vec<Problem> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        Open,
        Done,
    }
    let mut problems = Vec::new();
    let mut told: BTreeSet<&str> = BTreeSet::new();
    let mut marks: BTreeMap<&str, Mark> = BTreeMap::new();
    for start in project.services.keys() {
        if marks.contains_key(start.as_str()) {
            continue;
        }
        marks.insert(start, Mark::Open);
        let mut trail = vec![(start.as_str(), project.services[start].depends_on.keys())];
        while let Some((name, dependencies)) = trail.last_mut() {
            let Some(next) = dependencies.next() else {
                marks.insert(name, Mark::Done);
                trail.pop();
                continue;
            };
            match (marks.get(next.as_str()), project.services.get(next)) {
                (None, Some(service)) => {
                    marks.insert(next, Mark::Open);
                    trail.push((next, service.depends_on.keys()));
                }
                (Some(Mark::Open), _) => {
                    let from = trail.iter().position(|(name, _)| name == next).unwrap_or(0);
                    let mut names: Vec<&str> = trail[from..].iter().map(|(name, _)| *name).collect();
                    if names.iter().any(|name| told.contains(name)) {
                        continue;
                    }
                    told.extend(&names);
                    let last = names[names.len() - 1];
                    names.push(next);
                    let path = Path::keys(&["services", last, "depends_on", next]);
                    let message =
                        format!("services depend on each other in a circle: {}", names.join(" -> "));
                    problems.push(Problem::value(&path, message));
                }
                _ => {}
            }
        }
    }
    problems
}
