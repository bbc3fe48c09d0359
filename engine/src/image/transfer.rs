//! Pull and push: plan the blobs that are missing, move them, record the image.
//!
//! A pulled layer goes from the connection through digest, decompressor and digest into its directory in one pass,
//! several layers at once. A connection that breaks is taken up where it broke.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::sync::mpsc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};

use crate::id::{DiffId, Digest};
use crate::image::credentials::{self, Credentials};
use crate::image::endpoint::{Endpoint, endpoints};
use crate::image::manifest::{Descriptor, Document, Manifest};
use crate::image::registry::{RegistryError, Repository, runtime};
use crate::image::upload::{Blob, Bytes};
use crate::image::{
    Image, ImageConfig, ImageError, Images, ManifestError, Platform, Progress, PullOptions, Pulled,
    PushOptions, Pushed, Reference, Step,
};
use crate::layer::{Announced, LayerError, Layers};

/// Blobs that move at once: enough to fill a line, few enough for a registry's patience.
pub(super) const AT_ONCE: usize = 4;

/// How often a connection may break without a byte having come.
const FRUITLESS: u32 = 5;

/// What is fetched: a layer's blob and the tar in it.
pub(super) struct Wanted {
    pub(super) blob: Descriptor,
    pub(super) diff: DiffId,
}

/// Bytes as the connection gives them.
type Chunk = Vec<u8>;

/// Where blobs come from.
pub(super) trait Source {
    /// Who has them, as failures name it.
    fn host(&self) -> String;

    /// Starts to fetch a blob from an offset on. With the answer comes where it begins, which is the offset or before it.
    async fn part(&self, blob: &Descriptor, offset: u64) -> Result<(reqwest::Response, u64), RegistryError>;
}

/// Takes them to whoever reads them on a thread.
type Sender = tokio::sync::mpsc::Sender<io::Result<Chunk>>;

pub(super) type Tell<'a> = &'a (dyn Fn(Progress) + Sync);

// === impl Images ===

