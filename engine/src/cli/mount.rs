//! `-v`, `--mount`, `--tmpfs` and `--volumes-from` as docker writes them.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use crate::container::spec::{MountSource, MountSpec, Propagation, VolumeMaking, VolumesFrom};
use crate::error::{Error, Result};
use crate::id::VolumeName;
use crate::quantity::ByteSize;

/// `[source:]target[:options]`. A source that begins with `/`, `.` or `~` is a path, any other a volume.
pub fn parse_volume(text: &str, directory: &Path) -> Result<MountSpec> {
    let wrong = |problem: &str| {
        Error::invalid(format!("invalid volume {text:?}: {problem}"))
            .with_hint("write [volume-or-path:]/path/in/container[:ro]")
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts.as_slice() {
        [target] => (None, *target, ""),
        [source, target] => (Some(*source), *target, ""),
        [source, target, options] => (Some(*source), *target, *options),
        _ => return Err(wrong("too many colons")),
    };
    let target = mount_target(target).map_err(wrong)?;
    let options = VolumeOptions::read(options).map_err(|problem| wrong(&problem))?;
    let no_copy = options.no_copy;
    let source = match source {
        None => named_volume(None, no_copy),
        Some("") => return Err(wrong("the source is empty")),
        Some(path) if path.starts_with(['/', '.', '~']) => {
            if no_copy {
                return Err(wrong("nocopy is for volumes"));
            }
            MountSource::Bind {
                path: absolute_source(path, directory),
                create: true,
                propagation: options.propagation.unwrap_or_default(),
                recursive: true,
                writable_below: false,
            }
        }
        Some(name) => {
            if options.propagation.is_some() {
                return Err(wrong("a volume's mounts do not travel"));
            }
            let name = name.parse().map_err(|error| wrong("not a volume's name").with_source(error))?;
            named_volume(Some(name), no_copy)
        }
    };
    Ok(MountSpec { target, source, read_only: options.read_only })
}

/// The options behind the second colon of `-v`.
#[derive(Default)]
struct VolumeOptions {
    read_only: bool,
    no_copy: bool,
    propagation: Option<Propagation>,
}

impl VolumeOptions {
    fn read(text: &str) -> Result<Self, String> {
        let mut options = Self::default();
        let mut kinds = Vec::new();
        for option in text.split(',').filter(|option| !option.is_empty()) {
            let kind = match option {
                "ro" | "rw" => {
                    options.read_only = option == "ro";
                    "a mode"
                }
                "z" | "Z" if Path::new("/sys/fs/selinux/enforce").exists() => {
                    return Err(format!("{option}: files are not relabelled for SELinux here"));
                }
                // Without SELinux nothing has a label, and so there is nothing to relabel.
                "z" | "Z" => "a label",
                // How Docker Desktop's virtual machine caches; on Linux both sides are one.
                "consistent" | "cached" | "delegated" => "a consistency",
                "nocopy" => {
                    options.no_copy = true;
                    "nocopy"
                }
                other => {
                    options.propagation =
                        Some(Propagation::named(other).ok_or_else(|| format!("unknown option {other:?}"))?);
                    "a propagation"
                }
            };
            if kinds.contains(&kind) {
                return Err(format!("{kind} is given twice"));
            }
            kinds.push(kind);
        }
        Ok(options)
    }
}

fn named_volume(name: Option<VolumeName>, no_copy: bool) -> MountSource {
    MountSource::Volume { name, no_copy, subpath: None, making: VolumeMaking::default() }
}

/// `type=bind|volume|tmpfs|image,source=…,target=…,…`, comma-separated values as in RFC 4180.
pub fn parse_mount(text: &str, directory: &Path) -> Result<MountSpec> {
    let wrong = |problem: &str| Error::invalid(format!("invalid mount {text:?}: {problem}"));
    let mut fields = MountFields::default();
    for field in quoted_fields(text).ok_or_else(|| wrong("a quotation mark is out of place"))? {
        fields.read(&field).map_err(|problem| wrong(&problem))?;
    }
    fields.finish(directory).map_err(|problem| wrong(&problem))
}

/// The fields of a line: separated by commas, those with commas in quotation marks, which are doubled inside. `None`
/// when a mark is not closed or stands inside a field without any.
pub fn quoted_fields(text: &str) -> Option<Vec<String>> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let field = fields.last_mut()?;
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                field.push('"');
                characters.next();
            }
            '"' if quoted || field.is_empty() => quoted = !quoted,
            '"' => return None,
            ',' if !quoted => fields.push(String::new()),
            other => field.push(other),
        }
    }
    (!quoted).then_some(fields)
}

