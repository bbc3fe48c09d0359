//! A build cache as an image: layers as blobs, and in the configuration which instruction made each. Registries and
//! layouts keep it like any other image, and of one that is read only the layers that are wanted are fetched.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use futures_util::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use crate::id::{DiffId, Digest};
use crate::image::actions::{ActionsCache, Service, StoredBlob};
use crate::image::manifest;
use crate::image::manifest::{Descriptor, Document, MOST_JSON, Manifest, ManifestError, OCI_MANIFEST};
use crate::image::registry::{Repository, runtime};
use crate::image::transfer::{AT_ONCE, Wanted, choose, fetch_layer};
use crate::image::upload::{Blob, Bytes};
use crate::image::{
    ArchiveError, Form, Image, ImageConfig, ImageError, Images, Reference, credentials, failure,
};
use crate::layer::Announced;

/// What an instruction made: the layer of one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheRecord {
    /// Everything the layer depends on, as the builder digests it.
    pub key: Digest,
    /// The layer.
    pub diff: DiffId,
    /// When it was made, RFC 3339.
    pub created: String,
    /// The instruction, for people.
    pub instruction: String,
}

/// A cache somewhere else: what it knows, and where its layers are.
#[derive(Debug)]
pub(crate) struct RemoteCache {
    records: BTreeMap<Digest, CacheRecord>,
    blobs: BTreeMap<DiffId, Descriptor>,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Directory(PathBuf),
    Registry(Reference),
    Actions(ActionsCache),
}

/// What is at a cache service beside the blobs.
#[derive(Debug, Serialize, Deserialize)]
struct Index {
    records: Vec<CacheRecord>,
    layers: Vec<IndexedLayer>,
}

/// The blob of a layer there.
#[derive(Debug, Serialize, Deserialize)]
struct IndexedLayer {
    diff: DiffId,
    blob: Descriptor,
}

/// How failures to reach GitHub's service name it.
const SERVICE: &str = "the cache service";

/// A layout's directory of blobs.
const BLOBS: &str = "blobs/sha256";

// === impl RemoteCache ===

impl RemoteCache {
    /// What was made under a key.
    pub(crate) fn find(&self, key: &Digest) -> Option<&CacheRecord> {
        self.records.get(key).filter(|record| self.blobs.contains_key(&record.diff))
    }

    fn of(config: &[u8], manifest: &Manifest, place: Place) -> Result<Self, ImageError> {
        let id = Digest::of(config);
        let config: ImageConfig =
            serde_json::from_slice(config).map_err(|source| ImageError::Config { id, source })?;
        let records = config.build_cache.into_iter().map(|record| (record.key.clone(), record)).collect();
        let blobs = config.rootfs.diff_ids.into_iter().zip(manifest.layers.iter().cloned()).collect();
        Ok(Self { records, blobs, place })
    }
}

// === impl Images ===

impl Images {
    /// Reads what the cache at this reference knows: a cache of its own, or an image with one in it.
    pub(crate) fn open_cache(&self, reference: &Reference) -> Result<RemoteCache, ImageError> {
        let (config, manifest) = runtime(reference.registry())?.block_on(async {
            let repository = pull_from(reference).await?;
            let top = repository.manifest(reference.wanted()).await?;
            let (manifest, _) = choose(&repository, top, None).await?;
            Ok::<_, ImageError>((repository.small_blob(&manifest.config.digest).await?, manifest))
        })?;
        RemoteCache::of(&config, &manifest, Place::Registry(reference.clone()))
    }

    /// Reads what the cache in this directory knows.
    pub(crate) fn open_cache_directory(&self, directory: &Path) -> Result<RemoteCache, ImageError> {
        let Document::Index(index) = Document::parse(&read(&directory.join("index.json"))?, None)? else {
            return Err(ManifestError::Contradiction("is not a layout's index").into());
        };
        let blob = |digest: &Digest| -> Result<Vec<u8>, ImageError> {
            let bytes = read(&directory.join(digest.in_layout()))?;
            if digest.is_of(&bytes) {
                Ok(bytes)
            } else {
                Err(ManifestError::Contradiction("is another than its digest").into())
            }
        };
        let entry = index.manifests.first().ok_or(ManifestError::Contradiction("is not in the layout"))?;
        let Document::Manifest(manifest) = Document::parse(&blob(&entry.digest)?, None)? else {
            return Err(ManifestError::Contradiction("is not a cache's").into());
        };
        let config = blob(&manifest.config.digest)?;
        RemoteCache::of(&config, &manifest, Place::Directory(directory.to_owned()))
    }

