//! Images: names, configurations and layers; how they are listed, named and removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io;
use std::path::PathBuf;

pub mod actions;
mod archive;
mod artifact;
mod assembly;
mod attestation;
pub mod cache;
mod challenge;
pub mod config;
pub mod credentials;
mod damage;
mod difference;
mod endpoint;
mod form;
mod hosts;
pub(crate) mod http;
mod import;
mod index;
mod kept;
mod manifest;
pub mod platform;
mod record;
pub mod reference;
mod referrer;
mod registry;
mod remote;
mod transfer;
mod upload;
mod verify;

pub use archive::ArchiveError;
pub use artifact::{Artifact, ArtifactFile};
pub use assembly::{AssemblyError, Composed, PlatformNote};
pub use attestation::Predicate;
pub(crate) use attestation::purl;
pub use config::ImageConfig;
pub(crate) use credentials::proxies;
pub use credentials::{CredentialsError, Login, give, keep_credentials_in, kept_login, proxy_variables};
pub use difference::{Difference, FieldDifference, FileChange, FileDifference, LayerDifference};
pub use form::{Form, Notes};
pub use manifest::ManifestError;
pub use platform::Platform;
pub use reference::{DEFAULT_REGISTRY, DEFAULT_TAG, Reference};
pub use registry::RegistryError;
pub use remote::{FoundImage, RemoteContent, RemoteImage, RemoteManifest};

pub use crate::layer::{Compression, Packing};

use crate::event::{Event, EventKind, Journal};
use crate::id::{DiffId, Digest, ImageId};
use crate::image::manifest::MOST_JSON;
use crate::image::record::{ImageRecord, Names};
use crate::image::reference::ParseReferenceError;
use crate::layer::{LayerError, Layers};
use crate::paths::Root;
use crate::store::Lock;
use crate::store::content::{Content, ContentError};

/// The images of one root.
#[derive(Debug, Clone)]
pub struct Images {
    root: Root,
}

/// An image: what its containers run and the names it goes by.
#[derive(Debug, Clone)]
pub struct Image {
    /// The digest of its configuration.
    pub id: ImageId,
    /// Its tags, in order.
    pub references: Vec<Reference>,
    /// The registry addresses it is known by: `name@digest`.
    pub digests: Vec<Reference>,
    /// The names that mean this image among those for other platforms.
    pub part_of: Vec<Reference>,
    /// Its configuration.
    pub config: ImageConfig,
    /// The sum of its layers' file sizes.
    pub size: u64,
}

/// Why an image could not be read, made, named or removed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Neither a name nor an id.
    #[error("no such image: {0}")]
    NotFound(String),
    /// A prefix of several ids.
    #[error("{0:?} is the beginning of several images' ids")]
    Ambiguous(String),
    /// Not a reference.
    #[error(transparent)]
    Reference(#[from] ParseReferenceError),
    /// A container needs it.
    #[error("the image {name} is used by container {}", user.container)]
    InUse {
        /// The image, as it was named.
        name: String,
        /// One container that needs it.
        user: User,
    },
    /// An id stands for several names.
    #[error("the image {0} has names in several repositories")]
    SeveralNames(String),
    /// Its configuration cannot be read.
    #[error("read the configuration of the image {id}")]
    Config {
        /// Which.
        id: ImageId,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A registry did not do what was asked.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Nobody says where a cache is.
    #[error("the cache service of GitHub's actions is not known: {0} is not set")]
    NoService(&'static str),
    /// Credentials could not be read.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// An index could not be put together.
    #[error(transparent)]
    Assembly(#[from] AssemblyError),
    /// A manifest is not one of an image.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// An archive could not be read or written.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// One of its layers failed.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// One of its blobs failed.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The system refused a step.
    #[error("{step} the image {object}")]
    Io {
        /// What was done.
        step: &'static str,
        /// To which image.
        object: String,
        /// Why not.
        source: io::Error,
    },
}

/// What one removal did, in the order it was done; displays as docker prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// The name is gone.
    Untagged(Reference),
    /// The image or the layer is gone.
    Deleted(Digest),
}

/// One row of `image history`, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRow {
    /// The image's id on the first row; `None` is docker's `<missing>`.
    pub id: Option<ImageId>,
    /// When, RFC 3339.
    pub created: Option<String>,
    /// The instruction.
    pub created_by: String,
    /// The size of its layer.
    pub size: u64,
    /// A remark.
    pub comment: String,
}

/// What `load` found in an archive.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The image.
    pub image: Image,
    /// The name the archive gave it.
    pub reference: Option<Reference>,
}

