//! From a bundle to a launch plan: the same plan that `rengine run` makes of its own options.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::config::{Capabilities, Config, Device, Linux, Mapping, Personality, Process};
use super::{limits, listener, mounts};
use crate::container::capabilities::CapabilitySet;
use crate::container::idmap::{IdMap, IdRange, UserMap};
use crate::container::plan::{
    DeviceNode, ExactIdentity, LaunchPlan, Limit, Namespaces, NodeKind, ProcessPlan, RootfsPlan,
    TerminalSize, Whose, is_namespaced,
};
use crate::container::spec::Propagation;
use crate::error::{Error, Kind, Result};

/// What a command line adds to a bundle.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extras {
    /// Whether the root is moved over `/` instead of being pivoted to.
    pub no_pivot: bool,
    /// Whether the session keyring stays the caller's.
    pub no_new_keyring: bool,
    /// How many descriptors besides the standard streams are passed on.
    pub preserve_fds: u32,
}

/// The plan of the container of a bundle.
pub(super) fn launch_plan(bundle: &Path, config: &Config, extras: Extras) -> Result<LaunchPlan> {
    let mut warnings = Vec::new();
    let process =
        config.process.as_ref().ok_or_else(|| Error::invalid("process is missing in config.json"))?;
    if !config.oci_version.starts_with("1.") {
        return Err(Error::new(
            Kind::Unsupported,
            format!("the ociVersion {:?} is not supported: this runtime follows 1.0", config.oci_version),
        ));
    }
    let linux = &config.linux;
    let namespaces = namespaces(linux)?;
    let named = config.hostname.as_deref().is_some_and(|name| !name.is_empty())
        || config.domainname.as_deref().is_some_and(|name| !name.is_empty());
    if named && namespaces.uts == Whose::Host {
        return Err(Error::invalid("unable to set hostname without a private UTS namespace"));
    }
    for name in linux.sysctl.keys() {
        if !is_namespaced(name, &namespaces) {
            return Err(Error::invalid(format!(
                "sysctl {name:?} does not belong to a namespace of the container's own"
            )));
        }
    }
    Ok(LaunchPlan {
        process: process_plan(process, linux, extras, &mut warnings)?,
        rootfs: rootfs(bundle, config, extras, &namespaces)?,
        namespaces,
        hostname: config.hostname.clone().filter(|name| !name.is_empty()),
        domainname: config.domainname.clone().filter(|name| !name.is_empty()),
        sysctls: linux.sysctl.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        init: false,
        device_rules: limits::devices(&linux.resources.devices)?,
        warnings,
    })
}

/// The directory that becomes `/`.
pub(super) fn root_directory(bundle: &Path, config: &Config) -> Result<PathBuf> {
    let root = config.root.as_ref().ok_or_else(|| Error::invalid("root is missing in config.json"))?;
    let path = bundle.join(&root.path);
    path.canonicalize().map_err(|error| Error::failed(format!("find the root {}", path.display()), error))
}

fn rootfs(bundle: &Path, config: &Config, extras: Extras, namespaces: &Namespaces) -> Result<RootfsPlan> {
    let linux = &config.linux;
    let root = root_directory(bundle, config)?;
    let propagation = match linux.rootfs_propagation.as_str() {
        "" => None,
        name => Some(Propagation::named(name).ok_or_else(|| {
            Error::new(Kind::Unsupported, format!("rootfsPropagation {name:?} is not supported"))
        })?),
    };
    let of_root = propagation.unwrap_or(Propagation::Rslave);
    let users = users(linux)?;
    let resolve = |mount| mounts::resolve(bundle, mount, of_root, users.as_ref());
    let mounts: Vec<_> = config.mounts.iter().map(resolve).collect::<Result<_>>()?;
    Ok(RootfsPlan {
        upper: root.clone(),
        // Nothing is written there: it is only to be a directory.
        work: root,
        read_only: config.root.as_ref().is_some_and(|root| root.readonly),
        mounts,
        listed: true,
        propagation,
        moves_root: extras.no_pivot,
        devices: linux.devices.iter().map(device).collect::<Result<_>>()?,
        mqueue: namespaces.ipc != Whose::Host,
        masked: linux.masked_paths.clone(),
        readonly: linux.readonly_paths.clone(),
        ..RootfsPlan::default()
    })
}