    /// Reads what the cache at GitHub's service knows; nothing when nobody has written it yet.
    pub(crate) fn open_cache_service(&self, cache: &ActionsCache) -> Result<RemoteCache, ImageError> {
        if let Some(variable) = cache.lacks() {
            return Err(ImageError::NoService(variable));
        }
        let service = Service::open(cache)?;
        let (mut records, mut blobs) = (BTreeMap::new(), BTreeMap::new());
        for index in runtime(SERVICE)?.block_on(service.indexes())? {
            let index: Index = serde_json::from_slice(&index).map_err(ManifestError::Json)?;
            for record in index.records {
                records.entry(record.key.clone()).or_insert(record);
            }
            blobs.extend(index.layers.into_iter().map(|layer| (layer.diff, layer.blob)));
        }
        Ok(RemoteCache { records, blobs, place: Place::Actions(cache.clone()) })
    }

    /// Fetches one layer of a cache, verified.
    pub(crate) fn fetch_cached(&self, cache: &RemoteCache, diff: &DiffId) -> Result<(), ImageError> {
        let layers = self.layers();
        let Some(blob) = cache.blobs.get(diff).filter(|_| !layers.contains(diff)) else { return Ok(()) };
        match &cache.place {
            Place::Directory(directory) => {
                let path = directory.join(blob.digest.in_layout());
                let file = File::open(&path)
                    .map_err(failure("read a cached layer of", &path.display().to_string()))?;
                let announced = Announced {
                    blob: Some((blob.digest.clone(), blob.size)),
                    diff: Some(diff.clone()),
                    is_kept: false,
                };
                layers.receive(file, &announced)?;
                Ok(())
            }
            Place::Registry(reference) => runtime(reference.registry())?.block_on(async {
                let repository = pull_from(reference).await?;
                let wanted = Wanted { blob: blob.clone(), diff: diff.clone() };
                fetch_layer(&layers, &repository, wanted, &|_| {}).await
            }),
            Place::Actions(cache) => {
                let service = Service::open(cache)?;
                let wanted = Wanted { blob: blob.clone(), diff: diff.clone() };
                let stored = StoredBlob { service: &service };
                runtime(SERVICE)?.block_on(fetch_layer(&layers, &stored, wanted, &|_| {}))
            }
        }
    }

    /// Sends a cache to a registry.
    pub(crate) fn send_cache(
        &self,
        config: &ImageConfig,
        reference: &Reference,
        form: &Form,
    ) -> Result<(), ImageError> {
        let image = self.cache_image(config, form)?;
        let credentials = credentials::find(reference.registry(), reference.repository())?;
        let sent = runtime(reference.registry())?.block_on(async {
            let repository = Repository::open(reference, "pull,push", credentials, &[]).await?;
            let (manifest, raw) = self.send_image(&repository, &image, reference, &|_| {}).await?;
            repository.put_manifest(reference.wanted(), &manifest.media_type, &raw).await?;
            Ok::<_, ImageError>(())
        });
        self.forget(&image)?;
        sent
    }

    /// Sends a cache to GitHub's service.
    pub(crate) fn keep_cache(
        &self,
        config: &ImageConfig,
        cache: &ActionsCache,
        form: &Form,
    ) -> Result<(), ImageError> {
        if let Some(variable) = cache.lacks() {
            return Err(ImageError::NoService(variable));
        }
        let image = self.cache_image(config, form)?;
        let kept = self.keep_layers(&image, cache);
        self.forget(&image)?;
        kept
    }

