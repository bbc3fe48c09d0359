//! `--cache-from` and `--cache-to`: what other machines have made before, and what this one lends them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use super::BuildRequest;
use super::cache::Key;
use super::report::Reporter;
use crate::error::{Error, Result, chain};
use crate::id::{DiffId, Digest};
use crate::image::actions::{ActionsCache, Generation};
use crate::image::cache::{CacheRecord, RemoteCache};
use crate::image::{Compression, Form, ImageConfig, Images, Packing, Platform, Reference};

/// A cache that a build may take layers from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheSource {
    /// The layout in this directory.
    Local(PathBuf),
    /// A cache in a registry, or an image with one in it.
    Registry(Reference),
    /// A cache at the service of GitHub's actions.
    Actions(ActionsCache),
}

/// A cache that a build writes when it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheTarget {
    /// Where.
    pub place: CachePlace,
    /// How much of the build.
    pub extent: CacheExtent,
    /// Whether a build whose cache cannot be written is done all the same.
    pub may_fail: bool,
    /// How layers are packed that have no blob yet; gzip when `None`.
    pub packing: Option<Packing>,
    /// Whether layers that have another blob are packed anew.
    pub force: bool,
}

/// Where a cache is written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CachePlace {
    /// Into the image itself: what made its layers.
    Inline,
    /// A layout in this directory.
    Local(PathBuf),
    /// A registry.
    Registry(Reference),
    /// The service of GitHub's actions.
    Actions(ActionsCache),
}

/// How much of a build a cache holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CacheExtent {
    /// The layers of the image.
    #[default]
    Image,
    /// Those of all stages.
    Everything,
}

/// The caches of other machines while a build runs, and what the build used.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    sources: Vec<RemoteCache>,
    used: Mutex<BTreeMap<Digest, CacheRecord>>,
}

/// The fields of `type=…,key=value,…`.
struct Fields<'a> {
    text: &'a str,
    kind: &'a str,
    rest: BTreeMap<&'a str, &'a str>,
}

// === impl Exchange ===

impl Exchange {
    /// Opens the caches that are asked for. One that is not there is told of, and no reason not to build.
    pub(crate) fn open<M: From<super::BuildEvent>>(
        images: &Images,
        request: &BuildRequest,
        reporter: &Reporter<M>,
    ) -> Self {
        let mut sources = Vec::new();
        for source in &request.cache_from {
            let (name, opened) = match source {
                CacheSource::Local(path) => (path.display().to_string(), images.open_cache_directory(path)),
                CacheSource::Registry(reference) => (reference.canonical(), images.open_cache(reference)),
                CacheSource::Actions(cache) => ("gha".to_owned(), images.open_cache_service(cache)),
            };
            let work = reporter.start(format!("importing cache manifest from {name}"));
            match opened {
                Ok(cache) => {
                    sources.push(cache);
                    work.done();
                }
                Err(error) => {
                    work.failed(&chain(&Error::from(error)));
                }
            }
        }
        Self { sources, used: Mutex::default() }
    }

    /// What somebody made under a key, its layer fetched.
    pub(crate) fn find(&self, images: &Images, key: &Digest) -> Option<CacheRecord> {
        self.sources.iter().find_map(|source| {
            let record = source.find(key)?;
            match images.fetch_cached(source, &record.diff) {
                Ok(()) => Some(record.clone()),
                Err(error) => {
                    tracing::warn!(%key, %error, "a cached layer cannot be fetched");
                    None
                }
            }
        })
    }

    /// Remembers what the build used.
    pub(crate) fn note(&self, key: &Key, diff: &DiffId, created: &str, instruction: &str) {
        let (key, diff) = (key.digest(), diff.clone());
        let (created, instruction) = (created.to_owned(), instruction.to_owned());
        let record = CacheRecord { key: key.clone(), diff, created, instruction };
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(key, record);
    }

