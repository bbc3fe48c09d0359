//! Limits that can change while a container lives.

use std::fs;

use clap::Args;

use crate::container::spec::Resources;
use crate::error::{Error, Result};
use crate::quantity::ByteSize;

/// The flags that `run` and `update` have in common.
#[derive(Debug, Args)]
pub(crate) struct TunableArgs {
    /// Memory limit
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<ByteSize>,
    /// Limit of memory and swap together; -1 for no limit
    #[arg(long, value_name = "BYTES")]
    memory_swap: Option<String>,
    /// Memory kept under pressure
    #[arg(long, value_name = "BYTES")]
    memory_reservation: Option<ByteSize>,
    /// Number of processors
    #[arg(long)]
    cpus: Option<f64>,
    /// Relative weight, 2 to 262144
    #[arg(short, long)]
    cpu_shares: Option<u64>,
    /// Microseconds of processor time per period
    #[arg(long)]
    cpu_quota: Option<i64>,
    /// The period in microseconds
    #[arg(long)]
    cpu_period: Option<u64>,
    /// Microseconds of real-time scheduling per period
    #[arg(long)]
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
    #[arg(long)]
    pids_limit: Option<i64>,
    /// Relative weight at block devices, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
}

// === impl TunableArgs ===

impl TunableArgs {
    /// What is asked for, each by itself checked.
    pub(crate) fn resources(self) -> Result<Resources> {
        self.check_processors()?;
        Ok(Resources {
            memory: self.memory,
            memory_swap: self.memory_swap()?,
            memory_reservation: self.memory_reservation,
            nano_cpus: self.cpus.map(|cpus| (cpus * 1e9).round() as u64).filter(|nano| *nano > 0),
            cpu_quota: self.cpu_quota,
            cpu_period: self.cpu_period,
            cpu_shares: self.cpu_shares,
            cpu_rt_runtime: self.cpu_rt_runtime,
            cpu_rt_period: self.cpu_rt_period,
            cpuset_cpus: self.cpuset_cpus,
            cpuset_mems: self.cpuset_mems,
            pids: self.pids_limit,
            blkio_weight: self.blkio_weight.map(u64::from).map(checked_weight).transpose()?,
            ..Resources::default()
        })
    }

    fn memory_swap(&self) -> Result<Option<i64>> {
        memory_swap(self.memory_swap.as_deref())
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
}

/// A weight at block devices.
pub(crate) fn checked_weight(weight: u64) -> Result<u16> {
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

/// Bytes of memory and swap together; `-1` is no limit.
pub(crate) fn memory_swap(text: Option<&str>) -> Result<Option<i64>> {
    match text {
        None => Ok(None),
        Some("-1") => Ok(Some(-1)),
        Some(text) => {
            let size: ByteSize =
                text.parse().map_err(|error| Error::invalid("--memory-swap").with_source(error))?;
            Ok(Some(i64::try_from(size.0).unwrap_or(i64::MAX)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_read() {
        assert_eq!(numbers("0-2,4").unwrap(), [0, 1, 2, 4]);
        for wrong in ["", "2-1", "a", "0-", "0-99999999"] {
            assert_eq!(numbers(wrong), None, "{wrong:?}");
        }
    }
}