#[derive(Default)]
struct MountFields {
    kind: Option<String>,
    source: Option<String>,
    target: Option<PathBuf>,
    read_only: bool,
    propagation: Option<Propagation>,
    depth: Option<Depth>,
    create: bool,
    no_copy: bool,
    subpath: Option<PathBuf>,
    making: VolumeMaking,
    size: Option<ByteSize>,
    mode: Option<u32>,
    options: Vec<String>,
    /// The keys that belong to one kind of mount: the kind, and the key.
    special: Vec<(&'static str, String)>,
}

/// What `bind-recursive` says of mounts below the one that is bound.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// They come along, and can be written if the bind can.
    Enabled,
    /// They stay away.
    Disabled,
    /// They come along and can be written.
    Writable,
    /// They come along and must be read-only.
    ReadOnly,
}

impl MountFields {
    fn read(&mut self, field: &str) -> Result<(), String> {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
            None => (field.to_ascii_lowercase(), None),
        };
        for kind in ["bind", "volume", "tmpfs", "image"] {
            if key.strip_prefix(kind).is_some_and(|rest| rest.starts_with('-')) {
                self.special.push((kind, key.clone()));
            }
        }
        let given = || value.ok_or_else(|| format!("{key} needs a value"));
        match key.as_str() {
            "type" => self.kind = Some(given()?.to_ascii_lowercase()),
            "source" | "src" => self.source = Some(given()?.to_owned()),
            "target" | "dst" | "destination" => {
                self.target = Some(mount_target(given()?)?);
            }
            "readonly" | "ro" => self.read_only = flag(&key, value)?,
            // Only Docker Desktop's virtual machine caches.
            "consistency" if matches!(value, Some("consistent" | "cached" | "delegated" | "default")) => {}
            _ => self.read_special(&key, value)?,
        }
        Ok(())
    }

    fn read_special(&mut self, key: &str, value: Option<&str>) -> Result<(), String> {
        let given = || value.ok_or_else(|| format!("{key} needs a value"));
        match key {
            "bind-propagation" => {
                self.propagation = Some(Propagation::named(given()?).ok_or("unknown bind-propagation")?);
            }
            "bind-nonrecursive" => self.depth = flag(key, value)?.then_some(Depth::Disabled),
            "bind-recursive" => {
                self.depth = Some(match given()? {
                    "enabled" | "true" | "1" => Depth::Enabled,
                    "disabled" | "false" | "0" => Depth::Disabled,
                    "writable" => Depth::Writable,
                    "readonly" => Depth::ReadOnly,
                    other => return Err(format!("unknown bind-recursive {other:?}")),
                });
            }
            "bind-create-src" => self.create = flag(key, value)?,
            "volume-nocopy" => self.no_copy = flag(key, value)?,
            "volume-subpath" | "image-subpath" => self.subpath = Some(given()?.into()),
            "volume-driver" if matches!(given()?, "" | "local") => {}
            "volume-driver" => return Err(format!("volume driver {:?} does not exist", given()?)),
            "volume-opt" => add_pair(&mut self.making.options, given()?),
            "volume-label" => add_pair(&mut self.making.labels, given()?),
            "tmpfs-size" => {
                self.size = Some(given()?.parse().map_err(|error| format!("tmpfs-size: {error}"))?)
            }
            "tmpfs-mode" => {
                let mode = u32::from_str_radix(given()?, 8).map_err(|_| "tmpfs-mode is octal")?;
                self.mode = Some(mode);
            }
            "tmpfs-options" => self.options.extend(given()?.split(',').map(str::to_owned)),
            other => return Err(format!("unknown key {other:?}")),
        }
        Ok(())
    }

    fn finish(self, directory: &Path) -> Result<MountSpec, String> {
        let kind = self.kind.as_deref().unwrap_or("volume");
        if let Some((of, key)) = self.special.iter().find(|(of, _)| *of != kind) {
            return Err(format!("{key} is for mounts of type {of}, and this one is of type {kind}"));
        }
        let source = match (kind, self.source) {
            ("bind", source) => {
                let path = source.filter(|path| !path.is_empty()).ok_or("a bind needs a source")?;
                let depth = self.depth.unwrap_or(Depth::Enabled);
                check_depth(depth, self.read_only, self.propagation)?;
                MountSource::Bind {
                    path: absolute_source(&path, directory),
                    create: self.create,
                    propagation: self.propagation.unwrap_or_default(),
                    recursive: depth != Depth::Disabled,
                    writable_below: depth == Depth::Writable,
                }
            }
            ("volume", source) => {
                let name = source.filter(|name| !name.is_empty()).map(|name| name.parse()).transpose();
                let name = name.map_err(|error| format!("not a volume's name: {error}"))?;
                let (no_copy, subpath, making) = (self.no_copy, self.subpath, self.making);
                MountSource::Volume { name, no_copy, subpath, making }
            }
            ("tmpfs", Some(_)) => return Err("a tmpfs has no source".to_owned()),
            ("tmpfs", None) => MountSource::Tmpfs { size: self.size, mode: self.mode, options: self.options },
            ("image", source) => {
                let image = source.filter(|image| !image.is_empty()).ok_or("an image is needed as source")?;
                MountSource::Image { image, lower: Vec::new(), subpath: self.subpath }
            }
            (other, _) => return Err(format!("type {other:?} is not bind, volume, tmpfs or image")),
        };
        let read_only = self.read_only || kind == "image";
        Ok(MountSpec { target: self.target.ok_or("a target is needed")?, source, read_only })
    }
}

