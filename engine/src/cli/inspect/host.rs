//! What `inspect` says of how a container was asked to run on this host, in docker's shape.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::container::plan::system_paths;
use crate::container::spec::{
    BlockLimitKind, ContainerSpec, MountSource, MountSpec, NamespaceMode, NetworkMode, Resources,
    RestartPolicy, Seccomp, Security,
};
use crate::engine::Container;

/// `HostConfig` of a container.
pub(super) fn host_config_json(container: &Container) -> Value {
    let spec = &container.record.spec;
    let resources = &spec.resources;
    let (policy, count) = match spec.restart {
        RestartPolicy::OnFailure(count) => ("on-failure".to_owned(), count),
        other => (other.to_string(), 0),
    };
    let binds: Vec<String> = spec.mounts.iter().filter_map(bind_text).collect();
    let tmpfs: BTreeMap<String, String> = spec
        .mounts
        .iter()
        .filter_map(|mount| match &mount.source {
            MountSource::Tmpfs { size, mode, options } => {
                let size = size.map(|size| format!("size={}", size.0));
                let mode = mode.map(|mode| format!("mode={mode:o}"));
                let options: Vec<String> =
                    size.into_iter().chain(mode).chain(options.iter().cloned()).collect();
                Some((mount.target.display().to_string(), options.join(",")))
            }
            _ => None,
        })
        .collect();
    let security = security_options(&spec.security);
    let (masked, readonly) = system_paths(&spec.security);
    let mut bindings: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for port in &spec.ports {
        let host_port = port.host_port.map_or_else(String::new, |(first, last)| {
            if first == last { first.to_string() } else { format!("{first}-{last}") }
        });
        bindings.entry(port.container.to_string()).or_default().push(json!({
            "HostIp": port.host_ip.map_or_else(String::new, |ip| ip.to_string()),
            "HostPort": host_port,
        }));
    }
    let mut config = json!({
        "Binds": binds,
        "LogConfig": { "Type": spec.log.driver, "Config": spec.log.options },
        "NetworkMode": network_mode_text(&spec.network),
        "PortBindings": bindings,
        "RestartPolicy": { "Name": policy, "MaximumRetryCount": count },
        "AutoRemove": spec.auto_remove,
        "CapAdd": spec.security.cap_add,
        "CapDrop": spec.security.cap_drop,
        "Dns": spec.dns.servers,
        "DnsOptions": spec.dns.options,
        "DnsSearch": spec.dns.search,
        "ExtraHosts": spec.dns.extra_hosts.iter().map(|(n, a)| format!("{n}:{a}")).collect::<Vec<_>>(),
        "GroupAdd": spec.process.group_add,
        "IpcMode": namespace_text(&spec.ipc),
        "PidMode": namespace_text(&spec.pid),
        "UTSMode": namespace_text(&spec.uts),
        "CgroupnsMode": namespace_text(&spec.cgroupns),
        "OomScoreAdj": spec.oom_score_adj.unwrap_or(0),
        "Privileged": spec.security.privileged,
        "PublishAllPorts": spec.publish_all,
        "ReadonlyRootfs": spec.read_only,
        "SecurityOpt": security,
        "ShmSize": spec.shm_size.map_or(64 << 20, |size| size.0),
        "Sysctls": spec.sysctls,
        "Tmpfs": tmpfs,
        "Ulimits": ulimits_json(spec),
        "Init": spec.init,
        "Annotations": spec.annotations,
        "CgroupParent": spec.cgroup_parent.clone().unwrap_or_default(),
        "Runtime": "rengine",
        "MaskedPaths": masked,
        "ReadonlyPaths": readonly,
        "Isolation": "",
        "UsernsMode": if spec.userns.is_mapped() { spec.userns.to_string() } else { String::new() },
        "Links": spec.dns.links.iter().map(|(alias, id)| format!("/{id}:{alias}")).collect::<Vec<_>>(),
        "Devices": devices_json(spec),
        "DeviceCgroupRules": spec.device_rules.iter().map(|rule| rule.to_v1()).collect::<Vec<_>>(),
        "DeviceRequests": device_requests(spec),
    });
    for more in [resources_json(resources), unused_json()] {
        if let (Value::Object(config), Value::Object(more)) = (&mut config, more) {
            config.extend(more);
        }
    }
    config
}

/// The limits of its processes.
fn ulimits_json(spec: &ContainerSpec) -> Vec<Value> {
    spec.ulimits
        .iter()
        .map(|(name, limit)| {
            json!({
                "Name": name, "Soft": limit.soft, "Hard": limit.hard,
            })
        })
        .collect()
}

/// Devices of the host that it has by their paths.
fn devices_json(spec: &ContainerSpec) -> Vec<Value> {
    spec.devices
        .iter()
        .map(|device| {
            json!({
                "PathOnHost": device.host,
                "PathInContainer": device.container,
                "CgroupPermissions": device.permissions,
            })
        })
        .collect()
}

