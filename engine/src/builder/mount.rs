//! `RUN --mount=…` as values.

use super::fault::nearest;
use crate::quantity::ByteSize;

/// A mount of one RUN.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mount {
    /// What is mounted.
    pub(crate) kind: MountKind,
    /// Where.
    pub(crate) target: Option<String>,
    /// What of it.
    pub(crate) source: Option<String>,
    /// Out of what: a stage, a context or an image.
    pub(crate) from: Option<String>,
    /// The cache's or the secret's name.
    pub(crate) id: Option<String>,
    /// Whether it can only be read; as the kind has it when not said.
    pub(crate) read_only: Option<bool>,
    /// Whether the build fails without it; it does not when not said.
    pub(crate) required: Option<bool>,
    /// A file system's size.
    pub(crate) size: Option<ByteSize>,
    /// Permission bits.
    pub(crate) mode: Option<u32>,
    /// Owner.
    pub(crate) uid: Option<u32>,
    /// Group.
    pub(crate) gid: Option<u32>,
    /// The variable a secret comes in.
    pub(crate) env: Option<String>,
    /// What several builds at once do with a cache; `Shared` when not said.
    pub(crate) sharing: Option<Sharing>,
}

/// What is mounted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum MountKind {
    /// Files of a context, a stage or an image.
    #[default]
    Bind,
    /// A directory that survives builds.
    Cache,
    /// A file system in memory.
    Tmpfs,
    /// A secret.
    Secret,
    /// The socket of an SSH agent.
    Ssh,
}

/// What several builds at once do with a cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// Use it together.
    #[default]
    Shared,
    /// Each has its own.
    Private,
    /// Wait for each other.
    Locked,
}

/// The `from` of a mount as written.
pub(crate) fn from_of(text: &str) -> Option<String> {
    fields(text).into_iter().find_map(|field| {
        let (key, value) = field.split_once('=')?;
        (key.eq_ignore_ascii_case("from") && !value.is_empty()).then(|| value.to_owned())
    })
}

/// Parses a mount whose variables are expanded but for those of `from`.
pub(crate) fn parse(text: &str, expand: &dyn Fn(&str) -> Result<String, String>) -> Result<Mount, String> {
    let mut mount = Mount::default();
    for field in fields(text) {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value.to_owned())),
            None => (field.to_ascii_lowercase(), None),
        };
        let value = match value {
            Some(value) if key != "from" => Some(expand(&value)?),
            value => value,
        };
        mount.set(&key, value.as_deref())?;
    }
    mount.check()?;
    Ok(mount)
}

// === impl Mount ===

