//! A profile of the user's in docker's JSON form (docs.docker.com, "Seccomp security profiles").

use libc::sock_filter;
use serde::Deserialize;

use super::program::{self, Argument, Clause, Comparison, Condition, Table, Verdict, Width};
use super::syscalls::{Architecture, SYSCALLS};
use super::{CapabilitySet, ENOSYS, SeccompError};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u16>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
    #[serde(default)]
    arch_map: Option<Vec<ArchMap>>,
    #[serde(default)]
    syscalls: Option<Vec<Group>>,
    #[serde(default)]
    listener_path: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u16>,
    #[serde(default)]
    args: Option<Vec<Arg>>,
    #[serde(default)]
    includes: Option<Filter>,
    #[serde(default)]
    excludes: Option<Filter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Arg {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Filter {
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
    #[serde(default)]
    min_kernel: Option<String>,
}

/// The call waits until the listener has answered it.
const NOTIFY: &str = "SCMP_ACT_NOTIFY";

/// What a container is, as far as rules ask about it.
struct Subject<'a> {
    architecture: Architecture,
    capabilities: CapabilitySet,
    kernel: &'a str,
}

/// Compiles a profile for these architectures, the first one being the machine's own.
pub(super) fn compile(
    text: &str,
    architectures: &[Architecture],
    capabilities: CapabilitySet,
    kernel: &str,
    listened: bool,
) -> Result<Vec<sock_filter>, SeccompError> {
    let profile: Profile = serde_json::from_str(text)?;
    if let Some(path) = profile.listener_path.filter(|path| !path.is_empty() && !listened) {
        return Err(SeccompError::Unsupported { what: "a listener", value: path });
    }
    if profile.default_action == NOTIFY {
        return Err(SeccompError::Unsupported { what: "as default the action", value: NOTIFY.to_owned() });
    }
    let default = action(&profile.default_action, profile.default_errno_ret)?;
    let Some(&native) = architectures.first() else { return Ok(Vec::new()) };
    let subject = Subject { architecture: native, capabilities, kernel };
    let mut rules: Vec<(String, Vec<Condition>, u32)> = Vec::new();
    for group in profile.syscalls.unwrap_or_default() {
        let included = group.includes.as_ref().is_none_or(|filter| filter.includes(&subject));
        let excluded = group.excludes.as_ref().is_some_and(|filter| filter.excludes(&subject));
        if !included || excluded {
            continue;
        }
        if group.action == NOTIFY && !listened {
            return Err(SeccompError::Unsupported {
                what: "without a listener the action",
                value: group.action,
            });
        }
        let action = action(&group.action, group.errno_ret)?;
        let conditions: Vec<_> =
            group.args.unwrap_or_default().iter().map(condition).collect::<Result<_, _>>()?;
        for name in group.names.unwrap_or_default().into_iter().chain(group.name) {
            // The process itself tells by this call, once it is under the filter, where the listener is.
            if action == libc::SECCOMP_RET_USER_NOTIF && name == "write" {
                return Err(SeccompError::Unsupported { what: "to be asked about the call", value: name });
            }
            rules.push((name, conditions.clone(), action));
        }
    }
    let wanted = wanted_architectures(profile.architectures, profile.arch_map, native);
    let tables = architectures
        .iter()
        .filter(|&&one| one == native || wanted.iter().any(|name| name == one.profile_name()));
    let newer = if default & 0xffff_0000 == libc::SECCOMP_RET_ERRNO { ENOSYS } else { default };
    let tables = tables.map(|&architecture| {
        let calls = SYSCALLS
            .iter()
            .filter_map(|call| Some((call.number(architecture)?, verdict(call.name, &rules, default))));
        Table { architecture, calls: calls.collect(), other: default, newer }
    });
    Ok(program::assemble(tables.collect()))
}

/// Rules with conditions are asked in their order; the first one without any answers for everything else.
fn verdict(name: &str, rules: &[(String, Vec<Condition>, u32)], default: u32) -> Verdict {
    let of_call = rules.iter().filter(|(of, ..)| of == name);
    let unconditional = of_call.clone().find(|(_, conditions, _)| conditions.is_empty());
    let otherwise = unconditional.map_or(default, |(.., action)| *action);
    let clauses: Vec<_> = of_call
        .filter(|(_, conditions, action)| !conditions.is_empty() && *action != otherwise)
        .map(|(_, conditions, action)| Clause { conditions: conditions.clone(), action: *action })
        .collect();
    if clauses.is_empty() { Verdict::Return(otherwise) } else { Verdict::Ask { clauses, otherwise } }
}

