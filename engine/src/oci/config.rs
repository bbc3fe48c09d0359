//! `config.json` of a bundle, as far as it is read here (runtime-spec, config.md and config-linux.md).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};

/// A container as its bundle describes it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Config {
    pub(super) oci_version: String,
    pub(super) process: Option<Process>,
    pub(super) root: Option<RootDirectory>,
    pub(super) hostname: Option<String>,
    pub(super) domainname: Option<String>,
    #[serde(deserialize_with = "nullable")]
    pub(super) mounts: Vec<Mount>,
    #[serde(deserialize_with = "nullable")]
    pub(super) hooks: Hooks,
    #[serde(deserialize_with = "nullable")]
    pub(super) annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    pub(super) linux: Linux,
}

/// A process, be it the first one or one that joins.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Process {
    pub(super) terminal: bool,
    pub(super) console_size: Option<ConsoleSize>,
    pub(super) user: User,
    #[serde(deserialize_with = "nullable")]
    pub(super) args: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub(super) env: Vec<String>,
    pub(super) cwd: PathBuf,
    pub(super) capabilities: Option<Capabilities>,
    #[serde(deserialize_with = "nullable")]
    pub(super) rlimits: Vec<Rlimit>,
    pub(super) no_new_privileges: bool,
    pub(super) apparmor_profile: Option<String>,
    pub(super) oom_score_adj: Option<i32>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct ConsoleSize {
    pub(super) height: u16,
    pub(super) width: u16,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) umask: Option<u32>,
    #[serde(deserialize_with = "nullable")]
    pub(super) additional_gids: Vec<u32>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Capabilities {
    #[serde(deserialize_with = "nullable")]
    pub(super) bounding: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub(super) effective: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub(super) permitted: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub(super) inheritable: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub(super) ambient: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Rlimit {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) hard: u64,
    pub(super) soft: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct RootDirectory {
    pub(super) path: PathBuf,
    pub(super) readonly: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Mount {
    pub(super) destination: PathBuf,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) source: Option<String>,
    #[serde(deserialize_with = "nullable")]
    pub(super) options: Vec<String>,
    #[serde(rename = "uidMappings", deserialize_with = "nullable")]
    pub(super) uid_mappings: Vec<Mapping>,
    #[serde(rename = "gidMappings", deserialize_with = "nullable")]
    pub(super) gid_mappings: Vec<Mapping>,
}

/// What others want done at the turns of a container's life.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Hooks {
    #[serde(deserialize_with = "nullable")]
    pub(super) prestart: Vec<Hook>,
    #[serde(deserialize_with = "nullable")]
    pub(super) create_runtime: Vec<Hook>,
    #[serde(deserialize_with = "nullable")]
    pub(super) create_container: Vec<Hook>,
    #[serde(deserialize_with = "nullable")]
    pub(super) start_container: Vec<Hook>,
    #[serde(deserialize_with = "nullable")]
    pub(super) poststart: Vec<Hook>,
    #[serde(deserialize_with = "nullable")]
    pub(super) poststop: Vec<Hook>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Hook {
    pub(super) path: PathBuf,
    #[serde(deserialize_with = "nullable")]
    pub(super) args: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    pub(super) env: Vec<String>,
    /// Seconds.
    pub(super) timeout: Option<u64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Linux {
    #[serde(deserialize_with = "nullable")]
    pub(super) namespaces: Vec<Namespace>,
    #[serde(deserialize_with = "nullable")]
    pub(super) uid_mappings: Vec<Mapping>,
    #[serde(deserialize_with = "nullable")]
    pub(super) gid_mappings: Vec<Mapping>,
    #[serde(deserialize_with = "nullable")]
    pub(super) sysctl: BTreeMap<String, String>,
    #[serde(deserialize_with = "nullable")]
    pub(super) resources: Resources,
    #[serde(deserialize_with = "nullable")]
    pub(super) cgroups_path: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) devices: Vec<Device>,
    /// In docker's form, which differs in what it may leave out alone.
    pub(super) seccomp: Option<Value>,
    #[serde(deserialize_with = "nullable")]
    pub(super) rootfs_propagation: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) masked_paths: Vec<PathBuf>,
    #[serde(deserialize_with = "nullable")]
    pub(super) readonly_paths: Vec<PathBuf>,
    pub(super) personality: Option<Personality>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Namespace {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) path: Option<PathBuf>,
}

