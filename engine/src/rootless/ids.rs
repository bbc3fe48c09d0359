//! The ids that an ordinary user may give away: subuid(5) and subgid(5), handed out by newuidmap(1) and newgidmap(1),
//! which alone may.

use std::fs;
use std::ops::Range;
use std::process::Command;

use rustix::process::Pid;

use crate::error::{Error, Kind, Result};

/// A user's own id and those subordinate to it.
#[derive(Debug)]
pub(super) struct Ranges {
    uid: u32,
    gid: u32,
    uids: Range<u32>,
    gids: Range<u32>,
}

// === impl Ranges ===

impl Ranges {
    /// The ranges of whoever runs this.
    ///
    /// # Errors
    /// When there are none, with what is to be done.
    pub(super) fn of_this_user() -> Result<Self> {
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let name = name_of(&passwd, uid).unwrap_or_default().to_owned();
        let find = |path: &str| {
            let text = fs::read_to_string(path).unwrap_or_default();
            range_of(&text, &name, uid).ok_or_else(|| {
                Error::new(Kind::Unsupported, format!("the user {uid} has no range of further ids in {path}"))
                    .with_hint(format!(
                        "as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}; or run it with sudo"
                    ))
            })
        };
        Ok(Self { uid, gid, uids: find("/etc/subuid")?, gids: find("/etc/subgid")? })
    }

    /// Says what the ids mean in the user namespace of this process: root is the user, the others are the further ones.
    pub(super) fn give(&self, pid: Pid) -> Result<()> {
        for (program, own, further) in
            [("newuidmap", self.uid, &self.uids), ("newgidmap", self.gid, &self.gids)]
        {
            let count = further.end - further.start;
            let numbers = [pid.as_raw_nonzero().get() as u32, 0, own, 1, 1, further.start, count];
            let done = Command::new(program).args(numbers.map(|number| number.to_string())).output();
            let done = done.map_err(|error| {
                Error::new(Kind::Unsupported, format!("run {program}"))
                    .with_source(error)
                    .with_hint("an ordinary user's engine needs it: install the package uidmap (shadow-utils); or run it with sudo")
            })?;
            if !done.status.success() {
                let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
                return Err(Error::failed(format!("map the ids of the user with {program}"), said));
            }
        }
        Ok(())
    }
}

fn name_of(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

/// The first range of a user, by name or by number.
fn range_of(text: &str, name: &str, uid: u32) -> Option<Range<u32>> {
    let is_own = |owner: &str| (!name.is_empty() && owner == name) || owner.parse() == Ok(uid);
    subordinate_ranges(text).find(|(owner, range)| is_own(owner) && !range.is_empty()).map(|(_, range)| range)
}

/// The ranges of a text of `owner:first:count` lines (subuid(5)), the owner a name or a number.
pub(crate) fn subordinate_ranges(text: &str) -> impl Iterator<Item = (&str, Range<u32>)> {
    text.lines().filter_map(|line| {
        let (owner, range) = line.split_once(':')?;
        let (first, count) = range.split_once(':')?;
        let first: u32 = first.parse().ok()?;
        Some((owner, first..first.checked_add(count.trim().parse().ok()?)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name_and_by_number() {
        assert_eq!(name_of("root:x:0:0::/:/bin/sh\nann:x:1000:1000::/:/bin/sh\n", 1000), Some("ann"));
        assert_eq!(range_of("bob:1:2\nann:100000:65536\n", "ann", 1000), Some(100_000..165_536));
        assert_eq!(range_of("1000:5:6\n", "ann", 1000), Some(5..11));
        assert_eq!(range_of("bob:1:2\n", "", 1000), None);
    }
}
