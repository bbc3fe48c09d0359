//! The devices of a container: nodes of the host, those that vendors describe, and what may be done with them.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::{DeviceNode, NodeKind};
use crate::container::cgroup::{Access, DeviceKind, DeviceRule, Devices};
use crate::container::failure::{AtStep, LaunchError};
use crate::container::spec::{ContainerSpec, Device};

/// Nodes and rules by the specification alone.
pub(super) fn devices(spec: &ContainerSpec) -> Result<(Vec<DeviceNode>, Devices), LaunchError> {
    let mut nodes = Vec::new();
    if spec.security.privileged {
        walk_devices(Path::new("/dev"), Path::new("/dev"), &mut nodes);
        return Ok((nodes, Devices::All));
    }
    let mut rules = Devices::standard();
    for device in &spec.devices {
        let first = nodes.len();
        add_device(device, &mut nodes)?;
        let access = Access::parse(&device.permissions).ok_or_else(|| {
            LaunchError::Invalid(format!("invalid device permissions {:?}", device.permissions))
        })?;
        for node in &nodes[first..] {
            rules.allow(rule_for(node, access));
        }
    }
    for rule in &spec.device_rules {
        rules.allow(*rule);
    }
    Ok((nodes, rules))
}

/// The rule that lets a node be used.
pub(crate) fn rule_for(node: &DeviceNode, access: Access) -> DeviceRule {
    DeviceRule {
        kind: if node.kind == NodeKind::Block { DeviceKind::Block } else { DeviceKind::Character },
        major: Some(rustix::fs::major(node.rdev)),
        minor: Some(rustix::fs::minor(node.rdev)),
        access,
    }
}

fn add_device(device: &Device, nodes: &mut Vec<DeviceNode>) -> Result<(), LaunchError> {
    let host = device.host.display();
    let found = fs::metadata(&device.host).at("find the device", &host)?;
    if found.is_dir() {
        walk_devices(&device.host, &device.container, nodes);
        return Ok(());
    }
    let node = node_of(&found, device.container.clone())
        .ok_or_else(|| LaunchError::Invalid(format!("{host} is not a device node")))?;
    nodes.push(node);
    Ok(())
}

/// Every device below a directory, but for what a container has of its own. What cannot be read is left out.
fn walk_devices(host: &Path, container: &Path, nodes: &mut Vec<DeviceNode>) {
    const OWN: [&str; 5] = ["pts", "shm", "fd", "mqueue", "console"];
    let Ok(entries) = fs::read_dir(host) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Ok(found) = entry.metadata() else { continue };
        if OWN.iter().any(|own| name == *own) {
            continue;
        }
        if found.is_dir() {
            walk_devices(&entry.path(), &container.join(&name), nodes);
        } else {
            nodes.extend(node_of(&found, container.join(&name)));
        }
    }
}

/// The node of the container that stands for this one of the host.
pub(crate) fn node_of(found: &fs::Metadata, path: PathBuf) -> Option<DeviceNode> {
    let kind = found.file_type();
    (kind.is_block_device() || kind.is_char_device()).then(|| DeviceNode {
        path,
        rdev: found.rdev(),
        kind: if kind.is_block_device() { NodeKind::Block } else { NodeKind::Character },
        mode: found.mode() & 0o7777,
        uid: found.uid(),
        gid: found.gid(),
    })
}
