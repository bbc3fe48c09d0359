//! Builds as a file of `docker buildx bake` (docs.docker.com/build/bake/reference), as docker compose writes it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value as Json, json};

use crate::build::{BuildFlags, arguments};
use crate::desired::Desired;
use crate::model::{Build, Project, Service};
use crate::paths::is_remote;

/// The builds of some services and of those they start from.
pub fn bake(
    project: &Project,
    desired: &Desired,
    services: &BTreeSet<String>,
    flags: &BuildFlags,
    pushes: bool,
) -> Json {
    let names = target_names(project);
    let mut targets = Map::new();
    let mut default = Vec::new();
    for (name, service) in &project.services {
        let Some(build) = service.build.as_ref().filter(|_| services.contains(name)) else { continue };
        let image = desired.services.get(name).map_or("", |service| service.image.name.as_str());
        let target = Target { project, service, build, image, flags, pushes, names: &names };
        targets.insert(names[name].clone(), target.to_json());
        default.push(names[name].clone());
    }
    json!({ "group": { "default": { "targets": default } }, "target": targets })
}

/// What the target of each service is called. It has no dots, and is nobody else's.
fn target_names(project: &Project) -> BTreeMap<&String, String> {
    let (dotted, plain): (Vec<_>, Vec<_>) = project.services.keys().partition(|name| name.contains('.'));
    let mut names: BTreeMap<&String, String> = plain.into_iter().map(|name| (name, name.clone())).collect();
    let mut taken: BTreeSet<String> = names.values().cloned().collect();
    for service in dotted {
        let mut name = service.replace('.', "_");
        while !taken.insert(name.clone()) {
            name.push('_');
        }
        names.insert(service, name);
    }
    names
}

struct Target<'a> {
    project: &'a Project,
    service: &'a Service,
    build: &'a Build,
    image: &'a str,
    flags: &'a BuildFlags,
    pushes: bool,
    names: &'a BTreeMap<&'a String, String>,
}

// === impl Target ===

