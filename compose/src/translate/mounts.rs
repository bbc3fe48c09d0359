//! Volumes, binds and file systems in memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use engine::container::spec::{MountSource, MountSpec, Propagation, VolumeMaking, VolumesFrom};
use engine::id::VolumeName;
use engine::quantity::ByteSize;

use super::{Circumstances, Of, TranslateError};
use crate::model::{Project, ServiceVolume, TmpfsOptions};

/// The mounts of a service, with the anonymous volumes it takes over.
pub(super) fn mounts(
    project: &Project,
    of: &Of<'_>,
    around: &Circumstances<'_>,
) -> Result<Vec<MountSpec>, TranslateError> {
    let mut mounts = Vec::new();
    for volume in &of.service.volumes {
        mounts.push(MountSpec {
            target: clean(volume.target()),
            source: source(project, of, volume)?,
            read_only: volume.read_only(),
        });
    }
    for text in &of.service.tmpfs {
        mounts.push(tmpfs(of, text)?);
    }
    inherit(&mut mounts, around);
    Ok(mounts)
}

/// Anonymous volumes go on in the successor, at the same place, as long as it still has a volume there.
fn inherit(mounts: &mut Vec<MountSpec>, around: &Circumstances<'_>) {
    for (target, volume) in around.inherited {
        let taken = MountSource::Volume {
            name: Some(volume.clone()),
            no_copy: false,
            subpath: None,
            making: VolumeMaking::default(),
        };
        match mounts.iter_mut().find(|mount| mount.target == *target) {
            Some(mount) if matches!(mount.source, MountSource::Volume { name: None, .. }) => {
                mount.source = taken;
            }
            Some(_) => {}
            None => {
                let is_the_images = around.image_config.volumes.keys().any(|path| Path::new(path) == target);
                if is_the_images {
                    mounts.push(MountSpec { target: target.clone(), source: taken, read_only: false });
                }
            }
        }
    }
}

fn source(project: &Project, of: &Of<'_>, volume: &ServiceVolume) -> Result<MountSource, TranslateError> {
    let unsupported = |kind: &str| of.wrong("volumes", &format!("mounts of type {kind} are not supported"));
    Ok(match volume {
        ServiceVolume::Bind { source, bind, .. } => {
            let options = bind.as_ref();
            MountSource::Bind {
                path: PathBuf::from(source),
                create: options.and_then(|options| options.create_host_path).unwrap_or(true),
                propagation: propagation(of, options.and_then(|options| options.propagation.as_deref()))?,
                recursive: options.and_then(|options| options.recursive.as_deref()) != Some("disabled"),
                writable_below: options.and_then(|options| options.recursive.as_deref()) == Some("writable"),
            }
        }
        ServiceVolume::Volume { source, volume, .. } => MountSource::Volume {
            name: match source.as_deref().filter(|key| !key.is_empty()) {
                Some(key) => Some(volume_name(project, of, key)?),
                None => None,
            },
            no_copy: volume.as_ref().is_some_and(|options| options.nocopy),
            subpath: volume.as_ref().and_then(|options| options.subpath.as_ref()).map(PathBuf::from),
            making: VolumeMaking {
                labels: volume.as_ref().map(|options| options.labels.clone()).unwrap_or_default(),
                ..VolumeMaking::default()
            },
        },
        ServiceVolume::Tmpfs { tmpfs, .. } => {
            let TmpfsOptions { size, mode } = tmpfs.clone().unwrap_or_default();
            MountSource::Tmpfs {
                size: Some(size).filter(|size| size.0 > 0),
                mode: Some(mode).filter(|mode| *mode > 0),
                options: Vec::new(),
            }
        }
        ServiceVolume::Image { source, image, .. } => MountSource::Image {
            image: source.clone(),
            lower: Vec::new(),
            subpath: image.as_ref().and_then(|options| options.subpath.as_ref()).map(PathBuf::from),
        },
        ServiceVolume::Npipe { .. } => return Err(unsupported("npipe")),
        ServiceVolume::Cluster { .. } => return Err(unsupported("cluster")),
    })
}

fn volume_name(project: &Project, of: &Of<'_>, key: &str) -> Result<VolumeName, TranslateError> {
    let volume = project
        .volumes
        .get(key)
        .ok_or_else(|| of.wrong("volumes", &format!("volume {key:?} is not defined")))?;
    volume.name.parse().map_err(|error| of.wrong("volumes", &error))
}

fn propagation(of: &Of<'_>, text: Option<&str>) -> Result<Propagation, TranslateError> {
    let Some(name) = text.filter(|name| !name.is_empty()) else { return Ok(Propagation::default()) };
    Propagation::named(name).ok_or_else(|| of.wrong("volumes", &format!("invalid propagation {name:?}")))
}

/// `path[:option,…]` of the key `tmpfs`.
fn tmpfs(of: &Of<'_>, text: &str) -> Result<MountSpec, TranslateError> {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    let mut size: Option<ByteSize> = None;
    let mut mode = None;
    let mut read_only = false;
    let mut others = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", value)) => size = Some(value.parse().map_err(|error| of.wrong("tmpfs", &error))?),
            Some(("mode", value)) => {
                let bits = u32::from_str_radix(value.trim_start_matches("0o"), 8);
                mode = Some(bits.map_err(|_| of.wrong("tmpfs", &format!("invalid mode {value:?}")))?);
            }
            None if option == "ro" => read_only = true,
            None if option == "rw" => read_only = false,
            _ => others.push(option.to_owned()),
        }
    }
    Ok(MountSpec {
        target: clean(path),
        source: MountSource::Tmpfs { size, mode, options: others },
        read_only,
    })
}

/// The service or container (`service:…`, `container:…`) that an entry of `volumes_from` means.
pub(super) fn volumes_from_parent(text: &str) -> String {
    let name = text.strip_suffix(":ro").or_else(|| text.strip_suffix(":rw")).unwrap_or(text);
    if name.starts_with("container:") { name.to_owned() } else { format!("service:{name}") }
}

pub(super) fn volumes_from(
    of: &Of<'_>,
    around: &Circumstances<'_>,
) -> Result<Vec<VolumesFrom>, TranslateError> {
    let parent = |text: &String| {
        let name = volumes_from_parent(text);
        let container = around
            .parents
            .get(&name)
            .ok_or_else(|| of.wrong("volumes_from", &format!("no container for {text:?}")))?;
        let read_only = match text.rsplit(':').next() {
            Some("ro") => Some(true),
            Some("rw") => Some(false),
            _ => None,
        };
        Ok(VolumesFrom { container: container.to_string(), read_only })
    };
    of.service.volumes_from.iter().map(parent).collect()
}

/// A target without doubled and trailing slashes, `.` and `..`.
fn clean(path: &str) -> PathBuf {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    PathBuf::from(format!("/{}", parts.join("/")))
}

/// The anonymous volumes of a container that its successor may take over, by where they are mounted.
pub fn anonymous(
    mounts: &[MountSpec],
    is_anonymous: impl Fn(&VolumeName) -> bool,
) -> BTreeMap<PathBuf, VolumeName> {
    mounts
        .iter()
        .filter_map(|mount| match &mount.source {
            MountSource::Volume { name: Some(name), .. } if is_anonymous(name) => {
                Some((mount.target.clone(), name.clone()))
            }
            _ => None,
        })
        .collect()
}
