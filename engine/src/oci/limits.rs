//! `linux.resources` and `linux.cgroupsPath` of a bundle as limits of a control group and its place.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use super::config::{BlockDevice, DeviceAccess, HugepageLimit, Resources};
use crate::container::cgroup::{self, Access, DeviceKind, DeviceRule, Devices, Layout};
use crate::container::spec::{self, BlockLimit, BlockLimitKind};
use crate::error::{Error, Result};
use crate::quantity::ByteSize;

/// The limits. `-1` lifts one.
pub(super) fn resources(asked: &Resources) -> Result<spec::Resources> {
    let bytes = |limit: Option<i64>| limit.filter(|&limit| limit != 0).map(|limit| ByteSize(limit as u64));
    let (memory, cpu) = (&asked.memory, &asked.cpu);
    let limit =
        bytes(memory.limit).map(|size| if memory.limit < Some(0) { ByteSize(u64::MAX) } else { size });
    let swap = memory.swap.filter(|&swap| swap != 0);
    let word = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    Ok(spec::Resources {
        memory: limit,
        // Without a word about it swap is not limited.
        memory_swap: limit.map(|_| swap.unwrap_or(-1)).or(swap),
        memory_reservation: bytes(memory.reservation),
        memory_swappiness: memory.swappiness.map(swappiness).transpose()?,
        oom_kill_disable: memory.disable_oom_killer,
        nano_cpus: None,
        cpu_quota: cpu.quota,
        cpu_period: cpu.period,
        cpu_shares: cpu.shares,
        cpuset_cpus: word(&cpu.cpus),
        cpuset_mems: word(&cpu.mems),
        pids: asked.pids.limit.filter(|&limit| limit != 0),
        cpu_rt_runtime: cpu.realtime_runtime,
        cpu_rt_period: cpu.realtime_period,
        blkio_weight: asked.block_io.weight,
        blkio_devices: block_limits(asked),
        hugepages: asked.hugepage_limits.iter().map(hugepages).collect::<Result<_>>()?,
        unified: unified(asked)?,
    })
}

/// A size becomes part of a file's name, so it must be one: `64KB`, `2MB`, `1GB`.
fn hugepages(asked: &HugepageLimit) -> Result<spec::HugepageLimit> {
    let size = &asked.page_size;
    let number = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit));
    match number.and_then(|number| number.parse::<u32>().ok()) {
        Some(1..) => Ok(spec::HugepageLimit { size: size.clone(), limit: ByteSize(asked.limit) }),
        _ => Err(Error::invalid(format!("invalid size {size:?} of huge pages"))),
    }
}

/// Files of the container's own group: no path may lead out of it.
fn unified(asked: &Resources) -> Result<BTreeMap<String, String>> {
    match asked.unified.keys().find(|file| file.contains('/')) {
        Some(file) => {
            Err(Error::invalid(format!("unified resource {file:?} must be a file name (no slashes)")))
        }
        None => Ok(asked.unified.clone()),
    }
}

fn swappiness(value: u64) -> Result<u8> {
    u8::try_from(value)
        .ok()
        .filter(|value| *value <= 100)
        .ok_or_else(|| Error::invalid(format!("invalid swappiness {value}: it ranges from 0 to 100")))
}

fn block_limits(asked: &Resources) -> Vec<BlockLimit> {
    use BlockLimitKind::{ReadBytes, ReadOperations, Weight, WriteBytes, WriteOperations};
    let block = &asked.block_io;
    let of = |kind: BlockLimitKind, devices: &[BlockDevice]| -> Vec<BlockLimit> {
        let value = |device: &BlockDevice| match kind {
            Weight => device.weight.map(u64::from),
            _ => device.rate,
        };
        let limit = |device: &BlockDevice| {
            let number = format!("{}:{}", device.major, device.minor);
            value(device).map(|value| BlockLimit { device: number.into(), kind, value })
        };
        devices.iter().filter_map(limit).collect()
    };
    [
        of(Weight, &block.weight_device),
        of(ReadBytes, &block.throttle_read_bps_device),
        of(WriteBytes, &block.throttle_write_bps_device),
        of(ReadOperations, &block.throttle_read_iops_device),
        of(WriteOperations, &block.throttle_write_iops_device),
    ]
    .concat()
}

/// What may be done with devices: nothing but what the rules say, the last one that is about it, and what every
/// container may use.
pub(super) fn devices(rules: &[DeviceAccess]) -> Result<Devices> {
    let (mut otherwise, mut ordered) = (false, Vec::new());
    for rule in rules {
        match kinds(rule)? {
            // Everything: what was said before no longer counts.
            None => (otherwise, ordered) = (rule.allow, Vec::new()),
            Some(kinds) => {
                let number = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok());
                let access = access_of(rule)?;
                for kind in kinds {
                    let (major, minor) = (number(rule.major), number(rule.minor));
                    ordered.push((rule.allow, DeviceRule { kind: *kind, major, minor, access }));
                }
            }
        }
    }
    if let Devices::Only(standard) = Devices::standard() {
        ordered.extend(standard.into_iter().map(|rule| (true, rule)));
    }
    Ok(Devices::Ordered { otherwise, rules: ordered })
}

/// The kinds of node a rule is about; `None` when it is about every device there is.
fn kinds(rule: &DeviceAccess) -> Result<Option<&'static [DeviceKind]>> {
    const BOTH: &[DeviceKind] = &[DeviceKind::Character, DeviceKind::Block];
    let any = |number: Option<i64>| number.is_none_or(|number| number < 0);
    match rule.kind.as_deref().unwrap_or("a") {
        "a" | "" if any(rule.major) && any(rule.minor) && access_of(rule)? == Access::ALL => Ok(None),
        "a" | "" => Ok(Some(BOTH)),
        "c" | "u" => Ok(Some(&[DeviceKind::Character])),
        "b" => Ok(Some(&[DeviceKind::Block])),
        other => Err(Error::invalid(format!("invalid type {other:?} of a device rule"))),
    }
}

