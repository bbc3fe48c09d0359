//! Everything that the control groups of a container count, as far as this kernel counts it.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Cgroup, Controller, read, read_field, read_number};

/// What the control groups of a container have counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Details {
    /// Nanoseconds of processor time.
    pub cpu: CpuDetails,
    /// Bytes of memory.
    pub memory: MemoryDetails,
    /// Bytes read from and written to block devices.
    pub io_bytes: Vec<IoDetail>,
    /// Reads and writes of block devices.
    pub io_operations: Vec<IoDetail>,
}

/// Processor time in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuDetails {
    /// All of it.
    pub total: u64,
    /// Spent in the kernel.
    pub kernel: u64,
    /// Spent outside of it.
    pub user: u64,
    /// Of each processor, user and kernel; empty where that is not counted.
    pub each: Vec<(u64, u64)>,
    /// Periods that a quota was about.
    pub periods: u64,
    /// Those in which the quota was used up.
    pub throttled_periods: u64,
    /// How long processes had to wait for the next one.
    pub throttled: u64,
}

/// Memory in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryDetails {
    /// Files that are kept in memory.
    pub cache: u64,
    /// Memory.
    pub usage: MemoryCounter,
    /// Memory and swap on v1, swap alone on v2.
    pub swap: MemoryCounter,
    /// What the kernel needs for it (v1 only).
    pub kernel: MemoryCounter,
    /// What of that is buffers of TCP (v1 only).
    pub kernel_tcp: MemoryCounter,
    /// The kernel's own figures, by its own names.
    pub raw: BTreeMap<String, u64>,
}

/// One thing that is counted in bytes and limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryCounter {
    /// In use.
    pub usage: u64,
    /// The most that was ever in use.
    pub max: u64,
    /// How often the limit was met.
    pub failures: u64,
    /// The most that may be in use; the kernel's own largest number when there is no limit.
    pub limit: u64,
}

/// One count at a block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IoDetail {
    /// The driver.
    pub major: u64,
    /// The device of that driver.
    pub minor: u64,
    /// `Read`, `Write`, `Sync`, `Async`, `Discard` or `Total`.
    pub operation: String,
    /// The count.
    pub value: u64,
}

/// USER_HZ of times(2): what the kernel tells programs of time is in hundredths of a second.
const TICK: u64 = 10_000_000;
/// Where v1 says that there is no limit: LONG_MAX, cut to whole pages.
const UNLIMITED: u64 = 9_223_372_036_854_771_712;

// === impl Cgroup ===

impl Cgroup {
    /// Everything that is counted.
    pub fn details(&self) -> Details {
        let mut details = Details::default();
        if let Some(node) = self.unified.as_ref().map(super::v2::Node::path) {
            details.cpu = cpu_v2(node);
            details.memory = memory_v2(node);
            (details.io_bytes, details.io_operations) = io_v2(node);
        }
        if let Some(node) = self.v1.path_of(Controller::Cpuacct) {
            details.cpu = cpu_time_v1(node);
        }
        if let Some(node) = self.v1.path_of(Controller::Cpu) {
            details.cpu.periods = read_field(node, "cpu.stat", "nr_periods").unwrap_or(0);
            details.cpu.throttled_periods = read_field(node, "cpu.stat", "nr_throttled").unwrap_or(0);
            details.cpu.throttled = read_field(node, "cpu.stat", "throttled_time").unwrap_or(0);
        }
        if let Some(node) = self.v1.path_of(Controller::Memory) {
            details.memory = memory_v1(node);
        }
        if let Some(node) = self.v1.path_of(Controller::Io) {
            details.io_bytes = io_v1(node, "blkio.throttle.io_service_bytes_recursive");
            details.io_operations = io_v1(node, "blkio.throttle.io_serviced_recursive");
        }
        details
    }
}

fn cpu_time_v1(node: &Path) -> CpuDetails {
    let ticks = |word| read_field(node, "cpuacct.stat", word).unwrap_or(0).saturating_mul(TICK);
    let table = read(node, "cpuacct.usage_all").unwrap_or_default();
    let row = |line: &str| {
        let mut numbers = line.split(' ').skip(1).map_while(|number| number.parse().ok());
        Some((numbers.next()?, numbers.next()?))
    };
    CpuDetails {
        total: read_number(node, "cpuacct.usage").unwrap_or(0),
        kernel: ticks("system"),
        user: ticks("user"),
        each: table.lines().skip(1).filter_map(row).collect(),
        ..CpuDetails::default()
    }
}

fn cpu_v2(node: &Path) -> CpuDetails {
    let field = |word| read_field(node, "cpu.stat", word).unwrap_or(0);
    CpuDetails {
        total: field("usage_usec").saturating_mul(1000),
        kernel: field("system_usec").saturating_mul(1000),
        user: field("user_usec").saturating_mul(1000),
        each: Vec::new(),
        periods: field("nr_periods"),
        throttled_periods: field("nr_throttled"),
        throttled: field("throttled_usec").saturating_mul(1000),
    }
}

