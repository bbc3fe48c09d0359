//! From a container's record to its plan: paths of volumes, peers' processes, devices, defaults.

use std::fs;
use std::path::{Path, PathBuf};

use super::{
    LaunchPlan, Limit, Namespaces, PLAIN_TERMINAL, ProcessPlan, ResolvedMount, ResolvedSource, RootfsPlan,
    StatedAttributes, TerminalSize, Whose, devices,
};
use crate::container::capabilities::CapabilitySet;
use crate::container::cdi;
use crate::container::failure::{AtStep, LaunchError};
use crate::container::idmap::{IdMap, UserMap};
use crate::container::privileges::LIMIT_NAMES;
use crate::container::record::{ContainerRecord, Purpose};
use crate::container::seccomp;
use crate::container::spec::{
    ContainerSpec, MountSource, MountSpec, NamespaceMode, NetworkMode, Propagation, Seccomp, Security, Ulimit,
};
use crate::container::state::State;
use crate::id::{ContainerId, VolumeName};
use crate::paths::Root;
use crate::rootless;
use crate::volume::{Backing, Volumes};

/// Docker's list of what is hidden; the thermal throttle of each processor is added where there is one.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Docker's size of /dev/shm.
const SHM_SIZE: u64 = 64 << 20;

// === impl LaunchPlan ===

impl LaunchPlan {
    /// The plan of a container of this root. Containers whose namespaces it joins must be running; its volumes
    /// must exist.
    ///
    /// # Errors
    /// When a container it joins is not running, or a value makes no sense.
    pub fn for_container(root: &Root, record: &ContainerRecord) -> Result<Self, LaunchError> {
        let spec = &record.spec;
        let namespaces = namespaces(root, spec)?;
        let (nodes, device_rules) = devices::devices(spec)?;
        let privileged = spec.security.privileged;
        let (masked, readonly) = system_paths(&spec.security);
        let directory = root.container(&record.id);
        let mounts = mounts(root, record)?;
        let rootfs = RootfsPlan {
            lower: record.lower.clone(),
            upper: directory.join("upper"),
            work: directory.join("work"),
            volatile: record.is_fleeting(),
            // What a build leaves is nothing but what its steps made.
            mtab: record.purpose == Purpose::Service,
            read_only: spec.read_only,
            mounts,
            devices: nodes,
            shm_size: (spec.ipc != NamespaceMode::None)
                .then(|| spec.shm_size.map_or(SHM_SIZE, |size| size.0)),
            mqueue: true,
            privileged,
            writable_cgroups: spec.security.writable_cgroups,
            masked,
            readonly,
            ..RootfsPlan::default()
        };
        let mut plan = Self {
            process: process(record)?,
            sysctls: sysctls(spec, &namespaces, record.users.as_ref())?,
            namespaces,
            rootfs,
            hostname: Some(record.hostname().to_owned()),
            domainname: spec.domainname.clone(),
            init: spec.init,
            device_rules,
            warnings: Vec::new(),
        };
        cdi::Registry::of(root).inject(&spec.cdi_devices, &mut plan)?;
        sort(&mut plan.rootfs.mounts);
        Ok(plan)
    }

    /// Finds what no start could do, without anything having been made: unknown names and values.
    ///
    /// # Errors
    /// Names the first of them.
    pub fn check(root: &Root, spec: &ContainerSpec) -> Result<(), LaunchError> {
        if spec.userns.is_mapped() {
            mapped_users(spec)?;
        }
        let security = &spec.security;
        let capabilities = CapabilitySet::tweaked(&security.cap_drop, &security.cap_add)
            .map_err(|error| LaunchError::Invalid(error.to_string()))?;
        if matches!(security.seccomp, Seccomp::Profile(_)) {
            seccomp::compile(&security.seccomp, capabilities)
                .map_err(|error| LaunchError::Invalid(crate::error::chain(&error)))?;
        }
        spec.ulimits.iter().try_for_each(|ulimit| limit(ulimit).map(drop))?;
        sysctls(spec, &presumed_namespaces(spec), None)?;
        for mount in &spec.mounts {
            if let MountSource::Tmpfs { size, mode, options } = &mount.source {
                tmpfs(size.map(|size| size.0), *mode, options)?;
            }
        }
        spec.cdi_devices.iter().try_for_each(|name| cdi::Registry::of(root).find(name).map(drop))
    }
}