fn access_of(rule: &DeviceAccess) -> Result<Access> {
    let text = rule.access.as_deref().filter(|text| !text.is_empty()).unwrap_or("rwm");
    Access::parse(text).ok_or_else(|| Error::invalid(format!("invalid access {text:?} of a device rule")))
}

/// The control groups of this machine.
pub(super) fn layout() -> Result<Layout> {
    Layout::detect().map_err(|error| Error::failed("find the control groups", error))
}

/// Where the container's control groups lie below the top of each hierarchy. `asked` is a path, or with the systemd
/// driver `slice:prefix:name`: what systemd would make of it.
pub(super) fn place(asked: &str, id: &str, systemd: bool) -> Result<PathBuf> {
    let place = match (asked, systemd) {
        ("", true) => slice("system.slice")?.join(format!("runc-{id}.scope")),
        ("", false) => PathBuf::from(id),
        (asked, true) => systemd_place(asked)?,
        (asked, false) => PathBuf::from(asked),
    };
    let mut inside = PathBuf::new();
    for component in place.components() {
        match component {
            Component::Normal(name) => inside.push(name),
            Component::ParentDir => {
                inside.pop();
            }
            _ => {}
        }
    }
    if inside.as_os_str().is_empty() {
        return Err(Error::invalid(format!("the cgroups path {asked:?} is the top of the hierarchy")));
    }
    Ok(inside)
}

fn systemd_place(asked: &str) -> Result<PathBuf> {
    let parts: Vec<&str> = asked.split(':').collect();
    let [above, prefix, name] = parts[..] else {
        return Err(Error::invalid(format!(
            "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {asked:?} instead"
        )));
    };
    let above = slice(if above.is_empty() { "system.slice" } else { above })?;
    if name.ends_with(".slice") {
        return Ok(above.join(name));
    }
    let scope = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}-{name}") };
    Ok(above.join(format!("{scope}.scope")))
}

/// Where a slice lies, by its name.
fn slice(name: &str) -> Result<PathBuf> {
    let invalid = || Error::invalid(format!("invalid slice name: {name}"));
    let bare = name.strip_suffix(".slice").filter(|bare| !bare.contains('/')).ok_or_else(invalid)?;
    if bare != "-" && bare.split('-').any(str::is_empty) {
        return Err(invalid());
    }
    Ok(cgroup::slice_place(bare))
}

/// Whether systemd manages this machine and will not know of a scope that is made by hand.
pub(super) fn systemd_runs() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_drivers_give_a_place_below_the_top() {
        for (asked, systemd, expected) in [
            ("", false, "box"),
            ("/default/box", false, "default/box"),
            ("../../a/../b", false, "b"),
            ("a:b:c", false, "a:b:c"),
            ("", true, "system.slice/runc-box.scope"),
            ("machine.slice:libpod:1", true, "machine.slice/libpod-1.scope"),
            ("a-b-c.slice:cri:1", true, "a.slice/a-b.slice/a-b-c.slice/cri-1.scope"),
            ("-.slice::x", true, "x.scope"),
        ] {
            assert_eq!(place(asked, "box", systemd).unwrap(), Path::new(expected), "{asked}");
        }
        for (asked, systemd) in [("/", false), ("..", false), ("/a/b", true), ("a--b.slice:p:n", true)] {
            assert!(place(asked, "box", systemd).is_err(), "{asked}");
        }
    }

    #[test]
    fn a_rule_about_everything_makes_the_earlier_ones_void() {
        let rule = |allow, kind: &str, access: &str| DeviceAccess {
            allow,
            kind: Some(kind.to_owned()),
            major: None,
            minor: None,
            access: Some(access.to_owned()),
        };
        let Devices::Ordered { otherwise, rules } =
            devices(&[rule(true, "c", "r"), rule(true, "a", "rwm"), rule(false, "b", "w")]).unwrap()
        else {
            panic!("rules are ordered")
        };
        assert!(otherwise);
        assert_eq!((rules[0].0, rules[0].1.to_v1()), (false, "b *:* w".to_owned()));
        assert_eq!(rules.len(), 12);
        assert!(devices(&[rule(true, "x", "r")]).is_err());
    }

    #[test]
    fn swap_is_free_unless_it_is_limited() {
        let asked: Resources =
            serde_json::from_str(r#"{"memory":{"limit":1048576},"pids":{"limit":0}}"#).unwrap();
        let limits = resources(&asked).unwrap();
        assert_eq!(
            (limits.memory, limits.memory_swap, limits.pids),
            (Some(ByteSize(1 << 20)), Some(-1), None)
        );
    }

    #[test]
    fn no_name_leads_out_of_the_group() {
        let limits = |text: &str| resources(&serde_json::from_str::<Resources>(text).unwrap());
        for wrong in ["../cgroup.procs", "/etc/passwd", "a/b"] {
            assert!(limits(&format!(r#"{{"unified":{{"{wrong}":"1"}}}}"#)).is_err(), "{wrong}");
        }
        for wrong in ["../2MB", "MB", "0MB", "2", "2mb"] {
            let text = format!(r#"{{"hugepageLimits":[{{"pageSize":"{wrong}","limit":1}}]}}"#);
            assert!(limits(&text).is_err(), "{wrong}");
        }
        let right =
            limits(r#"{"hugepageLimits":[{"pageSize":"2MB","limit":0}],"unified":{"memory.high":"1"}}"#);
        assert_eq!(right.unwrap().hugepages[0].size, "2MB");
    }
}
