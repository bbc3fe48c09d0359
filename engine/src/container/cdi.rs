//! Devices by name: what vendors' files say a container needs for one (Container Device Interface, SPEC.md of
//! github.com/cncf-tags/container-device-interface). The files are read when a container is made and again each
//! time it is started, because device numbers change.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::container::cgroup::Access;
use crate::container::failure::{AtStep, LaunchError};
use crate::container::plan::{
    DeviceNode, LaunchPlan, NodeKind, ResolvedMount, ResolvedSource, StatedAttributes, node_of, rule_for,
};
use crate::container::spec::Propagation;
use crate::paths::Root;

/// Where descriptions lie, the ones that win first.
#[derive(Debug)]
pub struct Registry {
    directories: Vec<PathBuf>,
}

/// A device that was found, with everything it asks for.
#[derive(Debug)]
pub struct Found {
    file: PathBuf,
    edits: Vec<Edits>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Description {
    kind: String,
    #[serde(default)]
    devices: Vec<Device>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    name: String,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    mounts: Vec<Mount>,
    hooks: Vec<Hook>,
    additional_gids: Vec<u32>,
    intel_rdt: Option<serde_json::Value>,
    net_devices: Vec<serde_json::Value>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    path: PathBuf,
    host_path: Option<PathBuf>,
    #[serde(rename = "type")]
    kind: Option<String>,
    major: Option<u32>,
    minor: Option<u32>,
    file_mode: Option<u32>,
    permissions: Option<String>,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    host_path: PathBuf,
    container_path: PathBuf,
    #[serde(default)]
    options: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hook {
    hook_name: String,
    path: PathBuf,
}

/// Whether a text is a qualified name: `vendor.com/class=device`. A path is none.
pub fn is_qualified(text: &str) -> bool {
    let word = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-.:".contains(c))
    };
    let parts = text.split_once('/').and_then(|(vendor, rest)| {
        let (class, name) = rest.split_once('=')?;
        Some([vendor, class, name])
    });
    parts.is_some_and(|parts| parts.into_iter().all(word))
}

// === impl Registry ===

impl Registry {
    /// Where an engine at this root looks.
    pub fn of(root: &Root) -> Self {
        Self { directories: vec![root.cdi(), "/var/run/cdi".into(), "/etc/cdi".into()] }
    }

    /// The device of this qualified name.
    ///
    /// # Errors
    /// When no file describes it, or one cannot be understood.
    pub fn find(&self, name: &str) -> Result<Found, LaunchError> {
        let (kind, device) = name.split_once('=').unwrap_or((name, ""));
        for file in self.files() {
            let description = Description::read(&file)?;
            if description.kind != kind {
                continue;
            }
            if let Some(found) = description.devices.into_iter().find(|known| known.name == device) {
                return Ok(Found { file, edits: vec![description.container_edits, found.container_edits] });
            }
        }
        Err(LaunchError::Invalid(format!(
            "no such device: {name}: no file in /etc/cdi or /var/run/cdi describes it (a vendor's toolkit writes one, \
             as with: nvidia-ctk cdi generate)"
        )))
    }

    /// The qualified names of the devices that are meant by one such name, by a kind with `=*`, which is all of it, or by
    /// a kind alone, which is the first; nothing when there is none.
    ///
    /// # Errors
    /// When a file cannot be understood.
    pub fn meant(&self, text: &str) -> Result<Vec<String>, LaunchError> {
        let (kind, device) = text.split_once('=').unwrap_or((text, ""));
        let mut found = Vec::new();
        for file in self.files() {
            let description = Description::read(&file)?;
            let devices = description.devices.into_iter().map(|device| device.name);
            let names = devices.filter(|name| matches!(device, "" | "*") || name == device);
            if description.kind == kind {
                found.extend(
                    names
                        .map(|name| format!("{kind}={name}"))
                        .filter(|name| !found.contains(name))
                        .collect::<Vec<_>>(),
                );
            }
        }
        if device.is_empty() {
            found.truncate(1);
        }
        Ok(found)
    }

    /// Adds what these devices ask for to a plan.
    pub(crate) fn inject(&self, names: &[String], plan: &mut LaunchPlan) -> Result<(), LaunchError> {
        let mut done = Vec::new();
        for name in names {
            let found = self.find(name)?;
            // What a file asks for whichever of its devices is used, is done once.
            let skipped = usize::from(done.contains(&found.file));
            for edits in &found.edits[skipped..] {
                edits.apply(name, plan)?;
            }
            done.push(found.file);
        }
        Ok(())
    }

    /// The descriptions, in the order in which they win.
    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for directory in &self.directories {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            let mut here: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
            here.retain(|path| {
                path.extension().is_some_and(|kind| kind == "json" || kind == "yaml" || kind == "yml")
            });
            here.sort();
            files.extend(here);
        }
        files
    }
}

// === impl Description ===

impl Description {
    fn read(file: &Path) -> Result<Self, LaunchError> {
        let text = fs::read_to_string(file).at("read the device description", file.display())?;
        serde_yaml::from_str(&text).map_err(|error| {
            LaunchError::Invalid(format!("the device description {}: {error}", file.display()))
        })
    }
}

// === impl Edits ===