/// Finds what a container with mapped users cannot have: what belongs to the host's users or another container's.
fn mapped_users(spec: &ContainerSpec) -> Result<(), LaunchError> {
    let refuse = |what: &str| {
        Err(LaunchError::Invalid(format!(
            "{what} with mapped users (--userns {}): use --userns host",
            spec.userns
        )))
    };
    if rootless::is_inside() {
        return Err(LaunchError::Invalid(format!(
            "users cannot be mapped again (--userns {}): the containers of an ordinary user's engine have that user's ids",
            spec.userns
        )));
    }
    if spec.security.privileged {
        return refuse("a container cannot be privileged");
    }
    if spec.security.writable_cgroups {
        return refuse("the cgroups cannot be written");
    }
    let net = match &spec.network {
        NetworkMode::Host => Some("host"),
        NetworkMode::Container(_) => Some("container"),
        NetworkMode::Bridge(_) | NetworkMode::None => None,
    };
    let of = |mode: &NamespaceMode| match mode {
        NamespaceMode::Host => Some("host"),
        NamespaceMode::Container(_) => Some("container"),
        NamespaceMode::Private | NamespaceMode::Shareable | NamespaceMode::None => None,
    };
    let shared =
        [("network", net), ("PID", of(&spec.pid)), ("IPC", of(&spec.ipc)), ("cgroup", of(&spec.cgroupns))];
    for (kind, whose) in shared {
        match whose {
            Some("host") => return refuse(&format!("the host's {kind} namespace cannot be shared")),
            Some(_) => return refuse(&format!("another container's {kind} namespace cannot be joined")),
            None => {}
        }
    }
    let travels = |mount: &&MountSpec| {
        matches!(
            mount.source,
            MountSource::Bind { propagation: Propagation::Shared | Propagation::Rshared, .. }
        )
    };
    match spec.mounts.iter().find(travels) {
        Some(mount) => refuse(&format!("mounts below {} cannot travel to the host", mount.target.display())),
        None => Ok(()),
    }
}

/// Whose namespaces a container will have, without looking for the containers whose it joins.
fn presumed_namespaces(spec: &ContainerSpec) -> Namespaces {
    let whose = |own: bool| if own { Whose::Own } else { Whose::Host };
    let is_own = |mode: &NamespaceMode| {
        matches!(mode, NamespaceMode::Private | NamespaceMode::Shareable | NamespaceMode::None)
    };
    Namespaces {
        pid: whose(is_own(&spec.pid)),
        ipc: whose(is_own(&spec.ipc)),
        uts: whose(is_own(&spec.uts)),
        cgroup: whose(is_own(&spec.cgroupns)),
        net: whose(matches!(spec.network, NetworkMode::Bridge(_) | NetworkMode::None)),
    }
}

impl RootfsPlan {
    /// The plan of the root of a container at rest: layers and mounts.
    ///
    /// # Errors
    /// When a volume is gone.
    pub fn at_rest(root: &Root, record: &ContainerRecord) -> Result<Self, LaunchError> {
        let directory = root.container(&record.id);
        Ok(Self {
            lower: record.lower.clone(),
            upper: directory.join("upper"),
            work: directory.join("work"),
            read_only: record.spec.read_only,
            mounts: mounts(root, record)?,
            ..Self::default()
        })
    }
}

/// Shallow targets first: a deep one must come after the mount it lies in.
fn sort(mounts: &mut [ResolvedMount]) {
    mounts.sort_by_key(|mount| mount.target.components().count());
}

/// Everything mounted into a container, shallow targets first.
fn mounts(root: &Root, record: &ContainerRecord) -> Result<Vec<ResolvedMount>, LaunchError> {
    let mut mounts = network_files(root, record);
    for mount in &record.spec.mounts {
        mounts.retain(|known: &ResolvedMount| known.target != mount.target);
        mounts.push(resolve_mount(root, mount, record.users.as_ref())?);
    }
    sort(&mut mounts);
    Ok(mounts)
}

