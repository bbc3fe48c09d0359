//! What a container may use: memory, processors, processes, block devices.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use clap::Args;

use super::process::pairs;
use crate::container::plan;
use crate::container::spec::{BlockLimit, BlockLimitKind, ContainerSpec, Resources, Ulimit};
use crate::error::{Error, Result};
use crate::quantity::ByteSize;

#[derive(Debug, Args)]
pub(super) struct LimitArgs {
    /// Memory limit
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<ByteSize>,
    /// Limit of memory and swap together; -1 for no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Memory kept under pressure
    #[arg(long, value_name = "BYTES")]
    memory_reservation: Option<ByteSize>,
    /// How readily memory is swapped out, 0 to 100
    #[arg(long, allow_hyphen_values = true)]
    memory_swappiness: Option<i64>,
    /// Number of processors
    #[arg(long, allow_hyphen_values = true)]
    cpus: Option<f64>,
    /// Relative weight, 2 to 262144
    #[arg(short, long)]
    cpu_shares: Option<u64>,
    /// Microseconds of processor time per period
    #[arg(long, allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// The period in microseconds
    #[arg(long)]
    cpu_period: Option<u64>,
    /// Microseconds of real-time scheduling per period
    #[arg(long, allow_hyphen_values = true)]
    cpu_rt_runtime: Option<i64>,
    /// The period of real-time scheduling in microseconds
    #[arg(long)]
    cpu_rt_period: Option<u64>,
    /// Processors it may run on: 0-2,4
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// Memory nodes it may use
    #[arg(long)]
    cpuset_mems: Option<String>,
    /// Limit of processes and threads; -1 for no limit
    #[arg(long, allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Relative weight at block devices, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// Relative weight at one block device: path:weight
    #[arg(long, value_name = "PATH:WEIGHT")]
    blkio_weight_device: Vec<String>,
    /// Bytes read from a block device a second: path:bytes
    #[arg(long, value_name = "PATH:BYTES")]
    device_read_bps: Vec<String>,
    /// Bytes written to a block device a second: path:bytes
    #[arg(long, value_name = "PATH:BYTES")]
    device_write_bps: Vec<String>,
    /// Reads from a block device a second: path:number
    #[arg(long, value_name = "PATH:NUMBER")]
    device_read_iops: Vec<String>,
    /// Writes to a block device a second: path:number
    #[arg(long, value_name = "PATH:NUMBER")]
    device_write_iops: Vec<String>,
    /// Resource limit of a process: `name=soft[:hard]`
    #[arg(long, value_name = "LIMIT")]
    ulimit: Vec<String>,
    /// Keep the out-of-memory killer away
    #[arg(long)]
    oom_kill_disable: bool,
    /// What the out-of-memory killer adds to the score, -1000 to 1000
    #[arg(long, allow_hyphen_values = true)]
    oom_score_adj: Option<i32>,
    /// Kernel parameter: name=value
    #[arg(long)]
    sysctl: Vec<String>,
    /// Control group that the container's lies in
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
}

/// Docker's smallest memory limit: with less nothing can start.
const LEAST_MEMORY: u64 = 6 << 20;

// === impl LimitArgs ===

impl LimitArgs {
    pub(super) fn apply(self, spec: &mut ContainerSpec, warnings: &mut Vec<String>) -> Result<()> {
        let memory_swap = self.memory_swap()?;
        self.check_memory(memory_swap)?;
        self.check_processors()?;
        if self.oom_kill_disable && self.memory.is_none() {
            warnings.push(
                "without a memory limit, keeping the out-of-memory killer away endangers the whole machine"
                    .to_owned(),
            );
        }
        if let Some(score) = self.oom_score_adj.filter(|score| !(-1000..=1000).contains(score)) {
            return Err(Error::invalid(format!("--oom-score-adj {score} is not between -1000 and 1000")));
        }
        spec.resources = Resources {
            blkio_devices: self.block_limits()?,
            hugepages: Vec::new(),
            unified: BTreeMap::new(),
            blkio_weight: self.blkio_weight.map(u64::from).map(checked_weight).transpose()?,
            memory: self.memory.filter(|limit| limit.0 > 0),
            memory_swap,
            memory_reservation: self.memory_reservation.filter(|limit| limit.0 > 0),
            memory_swappiness: self.memory_swappiness()?,
            nano_cpus: self.cpus.map(|cpus| (cpus * 1e9).round() as u64).filter(|nano| *nano > 0),
            cpu_quota: self.cpu_quota,
            cpu_period: self.cpu_period,
            cpu_shares: self.cpu_shares,
            cpu_rt_runtime: self.cpu_rt_runtime.filter(|runtime| *runtime != 0),
            cpu_rt_period: self.cpu_rt_period.filter(|period| *period != 0),
            cpuset_cpus: self.cpuset_cpus.filter(|list| !list.is_empty()),
            cpuset_mems: self.cpuset_mems.filter(|list| !list.is_empty()),
            pids: self.pids_limit,
            oom_kill_disable: self.oom_kill_disable,
        };
        spec.oom_score_adj = self.oom_score_adj;
        for text in &self.ulimit {
            let (name, limit) = parse_ulimit(text)?;
            spec.ulimits.insert(name, limit);
        }
        for text in &self.sysctl {
            if text.split_once('=').is_none_or(|(name, _)| name.trim() != name || name.is_empty()) {
                return Err(Error::invalid(format!("invalid sysctl {text:?}: name=value is needed")));
            }
        }
        spec.sysctls = pairs(self.sysctl);
        spec.cgroup_parent = self.cgroup_parent.as_deref().map(parse_cgroup_parent).transpose()?.flatten();
        Ok(())
    }

