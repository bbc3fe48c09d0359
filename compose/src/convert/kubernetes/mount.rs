//! What is mounted into a container, and the volumes of the pod behind it.

use std::collections::{BTreeMap, BTreeSet};

use engine::quantity::ByteSize;
use serde_json::{Map, Value as Json, json};

use super::Cluster;
use super::file::Kind;
use super::name::{bytes, data_key, label};
use crate::model::{BindOptions, FileReference, Service, ServiceVolume, Volume};
use crate::value::Path;

/// The largest ConfigMap the API server takes.
const MOST_OF_A_CONFIG_MAP: u64 = 1 << 20;

/// Directories that are each machine's own, and are meant as such when they are mounted.
const OF_THE_NODE: [&str; 7] = ["/dev", "/proc", "/sys", "/run", "/var/run", "/var/log", "/etc/localtime"];

/// The volumes of a pod, by name.
pub(super) struct Volumes<'a> {
    /// Keys of the volumes of which each pod has one of its own.
    own: &'a BTreeSet<String>,
    volumes: BTreeMap<String, Json>,
}

// === impl Volumes ===

impl<'a> Volumes<'a> {
    pub(super) fn new(own: &'a BTreeSet<String>) -> Self {
        Self { own, volumes: BTreeMap::new() }
    }

    fn add(&mut self, name: &str, source: Json) -> String {
        self.volumes.insert(name.to_owned(), source);
        name.to_owned()
    }

    /// The volumes, and the claims that each pod has for itself.
    pub(super) fn into_parts(self, cluster: &mut Cluster<'_, '_>) -> (Vec<Json>, Vec<Json>) {
        let volumes = self.volumes.into_iter().map(|(name, source)| {
            let mut volume = json!({ "name": name });
            if let (Some(volume), Json::Object(source)) = (volume.as_object_mut(), source) {
                volume.extend(source);
            }
            volume
        });
        let claims = self.own.iter().filter_map(|key| {
            let volume = cluster.project.volumes.get(key)?;
            let annotations = cluster.annotations(&Path::keys(&["volumes", key, "labels"]), &volume.labels);
            let mut metadata = json!({ "name": label(key) });
            if !annotations.is_empty() {
                metadata["annotations"] = Json::Object(annotations);
            }
            Some(
                json!({ "metadata": metadata, "spec": claim(&cluster.options.volume_size, "ReadWriteOnce") }),
            )
        });
        let claims = claims.collect();
        (volumes.collect(), claims)
    }
}

/// What a claim asks for.
pub(super) fn claim(size: &str, mode: &str) -> Json {
    json!({ "accessModes": [mode], "resources": { "requests": { "storage": size } } })
}

/// Whether a volume is a directory of its own, which a claim stands for.
pub(super) fn is_claimed(volume: &Volume) -> bool {
    !matches!(volume.driver_opts.get("type").map(String::as_str), Some("nfs" | "nfs4" | "tmpfs"))
}

/// A mount with what the modes of a bind say.
struct Mount<'a> {
    volume: String,
    target: &'a str,
    read_only: bool,
    sub_path: Option<String>,
    bind: Option<&'a BindOptions>,
}

impl Mount<'_> {
    fn json(self) -> Json {
        let mut mount = json!({ "name": self.volume, "mountPath": self.target });
        if self.read_only {
            mount["readOnly"] = true.into();
        }
        if let Some(path) = self.sub_path {
            mount["subPath"] = path.into();
        }
        match self.bind.and_then(|bind| bind.propagation.as_deref()) {
            Some("shared" | "rshared") => mount["mountPropagation"] = "Bidirectional".into(),
            Some("slave" | "rslave") => mount["mountPropagation"] = "HostToContainer".into(),
            _ => {}
        }
        mount
    }
}

// === impl Cluster ===

