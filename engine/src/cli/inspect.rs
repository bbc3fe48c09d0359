//! `inspect`: docker's JSON shapes of containers, images, networks and volumes.

mod host;

use std::collections::BTreeMap;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::cli::output;
use crate::container::spec::{Grace, HealthCheck, MountSource, MountSpec, NetworkAttachment};
use crate::container::state::{Health, State};
use crate::engine::{Container, Engine};
use crate::error::{Error, Kind, Result};
use crate::id::{ContainerId, Digest, NetworkId};
use crate::image::{Image, Platform};
use crate::network::{DEFAULT_NETWORK, Endpoint, Network};
use crate::volume::Volume;

/// The flags of every `inspect`.
#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// json, or a template
    #[arg(short, long)]
    format: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// The flags of the `inspect` of networks.
#[derive(Debug, Args)]
pub(super) struct NetworksArgs {
    /// Accepted for docker's sake: only a swarm has more to say
    #[arg(short, long, hide = true)]
    verbose: bool,
    #[command(flatten)]
    pub(super) common: InspectArgs,
}

/// The flags of the `inspect` of containers.
#[derive(Debug, Args)]
pub(super) struct ContainersArgs {
    /// Sizes too: what the container wrote, and all that it sees
    #[arg(short, long)]
    size: bool,
    #[command(flatten)]
    common: InspectArgs,
}

/// The flags of the `inspect` of images.
#[derive(Debug, Args)]
pub(super) struct ImagesArgs {
    /// Of names that mean images for several platforms, the one for this, os/arch
    #[arg(long)]
    platform: Option<Platform>,
    #[command(flatten)]
    common: InspectArgs,
}

/// The flags of the `inspect` that looks everywhere.
#[derive(Debug, Args)]
pub(super) struct AnyArgs {
    /// container, image, network or volume
    #[arg(long = "type")]
    kind: Option<String>,
    #[command(flatten)]
    containers: ContainersArgs,
}

/// The time of something that did not happen, as Go writes it.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Shows whatever has the name: a container, else an image, a network or a volume.
pub(super) fn any(engine: &Engine, args: &AnyArgs) -> Result<u8> {
    let AnyArgs { kind, containers: ContainersArgs { size, common: args } } = args;
    match kind.as_deref() {
        Some("container") => return shown_containers(engine, args, *size),
        Some("image") => return shown_images(engine, args, None),
        Some("network") => return networks(engine, args),
        Some("volume") => return volumes(engine, args),
        Some(other) => {
            return Err(Error::invalid(format!(
                "{other:?} is not a type: container, image, network or volume"
            )));
        }
        None => {}
    }
    each(args, |name| {
        let lookups: [&dyn Fn() -> Result<Value>; 4] = [
            &|| engine.container(name).map(|found| with_size(engine, &found, *size)),
            &|| engine.images().get(name).map(|found| image_json(engine, &found)).map_err(Error::from),
            &|| {
                engine
                    .networks()
                    .find(name)
                    .map_err(Error::from)
                    .and_then(|found| network_json(engine, &found))
            },
            &|| engine.volumes().get(name).map(|found| volume_json(&found)).map_err(Error::from),
        ];
        for lookup in lookups {
            match lookup() {
                Err(error) if error.kind() == Kind::NotFound => {}
                other => return other,
            }
        }
        Err(Error::not_found(format!("no such object: {name}")))
    })
}

/// Shows containers.
pub(super) fn containers(engine: &Engine, args: &ContainersArgs) -> Result<u8> {
    shown_containers(engine, &args.common, args.size)
}

fn shown_containers(engine: &Engine, args: &InspectArgs, size: bool) -> Result<u8> {
    each(args, |name| engine.container(name).map(|found| with_size(engine, &found, size)))
}

/// Shows images.
pub(super) fn images(engine: &Engine, args: &ImagesArgs) -> Result<u8> {
    shown_images(engine, &args.common, args.platform.as_ref())
}

fn shown_images(engine: &Engine, args: &InspectArgs, platform: Option<&Platform>) -> Result<u8> {
    each(args, |name| Ok(image_json(engine, &engine.images().get_for(name, platform)?)))
}

/// Shows networks.
pub(super) fn networks(engine: &Engine, args: &InspectArgs) -> Result<u8> {
    each(args, |name| network_json(engine, &engine.networks().find(name)?))
}

/// Shows volumes.
pub(super) fn volumes(engine: &Engine, args: &InspectArgs) -> Result<u8> {
    each(args, |name| Ok(volume_json(&engine.volumes().get(name)?)))
}