fn process(record: &ContainerRecord) -> Result<ProcessPlan, LaunchError> {
    let spec = &record.spec;
    let security = &spec.security;
    let wanted = if security.privileged {
        CapabilitySet::all()
    } else {
        CapabilitySet::tweaked(&security.cap_drop, &security.cap_add)
            .map_err(|error| LaunchError::Invalid(error.to_string()))?
    };
    let capabilities = wanted.intersection(CapabilitySet::bounding());
    let profile = if security.privileged { &Seccomp::Unconfined } else { &security.seccomp };
    let filter = seccomp::compile(profile, capabilities)
        .map_err(|error| LaunchError::Invalid(crate::error::chain(&error)))?;
    let mut env = spec.process.env.clone();
    let hostname = format!("HOSTNAME={}", record.hostname());
    let terminal = spec.process.tty.then(|| PLAIN_TERMINAL.to_owned());
    for own in [Some(hostname), terminal].into_iter().flatten() {
        let key = &own[..=own.find('=').unwrap_or_default()];
        if !env.iter().any(|entry| entry.starts_with(key)) {
            env.push(own);
        }
    }
    Ok(ProcessPlan {
        argv: record.argv.clone(),
        env,
        cwd: spec.process.working_dir.clone().unwrap_or_else(|| "/".into()),
        user: spec.process.user.clone().unwrap_or_default(),
        groups: spec.process.group_add.clone(),
        terminal: spec.process.tty.then(TerminalSize::default),
        capabilities,
        no_new_privileges: security.no_new_privileges,
        seccomp: filter,
        limits: spec.ulimits.iter().map(limit).collect::<Result<_, _>>()?,
        oom_score_adj: spec.oom_score_adj,
        apparmor: if security.privileged { None } else { security.apparmor.clone() },
        users: record.users.clone(),
        exact: None,
        seccomp_flags: 0,
        personality: None,
        dies_with_parent: true,
        own_keyring: true,
        kept_descriptors: 0,
    })
}

fn limit((name, ulimit): (&String, &Ulimit)) -> Result<Limit, LaunchError> {
    let known = LIMIT_NAMES.iter().find(|(known, _)| known == name);
    let (_, resource) = known.ok_or_else(|| LaunchError::Invalid(format!("unknown ulimit {name:?}")))?;
    let value = |value: i64| u64::try_from(value).ok();
    Ok(Limit { resource: *resource, soft: value(ulimit.soft), hard: value(ulimit.hard) })
}

fn namespaces(root: &Root, spec: &ContainerSpec) -> Result<Namespaces, LaunchError> {
    let whose = |mode: &NamespaceMode| match mode {
        NamespaceMode::Private | NamespaceMode::Shareable | NamespaceMode::None => Ok(Whose::Own),
        NamespaceMode::Host => Ok(Whose::Host),
        NamespaceMode::Container(id) => peer(root, id).map(Whose::Of),
    };
    Ok(Namespaces {
        pid: whose(&spec.pid)?,
        ipc: whose(&spec.ipc)?,
        uts: whose(&spec.uts)?,
        cgroup: whose(&spec.cgroupns)?,
        net: match &spec.network {
            NetworkMode::Bridge(_) | NetworkMode::None => Whose::Own,
            NetworkMode::Host => Whose::Host,
            NetworkMode::Container(id) => Whose::Of(peer(root, id)?),
        },
    })
}

/// Process 1 of a container, which must be running.
fn peer(root: &Root, id: &ContainerId) -> Result<i32, LaunchError> {
    match State::read(root, id).at("read the state of", id.short())? {
        Some(State::Running(running)) => Ok(running.pid),
        _ => Err(LaunchError::Invalid(format!(
            "cannot join the namespaces of container {}: it is not running",
            id.short()
        ))),
    }
}

/// The files about the network that the engine writes, of the container whose network it is.
fn network_files(root: &Root, record: &ContainerRecord) -> Vec<ResolvedMount> {
    let owner = match &record.spec.network {
        NetworkMode::Container(id) => id,
        _ => &record.id,
    };
    let directory = root.container(owner);
    let files = ["hosts", "hostname", "resolv.conf"].into_iter();
    let there = files.map(|name| (name, directory.join(name))).filter(|(_, path)| path.exists());
    let bind = |(name, path)| ResolvedMount {
        target: Path::new("/etc").join(name),
        source: ResolvedSource::Bind {
            path,
            propagation: Propagation::Rprivate,
            recursive: false,
            subpath: None,
            seed: false,
        },
        read_only: record.spec.read_only,
        writable_below: false,
        attributes: 0,
        stated: StatedAttributes::default(),
        owners: None,
    };
    there.map(bind).collect()
}

