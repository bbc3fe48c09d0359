//! What becomes of each key of `config.json`: nothing is accepted and ignored. The table in `engine/OCI.md` says the
//! same, which a test sees to.

use serde_json::Value;

use crate::error::{Error, Kind, Result};

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Treatment {
    /// It has its effect.
    Honoured,
    /// It has none, and that is said.
    Warned(&'static str),
    /// A container that needs it is not made.
    Refused(&'static str),
}

use Treatment::{Honoured, Refused, Warned};

/// Keys by their path; `[]` is every element of a list. Everything below a honoured key that has no key of its own
/// here is free: maps, and lists of words.
pub(super) const KEYS: &[(&str, Treatment)] = &[
    ("ociVersion", Honoured),
    ("annotations", Honoured),
    ("hostname", Honoured),
    ("domainname", Honoured),
    ("root.path", Honoured),
    ("root.readonly", Honoured),
    ("process.terminal", Honoured),
    ("process.consoleSize", Honoured),
    ("process.user.uid", Honoured),
    ("process.user.gid", Honoured),
    ("process.user.umask", Honoured),
    ("process.user.additionalGids", Honoured),
    ("process.user.username", Warned("it is for Windows")),
    ("process.args", Honoured),
    ("process.commandLine", Refused("it is for Windows")),
    ("process.env", Honoured),
    ("process.cwd", Honoured),
    ("process.capabilities", Honoured),
    ("process.rlimits", Honoured),
    ("process.noNewPrivileges", Honoured),
    ("process.apparmorProfile", Honoured),
    ("process.oomScoreAdj", Honoured),
    ("process.selinuxLabel", Refused("SELinux is not supported")),
    ("process.scheduler", Refused("scheduling policies are not set")),
    ("process.ioPriority", Refused("input/output priorities are not set")),
    ("process.execCPUAffinity", Refused("processors are chosen by linux.resources.cpu.cpus")),
    ("mounts[].destination", Honoured),
    ("mounts[].type", Honoured),
    ("mounts[].source", Honoured),
    ("mounts[].options", Honoured),
    ("mounts[].uidMappings", Refused("mounts are not mapped")),
    ("mounts[].gidMappings", Refused("mounts are not mapped")),
    ("hooks.prestart", Honoured),
    ("hooks.createRuntime", Honoured),
    ("hooks.createContainer", Honoured),
    ("hooks.startContainer", Honoured),
    ("hooks.poststart", Honoured),
    ("hooks.poststop", Honoured),
    ("linux.namespaces[].type", Honoured),
    ("linux.namespaces[].path", Honoured),
    ("linux.uidMappings", Honoured),
    ("linux.gidMappings", Honoured),
    ("linux.timeOffsets", Refused("time namespaces are not made")),
    ("linux.devices", Honoured),
    ("linux.netDevices", Refused("devices of the host's network are not moved")),
    ("linux.cgroupsPath", Honoured),
    ("linux.sysctl", Honoured),
    ("linux.seccomp.defaultAction", Honoured),
    ("linux.seccomp.defaultErrnoRet", Honoured),
    ("linux.seccomp.architectures", Honoured),
    ("linux.seccomp.flags", Honoured),
    ("linux.seccomp.listenerPath", Refused("calls are not handed to a listener")),
    ("linux.seccomp.listenerMetadata", Refused("calls are not handed to a listener")),
    ("linux.seccomp.syscalls", Honoured),
    ("linux.rootfsPropagation", Honoured),
    ("linux.maskedPaths", Honoured),
    ("linux.readonlyPaths", Honoured),
    ("linux.mountLabel", Refused("SELinux is not supported")),
    ("linux.intelRdt", Refused("resctrl is not supported")),
    ("linux.personality", Honoured),
    ("linux.memoryPolicy", Refused("memory nodes are chosen by linux.resources.cpu.mems")),
    ("linux.resources.devices", Honoured),
    ("linux.resources.memory.limit", Honoured),
    ("linux.resources.memory.reservation", Honoured),
    ("linux.resources.memory.swap", Honoured),
    ("linux.resources.memory.kernel", Warned("kernels no longer limit it apart")),
    ("linux.resources.memory.kernelTCP", Warned("kernels no longer limit it apart")),
    ("linux.resources.memory.swappiness", Honoured),
    ("linux.resources.memory.disableOOMKiller", Honoured),
    ("linux.resources.memory.useHierarchy", Warned("hierarchies always count what is below")),
    ("linux.resources.memory.checkBeforeUpdate", Refused("usage is not compared before a limit is set")),
    ("linux.resources.cpu.shares", Honoured),
    ("linux.resources.cpu.quota", Honoured),
    ("linux.resources.cpu.burst", Refused("quotas do not burst")),
    ("linux.resources.cpu.period", Honoured),
    ("linux.resources.cpu.realtimeRuntime", Honoured),
    ("linux.resources.cpu.realtimePeriod", Honoured),
    ("linux.resources.cpu.cpus", Honoured),
    ("linux.resources.cpu.mems", Honoured),
    ("linux.resources.cpu.idle", Refused("groups are not made idle")),
    ("linux.resources.pids.limit", Honoured),
    ("linux.resources.blockIO.weight", Honoured),
    ("linux.resources.blockIO.leafWeight", Refused("kernels have no leaf weight any more")),
    ("linux.resources.blockIO.weightDevice", Honoured),
    ("linux.resources.blockIO.throttleReadBpsDevice", Honoured),
    ("linux.resources.blockIO.throttleWriteBpsDevice", Honoured),
    ("linux.resources.blockIO.throttleReadIOPSDevice", Honoured),
    ("linux.resources.blockIO.throttleWriteIOPSDevice", Honoured),
    ("linux.resources.hugepageLimits", Refused("huge pages are limited by linux.resources.unified alone")),
    ("linux.resources.network", Refused("packets are not marked by group")),
    ("linux.resources.rdma", Refused("RDMA is not limited")),
    ("linux.resources.unified", Honoured),
    ("solaris", Warned("it is for another system")),
    ("windows", Warned("it is for another system")),
    ("vm", Warned("it is for virtual machines")),
    ("zos", Warned("it is for another system")),
    ("freebsd", Warned("it is for another system")),
];

/// Goes through everything that is said; what has no effect is added to the warnings.
///
/// # Errors
/// Names the first key that is refused.
pub(super) fn check(config: &Value, warnings: &mut Vec<String>) -> Result<()> {
    walk("", config, warnings)
}

/// The same for a part of it: what is at `path`.
pub(super) fn check_part(path: &str, part: &Value, warnings: &mut Vec<String>) -> Result<()> {
    walk(path, part, warnings)
}

fn walk(path: &str, value: &Value, warnings: &mut Vec<String>) -> Result<()> {
    if says_nothing(value) {
        return Ok(());
    }
    match treatment(path) {
        Some(Honoured) => return Ok(()),
        Some(Warned(why)) => {
            warnings.push(format!("{path} has no effect: {why}"));
            return Ok(());
        }
        Some(Refused(why)) => {
            return Err(Error::new(Kind::Unsupported, format!("{path} is not supported: {why}")));
        }
        None => {}
    }
    let within = format!("{path}{}", if path.is_empty() { "" } else { "." });
    let is_known = path.is_empty()
        || KEYS.iter().any(|(key, _)| key.starts_with(&within) || key.starts_with(&format!("{path}[]")));
    match value {
        _ if !is_known => warnings.push(format!("{path} has no effect: it is not known")),
        Value::Object(members) => {
            for (name, member) in members {
                walk(&format!("{within}{name}"), member, warnings)?;
            }
        }
        Value::Array(elements) => {
            for element in elements {
                walk(&format!("{path}[]"), element, warnings)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn treatment(path: &str) -> Option<Treatment> {
    KEYS.iter().find(|(key, _)| *key == path).map(|(_, treatment)| *treatment)
}

/// Whether it is what its absence would be.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(elements) => elements.is_empty(),
        Value::Object(members) => members.values().all(says_nothing),
    }
}