fn device(device: &Device) -> Result<DeviceNode> {
    let kind = match device.kind.as_str() {
        "c" | "u" => NodeKind::Character,
        "b" => NodeKind::Block,
        "p" => NodeKind::Fifo,
        other => {
            let path = device.path.display();
            return Err(Error::invalid(format!("invalid type {other:?} of the device {path}")));
        }
    };
    Ok(DeviceNode {
        path: device.path.clone(),
        rdev: rustix::fs::makedev(device.major, device.minor),
        kind,
        mode: device.file_mode.unwrap_or(0o666) & 0o7777,
        uid: device.uid.unwrap_or(0),
        gid: device.gid.unwrap_or(0),
    })
}

fn namespaces(linux: &Linux) -> Result<Namespaces> {
    let mut asked: BTreeMap<&str, Whose> = BTreeMap::new();
    for namespace in &linux.namespaces {
        let whose = match namespace.path.as_ref().filter(|path| !path.as_os_str().is_empty()) {
            Some(path) => Whose::At(path.clone()),
            None => Whose::Own,
        };
        let kind = namespace.kind.as_str();
        match kind {
            "pid" | "network" | "ipc" | "uts" | "cgroup" => {}
            "mount" if whose == Whose::Own => {}
            "mount" => return Err(unsupported("a mount namespace of somebody else's")),
            "user" if whose == Whose::Own => {}
            "user" => return Err(unsupported("a user namespace of somebody else's")),
            "time" => return Err(unsupported("a time namespace")),
            other => return Err(Error::invalid(format!("namespace {other:?} does not exist"))),
        }
        if asked.insert(kind, whose).is_some() {
            return Err(Error::invalid(format!("malformed spec file: duplicated ns {kind:?}")));
        }
    }
    if !asked.contains_key("mount") {
        return Err(unsupported("a container without a mount namespace of its own"));
    }
    if asked.contains_key("user") == linux.uid_mappings.is_empty() {
        return Err(Error::invalid("a user namespace and mappings of its ids need each other"));
    }
    let mut whose = |kind| asked.remove(kind).unwrap_or(Whose::Host);
    Ok(Namespaces {
        pid: whose("pid"),
        net: whose("network"),
        ipc: whose("ipc"),
        uts: whose("uts"),
        cgroup: whose("cgroup"),
    })
}

fn unsupported(what: &str) -> Error {
    Error::new(Kind::Unsupported, format!("{what} is not supported"))
}

/// The plan of a process. What it may do by its own names and this engine cannot give is said.
pub(super) fn process_plan(
    process: &Process,
    linux: &Linux,
    extras: Extras,
    warnings: &mut Vec<String>,
) -> Result<ProcessPlan> {
    if process.args.is_empty() {
        return Err(Error::invalid("args must not be empty"));
    }
    if !process.cwd.is_absolute() {
        return Err(Error::invalid("Cwd must be an absolute path"));
    }
    let (seccomp, personality) = (linux.seccomp.as_ref(), linux.personality.as_ref());
    let nothing = Capabilities::default();
    let asked = process.capabilities.as_ref().unwrap_or(&nothing);
    let mut set = |names: &[String]| capabilities(names, warnings);
    let bounding = set(&asked.bounding);
    let user = &process.user;
    let exact = ExactIdentity {
        uid: user.uid,
        gid: user.gid,
        groups: user.additional_gids.clone(),
        umask: user.umask,
        effective: set(&asked.effective),
        permitted: set(&asked.permitted),
        inheritable: set(&asked.inheritable),
        ambient: set(&asked.ambient),
    };
    warnings.sort();
    warnings.dedup();
    let terminal = process.terminal.then(|| {
        let size = process.console_size;
        size.map_or_else(TerminalSize::default, |size| TerminalSize {
            rows: size.height,
            columns: size.width,
        })
    });
    let filter = seccomp.map(|profile| listener::compile(profile, bounding)).transpose()?;
    let (filter, asks) = filter.map_or((None, 0), |(program, flags)| (Some(program), flags));
    let env = with_listen_pid(&process.env);
    Ok(ProcessPlan {
        argv: process.args.clone(),
        env,
        cwd: process.cwd.clone(),
        user: String::new(),
        groups: Vec::new(),
        terminal,
        capabilities: bounding,
        no_new_privileges: process.no_new_privileges,
        seccomp: filter,
        limits: process.rlimits.iter().map(limit).collect::<Result<_>>()?,
        oom_score_adj: process.oom_score_adj,
        apparmor: process.apparmor_profile.clone().filter(|profile| !profile.is_empty()),
        exact: Some(exact),
        seccomp_flags: seccomp.map_or(Ok(0), seccomp_flags)? | asks,
        personality: personality.map(domain).transpose()?,
        dies_with_parent: false,
        own_keyring: !extras.no_new_keyring,
        kept_descriptors: listen_fds() + extras.preserve_fds,
        users: users(linux)?,
    })
}

