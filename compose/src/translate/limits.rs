//! Limits: of the cgroup and of single processes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use engine::container::spec::{BlockLimit, BlockLimitKind, Resources, Ulimit};
use engine::quantity::ByteSize;

use crate::model::{Resource, Service};

/// The limits of the cgroup. What `deploy.resources` says wins; the loader has seen to it that both agree.
pub(super) fn resources(service: &Service) -> Resources {
    let deployed = service.deploy.as_ref().map(|deploy| &deploy.resources);
    let none = Resource::default();
    let limits = deployed.and_then(|resources| resources.limits.as_ref()).unwrap_or(&none);
    let reserved = deployed.and_then(|resources| resources.reservations.as_ref()).unwrap_or(&none);
    let cpus = if limits.cpus > 0.0 { limits.cpus } else { service.cpus };
    let pids = if limits.pids == 0 { service.pids_limit } else { limits.pids };
    Resources {
        memory: first(limits.memory, service.mem_limit),
        memory_swap: nonzero(service.memswap_limit),
        memory_reservation: first(reserved.memory, service.mem_reservation),
        nano_cpus: (cpus > 0.0).then_some((cpus * 1e9).round() as u64),
        cpu_quota: nonzero(service.cpu_quota),
        cpu_period: nonzero(service.cpu_period).map(|period| period as u64),
        cpu_shares: nonzero(service.cpu_shares).map(|shares| shares as u64),
        cpuset_cpus: service.cpuset.clone(),
        cpuset_mems: None,
        pids: nonzero(pids),
        oom_kill_disable: service.oom_kill_disable,
        memory_swappiness: u8::try_from(service.mem_swappiness).ok().filter(|swappiness| *swappiness > 0),
        cpu_rt_runtime: nonzero(service.cpu_rt_runtime),
        cpu_rt_period: nonzero(service.cpu_rt_period).map(|period| period as u64),
        blkio_weight: service.blkio_config.as_ref().map(|blkio| blkio.weight).filter(|weight| *weight > 0),
        blkio_devices: block_limits(service),
        hugepages: Vec::new(),
        unified: BTreeMap::new(),
    }
}

/// The limits at single block devices.
fn block_limits(service: &Service) -> Vec<BlockLimit> {
    let Some(blkio) = &service.blkio_config else { return Vec::new() };
    let limit = |path: &String, kind, value| BlockLimit { device: PathBuf::from(path), kind, value };
    let weights = blkio
        .weight_device
        .iter()
        .map(|device| limit(&device.path, BlockLimitKind::Weight, u64::from(device.weight)));
    let rates = [
        (&blkio.device_read_bps, BlockLimitKind::ReadBytes),
        (&blkio.device_write_bps, BlockLimitKind::WriteBytes),
        (&blkio.device_read_iops, BlockLimitKind::ReadOperations),
        (&blkio.device_write_iops, BlockLimitKind::WriteOperations),
    ];
    let rates = rates.into_iter().flat_map(|(devices, kind)| {
        devices.iter().map(move |device| limit(&device.path, kind, device.rate.0))
    });
    weights.chain(rates).collect()
}

/// The limits of single processes.
pub(super) fn ulimits(service: &Service) -> BTreeMap<String, Ulimit> {
    service
        .ulimits
        .iter()
        .map(|(name, limit)| (name.clone(), Ulimit { soft: limit.soft(), hard: limit.hard() }))
        .collect()
}

fn first(wanted: ByteSize, otherwise: ByteSize) -> Option<ByteSize> {
    [wanted, otherwise].into_iter().find(|size| size.0 > 0)
}

fn nonzero(number: i64) -> Option<i64> {
    (number != 0).then_some(number)
}
