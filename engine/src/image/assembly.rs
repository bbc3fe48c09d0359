//! An index put together by hand of images that registries have (`manifest create`). It is kept here, a file each, until
//! it is pushed or forgotten.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::id::Digest;
use crate::image::manifest;
use crate::image::manifest::{
    DOCKER_LIST, DOCKER_MANIFEST, Descriptor, DescriptorPlatform, Document, Index, Manifest, ManifestError,
    OCI_INDEX,
};
use crate::image::registry::{RegistryError, Repository, runtime};
use crate::image::transfer::{arrivals, fetch_blob};
use crate::image::upload::{Blob, Bytes};
use crate::image::{ImageError, Images, Platform, Reference, credentials};
use crate::store::{Durability, private_directory, read_json, remove_file, write_json};

/// An index in the making.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Assembly {
    version: u32,
    /// The name it is for.
    name: Reference,
    parts: Vec<Part>,
}

/// One image of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    /// As it was named. The images of an index that was named have all the same name.
    named: Reference,
    /// Where it is fetched from.
    address: Reference,
    descriptor: Descriptor,
}

/// An index put together for a registry, and not kept here.
#[derive(Debug, Clone)]
pub struct Composed {
    parts: Vec<Part>,
    media_type: String,
    /// As it is sent.
    pub bytes: Vec<u8>,
}

/// What is said of an image's platform, where its configuration says nothing or something else.
#[derive(Debug, Clone, Default)]
pub struct PlatformNote {
    /// `linux`, `windows`.
    pub os: Option<String>,
    /// The processor, by its Go name.
    pub architecture: Option<String>,
    /// The processor's variant: `v7`.
    pub variant: Option<String>,
    /// The version of the operating system that Windows images need.
    pub os_version: Option<String>,
    /// What the operating system must have: `win32k`.
    pub os_features: Vec<String>,
}

/// Why an index was not put together.
#[derive(Debug, thiserror::Error)]
pub enum AssemblyError {
    /// Nobody has begun one of this name.
    #[error("no such manifest list: {0}")]
    Unknown(String),
    /// Somebody has.
    #[error("there is a manifest list {0} already")]
    Exists(String),
    /// An image that is not in it.
    #[error("{member} is not in the manifest list {index}")]
    NotIn {
        /// The image.
        member: String,
        /// The index.
        index: String,
    },
    /// A name that several images in it have.
    #[error("{member} names several images of the manifest list {index}")]
    Several {
        /// The name.
        member: String,
        /// The index.
        index: String,
    },
    /// A platform that nothing runs on.
    #[error("there are no images for {0}")]
    Platform(Platform),
    /// The system refused a step.
    #[error("{step} the manifest list {name}")]
    Io {
        /// What was done.
        step: &'static str,
        /// To which.
        name: String,
        /// Why not.
        source: io::Error,
    },
}

const VERSION: u32 = 1;

// === impl Images ===

impl Images {
    /// Begins an index of these images, or with `amend` adds them to the one that there is. `insecure` are registries
    /// spoken to over http, or https without verification.
    ///
    /// # Errors
    /// When there is one and it is not to be amended, or an image is not at its registry.
    pub fn assemble(
        &self,
        name: &Reference,
        members: &[Reference],
        amend: bool,
        insecure: &[String],
    ) -> Result<(), ImageError> {
        let mut assembly = match self.assembly(name)? {
            Some(_) if !amend => return Err(AssemblyError::Exists(name.to_string()).into()),
            Some(assembly) => assembly,
            None => Assembly { version: VERSION, name: name.clone(), parts: Vec::new() },
        };
        for member in members {
            for image in self.remote_images(member, insecure)? {
                assembly.parts.retain(|part| part.descriptor.digest != image.descriptor.digest);
                let named = member.clone();
                assembly.parts.push(Part { named, address: image.address, descriptor: image.descriptor });
            }
        }
        self.keep_assembly(&assembly)
    }