/// A container that was made from an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub container: String,
    /// Whether it runs.
    pub running: bool,
}

/// One container for each image that has any; a running one where there is one.
pub type Users = BTreeMap<ImageId, User>;

/// How an image is fetched.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// The platform to choose from an index; this machine's when `None`.
    pub platform: Option<Platform>,
    /// Registries (`host[:port]`) spoken to over http, or https without verification. Loopback is always in.
    pub insecure: Vec<String>,
    /// Who asks which registry; for all others what `login` has kept.
    pub logins: Vec<Login>,
}

/// How an image is sent.
#[derive(Debug, Clone, Default)]
pub struct PushOptions {
    /// The platform whose image is sent alone, of a name that means several; all when `None`.
    pub platform: Option<Platform>,
    /// Registries (`host[:port]`) spoken to over http, or https without verification. Loopback is always in.
    pub insecure: Vec<String>,
    /// Whether it goes under its digest, and no tag is given there.
    pub by_digest: bool,
}

/// What a pull did.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// The image.
    pub image: Image,
    /// What the registry's tag pointed to.
    pub digest: Digest,
    /// Whether anything here changed.
    pub newer: bool,
    /// What the registry wants people to read.
    pub warnings: Vec<String>,
}

/// What a push did.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// The manifest's digest.
    pub digest: Digest,
    /// The manifest's size.
    pub size: u64,
    /// What the registry wants people to read.
    pub warnings: Vec<String>,
}

/// One layer's way, while an image moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The blob's digest, or the layer's diff id while it has no blob.
    pub layer: Digest,
    /// How far it is.
    pub step: Step,
}

/// How far a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Here already.
    Exists,
    /// At the registry already.
    ExistsThere,
    /// At its vendor's, who alone may hand it out.
    Foreign,
    /// Its turn comes.
    Waiting,
    /// Bytes done, of how many.
    Downloading(u64, u64),
    /// All bytes are here; the last are being unpacked.
    Unpacking,
    /// Unpacked.
    Complete,
    /// Being compressed for the first time.
    Compressing,
    /// Bytes done, of how many.
    Pushing(u64, u64),
    /// There.
    Pushed,
    /// Tried again after a failure, for the n-th time.
    Retrying(u32),
}

// === impl Images ===

impl Images {
    /// The images of this root.
    pub fn at(root: &Root) -> Self {
        Self { root: root.clone() }
    }

    /// The layers of the same root.
    pub fn layers(&self) -> Layers {
        Layers::at(&self.root)
    }

    /// The image by reference, id or a prefix of its id.
    pub fn get(&self, name: &str) -> Result<Image, ImageError> {
        self.find(name)?.ok_or_else(|| ImageError::NotFound(name.to_owned()))
    }

    /// The image by reference, id or a prefix of its id; `None` when there is none.
    pub fn find(&self, name: &str) -> Result<Option<Image>, ImageError> {
        let names = self.names()?;
        match self.resolve(&names, name)? {
            Some(found) => self.image(&names, &found.id),
            None => Ok(None),
        }
    }

    /// When a name was last given to an image, by a pull, a build or a person; `None` when it means none.
    ///
    /// # Errors
    /// When the names cannot be read.
    pub fn named_at(&self, reference: &Reference) -> Result<Option<jiff::Timestamp>, ImageError> {
        Ok(self.names()?.given.get(&reference.local()).copied())
    }

