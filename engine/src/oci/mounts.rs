//! `mounts` of a bundle: their options are attributes, propagations, or the file system's own.

use std::path::{Path, PathBuf};

use super::config::Mount;
use super::plan;
use crate::container::idmap::UserMap;
use crate::container::plan::{MappedOwners, ResolvedMount, ResolvedSource, StatedAttributes};
use crate::container::spec::Propagation;
use crate::error::{Error, Kind, Result};

/// What the options of a mount say.
#[derive(Debug, Default)]
struct Options {
    bind: Option<bool>,
    propagation: Option<Propagation>,
    attributes: StatedAttributes,
    copy_up: bool,
    /// Whether owners are mapped, and if so, those of mounts below, too.
    mapped: Option<bool>,
    own: Vec<(String, String)>,
}

/// An option that sets or clears an attribute (mount(8), mount_setattr(2)); with `r` before it, of everything below,
/// too.
const ATTRIBUTES: [(&str, u64, u64); 18] = [
    ("ro", libc::MOUNT_ATTR_RDONLY, 0),
    ("rw", 0, libc::MOUNT_ATTR_RDONLY),
    ("nosuid", libc::MOUNT_ATTR_NOSUID, 0),
    ("suid", 0, libc::MOUNT_ATTR_NOSUID),
    ("nodev", libc::MOUNT_ATTR_NODEV, 0),
    ("dev", 0, libc::MOUNT_ATTR_NODEV),
    ("noexec", libc::MOUNT_ATTR_NOEXEC, 0),
    ("exec", 0, libc::MOUNT_ATTR_NOEXEC),
    ("nosymfollow", libc::MOUNT_ATTR_NOSYMFOLLOW, 0),
    ("symfollow", 0, libc::MOUNT_ATTR_NOSYMFOLLOW),
    ("nodiratime", libc::MOUNT_ATTR_NODIRATIME, 0),
    ("diratime", 0, libc::MOUNT_ATTR_NODIRATIME),
    ("noatime", libc::MOUNT_ATTR_NOATIME, libc::MOUNT_ATTR__ATIME),
    ("atime", 0, libc::MOUNT_ATTR__ATIME),
    ("relatime", 0, libc::MOUNT_ATTR__ATIME),
    ("norelatime", libc::MOUNT_ATTR_STRICTATIME, libc::MOUNT_ATTR__ATIME),
    ("strictatime", libc::MOUNT_ATTR_STRICTATIME, libc::MOUNT_ATTR__ATIME),
    ("nostrictatime", 0, libc::MOUNT_ATTR__ATIME),
];

/// What is so anyway.
const NOTHING: [&str; 8] =
    ["defaults", "async", "silent", "loud", "nomand", "noiversion", "nolazytime", "remount"];

/// Flags of the file system itself that go by their names.
const SYSTEM_FLAGS: [&str; 4] = ["sync", "dirsync", "mand", "lazytime"];

/// Every option with a meaning of its own, for `features`.
pub(super) fn known_options() -> Vec<String> {
    let attributes = ATTRIBUTES.iter().flat_map(|(name, ..)| [(*name).to_owned(), format!("r{name}")]);
    let propagations = Propagation::NAMES.iter().map(|(name, _)| (*name).to_owned());
    let further =
        ["bind", "rbind", "tmpcopyup", "idmap", "ridmap"].into_iter().chain(NOTHING).chain(SYSTEM_FLAGS);
    let mut all: Vec<String> = attributes.chain(propagations).chain(further.map(str::to_owned)).collect();
    all.sort_unstable();
    all
}

/// A mount of the bundle. One without a propagation of its own has that of the root. Owners that are
/// mapped without being told how are mapped as the container's own users.
pub(super) fn resolve(
    bundle: &Path,
    mount: &Mount,
    of_root: Propagation,
    users: Option<&UserMap>,
) -> Result<ResolvedMount> {
    let target = Path::new("/").join(&mount.destination);
    let options = Options::parse(mount)?;
    let kind = mount.kind.as_deref().unwrap_or("none");
    let recursive = match (options.bind, kind) {
        (Some(recursive), _) => Some(recursive),
        (None, "bind") => Some(true),
        _ => None,
    };
    let source = match (recursive, kind) {
        (Some(recursive), _) => ResolvedSource::Bind {
            path: source_of(bundle, mount)?,
            propagation: options.propagation.unwrap_or(of_root),
            recursive,
            subpath: None,
            seed: false,
        },
        (None, "cgroup") => ResolvedSource::Cgroups,
        (None, kind) => ResolvedSource::Kind {
            kind: kind.to_owned(),
            device: mount
                .source
                .clone()
                .filter(|source| !source.is_empty())
                .unwrap_or_else(|| kind.to_owned()),
            options: options.own.clone(),
            seed: options.copy_up,
        },
    };
    if recursive.is_some() && !options.own.is_empty() {
        let unknown = options.own.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>().join(",");
        return Err(refused(mount, &unknown));
    }
    let owners = owners(mount, &options, recursive.is_some(), users)?;
    let stated = options.attributes;
    Ok(ResolvedMount {
        target,
        source,
        read_only: false,
        writable_below: false,
        attributes: 0,
        stated,
        owners,
    })
}