impl Target<'_> {
    fn to_json(&self) -> Json {
        let Self { build, flags, .. } = self;
        let mut target = Fields(Map::new());
        target.put("context", &self.context());
        target.put("contexts", &self.contexts());
        target.put("dockerfile", &self.dockerfile());
        target.put("dockerfile-inline", build.dockerfile_inline.as_deref().unwrap_or_default());
        let mut args = arguments(self.project, build);
        args.extend(flags.args.clone());
        target.put("args", &args);
        target.put("labels", &build.labels);
        target.put("tags", &self.tags());
        target.put("cache-from", &build.cache_from);
        target.put("cache-to", &build.cache_to);
        target.put("target", build.target.as_deref().unwrap_or_default());
        target.put("secret", &self.secrets());
        target.put("ssh", &self.ssh());
        target.put("platforms", &self.platforms());
        target.put("pull", &(build.pull || flags.pull));
        target.put("no-cache", &(build.no_cache || flags.no_cache));
        target.put("network", build.network.as_deref().unwrap_or_default());
        target.put("no-cache-filter", &build.no_cache_filter);
        let shm_size = Some(build.shm_size.0).filter(|size| *size > 0);
        target.put("shm-size", &shm_size.map(|size| size.to_string()).unwrap_or_default());
        target.put("ulimits", &self.ulimits());
        target.put("call", if flags.check { "lint" } else { "" });
        target.put("entitlements", &self.entitlements());
        target.put("extra-hosts", &self.extra_hosts());
        target.put("output", &[self.output()]);
        target.put("attest", &self.attest());
        Json::Object(target.0)
    }

    fn context(&self) -> String {
        self.path(self.build.context.as_deref().unwrap_or("."))
    }

    fn path(&self, path: &str) -> String {
        if is_remote(path) {
            return path.to_owned();
        }
        let whole = self.project.working_dir.join(path);
        crate::shorthand::clean(&whole.to_string_lossy())
    }

    fn dockerfile(&self) -> String {
        let Some(file) = self.build.dockerfile.as_deref().filter(|_| self.build.dockerfile_inline.is_none())
        else {
            return String::new();
        };
        let context = self.context();
        if is_remote(&context) {
            return file.to_owned();
        }
        crate::shorthand::clean(&Path::new(&context).join(file).to_string_lossy())
    }

    fn contexts(&self) -> BTreeMap<&String, String> {
        let source = |source: &String| match source.strip_prefix("service:") {
            // A build from a service that is not there was refused when the file was read.
            Some(service) => {
                let target = self.names.get(&service.to_owned()).map_or(service, String::as_str);
                format!("target:{target}")
            }
            None => self.path(source),
        };
        self.build.additional_contexts.iter().map(|(name, text)| (name, source(text))).collect()
    }

    fn tags(&self) -> Vec<&str> {
        let mut tags: Vec<&str> = self.build.tags.iter().map(String::as_str).collect();
        if !tags.contains(&self.image) {
            tags.push(self.image);
        }
        tags
    }

    fn secrets(&self) -> Vec<String> {
        let secret = |reference: &crate::model::FileReference| {
            let object = self.project.secrets.get(&reference.source)?;
            let id = reference.target.as_ref().filter(|target| !target.is_empty());
            let id = id.unwrap_or(&reference.source);
            match (&object.file, &object.environment) {
                (Some(file), _) => Some(format!("id={id},type=file,src={file}")),
                (None, Some(variable)) => Some(format!("id={id},type=env,env={variable}")),
                (None, None) => None,
            }
        };
        self.build.secrets.iter().filter_map(secret).collect()
    }

    fn ssh(&self) -> Vec<String> {
        let own = self.build.ssh.iter().map(|(id, socket)| format!("{id}={socket}"));
        own.chain(self.flags.ssh.iter().cloned()).collect()
    }

    fn platforms(&self) -> Vec<&String> {
        let default = self.project.platform(self.service).filter(|_| self.build.platforms.is_empty());
        self.build.platforms.iter().chain(default).collect()
    }

    fn ulimits(&self) -> Vec<String> {
        let limit = |(name, limit): (&String, &crate::model::Ulimit)| {
            if limit.soft() == limit.hard() {
                format!("{name}={}", limit.soft())
            } else {
                format!("{name}={}:{}", limit.soft(), limit.hard())
            }
        };
        self.build.ulimits.iter().map(limit).collect()
    }

    fn entitlements(&self) -> Vec<&str> {
        let mut all: Vec<&str> = self.build.entitlements.iter().map(String::as_str).collect();
        if self.build.privileged && !all.contains(&"security.insecure") {
            all.push("security.insecure");
        }
        all
    }

    /// Several addresses of one name stand behind each other.
    fn extra_hosts(&self) -> BTreeMap<&str, String> {
        let mut hosts: BTreeMap<&str, String> = BTreeMap::new();
        for (name, address) in self.build.extra_hosts.iter().filter_map(|line| line.split_once(['=', ':'])) {
            let addresses = hosts.entry(name).or_default();
            if !addresses.is_empty() {
                addresses.push(',');
            }
            addresses.push_str(address);
        }
        hosts
    }

    fn output(&self) -> &'static str {
        if self.pushes && self.service.image.is_some() {
            "type=registry"
        } else if self.platforms().len() > 1 {
            "type=image,push=false"
        } else {
            "type=docker"
        }
    }

    fn attest(&self) -> Vec<String> {
        let asked = [("provenance", &self.build.provenance), ("sbom", &self.build.sbom)];
        let said = asked.into_iter().filter_map(|(kind, asked)| Some((kind, asked.as_deref()?)));
        said.filter(|(_, asked)| !engine::builder::is_no(asked))
            .map(|(kind, asked)| match asked {
                "true" | "1" | "" => format!("type={kind}"),
                more => format!("type={kind},{more}"),
            })
            .collect()
    }
}

/// The fields of a target. What says nothing is left out.
struct Fields(Map<String, Json>);

impl Fields {
    fn put<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) {
        let value = plain(serde_json::to_value(value).unwrap_or_default());
        let says_nothing = match &value {
            Json::Null | Json::Bool(false) => true,
            Json::String(text) => text.is_empty(),
            Json::Array(items) => items.is_empty(),
            Json::Object(map) => map.is_empty(),
            _ => false,
        };
        if !says_nothing {
            self.0.insert(key.to_owned(), value);
        }
    }
}

/// Texts as they are meant: bake takes `${` and `%{` in them for templates.
fn plain(value: Json) -> Json {
    match value {
        Json::String(text) => Json::String(text.replace("${", "$${").replace("%{", "%%{")),
        Json::Array(items) => items.into_iter().map(plain).collect(),
        Json::Object(map) => map.into_iter().map(|(key, value)| (key, plain(value))).collect(),
        other => other,
    }
}