    /// Says for which platform an image of an index in the making is.
    ///
    /// # Errors
    /// When there is no such index or no such image in it, or nothing runs on that platform.
    pub fn annotate_assembly(
        &self,
        name: &Reference,
        member: &Reference,
        note: &PlatformNote,
    ) -> Result<(), ImageError> {
        let mut assembly = self.assembly(name)?.ok_or_else(|| AssemblyError::Unknown(name.to_string()))?;
        let part = assembly.part(member)?;
        let mut platform = part.descriptor.platform.clone().unwrap_or_default();
        note.apply(&mut platform)?;
        part.descriptor.platform = Some(platform);
        self.keep_assembly(&assembly)
    }

    /// The bytes that an index in the making has now; `None` when there is none of this name.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn assembled(&self, name: &Reference) -> Result<Option<Vec<u8>>, ImageError> {
        let Some(assembly) = self.assembly(name)? else { return Ok(None) };
        assembly.index().map(Some)
    }

    /// Sends an index in the making to its registry, with images that are in other repositories or at other registries.
    /// `tell` hears of each image that is there.
    ///
    /// # Errors
    /// When there is no such index, or a registry does not give or take what is in it.
    pub fn push_assembly(
        &self,
        name: &Reference,
        insecure: &[String],
        tell: &mut dyn FnMut(&Reference),
    ) -> Result<Digest, ImageError> {
        let assembly = self.assembly(name)?.ok_or_else(|| AssemblyError::Unknown(name.to_string()))?;
        let index = assembly.index()?;
        self.send_parts(
            &assembly.parts,
            (assembly.media_type(), &index),
            std::slice::from_ref(name),
            insecure,
            tell,
        )?;
        Ok(Digest::of(&index))
    }

    /// An index of the images that these names mean at their registries, without keeping anything of it here. A name alone
    /// that means an index is that index, byte by byte, unless something is to be noted on it.
    ///
    /// # Errors
    /// When an image is not at its registry.
    pub fn compose(
        &self,
        members: &[Reference],
        annotations: BTreeMap<String, String>,
    ) -> Result<Composed, ImageError> {
        let mut parts: Vec<Part> = Vec::new();
        for member in members {
            for image in self.remote_images(member, &[])? {
                parts.retain(|part| part.descriptor.digest != image.descriptor.digest);
                let named = member.clone();
                parts.push(Part { named, address: image.address, descriptor: image.descriptor });
            }
        }
        if let ([alone], true) = (members, annotations.is_empty()) {
            let there = self.remote_manifest(alone, &[])?;
            if let Document::Index(_) = Document::parse(&there.bytes, Some(&there.media_type))? {
                return Ok(Composed { parts, media_type: there.media_type, bytes: there.bytes });
            }
        }
        let media_type = media_type_of(&parts).to_owned();
        let mut index = Index::oci(parts.iter().map(|part| part.descriptor.clone()).collect());
        index.media_type.clone_from(&media_type);
        index.annotations = Some(annotations).filter(|annotations| !annotations.is_empty());
        let bytes = serde_json::to_vec(&index).map_err(ManifestError::Json)?;
        Ok(Composed { parts, media_type, bytes })
    }

    /// Sends a composed index to registries under these names, with the images that are not there yet.
    ///
    /// # Errors
    /// When a registry does not give or take what is in it.
    pub fn push_composed(&self, composed: &Composed, names: &[Reference]) -> Result<(), ImageError> {
        let index = (composed.media_type.as_str(), composed.bytes.as_slice());
        let mut by_repository: BTreeMap<(&str, &str), Vec<Reference>> = BTreeMap::new();
        for name in names {
            by_repository.entry((name.registry(), name.repository())).or_default().push(name.clone());
        }
        by_repository
            .values()
            .try_for_each(|names| self.send_parts(&composed.parts, index, names, &[], &mut |_| ()))
    }

    /// Has an index and what it lists in one repository, under each of these names.
    fn send_parts(
        &self,
        parts: &[Part],
        (media_type, index): (&str, &[u8]),
        names: &[Reference],
        insecure: &[String],
        tell: &mut dyn FnMut(&Reference),
    ) -> Result<(), ImageError> {
        let Some(name) = names.first() else { return Ok(()) };
        // What is fetched on the way is nobody's.
        let _hold = self.layers().hold()?;
        runtime(name.registry())?.block_on(async {
            let known = credentials::find(name.registry(), name.repository())?;
            let target = Repository::open(name, "pull,push", known, insecure).await?;
            for part in parts {
                let place = (part.address.registry(), part.address.repository());
                if place != (name.registry(), name.repository()) {
                    let known = credentials::find(place.0, place.1)?;
                    let source = Repository::open(&part.address, "pull", known, insecure).await?;
                    self.bring(&source, part, &target, place.0 == name.registry()).await?;
                }
                tell(&name.with_digest(&part.descriptor.digest));
            }
            for name in names {
                target.put_manifest(name.wanted(), media_type, index).await?;
            }
            Ok(())
        })
    }

    /// Forgets an index in the making.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn forget_assembly(&self, name: &Reference) -> Result<(), ImageError> {
        self.assembly(name)?.ok_or_else(|| AssemblyError::Unknown(name.to_string()))?;
        Ok(remove_file(&self.assembly_path(name)).map_err(failure("forget", name))?)
    }

    fn assembly(&self, name: &Reference) -> Result<Option<Assembly>, ImageError> {
        Ok(read_json(&self.assembly_path(name)).map_err(failure("read", name))?)
    }

    fn keep_assembly(&self, assembly: &Assembly) -> Result<(), ImageError> {
        let failed = failure("keep", &assembly.name);
        private_directory(&self.assemblies()).map_err(&failed)?;
        Ok(write_json(&self.assembly_path(&assembly.name), assembly, Durability::Sync).map_err(failed)?)
    }

    fn assembly_path(&self, name: &Reference) -> PathBuf {
        self.assemblies().join(Digest::of(name.canonical().as_bytes()).hex())
    }

    fn assemblies(&self) -> PathBuf {
        self.root.images().join("assemblies")
    }

    /// Has an image in another repository. Where both are at one registry, that may take blobs from its own.
    async fn bring(
        &self,
        source: &Repository,
        part: &Part,
        target: &Repository,
        is_same_registry: bool,
    ) -> Result<(), ImageError> {
        let fetched = source.manifest(part.descriptor.digest.as_str()).await?;
        for blob in manifest::parts(&fetched.bytes)?.iter().filter(|blob| blob.urls.is_empty()) {
            if target.has_blob(&blob.digest).await?
                || (is_same_registry && target.mount(&blob.digest, &source.name).await?)
            {
                continue;
            }
            self.carry(source, blob, target).await?;
        }
        Ok(target
            .put_manifest(part.descriptor.digest.as_str(), &part.descriptor.media_type, &fetched.bytes)
            .await?)
    }

    /// Fetches a blob and sends it: the registry does not take it from its own repositories.
    async fn carry(
        &self,
        source: &Repository,
        blob: &Descriptor,
        target: &Repository,
    ) -> Result<(), ImageError> {
        let mut ingest = self.content().ingest()?;
        let (sender, mut reader) = arrivals();
        let keep = tokio::task::spawn_blocking(move || io::copy(&mut reader, &mut ingest).map(|_| ingest));
        let fetched = fetch_blob(source, blob, sender, &|_| ()).await;
        let kept = keep.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        if let Err(Some(error)) = fetched {
            return Err(error.into());
        }
        let ingest = kept.map_err(super::failure("fetch a blob of", blob.digest.as_str()))?;
        ingest.commit(Some(&blob.digest), Some(blob.size))?;
        let path = self.content().path(&blob.digest);
        let sent = Blob { digest: &blob.digest, size: blob.size, bytes: Bytes::In(&path) };
        Ok(target.upload(&sent, None, |_| ()).await?)
    }
}