impl Cluster<'_, '_> {
    /// All mounts of a service, those it takes over from others among them.
    pub(super) fn mounts(&mut self, service: &Service, volumes: &mut Volumes<'_>) -> Vec<Json> {
        let mut all: BTreeMap<String, Json> = BTreeMap::new();
        for from in &service.volumes_from {
            let (name, mode) = from.split_once(':').unwrap_or((from, ""));
            match self.project.services.get(name) {
                Some(other) => {
                    for mut mount in self.volume_mounts(other, volumes) {
                        if mode == "ro" {
                            mount["readOnly"] = true.into();
                        }
                        all.insert(mount["mountPath"].to_string(), mount);
                    }
                }
                None => {
                    let why = "containers of other projects are in other pods";
                    self.losses.of_service(&service.name, &["volumes_from"], why);
                }
            }
        }
        let mut own = self.volume_mounts(service, volumes);
        own.extend(self.memory_mounts(service, volumes));
        for (kind, references) in [(Kind::Config, &service.configs), (Kind::Secret, &service.secrets)] {
            own.extend(references.iter().filter_map(|reference| self.file_mount(kind, reference, volumes)));
        }
        all.extend(own.into_iter().map(|mount| (mount["mountPath"].to_string(), mount)));
        all.into_values().collect()
    }

    fn volume_mounts(&mut self, service: &Service, volumes: &mut Volumes<'_>) -> Vec<Json> {
        let each = service.volumes.iter().enumerate();
        each.filter_map(|(index, volume)| self.volume_mount(service, index, volume, volumes)).collect()
    }

    fn volume_mount(
        &mut self,
        service: &Service,
        index: usize,
        volume: &ServiceVolume,
        volumes: &mut Volumes<'_>,
    ) -> Option<Json> {
        let path = Path::keys(&["services", &service.name, "volumes"]).index(index);
        let place = format!("{}-{}", label(&service.name), index + 1);
        let mut sub_path = None;
        let (name, bind) = match volume {
            ServiceVolume::Bind { source, bind, .. } => {
                let (source, path_inside) = self.bind(&path, source, volume.read_only(), bind.as_ref());
                sub_path = path_inside;
                (volumes.add(&place, source), bind.as_ref())
            }
            ServiceVolume::Volume { source: Some(key), volume: options, bind, .. } if !key.is_empty() => {
                sub_path = options.as_ref().and_then(|options| options.subpath.clone());
                (self.named(key, volumes), bind.as_ref())
            }
            ServiceVolume::Volume { .. } => (volumes.add(&place, json!({ "emptyDir": {} })), None),
            ServiceVolume::Tmpfs { tmpfs, .. } => {
                let size = tmpfs.as_ref().map(|options| options.size);
                (volumes.add(&place, memory(size)), None)
            }
            ServiceVolume::Image { source, image, .. } => {
                sub_path = image.as_ref().and_then(|image| image.subpath.clone());
                (volumes.add(&place, json!({ "image": { "reference": source } })), None)
            }
            ServiceVolume::Npipe { .. } => {
                self.losses.add(&path, "it concerns Windows containers");
                return None;
            }
            ServiceVolume::Cluster { .. } => {
                self.losses.add(&path, "a volume of a swarm is none of a cluster's: name a volume");
                return None;
            }
        };
        let read_only = volume.read_only();
        Some(Mount { volume: name, target: volume.target(), read_only, sub_path, bind }.json())
    }