/// Shows what is found, then says what is not.
fn each(args: &InspectArgs, find: impl Fn(&str) -> Result<Value>) -> Result<u8> {
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for name in &args.names {
        match find(name) {
            Ok(value) => found.push(value),
            Err(error) => failures.push(error),
        }
    }
    output::inspected(args.format.as_deref(), &found)?;
    failures.iter().for_each(output::failure);
    Ok(u8::from(!failures.is_empty()))
}

/// A container with what it takes on the disk, when that was asked for.
fn with_size(engine: &Engine, container: &Container, size: bool) -> Value {
    let mut value = container_json(engine, container);
    if size {
        let own = engine.writable_size(container);
        let image = engine.images().get(container.image().as_str()).map_or(0, |image| image.size);
        value["SizeRw"] = own.into();
        value["SizeRootFs"] = (own + image).into();
    }
    value
}

/// A container in docker's shape.
pub(super) fn container_json(engine: &Engine, container: &Container) -> Value {
    let record = &container.record;
    let spec = &record.spec;
    let directory = container.directory(engine.root());
    let (program, arguments) = record.argv.split_first().map_or(("", &[][..]), |(p, a)| (p.as_str(), a));
    let restarts = match &container.state {
        State::Running(running) => running.restarts,
        State::Restarting(exit) | State::Exited(exit) => exit.restarts,
        _ => 0,
    };
    json!({
        "Id": record.id.as_str(),
        "Created": record.created.to_string(),
        "Path": program,
        "Args": arguments,
        "State": state_json(&container.state),
        "Image": record.image.as_str(),
        "ResolvConfPath": directory.join("resolv.conf"),
        "HostnamePath": directory.join("hostname"),
        "HostsPath": directory.join("hosts"),
        "LogPath": directory.join("container.log"),
        "Name": format!("/{}", record.name),
        "RestartCount": restarts,
        "Driver": "overlay",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": Value::Null,
        "HostConfig": host::host_config_json(container),
        "GraphDriver": {
            "Name": "overlay",
            "Data": {
                "LowerDir": record.lower.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(":"),
                "UpperDir": directory.join("upper"),
                "WorkDir": directory.join("work"),
            },
        },
        "Mounts": spec.mounts.iter().map(|mount| mount_json(engine, mount)).collect::<Vec<_>>(),
        "Config": config_json(engine, container),
        "NetworkSettings": network_settings_json(container),
    })
}

fn state_json(state: &State) -> Value {
    let never = || NEVER.to_owned();
    let time = |time: Option<Timestamp>| time.map_or_else(never, |time| time.to_string());
    let mut fields = json!({
        "Status": state.word(),
        "Running": state.is_running(),
        "Paused": state.word() == "paused",
        "Restarting": state.word() == "restarting",
        "OOMKilled": false,
        "Dead": false,
        "Pid": 0,
        "ExitCode": 0,
        "Error": "",
        "StartedAt": never(),
        "FinishedAt": never(),
    });
    match state {
        State::Running(running) => {
            fields["Pid"] = running.pid.into();
            fields["StartedAt"] = time(Some(running.started)).into();
            if let Some(health) = &running.health {
                fields["Health"] = health_json(health);
            }
        }
        State::Restarting(exit) | State::Exited(exit) => {
            fields["ExitCode"] = exit.code.into();
            fields["StartedAt"] = time(exit.started).into();
            fields["FinishedAt"] = time(Some(exit.finished)).into();
            fields["OOMKilled"] = exit.oom_killed.into();
            fields["Error"] = exit.error.clone().unwrap_or_default().into();
        }
        State::Created | State::Removing => {}
    }
    fields
}

fn health_json(health: &Health) -> Value {
    let log: Vec<Value> = health
        .log
        .iter()
        .map(|probe| {
            json!({
                "Start": probe.start.to_string(),
                "End": probe.end.to_string(),
                "ExitCode": probe.exit_code,
                "Output": probe.output,
            })
        })
        .collect();
    json!({ "Status": health.status.to_string(), "FailingStreak": health.failing_streak, "Log": log })
}

