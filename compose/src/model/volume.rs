//! Volumes, and what is mounted.

use std::collections::BTreeMap;

use engine::quantity::ByteSize;
use serde::{Deserialize, Serialize};

use super::form;
use super::form::is_default;

/// Something mounted into a service's containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ServiceVolume {
    /// A file or directory of the host.
    Bind {
        /// Its absolute path on the host.
        #[serde(default)]
        source: String,
        /// Where it appears.
        target: String,
        /// Whether it can only be read.
        #[serde(default, skip_serializing_if = "is_default")]
        read_only: bool,
        /// Consistency wanted (ignored on Linux).
        #[serde(default, skip_serializing_if = "is_default")]
        consistency: Option<String>,
        /// Details; the host directory is made when it is missing unless they say otherwise.
        #[serde(default, skip_serializing_if = "is_default")]
        bind: Option<BindOptions>,
    },
    /// A volume: a key under `volumes`, or a new anonymous one.
    Volume {
        /// The key; anonymous when `None`.
        #[serde(default, skip_serializing_if = "is_default")]
        source: Option<String>,
        /// Where it appears.
        target: String,
        /// Whether it can only be read.
        #[serde(default, skip_serializing_if = "is_default")]
        read_only: bool,
        /// Consistency wanted (ignored on Linux).
        #[serde(default, skip_serializing_if = "is_default")]
        consistency: Option<String>,
        /// Details of the mount itself: SELinux relabelling and propagation.
        #[serde(default, skip_serializing_if = "is_default")]
        bind: Option<BindOptions>,
        /// Details.
        #[serde(default, skip_serializing_if = "is_default")]
        volume: Option<VolumeOptions>,
    },
    /// A file system in memory.
    Tmpfs {
        /// Where it appears.
        target: String,
        /// Whether it can only be read.
        #[serde(default, skip_serializing_if = "is_default")]
        read_only: bool,
        /// Consistency wanted (ignored on Linux).
        #[serde(default, skip_serializing_if = "is_default")]
        consistency: Option<String>,
        /// Details.
        #[serde(default, skip_serializing_if = "is_default")]
        tmpfs: Option<TmpfsOptions>,
    },
    /// The content of an image.
    Image {
        /// The image.
        #[serde(default)]
        source: String,
        /// Where it appears.
        target: String,
        /// Whether it can only be read.
        #[serde(default, skip_serializing_if = "is_default")]
        read_only: bool,
        /// Details.
        #[serde(default, skip_serializing_if = "is_default")]
        image: Option<ImageOptions>,
    },
    /// A named pipe (Windows).
    Npipe {
        /// Its path on the host.
        #[serde(default)]
        source: String,
        /// Where it appears.
        target: String,
    },
    /// A volume of a swarm.
    Cluster {
        /// The volume.
        #[serde(default)]
        source: String,
        /// Where it appears.
        target: String,
        /// Whether it can only be read.
        #[serde(default, skip_serializing_if = "is_default")]
        read_only: bool,
    },
}

/// Details of a bind mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindOptions {
    /// SELinux relabelling, `z` or `Z`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub selinux: Option<String>,
    /// `rprivate`, `private`, `rshared`, `shared`, `rslave` or `slave`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub propagation: Option<String>,
    /// Whether a missing host directory is made; see [`BindOptions::creates_host_path`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub create_host_path: Option<bool>,
    /// `enabled`, `disabled`, `writable` or `readonly`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub recursive: Option<String>,
}

/// Details of a volume mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeOptions {
    /// Labels of an anonymous volume.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    /// Whether an empty volume is left empty instead of being filled from the image.
    #[serde(skip_serializing_if = "is_default")]
    pub nocopy: bool,
    /// A path inside the volume that is shown instead of its root.
    #[serde(skip_serializing_if = "is_default")]
    pub subpath: Option<String>,
}

/// Details of a tmpfs mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TmpfsOptions {
    /// Its size; half of the memory when 0.
    #[serde(skip_serializing_if = "is_default", serialize_with = "form::bytes")]
    pub size: ByteSize,
    /// Permission bits; 1777 when 0.
    #[serde(skip_serializing_if = "is_default")]
    pub mode: u32,
}

/// Details of an image mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageOptions {
    /// A path inside the image that is shown instead of its root.
    #[serde(skip_serializing_if = "is_default")]
    pub subpath: Option<String>,
}

/// A volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Volume {
    /// Its real name, `<project>_<key>` unless given.
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    /// Its driver.
    #[serde(skip_serializing_if = "is_default")]
    pub driver: Option<String>,
    /// Options of the driver.
    #[serde(skip_serializing_if = "is_default")]
    pub driver_opts: BTreeMap<String, String>,
    /// Whether it must exist already.
    #[serde(skip_serializing_if = "is_default")]
    pub external: bool,
    /// Its labels.
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
}

// === impl BindOptions ===

impl BindOptions {
    /// Whether a missing host directory is made: yes unless said otherwise.
    pub fn creates_host_path(&self) -> bool {
        self.create_host_path.unwrap_or(true)
    }
}

// === impl ServiceVolume ===

impl ServiceVolume {
    /// Where it appears in the container.
    pub fn target(&self) -> &str {
        match self {
            Self::Bind { target, .. }
            | Self::Volume { target, .. }
            | Self::Tmpfs { target, .. }
            | Self::Image { target, .. }
            | Self::Npipe { target, .. }
            | Self::Cluster { target, .. } => target,
        }
    }

    /// Whether it can only be read.
    pub fn read_only(&self) -> bool {
        match self {
            Self::Bind { read_only, .. }
            | Self::Volume { read_only, .. }
            | Self::Tmpfs { read_only, .. }
            | Self::Image { read_only, .. }
            | Self::Cluster { read_only, .. } => *read_only,
            Self::Npipe { .. } => false,
        }
    }
}
