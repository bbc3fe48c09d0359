//! Images: names, configurations and layers.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::PathBuf;

pub mod config;
pub mod platform;
pub mod reference;

pub use config::ImageConfig;
pub use platform::Platform;
pub use reference::Reference;

use crate::id::{Digest, ImageId};
use crate::layer::Layers;
use crate::paths::Root;

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
    /// Its configuration.
    pub config: ImageConfig,
    /// The sum of its layers' file sizes.
    pub size: u64,
}

/// Why an image could not be read, made or moved.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {}

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

/// How an image is fetched.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// The platform to choose from an index; this machine's when `None`.
    pub platform: Option<Platform>,
    /// Registries (`host[:port]`) spoken to over http, or https without verification. Loopback is always in.
    pub insecure: Vec<String>,
}

/// How an image is sent.
#[derive(Debug, Clone, Default)]
pub struct PushOptions {
    /// Registries (`host[:port]`) spoken to over http, or https without verification. Loopback is always in.
    pub insecure: Vec<String>,
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
}

/// What a push did.
#[derive(Debug, Clone)]
pub struct Pushed {
    /// The manifest's digest.
    pub digest: Digest,
    /// The manifest's size.
    pub size: u64,
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
    /// Here (or there) already.
    Exists,
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

impl From<ImageError> for crate::Error {
    fn from(error: ImageError) -> Self {
        crate::Error::failed("image", error)
    }
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
        let _ = name;
        todo!()
    }

    /// The image by reference, id or a prefix of its id; `None` when there is none.
    pub fn find(&self, name: &str) -> Result<Option<Image>, ImageError> {
        let _ = name;
        todo!()
    }

    /// All images, newest first.
    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        todo!()
    }

    /// Gives the image a further name, taking it from whoever had it.
    pub fn tag(&self, name: &str, reference: &Reference) -> Result<(), ImageError> {
        let _ = (name, reference);
        todo!()
    }

    /// Removes a name, and with the last one the image and the layers nobody else names. `in_use` are the images
    /// of containers; `force` takes the names from those too, and their content stays until they are gone.
    pub fn remove(
        &self,
        name: &str,
        force: bool,
        in_use: &BTreeSet<ImageId>,
    ) -> Result<Vec<Removed>, ImageError> {
        let _ = (name, force, in_use);
        todo!()
    }

    /// Removes images without a name (`all`: every one) that no container uses, then layers and blobs that nobody
    /// names. Returns what went and the bytes won.
    pub fn prune(&self, all: bool, in_use: &BTreeSet<ImageId>) -> Result<(Vec<Removed>, u64), ImageError> {
        let _ = (all, in_use);
        todo!()
    }

    /// How the image was made, newest first.
    pub fn history(&self, image: &Image) -> Result<Vec<HistoryRow>, ImageError> {
        let _ = image;
        todo!()
    }

    /// What overlayfs stacks for this image, topmost first. Never empty.
    pub fn lower_dirs(&self, image: &Image) -> Vec<PathBuf> {
        let _ = image;
        todo!()
    }

    /// Makes an image of a configuration whose layers (`rootfs.diff_ids`) are all here, and names it. All of it
    /// is on the disk before the image can be seen.
    pub fn commit(&self, config: &ImageConfig, tags: &[Reference]) -> Result<Image, ImageError> {
        let _ = (config, tags);
        todo!()
    }

    /// Fetches an image from its registry, layers at once, straight into their directories.
    pub fn pull(
        &self,
        reference: &Reference,
        options: &PullOptions,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Pulled, ImageError> {
        let _ = (reference, options, progress);
        todo!()
    }

    /// Sends the image with this name to the name's registry.
    pub fn push(
        &self,
        reference: &Reference,
        options: &PushOptions,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Pushed, ImageError> {
        let _ = (reference, options, progress);
        todo!()
    }

    /// Writes images as one tar: an OCI layout that also has docker's `manifest.json` and `repositories`.
    pub fn save(&self, names: &[String], writer: &mut dyn Write) -> Result<(), ImageError> {
        let _ = (names, writer);
        todo!()
    }

    /// Reads an archive of docker or an OCI layout, plain or compressed.
    pub fn load(&self, reader: &mut (dyn Read + Send)) -> Result<Vec<Loaded>, ImageError> {
        let _ = reader;
        todo!()
    }

    /// Makes an image of one layer from a root file system's tar, plain or compressed. `changes` are Dockerfile
    /// instructions such as `CMD ["sh"]`.
    pub fn import(
        &self,
        reader: &mut (dyn Read + Send),
        changes: &[String],
        tag: Option<&Reference>,
    ) -> Result<Image, ImageError> {
        let _ = (reader, changes, tag);
        todo!()
    }
}