fn config_json(engine: &Engine, container: &Container) -> Value {
    let spec = &container.record.spec;
    let process = &spec.process;
    let exposed: Map<String, Value> = spec.expose.iter().map(|port| (port.to_string(), json!({}))).collect();
    // A volume with a name of a person's is listed with the host's part, as in docker.
    let is_anonymous = |mount: &&MountSpec| match &mount.source {
        MountSource::Volume { name: Some(name), .. } => {
            engine.volumes().get(name.as_str()).is_ok_and(|volume| volume.anonymous)
        }
        _ => false,
    };
    let volumes: Map<String, Value> = spec
        .mounts
        .iter()
        .filter(is_anonymous)
        .map(|mount| (mount.target.display().to_string(), json!({})))
        .collect();
    let mut config = json!({
        "Hostname": container.record.hostname(),
        "Domainname": spec.domainname.clone().unwrap_or_default(),
        "User": process.user.clone().unwrap_or_default(),
        "AttachStdin": process.stdin_once,
        "AttachStdout": true,
        "AttachStderr": true,
        "Tty": process.tty,
        "OpenStdin": process.open_stdin,
        "StdinOnce": process.stdin_once,
        "Env": process.env,
        "Cmd": process.command,
        "Image": spec.image,
        "Volumes": if volumes.is_empty() { Value::Null } else { volumes.into() },
        "WorkingDir": process.working_dir,
        "Entrypoint": process.entrypoint,
        "OnBuild": Value::Null,
        "Labels": spec.labels,
    });
    if !exposed.is_empty() {
        config["ExposedPorts"] = exposed.into();
    }
    if let Some(signal) = spec.stop_signal {
        config["StopSignal"] = signal.to_string().into();
    }
    if let Some(Grace::Limited(span)) = spec.stop_timeout {
        config["StopTimeout"] = span.0.as_secs().into();
    }
    if let Some(check) = &spec.healthcheck {
        config["Healthcheck"] = healthcheck_json(check);
    }
    config
}

fn healthcheck_json(check: &HealthCheck) -> Value {
    let test = check.test.as_ref().map_or_else(
        || vec!["NONE".to_owned()],
        |words| match words.as_slice() {
            [shell, flag, line] if shell == "/bin/sh" && flag == "-c" => {
                vec!["CMD-SHELL".to_owned(), line.clone()]
            }
            words => std::iter::once("CMD".to_owned()).chain(words.iter().cloned()).collect(),
        },
    );
    json!({
        "Test": test,
        "Interval": check.interval,
        "Timeout": check.timeout,
        "Retries": check.retries,
        "StartPeriod": check.start_period,
        "StartInterval": check.start_interval,
    })
}

fn mount_json(engine: &Engine, mount: &MountSpec) -> Value {
    // As it was asked for, and nothing was where it can be written.
    let mode = if mount.read_only { "ro" } else { "" };
    let common = |kind: &str, source: String| {
        json!({
            "Type": kind,
            "Source": source,
            "Destination": mount.target,
            "Mode": mode,
            "RW": !mount.read_only,
            "Propagation": "",
        })
    };
    match &mount.source {
        MountSource::Bind { path, propagation, .. } => {
            let mut bind = common("bind", path.display().to_string());
            bind["Propagation"] = json!(propagation);
            bind
        }
        MountSource::Volume { name, .. } => {
            let name = name.as_ref().map(ToString::to_string).unwrap_or_default();
            let path = engine
                .volumes()
                .get(&name)
                .map_or_else(|_| String::new(), |v| v.mountpoint.display().to_string());
            let mut volume = common("volume", path);
            volume["Name"] = name.into();
            volume["Driver"] = "local".into();
            volume
        }
        MountSource::Tmpfs { .. } => common("tmpfs", String::new()),
        MountSource::Image { image, .. } => common("image", image.clone()),
        // What a secret holds is nobody's business but the container's.
        MountSource::Content { .. } => common("tmpfs", String::new()),
    }
}

fn network_settings_json(container: &Container) -> Value {
    let mut ports: BTreeMap<String, Value> = BTreeMap::new();
    if container.state.is_running() {
        for port in &container.record.spec.expose {
            ports.insert(port.to_string(), Value::Null);
        }
    }
    for port in &container.ports {
        let binding = json!({ "HostIp": port.host_ip.to_string(), "HostPort": port.host_port.to_string() });
        let entry = ports.entry(port.container.to_string()).or_insert_with(|| json!([]));
        match entry {
            Value::Array(list) => list.push(binding),
            other => *other = json!([binding]),
        }
    }
    let mut networks = Map::new();
    for endpoint in &container.endpoints {
        networks.insert(endpoint.network_name.to_string(), endpoint_json(container.id(), endpoint));
    }
    if networks.is_empty() {
        for name in container.record.spec.network.names() {
            networks.insert(name, no_endpoint_json());
        }
    }
    for attachment in container.record.spec.network.attachments() {
        if let Some(shown) = networks.get_mut(&attachment.network) {
            shown["IPAMConfig"] = wanted_addresses_json(attachment);
            shown["Aliases"] = attachment.aliases.clone().into();
        }
    }
    let first =
        container.endpoints.first().map_or_else(|| json!({}), |first| endpoint_json(container.id(), first));
    let field = |name: &str| first.get(name).cloned().unwrap_or_else(|| "".into());
    let number = |name: &str| first.get(name).cloned().unwrap_or_else(|| 0.into());
    json!({
        "Bridge": "",
        "SandboxID": if container.state.is_running() { container.id().as_str() } else { "" },
        "SandboxKey": match &container.state {
            State::Running(running) => format!("/proc/{}/ns/net", running.pid),
            _ => String::new(),
        },
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": Value::Null,
        "SecondaryIPv6Addresses": Value::Null,
        "EndpointID": field("EndpointID"),
        "GlobalIPv6Address": field("GlobalIPv6Address"),
        "GlobalIPv6PrefixLen": number("GlobalIPv6PrefixLen"),
        "IPv6Gateway": field("IPv6Gateway"),
        "Ports": ports,
        "IPAddress": field("IPAddress"),
        "IPPrefixLen": number("IPPrefixLen"),
        "Gateway": field("Gateway"),
        "MacAddress": field("MacAddress"),
        "Networks": networks,
    })
}