fn wanted_architectures(
    listed: Option<Vec<String>>,
    map: Option<Vec<ArchMap>>,
    native: Architecture,
) -> Vec<String> {
    let mut wanted = listed.unwrap_or_default();
    for entry in map.unwrap_or_default() {
        if entry.architecture == native.profile_name() {
            wanted.extend(entry.sub_architectures.unwrap_or_default());
        }
    }
    wanted
}

fn action(name: &str, errno: Option<u16>) -> Result<u32, SeccompError> {
    let errno = u32::from(errno.unwrap_or(libc::EPERM as u16));
    Ok(match name {
        "SCMP_ACT_ALLOW" => libc::SECCOMP_RET_ALLOW,
        "SCMP_ACT_ERRNO" => libc::SECCOMP_RET_ERRNO | errno,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => libc::SECCOMP_RET_KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => libc::SECCOMP_RET_KILL_PROCESS,
        "SCMP_ACT_TRAP" => libc::SECCOMP_RET_TRAP,
        "SCMP_ACT_LOG" => libc::SECCOMP_RET_LOG,
        "SCMP_ACT_TRACE" => libc::SECCOMP_RET_TRACE | errno,
        NOTIFY => libc::SECCOMP_RET_USER_NOTIF,
        other => return Err(SeccompError::Unsupported { what: "the action", value: other.to_owned() }),
    })
}

fn condition(arg: &Arg) -> Result<Condition, SeccompError> {
    if arg.index > 5 {
        return Err(SeccompError::Unsupported { what: "the argument", value: arg.index.to_string() });
    }
    let comparison = match arg.op.as_str() {
        "SCMP_CMP_EQ" => Comparison::Equal(arg.value),
        "SCMP_CMP_NE" => Comparison::NotEqual(arg.value),
        "SCMP_CMP_LT" => Comparison::Less(arg.value),
        "SCMP_CMP_LE" => Comparison::LessOrEqual(arg.value),
        "SCMP_CMP_GT" => Comparison::Greater(arg.value),
        "SCMP_CMP_GE" => Comparison::GreaterOrEqual(arg.value),
        "SCMP_CMP_MASKED_EQ" => Comparison::Masked { mask: arg.value, value: arg.value_two },
        other => {
            return Err(SeccompError::Unsupported { what: "the comparison", value: other.to_owned() });
        }
    };
    Ok(Condition { argument: Argument(arg.index), width: Width::Full, comparison })
}

// === impl Filter ===

impl Filter {
    /// Everything it names must be so.
    fn includes(&self, subject: &Subject<'_>) -> bool {
        let listed = |list: &Option<Vec<String>>, holds: &dyn Fn(&String) -> bool| {
            list.as_ref().is_none_or(|list| list.is_empty() || list.iter().any(holds))
        };
        // Docker wants every capability that is listed, and one of the architectures.
        let capable = self.caps.iter().flatten().all(|name| subject.capabilities.has(name));
        capable
            && listed(&self.arches, &|name| name == subject.docker_architecture())
            && self.min_kernel.as_ref().is_none_or(|version| is_at_least(subject.kernel, version))
    }

    /// One thing it names is enough.
    fn excludes(&self, subject: &Subject<'_>) -> bool {
        self.caps.iter().flatten().any(|name| subject.capabilities.has(name))
            || self.arches.iter().flatten().any(|name| name == subject.docker_architecture())
            || self.min_kernel.as_ref().is_some_and(|version| is_at_least(subject.kernel, version))
    }
}

// === impl Subject ===

impl Subject<'_> {
    fn docker_architecture(&self) -> &'static str {
        match self.architecture {
            Architecture::X86_64 => "amd64",
            Architecture::I386 => "x86",
            Architecture::Aarch64 => "arm64",
        }
    }
}

fn is_at_least(kernel: &str, version: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        text.split(|c: char| !c.is_ascii_digit()).take(2).map_while(|part| part.parse().ok()).collect()
    };
    numbers(kernel) >= numbers(version)
}
