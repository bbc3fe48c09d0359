//! Images as one file: `save` writes an OCI layout that docker reads too, `load` reads both worlds' archives.
//!
//! Nothing of an archive is believed: blobs are verified against the digests they go by, layers against the
//! configuration, and paths are only keys of a table, never opened.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde::{Deserialize, Serialize};
use tar::{EntryType, Header};

use crate::id::{DiffId, Digest};
use crate::image::manifest::{
    Descriptor, Document, Index, MOST_JSON, Manifest, ManifestError, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST,
};
use crate::image::{Image, ImageConfig, ImageError, Images, Loaded, Platform, Reference};
use crate::layer::members::Members;
use crate::layer::{Announced, LayerError, stream};
use crate::store::content::Content;

/// Why an archive was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The tar itself.
    #[error("read the archive")]
    Tar(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It is something else.
    #[error("the archive is neither docker's nor an OCI layout: it has no manifest.json and no index.json")]
    NoImages,
    /// Something it refers to is not in it.
    #[error("the archive has no {0:?}")]
    Missing(String),
    /// Something in it is not what it says.
    #[error("{path:?} in the archive {reason}")]
    Damaged {
        /// What.
        path: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A JSON file in it.
    #[error("read {path:?} in the archive")]
    Json {
        /// Which.
        path: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A manifest in it.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Writing it.
    #[error("write the archive")]
    Write(#[source] io::Error),
}

/// One image of docker's `manifest.json` (moby image/tarexport).
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default, deserialize_with = "crate::image::config::null_is_default")]
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// The files of an archive, by their paths.
struct Files {
    content: Content,
    by_path: BTreeMap<String, Piece>,
    /// Bytes kept in memory so far.
    held: u64,
}

enum Piece {
    /// A small file outside `blobs`.
    Held(Vec<u8>),
    /// Anything else is in the content store.
    Blob(Digest, u64),
    /// Another name for another file.
    Link(String),
}

/// An image found in an archive: its configuration, its layers' blobs, and how it is called.
struct Found {
    config: Vec<u8>,
    layers: Vec<(Digest, u64)>,
    manifest: Option<Vec<u8>>,
    references: Vec<Reference>,
}

const BLOBS: &str = "blobs/sha256/";

/// What the small files of an archive may have together: far more than any, far less than memory.
const MOST_HELD: u64 = 64 << 20;

/// Links followed to one file; docker writes one.
const MOST_LINKS: usize = 8;

/// containerd's annotation with an image's whole name.
const NAME_ANNOTATION: &str = "io.containerd.image.name";

/// OCI's annotation with an image's tag, or whatever its writer takes for one.
const TAG_ANNOTATION: &str = "org.opencontainers.image.ref.name";

// === impl Images ===

impl Images {
    /// Reads an archive of docker or an OCI layout, plain or compressed with gzip or zstd.
    pub fn load(&self, reader: &mut (dyn Read + Send)) -> Result<Vec<Loaded>, ImageError> {
        let _hold = self.layers().hold()?;
        let mut files = Files::new(self.content());
        let buffered = BufReader::with_capacity(1 << 18, reader);
        let (_, tar) = stream::decompress(buffered).map_err(unreadable)?;
        files.read_tar(BufReader::with_capacity(1 << 18, tar))?;
        let loaded = self.load_files(&files)?;
        for Loaded { image, reference } in &loaded {
            self.announce(
                "load",
                &image.id,
                &reference.as_ref().map(ToString::to_string).unwrap_or_default(),
            );
        }
        Ok(loaded)
    }

    /// Reads an OCI layout, or an unpacked archive of docker, from a directory.
    pub fn load_directory(&self, directory: &Path) -> Result<Vec<Loaded>, ImageError> {
        let _hold = self.layers().hold()?;
        let mut files = Files::new(self.content());
        files.read_directory(directory, "")?;
        self.load_files(&files)
    }

    /// Writes images as one tar: an OCI layout that also has docker's `manifest.json` and `repositories`.
    ///
    /// A name without a tag stands for all tags of its repository, an id for the image without any.
    pub fn save(&self, names: &[String], writer: &mut dyn Write) -> Result<(), ImageError> {
        let _hold = self.layers().hold()?;
        let mut chosen: BTreeMap<Digest, (Image, BTreeSet<Reference>)> = BTreeMap::new();
        for name in names {
            for (image, tags) in self.chosen(name)? {
                chosen.entry(image.id.clone()).or_insert_with(|| (image, BTreeSet::new())).1.extend(tags);
            }
        }
        self.write_archive(&chosen, writer)
    }

    /// Writes one image as `save` does, under names that it need not have here.
    pub fn save_as(
        &self,
        image: &Image,
        tags: &[Reference],
        writer: &mut dyn Write,
    ) -> Result<(), ImageError> {
        let _hold = self.layers().hold()?;
        let tags = tags.iter().map(Reference::local).collect();
        self.write_archive(&BTreeMap::from([(image.id.clone(), (image.clone(), tags))]), writer)
    }

    fn write_archive(
        &self,
        chosen: &BTreeMap<Digest, (Image, BTreeSet<Reference>)>,
        writer: &mut dyn Write,
    ) -> Result<(), ImageError> {
        let mut archive = Archive { writer, written: BTreeSet::new() };
        archive.directory("blobs/")?;
        archive.directory(BLOBS)?;
        let mut index = Vec::new();
        let mut docker = Vec::new();
        let mut repositories: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        for (image, tags) in chosen.values() {
            let (manifest, raw) = self.portable_manifest(image)?;
            self.write_blobs(&mut archive, image, &manifest, &raw)?;
            let descriptor = Descriptor::new(OCI_MANIFEST, Digest::of(&raw), raw.len() as u64);
            index.extend(index_entries(&descriptor, tags));
            let path = |descriptor: &Descriptor| format!("{BLOBS}{}", descriptor.digest.hex());
            docker.push(DockerEntry {
                config: path(&manifest.config),
                repo_tags: tags.iter().map(ToString::to_string).collect(),
                layers: manifest.layers.iter().map(path).collect(),
            });
            let top = image.config.rootfs.diff_ids.last().map_or_else(|| image.id.hex(), |diff| diff.hex());
            for tag in tags {
                let tags = repositories.entry(tag.familiar_name()).or_default();
                tags.insert(tag.tag().unwrap_or_default().to_owned(), top.to_owned());
            }
        }
        let index = Index { schema_version: 2, media_type: OCI_INDEX.to_owned(), manifests: index };
        archive.json("index.json", &index)?;
        archive.json("manifest.json", &docker)?;
        archive.json("repositories", &repositories)?;
        archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        archive.end()
    }

    /// The images a name given to `save` stands for, with the tags they are saved under.
    fn chosen(&self, name: &str) -> Result<Vec<(Image, Vec<Reference>)>, ImageError> {
        let image = self.find(name)?;
        let Ok(reference) = name.parse::<Reference>() else {
            return Ok(vec![(self.get(name)?, Vec::new())]);
        };
        let has_tag =
            reference.digest().is_some() || name.rsplit('/').next().is_some_and(|last| last.contains(':'));
        if !has_tag {
            let repository = reference.familiar_name();
            let mut tagged = Vec::new();
            for image in self.list()? {
                let mut tags = image.references.clone();
                tags.retain(|tag| tag.familiar_name() == repository);
                if !tags.is_empty() {
                    tagged.push((image, tags));
                }
            }
            if !tagged.is_empty() {
                return Ok(tagged);
            }
        }
        let image = image.ok_or_else(|| ImageError::NotFound(name.to_owned()))?;
        let mut tags = image.references.clone();
        tags.retain(|tag| *tag == reference.local());
        Ok(vec![(image, tags)])
    }

    /// An OCI manifest of the image over blobs that are here: the one it came with where possible, so that its
    /// digest stays. Layers that were never compressed go as plain tars.
    pub(crate) fn portable_manifest(&self, image: &Image) -> Result<(Manifest, Vec<u8>), ImageError> {
        let content = self.content();
        let is_here = |blob: &Descriptor| content.size(&blob.digest) == Some(blob.size);
        if let Some(raw) = self.manifest(&image.id)?
            && let Ok(Document::Manifest(manifest)) = Document::parse(&raw, None)
            && manifest.media_type == OCI_MANIFEST
            && manifest.layers.iter().all(is_here)
        {
            return Ok((manifest, raw));
        }
        let layers = self.layers();
        let mut descriptors = Vec::new();
        for diff in &image.config.rootfs.diff_ids {
            let record = layers.record(diff)?;
            let blob = record.blob.filter(|blob| blob.compression.is_portable());
            let kept = blob.map(|blob| Descriptor::layer(blob.compression, blob.digest, blob.size));
            let plain = || Descriptor::layer(crate::layer::Compression::None, diff.clone(), record.tar_size);
            descriptors.push(kept.filter(is_here).unwrap_or_else(plain));
        }
        let size = content.size(&image.id).unwrap_or(0);
        let manifest = Manifest::oci(Descriptor::new(OCI_CONFIG, image.id.clone(), size), descriptors);
        let raw = serde_json::to_vec(&manifest).map_err(|error| ArchiveError::Write(error.into()))?;
        Ok((manifest, raw))
    }

    fn write_blobs(
        &self,
        archive: &mut Archive<'_>,
        image: &Image,
        manifest: &Manifest,
        raw: &[u8],
    ) -> Result<(), ImageError> {
        let content = self.content();
        let layers = self.layers();
        for (layer, diff) in manifest.layers.iter().zip(&image.config.rootfs.diff_ids) {
            let path = format!("{BLOBS}{}", layer.digest.hex());
            archive.stream(&path, layer.size, |writer| match content.open(&layer.digest) {
                Ok(mut blob) => io::copy(&mut blob, writer).map(drop).map_err(write_error),
                Err(_) => Ok(layers.pack(diff, writer)?),
            })?;
        }
        let config = self.raw_config(&image.id)?;
        archive.file(&format!("{BLOBS}{}", image.id.hex()), &config)?;
        archive.file(&format!("{BLOBS}{}", Digest::of(raw).hex()), raw)
    }

    fn load_files(&self, files: &Files) -> Result<Vec<Loaded>, ImageError> {
        let mut loaded = Vec::new();
        for found in files.images()? {
            self.take_layers(&found)?;
            let image = self.install(&found.config, found.manifest.as_deref(), &found.references)?;
            if found.references.is_empty() {
                loaded.push(Loaded { image, reference: None });
                continue;
            }
            loaded.extend(
                found
                    .references
                    .into_iter()
                    .map(|reference| Loaded { image: image.clone(), reference: Some(reference) }),
            );
        }
        Ok(loaded)
    }

    /// Unpacks the layers that are not here yet, several at once.
    fn take_layers(&self, found: &Found) -> Result<(), ImageError> {
        let id = Digest::of(&found.config);
        let config: ImageConfig = serde_json::from_slice(&found.config)
            .map_err(|source| ImageError::Config { id: id.clone(), source })?;
        if config.rootfs.diff_ids.len() != found.layers.len() {
            let path = format!("the configuration {id}");
            return Err(
                ArchiveError::Damaged { path, reason: "names more or fewer layers than there are" }.into()
            );
        }
        let jobs: Vec<_> = config.rootfs.diff_ids.iter().zip(&found.layers).collect();
        let next = AtomicUsize::new(0);
        let failure = Mutex::new(None);
        let workers = thread::available_parallelism().map_or(1, usize::from).min(jobs.len());
        thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while let Some((diff, blob)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(error) = self.take_layer(diff, blob) {
                            next.store(jobs.len(), Ordering::Relaxed);
                            failure
                                .lock()
                                .unwrap_or_else(std::sync::PoisonError::into_inner)
                                .get_or_insert(error);
                        }
                    }
                });
            }
        });
        match failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    fn take_layer(&self, diff: &DiffId, blob: &(Digest, u64)) -> Result<(), LayerError> {
        let layers = self.layers();
        if layers.record(diff).is_ok_and(|record| record.blob.is_some()) {
            return Ok(());
        }
        let announced = Announced { blob: Some(blob.clone()), diff: Some(diff.clone()), is_kept: true };
        let file = self.content().open(&blob.0)?;
        layers.receive(file, &announced).map(drop)
    }
}

