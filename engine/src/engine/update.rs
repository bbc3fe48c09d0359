//! Other limits and another restart policy for a container that is there, running or not.

use crate::container::client;
use crate::container::record::ContainerRecord;
use crate::container::spec::{Resources, RestartPolicy};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::id::ContainerId;
use crate::store::Lock;

/// What changes of a container. `None` and what is not set stay as they are.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UpdateOptions {
    /// Limits.
    pub resources: Resources,
    /// When it is started again by itself.
    pub restart: Option<RestartPolicy>,
}

impl Engine {
    /// Changes a container's limits and restart policy, for good and, while it runs, at once. Returns what does not
    /// hold on this kernel.
    ///
    /// # Errors
    /// When a limit contradicts another one, or the kernel refuses it; everything is as before then.
    pub fn update(&self, id: &ContainerId, options: &UpdateOptions) -> Result<Vec<String>> {
        let failed = |error| Error::failed(format!("update container {}", id.short()), error);
        // The same lock as for a new name: both rewrite the record.
        let names = self.root().container_names();
        let one_at_a_time = Lock::exclusive(&names.join(".lock")).map_err(failed)?;
        let before = ContainerRecord::read(self.root(), id)
            .map_err(failed)?
            .ok_or_else(|| Error::not_found(format!("no such container: {}", id.short())))?;
        let after = updated(&before, options)?;
        after.write(self.root()).map_err(failed)?;
        drop(one_at_a_time);
        let warnings = match client::connect(self.root(), id)? {
            None => Vec::new(),
            Some(mut monitor) => monitor.reload().inspect_err(|_| {
                // What was refused must not hold from the next start on; the refusal is what the user must hear.
                let _ = before.write(self.root());
                let _ = monitor.reload();
            })?,
        };
        after.announce(self.root(), "update", &[]);
        Ok(warnings)
    }
}

/// The record with the changes, when they make sense together.
fn updated(before: &ContainerRecord, options: &UpdateOptions) -> Result<ContainerRecord> {
    let mut after = before.clone();
    if let Some(policy) = options.restart {
        if before.spec.auto_remove && policy != RestartPolicy::No {
            return Err(Error::conflict(format!(
                "the restart policy of container {} cannot be updated: it removes itself",
                before.name
            )));
        }
        after.spec.restart = policy;
    }
    merge(&mut after.spec.resources, &options.resources)?;
    Ok(after)
}

fn merge(known: &mut Resources, wanted: &Resources) -> Result<()> {
    let by_time = wanted.cpu_quota.is_some() || wanted.cpu_period.is_some();
    if by_time && (wanted.nano_cpus.or(known.nano_cpus).unwrap_or(0) > 0) {
        return Err(Error::conflict("a quota or period of processor time contradicts --cpus, which is set")
            .with_hint("change --cpus instead"));
    }
    if wanted.nano_cpus.is_some_and(|cpus| cpus > 0) && (known.cpu_quota.unwrap_or(0) > 0) {
        return Err(Error::conflict("--cpus contradicts the quota of processor time, which is set")
            .with_hint("change --cpu-quota instead, or set it to -1 first"));
    }
    if wanted.memory.is_some_and(|memory| memory.0 < 6 << 20) {
        return Err(Error::invalid("the memory limit is below 6 MiB, with which nothing can run"));
    }
    if let (Some(memory), None, Some(both)) = (wanted.memory, wanted.memory_swap, known.memory_swap)
        && both > 0
        && memory.0 > both.unsigned_abs()
    {
        return Err(Error::conflict(
            "the memory limit would be above the limit of memory and swap together, which is set",
        )
        .with_hint("change --memory-swap at the same time"));
    }
    macro_rules! take {
        ($($field:ident),*) => {
            $(if wanted.$field.is_some() { known.$field.clone_from(&wanted.$field); })*
        };
    }
    take!(
        memory,
        memory_swap,
        memory_reservation,
        nano_cpus,
        cpu_quota,
        cpu_period,
        cpu_shares,
        cpu_rt_period,
        cpu_rt_runtime,
        cpuset_cpus,
        cpuset_mems,
        pids,
        blkio_weight
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantity::ByteSize;

    #[test]
    fn what_is_not_asked_for_stays() {
        let mut known =
            Resources { memory: Some(ByteSize(64 << 20)), pids: Some(10), ..Resources::default() };
        let wanted = Resources { pids: Some(20), cpu_shares: Some(512), ..Resources::default() };
        merge(&mut known, &wanted).unwrap();
        assert_eq!(known.memory, Some(ByteSize(64 << 20)));
        assert_eq!((known.pids, known.cpu_shares), (Some(20), Some(512)));
    }

    #[test]
    fn limits_that_contradict_each_other_are_refused() {
        let memory = |megabytes: u64| Some(ByteSize(megabytes << 20));
        let known = Resources {
            memory: memory(64),
            memory_swap: Some(128 << 20),
            nano_cpus: Some(1),
            ..Resources::default()
        };
        for wanted in [
            Resources { memory: memory(256), ..Resources::default() },
            Resources { memory: memory(1), ..Resources::default() },
            Resources { cpu_quota: Some(1000), ..Resources::default() },
        ] {
            assert!(merge(&mut known.clone(), &wanted).is_err(), "{wanted:?}");
        }
    }
}
