//! Ranges of the host's user ids for containers with users of their own: which there are, and which are free.

use std::fs;
use std::ops::Range;

use crate::container::idmap::{IdMap, IdMapError, IdRange, UserMap};
use crate::rootless;

/// The ids that containers may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pool {
    uids: Range<u32>,
    gids: Range<u32>,
}

/// Whose entry in subuid(5) and subgid(5) is taken, the first that is there.
const NAMES: [&str; 2] = ["rengine", "root"];

/// The ids of a machine that says nothing: above those of systemd-nspawn's containers, below systemd's foreign ones
/// (systemd's UIDS-GIDS.md lists this part as unused). There are some 4000 ranges of the usual size in it.
const UNUSED: Range<u32> = 0x7000_0000..0x7ffe_0000;

// === impl Pool ===

impl Pool {
    /// The pool of this machine. Every engine root gives out ranges of it by itself; two of them may give out the same.
    pub(crate) fn of_machine() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self::said_in(&read("/etc/subuid"), &read("/etc/subgid"))
            .unwrap_or(Self { uids: UNUSED, gids: UNUSED })
    }

    /// The ranges of the first name that has some in both texts.
    fn said_in(subuid: &str, subgid: &str) -> Option<Self> {
        NAMES.iter().find_map(|name| Some(Self { uids: entry(subuid, name)?, gids: entry(subgid, name)? }))
    }

    /// The first free range of this size; `None` when there is none.
    pub(crate) fn free(&self, size: u32, taken: &[UserMap]) -> Option<Result<UserMap, IdMapError>> {
        let ends = taken.iter().flat_map(|map| {
            let uids = map.uids.ranges().iter().map(|range| (range, self.uids.start));
            uids.chain(map.gids.ranges().iter().map(|range| (range, self.gids.start)))
        });
        // A free range begins where the pool does or where another one ends.
        let mut offsets: Vec<u32> =
            ends.filter_map(|(range, start)| (range.outside + range.length).checked_sub(start)).collect();
        offsets.push(0);
        offsets.sort_unstable();
        let is_free = |offset: &u32| {
            let free = |pool: &Range<u32>, ids: fn(&UserMap) -> &IdMap| {
                let Some(first) = pool.start.checked_add(*offset) else { return false };
                let Some(end) = first.checked_add(size).filter(|end| *end <= pool.end) else { return false };
                let mut others = taken.iter().flat_map(|map| ids(map).ranges());
                !others.any(|other| first < other.outside + other.length && other.outside < end)
            };
            free(&self.uids, |map| &map.uids) && free(&self.gids, |map| &map.gids)
        };
        let offset = offsets.into_iter().find(is_free)?;
        let range = |pool: &Range<u32>| {
            IdMap::new(vec![IdRange { inside: 0, outside: pool.start + offset, length: size }])
        };
        Some(range(&self.uids).and_then(|uids| Ok(UserMap { uids, gids: range(&self.gids)? })))
    }
}

/// The largest range of a name.
fn entry(text: &str, name: &str) -> Option<Range<u32>> {
    let own = rootless::subordinate_ranges(text).filter(|(owner, _)| *owner == name);
    own.map(|(_, range)| range).max_by_key(ExactSizeIterator::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_given_out_from_the_first_gap_on() {
        let pool = Pool { uids: 1000..1300, gids: 5000..5300 };
        let mut taken = Vec::new();
        for first in [1000, 1100, 1200] {
            let map = pool.free(100, &taken).unwrap().unwrap();
            assert_eq!((map.uids.outside(0), map.gids.outside(0)), (Some(first), Some(first + 4000)));
            taken.push(map);
        }
        assert_eq!(pool.free(1, &taken), None);
        taken.remove(1);
        assert_eq!(pool.free(100, &taken).unwrap().unwrap().root(), Some((1100, 5100)));
        assert_eq!(pool.free(101, &taken), None);
    }

    #[test]
    fn the_engines_own_entry_comes_before_roots() {
        let pool = |subuid, subgid| Pool::said_in(subuid, subgid).map(|pool| (pool.uids, pool.gids));
        let both = "root:5:1\nrengine:100000:65536\n";
        assert_eq!(pool(both, both), Some((100_000..165_536, 100_000..165_536)));
        assert_eq!(pool(both, "root:7:1\nrengineer:1:2\n"), Some((5..6, 7..8)));
        assert_eq!(pool("root:x:1\n", both), None);
        let several = "rengine:1:2\nrengine:100:20\n";
        assert_eq!(pool(several, several), Some((100..120, 100..120)));
    }
}
