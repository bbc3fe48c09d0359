//! What containers use: processor, memory, network, block devices, processes.

use std::fs;
use std::time::{Duration, Instant};

use crate::container::cgroup::Cgroup;
use crate::container::spec::NetworkMode;
use crate::container::state::State;
use crate::engine::{Container, Engine};
use crate::error::{Error, Result};

/// What a container has used, at one moment.
#[derive(Debug, Clone)]
pub struct Usage {
    /// When it was read.
    pub at: Instant,
    /// Processor time since it was started.
    pub cpu: Duration,
    /// Bytes of memory, without the page cache that could be dropped at once.
    pub memory: u64,
    /// Most bytes of memory it may use: its own limit or the machine's memory.
    pub memory_limit: u64,
    /// Bytes received over its network links.
    pub received: u64,
    /// Bytes sent over them.
    pub sent: u64,
    /// Bytes read from block devices.
    pub read: u64,
    /// Bytes written to them.
    pub written: u64,
    /// Processes and threads.
    pub pids: u64,
}

impl Engine {
    /// Whether processor time, memory and processes of containers are counted at all.
    pub fn counts_usage(&self) -> bool {
        Cgroup::counts()
    }

    /// What a container uses; `None` when it does not run.
    ///
    /// # Errors
    /// When its control groups cannot be read.
    pub fn usage(&self, container: &Container) -> Result<Option<Usage>> {
        let State::Running(running) = &container.state else { return Ok(None) };
        let cgroup = Cgroup::open(self.root(), container.id()).map_err(|error| {
            Error::failed(format!("read the usage of container {}", container.name()), error)
        })?;
        let at = Instant::now();
        let stats = cgroup.stats();
        let machine = machine_memory();
        let (read, written) = block_bytes(&cgroup);
        // The host's own traffic is not the container's.
        let (received, sent) = match container.record.spec.network {
            NetworkMode::Host => (0, 0),
            _ => traffic(running.pid),
        };
        Ok(Some(Usage {
            at,
            cpu: stats.cpu,
            memory: stats.memory,
            memory_limit: stats.memory_limit.filter(|limit| *limit < machine).unwrap_or(machine),
            received,
            sent,
            read,
            written,
            pids: stats.pids,
        }))
    }
}

impl Usage {
    /// The share of one processor used since an earlier look, in percent; two busy processors are 200.
    pub fn cpu_percent_since(&self, earlier: &Self) -> f64 {
        let passed = self.at.saturating_duration_since(earlier.at).as_secs_f64();
        let used = self.cpu.saturating_sub(earlier.cpu).as_secs_f64();
        if passed > 0.0 { used / passed * 100.0 } else { 0.0 }
    }
}

/// Bytes read from and written to block devices by the processes inside, and by those that they have waited for:
/// the kernel adds a child's bytes to its parent's (proc_pid_io(5)).
fn block_bytes(cgroup: &Cgroup) -> (u64, u64) {
    let processes = cgroup.processes().unwrap_or_default();
    processes.iter().fold((0, 0), |(read, written), pid| {
        // One that has just ended is counted with its parent.
        let text = fs::read_to_string(format!("/proc/{}/io", pid.as_raw_nonzero())).unwrap_or_default();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|number| number.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        (read + field("read_bytes:"), written + field("write_bytes:"))
    })
}

/// Bytes of memory that the machine has.
pub(crate) fn machine_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes: Option<u64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kilobytes.unwrap_or(0) * 1024
}

/// Bytes received and sent in the network namespace of a process, but for loopback.
fn traffic(pid: i32) -> (u64, u64) {
    parse_traffic(&fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default())
}

/// The lines of /proc/net/dev: a name, eight numbers about what came in, eight about what went out.
fn parse_traffic(text: &str) -> (u64, u64) {
    let links = text.lines().filter_map(|line| line.split_once(':'));
    links.filter(|(name, _)| name.trim() != "lo").fold((0, 0), |(received, sent), (_, numbers)| {
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        (received + numbers.first().copied().unwrap_or(0), sent + numbers.get(8).copied().unwrap_or(0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_is_that_of_all_links_but_loopback() {
        let text = "Inter-|   Receive          |  Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes\n\
            \x20   lo:  100 1 0 0 0 0 0 0  100 1 0 0 0 0 0 0\n  eth0: 1000 9 0 0 0 0 0 0  200 2 0 0 0 0 0 0\n\
            \x20 eth1:1 1 0 0 0 0 0 0 2 1 0 0 0 0 0 0\n";
        assert_eq!(parse_traffic(text), (1001, 202));
    }
}
