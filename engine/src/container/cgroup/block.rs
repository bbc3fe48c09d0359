//! Limits at block devices: the files of each hierarchy and the notation it wants.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::{CgroupError, Warning, write};
use crate::container::spec::{BlockLimit, BlockLimitKind, Resources};

/// A file of the controller, and what becomes of a value that is written to it.
type ScaledFile = (&'static str, fn(u64) -> u64);

/// How a hierarchy writes limits at block devices.
pub(super) struct Notation {
    /// Files for a weight, the first one that exists counts, with the translation of docker's range.
    weights: [ScaledFile; 2],
    /// Files for a weight at one device.
    device_weights: [ScaledFile; 2],
    /// The file and the word before the number, of a rate.
    rate: fn(BlockLimitKind) -> (&'static str, &'static str),
}

/// cgroup-v1/blkio-controller.rst of the kernel.
pub(super) const V1: Notation = Notation {
    weights: [("blkio.weight", same), ("blkio.bfq.weight", same)],
    device_weights: [("blkio.weight_device", same), ("blkio.bfq.weight_device", same)],
    rate: |kind| match kind {
        BlockLimitKind::ReadBytes | BlockLimitKind::Weight => ("blkio.throttle.read_bps_device", ""),
        BlockLimitKind::WriteBytes => ("blkio.throttle.write_bps_device", ""),
        BlockLimitKind::ReadOperations => ("blkio.throttle.read_iops_device", ""),
        BlockLimitKind::WriteOperations => ("blkio.throttle.write_iops_device", ""),
    },
};

/// cgroup-v2.rst of the kernel, "IO Interface Files".
pub(super) const V2: Notation = Notation {
    weights: [("io.bfq.weight", same), ("io.weight", wide)],
    device_weights: [("io.bfq.weight", same), ("io.weight", wide)],
    rate: |kind| match kind {
        BlockLimitKind::ReadBytes | BlockLimitKind::Weight => ("io.max", "rbps="),
        BlockLimitKind::WriteBytes => ("io.max", "wbps="),
        BlockLimitKind::ReadOperations => ("io.max", "riops="),
        BlockLimitKind::WriteOperations => ("io.max", "wiops="),
    },
};

fn same(weight: u64) -> u64 {
    weight
}

/// 10 to 1000 become 1 to 10000, as the OCI runtimes have it.
fn wide(weight: u64) -> u64 {
    1 + weight.saturating_sub(10) * 9999 / 990
}

/// Writes all limits at block devices to a node.
pub(super) fn limit(
    node: &Path,
    notation: &Notation,
    resources: &Resources,
    warnings: &mut Vec<Warning>,
) -> Result<(), CgroupError> {
    if let Some(weight) = resources.blkio_weight.filter(|&weight| weight != 0) {
        write_weight(node, &notation.weights, "", weight.into(), warnings)?;
    }
    for BlockLimit { device, kind, value } in &resources.blkio_devices {
        let number = number_of(device)?;
        if *kind == BlockLimitKind::Weight {
            write_weight(node, &notation.device_weights, &format!("{number} "), *value, warnings)?;
            continue;
        }
        let (file, word) = (notation.rate)(*kind);
        let line = format!("{number} {word}{value}");
        match write(node, file, &line) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let reason = format!("this kernel has no {file}");
                warnings.push(Warning { limit: "block device rate", reason });
            }
            Err(source) => {
                return Err(CgroupError::Limit { limit: "block device rate", value: line, source });
            }
        }
    }
    Ok(())
}

fn write_weight(
    node: &Path,
    files: &[ScaledFile],
    device: &str,
    weight: u64,
    warnings: &mut Vec<Warning>,
) -> Result<(), CgroupError> {
    for (file, translate) in files {
        let value = format!("{device}{}", translate(weight));
        match write(node, file, &value) {
            Ok(()) => return Ok(()),
            // Which of them there is depends on the scheduler of the kernel.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(CgroupError::Limit { limit: "block device weight", value, source }),
        }
    }
    let reason = "this kernel weighs no block devices".to_owned();
    warnings.push(Warning { limit: "block device weight", reason });
    Ok(())
}

/// `major:minor` of a block device.
fn number_of(path: &Path) -> Result<String, CgroupError> {
    let text = path.to_str().unwrap_or_default();
    if text.split_once(':').is_some_and(|(major, minor)| {
        [major, minor].iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    }) {
        return Ok(text.to_owned());
    }
    let failed = |source| CgroupError::BlockDevice { path: path.to_owned(), source };
    let found = fs::metadata(path).map_err(failed)?;
    if !found.file_type().is_block_device() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is not a block device")));
    }
    let number = found.rdev();
    Ok(format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_take_the_first_file_there_is_in_its_own_range() {
        let node = tempfile::tempdir().unwrap();
        let resources = Resources { blkio_weight: Some(500), ..Resources::default() };
        let mut warnings = Vec::new();
        limit(node.path(), &V2, &resources, &mut warnings).unwrap();
        assert_eq!(warnings.len(), 1);
        for (file, value) in [("io.weight", "4950"), ("io.bfq.weight", "500")] {
            fs::write(node.path().join(file), "").unwrap();
            limit(node.path(), &V2, &resources, &mut warnings).unwrap();
            assert_eq!(fs::read_to_string(node.path().join(file)).unwrap(), value);
        }
        assert_eq!(warnings.len(), 1);
        assert_eq!((wide(10), wide(1000)), (1, 10_000));
    }

    #[test]
    fn only_a_block_device_has_a_rate() {
        let node = tempfile::tempdir().unwrap();
        let at = |device: &str| Resources {
            blkio_devices: vec![BlockLimit {
                device: device.into(),
                kind: BlockLimitKind::ReadBytes,
                value: 1 << 20,
            }],
            ..Resources::default()
        };
        for wrong in ["/dev/null", "/nosuch"] {
            let outcome = limit(node.path(), &V1, &at(wrong), &mut Vec::new());
            assert!(matches!(outcome, Err(CgroupError::BlockDevice { .. })), "{wrong}");
        }
    }
}