/// As whose files a mount shows what is there. Mappings without the option are meant all the same, as runc has it.
fn owners(
    mount: &Mount,
    options: &Options,
    bound: bool,
    users: Option<&UserMap>,
) -> Result<Option<MappedOwners>> {
    let at = mount.destination.display();
    let own =
        plan::user_map(&format!("the mount at {at}: mounts[]"), &mount.uid_mappings, &mount.gid_mappings)?;
    if own.is_none() && options.mapped.is_none() {
        return Ok(None);
    }
    if !bound {
        return Err(refused(mount, if options.mapped == Some(true) { "ridmap" } else { "idmap" }));
    }
    let users = own.or_else(|| users.cloned()).ok_or_else(|| {
        Error::invalid(format!(
            "the mount at {at} has mapped owners, but neither it nor the container says as whom they are shown"
        ))
    })?;
    Ok(Some(MappedOwners { users, recursive: options.mapped == Some(true) }))
}

fn source_of(bundle: &Path, mount: &Mount) -> Result<PathBuf> {
    let source = mount.source.as_ref().filter(|source| !source.is_empty()).ok_or_else(|| {
        Error::invalid(format!("the bind mount at {} has no source", mount.destination.display()))
    })?;
    Ok(bundle.join(source))
}

fn refused(mount: &Mount, option: &str) -> Error {
    let at = mount.destination.display();
    Error::new(
        Kind::Unsupported,
        format!("the mount at {at} has the option {option:?}, which is not supported"),
    )
}

// === impl Options ===

impl Options {
    fn parse(mount: &Mount) -> Result<Self> {
        let mut options = Self::default();
        for option in &mount.options {
            options.add(option).ok_or_else(|| refused(mount, option))?;
        }
        Ok(options)
    }

    /// Takes an option in; `None` when it cannot be honoured.
    fn add(&mut self, option: &str) -> Option<()> {
        let attribute = |name: &str| ATTRIBUTES.iter().find(|(known, ..)| *known == name);
        if let Some(kind) = Propagation::named(option) {
            self.propagation = Some(kind);
        } else if let Some((_, set, clear)) = attribute(option) {
            let stated = &mut self.attributes;
            (stated.set, stated.clear) = ((stated.set & !clear) | set, (stated.clear & !set) | clear);
        } else if let Some((_, set, clear)) = option.strip_prefix('r').and_then(attribute) {
            let stated = &mut self.attributes;
            stated.set_below = (stated.set_below & !clear) | set;
            stated.clear_below = (stated.clear_below & !set) | clear;
        } else {
            match option {
                "bind" => self.bind = Some(self.bind.unwrap_or(false)),
                "rbind" => self.bind = Some(true),
                "tmpcopyup" => self.copy_up = true,
                "idmap" => self.mapped = Some(false),
                "ridmap" => self.mapped = Some(true),
                "unbindable" | "runbindable" => return None,
                "" => {}
                other if NOTHING.contains(&other) => {}
                other => {
                    let (key, value) = other.split_once('=').unwrap_or((other, ""));
                    self.own.push((key.to_owned(), value.to_owned()));
                }
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, options: &[&str]) -> Mount {
        Mount {
            destination: "/a".into(),
            kind: Some(kind.to_owned()),
            source: Some("src".to_owned()),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            ..Mount::default()
        }
    }

    #[test]
    fn the_last_word_about_an_attribute_counts() {
        let resolve = |options: &[&str]| {
            resolve(Path::new("/b"), &mount("tmpfs", options), Propagation::Rslave, None).unwrap()
        };
        let stated = resolve(&["ro", "rw", "noatime", "strictatime", "size=1m"]).stated;
        assert_eq!(stated.set, libc::MOUNT_ATTR_STRICTATIME);
        assert_eq!(stated.clear, libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR__ATIME);
        assert_eq!(resolve(&["rro"]).stated.set_below, libc::MOUNT_ATTR_RDONLY);
        let ResolvedSource::Kind { options, .. } = resolve(&["size=1m", "mode=755"]).source else { panic!() };
        assert_eq!(options, [("size".to_owned(), "1m".to_owned()), ("mode".to_owned(), "755".to_owned())]);
    }

    #[test]
    fn a_bind_mount_takes_no_option_that_it_would_ignore() {
        let resolve =
            |options: &[&str]| resolve(Path::new("/b"), &mount("none", options), Propagation::Rslave, None);
        let ResolvedSource::Bind { path, propagation, recursive, .. } =
            resolve(&["rbind", "private"]).unwrap().source
        else {
            panic!()
        };
        assert_eq!((path, propagation, recursive), ("/b/src".into(), Propagation::Private, true));
        assert!(resolve(&["bind", "size=1m"]).is_err());
        assert!(resolve(&["bind", "unbindable"]).is_err());
    }
}