fn resolve_mount(
    root: &Root,
    mount: &MountSpec,
    users: Option<&UserMap>,
) -> Result<ResolvedMount, LaunchError> {
    let source = match &mount.source {
        MountSource::Bind { path, propagation, recursive, .. } => ResolvedSource::Bind {
            path: path.clone(),
            propagation: *propagation,
            recursive: *recursive,
            subpath: None,
            seed: false,
        },
        MountSource::Volume { name: None, .. } => {
            return Err(LaunchError::Invalid(format!(
                "the volume at {} has no name",
                mount.target.display()
            )));
        }
        MountSource::Volume { name: Some(name), subpath, no_copy, .. } => {
            let volume = Volumes::at(root)
                .get(name.as_str())
                .map_err(|error| LaunchError::Invalid(crate::error::chain(&error)))?;
            let seed = !no_copy && subpath.is_none();
            match (volume.backing(), subpath) {
                (Backing::FileSystem(_), Some(_)) => {
                    return Err(LaunchError::Invalid(format!(
                        "a path inside the volume {name} cannot be mounted: the volume is a file system of its own"
                    )));
                }
                (Backing::FileSystem(system), None) => {
                    let shown = if system.is_memory() { shown_by(root, name, users)? } else { None };
                    ResolvedSource::FileSystem { system, shown, seed }
                }
                (Backing::Own | Backing::Directory(_), subpath) => ResolvedSource::Bind {
                    path: volume.mountpoint,
                    propagation: Propagation::Rprivate,
                    recursive: false,
                    subpath: subpath.clone(),
                    seed,
                },
            }
        }
        MountSource::Tmpfs { size, mode, options } => tmpfs(size.map(|size| size.0), *mode, options)?,
        MountSource::Image { lower, subpath, .. } => {
            ResolvedSource::Layers { lower: lower.clone(), subpath: subpath.clone() }
        }
        MountSource::Content { file, mode, uid, gid } => {
            ResolvedSource::Content { file: file.clone(), mode: *mode, uid: *uid, gid: *gid }
        }
    };
    let writable_below = matches!(mount.source, MountSource::Bind { writable_below: true, .. });
    Ok(ResolvedMount {
        target: mount.target.clone(),
        source,
        read_only: mount.read_only,
        writable_below,
        attributes: 0,
        stated: StatedAttributes::default(),
        owners: None,
    })
}

/// A running container that mounts this volume whole: its process 1, and where.
fn shown_by(
    root: &Root,
    volume: &VolumeName,
    users: Option<&UserMap>,
) -> Result<Option<(i32, PathBuf)>, LaunchError> {
    let directory = root.containers();
    for entry in fs::read_dir(&directory).at("list", directory.display())?.flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse::<ContainerId>().ok()) else { continue };
        // One that is being made or removed shows nothing.
        let (Ok(Some(record)), Ok(Some(State::Running(running)))) =
            (ContainerRecord::read(root, &id), State::read(root, &id))
        else {
            continue;
        };
        let shows = |mount: &&MountSpec| matches!(&mount.source, MountSource::Volume { name: Some(name), subpath: None, .. } if name == volume);
        if let Some(mount) = record.spec.mounts.iter().find(shows) {
            // What is taken over from there has its owners as that container's users see them.
            if record.users.as_ref() != users {
                return Err(LaunchError::Invalid(format!(
                    "the volume {volume} is in memory and in use by container {}, whose users are mapped otherwise",
                    record.name
                )));
            }
            return Ok(Some((running.pid, mount.target.clone())));
        }
    }
    Ok(None)
}

