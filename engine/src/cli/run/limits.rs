//! What a container may use: memory, processors, processes, block devices.

use std::path::{Component, Path, PathBuf};

use clap::Args;

use super::process::pairs;
use super::tunable::{TunableArgs, checked_weight};
use crate::container::spec::{BlockLimit, BlockLimitKind, ContainerSpec, Resources, Ulimit};
use crate::container::{cgroup, plan};
use crate::error::{Error, Result};
use crate::quantity::ByteSize;

#[derive(Debug, Args)]
pub(super) struct LimitArgs {
    #[command(flatten)]
    tunable: TunableArgs,
    /// How readily memory is swapped out, 0 to 100
    #[arg(long)]
    memory_swappiness: Option<i64>,
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
    #[arg(long)]
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
        let (blkio_devices, memory_swappiness) = (self.block_limits()?, self.memory_swappiness()?);
        let asked = self.tunable.resources()?;
        check_memory(&asked)?;
        if self.oom_kill_disable && asked.memory.is_none() {
            warnings.push(
                "without a memory limit, keeping the out-of-memory killer away endangers the whole machine"
                    .to_owned(),
            );
        }
        if let Some(score) = self.oom_score_adj.filter(|score| !(-1000..=1000).contains(score)) {
            return Err(Error::invalid(format!("--oom-score-adj {score} is not between -1000 and 1000")));
        }
        // Nothing limits by 0 and by an empty list.
        spec.resources = Resources {
            blkio_devices,
            memory: asked.memory.filter(|limit| limit.0 > 0),
            memory_swap: asked.memory_swap.filter(|size| *size != 0),
            memory_reservation: asked.memory_reservation.filter(|limit| limit.0 > 0),
            memory_swappiness,
            cpu_rt_runtime: asked.cpu_rt_runtime.filter(|runtime| *runtime != 0),
            cpu_rt_period: asked.cpu_rt_period.filter(|period| *period != 0),
            cpuset_cpus: asked.cpuset_cpus.filter(|list| !list.is_empty()),
            cpuset_mems: asked.cpuset_mems.filter(|list| !list.is_empty()),
            oom_kill_disable: self.oom_kill_disable,
            ..asked
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

    fn memory_swappiness(&self) -> Result<Option<u8>> {
        match self.memory_swappiness {
            None | Some(-1) => Ok(None),
            Some(value @ 0..=100) => Ok(u8::try_from(value).ok()),
            Some(value) => {
                Err(Error::invalid(format!("--memory-swappiness {value} is not between 0 and 100")))
            }
        }
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

fn check_memory(asked: &Resources) -> Result<()> {
    let memory = asked.memory.map_or(0, |limit| limit.0);
    let swap = asked.memory_swap.filter(|size| *size != 0).and_then(|swap| u64::try_from(swap).ok());
    let reservation = asked.memory_reservation.map_or(0, |limit| limit.0);
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

/// A control group from the top of each hierarchy. A systemd slice is written by its name alone.
pub(crate) fn parse_cgroup_parent(text: &str) -> Result<Option<PathBuf>> {
    let path = Path::new(text.trim_matches('/'));
    if path.components().any(|part| !matches!(part, Component::Normal(_))) {
        return Err(Error::invalid(format!("invalid control group {text:?}: no . and .. are allowed in it")));
    }
    let slice = text.strip_suffix(".slice").filter(|name| !name.contains('/') && !name.is_empty());
    let place = slice.map_or_else(|| path.to_owned(), cgroup::slice_place);
    Ok(Some(place).filter(|place| !place.as_os_str().is_empty()))
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
}
