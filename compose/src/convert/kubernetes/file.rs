//! ConfigMaps and Secrets, and the claims of volumes.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::id::Digest;
use serde_json::{Map, Value as Json, json};

use super::Cluster;
use super::mount::{claim, is_claimed};
use super::name::{data_key, label};
use super::pod::Pod;
use crate::model::FileObject;
use crate::value::Path;

/// The two kinds of files that are not in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Config,
    Secret,
}

// === impl Kind ===

impl Kind {
    /// In names.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Secret => "secret",
        }
    }

    /// As the source of a volume.
    pub(super) fn source(self) -> &'static str {
        match self {
            Self::Config => "configMap",
            Self::Secret => "secret",
        }
    }

    fn section(self) -> &'static str {
        match self {
            Self::Config => "configs",
            Self::Secret => "secrets",
        }
    }
}

// === impl Cluster ===

impl Cluster<'_, '_> {
    /// The project's objects of a kind.
    pub(super) fn objects_of(&self, kind: Kind) -> &BTreeMap<String, FileObject> {
        match kind {
            Kind::Config => &self.project.configs,
            Kind::Secret => &self.project.secrets,
        }
    }

    pub(super) fn add_files(&mut self) {
        for kind in [Kind::Config, Kind::Secret] {
            for (key, object) in self.objects_of(kind).clone() {
                if !object.external {
                    self.add_file(kind, &key, &object);
                }
            }
        }
    }

    fn add_file(&mut self, kind: Kind, key: &str, object: &FileObject) {
        let path = Path::keys(&[kind.section(), key]);
        let Some(content) = self.content(&path, object) else { return };
        let annotations = self.annotations(&path.key("labels"), &object.labels);
        let name = label(&object.name);
        let entry = data_key(key);
        match kind {
            Kind::Secret => {
                let data = json!({ entry: STANDARD.encode(&content) });
                let parts = json!({ "type": "Opaque", "data": data });
                self.add_annotated("v1", "Secret", &name, annotations, parts);
            }
            Kind::Config => {
                self.add_annotated("v1", "ConfigMap", &name, annotations, config_data(&entry, &content));
            }
        }
    }

    /// What an object holds. What cannot be had is an error: an empty secret would be worse.
    fn content(&mut self, path: &Path, object: &FileObject) -> Option<Vec<u8>> {
        if let Some(file) = &object.file {
            return match std::fs::read(file) {
                Ok(content) => Some(content),
                Err(error) => {
                    self.losses.refuse(&path.key("file"), format!("read {file}: {error}"), "");
                    None
                }
            };
        }
        if let Some(text) = object.value.as_ref().or(object.content.as_ref()) {
            return Some(text.clone().into_bytes());
        }
        let variable = object.environment.as_deref().unwrap_or_default();
        let message = format!("the variable {variable} is not set");
        self.losses.refuse(
            &path.key("environment"),
            message,
            "set it, or make the object in the cluster and write `external: true`",
        );
        None
    }

    /// A file that is mounted from this machine, as a ConfigMap: its name and the key of the file in it.
    pub(super) fn add_bound_file(&mut self, source: &str, content: &[u8]) -> (String, String) {
        let key = data_key(source.rsplit('/').next().unwrap_or(source));
        // Two directories may have files of one name.
        let place = Digest::of(source.as_bytes()).hex().get(..8).unwrap_or_default().to_owned();
        let name = label(&format!("{}-file-{place}", self.project.name));
        self.add("v1", "ConfigMap", &name, config_data(&key, content));
        (name, key)
    }

    /// The digest of all configurations of a pod's services; none when there are none.
    pub(super) fn configs_digest(&self, pod: &Pod<'_>) -> Option<String> {
        let configs = pod.everybody().flat_map(|service| &service.configs);
        let mut digests: Vec<String> = configs
            .filter_map(|config| self.project.configs.get(&config.source))
            .filter_map(|config| Some(format!("{}={}", config.name, config.digest.as_ref()?.hex())))
            .collect();
        digests.sort();
        digests.dedup();
        (!digests.is_empty()).then(|| Digest::of(digests.join(",").as_bytes()).hex().to_owned())
    }

    /// A claim for each volume that is not each pod's own.
    pub(super) fn add_claims(&mut self) {
        for (key, volume) in self.project.volumes.clone() {
            let path = Path::keys(&["volumes", &key]);
            if volume.driver.as_deref().is_some_and(|driver| !matches!(driver, "" | "local")) {
                self.losses.add(&path.key("driver"), "the storage class of the cluster provides the volume");
            }
            if is_claimed(&volume) && !volume.driver_opts.is_empty() {
                let why = "the storage class of the cluster provides the volume";
                self.losses.add(&path.key("driver_opts"), why);
            }
            let users = self.project.services.values().filter(|service| service.uses_volume(&key)).count();
            if volume.external || !is_claimed(&volume) || users == 0 || self.is_own(&key) {
                continue;
            }
            let annotations = self.annotations(&path.key("labels"), &volume.labels);
            let shared = users > 1
                || self
                    .project
                    .services
                    .values()
                    .any(|service| service.uses_volume(&key) && service.replicas() > 1);
            let mode = if shared { "ReadWriteMany" } else { "ReadWriteOnce" };
            let parts = json!({ "spec": claim(&self.options.volume_size, mode) });
            self.add_annotated("v1", "PersistentVolumeClaim", &label(&volume.name), annotations, parts);
        }
    }
}

fn config_data(key: &str, content: &[u8]) -> Json {
    let mut data = Map::new();
    match std::str::from_utf8(content) {
        Ok(text) => {
            data.insert(key.to_owned(), text.into());
            json!({ "data": data })
        }
        Err(_) => {
            data.insert(key.to_owned(), STANDARD.encode(content).into());
            json!({ "binaryData": data })
        }
    }
}
