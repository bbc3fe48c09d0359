//! User and group ids of a container as ids of the host: the lines of user_namespaces(7)'s `uid_map` and `gid_map`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One line of a map: ids inside from `inside` on are ids of the host from `outside` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The first id in the container.
    pub inside: u32,
    /// The first id on the host.
    pub outside: u32,
    /// How many ids there are; never 0.
    pub length: u32,
}

/// Which ids of a container are which ids of the host. Never empty; no id, inside or outside, occurs twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<IdRange>", into = "Vec<IdRange>")]
pub struct IdMap(Vec<IdRange>);

/// The maps of a user namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserMap {
    /// Users.
    pub uids: IdMap,
    /// Groups.
    pub gids: IdMap,
}

/// Whose user ids a container has, as it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserMode {
    /// The host's.
    #[default]
    Host,
    /// A range of the host's that no other container of this engine has.
    Auto {
        /// How many ids; [`UserMode::SIZE`] when `None`.
        size: Option<u32>,
    },
    /// These.
    Mapped(UserMap),
}

/// Why a map is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdMapError {
    /// It says nothing.
    #[error("it has no range")]
    Empty,
    /// The kernel takes 340 lines at most (user_namespaces(7)).
    #[error("it has more than {} ranges", IdMap::LINES)]
    TooLong,
    /// A range has no ids, or ids that do not exist.
    #[error("the range {0} has no ids or goes beyond the last one")]
    Bounds(IdRange),
    /// An id is in two ranges.
    #[error("the ranges {0} and {1} overlap")]
    Overlap(IdRange, IdRange),
    /// A word is no range.
    #[error("{0:?} is no range of ids")]
    Word(String),
    /// A mode of that name does not exist.
    #[error("there is no user namespace {0:?}")]
    Mode(String),
    /// Nothing would be root.
    #[error("it has no root: id 0 is not mapped")]
    NoRoot,
}

// === impl IdMap ===

impl IdMap {
    /// user_namespaces(7): as many lines as the kernel takes.
    pub const LINES: usize = 340;

    /// A map of these ranges.
    ///
    /// # Errors
    /// When one has no ids, two share an id, or there are too many or none.
    pub fn new(ranges: Vec<IdRange>) -> Result<Self, IdMapError> {
        match ranges.len() {
            0 => return Err(IdMapError::Empty),
            1..=Self::LINES => {}
            _ => return Err(IdMapError::TooLong),
        }
        for (index, range) in ranges.iter().enumerate() {
            let fits = |first: u32| first.checked_add(range.length).is_some();
            if range.length == 0 || !fits(range.inside) || !fits(range.outside) {
                return Err(IdMapError::Bounds(*range));
            }
            let clash = |other: &&IdRange| {
                let meet = |one: u32, two: u32| one < two + other.length && two < one + range.length;
                meet(range.inside, other.inside) || meet(range.outside, other.outside)
            };
            if let Some(other) = ranges[..index].iter().find(clash) {
                return Err(IdMapError::Overlap(*other, *range));
            }
        }
        Ok(Self(ranges))
    }

    /// The groups of the user namespace this process is in, as one range from each line that begins where the last ended.
    pub(crate) fn of_own_groups() -> Option<Self> {
        let text = std::fs::read_to_string("/proc/self/gid_map").ok()?;
        let mut ranges: Vec<IdRange> = Vec::new();
        for line in text.lines() {
            let numbers: Vec<u32> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            let [inside, outside, length] = numbers[..] else { return None };
            match ranges.last_mut() {
                Some(last) if last.inside + last.length == inside => last.length += length,
                _ => ranges.push(IdRange { inside, outside, length }),
            }
        }
        Self::new(ranges).ok()
    }

    /// The ranges.
    pub fn ranges(&self) -> &[IdRange] {
        &self.0
    }

    /// The host's id of an id of the container.
    pub fn outside(&self, inside: u32) -> Option<u32> {
        self.0.iter().find_map(|range| {
            let offset = inside.checked_sub(range.inside)?;
            (offset < range.length).then(|| range.outside + offset)
        })
    }

    /// The last id of the range inside that begins with this one.
    pub(crate) fn last_from(&self, inside: u32) -> Option<u32> {
        let range = self.0.iter().find(|range| range.inside == inside)?;
        Some(range.inside + (range.length - 1))
    }