// === impl Assembly ===

impl Assembly {
    /// The one image of this name, or of this digest.
    fn part(&mut self, member: &Reference) -> Result<&mut Part, AssemblyError> {
        let (index, named) = (self.name.to_string(), member.to_string());
        let mut found = self.parts.iter_mut().filter(|part| part.named == *member || part.address == *member);
        match (found.next(), found.next()) {
            (Some(part), None) => Ok(part),
            (Some(_), Some(_)) => Err(AssemblyError::Several { member: named, index }),
            (None, _) => Err(AssemblyError::NotIn { member: named, index }),
        }
    }

    fn media_type(&self) -> &'static str {
        media_type_of(&self.parts)
    }

    fn index(&self) -> Result<Vec<u8>, ImageError> {
        let mut index = Index::oci(self.parts.iter().map(|part| part.descriptor.clone()).collect());
        index.media_type = self.media_type().to_owned();
        Ok(serde_json::to_vec(&index).map_err(|error| failure("write", &self.name)(error.into()))?)
    }
}

// === impl PlatformNote ===

impl PlatformNote {
    fn apply(&self, platform: &mut DescriptorPlatform) -> Result<(), AssemblyError> {
        let DescriptorPlatform { os, architecture, variant, os_version, os_features } = platform;
        for (note, field) in [(&self.os, os), (&self.architecture, architecture)] {
            if let Some(note) = note {
                field.clone_from(note);
            }
        }
        for (note, field) in [(&self.variant, variant), (&self.os_version, os_version)] {
            if note.is_some() {
                field.clone_from(note);
            }
        }
        if !self.os_features.is_empty() {
            os_features.clone_from(&self.os_features);
        }
        let meant = platform.to_platform();
        if meant.is_known() { Ok(()) } else { Err(AssemblyError::Platform(meant)) }
    }
}