// === impl Files ===

impl Files {
    fn new(content: Content) -> Self {
        Self { content, by_path: BTreeMap::new(), held: 0 }
    }

    fn read_tar(&mut self, tar: impl io::BufRead) -> Result<(), ImageError> {
        let mut members = Members::new(tar);
        while let Some(member) = members.next().map_err(unreadable)? {
            let path = plain_path(&String::from_utf8_lossy(&member.path))?;
            let link = String::from_utf8_lossy(&member.link).into_owned();
            match member.kind {
                EntryType::Regular | EntryType::Continuous => {
                    let piece = self.take(&path, member.size, &mut MemberReader(&mut members))?;
                    self.by_path.insert(path, piece);
                }
                // Relative to the link's own directory.
                EntryType::Symlink => {
                    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
                    let target = resolve(parent, &link)?;
                    self.by_path.insert(path, Piece::Link(target));
                }
                EntryType::Link => {
                    self.by_path.insert(path, Piece::Link(plain_path(&link)?));
                }
                _ => {}
            }
        }
        members.drain().map_err(unreadable)
    }

    fn read_directory(&mut self, directory: &Path, prefix: &str) -> Result<(), ImageError> {
        let fail = |error: io::Error| ArchiveError::Tar(format!("{}: {error}", directory.display()).into());
        for entry in fs::read_dir(directory).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{prefix}{name}");
            let kind = entry.file_type().map_err(fail)?;
            if kind.is_dir() {
                self.read_directory(&entry.path(), &format!("{path}/"))?;
            } else if kind.is_file() {
                let mut file = File::open(entry.path()).map_err(fail)?;
                let size = file.metadata().map_err(fail)?.len();
                let piece = self.take(&path, size, &mut file)?;
                self.by_path.insert(path, piece);
            }
        }
        Ok(())
    }

    fn take(&mut self, path: &str, size: u64, reader: &mut dyn Read) -> Result<Piece, ImageError> {
        let is_small = size <= MOST_JSON && self.held + size <= MOST_HELD;
        if is_small && !path.starts_with("blobs/") && !path.ends_with("layer.tar") {
            let mut bytes = Vec::new();
            reader.take(size).read_to_end(&mut bytes).map_err(unreadable)?;
            self.held += size;
            return Ok(Piece::Held(bytes));
        }
        let mut ingest = self.content.ingest()?;
        io::copy(reader, &mut ingest).map_err(unreadable)?;
        // What is called by its digest must have it.
        let claimed = path.strip_prefix(BLOBS).map(|hex| format!("sha256:{hex}").parse::<Digest>());
        let claimed = claimed.and_then(Result::ok);
        let (digest, size) = ingest.commit(claimed.as_ref(), None)?;
        Ok(Piece::Blob(digest, size))
    }

    fn find(&self, path: &str) -> Result<&Piece, ArchiveError> {
        let mut here = plain_path(path)?;
        for _ in 0..MOST_LINKS {
            match self.by_path.get(&here) {
                Some(Piece::Link(target)) => here.clone_from(target),
                Some(piece) => return Ok(piece),
                None => break,
            }
        }
        Err(ArchiveError::Missing(path.to_owned()))
    }

    fn small(&self, path: &str) -> Result<Vec<u8>, ImageError> {
        match self.find(path)? {
            Piece::Held(bytes) => Ok(bytes.clone()),
            Piece::Blob(digest, _) => Ok(self.content.read(digest, MOST_JSON)?),
            Piece::Link(_) => Err(ArchiveError::Missing(path.to_owned()).into()),
        }
    }

    fn blob(&self, path: &str) -> Result<(Digest, u64), ImageError> {
        match self.find(path)? {
            Piece::Blob(digest, size) => Ok((digest.clone(), *size)),
            // A layer with little in it, in an archive that does not call it one.
            Piece::Held(bytes) => Ok((self.content.put(bytes)?, bytes.len() as u64)),
            Piece::Link(_) => Err(ArchiveError::Missing(path.to_owned()).into()),
        }
    }

    /// A blob by its descriptor, verified against it.
    fn described(&self, descriptor: &Descriptor) -> Result<(Digest, u64), ImageError> {
        let path = format!("{BLOBS}{}", descriptor.digest.hex());
        let (digest, size) = self.blob(&path)?;
        if digest != descriptor.digest || size != descriptor.size {
            return Err(ArchiveError::Damaged { path, reason: "is not what its descriptor says" }.into());
        }
        Ok((digest, size))
    }

    /// All images. Docker's list decides on names and order; the layout adds the manifests they came with.
    fn images(&self) -> Result<Vec<Found>, ImageError> {
        let layout = if self.by_path.contains_key("index.json") { self.layout_images()? } else { Vec::new() };
        if !self.by_path.contains_key("manifest.json") {
            return if self.by_path.contains_key("index.json") {
                Ok(layout)
            } else {
                Err(ArchiveError::NoImages.into())
            };
        }
        let entries: Vec<DockerEntry> = json("manifest.json", &self.small("manifest.json")?)?;
        let mut images = Vec::new();
        for entry in entries {
            let config = self.small(&entry.config)?;
            let layers = entry.layers.iter().map(|path| self.blob(path)).collect::<Result<Vec<_>, _>>()?;
            let references = entry.repo_tags.iter().map(|tag| tag.parse()).collect::<Result<Vec<_>, _>>()?;
            let twin = layout.iter().find(|found| found.config == config && found.layers == layers);
            let manifest = twin.and_then(|found| found.manifest.clone());
            images.push(Found { config, layers, manifest, references });
        }
        Ok(images)
    }

    fn layout_images(&self) -> Result<Vec<Found>, ImageError> {
        let raw = self.small("index.json")?;
        let Document::Index(index) = Document::parse(&raw, None).map_err(ArchiveError::from)? else {
            let path = "index.json".to_owned();
            return Err(ArchiveError::Damaged { path, reason: "is not an index" }.into());
        };
        let mut images: Vec<Found> = Vec::new();
        for entry in &index.manifests {
            let found = self.layout_image(entry, 0)?;
            // One image under several names has as many entries.
            match images.iter_mut().find(|known| known.manifest == found.manifest) {
                Some(known) => known.references.extend(found.references),
                None => images.push(found),
            }
        }
        Ok(images)
    }

    fn layout_image(&self, entry: &Descriptor, depth: usize) -> Result<Found, ImageError> {
        let (digest, _) = self.described(entry)?;
        let raw = self.content.read(&digest, MOST_JSON)?;
        let sent_type = (!entry.media_type.is_empty()).then_some(entry.media_type.as_str());
        match Document::parse(&raw, sent_type).map_err(ArchiveError::from)? {
            Document::Index(index) if depth < 2 => {
                let chosen = index.choose(&Platform::host()).map_err(ArchiveError::from)?;
                let mut found = self.layout_image(chosen, depth + 1)?;
                found.references = name_of(entry).into_iter().collect();
                Ok(found)
            }
            Document::Index(_) => {
                let path = format!("{BLOBS}{}", digest.hex());
                Err(ArchiveError::Damaged { path, reason: "is an index of an index of an index" }.into())
            }
            Document::Manifest(manifest) => {
                manifest.refuse_foreign_layers().map_err(ArchiveError::from)?;
                let (config, _) = self.described(&manifest.config)?;
                Ok(Found {
                    config: self.content.read(&config, MOST_JSON)?,
                    layers: manifest
                        .layers
                        .iter()
                        .map(|layer| self.described(layer))
                        .collect::<Result<_, _>>()?,
                    manifest: Some(raw),
                    references: name_of(entry).into_iter().collect(),
                })
            }
        }
    }
}