    fn keep_layers(&self, image: &Image, cache: &ActionsCache) -> Result<(), ImageError> {
        let (manifest, _) = self.compressed_manifest(image, &|_| {})?;
        let service = Service::open(cache)?;
        let content = self.content();
        let keep = async |blob: &Descriptor| {
            let path = content.path(&blob.digest);
            let held = Blob { digest: &blob.digest, size: blob.size, bytes: Bytes::In(&path) };
            service.keep(&held).await
        };
        let layers = image.config.rootfs.diff_ids.iter().zip(&manifest.layers);
        let layers = layers.map(|(diff, blob)| IndexedLayer { diff: diff.clone(), blob: blob.clone() });
        let index = Index { records: image.config.build_cache.clone(), layers: layers.collect() };
        let bytes = serde_json::to_vec(&index).map_err(ManifestError::Json)?;
        Ok(runtime(SERVICE)?.block_on(async {
            let blobs = futures_util::stream::iter(&manifest.layers);
            blobs.map(keep).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
            // Last: who reads it finds what it names.
            service.write_index(&bytes).await
        })?)
    }

    /// Writes a cache to a directory as an OCI layout. What was in it before and is not of this cache stays until
    /// somebody removes it, as with BuildKit.
    pub(crate) fn write_cache(
        &self,
        config: &ImageConfig,
        directory: &Path,
        form: &Form,
    ) -> Result<(), ImageError> {
        let image = self.cache_image(config, form)?;
        let written = self.write_layout(&image, directory);
        self.forget(&image)?;
        written
    }

    fn write_layout(&self, image: &Image, directory: &Path) -> Result<(), ImageError> {
        let blobs = directory.join(BLOBS);
        let failed = |error: io::Error| ImageError::from(ArchiveError::Write(error));
        fs::create_dir_all(&blobs).map_err(failed)?;
        let (manifest, raw) = self.portable_manifest(image)?;
        for (layer, diff) in manifest.layers.iter().zip(&image.config.rootfs.diff_ids) {
            whole(&directory.join(layer.digest.in_layout()), |file| {
                match self.content().open(&layer.digest) {
                    Ok(mut blob) => io::copy(&mut blob, file).map(drop).map_err(failed),
                    Err(_) => Ok(self.layers().pack(diff, file)?),
                }
            })?;
        }
        let put = |path: PathBuf, bytes: &[u8]| {
            whole(&path, |file| io::Write::write_all(file, bytes).map_err(failed))
        };
        put(blobs.join(image.id.hex()), &self.raw_config(&image.id)?)?;
        let digest = Digest::of(&raw);
        put(blobs.join(digest.hex()), &raw)?;
        put(directory.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let index = manifest::Index::oci(vec![Descriptor::new(OCI_MANIFEST, digest, raw.len() as u64)]);
        let index = serde_json::to_vec(&index).map_err(ManifestError::Json)?;
        // Last, and by its name at once: a reader sees the old cache or the new one.
        replace(&directory.join("index.json"), &index).map_err(failed)
    }

    /// The image that a cache is while it is sent.
    fn cache_image(&self, config: &ImageConfig, form: &Form) -> Result<Image, ImageError> {
        let image = self.commit(config, &[])?;
        self.shape(&image, form, &|_| {})?;
        Ok(image)
    }

    /// Takes away the image that a cache was while it was sent. Its layers stay with whoever has them.
    fn forget(&self, image: &Image) -> Result<(), ImageError> {
        let _lock = self.lock()?;
        if self.names()?.is_nameless(&image.id) { self.delete(&image.id) } else { Ok(()) }
    }
}

async fn pull_from(reference: &Reference) -> Result<Repository, ImageError> {
    let credentials = credentials::find(reference.registry(), reference.repository())?;
    Ok(Repository::open(reference, "pull", credentials, &[]).await?)
}

fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    let shown = path.display().to_string();
    let size = fs::metadata(path).map_err(failure("read the cache", &shown))?.len();
    if size > MOST_JSON {
        return Err(ManifestError::Contradiction("has more than four megabytes").into());
    }
    fs::read(path).map_err(failure("read the cache", &shown))
}

/// Writes a file that is called by what is in it, unless it is there.
fn whole(path: &Path, fill: impl FnOnce(&mut File) -> Result<(), ImageError>) -> Result<(), ImageError> {
    if path.exists() {
        return Ok(());
    }
    let failed = |error: io::Error| ImageError::from(ArchiveError::Write(error));
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(failed)?;
    let mut partial = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    fill(partial.as_file_mut())?;
    partial.persist(path).map(drop).map_err(|error| failed(error.error))
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut partial = tempfile::NamedTempFile::new_in(directory)?;
    io::Write::write_all(&mut partial, bytes)?;
    partial.persist(path).map(drop).map_err(|error| error.error)
}