/// What docker shows and this engine keeps nothing for; what `--volumes-from` gave is among the binds.
fn unused_json() -> Value {
    json!({
        "Cgroup": "",
        "ConsoleSize": [0, 0],
        "ContainerIDFile": "",
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumBandwidth": 0,
        "IOMaximumIOps": 0,
        "VolumeDriver": "",
        "VolumesFrom": Value::Null,
    })
}

/// The limits of the control group, which docker keeps among the rest.
fn resources_json(resources: &Resources) -> Value {
    json!({
        "OomKillDisable": resources.oom_kill_disable,
        "Memory": resources.memory.map_or(0, |size| size.0),
        "MemorySwap": resources.memory_swap.unwrap_or(0),
        "MemoryReservation": resources.memory_reservation.map_or(0, |size| size.0),
        "MemorySwappiness": resources.memory_swappiness,
        "CpuRealtimePeriod": resources.cpu_rt_period.unwrap_or(0),
        "CpuRealtimeRuntime": resources.cpu_rt_runtime.unwrap_or(0),
        "NanoCpus": resources.nano_cpus.unwrap_or(0),
        "CpuShares": resources.cpu_shares.unwrap_or(0),
        "CpuQuota": resources.cpu_quota.unwrap_or(0),
        "CpuPeriod": resources.cpu_period.unwrap_or(0),
        "CpusetCpus": resources.cpuset_cpus.clone().unwrap_or_default(),
        "CpusetMems": resources.cpuset_mems.clone().unwrap_or_default(),
        "PidsLimit": resources.pids,
        "BlkioWeight": resources.blkio_weight.unwrap_or(0),
        "BlkioWeightDevice": block_limits(resources, BlockLimitKind::Weight),
        "BlkioDeviceReadBps": block_limits(resources, BlockLimitKind::ReadBytes),
        "BlkioDeviceWriteBps": block_limits(resources, BlockLimitKind::WriteBytes),
        "BlkioDeviceReadIOps": block_limits(resources, BlockLimitKind::ReadOperations),
        "BlkioDeviceWriteIOps": block_limits(resources, BlockLimitKind::WriteOperations),
    })
}

/// What was asked with `--security-opt`, in its words.
fn security_options(security: &Security) -> Vec<String> {
    let seccomp = match &security.seccomp {
        Seccomp::Default => None,
        Seccomp::Unconfined => Some("seccomp=unconfined".to_owned()),
        Seccomp::Profile(profile) => Some(format!("seccomp={profile}")),
    };
    let words = [
        (security.no_new_privileges, "no-new-privileges"),
        (security.unmask_system_paths, "systempaths=unconfined"),
        (security.writable_cgroups, "writable-cgroups"),
    ];
    let words = words.into_iter().filter(|(asked, _)| *asked).map(|(_, word)| word.to_owned());
    words.chain(seccomp).chain(security.apparmor.as_ref().map(|name| format!("apparmor={name}"))).collect()
}

/// Devices by qualified name, as docker shows them.
fn device_requests(spec: &ContainerSpec) -> Value {
    if spec.cdi_devices.is_empty() {
        return Value::Null;
    }
    json!([{ "Driver": "cdi", "Count": 0, "DeviceIDs": spec.cdi_devices, "Capabilities": null, "Options": null }])
}

/// The limits of one kind at block devices, as docker shows them.
fn block_limits(resources: &Resources, kind: BlockLimitKind) -> Vec<Value> {
    let word = if kind == BlockLimitKind::Weight { "Weight" } else { "Rate" };
    let limits = resources.blkio_devices.iter().filter(|limit| limit.kind == kind);
    limits.map(|limit| json!({ "Path": limit.device, word: limit.value })).collect()
}

fn bind_text(mount: &MountSpec) -> Option<String> {
    let source = match &mount.source {
        MountSource::Bind { path, .. } => path.display().to_string(),
        MountSource::Volume { name: Some(name), .. } => name.to_string(),
        _ => return None,
    };
    let mode = if mount.read_only { "ro" } else { "rw" };
    Some(format!("{source}:{}:{mode}", mount.target.display()))
}

fn namespace_text(mode: &NamespaceMode) -> String {
    match mode {
        NamespaceMode::Private => String::new(),
        NamespaceMode::Shareable => "shareable".to_owned(),
        NamespaceMode::Host => "host".to_owned(),
        NamespaceMode::None => "none".to_owned(),
        NamespaceMode::Container(id) => format!("container:{id}"),
    }
}

fn network_mode_text(mode: &NetworkMode) -> String {
    match mode {
        NetworkMode::Host => "host".to_owned(),
        NetworkMode::None => "none".to_owned(),
        NetworkMode::Container(id) => format!("container:{id}"),
        NetworkMode::Bridge(attachments) => {
            attachments.first().map_or_else(|| "bridge".to_owned(), |first| first.network.clone())
        }
    }
}
