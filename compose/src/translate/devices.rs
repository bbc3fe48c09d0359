//! Devices: nodes of the host, devices that a vendor describes (CDI), and what may be done with which.

use std::path::PathBuf;

use engine::container::cdi::is_qualified;
use engine::container::cgroup::DeviceRule;
use engine::container::spec::{ContainerSpec, Device};

use super::{Of, TranslateError};
use crate::model::{self, DeviceRequest};

/// Gives the container all its service's devices.
pub(super) fn give(of: &Of<'_>, spec: &mut ContainerSpec) -> Result<(), TranslateError> {
    for device in &of.service.devices {
        match cdi_name(device) {
            Some(name) => spec.cdi_devices.push(name.to_owned()),
            None => spec.devices.push(node(of, device)?),
        }
    }
    for text in &of.service.device_cgroup_rules {
        let rules = DeviceRule::parse(text).ok_or_else(|| {
            of.wrong("device_cgroup_rules", &format!("invalid rule {text:?}: c|b|a major:minor rwm"))
        })?;
        spec.device_rules.extend(rules);
    }
    for request in &of.service.gpus {
        spec.cdi_devices.extend(requested(of, "gpus", request)?);
    }
    for request in reserved(of.service) {
        spec.cdi_devices.extend(requested(of, "deploy.resources.reservations.devices", request)?);
    }
    Ok(())
}

/// The devices a deployment reserves.
fn reserved(service: &model::Service) -> &[DeviceRequest] {
    let reservations = service.deploy.as_ref().and_then(|deploy| deploy.resources.reservations.as_ref());
    reservations.map_or(&[], |reservations| &reservations.devices)
}

/// The name of a device that a vendor describes: it stands for source and target.
fn cdi_name(device: &model::Device) -> Option<&str> {
    let same = device.target.as_ref().is_none_or(|target| target.is_empty() || *target == device.source);
    Some(device.source.as_str()).filter(|name| same && is_qualified(name))
}

fn node(of: &Of<'_>, device: &model::Device) -> Result<Device, TranslateError> {
    if !device.source.starts_with('/') {
        return Err(of.wrong("devices", &format!("{:?} is not a path of the host", device.source)));
    }
    let target = device.target.as_ref().filter(|target| !target.is_empty()).unwrap_or(&device.source);
    Ok(Device {
        host: PathBuf::from(&device.source),
        container: PathBuf::from(target),
        permissions: device.permissions.clone().unwrap_or_else(|| "rwm".to_owned()),
    })
}

/// A request as names of devices. What a vendor's container needs for them is in its own description.
fn requested(of: &Of<'_>, key: &'static str, request: &DeviceRequest) -> Result<Vec<String>, TranslateError> {
    let kind = match request.driver.as_deref() {
        Some("cdi") => return Ok(request.device_ids.clone()),
        None | Some("" | "nvidia") => "nvidia.com/gpu",
        Some("amd") => "amd.com/gpu",
        Some(other) => {
            return Err(of.wrong(key, &format!("the driver is nvidia, amd or cdi, not {other:?}")));
        }
    };
    let is_graphics =
        request.capabilities.is_empty() || request.capabilities.iter().any(|name| name == "gpu");
    if !is_graphics {
        let asked = request.capabilities.join(", ");
        return Err(of.wrong(key, &format!("no device is known to be capable of {asked}")));
    }
    let named = |device: &dyn std::fmt::Display| format!("{kind}={device}");
    Ok(match (request.device_ids.as_slice(), request.count) {
        ([], count) if count <= 0 => vec![named(&"all")],
        ([], count) => (0..count).map(|number| named(&number)).collect(),
        (devices, _) => devices.iter().map(|device| named(device)).collect(),
    })
}