    /// What made these layers, or everything.
    pub(crate) fn records(&self, layers: Option<&[DiffId]>) -> Vec<CacheRecord> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let is_meant = |record: &&CacheRecord| layers.is_none_or(|layers| layers.contains(&record.diff));
        used.values().filter(is_meant).cloned().collect()
    }

    /// Remembers what another build used, for a cache of both.
    pub(crate) fn join(&self, other: &Self) {
        let others = other.used.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.used.lock().unwrap_or_else(PoisonError::into_inner).extend(others);
    }

    /// Writes the caches that are asked for, of a build that made these layers. What went wrong and is no reason to
    /// fail goes to `note`.
    ///
    /// # Errors
    /// When one cannot be written or sent, unless whoever asked for it does not mind.
    pub(crate) fn lend(
        &self,
        images: &Images,
        layers: &[DiffId],
        targets: &[CacheTarget],
        note: &mut dyn FnMut(String),
    ) -> Result<()> {
        for target in targets {
            match self.lend_to(images, layers, target) {
                // The same command is run on a developer's machine, where there is no such service.
                Err(error) if target.may_fail || target.is_nowhere() => note(chain(&error)),
                other => other?,
            }
        }
        Ok(())
    }

    fn lend_to(&self, images: &Images, layers: &[DiffId], target: &CacheTarget) -> Result<()> {
        let of_image = (target.extent == CacheExtent::Image).then_some(layers);
        let config = || cache_config(self.records(of_image));
        let form = Form { packing: target.packing, force: target.force, ..Form::default() };
        let (name, written) = match &target.place {
            CachePlace::Inline => return Ok(()),
            CachePlace::Local(path) => {
                (path.display().to_string(), images.write_cache(&config(), path, &form))
            }
            CachePlace::Registry(name) => (name.canonical(), images.send_cache(&config(), name, &form)),
            CachePlace::Actions(cache) => ("gha".to_owned(), images.keep_cache(&config(), cache, &form)),
        };
        written.map_err(|error| Error::failed(format!("export the cache to {name}"), Error::from(error)))
    }
}

/// The configuration of an image that is a cache.
fn cache_config(records: Vec<CacheRecord>) -> ImageConfig {
    let platform = Platform::host();
    let layers: BTreeSet<DiffId> = records.iter().map(|record| record.diff.clone()).collect();
    let mut config =
        ImageConfig { os: platform.os, architecture: platform.architecture, ..ImageConfig::default() };
    config.rootfs.diff_ids = layers.into_iter().collect();
    config.build_cache = records;
    config
}

// === impl CacheTarget ===

impl CacheTarget {
    /// The image itself, as `BUILDKIT_INLINE_CACHE=1` asks for.
    pub const INLINE: Self = Self {
        place: CachePlace::Inline,
        extent: CacheExtent::Image,
        may_fail: false,
        packing: None,
        force: false,
    };

    /// Whether it is at a service that nobody has said anything of.
    fn is_nowhere(&self) -> bool {
        matches!(&self.place, CachePlace::Actions(cache) if cache.lacks().is_some())
    }

    /// Whether it is written beside the image and not into it.
    pub(crate) fn is_apart(&self) -> bool {
        self.place != CachePlace::Inline
    }
}

// === impl CacheSource ===

impl FromStr for CacheSource {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut fields = Fields::of(text, "--cache-from")?;
        let source = match fields.kind {
            "local" => Self::Local(
                fields
                    .take("src")
                    .or_else(|| fields.take("source"))
                    .map(PathBuf::from)
                    .ok_or_else(|| fields.wrong("src is needed"))?,
            ),
            "gha" => Self::Actions(fields.actions()?),
            _ => Self::Registry(fields.reference()?),
        };
        fields.end().map(|()| source)
    }
}

impl FromStr for CacheTarget {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut fields = Fields::of(text, "--cache-to")?;
        let extent = match fields.take("mode") {
            None | Some("min") => CacheExtent::Image,
            Some("max") => CacheExtent::Everything,
            Some(_) => return Err(fields.wrong("mode is min or max")),
        };
        let place = match fields.kind {
            "inline" => CachePlace::Inline,
            "local" => CachePlace::Local(
                fields.take("dest").map(PathBuf::from).ok_or_else(|| fields.wrong("dest is needed"))?,
            ),
            "gha" => CachePlace::Actions(fields.actions()?),
            _ => CachePlace::Registry(fields.reference()?),
        };
        let (may_fail, force) = (fields.switch("ignore-error")?, fields.switch("force-compression")?);
        let packing = fields.packing()?;
        // What is written is always so.
        for key in ["image-manifest", "oci-mediatypes"] {
            if fields.take(key).is_some_and(|value| value != "true") {
                return Err(fields.wrong("caches are written as OCI images only"));
            }
        }
        fields.end().map(|()| Self { place, extent, may_fail, packing, force })
    }
}

// === impl Fields ===

impl<'a> Fields<'a> {
    fn of(text: &'a str, flag: &'static str) -> Result<Self> {
        let mut rest = BTreeMap::new();
        // A reference alone is short for a registry's.
        let pairs = if text.contains('=') { text } else { "" };
        for field in pairs.split(',').filter(|field| !field.is_empty()) {
            let (key, value) = field.split_once('=').unwrap_or((field, "true"));
            rest.insert(key.trim(), value.trim());
        }
        if pairs.is_empty() {
            rest.insert("ref", text);
        }
        let kind = rest.remove("type").unwrap_or("registry");
        let fields = Self { text, kind, rest };
        match kind {
            "registry" | "local" | "gha" => Ok(fields),
            "inline" if flag == "--cache-to" => Ok(fields),
            "inline" => Err(fields.wrong("an inline cache is read with type=registry,ref=IMAGE")),
            other => Err(Error::invalid(format!("{flag} {text}: caches of type {other} are not supported"))
                .with_hint("registry, local, inline and gha are")),
        }
    }