    /// `-1` for no limit; nothing when it is 0.
    fn memory_swap(&self) -> Result<Option<i64>> {
        match self.memory_swap.as_deref() {
            None => Ok(None),
            Some("-1") => Ok(Some(-1)),
            Some(text) => {
                let size: ByteSize =
                    text.parse().map_err(|error| Error::invalid("--memory-swap").with_source(error))?;
                Ok(Some(i64::try_from(size.0).unwrap_or(i64::MAX)).filter(|size| *size != 0))
            }
        }
    }

    fn memory_swappiness(&self) -> Result<Option<u8>> {
        match self.memory_swappiness {
            None | Some(-1) => Ok(None),
            Some(value @ 0..=100) => Ok(u8::try_from(value).ok()),
            Some(value) => {
                Err(Error::invalid(format!("--memory-swappiness {value} is not between 0 and 100")))
            }
        }
    }

    fn check_memory(&self, swap: Option<i64>) -> Result<()> {
        let memory = self.memory.map_or(0, |limit| limit.0);
        let swap = swap.and_then(|swap| u64::try_from(swap).ok());
        let reservation = self.memory_reservation.map_or(0, |limit| limit.0);
        let problem = if memory > 0 && memory < LEAST_MEMORY {
            "the memory limit is below 6 MiB, with which nothing can start"
        } else if memory == 0 && swap.is_some() {
            "--memory-swap needs --memory"
        } else if swap.is_some_and(|swap| swap < memory) {
            "--memory-swap covers memory and swap together: it cannot be below --memory"
        } else if memory > 0 && reservation > memory {
            "--memory-reservation cannot be above --memory"
        } else {
            return Ok(());
        };
        Err(Error::invalid(problem))
    }

    fn check_processors(&self) -> Result<()> {
        let wrong = |problem: String| Err(Error::invalid(problem));
        let there = std::thread::available_parallelism().map_or(1, usize::from);
        if let Some(cpus) = self.cpus.filter(|cpus| *cpus != 0.0) {
            if !(0.01..=there as f64).contains(&cpus) {
                return wrong(format!("--cpus {cpus} is not between 0.01 and {there}: there are no more"));
            }
            if self.cpu_quota.is_some() || self.cpu_period.is_some() {
                return wrong("conflicting options: --cpus, and --cpu-quota or --cpu-period".to_owned());
            }
        }
        if let Some(period) = self.cpu_period.filter(|period| !matches!(period, 0 | 1000..=1_000_000)) {
            return wrong(format!("--cpu-period {period} is not between 1000 and 1000000 microseconds"));
        }
        if let Some(quota) = self.cpu_quota.filter(|quota| (1..1000).contains(quota)) {
            return wrong(format!("--cpu-quota {quota} is below 1000 microseconds"));
        }
        for (flag, list, file) in [
            ("--cpuset-cpus", &self.cpuset_cpus, "/sys/devices/system/cpu/online"),
            ("--cpuset-mems", &self.cpuset_mems, "/sys/devices/system/node/online"),
        ] {
            let Some(list) = list.as_deref().filter(|list| !list.is_empty()) else { continue };
            let wanted = numbers(list)
                .ok_or_else(|| Error::invalid(format!("{flag} {list:?} is no list like 0-2,4")))?;
            let online = fs::read_to_string(file).ok();
            let Some(online) = online.and_then(|text| numbers(text.trim())) else { continue };
            if !wanted.iter().all(|number| online.contains(number)) {
                return wrong(format!("{flag} {list}: there is not each of them on this machine"));
            }
        }
        Ok(())
    }

    fn block_limits(&self) -> Result<Vec<BlockLimit>> {
        let mut limits = Vec::new();
        for (flag, texts, kind) in [
            ("--blkio-weight-device", &self.blkio_weight_device, BlockLimitKind::Weight),
            ("--device-read-bps", &self.device_read_bps, BlockLimitKind::ReadBytes),
            ("--device-write-bps", &self.device_write_bps, BlockLimitKind::WriteBytes),
            ("--device-read-iops", &self.device_read_iops, BlockLimitKind::ReadOperations),
            ("--device-write-iops", &self.device_write_iops, BlockLimitKind::WriteOperations),
        ] {
            for text in texts {
                limits.push(parse_block_limit(flag, text, kind)?);
            }
        }
        Ok(limits)
    }
}