/// What the ids of a user namespace of its own mean.
fn users(linux: &Linux) -> Result<Option<UserMap>> {
    user_map("linux", &linux.uid_mappings, &linux.gid_mappings)
}

/// Both kinds of mappings below this key; `None` when there are none.
pub(super) fn user_map(key: &str, uids: &[Mapping], gids: &[Mapping]) -> Result<Option<UserMap>> {
    if uids.is_empty() && gids.is_empty() {
        return Ok(None);
    }
    let map = |what: &str, mappings: &[Mapping]| {
        let range = |mapping: &Mapping| IdRange {
            inside: mapping.container_id,
            outside: mapping.host_id,
            length: mapping.size,
        };
        IdMap::new(mappings.iter().map(range).collect())
            .map_err(|error| Error::failed(format!("understand {key}.{what}"), error))
    };
    Ok(Some(UserMap { uids: map("uidMappings", uids)?, gids: map("gidMappings", gids)? }))
}

/// Descriptors that this process was given by systemd's protocol are the container's (sd_listen_fds(3)).
fn listen_fds() -> u32 {
    std::env::var("LISTEN_FDS").ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn with_listen_pid(env: &[String]) -> Vec<String> {
    let mut env = env.to_vec();
    let listened = listen_fds();
    if listened > 0 {
        env.push(format!("LISTEN_FDS={listened}"));
        env.push("LISTEN_PID=1".to_owned());
    }
    env
}

/// The capabilities of these names; those that do not exist, or that are not this engine's to give, are said.
fn capabilities(names: &[String], warnings: &mut Vec<String>) -> CapabilitySet {
    let own = CapabilitySet::bounding();
    let mut set = CapabilitySet::EMPTY;
    for name in names {
        match CapabilitySet::named(name) {
            Ok(one) if own.contains(one) => set = set.union(one),
            Ok(_) => warnings.push(format!("ignoring unavailable capability {name}")),
            Err(_) => warnings.push(format!("ignoring unknown capability {name}")),
        }
    }
    set
}

fn limit(asked: &super::config::Rlimit) -> Result<Limit> {
    let invalid = || Error::invalid(format!("invalid rlimit type {:?}", asked.kind));
    let name = asked.kind.strip_prefix("RLIMIT_").ok_or_else(invalid)?.to_ascii_lowercase();
    let value = |value: u64| (value != u64::MAX).then_some(value);
    Limit::named(&name, value(asked.soft), value(asked.hard)).ok_or_else(invalid)
}

/// Flags of the filter (seccomp(2)).
fn seccomp_flags(profile: &Value) -> Result<u32> {
    let flags = profile.get("flags").and_then(Value::as_array).into_iter().flatten();
    flags.filter_map(Value::as_str).try_fold(0, |all, flag| match flag {
        // Nobody else's threads are there to be brought in line.
        "SECCOMP_FILTER_FLAG_TSYNC" => Ok(all),
        "SECCOMP_FILTER_FLAG_LOG" => Ok(all | 2),
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => Ok(all | 4),
        other => Err(Error::new(Kind::Unsupported, format!("the seccomp flag {other:?} is not supported"))),
    })
}

/// personality(2): the two domains that the specification names; it has no flags.
fn domain(personality: &Personality) -> Result<u32> {
    if let Some(flag) = personality.flags.first() {
        return Err(Error::new(Kind::Unsupported, format!("the personality flag {flag:?} is not supported")));
    }
    match personality.domain.as_str() {
        "LINUX" | "PER_LINUX" => Ok(0),
        "LINUX32" | "PER_LINUX32" => Ok(8),
        other => Err(Error::invalid(format!("invalid personality domain {other:?}"))),
    }
}
