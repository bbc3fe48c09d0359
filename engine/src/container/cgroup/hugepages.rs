//! Limits on huge pages, one for each of their sizes (cgroup-v1/hugetlb.rst, cgroup-v2.rst, "HugeTLB").

use std::io;
use std::path::Path;

use super::{CgroupError, Controller, Warning, v2, write};
use crate::container::spec::HugepageLimit;

/// What the files of a limit are called after the size: for pages in use, and for those that are set aside.
pub(super) type Files = [&'static str; 2];

/// Version 1.
pub(super) const V1: Files = ["limit_in_bytes", "rsvd.limit_in_bytes"];
/// Version 2.
pub(super) const V2: Files = ["max", "rsvd.max"];

/// Writes the limits to a node. A size that this machine has no pages of needs none.
pub(super) fn limit(
    node: &Path,
    files: Files,
    limits: &[HugepageLimit],
    warnings: &mut Vec<Warning>,
) -> Result<(), CgroupError> {
    for HugepageLimit { size, limit } in limits {
        for (index, file) in files.iter().enumerate() {
            let file = format!("hugetlb.{size}.{file}");
            let (is_used, value) = (index == 0, limit.0.to_string());
            match write(node, &file, &value) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    // Before 5.7 pages that are set aside were not limited.
                    if is_used {
                        let reason = format!("this kernel has no {file}");
                        warnings.push(Warning { limit: "huge pages", reason });
                    }
                }
                Err(source) => return Err(CgroupError::Limit { limit: "huge pages", value, source }),
            }
        }
    }
    Ok(())
}

/// Has every node above this one hand the controller down, which hardly any container needs.
pub(super) fn hand_down(node: &Path) {
    let above: Vec<&Path> =
        node.ancestors().skip(1).take_while(|above| above.join("cgroup.subtree_control").exists()).collect();
    for node in above.into_iter().rev() {
        v2::hand_down_at(node, &[Controller::Hugetlb.name()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantity::ByteSize;
    use std::fs;

    #[test]
    fn a_size_that_is_not_there_is_said() {
        let node = tempfile::tempdir().unwrap();
        for file in ["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"] {
            fs::write(node.path().join(file), "max").unwrap();
        }
        let size = |size: &str| HugepageLimit { size: size.to_owned(), limit: ByteSize(4 << 20) };
        let mut warnings = Vec::new();
        limit(node.path(), V2, &[size("2MB"), size("1GB")], &mut warnings).unwrap();
        for file in ["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"] {
            assert_eq!(fs::read_to_string(node.path().join(file)).unwrap(), "4194304");
        }
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].reason.contains("hugetlb.1GB.max"));
    }
}