impl Edits {
    fn apply(&self, device: &str, plan: &mut LaunchPlan) -> Result<(), LaunchError> {
        for entry in &self.env {
            let key = entry.split('=').next().unwrap_or_default();
            plan.process.env.retain(|known| known.split('=').next() != Some(key));
            plan.process.env.push(entry.clone());
        }
        for wanted in &self.device_nodes {
            let (node, access) = wanted.resolve(device)?;
            plan.device_rules.allow(rule_for(&node, access));
            plan.rootfs.devices.push(node);
        }
        for mount in &self.mounts {
            let mount = mount.resolve(device)?;
            plan.rootfs.mounts.retain(|known| known.target != mount.target);
            plan.rootfs.mounts.push(mount);
        }
        plan.process.groups.extend(self.additional_gids.iter().map(ToString::to_string));
        for hook in &self.hooks {
            let (name, path) = (&hook.hook_name, hook.path.display());
            plan.warnings.push(format!("device {device}: its {name} hook {path} is not run"));
        }
        for (there, what) in [
            (self.intel_rdt.is_some(), "cache allocation"),
            (!self.net_devices.is_empty(), "network devices"),
        ] {
            if there {
                plan.warnings.push(format!("device {device}: {what} is not supported"));
            }
        }
        Ok(())
    }
}

impl Node {
    fn resolve(&self, device: &str) -> Result<(DeviceNode, Access), LaunchError> {
        let host = self.host_path.as_ref().unwrap_or(&self.path);
        let wrong =
            |what: &str| LaunchError::Invalid(format!("device {device}: {} {what}", self.path.display()));
        let found = fs::metadata(host).ok().and_then(|found| node_of(&found, self.path.clone()));
        let mut node = match (found, self.major, self.minor) {
            (Some(node), ..) => node,
            (None, Some(major), Some(minor)) => DeviceNode {
                path: self.path.clone(),
                rdev: rustix::fs::makedev(major, minor),
                kind: if self.kind.as_deref() == Some("b") { NodeKind::Block } else { NodeKind::Character },
                mode: 0o666,
                uid: 0,
                gid: 0,
            },
            _ => return Err(wrong("is not a device node of the host")),
        };
        node.mode = self.file_mode.unwrap_or(node.mode);
        node.uid = self.uid.unwrap_or(node.uid);
        node.gid = self.gid.unwrap_or(node.gid);
        let access = Access::parse(self.permissions.as_deref().unwrap_or("rwm"));
        Ok((node, access.ok_or_else(|| wrong("has permissions other than r, w and m"))?))
    }
}

impl Mount {
    fn resolve(&self, device: &str) -> Result<ResolvedMount, LaunchError> {
        let (mut read_only, mut recursive, mut attributes) = (false, false, 0);
        let mut propagation = Propagation::Rprivate;
        for option in &self.options {
            match option.as_str() {
                "ro" => read_only = true,
                "rw" | "bind" | "" => {}
                "rbind" => recursive = true,
                "nosuid" => attributes |= libc::MOUNT_ATTR_NOSUID,
                "nodev" => attributes |= libc::MOUNT_ATTR_NODEV,
                "noexec" => attributes |= libc::MOUNT_ATTR_NOEXEC,
                "private" | "rprivate" => propagation = Propagation::Rprivate,
                "slave" | "rslave" => propagation = Propagation::Rslave,
                other => {
                    let path = self.container_path.display();
                    return Err(LaunchError::Invalid(format!(
                        "device {device}: the mount at {path} has an unknown option {other:?}"
                    )));
                }
            }
        }
        Ok(ResolvedMount {
            target: Path::new("/").join(&self.container_path),
            source: ResolvedSource::Bind {
                path: self.host_path.clone(),
                propagation,
                recursive,
                seed: false,
                subpath: None,
            },
            read_only,
            writable_below: false,
            attributes,
            stated: StatedAttributes::default(),
            owners: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qualified_name_is_no_path() {
        for name in ["nvidia.com/gpu=all", "vendor.com/class=dev:0", "intel.com/qat-vf=00_1"] {
            assert!(is_qualified(name), "{name}");
        }
        for path in ["/dev/fuse", "/dev/a=b", "a=b", "vendor/class", "vendor/class=", "a/b=c/d"] {
            assert!(!is_qualified(path), "{path}");
        }
    }

    #[test]
    fn the_first_directory_that_describes_a_device_wins() {
        let places = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let yaml = "cdiVersion: 0.6.0\nkind: acme.com/pad\ndevices:\n- name: one\n  containerEdits:\n    env: [A=1]\n";
        let json = r#"{"cdiVersion": "0.5.0", "kind": "acme.com/pad", "devices":
            [{"name": "one", "containerEdits": {}}, {"name": "two", "containerEdits": {"env": ["A=2"]}}]}"#;
        fs::write(places[0].path().join("pad.yaml"), yaml).unwrap();
        fs::write(places[1].path().join("pad.json"), json).unwrap();
        fs::write(places[1].path().join("README"), "nothing").unwrap();
        let registry = Registry { directories: places.iter().map(|place| place.path().to_owned()).collect() };
        let env = |name| {
            registry.find(name).unwrap().edits.into_iter().flat_map(|edits| edits.env).collect::<Vec<_>>()
        };
        assert_eq!(env("acme.com/pad=one"), ["A=1"]);
        assert_eq!(env("acme.com/pad=two"), ["A=2"]);
        let error = registry.find("acme.com/pad=three").unwrap_err();
        assert!(error.to_string().contains("acme.com/pad=three"), "{error}");
    }
}