fn memory_v1(node: &Path) -> MemoryDetails {
    let counter = |name: &str| {
        let number = |rest: &str| read_number(node, &format!("{name}.{rest}"));
        MemoryCounter {
            usage: number("usage_in_bytes").unwrap_or(0),
            max: number("max_usage_in_bytes").unwrap_or(0),
            failures: number("failcnt").unwrap_or(0),
            limit: number("limit_in_bytes").unwrap_or(0),
        }
    };
    let raw = fields(node, "memory.stat");
    MemoryDetails {
        cache: raw.get("cache").copied().unwrap_or(0),
        usage: counter("memory"),
        swap: counter("memory.memsw"),
        kernel: counter("memory.kmem"),
        kernel_tcp: counter("memory.kmem.tcp"),
        raw,
    }
}

fn memory_v2(node: &Path) -> MemoryDetails {
    let counter = |name: &str| {
        let number = |rest: &str| read_number(node, &format!("{name}.{rest}"));
        MemoryCounter {
            usage: number("current").unwrap_or(0),
            max: number("peak").unwrap_or(0),
            failures: read_field(node, &format!("{name}.events"), "max").unwrap_or(0),
            limit: number("max").unwrap_or(UNLIMITED),
        }
    };
    let raw = fields(node, "memory.stat");
    MemoryDetails {
        cache: raw.get("file").copied().unwrap_or(0),
        usage: counter("memory"),
        swap: counter("memory.swap"),
        raw,
        ..MemoryDetails::default()
    }
}

/// A file of `word number` lines.
fn fields(node: &Path, file: &str) -> BTreeMap<String, u64> {
    let text = read(node, file).unwrap_or_default();
    let field = |line: &str| {
        let (word, number) = line.split_once(' ')?;
        Some((word.to_owned(), number.parse().ok()?))
    };
    text.lines().filter_map(field).collect()
}

/// `254:0 Read 4096` a line; the sum of all devices comes last, without one.
fn io_v1(node: &Path, file: &str) -> Vec<IoDetail> {
    read(node, file).unwrap_or_default().lines().filter_map(io_line_v1).collect()
}

fn io_line_v1(line: &str) -> Option<IoDetail> {
    let mut words = line.split(' ');
    let (major, minor) = words.next()?.split_once(':')?;
    Some(IoDetail {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        operation: words.next()?.to_owned(),
        value: words.next()?.parse().ok()?,
    })
}

/// `254:0 rbytes=4096 wbytes=0 rios=1 wios=0` a line: bytes and operations.
fn io_v2(node: &Path) -> (Vec<IoDetail>, Vec<IoDetail>) {
    let text = read(node, "io.stat").unwrap_or_default();
    let (mut bytes, mut operations) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split(' ');
        let numbers = words.next().and_then(|device| device.split_once(':'));
        let Some((Ok(major), Ok(minor))) = numbers.map(|(major, minor)| (major.parse(), minor.parse()))
        else {
            continue;
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (list, operation) = match key {
                "rbytes" => (&mut bytes, "Read"),
                "wbytes" => (&mut bytes, "Write"),
                "rios" => (&mut operations, "Read"),
                "wios" => (&mut operations, "Write"),
                _ => continue,
            };
            if let Ok(value) = value.parse() {
                list.push(IoDetail { major, minor, operation: operation.to_owned(), value });
            }
        }
    }
    (bytes, operations)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_files_of_both_versions_are_read() {
        let node = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(node.path().join(file), text).unwrap();
        write("cpuacct.usage", "30\n");
        write("cpuacct.stat", "user 1\nsystem 2\n");
        write("cpuacct.usage_all", "cpu user system\n0 10 5\n1 12 3\n");
        let cpu = cpu_time_v1(node.path());
        assert_eq!((cpu.total, cpu.user, cpu.kernel), (30, TICK, 2 * TICK));
        assert_eq!(cpu.each, [(10, 5), (12, 3)]);
        write("memory.stat", "cache 7\nfile 9\n");
        write("memory.memsw.failcnt", "3\n");
        let memory = memory_v1(node.path());
        assert_eq!((memory.cache, memory.swap.failures, memory.raw.len()), (7, 3, 2));
        write("memory.current", "5\n");
        write("memory.max", "max\n");
        let memory = memory_v2(node.path());
        assert_eq!((memory.cache, memory.usage.usage, memory.usage.limit), (9, 5, UNLIMITED));
        write("blkio.x", "254:0 Read 4096\nTotal 4096\n");
        let read = |value| IoDetail { major: 254, minor: 0, operation: "Read".to_owned(), value };
        assert_eq!(io_v1(node.path(), "blkio.x"), [read(4096)]);
        write("io.stat", "254:0 rbytes=8 wbytes=0 rios=1 wios=0 dbytes=3\n");
        let (bytes, operations) = io_v2(node.path());
        assert_eq!((bytes[0].clone(), operations[0].clone(), bytes.len()), (read(8), read(1), 2));
    }
}