    /// All images, newest first. Those that cannot be read are left out: [`Images::damaged`] has them.
    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        let names = self.names()?;
        let mut images = self.readable(&names)?;
        images.sort_by_cached_key(|image| {
            (std::cmp::Reverse(image.created()), image.references.clone(), image.id.clone())
        });
        Ok(images)
    }

    /// Gives the image a further name, taking it from whoever had it.
    pub fn tag(&self, name: &str, reference: &Reference) -> Result<(), ImageError> {
        let _lock = self.lock()?;
        let mut names = self.names()?;
        let found = self.resolve(&names, name)?.ok_or_else(|| ImageError::NotFound(name.to_owned()))?;
        match &found.by {
            Some(by) => names.set_several(reference, &names.members(by)),
            None => names.set(reference, &found.id),
        }
        // What the one came with, the other comes with.
        if let Some(index) = found.by.as_ref().and_then(|by| names.index_of(by)).cloned() {
            names.set_index(reference, &index);
        }
        names.write(&self.root).map_err(failure("name", name))?;
        self.announce("tag", &found.id, &reference.to_string());
        Ok(())
    }

    /// Tells everybody who listens to events, with the image's labels as long as it is here.
    pub(crate) fn announce(&self, action: &str, id: &ImageId, name: &str) {
        let config =
            self.raw_config(id).ok().and_then(|raw| serde_json::from_slice::<ImageConfig>(&raw).ok());
        let mut attributes = config.map(|config| config.config.labels).unwrap_or_default();
        attributes.insert("name".to_owned(), name.to_owned());
        Journal::of(&self.root).append(&Event::now(EventKind::Image, action, id.as_str(), attributes));
    }

    /// Tells that an image was given these names.
    fn announce_tags(&self, id: &ImageId, names: &[Reference]) {
        names.iter().for_each(|name| self.announce("tag", id, &name.to_string()));
    }

    /// Removes a name, and with the last one the image and the layers nobody else names. `in_use` are the images
    /// of containers; `force` takes the names from those too, and their content stays until they are gone.
    pub fn remove(&self, name: &str, force: bool, in_use: &Users) -> Result<Vec<Removed>, ImageError> {
        let _lock = self.lock()?;
        let before = self.names()?;
        let mut names = before.clone();
        let found = self.resolve(&names, name)?.ok_or_else(|| ImageError::NotFound(name.to_owned()))?;
        let used = in_use.contains_key(&found.id);
        let going = names_to_remove(&names, &found, force, name)?;
        let is_last = going.len() == names.tags_of(&found.id).len() + names.digests_of(&found.id).len();
        // By force an image in use loses its name. Named by its id it would have to go as a whole, from under a
        // running program.
        if let Some(user) = in_use.get(&found.id)
            && is_last
            && (!force || (user.running && found.by.is_none()))
        {
            return Err(ImageError::InUse { name: name.to_owned(), user: user.clone() });
        }
        // The images for other platforms go with the last name that means them.
        let mut others: BTreeSet<ImageId> =
            going.iter().flat_map(|reference| names.members(reference)).collect();
        others.remove(&found.id);
        going.iter().for_each(|reference| names.remove(reference));
        let goes = is_last && !used;
        if goes {
            names.leave(&found.id);
        }
        others.retain(|id| names.is_nameless(id) && !in_use.contains_key(id));
        if names != before {
            names.write(&self.root).map_err(failure("untag", name))?;
        }
        going.iter().for_each(|reference| self.announce("untag", &found.id, &reference.to_string()));
        let mut removed: Vec<Removed> = going.into_iter().map(Removed::Untagged).collect();
        others.extend(goes.then_some(found.id));
        if !others.is_empty() {
            for id in others {
                self.delete(&id)?;
                removed.push(Removed::Deleted(id));
            }
            removed.extend(self.collect(false)?.0.into_iter().map(Removed::Deleted));
        }
        Ok(removed)
    }

    /// Removes images without a name (`all`: every one) that no container uses, of those that `which` wants gone, then
    /// layers and blobs that nobody names. Returns what went and the bytes won.
    pub fn prune(
        &self,
        all: bool,
        in_use: &Users,
        which: &dyn Fn(&Image) -> bool,
    ) -> Result<(Vec<Removed>, u64), ImageError> {
        let wanted: BTreeSet<ImageId> =
            self.list()?.into_iter().filter(which).map(|image| image.id).collect();
        let _lock = self.lock()?;
        let mut names = self.names()?;
        let mut removed = Vec::new();
        for record in self.records()? {
            let going = [names.tags_of(&record.id), names.digests_of(&record.id)].concat();
            let is_nameless = going.is_empty() && names.memberships(&record.id).is_empty();
            let is_free = (all || is_nameless) && wanted.contains(&record.id);
            if in_use.contains_key(&record.id) || !is_free {
                continue;
            }
            going.iter().for_each(|reference| names.remove(reference));
            names.leave(&record.id);
            removed.extend(going.into_iter().map(Removed::Untagged));
            removed.push(Removed::Deleted(record.id));
        }
        // Names first: a name without its image would be a lie, an image without a name is garbage.
        names.write(&self.root).map_err(failure("untag", "store"))?;
        for entry in &removed {
            if let Removed::Deleted(id) = entry {
                self.delete(id)?;
            }
        }
        let (layers, bytes) = self.collect(true)?;
        removed.extend(layers.into_iter().map(Removed::Deleted));
        Ok((removed, bytes))
    }

    /// How the image was made, newest first.
    pub fn history(&self, image: &Image) -> Result<Vec<HistoryRow>, ImageError> {
        let layers = self.layers();
        let mut diffs = image.config.rootfs.diff_ids.iter();
        let mut rows = Vec::new();
        for entry in &image.config.history {
            let layer = if entry.empty_layer { None } else { diffs.next() };
            rows.push(HistoryRow {
                id: None,
                created: entry.created.clone(),
                created_by: entry.created_by.clone().unwrap_or_default(),
                size: layer.map_or(Ok(0), |diff| layers.size(diff))?,
                comment: entry.comment.clone().unwrap_or_default(),
            });
        }
        // Layers that the history does not tell of are there all the same.
        for diff in diffs {
            let size = layers.size(diff)?;
            let (created_by, comment) = (String::new(), String::new());
            rows.push(HistoryRow { id: None, created: None, created_by, size, comment });
        }
        rows.reverse();
        if let Some(first) = rows.first_mut() {
            first.id = Some(image.id.clone());
        }
        Ok(rows)
    }

    /// The media type, digest and size of the image's manifest, or of several platforms' index, as `save` writes it.
    pub fn descriptor(&self, images: &[Image]) -> Result<(String, Digest, u64), ImageError> {
        let descriptor = self.portable_descriptor(images)?;
        Ok((descriptor.media_type, descriptor.digest, descriptor.size))
    }

    /// What overlayfs stacks for this image, topmost first. Never empty.
    pub fn lower_dirs(&self, image: &Image) -> Vec<PathBuf> {
        let layers = self.layers();
        let empty = Layers::empty();
        let mut seen = BTreeSet::new();
        // overlayfs refuses the same directory twice (ELOOP); what the lower one has, the upper one shows already.
        let mut lower: Vec<PathBuf> = (image.config.rootfs.diff_ids.iter().rev())
            .filter(|diff| **diff != empty && seen.insert(*diff))
            .map(|diff| layers.dir(diff))
            .collect();
        if lower.is_empty() {
            lower.extend(image.config.rootfs.diff_ids.first().map(|diff| layers.dir(diff)));
        }
        lower
    }

    /// Makes an image of a configuration whose layers (`rootfs.diff_ids`) are all here, and names it. All of it
    /// is on the disk before the image can be seen.
    pub fn commit(&self, config: &ImageConfig, tags: &[Reference]) -> Result<Image, ImageError> {
        let raw = serde_json::to_vec(config)
            .map_err(|error| failure("write the configuration of", "new")(error.into()))?;
        let image = self.install(&raw, None, tags)?;
        self.announce_tags(&image.id, tags);
        Ok(image)
    }

    /// Makes an image of a configuration as it came, with the manifest it came with.
    pub(crate) fn install(
        &self,
        raw: &[u8],
        manifest: Option<&[u8]>,
        references: &[Reference],
    ) -> Result<Image, ImageError> {
        let id = Digest::of(raw);
        let config: ImageConfig =
            serde_json::from_slice(raw).map_err(|source| ImageError::Config { id: id.clone(), source })?;
        let layers = self.layers();
        let size =
            (config.rootfs.diff_ids.iter()).map(|diff| layers.size(diff)).sum::<Result<u64, LayerError>>()?;
        let _lock = self.lock()?;
        let known = self.record(&id)?;
        let is_new =
            known.is_none() || (manifest.is_some() && known.and_then(|record| record.manifest).is_none());
        if is_new {
            let content = Content::at(&self.root);
            content.put(raw)?;
            let manifest = manifest.map(|bytes| content.put(bytes)).transpose()?;
            self.sync()?;
            layers.mark_synced(&config.rootfs.diff_ids)?;
            let record = ImageRecord::new(id.clone(), manifest, config.rootfs.diff_ids.clone(), size);
            record.write(&self.root).map_err(failure("record", id.as_str()))?;
        }
        let before = self.names()?;
        let mut names = before.clone();
        references.iter().for_each(|reference| names.set(reference, &id));
        if names != before {
            names.write(&self.root).map_err(failure("name", id.as_str()))?;
        }
        Ok(Image {
            references: names.tags_of(&id),
            digests: names.digests_of(&id),
            part_of: names.memberships(&id),
            id,
            config,
            size,
        })
    }

    /// Makes an image of a configuration and a manifest that another engine sent, whose layers are all here, and
    /// names it. All of it is on the disk before the image can be seen.
    ///
    /// # Errors
    /// When the configuration is not one, a layer is not here, or the system refuses.
    pub fn receive(
        &self,
        raw: &[u8],
        manifest: Option<&[u8]>,
        references: &[Reference],
    ) -> Result<Image, ImageError> {
        let image = self.install(raw, manifest, references)?;
        let name = references.first().map_or_else(|| image.id.to_string(), ToString::to_string);
        self.announce("load", &image.id, &name);
        Ok(image)
    }

    /// The manifest an image came with, as it came; `None` for an image that was built here.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn manifest(&self, id: &ImageId) -> Result<Option<Vec<u8>>, ImageError> {
        match self.record(id)?.and_then(|record| record.manifest) {
            Some(digest) => Ok(Some(self.content().read(&digest, MOST_JSON)?)),
            None => Ok(None),
        }
    }

    /// The image's configuration as it came: the bytes whose digest is its id.
    ///
    /// # Errors
    /// When it is not here or damaged.
    pub fn raw_config(&self, id: &ImageId) -> Result<Vec<u8>, ImageError> {
        Ok(self.content().read(id, MOST_JSON)?)
    }

    pub(crate) fn content(&self) -> Content {
        Content::at(&self.root)
    }

    fn image(&self, names: &Names, id: &ImageId) -> Result<Option<Image>, ImageError> {
        let Some(record) = self.record(id)? else { return Ok(None) };
        let config = serde_json::from_slice(&self.raw_config(id)?)
            .map_err(|source| ImageError::Config { id: id.clone(), source })?;
        Ok(Some(Image {
            id: id.clone(),
            references: names.tags_of(id),
            digests: names.digests_of(id),
            part_of: names.memberships(id),
            config,
            size: record.size,
        }))
    }

    /// Which image a text means: a name first, then an id, then the beginning of one.
    fn resolve(&self, names: &Names, text: &str) -> Result<Option<Resolved>, ImageError> {
        let reference = text.parse::<Reference>();
        if let Ok(reference) = &reference
            && let Some(id) = names.get(reference)
        {
            return Ok(Some(Resolved { id: id.clone(), by: Some(reference.local()) }));
        }
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if hex.is_empty() || hex.len() > 64 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            // Only a text that cannot be a name is worth an error; one that could is merely not here.
            return reference.map(|_| None).map_err(ImageError::from);
        }
        let mut found = self.ids()?.into_iter().filter(|id| id.hex().starts_with(hex));
        match (found.next(), found.next()) {
            (Some(_), Some(_)) => Err(ImageError::Ambiguous(text.to_owned())),
            (id, _) => Ok(id.map(|id| Resolved { id, by: None })),
        }
    }

    fn delete(&self, id: &ImageId) -> Result<(), ImageError> {
        ImageRecord::remove(&self.root, id).map_err(failure("remove", id.as_str()))?;
        let attributes = [("name", id.as_str())];
        Journal::of(&self.root).append(&Event::now(EventKind::Image, "delete", id.as_str(), attributes));
        Ok(())
    }

    /// Removes layers and blobs that neither an image nor the build cache names.
    pub(crate) fn collect_unnamed(&self) -> Result<(), ImageError> {
        self.collect(true).map(drop)
    }

    /// Removes layers and blobs that no image names. While somebody makes an image nothing is removed: the next
    /// collection finds it. `thorough` also takes layers that no removed image left behind.
    fn collect(&self, thorough: bool) -> Result<(Vec<DiffId>, u64), ImageError> {
        let layers = self.layers();
        let Some(_collector) = layers.collector()? else { return Ok((Vec::new(), 0)) };
        let content = self.content();
        let mut live_layers = BTreeSet::new();
        let names = self.names()?;
        let mut live_blobs: BTreeSet<Digest> =
            names.indexes().iter().flat_map(|index| kept::live(&content, index)).collect();
        let records: Result<Vec<_>, _> = self.ids()?.iter().map(|id| self.record(id)).collect();
        // Which layers an image has whose record cannot be read, nobody knows.
        let Ok(records) = records else { return Ok((Vec::new(), 0)) };
        for record in records.into_iter().flatten() {
            // Layers know their blobs themselves, should the manifest be damaged.
            if let Some(manifest) = &record.manifest {
                live_blobs
                    .extend(content.read(manifest, MOST_JSON).iter().flat_map(|it| manifest::blobs(it)));
                live_blobs.insert(manifest.clone());
            }
            if let Some(attestation) = record.attestation {
                let read = content.read(&attestation, MOST_JSON);
                live_blobs.extend(read.iter().flat_map(|it| attestation::blobs(it)));
                live_blobs.insert(attestation);
            }
            live_blobs.insert(record.id);
            live_layers.extend(record.layers);
        }
        let mut removed = Vec::new();
        let mut bytes = 0;
        for diff in layers.list()? {
            // A layer that was never part of a synced image belongs to a build that may go on.
            let is_leftover = thorough || layers.is_synced(&diff);
            if live_layers.contains(&diff) || layers.is_pinned(&diff) || !is_leftover {
                live_blobs
                    .extend(layers.record(&diff).ok().and_then(|record| record.blob).map(|blob| blob.digest));
                continue;
            }
            bytes += layers.remove(&diff)?;
            removed.push(diff);
        }
        for digest in content.list()? {
            if !live_blobs.contains(&digest) {
                bytes += content.delete(&digest)?;
            }
        }
        if thorough {
            // Nothing arrives now: whoever receives layers holds them.
            let begun = self.root.transfers();
            bytes += crate::store::tree_size(&begun);
            crate::store::remove_tree(&begun).map_err(failure("remove what has arrived of", "store"))?;
        }
        Ok((removed, bytes))
    }

    /// Everything written so far is on the disk. One call for all layers of an image.
    fn sync(&self) -> Result<(), ImageError> {
        let state = File::open(self.root.state()).map_err(failure("sync", "store"))?;
        rustix::fs::syncfs(&state).map_err(|error| failure("sync", "store")(error.into()))
    }

    fn names(&self) -> Result<Names, ImageError> {
        Names::read(&self.root).map_err(failure("read the names of", "store"))
    }

    fn record(&self, id: &ImageId) -> Result<Option<ImageRecord>, ImageError> {
        ImageRecord::read(&self.root, id).map_err(failure("read the record of", id.as_str()))
    }

    fn records(&self) -> Result<Vec<ImageRecord>, ImageError> {
        ImageRecord::list(&self.root).map_err(failure("list", "store"))
    }

    fn lock(&self) -> Result<Lock, ImageError> {
        let directory = self.root.images();
        crate::store::private_directory(&directory).map_err(failure("make room for", "store"))?;
        Lock::exclusive(&directory.join("lock")).map_err(failure("lock", "store"))
    }
}

