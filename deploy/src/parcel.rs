//! The names that a release has for what it keeps on a host. A client writes them, since it does not know where a host
//! keeps things; the agent puts its own paths in their place.

/// A file or directory that is the same in every release that has it: `/rdeploy/files/<digest>`.
pub const FILES: &str = "/rdeploy/files/";

/// A secret of one release: `/rdeploy/secrets/<release>/<number>`.
pub const SECRETS: &str = "/rdeploy/secrets/";

/// A directory of the project that services write to and that stays from release to release:
/// `/rdeploy/data/<path in the project>`.
pub const DATA: &str = "/rdeploy/data/";