    /// As the kernel reads it.
    pub(crate) fn lines(&self) -> String {
        self.0.iter().map(|range| format!("{} {} {}\n", range.inside, range.outside, range.length)).collect()
    }
}

impl TryFrom<Vec<IdRange>> for IdMap {
    type Error = IdMapError;

    fn try_from(ranges: Vec<IdRange>) -> Result<Self, IdMapError> {
        Self::new(ranges)
    }
}

impl From<IdMap> for Vec<IdRange> {
    fn from(map: IdMap) -> Self {
        map.0
    }
}

// === impl UserMap ===

impl UserMap {
    /// The host's ids of the container's root; `None` when it has none.
    pub fn root(&self) -> Option<(u32, u32)> {
        Some((self.uids.outside(0)?, self.gids.outside(0)?))
    }
}

// === impl UserMode ===

impl UserMode {
    /// How many ids a container gets that does not say: as many as sixteen bits have, `nobody` included.
    pub const SIZE: u32 = 1 << 16;

    /// Whether ids inside are other ids outside.
    pub fn is_mapped(&self) -> bool {
        *self != Self::Host
    }
}

/// `host`, `auto`, `auto:size=N`, or `map:INSIDE:OUTSIDE:LENGTH[,…]` for users and groups alike; nothing is `host`.
impl FromStr for UserMode {
    type Err = IdMapError;

    fn from_str(text: &str) -> Result<Self, IdMapError> {
        let unknown = || IdMapError::Mode(text.to_owned());
        match text.split_once(':').unwrap_or((text, "")) {
            ("" | "host", "") => Ok(Self::Host),
            ("auto", "") => Ok(Self::Auto { size: None }),
            ("auto", rest) => {
                let size = rest.strip_prefix("size=").and_then(|size| size.parse().ok());
                size.filter(|size| *size > 0).map(|size| Self::Auto { size: Some(size) }).ok_or_else(unknown)
            }
            ("map", rest) => {
                let ranges = rest.split(',').map(str::parse).collect::<Result<_, _>>()?;
                let map = IdMap::new(ranges)?;
                map.outside(0).ok_or(IdMapError::NoRoot)?;
                Ok(Self::Mapped(UserMap { uids: map.clone(), gids: map }))
            }
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for UserMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Auto { size: None } => f.write_str("auto"),
            Self::Auto { size: Some(size) } => write!(f, "auto:size={size}"),
            Self::Mapped(map) => {
                let ranges: Vec<String> = map.uids.ranges().iter().map(ToString::to_string).collect();
                write!(f, "map:{}", ranges.join(","))
            }
        }
    }
}

// === impl IdRange ===

impl FromStr for IdRange {
    type Err = IdMapError;

    fn from_str(text: &str) -> Result<Self, IdMapError> {
        let numbers: Option<Vec<u32>> = text.split(':').map(|word| word.parse().ok()).collect();
        match numbers.as_deref() {
            Some([inside, outside, length]) => {
                Ok(Self { inside: *inside, outside: *outside, length: *length })
            }
            _ => Err(IdMapError::Word(text.to_owned())),
        }
    }
}

impl fmt::Display for IdRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.inside, self.outside, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_read_as_they_are_shown() {
        for text in ["host", "auto", "auto:size=4096", "map:0:100000:65536", "map:0:100000:1000,1000:1000:1"]
        {
            assert_eq!(text.parse::<UserMode>().unwrap().to_string(), text);
        }
        assert_eq!("".parse(), Ok(UserMode::Host));
    }

    #[test]
    fn what_is_no_map_is_refused() {
        for text in [
            "mapped",
            "auto:size=0",
            "auto:size=x",
            "host:x",
            "map:",
            "map:0:100000",
            "map:0:100000:0",
            "map:0:4294967295:2",
            "map:0:100000:10,5:200000:10",
            "map:0:100000:10,10:100005:10",
            "map:1:100000:10",
        ] {
            assert!(text.parse::<UserMode>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_id_outside_is_found_by_the_one_inside() {
        let map: IdMap =
            IdMap::new(vec!["0:100000:10".parse().unwrap(), "20:500:1".parse().unwrap()]).unwrap();
        assert_eq!(
            [0, 9, 10, 20, 21].map(|id| map.outside(id)),
            [Some(100_000), Some(100_009), None, Some(500), None]
        );
        assert_eq!(map.lines(), "0 100000 10\n20 500 1\n");
    }
}