impl From<AssemblyError> for crate::Error {
    fn from(error: AssemblyError) -> Self {
        let message = error.to_string();
        match error {
            AssemblyError::Unknown(name) => crate::Error::not_found(message)
                .with_hint(format!("`rengine manifest create {name} IMAGE…` begins one")),
            AssemblyError::Exists(_) => crate::Error::conflict(message)
                .with_hint("--amend adds to it, `rengine manifest rm` forgets it"),
            AssemblyError::Several { .. } => {
                crate::Error::invalid(message).with_hint("name it by digest, NAME@sha256:…")
            }
            AssemblyError::NotIn { .. } => crate::Error::not_found(message),
            AssemblyError::Platform(_) => crate::Error::invalid(message),
            AssemblyError::Io { .. } => crate::Error::failed(message, error),
        }
    }
}

/// Docker's kind where all images are docker's: what knows no other may be among its readers.
fn media_type_of(parts: &[Part]) -> &'static str {
    let is_docker = |part: &Part| part.descriptor.media_type == DOCKER_MANIFEST;
    if parts.iter().all(is_docker) { DOCKER_LIST } else { OCI_INDEX }
}

/// What an index lists of a manifest: the platform is the configuration's.
pub(super) async fn described(
    repository: &Repository,
    manifest: &Manifest,
    digest: &Digest,
    size: u64,
) -> Result<Descriptor, RegistryError> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        os: String,
        #[serde(default)]
        architecture: String,
        variant: Option<String>,
        #[serde(rename = "os.version")]
        os_version: Option<String>,
        #[serde(default, rename = "os.features")]
        os_features: Vec<String>,
    }
    let mut descriptor = Descriptor::new(&manifest.media_type, digest.clone(), size);
    let config = repository.small_blob(&manifest.config.digest).await?;
    // What makes no image has no platform either.
    if let Ok(Config { os, architecture, variant, os_version, os_features }) = serde_json::from_slice(&config)
        && !os.is_empty()
    {
        descriptor.platform =
            Some(Box::new(DescriptorPlatform { os, architecture, variant, os_version, os_features }));
    }
    Ok(descriptor)
}

fn failure(step: &'static str, name: &Reference) -> impl Fn(io::Error) -> AssemblyError + use<> {
    let name = name.to_string();
    move |source| AssemblyError::Io { step, name: name.clone(), source }
}
