//! What a volume's content is kept in, from the local driver's options `type`, `o` and `device`. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// What a volume's content is kept in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Backing {
    /// A directory of its own.
    Own,
    /// A directory of the host.
    Directory(PathBuf),
    /// A file system that is mounted for each container that uses it.
    FileSystem(FileSystem),
}

/// A file system, as mount(8) takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystem {
    /// Its type: `tmpfs`, `nfs`, `ext4`, ….
    pub kind: String,
    /// Where it is: a block device, `:/path` of a server, or any word where there is nothing to find.
    pub device: String,
    /// Options of the file system; one without a value is a flag.
    pub options: Vec<(String, String)>,
    /// What holds for the mount, whatever its file system is.
    pub flags: Flags,
}

/// Options of any mount (mount(8), "file-system-independent").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags {
    /// Nothing can be written.
    pub read_only: bool,
    /// Nothing can be executed.
    pub no_exec: bool,
    /// Set-user-id bits do not count.
    pub no_suid: bool,
    /// Device nodes do not work.
    pub no_dev: bool,
    /// Access times are not kept.
    pub no_access_times: bool,
}

// === impl Backing ===

impl Backing {
    /// Reads the options. Whether a directory or a device is there is found out by its first use.
    ///
    /// # Errors
    /// When there is an option the local driver does not have, or one is missing: what is wrong, in words.
    pub(crate) fn parse(options: &BTreeMap<String, String>) -> Result<Self, String> {
        if let Some(key) = options.keys().find(|key| !matches!(key.as_str(), "type" | "o" | "device")) {
            return Err(format!("the local driver has no option {key:?}"));
        }
        let option = |key: &str| options.get(key).map(String::as_str).filter(|value| !value.is_empty());
        let words: Vec<&str> = option("o").unwrap_or_default().split(',').filter(|w| !w.is_empty()).collect();
        let bound = words.iter().any(|word| matches!(*word, "bind" | "rbind"));
        match (option("type"), option("device")) {
            (None, None) if words.is_empty() => Ok(Self::Own),
            (_, None) => Err("a device is needed beside a type or options".to_owned()),
            (kind, Some(device)) if bound => directory(kind, device, &words).map(Self::Directory),
            (None, Some(_)) => Err("a type is needed beside a device: type=nfs, or o=bind".to_owned()),
            (Some(kind), Some(device)) => file_system(kind, device, &words).map(Self::FileSystem),
        }
    }

    /// Whether its content is in memory only, and so exists while it is mounted.
    pub(crate) fn is_memory(&self) -> bool {
        matches!(self, Self::FileSystem(system) if system.is_memory())
    }
}

impl FileSystem {
    /// Whether there is nothing that two mounts of it have in common.
    pub(crate) fn is_memory(&self) -> bool {
        matches!(self.kind.as_str(), "tmpfs" | "ramfs")
    }
}

fn directory(kind: Option<&str>, device: &str, words: &[&str]) -> Result<PathBuf, String> {
    if let Some(kind) = kind.filter(|kind| *kind != "none") {
        return Err(format!("o=bind and type={kind} contradict each other"));
    }
    if let Some(word) = words.iter().find(|word| !matches!(**word, "bind" | "rbind" | "rw")) {
        return Err(format!("a directory of the host has no option {word:?}"));
    }
    let path = PathBuf::from(device);
    if path.is_absolute() { Ok(path) } else { Err(format!("device {device:?} is no absolute path")) }
}

fn file_system(kind: &str, device: &str, words: &[&str]) -> Result<FileSystem, String> {
    let mut system = FileSystem {
        kind: kind.to_owned(),
        device: device.to_owned(),
        options: Vec::new(),
        flags: Flags::default(),
    };
    for word in words {
        let flags = &mut system.flags;
        match *word {
            "ro" => flags.read_only = true,
            "rw" | "defaults" | "exec" | "suid" | "dev" | "atime" | "relatime" => {}
            "noexec" => flags.no_exec = true,
            "nosuid" => flags.no_suid = true,
            "nodev" => flags.no_dev = true,
            "noatime" => flags.no_access_times = true,
            other => {
                let (key, value) = other.split_once('=').unwrap_or((other, ""));
                // The kernel takes addresses only, and a name may mean another server tomorrow.
                if key == "addr" && value.parse::<IpAddr>().is_err() {
                    return Err(format!("addr={value} must be an IP address"));
                }
                system.options.push((key.to_owned(), value.to_owned()));
            }
        }
    }
    Ok(system)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[(&str, &str)]) -> Result<Backing, String> {
        Backing::parse(&options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn a_file_system_is_described_as_for_mount() {
        assert_eq!(parse(&[]), Ok(Backing::Own));
        assert_eq!(
            parse(&[("type", "none"), ("o", "bind"), ("device", "/srv")]),
            Ok(Backing::Directory("/srv".into()))
        );
        let Ok(Backing::FileSystem(nfs)) =
            parse(&[("type", "nfs"), ("o", "addr=192.0.2.1,ro,nolock"), ("device", ":/srv")])
        else {
            panic!("no file system");
        };
        assert!(nfs.flags.read_only && !nfs.is_memory());
        let options = [("addr", "192.0.2.1"), ("nolock", "")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(nfs.options, options);
        assert!(parse(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")]).unwrap().is_memory());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (options, named) in [
            (&[("size", "1m")][..], "size"),
            (&[("type", "tmpfs")], "device"),
            (&[("o", "ro")], "device"),
            (&[("device", "/srv")], "type"),
            (&[("device", "srv"), ("o", "bind")], "absolute"),
            (&[("device", "/srv"), ("o", "bind,ro")], "ro"),
            (&[("device", "/srv"), ("o", "bind"), ("type", "nfs")], "contradict"),
            (&[("device", ":/srv"), ("o", "addr=server"), ("type", "nfs")], "addr=server"),
        ] {
            let refusal = parse(options).unwrap_err();
            assert!(refusal.contains(named), "{refusal}");
        }
    }
}
