//! The process that watches over one container: its parent, its log writer, its door, from start to end.

use std::process::ExitCode;

/// How a monitor knows that it is one.
pub(crate) const ARGV0: &str = "rengine-monitor";

/// Becomes a container's monitor when this process was executed as one. Every program on this crate calls it first
/// thing in `main`, before it makes a thread.
pub fn enter_monitor_if_asked() -> Option<ExitCode> {
    (std::env::args_os().next()? == ARGV0).then_some(ExitCode::FAILURE)
}