/// The identity of a container's end on a network: made of both, so that it is the same wherever it is shown.
fn endpoint_id(container: &ContainerId, network: &NetworkId) -> String {
    Digest::of(format!("{container} {network}").as_bytes()).hex().to_owned()
}

fn endpoint_json(container: &ContainerId, endpoint: &Endpoint) -> Value {
    let v4 = endpoint.addresses.iter().find(|entry| entry.address.is_ipv4());
    let v6 = endpoint.addresses.iter().find(|entry| entry.address.is_ipv6());
    let text = |ip: Option<std::net::IpAddr>| ip.map_or_else(String::new, |ip| ip.to_string());
    json!({
        "IPAMConfig": Value::Null,
        "Links": Value::Null,
        "DriverOpts": Value::Null,
        "EndpointID": endpoint_id(container, &endpoint.network),
        "NetworkID": endpoint.network.as_str(),
        "GwPriority": endpoint.gateway_priority,
        "Aliases": endpoint.aliases,
        "IPAddress": text(v4.map(|entry| entry.address)),
        "IPPrefixLen": v4.map_or(0, |entry| entry.prefix),
        "Gateway": text(v4.and_then(|entry| entry.gateway)),
        "GlobalIPv6Address": text(v6.map(|entry| entry.address)),
        "GlobalIPv6PrefixLen": v6.map_or(0, |entry| entry.prefix),
        "IPv6Gateway": text(v6.and_then(|entry| entry.gateway)),
        "MacAddress": endpoint.mac_address,
        "DNSNames": endpoint.names().collect::<Vec<_>>(),
    })
}

/// The addresses that somebody asked for; null when nobody did.
fn wanted_addresses_json(attachment: &NetworkAttachment) -> Value {
    let of_family =
        |ipv4: bool| attachment.addresses.iter().find(|one| one.is_ipv4() == ipv4).map(ToString::to_string);
    let mut wanted = Map::new();
    wanted.extend(of_family(true).map(|address| ("IPv4Address".to_owned(), address.into())));
    wanted.extend(of_family(false).map(|address| ("IPv6Address".to_owned(), address.into())));
    if !attachment.link_local.is_empty() {
        let addresses: Vec<String> = attachment.link_local.iter().map(ToString::to_string).collect();
        wanted.insert("LinkLocalIPs".to_owned(), addresses.into());
    }
    if wanted.is_empty() { Value::Null } else { wanted.into() }
}

/// A network that the container is not attached to at the moment.
fn no_endpoint_json() -> Value {
    json!({
        "IPAMConfig": Value::Null,
        "Links": Value::Null,
        "DriverOpts": Value::Null,
        "EndpointID": "",
        "NetworkID": "",
        "GwPriority": 0,
        "Aliases": Value::Null,
        "IPAddress": "",
        "IPPrefixLen": 0,
        "Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPv6Gateway": "",
        "MacAddress": "",
        "DNSNames": Value::Null,
    })
}

/// The configuration of an image, with what it says nothing of.
fn image_config_json(image: &Image) -> Value {
    let mut shown = json!({
        "User": "",
        "Env": Value::Null,
        "Cmd": Value::Null,
        "Entrypoint": Value::Null,
        "Volumes": Value::Null,
        "WorkingDir": "",
        "OnBuild": Value::Null,
        "Labels": Value::Null,
    });
    if let (Some(fields), Value::Object(said)) = (shown.as_object_mut(), json!(image.config.config)) {
        fields.extend(said);
    }
    shown
}