    /// A file becomes a ConfigMap, and with it comes along; a directory is looked for on the node.
    fn bind(
        &mut self,
        path: &Path,
        source: &str,
        read_only: bool,
        bind: Option<&BindOptions>,
    ) -> (Json, Option<String>) {
        let is_of_node = OF_THE_NODE
            .iter()
            .any(|own| source.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
        let file = std::fs::metadata(source)
            .ok()
            .filter(|about| !is_of_node && about.is_file() && about.len() < MOST_OF_A_CONFIG_MAP)
            .and_then(|_| std::fs::read(source).ok());
        if let Some(content) = file {
            if !read_only {
                self.losses.add(path, "the file is brought along as a ConfigMap and cannot be written");
            }
            let (object, key) = self.add_bound_file(source, &content);
            return (json!({ "configMap": { "name": object } }), Some(key));
        }
        if !is_of_node {
            let why =
                format!("each node's own {source} is mounted, and what is in it here is not brought along");
            self.losses.add(path, why);
        }
        let made = bind.is_none_or(BindOptions::creates_host_path) && !is_of_node;
        let kind = if made { "DirectoryOrCreate" } else { "" };
        (json!({ "hostPath": { "path": source, "type": kind } }), None)
    }

    /// The volume of a key under `volumes`.
    fn named(&mut self, key: &str, volumes: &mut Volumes<'_>) -> String {
        let name = label(key);
        let Some(volume) = self.project.volumes.get(key) else { return name };
        if volumes.own.contains(key) {
            return name;
        }
        let options = &volume.driver_opts;
        let flags = options.get("o").map(String::as_str).unwrap_or_default();
        let flag = |wanted: &str| {
            flags.split(',').find_map(|flag| flag.strip_prefix(wanted)?.strip_prefix('=').map(str::to_owned))
        };
        let device = options.get("device").cloned().unwrap_or_default();
        let source = match options.get("type").map(String::as_str) {
            Some("nfs" | "nfs4") => {
                let (server, export) = device.split_once(':').unwrap_or(("", &device));
                let server = flag("addr").unwrap_or_else(|| server.to_owned());
                json!({ "nfs": { "server": server, "path": export } })
            }
            Some("tmpfs") => memory(flag("size").and_then(|size| size.parse().ok())),
            _ => json!({ "persistentVolumeClaim": { "claimName": label(&volume.name) } }),
        };
        volumes.add(&name, source)
    }

    fn memory_mounts(&mut self, service: &Service, volumes: &mut Volumes<'_>) -> Vec<Json> {
        let mut all = Vec::new();
        for (index, text) in service.tmpfs.iter().enumerate() {
            let (target, options) = text.split_once(':').unwrap_or((text, ""));
            let mut size = None;
            let mut read_only = false;
            for option in options.split(',').filter(|option| !option.is_empty()) {
                match option.split_once('=').unwrap_or((option, "")) {
                    ("size", number) => size = number.parse().ok(),
                    ("ro", _) => read_only = true,
                    ("rw" | "exec" | "nosuid" | "nodev", _) => {}
                    _ => {
                        let path = Path::keys(&["services", &service.name, "tmpfs"]).index(index);
                        self.losses.add(&path, format!("a directory in memory has no option {option:?}"));
                    }
                }
            }
            let volume = volumes.add(&format!("{}-memory-{}", label(&service.name), index + 1), memory(size));
            all.push(Mount { volume, target, read_only, sub_path: None, bind: None }.json());
        }
        if service.shm_size.0 > 0 {
            let volume =
                volumes.add(&format!("{}-shm", label(&service.name)), memory(Some(service.shm_size)));
            all.push(
                Mount { volume, target: "/dev/shm", read_only: false, sub_path: None, bind: None }.json(),
            );
        }
        all
    }

    /// A secret or configuration as a file.
    fn file_mount(
        &mut self,
        kind: Kind,
        reference: &FileReference,
        volumes: &mut Volumes<'_>,
    ) -> Option<Json> {
        let object = self.objects_of(kind).get(&reference.source)?;
        let key = data_key(if object.external { &object.name } else { &reference.source });
        let mut item = json!({ "key": key, "path": key });
        let mut name = format!("{}-{}", kind.word(), label(&reference.source));
        // Read by nobody who does not run as root, as in Compose, only when the file says so.
        if let Some(mode) = reference.mode {
            item["mode"] = (mode & 0o555).into();
            name = format!("{name}-{:o}", mode & 0o777);
        }
        let mut source = Map::new();
        let field = if kind == Kind::Secret { "secretName" } else { "name" };
        source.insert(field.to_owned(), label(&object.name).into());
        source.insert("items".to_owned(), json!([item]));
        let volume = volumes.add(&name, json!({ kind.source(): source }));
        let target = match (&reference.target, kind) {
            (Some(target), _) if target.starts_with('/') => target.clone(),
            (target, Kind::Secret) => {
                format!("/run/secrets/{}", target.as_ref().unwrap_or(&reference.source))
            }
            (target, Kind::Config) => format!("/{}", target.as_ref().unwrap_or(&reference.source)),
        };
        Some(Mount { volume, target: &target, read_only: true, sub_path: Some(key), bind: None }.json())
    }
}

/// A directory in memory.
fn memory(size: Option<ByteSize>) -> Json {
    let mut directory = json!({ "medium": "Memory" });
    if let Some(size) = size.filter(|size| size.0 > 0) {
        directory["sizeLimit"] = bytes(size);
    }
    json!({ "emptyDir": directory })
}