fn parse_block_limit(flag: &str, text: &str, kind: BlockLimitKind) -> Result<BlockLimit> {
    let wrong = |problem: &str| Error::invalid(format!("invalid {flag} {text:?}: {problem}"));
    let (device, value) = text.rsplit_once(':').ok_or_else(|| wrong("path:value is needed"))?;
    if !device.starts_with("/dev/") {
        return Err(wrong("the path of a device begins with /dev/"));
    }
    let value = match kind {
        BlockLimitKind::Weight => checked_weight(value.parse().map_err(|_| wrong("not a weight"))?)?.into(),
        BlockLimitKind::ReadBytes | BlockLimitKind::WriteBytes => {
            value.parse::<ByteSize>().map_err(|error| wrong("bytes").with_source(error))?.0
        }
        BlockLimitKind::ReadOperations | BlockLimitKind::WriteOperations => {
            value.parse().map_err(|_| wrong("not a number"))?
        }
    };
    Ok(BlockLimit { device: device.into(), kind, value })
}

fn checked_weight(weight: u64) -> Result<u16> {
    match u16::try_from(weight) {
        Ok(weight @ (0 | 10..=1000)) => Ok(weight),
        _ => Err(Error::invalid(format!("the weight {weight} is not between 10 and 1000"))),
    }
}

/// The numbers of a list like `0-2,4` (cpuset(7)).
fn numbers(list: &str) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        // No machine has more, and no list may take the memory for more.
        if first > last || last > 65_536 {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers)
}

/// `name=soft[:hard]`, or `name=both`.
///
/// # Errors
/// When the name is none of getrlimit(2), or a value makes no sense.
pub fn parse_ulimit(text: &str) -> Result<(String, Ulimit)> {
    let wrong = || {
        Error::invalid(format!("invalid ulimit {text:?}"))
            .with_hint("write name=soft[:hard], as in nofile=1024:2048")
    };
    let (name, limits) = text.split_once('=').ok_or_else(wrong)?;
    if !plan::limit_names().any(|known| known == name) {
        return Err(Error::invalid(format!("unknown ulimit {name:?}"))
            .with_hint(format!("there are {}", plan::limit_names().collect::<Vec<_>>().join(", "))));
    }
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| match text {
        "unlimited" | "-1" => Ok(-1),
        digits => digits.parse::<u64>().ok().and_then(|value| i64::try_from(value).ok()).ok_or_else(wrong),
    };
    let (soft, hard) = (number(soft)?, number(hard)?);
    let soft_is_more = hard >= 0 && (soft > hard || soft < 0);
    if soft_is_more {
        return Err(Error::invalid(format!(
            "ulimit {name}: the soft limit {soft} is above the hard limit {hard}"
        )));
    }
    Ok((name.to_owned(), Ulimit { soft, hard }))
}

/// A control group from the top of each hierarchy. A systemd slice is written by its name alone, which says what it
/// lies in: `a-b.slice` lies in `a.slice` (systemd.slice(5)).
fn parse_cgroup_parent(text: &str) -> Result<Option<PathBuf>> {
    let path = Path::new(text.trim_matches('/'));
    if path.components().any(|part| !matches!(part, Component::Normal(_))) {
        return Err(Error::invalid(format!("invalid control group {text:?}: no . and .. are allowed in it")));
    }
    let slice = text.strip_suffix(".slice").filter(|name| !name.contains('/') && !name.is_empty());
    Ok(match slice {
        Some("-") => None,
        Some(name) => {
            let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
            Some(ends.map(|end| format!("{}.slice", &name[..end])).collect())
        }
        None => Some(path.to_owned()).filter(|path| !path.as_os_str().is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_lie_where_their_names_say() {
        let parsed = |text| parse_cgroup_parent(text).unwrap().unwrap_or_default();
        assert_eq!(parsed("/jobs/night"), Path::new("jobs/night"));
        assert_eq!(parsed("a-b-c.slice"), Path::new("a.slice/a-b.slice/a-b-c.slice"));
        assert_eq!(parsed("/"), Path::new(""));
        assert_eq!(parsed("-.slice"), Path::new(""));
        assert!(parse_cgroup_parent("a/../../b").is_err());
    }

    #[test]
    fn lists_of_processors_are_read() {
        assert_eq!(numbers("0-2,4").unwrap(), [0, 1, 2, 4]);
        for wrong in ["", "2-1", "a", "0-", "0-99999999"] {
            assert_eq!(numbers(wrong), None, "{wrong:?}");
        }
    }
}