fn image_json(engine: &Engine, image: &Image) -> Value {
    let config = &image.config;
    let tags: Vec<String> = image.references.iter().map(ToString::to_string).collect();
    let digests: Vec<String> = image.digests.iter().map(ToString::to_string).collect();
    let lower = engine.images().lower_dirs(image);
    let mut shown = json!({
        "Id": image.id.as_str(),
        "RepoTags": tags,
        "RepoDigests": digests,
        "Parent": "",
        "Comment": config.history.last().and_then(|entry| entry.comment.clone()).unwrap_or_default(),
        "Created": config.created,
        "Author": config.author.clone().unwrap_or_default(),
        "Config": image_config_json(image),
        "Architecture": config.architecture,
        "Variant": config.variant.clone().unwrap_or_default(),
        "Os": config.os,
        "Size": image.size,
        "GraphDriver": {
            "Name": "overlay",
            "Data": { "LowerDir": lower.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(":") },
        },
        "RootFS": { "Type": "layers", "Layers": config.rootfs.diff_ids },
    });
    if let Some(name) = image.part_of.first() {
        // What cannot be read just now is not shown.
        let members = engine.images().members(name).unwrap_or_default();
        shown["Manifests"] = members.iter().map(|member| manifest_json(engine, member)).collect();
    }
    shown
}

/// One platform's image of a name that has several.
fn manifest_json(engine: &Engine, image: &Image) -> Value {
    let descriptor = engine.images().descriptor(std::slice::from_ref(image)).ok();
    json!({
        "ID": image.id.as_str(),
        "Descriptor": descriptor.map(|(media_type, digest, size)| {
            json!({ "mediaType": media_type, "digest": digest.as_str(), "size": size })
        }),
        "Available": true,
        "Kind": "image",
        "ImageData": { "Platform": {
            "os": image.config.os,
            "architecture": image.config.architecture,
            "variant": image.config.variant.clone().unwrap_or_default(),
        } },
    })
}

fn network_json(engine: &Engine, network: &Network) -> Result<Value> {
    let spec = &network.spec;
    let config: Vec<Value> = spec
        .subnets
        .iter()
        .map(|subnet| {
            let mut block = json!({ "Subnet": subnet.cidr.to_string() });
            if let Some(gateway) = &subnet.gateway {
                block["Gateway"] = gateway.to_string().into();
            }
            if let Some(range) = &subnet.ip_range {
                block["IPRange"] = range.to_string().into();
            }
            if !subnet.aux_addresses.is_empty() {
                block["AuxiliaryAddresses"] = json!(subnet.aux_addresses);
            }
            block
        })
        .collect();
    let mut containers = Map::new();
    for member in engine.networks().members(&network.id)? {
        let address = |v4: bool| {
            member
                .addresses
                .iter()
                .find(|entry| entry.address.is_ipv4() == v4)
                .map_or_else(String::new, |entry| format!("{}/{}", entry.address, entry.prefix))
        };
        containers.insert(
            member.party.container.to_string(),
            json!({
                "Name": member.party.name.as_str(),
                "EndpointID": endpoint_id(&member.party.container, &network.id),
                "MacAddress": member.mac_address,
                "IPv4Address": address(true),
                "IPv6Address": address(false),
            }),
        );
    }
    Ok(json!({
        "Name": spec.name.as_str(),
        "Id": network.id.as_str(),
        "Created": network.created.to_string(),
        "Scope": "local",
        "Driver": spec.driver,
        "EnableIPv4": spec.ipv4,
        "EnableIPv6": spec.ipv6,
        "IPAM": { "Driver": "default", "Options": {}, "Config": config },
        "Internal": spec.internal,
        "Attachable": false,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": containers,
        "Options": network_options(network),
        "Labels": spec.labels,
    }))
}

/// What was asked for; of the default network, for which nobody asks, what it is like.
fn network_options(network: &Network) -> Value {
    if network.spec.name.as_str() != DEFAULT_NETWORK {
        return json!(network.spec.options);
    }
    json!({
        "com.docker.network.bridge.default_bridge": "true",
        "com.docker.network.bridge.enable_icc": "true",
        "com.docker.network.bridge.enable_ip_masquerade": "true",
        "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
        "com.docker.network.bridge.name": network.bridge,
        "com.docker.network.driver.mtu": "1500",
    })
}

fn volume_json(volume: &Volume) -> Value {
    json!({
        "CreatedAt": volume.created.to_string(),
        "Driver": "local",
        "Labels": volume.labels,
        "Mountpoint": volume.mountpoint,
        "Name": volume.name.as_str(),
        "Options": if volume.options.is_empty() { Value::Null } else { json!(volume.options) },
        "Scope": "local",
    })
}