/// Docker's defaults for a tmpfs: nothing on it is executed, has privileges or is a device, unless asked. Its mode is
/// that of the directory it hides, unless asked.
fn tmpfs(size: Option<u64>, mode: Option<u32>, options: &[String]) -> Result<ResolvedSource, LaunchError> {
    let (mut exec, mut suid, mut dev) = (false, false, false);
    let mut settings: Vec<_> =
        mode.map(|mode| ("mode".to_owned(), format!("{mode:o}"))).into_iter().collect();
    settings.extend(size.map(|size| ("size".to_owned(), size.to_string())));
    for option in options {
        match option.as_str() {
            "exec" => exec = true,
            "noexec" => exec = false,
            "suid" => suid = true,
            "nosuid" => suid = false,
            "dev" => dev = true,
            "nodev" => dev = false,
            "rw" | "ro" | "defaults" | "" => {}
            other => {
                let (key, value) = other
                    .split_once('=')
                    .ok_or_else(|| LaunchError::Invalid(format!("invalid tmpfs option {other:?}")))?;
                settings.retain(|(known, _)| known != key);
                settings.push((key.to_owned(), value.to_owned()));
            }
        }
    }
    Ok(ResolvedSource::Tmpfs { options: settings, exec, suid, dev })
}

/// What of the kernel's file systems is hidden from a container, and what it can only read.
pub(crate) fn system_paths(security: &Security) -> (Vec<PathBuf>, Vec<PathBuf>) {
    if security.privileged || security.unmask_system_paths {
        return (Vec::new(), Vec::new());
    }
    (masked(), READONLY.map(PathBuf::from).to_vec())
}

fn masked() -> Vec<PathBuf> {
    let mut masked: Vec<PathBuf> = MASKED.map(PathBuf::from).to_vec();
    // Either every processor has one or none has.
    if Path::new("/sys/devices/system/cpu/cpu0/thermal_throttle").exists() {
        let processors = (0..).map(|n| PathBuf::from(format!("/sys/devices/system/cpu/cpu{n}")));
        masked.extend(processors.take_while(|cpu| cpu.exists()).map(|cpu| cpu.join("thermal_throttle")));
    }
    masked
}

/// Parameters of its own namespaces, with docker's two defaults: whoever may ping and bind low ports inside.
fn sysctls(
    spec: &ContainerSpec,
    namespaces: &Namespaces,
    users: Option<&UserMap>,
) -> Result<Vec<(String, String)>, LaunchError> {
    let mut sysctls = Vec::new();
    if namespaces.net == Whose::Own {
        // The kernel takes groups that there are.
        let own = || rootless::is_inside().then(IdMap::of_own_groups).flatten()?.last_from(0);
        let last = match users {
            Some(users) => users.gids.last_from(0),
            None => own(),
        };
        let last = last.unwrap_or(i32::MAX.cast_unsigned());
        for (name, value) in [
            ("net.ipv4.ping_group_range", format!("0 {last}")),
            ("net.ipv4.ip_unprivileged_port_start", "0".to_owned()),
        ] {
            if !spec.sysctls.contains_key(name) {
                sysctls.push((name.to_owned(), value));
            }
        }
    }
    for (name, value) in &spec.sysctls {
        if !is_namespaced(name, namespaces) {
            return Err(LaunchError::Invalid(format!(
                "the kernel parameter {name} does not belong to a namespace of the container's own"
            )));
        }
        sysctls.push((name.clone(), value.clone()));
    }
    Ok(sysctls)
}

/// The kernel parameters of a specification that belong to no namespace of the container's own.
pub fn foreign_sysctls(spec: &ContainerSpec) -> Vec<&String> {
    let namespaces = presumed_namespaces(spec);
    spec.sysctls.keys().filter(|name| !is_namespaced(name, &namespaces)).collect()
}

/// Whether setting it changes nothing outside the container.
pub(crate) fn is_namespaced(name: &str, namespaces: &Namespaces) -> bool {
    const IPC: [&str; 8] =
        ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"];
    let ipc = name.strip_prefix("kernel.").is_some_and(|rest| IPC.contains(&rest));
    let own = |whose: &Whose| matches!(whose, Whose::Own | Whose::At(_));
    if ipc || name.starts_with("fs.mqueue.") {
        own(&namespaces.ipc)
    } else if name == "kernel.domainname" {
        own(&namespaces.uts)
    } else {
        name.starts_with("net.") && own(&namespaces.net)
    }
}