/// The name an entry of a layout gives its image. A bare word is a tag of nothing and names nothing.
fn name_of(entry: &Descriptor) -> Option<Reference> {
    let annotations = entry.annotations.as_ref()?;
    let name = annotations
        .get(NAME_ANNOTATION)
        .or_else(|| annotations.get(TAG_ANNOTATION).filter(|name| name.contains([':', '/'])))?;
    name.parse().ok()
}

fn index_entries(descriptor: &Descriptor, tags: &BTreeSet<Reference>) -> Vec<Descriptor> {
    if tags.is_empty() {
        return vec![descriptor.clone()];
    }
    let entry = |tag: &Reference| {
        let mut entry = descriptor.clone();
        entry.annotations = Some(BTreeMap::from([
            (NAME_ANNOTATION.to_owned(), tag.canonical()),
            (TAG_ANNOTATION.to_owned(), tag.tag().unwrap_or_default().to_owned()),
        ]));
        entry
    };
    tags.iter().map(entry).collect()
}

/// A tar being written, every file once.
struct Archive<'a> {
    writer: &'a mut dyn Write,
    written: BTreeSet<String>,
}

// === impl Archive ===

impl Archive<'_> {
    fn directory(&mut self, path: &str) -> Result<(), ImageError> {
        self.header(path, EntryType::Directory, 0o755, 0)
    }

    fn file(&mut self, path: &str, bytes: &[u8]) -> Result<(), ImageError> {
        self.stream(path, bytes.len() as u64, |writer| writer.write_all(bytes).map_err(write_error))
    }

    fn json(&mut self, path: &str, value: &impl Serialize) -> Result<(), ImageError> {
        let bytes = serde_json::to_vec(value).map_err(|error| write_error(error.into()))?;
        self.file(path, &bytes)
    }

    fn stream(
        &mut self,
        path: &str,
        size: u64,
        write: impl FnOnce(&mut dyn Write) -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        if !self.written.insert(path.to_owned()) {
            return Ok(());
        }
        self.header(path, EntryType::Regular, 0o644, size)?;
        let mut counted = Counted { writer: self.writer, left: size };
        write(&mut counted)?;
        if counted.left != 0 {
            return Err(write_error(io::Error::other(format!("{path} is shorter than expected"))));
        }
        let padding = usize::try_from(size.next_multiple_of(512) - size).unwrap_or(0);
        self.writer.write_all(&[0; 512][..padding]).map_err(write_error)
    }

    fn end(self) -> Result<(), ImageError> {
        self.writer.write_all(&[0; 1024]).and_then(|()| self.writer.flush()).map_err(write_error)
    }

    fn header(&mut self, path: &str, kind: EntryType, mode: u32, size: u64) -> Result<(), ImageError> {
        // GNU's form, because a layer may be larger than ustar's eight gigabytes.
        let mut header = Header::new_gnu();
        header.set_path(path).map_err(write_error)?;
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        self.writer.write_all(header.as_bytes()).map_err(write_error)
    }
}

