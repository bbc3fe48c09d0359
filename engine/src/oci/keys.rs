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
    ("mounts[].uidMappings", Honoured),
    ("mounts[].gidMappings", Honoured),
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
    ("linux.seccomp.listenerPath", Honoured),
    ("linux.seccomp.listenerMetadata", Honoured),
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
    ("linux.resources.hugepageLimits", Honoured),
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ABOUT: &str = "# Keys of `config.json`

What `rengine oci` makes of each key of a bundle's description (runtime-spec, `config.md` and `config-linux.md`). It is *honoured*, *warned* about where it
has no effect, or *refused* by name. What a key is not (`null`, `0`, `\"\"`, empty) is neither. A key that is not here is warned about, as the specification wants
it. Nothing is accepted and ignored.

Within honoured keys, refused by name are: mount options `unbindable`, `idmap` of anything but a bind mount and what the file system does not know; namespaces `time`, `user` and `mount` by
path, and a container without a mount namespace of its own; `rootfsPropagation: unbindable`; seccomp's `SCMP_ACT_NOTIFY` as default, for `write`
or without a listener, and flags other than `TSYNC`, `LOG` and
`SPEC_ALLOW`; flags of `personality`. Warned about are: capabilities that do not exist or are not the runtime's own; limits per process above the runtime's hard
limit, which become that limit; limits for which this kernel has no controller. `cgroupsPath` is a path below the top of every hierarchy, or with `--systemd-cgroup`
`slice:prefix:name`, which becomes the path that systemd would choose; systemd itself is not asked.

This file is made from `engine/src/oci/keys.rs`; a test holds both together.

| key | | |
| --- | --- | --- |
";

    fn document() -> String {
        let line = |(key, treatment): &(&str, Treatment)| match treatment {
            Honoured => format!("| `{key}` | honoured | |\n"),
            Warned(why) => format!("| `{key}` | warned | {why} |\n"),
            Refused(why) => format!("| `{key}` | refused | {why} |\n"),
        };
        ABOUT.to_owned() + &KEYS.iter().map(line).collect::<String>()
    }

    /// A description that says something at this key, and nothing else.
    fn saying(key: &str) -> Value {
        key.rsplit('.').fold(json!("something"), |inner, name| match name.strip_suffix("[]") {
            Some(name) => json!({name: [inner]}),
            None => json!({name: inner}),
        })
    }

    #[test]
    fn every_key_is_treated_as_the_table_says() {
        for (key, treatment) in KEYS {
            let mut warnings = Vec::new();
            let checked = check(&saying(key), &mut warnings);
            match treatment {
                Honoured => assert!(checked.is_ok() && warnings.is_empty(), "{key}: {warnings:?}"),
                Warned(why) => assert_eq!(warnings, [format!("{key} has no effect: {why}")]),
                Refused(_) => {
                    let message = checked.unwrap_err().to_string();
                    assert!(message.starts_with(&format!("{key} is not supported")), "{message}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_known_is_said_once_and_what_says_nothing_is_not() {
        let mut warnings = Vec::new();
        let config = json!({
            "linux": {"fresh": {"a": 1}, "intelRdt": {}, "mountLabel": "", "timeOffsets": null},
            "mounts": [{"fresh": 1}],
        });
        check(&config, &mut warnings).unwrap();
        warnings.sort();
        let expected =
            ["linux.fresh has no effect: it is not known", "mounts[].fresh has no effect: it is not known"];
        assert_eq!(warnings, expected);
    }

    #[test]
    fn the_document_is_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/OCI.md");
        if std::env::var_os("WRITE_OCI").is_some() {
            std::fs::write(path, document()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(written == document(), "write it anew: WRITE_OCI=1 cargo test -p engine --lib oci");
    }
}