// === impl Image ===

impl Image {
    /// When it was made.
    pub fn created(&self) -> Option<jiff::Timestamp> {
        self.config.created.as_deref()?.parse().ok()
    }

    /// What it runs on.
    pub fn platform(&self) -> Platform {
        Platform::new(&self.config.os, &self.config.architecture, self.config.variant.as_deref())
    }
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untagged(reference) => write!(f, "Untagged: {reference}"),
            Self::Deleted(digest) => write!(f, "Deleted: {digest}"),
        }
    }
}

impl From<ImageError> for crate::Error {
    fn from(error: ImageError) -> Self {
        let message = error.to_string();
        match error {
            ImageError::NotFound(name) => crate::Error::not_found(message).with_hint(format!(
                "`rengine image ls` shows what is here, `rengine pull {name}` fetches it"
            )),
            ImageError::Ambiguous(_) => crate::Error::invalid(message).with_hint("write more of the id"),
            ImageError::InUse { user: User { running: true, .. }, .. } => {
                crate::Error::conflict(message).with_hint("stop and remove the container first")
            }
            ImageError::InUse { .. } => crate::Error::conflict(message)
                .with_hint("remove the container first, or force it: the name goes and the content stays"),
            ImageError::SeveralNames(_) => {
                crate::Error::conflict(message).with_hint("remove it by name, or force it: all names go")
            }
            ImageError::Reference(error) => error.into(),
            ImageError::Registry(error) => error.into(),
            ImageError::Credentials(error) => error.into(),
            ImageError::Layer(error) => error.into(),
            ImageError::NoService(_) => crate::Error::new(crate::Kind::Failed, message).with_hint(
                "steps with `run:` get it from a step before them, `uses: crazy-max/ghaction-github-runtime@v3`",
            ),
            ImageError::Assembly(error) => error.into(),
            other => crate::Error::failed(message, other),
        }
    }
}

