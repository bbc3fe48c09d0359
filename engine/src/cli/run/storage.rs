//! What a container sees besides its image: mounts and devices.

use std::path::Path;

use clap::Args;

use crate::cli::mount;
use crate::container::cdi;
use crate::container::cgroup::{Access, DeviceRule};
use crate::container::spec::{ContainerSpec, Device};
use crate::error::{Error, Result};
use crate::quantity::ByteSize;

#[derive(Debug, Args)]
pub(super) struct StorageArgs {
    /// Mount a volume or a path: `[source:]target[:options]`
    #[arg(short, long, value_name = "VOLUME")]
    volume: Vec<String>,
    /// Mount in long form: type=bind|volume|tmpfs|image,source=…,target=…
    #[arg(long)]
    mount: Vec<String>,
    /// Mount a file system in memory: `path[:options]`
    #[arg(long, value_name = "PATH")]
    tmpfs: Vec<String>,
    /// Mount what another container mounts
    #[arg(long, value_name = "CONTAINER")]
    volumes_from: Vec<String>,
    /// Make the root file system read-only
    #[arg(long)]
    read_only: bool,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES")]
    shm_size: Option<ByteSize>,
    /// Give a device, by path or qualified name: `host[:container[:rwm]]` or vendor.com/class=name
    #[arg(long)]
    device: Vec<String>,
    /// Say what may be done with devices: c|b|a major:minor rwm
    #[arg(long, value_name = "RULE")]
    device_cgroup_rule: Vec<String>,
    /// Give graphics processors: all, a number, or device=…
    #[arg(long)]
    gpus: Vec<String>,
}

// === impl StorageArgs ===

impl StorageArgs {
    pub(super) fn apply(self, spec: &mut ContainerSpec, directory: &Path) -> Result<()> {
        for text in &self.volume {
            spec.mounts.push(mount::parse_volume(text, directory)?);
        }
        for text in &self.mount {
            spec.mounts.push(mount::parse_mount(text, directory)?);
        }
        for text in &self.tmpfs {
            spec.mounts.push(mount::parse_tmpfs(text)?);
        }
        for text in &self.volumes_from {
            spec.volumes_from.push(mount::parse_volumes_from(text)?);
        }
        spec.read_only = self.read_only;
        spec.shm_size = self.shm_size.filter(|size| size.0 > 0);
        for text in self.device {
            if cdi::is_qualified(&text) {
                spec.cdi_devices.push(text);
            } else {
                spec.devices.push(parse_device(&text)?);
            }
        }
        for text in &self.device_cgroup_rule {
            let rules = DeviceRule::parse(text).ok_or_else(|| {
                Error::invalid(format!("invalid device rule {text:?}"))
                    .with_hint("write the kind, the numbers and the access, as in 'c 13:* rwm'")
            })?;
            spec.device_rules.extend(rules);
        }
        for text in &self.gpus {
            spec.cdi_devices.extend(parse_gpus(text)?);
        }
        Ok(())
    }
}

/// `host[:container[:rwm]]`.
///
/// # Errors
/// When a path is missing or not absolute, or the access is not some of `rwm`.
pub fn parse_device(text: &str) -> Result<Device> {
    let wrong = |problem: &str| {
        Error::invalid(format!("invalid device {text:?}: {problem}"))
            .with_hint("write /dev/on-host[:/dev/in-container[:rwm]]")
    };
    let mut parts = text.splitn(3, ':');
    let host = parts.next().unwrap_or_default();
    let (second, third) = (parts.next(), parts.next());
    let is_mode = |text: &str| Access::parse(text).is_some();
    let (container, permissions) = match (second, third) {
        (Some(mode), None) if is_mode(mode) => (host, mode),
        (container, mode) => (container.unwrap_or(host), mode.unwrap_or("rwm")),
    };
    if !is_mode(permissions) {
        return Err(wrong("the access is some of r, w and m"));
    }
    if !host.starts_with('/') || !container.starts_with('/') {
        return Err(wrong("both paths must be absolute"));
    }
    Ok(Device { host: host.into(), container: container.into(), permissions: permissions.to_owned() })
}

/// `all`, a number, or `driver=…,count=…,device=…,capabilities=…`, as names of devices. What a vendor's container
/// needs for them is in its own description (`nvidia-ctk cdi generate`).
fn parse_gpus(text: &str) -> Result<Vec<String>> {
    let wrong = |problem: &str| {
        Error::invalid(format!("invalid gpus {text:?}: {problem}"))
            .with_hint("write all, a number, or device=0,1 in quotation marks")
    };
    let (mut kind, mut devices, mut count) = ("nvidia.com/gpu", Vec::new(), None);
    let fields = mount::quoted_fields(text).ok_or_else(|| wrong("a quotation mark is out of place"))?;
    let fields: Vec<&str> = fields.iter().flat_map(|field| field.split(',')).collect();
    let mut key = "count";
    for field in fields {
        let value = match field.split_once('=') {
            Some((named, value)) => {
                key = named;
                value
            }
            // A device after the first one has no key of its own.
            None => field,
        };
        match key {
            "count" => count = Some(value.to_owned()),
            "device" => devices.push(value.to_owned()),
            "driver" if value == "nvidia" => {}
            "driver" if value == "amd" => kind = "amd.com/gpu",
            "driver" => return Err(wrong("the driver is nvidia or amd")),
            // A description gives everything the driver can do.
            "capabilities" => {}
            _ => return Err(wrong("unknown key")),
        }
    }
    match (count.as_deref(), devices.is_empty()) {
        (Some(_), false) => return Err(wrong("it is either a count or devices")),
        (Some("all" | "-1"), true) => devices.push("all".to_owned()),
        (Some(count), true) => {
            let count: u32 = count.parse().map_err(|_| wrong("not a number of devices"))?;
            devices.extend((0..count).map(|number| number.to_string()));
        }
        (None, true) => devices.push("0".to_owned()),
        (None, false) => {}
    }
    Ok(devices.into_iter().map(|device| format!("{kind}={device}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_a_path_on_both_sides() {
        let device = |text| {
            let device = parse_device(text).unwrap();
            format!("{} {} {}", device.host.display(), device.container.display(), device.permissions)
        };
        assert_eq!(device("/dev/fuse"), "/dev/fuse /dev/fuse rwm");
        assert_eq!(device("/dev/a:/dev/b"), "/dev/a /dev/b rwm");
        assert_eq!(device("/dev/a:r"), "/dev/a /dev/a r");
        assert_eq!(device("/dev/a:/dev/b:rw"), "/dev/a /dev/b rw");
        for wrong in ["", "fuse", "/dev/a:b", "/dev/a:/dev/b:x", "/dev/a:/dev/b:"] {
            assert!(parse_device(wrong).is_err(), "{wrong:?}");
        }
    }
}
