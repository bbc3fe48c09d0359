//! Limits, reservations and devices.

use std::collections::BTreeMap;

use engine::quantity::ByteSize;
use serde::{Deserialize, Serialize};

use super::form;
use super::form::is_default;

/// Limits and reservations.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// What it may use at most.
    #[serde(skip_serializing_if = "is_default")]
    pub limits: Option<Resource>,
    /// What it is given in any case.
    #[serde(skip_serializing_if = "is_default")]
    pub reservations: Option<Resource>,
}

/// A limit or a reservation. Zero and empty mean none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resource {
    /// Processors, in fractions.
    #[serde(skip_serializing_if = "is_default", serialize_with = "form::number")]
    pub cpus: f64,
    /// Bytes of memory.
    #[serde(skip_serializing_if = "is_default", serialize_with = "form::bytes")]
    pub memory: ByteSize,
    /// Processes and threads.
    #[serde(skip_serializing_if = "is_default")]
    pub pids: i64,
    /// Devices.
    #[serde(skip_serializing_if = "is_default")]
    pub devices: Vec<DeviceRequest>,
    /// Resources that are counted.
    #[serde(skip_serializing_if = "is_default")]
    pub generic_resources: Vec<GenericResource>,
}

/// Devices asked for by what they can do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceRequest {
    /// What they must be able to do.
    #[serde(skip_serializing_if = "is_default")]
    pub capabilities: Vec<String>,
    /// Their driver.
    #[serde(skip_serializing_if = "is_default")]
    pub driver: Option<String>,
    /// How many; all when `-1`.
    #[serde(skip_serializing_if = "is_default")]
    pub count: i64,
    /// Which ones.
    #[serde(skip_serializing_if = "is_default")]
    pub device_ids: Vec<String>,
    /// Options of the driver.
    #[serde(skip_serializing_if = "is_default")]
    pub options: BTreeMap<String, String>,
}

/// A resource that is counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GenericResource {
    /// Its kind and number.
    #[serde(skip_serializing_if = "is_default")]
    pub discrete_resource_spec: Option<DiscreteResource>,
}

/// The kind and number of a counted resource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiscreteResource {
    /// What it is.
    pub kind: String,
    /// How many.
    pub value: i64,
}

/// A limit per process. `-1` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Ulimit {
    /// Soft and hard are the same.
    Single(i64),
    /// Soft and hard.
    Range {
        /// What holds.
        soft: i64,
        /// How far a process may raise it itself.
        hard: i64,
    },
}

/// A device node of the host, or a CDI name in `source` and `target`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Device {
    /// Its path on the host.
    #[serde(skip_serializing_if = "is_default")]
    pub source: String,
    /// Its path in the container; the same when `None`.
    #[serde(skip_serializing_if = "is_default")]
    pub target: Option<String>,
    /// Some of `r`, `w` and `m`; all when `None`.
    #[serde(skip_serializing_if = "is_default")]
    pub permissions: Option<String>,
}

/// Block device limits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlkioConfig {
    /// Relative weight, 10 to 1000.
    #[serde(skip_serializing_if = "is_default")]
    pub weight: u16,
    /// Relative weight on single devices.
    #[serde(skip_serializing_if = "is_default")]
    pub weight_device: Vec<WeightDevice>,
    /// Bytes read in a second.
    #[serde(skip_serializing_if = "is_default")]
    pub device_read_bps: Vec<ThrottleDevice>,
    /// Reads in a second.
    #[serde(skip_serializing_if = "is_default")]
    pub device_read_iops: Vec<ThrottleDevice>,
    /// Bytes written in a second.
    #[serde(skip_serializing_if = "is_default")]
    pub device_write_bps: Vec<ThrottleDevice>,
    /// Writes in a second.
    #[serde(skip_serializing_if = "is_default")]
    pub device_write_iops: Vec<ThrottleDevice>,
}

/// The weight on one device. The reference writes these names in capitals.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WeightDevice {
    /// The device.
    #[serde(rename(serialize = "Path"))]
    pub path: String,
    /// The weight.
    #[serde(rename(serialize = "Weight"))]
    pub weight: u16,
}

/// The rate on one device. The reference writes these names in capitals.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ThrottleDevice {
    /// The device.
    #[serde(rename(serialize = "Path"))]
    pub path: String,
    /// The rate.
    #[serde(rename(serialize = "Rate"), serialize_with = "form::bytes")]
    pub rate: ByteSize,
}

// === impl Ulimit ===

impl Ulimit {
    /// What holds.
    pub fn soft(self) -> i64 {
        match self {
            Self::Single(limit) => limit,
            Self::Range { soft, .. } => soft,
        }
    }

    /// How far a process may raise it itself.
    pub fn hard(self) -> i64 {
        match self {
            Self::Single(limit) => limit,
            Self::Range { hard, .. } => hard,
        }
    }
}