impl Mount {
    fn set(&mut self, key: &str, value: Option<&str>) -> Result<(), String> {
        let text = || {
            value.map(str::to_owned).ok_or_else(|| format!("invalid field {key:?} must be a key=value pair"))
        };
        let flag = || match value {
            None => Ok(true),
            Some(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "1" | "t" => Ok(true),
                "false" | "0" | "f" => Ok(false),
                _ => Err(format!("invalid value for {key}: {text}")),
            },
        };
        let number = |radix| {
            let text = text()?;
            u32::from_str_radix(&text, radix).map_err(|_| format!("invalid value {text} for {key}"))
        };
        match key {
            "type" => {
                self.kind = match text()?.to_ascii_lowercase().as_str() {
                    "bind" => MountKind::Bind,
                    "cache" => MountKind::Cache,
                    "tmpfs" => MountKind::Tmpfs,
                    "secret" => MountKind::Secret,
                    "ssh" => MountKind::Ssh,
                    other => return Err(format!("unsupported mount type {other:?}{}", meant(other, KINDS))),
                }
            }
            "from" => self.from = Some(text()?),
            "source" | "src" => self.source = Some(text()?),
            "target" | "dst" | "destination" => self.target = Some(text()?),
            "readonly" | "ro" => self.read_only = Some(flag()?),
            "readwrite" | "rw" => self.read_only = Some(!flag()?),
            "id" => self.id = Some(text()?),
            "required" => self.required = Some(flag()?),
            "size" => self.size = Some(text()?.parse().map_err(|error| format!("{error}"))?),
            "mode" => self.mode = Some(number(8)?),
            "uid" => self.uid = Some(number(10)?),
            "gid" => self.gid = Some(number(10)?),
            "env" => self.env = Some(text()?),
            "sharing" => {
                self.sharing = Some(match text()?.to_ascii_lowercase().as_str() {
                    "shared" => Sharing::Shared,
                    "private" => Sharing::Private,
                    "locked" => Sharing::Locked,
                    other => {
                        return Err(format!("unsupported sharing value {other:?}{}", meant(other, SHARINGS)));
                    }
                });
            }
            other => return Err(format!("unexpected key {other:?} in --mount{}", meant(other, KEYS))),
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        let has_owner = self.mode.is_some() || self.uid.is_some() || self.gid.is_some();
        let is_bare = matches!(self.kind, MountKind::Bind | MountKind::Tmpfs);
        if has_owner && is_bare {
            return Err("mode, uid and gid are for cache, secret and ssh mounts only".to_owned());
        }
        let is_given = matches!(self.kind, MountKind::Secret | MountKind::Ssh);
        if self.target.is_none() && !is_given {
            return Err("a mount needs a target".to_owned());
        }
        let of_others = [
            ("sharing", self.sharing.is_some(), self.kind == MountKind::Cache, "cache"),
            ("size", self.size.is_some(), self.kind == MountKind::Tmpfs, "tmpfs"),
            ("required", self.required.is_some(), is_given, "secret and ssh"),
            ("env", self.env.is_some(), self.kind == MountKind::Secret, "secret"),
        ];
        if let Some((key, .., kinds)) = of_others.into_iter().find(|(_, is_set, fits, _)| *is_set && !fits) {
            return Err(format!("{key} is for {kinds} mounts only"));
        }
        if self.kind == MountKind::Secret {
            self.check_secret()?;
        }
        Ok(())
    }

    fn check_secret(&self) -> Result<(), String> {
        if self.from.is_some() {
            return Err("a secret comes from the command line: it has no from".to_owned());
        }
        if self.id.is_some() && self.source.is_some() {
            return Err("a secret has either an id or a source, which is the same".to_owned());
        }
        if self.secret_id().is_none_or(str::is_empty) {
            return Err("a secret needs an id or a target".to_owned());
        }
        Ok(())
    }

    /// What the command line calls the secret: what it is called here, or the name of the file it becomes.
    pub(crate) fn secret_id(&self) -> Option<&str> {
        let from_target = || self.target.as_deref().and_then(|target| target.rsplit('/').next());
        self.id.as_deref().or(self.source.as_deref()).or_else(from_target)
    }
}

const KINDS: &[&str] = &["bind", "cache", "tmpfs", "secret", "ssh"];

const SHARINGS: &[&str] = &["shared", "private", "locked"];

const KEYS: &[&str] = &[
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "id",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "env",
    "sharing",
];

fn meant(word: &str, known: &[&str]) -> String {
    nearest(word, known.iter().copied()).map(|meant| format!(" (did you mean {meant}?)")).unwrap_or_default()
}

/// Fields at commas; a quoted field may hold some.
pub fn fields(text: &str) -> Vec<String> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            other => field.push(other),
        }
    }
    fields.push(field);
    fields.retain(|field| !field.is_empty());
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_field_by_field() {
        let same = |text: &str| Ok(text.to_owned());
        let mount = parse("type=cache,target=/x,ID=a,sharing=locked,mode=0700", &same).unwrap();
        assert_eq!((mount.kind, mount.id.as_deref(), mount.mode), (MountKind::Cache, Some("a"), Some(0o700)));
        assert_eq!(mount.sharing, Some(Sharing::Locked));
        assert_eq!(parse("target=/x,rw", &same).unwrap().read_only, Some(false));
        assert_eq!(from_of("type=bind,from=Build,target=/x").as_deref(), Some("Build"));
        for (text, wanted) in [
            ("type=what,target=/x", "unsupported mount type \"what\""),
            ("type=cahce,target=/x", "unsupported mount type \"cahce\" (did you mean cache?)"),
            ("type=bind", "a mount needs a target"),
            ("target=/x,uid=1", "mode, uid and gid are for cache, secret and ssh mounts only"),
            ("target=/x,colour=red", "unexpected key \"colour\" in --mount"),
            ("typ=cache,target=/x", "unexpected key \"typ\" in --mount (did you mean type?)"),
            ("target=/x,sharing=locked", "sharing is for cache mounts only"),
            ("type=cache,target=/x,size=3m", "size is for tmpfs mounts only"),
            ("type=tmpfs,target=/x,required", "required is for secret and ssh mounts only"),
            ("type=ssh,env=X", "env is for secret mounts only"),
            ("type=secret", "a secret needs an id or a target"),
            ("type=secret,id=a,from=b", "a secret comes from the command line: it has no from"),
            ("type=secret,id=a,src=b", "a secret has either an id or a source, which is the same"),
        ] {
            assert_eq!(parse(text, &same).unwrap_err(), wanted);
        }
    }
}