struct Resolved {
    id: ImageId,
    /// The name it was found by; by its id when `None`.
    by: Option<Reference>,
}

/// The names that go when an image is removed by this text. The addresses in a registry go with the last tag in
/// their repository.
fn names_to_remove(
    names: &Names,
    found: &Resolved,
    force: bool,
    text: &str,
) -> Result<Vec<Reference>, ImageError> {
    let tags = names.tags_of(&found.id);
    let digests = names.digests_of(&found.id);
    let Some(by) = &found.by else {
        let repositories: BTreeSet<String> = tags.iter().map(Reference::familiar_name).collect();
        if repositories.len() > 1 && !force {
            return Err(ImageError::SeveralNames(text.to_owned()));
        }
        return Ok([tags, digests].concat());
    };
    let mut going = vec![by.clone()];
    let name = by.familiar_name();
    let stays_tagged = tags.iter().any(|tag| tag != by && tag.familiar_name() == name);
    if by.tag().is_some() && !stays_tagged {
        going.extend(digests.into_iter().filter(|digest| digest.familiar_name() == name));
    }
    Ok(going)
}

fn failure(step: &'static str, object: &str) -> impl Fn(io::Error) -> ImageError + use<> {
    let object = object.to_owned();
    move |source| ImageError::Io { step, object: object.clone(), source }
}

#[cfg(test)]
mod tests;