/// What docker demands of the forms of `bind-recursive`.
fn check_depth(depth: Depth, read_only: bool, propagation: Option<Propagation>) -> Result<(), String> {
    match depth {
        Depth::Writable | Depth::ReadOnly if !read_only => {
            Err("this bind-recursive is for binds that are readonly".to_owned())
        }
        Depth::ReadOnly if propagation.is_some_and(|kind| kind != Propagation::Rprivate) => {
            Err("bind-recursive=readonly needs bind-propagation=rprivate".to_owned())
        }
        _ => Ok(()),
    }
}

fn flag(key: &str, value: Option<&str>) -> Result<bool, String> {
    match value {
        None | Some("true" | "1") => Ok(true),
        Some("false" | "0") => Ok(false),
        Some(_) => Err(format!("{key} is true or false")),
    }
}

fn add_pair(pairs: &mut BTreeMap<String, String>, text: &str) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    pairs.insert(key.to_owned(), value.to_owned());
}

/// `path[:option,…]`.
pub fn parse_tmpfs(text: &str) -> Result<MountSpec> {
    let wrong = |problem: &str| Error::invalid(format!("invalid tmpfs {text:?}: {problem}"));
    let (path, list) = text.split_once(':').unwrap_or((text, ""));
    let target = mount_target(path).map_err(wrong)?;
    let (mut size, mut mode, mut options, mut read_only) = (None, None, Vec::new(), false);
    for option in list.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", value)) => {
                size = Some(value.parse().map_err(|error| wrong("size").with_source(error))?)
            }
            Some(("mode", value)) => {
                mode = Some(u32::from_str_radix(value, 8).map_err(|_| wrong("mode is octal"))?);
            }
            None if option == "ro" => read_only = true,
            _ => options.push(option.to_owned()),
        }
    }
    Ok(MountSpec { target, source: MountSource::Tmpfs { size, mode, options }, read_only })
}

/// `container[:ro|:rw]`.
pub fn parse_volumes_from(text: &str) -> Result<VolumesFrom> {
    let (container, mode) = text.split_once(':').map_or((text, None), |(name, mode)| (name, Some(mode)));
    let read_only = match mode {
        None => None,
        Some("ro") => Some(true),
        Some("rw") => Some(false),
        Some("z" | "Z") => None,
        Some(other) => return Err(Error::invalid(format!("invalid volumes-from mode {other:?}: ro or rw"))),
    };
    Ok(VolumesFrom { container: container.to_owned(), read_only })
}

fn mount_target(text: &str) -> Result<PathBuf, &'static str> {
    if !text.starts_with('/') {
        return Err("the path in the container must be absolute");
    }
    match clean(Path::new(text)) {
        root if root == Path::new("/") => Err("the path in the container is its root, which is the image"),
        target => Ok(target),
    }
}

