//! `-v`, `--mount`, `--tmpfs` and `--volumes-from` as docker writes them.

use std::path::{Component, Path, PathBuf};

use crate::container::spec::{MountSource, MountSpec, Propagation, VolumesFrom};
use crate::error::{Error, Kind, Result};
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
    let target =
        absolute_target(target).ok_or_else(|| wrong("the path in the container must be absolute"))?;
    let mut read_only = false;
    let mut no_copy = false;
    let mut propagation = Propagation::default();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            // Labels of SELinux and Docker Desktop's consistency have no meaning on this kernel.
            "rw" | "z" | "Z" | "consistent" | "cached" | "delegated" => {}
            "nocopy" => no_copy = true,
            other => {
                propagation =
                    parse_propagation(other).ok_or_else(|| wrong(&format!("unknown option {other:?}")))?
            }
        }
    }
    let source = match source {
        None => MountSource::Volume { name: None, no_copy, subpath: None },
        Some("") => return Err(wrong("the source is empty")),
        Some(path) if path.starts_with(['/', '.', '~']) => MountSource::Bind {
            path: absolute_source(path, directory),
            create: true,
            propagation,
            recursive: true,
        },
        Some(name) => {
            let name = name.parse().map_err(|error| wrong("not a volume's name").with_source(error))?;
            MountSource::Volume { name: Some(name), no_copy, subpath: None }
        }
    };
    Ok(MountSpec { target, source, read_only })
}

/// `type=bind|volume|tmpfs,source=…,target=…,…`.
pub fn parse_mount(text: &str, directory: &Path) -> Result<MountSpec> {
    let mut fields = MountFields::default();
    for field in text.split(',') {
        fields.read(field, text)?;
    }
    fields.finish(text, directory)
}

#[derive(Default)]
struct MountFields<'a> {
    kind: Option<&'a str>,
    source: Option<&'a str>,
    target: Option<&'a str>,
    read_only: bool,
    propagation: Option<Propagation>,
    non_recursive: bool,
    no_copy: bool,
    subpath: Option<PathBuf>,
    size: Option<ByteSize>,
    mode: Option<u32>,
}

impl<'a> MountFields<'a> {
    fn read(&mut self, field: &'a str, text: &str) -> Result<()> {
        let wrong = |problem: &str| Error::invalid(format!("invalid mount {text:?}: {problem}"));
        let (key, value) = field.split_once('=').unwrap_or((field, ""));
        let flag = || match value {
            "" | "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(wrong(&format!("{key} is true or false"))),
        };
        match key {
            "type" => self.kind = Some(value),
            "source" | "src" => self.source = Some(value),
            "target" | "dst" | "destination" => self.target = Some(value),
            "readonly" | "ro" => self.read_only = flag()?,
            "bind-propagation" => {
                self.propagation =
                    Some(parse_propagation(value).ok_or_else(|| wrong("unknown bind-propagation"))?);
            }
            "bind-recursive" => {
                self.non_recursive = match value {
                    // What is read-only is so with everything below it, always.
                    "" | "enabled" | "readonly" => false,
                    "disabled" => true,
                    "writable" => {
                        return Err(Error::new(
                            Kind::Unsupported,
                            "bind-recursive=writable is not supported: a read-only mount is so with all below it",
                        ));
                    }
                    _ => return Err(wrong("bind-recursive is enabled, disabled or readonly")),
                };
            }
            "bind-nonrecursive" => self.non_recursive = flag()?,
            "volume-nocopy" => self.no_copy = flag()?,
            "volume-subpath" => self.subpath = Some(value.into()),
            "tmpfs-size" => {
                self.size = Some(value.parse().map_err(|error| wrong("tmpfs-size").with_source(error))?)
            }
            "tmpfs-mode" => {
                self.mode = Some(u32::from_str_radix(value, 8).map_err(|_| wrong("tmpfs-mode is octal"))?);
            }
            "consistency" => {}
            other => return Err(wrong(&format!("unknown key {other:?}"))),
        }
        Ok(())
    }

    fn finish(self, text: &str, directory: &Path) -> Result<MountSpec> {
        let wrong = |problem: &str| Error::invalid(format!("invalid mount {text:?}: {problem}"));
        let target =
            self.target.and_then(absolute_target).ok_or_else(|| wrong("an absolute target is needed"))?;
        let source = match self.kind.unwrap_or("volume") {
            "bind" => {
                let path = self.source.ok_or_else(|| wrong("a bind needs a source"))?;
                MountSource::Bind {
                    path: absolute_source(path, directory),
                    create: false,
                    propagation: self.propagation.unwrap_or_default(),
                    recursive: !self.non_recursive,
                }
            }
            "volume" => {
                let name = self.source.filter(|name| !name.is_empty()).map(str::parse).transpose();
                let name = name.map_err(|error| wrong("not a volume's name").with_source(error))?;
                MountSource::Volume { name, no_copy: self.no_copy, subpath: self.subpath }
            }
            "tmpfs" if self.source.is_some() => return Err(wrong("a tmpfs has no source")),
            "tmpfs" => MountSource::Tmpfs { size: self.size, mode: self.mode, options: Vec::new() },
            other => return Err(wrong(&format!("type {other:?} is not bind, volume or tmpfs"))),
        };
        Ok(MountSpec { target, source, read_only: self.read_only })
    }
}

/// `path[:option,…]`.
pub fn parse_tmpfs(text: &str) -> Result<MountSpec> {
    let wrong = |problem: &str| Error::invalid(format!("invalid tmpfs {text:?}: {problem}"));
    let (path, list) = text.split_once(':').unwrap_or((text, ""));
    let target = absolute_target(path).ok_or_else(|| wrong("an absolute path is needed"))?;
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
        Some("rw" | "z" | "Z") => Some(false),
        Some(other) => return Err(Error::invalid(format!("invalid volumes-from mode {other:?}: ro or rw"))),
    };
    Ok(VolumesFrom { container: container.to_owned(), read_only })
}

fn parse_propagation(text: &str) -> Option<Propagation> {
    Some(match text {
        "rprivate" => Propagation::Rprivate,
        "private" => Propagation::Private,
        "rshared" => Propagation::Rshared,
        "shared" => Propagation::Shared,
        "rslave" => Propagation::Rslave,
        "slave" => Propagation::Slave,
        _ => return None,
    })
}

fn absolute_target(text: &str) -> Option<PathBuf> {
    let cleaned = clean(Path::new(text));
    (text.starts_with('/') && cleaned != Path::new("/")).then_some(cleaned)
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
        for wrong in ["", "a:b", "a:/", "x:/y:z:w", "x:/y:weird", "-x:/y"] {
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
        assert!(mount("type=nfs,target=/t").is_err());
        assert!(mount("type=bind,target=/t").is_err());
    }
}