    fn take(&mut self, key: &str) -> Option<&'a str> {
        self.rest.remove(key)
    }

    fn reference(&mut self) -> Result<Reference> {
        let text = self.take("ref").ok_or_else(|| self.wrong("ref is needed"))?;
        text.parse().map_err(|error| self.wrong("ref").with_source(error))
    }

    /// The fields of a cache at the service of GitHub's actions.
    fn actions(&mut self) -> Result<ActionsCache> {
        let generation = match self.take("version") {
            None => None,
            Some("1") => Some(Generation::First),
            Some("2") => Some(Generation::Second),
            Some(_) => return Err(self.wrong("version is 1 or 2")),
        };
        // What BuildKit needs to list keys, and how long it waits; neither is needed here.
        for key in ["ghtoken", "repository", "timeout"] {
            self.take(key);
        }
        let (url, newer) = (self.take("url"), self.take("url_v2"));
        let url = if generation == Some(Generation::First) { url } else { newer.or(url) };
        let own = |text: &str| text.to_owned();
        Ok(ActionsCache {
            scope: self.take("scope").map(own),
            url: url.map(own),
            token: self.take("token").map(own),
            generation: generation.or(newer.map(|_| Generation::Second)),
        })
    }

    fn switch(&mut self, key: &str) -> Result<bool> {
        match self.take(key) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(self.wrong(&format!("{key} is true or false"))),
        }
    }

    /// How the layers of a cache are packed, where that is said.
    fn packing(&mut self) -> Result<Option<Packing>> {
        let level = self.take("compression-level").map(str::parse::<u32>).transpose();
        let level = level.map_err(|error| self.wrong("compression-level is a number").with_source(error))?;
        let compression = match self.take("compression") {
            None if level.is_none() => return Ok(None),
            None | Some("gzip") => Compression::Gzip,
            Some("zstd") => Compression::Zstd,
            Some("uncompressed") => Compression::None,
            Some(_) => return Err(self.wrong("compression is gzip, zstd or uncompressed")),
        };
        let most = if compression == Compression::Zstd { 22 } else { 9 };
        if level.is_some_and(|level| level > most) {
            return Err(self.wrong(&format!("compression-level is 0 to {most}")));
        }
        Ok(Some(Packing { compression, level }))
    }

    fn end(self) -> Result<()> {
        match self.rest.keys().next() {
            Some(key) => Err(self.wrong(&format!("{key} is not supported"))),
            None => Ok(()),
        }
    }

    fn wrong(&self, what: &str) -> Error {
        Error::invalid(format!("invalid cache {:?}: {what}", self.text))
            .with_hint("type=registry,ref=NAME, type=local,src=DIR or dest=DIR, type=inline, or type=gha")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_named_in_buildxs_words() {
        let from = |text: &str| text.parse::<CacheSource>();
        assert_eq!(from("type=local,src=dir").unwrap(), CacheSource::Local("dir".into()));
        let reference = || "reg:5000/cache".parse().unwrap();
        assert_eq!(from("reg:5000/cache").unwrap(), CacheSource::Registry(reference()));
        let to = |text: &str| text.parse::<CacheTarget>();
        assert_eq!(to("type=inline").unwrap(), CacheTarget::INLINE);
        let all = CacheTarget {
            place: CachePlace::Registry(reference()),
            extent: CacheExtent::Everything,
            may_fail: true,
            packing: Some(Packing { compression: Compression::Zstd, level: Some(9) }),
            force: true,
        };
        let packed = "compression=zstd,compression-level=9,force-compression=true";
        let text = format!("type=registry,ref=reg:5000/cache,mode=max,ignore-error=true,{packed}");
        assert_eq!(to(&text).unwrap(), all);
        let at_github =
            "type=gha,scope=web,url_v2=https://results/,ghtoken=x,mode=max".parse::<CacheTarget>();
        let cache = ActionsCache {
            scope: Some("web".to_owned()),
            url: Some("https://results/".to_owned()),
            generation: Some(Generation::Second),
            token: None,
        };
        assert_eq!(at_github.unwrap().place, CachePlace::Actions(cache));
        assert_eq!(from("type=gha").unwrap(), CacheSource::Actions(ActionsCache::default()));
        for wrong in [
            "type=s3",
            "type=gha,version=3",
            "type=local",
            "type=registry",
            "type=local,dest=d,what=1",
            "type=registry,ref=a,mode=x",
            "type=registry,ref=a,compression=lz4",
            "type=registry,ref=a,compression=gzip,compression-level=10",
        ] {
            assert!(to(wrong).is_err(), "{wrong}");
        }
        assert!(from("type=s3").unwrap_err().to_string().contains("s3 are not supported"));
        assert!(from("type=inline").is_err());
    }
}