fn absolute_source(text: &str, directory: &Path) -> PathBuf {
    let path = match (text.strip_prefix('~'), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => {
            PathBuf::from(home).join(rest.trim_start_matches('/'))
        }
        _ => directory.join(text),
    };
    clean(&path)
}

/// The path without `.`, `..` and doubled slashes, as Go's `filepath.Clean` has it.
pub fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                if !matches!(cleaned.components().next_back(), None | Some(Component::RootDir)) {
                    cleaned.pop();
                }
            }
            other => cleaned.push(other),
        }
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(text: &str) -> Result<MountSpec> {
        parse_volume(text, Path::new("/work"))
    }

    #[test]
    fn a_source_is_a_path_or_a_volume() {
        let bind = volume("./data:/data:ro").unwrap();
        assert!(bind.read_only);
        assert!(
            matches!(bind.source, MountSource::Bind { path, create: true, .. } if path == Path::new("/work/data"))
        );
        let named = volume("data:/srv/../data").unwrap();
        assert_eq!(named.target, Path::new("/data"));
        assert!(
            matches!(named.source, MountSource::Volume { name: Some(name), .. } if name.as_str() == "data")
        );
        assert!(matches!(volume("/data").unwrap().source, MountSource::Volume { name: None, .. }));
        for wrong in [
            "",
            "a:b",
            "a:/",
            "x:/y:z:w",
            "x:/y:weird",
            "-x:/y",
            "x:/y:ro,rw",
            "x:/y:rshared",
            "/x:/y:nocopy",
            "/x:/y:shared,slave",
        ] {
            assert!(volume(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_long_form_says_the_same() {
        let mount = |text| parse_mount(text, Path::new("/work"));
        let bind = mount("type=bind,src=/a,dst=/b,readonly").unwrap();
        assert!(bind.read_only && matches!(bind.source, MountSource::Bind { create: false, .. }));
        let tmpfs = mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=0700").unwrap();
        assert_eq!(
            tmpfs.source,
            MountSource::Tmpfs { size: Some(ByteSize(1 << 20)), mode: Some(0o700), options: Vec::new() }
        );
        for wrong in [
            "type=nfs,target=/t",
            "type=bind,target=/t",
            "type=bind,src=/a,dst=b",
            "type=bind,src=/a,dst=/b,volume-nocopy",
            "type=tmpfs,dst=/b,bind-propagation=shared",
            "type=bind,src=/a,dst=/b,bind-recursive=writable",
            "type=bind,src=/a,dst=/b,readonly,bind-recursive=readonly,bind-propagation=shared",
            "type=volume,dst=/b,volume-driver=nfs",
            "type=image,dst=/b",
            "type=bind,src=\"/a,dst=/b",
        ] {
            assert!(mount(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_key_of_the_long_form_arrives() {
        let source = |text| parse_mount(text, Path::new("/work")).unwrap().source;
        let MountSource::Volume { name, no_copy, subpath, making } = source(
            "type=volume,src=vol,dst=/b,volume-nocopy,volume-subpath=in,\"volume-opt=o=uid=1,gid=2\",volume-label=a=b",
        ) else {
            panic!("a volume")
        };
        assert_eq!((name.unwrap().as_str(), no_copy, subpath), ("vol", true, Some("in".into())));
        assert_eq!((making.options["o"].as_str(), making.labels["a"].as_str()), ("uid=1,gid=2", "b"));
        let bind = source("type=bind,src=/a,dst=/b,readonly,bind-recursive=writable,bind-propagation=rslave");
        assert!(matches!(
            bind,
            MountSource::Bind { recursive: true, writable_below: true, propagation: Propagation::Rslave, .. }
        ));
        assert!(matches!(
            source("type=bind,src=/a,dst=/b,bind-nonrecursive"),
            MountSource::Bind { recursive: false, .. }
        ));
        assert!(matches!(
            source("type=bind,src=/a,dst=/b,bind-create-src"),
            MountSource::Bind { create: true, .. }
        ));
        assert!(matches!(source("type=image,src=box,dst=/b,image-subpath=etc"), MountSource::Image { .. }));
    }
}
