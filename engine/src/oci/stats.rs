//! What a container uses, in the form of `runc events --stats`.

use serde_json::{Value, json};

use super::life::Runtime;
use super::state::{Record, Status};
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
    let stats = record.cgroup()?.stats();
    let unlimited = 9_223_372_036_854_771_712u64;
    let event = json!({
        "type": "stats",
        "id": id,
        "data": {
            "cpu": {"usage": {"total": u64::try_from(stats.cpu.as_nanos()).unwrap_or(u64::MAX), "kernel": 0, "user": 0}, "throttling": {}},
            "memory": {"usage": {"usage": stats.memory, "limit": stats.memory_limit.unwrap_or(unlimited)}},
            "pids": {"current": stats.pids, "limit": stats.pids_limit.unwrap_or(0)},
            "blkio": {},
            "hugetlb": {},
            "intel_rdt": {},
            "network_interfaces": null,
        },
    });
    Ok((event, stats.oom_kills))
}
