//! What a container uses, in the form of `runc events --stats`.

use serde_json::{Map, Value, json};

use super::life::Runtime;
use super::state::{Record, Status};
use crate::container::cgroup::detail::{CpuDetails, IoDetail, MemoryCounter, MemoryDetails};
use crate::error::{Error, Result};

/// One event with everything that is counted, and how many processes the out-of-memory killer has ended.
///
/// # Errors
/// When the container does not run.
pub fn stats(runtime: &Runtime, id: &str) -> Result<(Value, u64)> {
    let record = Record::read(&runtime.root, id)?;
    if record.status(&runtime.root)? == Status::Stopped {
        return Err(Error::conflict(format!("container with id {id} is not running")));
    }
    let cgroup = record.cgroup()?;
    let (stats, details) = (cgroup.stats(), cgroup.details());
    let event = json!({
        "type": "stats",
        "id": id,
        "data": {
            "cpu": cpu(&details.cpu),
            "memory": memory(&details.memory),
            "pids": without_zeros(&[("current", stats.pids), ("limit", stats.pids_limit.unwrap_or(0))]),
            "blkio": block_io(&details.io_bytes, &details.io_operations),
            "hugetlb": {},
            "intel_rdt": {},
            "network_interfaces": null,
        },
    });
    Ok((event, stats.oom_kills))
}

fn cpu(cpu: &CpuDetails) -> Value {
    let mut usage = without_zeros(&[("total", cpu.total)]);
    if !cpu.each.is_empty() {
        let each = |of: fn(&(u64, u64)) -> u64| Value::from(cpu.each.iter().map(of).collect::<Vec<_>>());
        usage.insert("percpu".to_owned(), each(|(user, kernel)| user + kernel));
        usage.insert("percpu_kernel".to_owned(), each(|(_, kernel)| *kernel));
        usage.insert("percpu_user".to_owned(), each(|(user, _)| *user));
    }
    usage.insert("kernel".to_owned(), cpu.kernel.into());
    usage.insert("user".to_owned(), cpu.user.into());
    let throttling = [
        ("periods", cpu.periods),
        ("throttledPeriods", cpu.throttled_periods),
        ("throttledTime", cpu.throttled),
    ];
    json!({"usage": usage, "throttling": without_zeros(&throttling)})
}

fn memory(memory: &MemoryDetails) -> Value {
    let mut shown = without_zeros(&[("cache", memory.cache)]);
    for (name, counter) in [
        ("usage", memory.usage),
        ("swap", memory.swap),
        ("kernel", memory.kernel),
        ("kernelTCP", memory.kernel_tcp),
    ] {
        shown.insert(name.to_owned(), memory_counter(counter));
    }
    if !memory.raw.is_empty() {
        shown.insert("raw".to_owned(), json!(memory.raw));
    }
    shown.into()
}

fn memory_counter(counter: MemoryCounter) -> Value {
    let mut shown =
        without_zeros(&[("limit", counter.limit), ("usage", counter.usage), ("max", counter.max)]);
    shown.insert("failcnt".to_owned(), counter.failures.into());
    shown.into()
}

fn block_io(bytes: &[IoDetail], operations: &[IoDetail]) -> Value {
    let mut shown = Map::new();
    for (name, list) in [("ioServiceBytesRecursive", bytes), ("ioServicedRecursive", operations)] {
        if !list.is_empty() {
            shown.insert(name.to_owned(), list.iter().map(io).collect::<Vec<_>>().into());
        }
    }
    shown.into()
}

fn io(detail: &IoDetail) -> Value {
    let mut shown = without_zeros(&[("major", detail.major), ("minor", detail.minor)]);
    shown.insert("op".to_owned(), detail.operation.as_str().into());
    shown.append(&mut without_zeros(&[("value", detail.value)]));
    shown.into()
}

/// Numbers by name. What is nothing is left out, as runc leaves it out.
fn without_zeros(numbers: &[(&str, u64)]) -> Map<String, Value> {
    let there = numbers.iter().filter(|(_, number)| *number != 0);
    there.map(|(name, number)| ((*name).to_owned(), (*number).into())).collect()
}