impl Images {
    /// Fetches an image from its registry, layers at once, straight into their directories.
    pub fn pull(
        &self,
        reference: &Reference,
        options: &PullOptions,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Pulled, ImageError> {
        let credentials =
            credentials::find_among(&options.logins, reference.registry(), reference.repository())?;
        let _hold = self.layers().hold()?;
        let pulled =
            runtime(reference.registry())?.block_on(self.fetch(reference, options, credentials, progress))?;
        self.announce("pull", &pulled.image.id, &reference.to_string());
        Ok(pulled)
    }

    /// Sends the image with this name to the name's registry.
    pub fn push(
        &self,
        reference: &Reference,
        options: &PushOptions,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Pushed, ImageError> {
        let mut image = self.get(&reference.canonical())?;
        let members = if let Some(wanted) = &options.platform {
            let found = self.find_for(&reference.canonical(), Some(wanted))?;
            image = found.ok_or_else(|| ImageError::NotFound(format!("{reference} for {wanted}")))?;
            vec![image.clone()]
        } else {
            self.members(reference)?
        };
        let credentials = credentials::find(reference.registry(), reference.repository())?;
        let _hold = self.layers().hold()?;
        let sent = self.send(&members, reference, options, credentials, progress);
        let pushed = runtime(reference.registry())?.block_on(sent)?;
        self.announce("push", &image.id, &reference.to_string());
        Ok(pushed)
    }

    async fn fetch(
        &self,
        reference: &Reference,
        options: &PullOptions,
        credentials: Option<Credentials>,
        progress: Tell<'_>,
    ) -> Result<Pulled, ImageError> {
        let registry = reference.registry();
        let mut endpoints = endpoints(registry).map_err(RegistryError::from)?;
        let resolvers: Vec<Endpoint> = endpoints.iter().filter(|it| it.may.resolve).cloned().collect();
        endpoints.retain(|endpoint| endpoint.may.pull);
        let (own, mirrors) = endpoints
            .split_last()
            .ok_or_else(|| RegistryError::Useless { host: registry.to_owned(), verb: "pulled from" })?;
        for mirror in mirrors {
            let found = self.fetch_at(mirror, &resolvers, reference, options, None, progress).await;
            match found {
                // A mirror that has it not, or is not there, is no reason to do without.
                Err(ImageError::Registry(error)) => {
                    tracing::info!(mirror = mirror.host, %error, "the mirror does not help")
                }
                other => return other,
            }
        }
        self.fetch_at(own, &resolvers, reference, options, credentials, progress).await
    }

    /// Fetches from one of a registry's addresses. `known` are the credentials of the registry itself.
    async fn fetch_at(
        &self,
        endpoint: &Endpoint,
        resolvers: &[Endpoint],
        reference: &Reference,
        options: &PullOptions,
        known: Option<Credentials>,
        progress: Tell<'_>,
    ) -> Result<Pulled, ImageError> {
        let open = async |endpoint: &Endpoint| {
            let credentials = match &known {
                Some(known) if endpoint.host == reference.registry() => Some(known.clone()),
                _ => credentials::find_among(&options.logins, &endpoint.host, reference.repository())?,
            };
            let name = reference.repository();
            Ok::<_, ImageError>(Repository::at(endpoint, name, "pull", credentials, &options.insecure).await?)
        };
        let repository = open(endpoint).await?;
        let mut wanted = reference.wanted().to_owned();
        if let Some(tag) = reference.tag().filter(|_| reference.digest().is_none() && !endpoint.may.resolve) {
            // It is not asked what a tag means, and what it has is fetched by digest.
            let mut digest = None;
            for resolver in resolvers {
                digest = open(resolver).await?.tag(tag).await.unwrap_or(None);
                if digest.is_some() {
                    break;
                }
            }
            let nobody = || RegistryError::not_found(&reference.to_string());
            wanted = digest.ok_or_else(nobody)?.to_string();
        }
        self.fetch_from(&repository, &wanted, reference, options, progress).await
    }

    async fn fetch_from(
        &self,
        repository: &Repository,
        wanted: &str,
        reference: &Reference,
        options: &PullOptions,
        progress: Tell<'_>,
    ) -> Result<Pulled, ImageError> {
        if let Some(pulled) = self.already_here(reference, wanted, options, repository).await? {
            return Ok(pulled);
        }
        let top = repository.manifest(wanted).await?;
        let (digest, document) = (top.digest.clone(), top.bytes.clone());
        let (manifest, raw) = choose(repository, top, options.platform.as_ref()).await?;
        let is_index = document != raw;
        let raw_config = repository.small_blob(&manifest.config.digest).await?;
        let wanted = plan(&raw_config, &manifest, options.platform.as_ref())?;
        if !manifest.config.digest.is_usual() {
            // The image is known by its sha256; the manifest calls it so all the same.
            self.content().put_as(&raw_config, &manifest.config.digest)?;
        }
        let layers = self.layers();
        let fetched = futures_util::stream::iter(wanted)
            .map(|wanted| fetch_layer(&layers, repository, wanted, progress))
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>();
        let subject = Digest::of(&raw);
        let attested = async {
            if is_index { self.fetch_attestations(repository, &document, &subject).await } else { Ok(()) }
        };
        let (fetched, attested) = futures_util::join!(fetched, attested);
        fetched?;
        if let Err(error) = attested {
            // The image is whole without, and what leaves says nothing of them then.
            tracing::info!(%error, image = %reference, "what is attested of it is not here");
        }
        let before = self.find_for(&reference.canonical(), options.platform.as_ref())?.map(|image| image.id);
        let names = [reference.local(), reference.with_digest(&digest)];
        // What is here of the same index for other platforms keeps the name.
        let mut ids: Vec<_> = self.members(&names[1])?.into_iter().map(|image| image.id).collect();
        let image = self.install(&raw_config, Some(&raw), &names)?;
        ids.retain(|id| *id != image.id);
        if !ids.is_empty() {
            ids.push(image.id.clone());
            self.name_several(&names, &ids)?;
        }
        if is_index {
            self.keep_index(&names, &self.content().put(&document)?)?;
        }
        let newer = before.as_ref() != Some(&image.id);
        let warnings = repository.warnings().iter().cloned().collect();
        Ok(Pulled { image, digest, newer, warnings })
    }

    /// The image, when the registry's tag still points to what is here.
    async fn already_here(
        &self,
        reference: &Reference,
        wanted: &str,
        options: &PullOptions,
        repository: &Repository,
    ) -> Result<Option<Pulled>, ImageError> {
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
        let Some(image) = self.find_for(&reference.canonical(), Some(&platform))? else {
            return Ok(None);
        };
        if !image.config.rootfs.diff_ids.iter().all(|diff| self.layers().contains(diff)) {
            return Ok(None);
        }
        let digest = match wanted.parse::<Digest>() {
            Ok(digest) => Some(digest),
            Err(_) => repository.tag(wanted).await?,
        };
        let is_known = |digest: &Digest| {
            let name = reference.with_digest(digest);
            image.digests.contains(&name) || image.part_of.contains(&name)
        };
        let warnings = repository.warnings().iter().cloned().collect();
        Ok(digest.filter(is_known).map(|digest| Pulled { image, digest, newer: false, warnings }))
    }

    /// Sends what an image's manifest names, and returns the manifest, which is to follow.
    pub(super) async fn send_image(
        &self,
        repository: &Repository,
        image: &Image,
        reference: &Reference,
        progress: Tell<'_>,
    ) -> Result<(Manifest, Vec<u8>), ImageError> {
        let (manifest, raw) = self.compressed_manifest(image, progress)?;
        // What the same registry has in another repository, it may take from there.
        let source = (image.digests.iter())
            .find(|known| {
                known.registry() == reference.registry() && known.repository() != reference.repository()
            })
            .map(|known| known.repository().to_owned());
        let (foreign, layers): (Vec<_>, Vec<_>) =
            manifest.layers.iter().partition(|layer| layer.is_foreign());
        for layer in foreign {
            progress(Progress { layer: layer.digest.clone(), step: Step::Foreign });
        }
        let mut seen = BTreeSet::new();
        let blobs = layers.into_iter().chain([&manifest.config]).filter(|blob| seen.insert(&blob.digest));
        futures_util::stream::iter(blobs)
            .map(|blob| self.send_blob(repository, blob, source.as_deref(), progress))
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
        Ok((manifest, raw))
    }

    pub(super) async fn send_blob(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        source: Option<&str>,
        progress: Tell<'_>,
    ) -> Result<(), ImageError> {
        let is_config = blob.media_type.contains("config") || blob.media_type.contains("container.image");
        let tell = |step| {
            if !is_config {
                progress(Progress { layer: blob.digest.clone(), step });
            }
        };
        if repository.has_blob(&blob.digest).await? {
            tell(Step::ExistsThere);
            return Ok(());
        }
        tell(Step::Pushing(0, blob.size));
        // The body is read on this same thread, but must not borrow what its request does.
        let (sent, to_tell) = mpsc::channel();
        let count = move |bytes| {
            // Nobody listens any more once the upload is over.
            let _ = sent.send(bytes);
        };
        let path = self.content().path(&blob.digest);
        let sent = Blob { digest: &blob.digest, size: blob.size, bytes: Bytes::In(&path) };
        let upload = repository.upload(&sent, source, count);
        tokio::pin!(upload);
        let mut tick = tokio::time::interval(REPORT_EVERY);
        loop {
            tokio::select! {
                result = &mut upload => {
                    result?;
                    tell(Step::Pushed);
                    return Ok(());
                }
                _ = tick.tick() => {
                    if let Some(bytes) = to_tell.try_iter().last() {
                        tell(Step::Pushing(bytes, blob.size));
                    }
                }
            }
        }
    }
}

// === impl Repository ===

impl Source for Repository {
    fn host(&self) -> String {
        self.host.clone()
    }

    async fn part(&self, blob: &Descriptor, offset: u64) -> Result<(reqwest::Response, u64), RegistryError> {
        match self.blob(&blob.digest, offset).await {
            Err(RegistryError::NotFound { .. }) if !blob.urls.is_empty() => {
                self.elsewhere(&blob.urls, offset).await
            }
            other => other,
        }
    }
}

/// How often bytes sent are told about.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// The image's manifest and its bytes, through an index and an index of indexes.
pub(super) async fn choose(
    repository: &Repository,
    top: crate::image::registry::Fetched,
    platform: Option<&Platform>,
) -> Result<(Manifest, Vec<u8>), ImageError> {
    let wanted = platform.cloned().unwrap_or_else(Platform::host);
    let mut fetched = top;
    for _ in 0..3 {
        let index = match Document::parse(&fetched.bytes, fetched.media_type.as_deref())? {
            Document::Manifest(manifest) => return Ok((manifest, fetched.bytes)),
            Document::Index(index) => index,
        };
        let entry = index.choose(&wanted)?;
        fetched = repository.manifest(entry.digest.as_str()).await?;
    }
    Err(ManifestError::Contradiction("is an index of an index of an index").into())
}

/// What is to be fetched for an image: every layer once.
fn plan(
    raw_config: &[u8],
    manifest: &Manifest,
    platform: Option<&Platform>,
) -> Result<Vec<Wanted>, ImageError> {
    let id = Digest::of(raw_config);
    let config: ImageConfig =
        serde_json::from_slice(raw_config).map_err(|source| ImageError::Config { id, source })?;
    if config.rootfs.diff_ids.len() != manifest.layers.len() {
        return Err(
            ManifestError::Contradiction("has more or fewer layers than the image's configuration").into()
        );
    }
    check_diffs(&config)?;
    let offered = Platform::new(&config.os, &config.architecture, config.variant.as_deref());
    if let Some(wanted) = platform
        && wanted.rank(&offered).is_none()
    {
        return Err(ManifestError::NoPlatform { wanted: wanted.clone(), offered: offered.to_string() }.into());
    }
    let mut seen = BTreeSet::new();
    Ok((config.rootfs.diff_ids.into_iter().zip(&manifest.layers))
        .filter(|(diff, _)| seen.insert(diff.clone()))
        .map(|(diff, blob)| Wanted { blob: blob.clone(), diff })
        .collect())
}

/// Layers are kept by the sha256 of their tars.
pub(super) fn check_diffs(config: &ImageConfig) -> Result<(), ManifestError> {
    match config.rootfs.diff_ids.iter().find(|diff| !diff.is_usual()) {
        Some(diff) => Err(ManifestError::DiffId(diff.clone())),
        None => Ok(()),
    }
}

pub(super) async fn fetch_layer(
    layers: &Layers,
    source: &impl Source,
    wanted: Wanted,
    progress: Tell<'_>,
) -> Result<(), ImageError> {
    let tell = |step| progress(Progress { layer: wanted.blob.digest.clone(), step });
    if layers.contains(&wanted.diff) {
        tell(Step::Exists);
        return Ok(());
    }
    // Images that are pulled at once share layers; whoever comes second waits and finds it here.
    let _claim = {
        let (layers, diff) = (layers.clone(), wanted.diff.clone());
        on_a_thread(move || layers.claim(&diff)).await?
    };
    if layers.contains(&wanted.diff) {
        tell(Step::Exists);
        return Ok(());
    }
    let (sender, reader) = arrivals();
    let announced = Announced {
        blob: Some((wanted.blob.digest.clone(), wanted.blob.size)),
        diff: Some(wanted.diff.clone()),
        is_kept: false,
    };
    let unpack = {
        let layers = layers.clone();
        tokio::task::spawn_blocking(move || layers.receive(reader, &announced))
    };
    let fetched = fetch_blob(source, &wanted.blob, sender, &tell).await;
    let unpacked = unpack.await.unwrap_or_else(|error| Err(LayerError::Stream(io::Error::other(error))));
    match (fetched, unpacked) {
        (Err(Some(error)), _) => Err(error.into()),
        (_, Err(error)) => Err(error.into()),
        (Err(None) | Ok(()), Ok(_)) => {
            tell(Step::Complete);
            Ok(())
        }
    }
}

/// Fetches a blob into a channel, which is closed at the blob's end. `Err(None)` is a reader that went away: it knows why.
pub(super) async fn fetch_blob(
    source: &impl Source,
    blob: &Descriptor,
    sender: Sender,
    tell: &impl Fn(Step),
) -> Result<(), Option<RegistryError>> {
    let fetched = fetch_parts(source, blob, &sender, tell).await;
    // The reader learns of a failure as one.
    if fetched.is_err() {
        let broken = io::Error::new(io::ErrorKind::ConnectionAborted, "the download broke off");
        let _ = sender.send(Err(broken)).await;
    } else {
        tell(Step::Unpacking);
    }
    fetched
}

/// Fetches a blob, going on where a connection broke.
async fn fetch_parts(
    source: &impl Source,
    blob: &Descriptor,
    sender: &Sender,
    tell: &impl Fn(Step),
) -> Result<(), Option<RegistryError>> {
    let mut done = 0u64;
    let mut fruitless = 0;
    tell(Step::Downloading(0, blob.size));
    loop {
        let before = done;
        match fetch_part(source, blob, &mut done, sender, tell).await {
            Ok(()) => return Ok(()),
            Err(Some(error)) if error.is_passing() => {
                fruitless = if done > before { 0 } else { fruitless + 1 };
                if fruitless >= FRUITLESS {
                    return Err(Some(error));
                }
                tell(Step::Retrying(fruitless + 1));
                tokio::time::sleep(Duration::from_millis(200) * 2u32.pow(fruitless)).await;
            }
            Err(other) => return Err(other),
        }
    }
}

async fn fetch_part(
    source: &impl Source,
    blob: &Descriptor,
    done: &mut u64,
    sender: &Sender,
    tell: &impl Fn(Step),
) -> Result<(), Option<RegistryError>> {
    if *done == blob.size && *done > 0 {
        return Ok(());
    }
    let (mut response, begin) = source.part(blob, *done).await.map_err(Some)?;
    // What has come already is skipped.
    let mut skip = *done - begin;
    loop {
        let chunk =
            response.chunk().await.map_err(|error| Some(RegistryError::broken(&source.host(), error)))?;
        let Some(chunk) = chunk else { break };
        let skipped = skip.min(chunk.len() as u64);
        skip -= skipped;
        let chunk = chunk[usize::try_from(skipped).unwrap_or(chunk.len())..].to_vec();
        *done += chunk.len() as u64;
        if *done > blob.size {
            let reason = "sends more of a layer than it announced";
            return Err(Some(RegistryError::Protocol { host: source.host(), reason }));
        }
        sender.send(Ok(chunk)).await.map_err(|_| None)?;
        tell(Step::Downloading(*done, blob.size));
    }
    if *done < blob.size {
        return Err(Some(RegistryError::CutOff { host: source.host() }));
    }
    Ok(())
}

/// How many chunks, as they come from the connection, may wait for the decompressor.
const CHUNKS_AHEAD: usize = 64;

/// What the connection's task sends, as a reader on another thread.
pub(super) struct Arrivals {
    receiver: tokio::sync::mpsc::Receiver<io::Result<Chunk>>,
    chunk: Chunk,
    at: usize,
}

/// A way from a connection's task to a thread.
pub(super) fn arrivals() -> (Sender, Arrivals) {
    let (sender, receiver) = tokio::sync::mpsc::channel(CHUNKS_AHEAD);
    (sender, Arrivals { receiver, chunk: Chunk::new(), at: 0 })
}

impl Read for Arrivals {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        while self.at == self.chunk.len() {
            match self.receiver.blocking_recv() {
                Some(next) => (self.chunk, self.at) = (next?, 0),
                None => return Ok(0),
            }
        }
        let length = target.len().min(self.chunk.len() - self.at);
        target[..length].copy_from_slice(&self.chunk[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LayerError> + Send + 'static,
) -> Result<T, ImageError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.unwrap_or_else(|error| Err(LayerError::Stream(io::Error::other(error))))?)
}
