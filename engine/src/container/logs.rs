//! A container's output on the disk, in the form of docker's json-file: one JSON object a line. The monitor writes,
//! everybody reads, and neither waits for the other.

mod moment;
mod options;
mod reader;
mod writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::id::ContainerId;
use crate::paths::Root;

pub use crate::container::stdio::Stream;
pub use moment::{ParseMomentError, parse_moment};
pub(crate) use options::attributes;
pub use options::check;
pub use reader::read;
pub(crate) use writer::LogWriter;

/// One entry of a log: a line with its end, or a piece of one that is very long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// What was written.
    pub log: String,
    /// To which stream.
    pub stream: Stream,
    /// What the log options `tag`, `labels` and `env` say with each line.
    #[serde(default, rename = "attrs", skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// When it arrived, RFC 3339.
    pub time: String,
}

/// Which part of a log is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Whether what comes later is wanted too, until the container ends.
    pub follow: bool,
    /// This many lines from the end; all when `None`.
    pub tail: Option<usize>,
    /// Nothing before this moment.
    pub since: Option<jiff::Timestamp>,
    /// Nothing after it.
    pub until: Option<jiff::Timestamp>,
}

/// The log that is being written.
fn current(root: &Root, id: &ContainerId) -> PathBuf {
    root.container(id).join("container.log")
}

/// The log this many rotations ago.
fn rotated(current: &Path, ago: u32) -> PathBuf {
    if ago == 0 {
        return current.to_owned();
    }
    let mut name = current.as_os_str().to_owned();
    name.push(format!(".{ago}"));
    name.into()
}