/// Lets exactly as much through as the header said.
struct Counted<'a> {
    writer: &'a mut dyn Write,
    left: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(io::Error::other("a file is longer than expected"));
        }
        let written = self.writer.write(bytes)?;
        self.left -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// The current member's content as a reader.
struct MemberReader<'a, R>(&'a mut Members<R>);

impl<R: io::BufRead> Read for MemberReader<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let here = self.0.content().map_err(io::Error::other)?;
        let length = here.len().min(bytes.len());
        bytes[..length].copy_from_slice(&here[..length]);
        self.0.consume(length);
        Ok(length)
    }
}

/// A path without `.` and empty components. One with `..` is refused: no archive needs it.
fn plain_path(path: &str) -> Result<String, ArchiveError> {
    resolve("", path)
}

/// A path relative to a directory of the archive, staying in it.
fn resolve(directory: &str, path: &str) -> Result<String, ArchiveError> {
    let outside = || ArchiveError::Damaged { path: path.to_owned(), reason: "leads out of the archive" };
    let mut parts: Vec<&str> = directory.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or_else(outside)?;
            }
            _ => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

fn json<T: for<'de> Deserialize<'de>>(path: &str, bytes: &[u8]) -> Result<T, ArchiveError> {
    serde_json::from_slice(bytes).map_err(|source| ArchiveError::Json { path: path.to_owned(), source })
}

fn unreadable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ImageError {
    ArchiveError::Tar(error.into()).into()
}

fn write_error(error: io::Error) -> ImageError {
    ArchiveError::Write(error).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_the_archive() {
        assert_eq!(plain_path("./a//b/./c").unwrap(), "a/b/c");
        assert_eq!(resolve("a/b", "../c/layer.tar").unwrap(), "a/c/layer.tar");
        for path in ["..", "a/../../b", "../../etc/passwd"] {
            assert!(plain_path(path).is_err(), "{path}");
        }
    }
}