/// Ids of the container as ids of the host.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Mapping {
    #[serde(rename = "containerID")]
    pub(super) container_id: u32,
    #[serde(rename = "hostID")]
    pub(super) host_id: u32,
    pub(super) size: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Device {
    pub(super) path: PathBuf,
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) major: u32,
    #[serde(default)]
    pub(super) minor: u32,
    pub(super) file_mode: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Personality {
    pub(super) domain: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) flags: Vec<String>,
}

/// Limits; `update` reads them by themselves.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Resources {
    #[serde(deserialize_with = "nullable")]
    pub(super) devices: Vec<DeviceAccess>,
    #[serde(deserialize_with = "nullable")]
    pub(super) memory: Memory,
    #[serde(deserialize_with = "nullable")]
    pub(super) cpu: Cpu,
    #[serde(deserialize_with = "nullable")]
    pub(super) pids: Pids,
    #[serde(rename = "blockIO", deserialize_with = "nullable")]
    pub(super) block_io: BlockIo,
    #[serde(deserialize_with = "nullable")]
    pub(super) hugepage_limits: Vec<HugepageLimit>,
    #[serde(deserialize_with = "nullable")]
    pub(super) unified: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HugepageLimit {
    pub(super) page_size: String,
    pub(super) limit: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct DeviceAccess {
    pub(super) allow: bool,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) major: Option<i64>,
    pub(super) minor: Option<i64>,
    pub(super) access: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Memory {
    pub(super) limit: Option<i64>,
    pub(super) reservation: Option<i64>,
    pub(super) swap: Option<i64>,
    pub(super) swappiness: Option<u64>,
    #[serde(rename = "disableOOMKiller")]
    pub(super) disable_oom_killer: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Cpu {
    pub(super) shares: Option<u64>,
    pub(super) quota: Option<i64>,
    pub(super) period: Option<u64>,
    pub(super) realtime_runtime: Option<i64>,
    pub(super) realtime_period: Option<u64>,
    pub(super) cpus: Option<String>,
    pub(super) mems: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Pids {
    pub(super) limit: Option<i64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct BlockIo {
    pub(super) weight: Option<u16>,
    #[serde(deserialize_with = "nullable")]
    pub(super) weight_device: Vec<BlockDevice>,
    #[serde(deserialize_with = "nullable")]
    pub(super) throttle_read_bps_device: Vec<BlockDevice>,
    #[serde(deserialize_with = "nullable")]
    pub(super) throttle_write_bps_device: Vec<BlockDevice>,
    #[serde(rename = "throttleReadIOPSDevice", deserialize_with = "nullable")]
    pub(super) throttle_read_iops_device: Vec<BlockDevice>,
    #[serde(rename = "throttleWriteIOPSDevice", deserialize_with = "nullable")]
    pub(super) throttle_write_iops_device: Vec<BlockDevice>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct BlockDevice {
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) weight: Option<u16>,
    pub(super) rate: Option<u64>,
}

/// Programs in Go write an empty list as `null`.
fn nullable<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The bundle's description as it is written.
pub(super) fn read(bundle: &Path) -> Result<Value> {
    let path = bundle.join("config.json");
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::not_found("JSON specification file config.json not found")
                .with_hint(format!("write one with: rengine oci spec --bundle {}", bundle.display())));
        }
        other => other.map_err(|error| Error::failed(format!("read {}", path.display()), error))?,
    };
    serde_json::from_slice(&bytes).map_err(|error| Error::failed(format!("read {}", path.display()), error))
}

// === impl Config ===

impl Config {
    /// Understands a description.
    pub(super) fn parse(value: &Value) -> Result<Self> {
        Self::deserialize(value).map_err(|error| Error::failed("understand config.json", error))
    }
}
