//! Two engines that do not see each other, and a channel between them.

use std::fs;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use deploy::protocol::Channel;
use deploy::transfer::{self, Sent, TransferError};
use engine::engine::Engine;
use engine::id::{DiffId, ImageId};
use engine::image::{Image, ImageConfig, Reference};

pub(crate) struct World {
    pub(crate) _directory: tempfile::TempDir,
    pub(crate) here: Engine,
    pub(crate) there: Engine,
}

/// Engines leave their run directories and what the kernel has of them.
impl Drop for World {
    fn drop(&mut self) {
        let _ = self.here.down();
        let _ = self.there.down();
    }
}

/// What became of a transfer, on both sides.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) sent: Result<Sent, TransferError>,
    pub(crate) received: Result<Vec<ImageId>, TransferError>,
    /// Bytes that left the sender, also of a transfer that failed.
    pub(crate) bytes: u64,
}

/// A way out that breaks after so many bytes.
struct Brittle<W> {
    writer: W,
    left: u64,
    passed: Arc<AtomicU64>,
}

// === impl World ===

impl World {
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("transfer-").tempdir().unwrap();
        let here = Engine::open(Some(&directory.path().join("here"))).unwrap();
        let there = Engine::open(Some(&directory.path().join("there"))).unwrap();
        Self { _directory: directory, here, there }
    }

    /// A layer of the sender with what this writes into a directory, as the builder makes them.
    pub(crate) fn layer(&self, fill: impl FnOnce(&Path)) -> DiffId {
        let upper = self.here.root().state().join("upper");
        fs::create_dir_all(&upper).unwrap();
        fill(&upper);
        self.here.layers().adopt(&upper).unwrap()
    }

    /// An image of the sender.
    pub(crate) fn image(&self, layers: &[DiffId], name: &str) -> Image {
        let mut config =
            ImageConfig { os: "linux".into(), architecture: "amd64".into(), ..Default::default() };
        config.config.cmd = Some(vec![name.to_owned()]);
        config.rootfs.diff_ids = layers.to_vec();
        self.here.images().commit(&config, &[name.parse().unwrap()]).unwrap()
    }

    /// An image of one layer.
    pub(crate) fn image_of(&self, name: &str, fill: impl FnOnce(&Path)) -> Image {
        let layer = self.layer(fill);
        self.image(&[layer], name)
    }

    /// Sends an image and its first name, and expects that it arrives.
    pub(crate) fn send(&self, image: &Image) -> Sent {
        let outcome = self.transfer(std::slice::from_ref(image), u64::MAX);
        let sent = outcome.sent.unwrap_or_else(|error| panic!("{}", engine::error::chain(&error)));
        assert_eq!(outcome.received.unwrap(), std::slice::from_ref(&image.id));
        let arrived = self.there.images().get(image.references[0].to_string().as_str()).unwrap();
        assert_eq!(arrived.id, image.id);
        sent
    }

    /// Sends images over a connection that breaks after so many bytes from the sender.
    pub(crate) fn transfer(&self, images: &[Image], limit: u64) -> Outcome {
        let (near, far) = UnixStream::pair().unwrap();
        let passed = Arc::new(AtomicU64::new(0));
        let writer = Brittle { writer: near.try_clone().unwrap(), left: limit, passed: passed.clone() };
        let there = self.there.clone();
        let receiving = thread::spawn(move || {
            let mut channel = Channel::new(far.try_clone().unwrap(), far);
            transfer::receive(&mut channel, &there)
        });
        let sent = {
            let mut channel = Channel::new(near, writer);
            let ids: Vec<ImageId> = images.iter().map(|image| image.id.clone()).collect();
            transfer::send(&mut channel, &self.here, &ids, &names(images), &|_| {})
        };
        Outcome { sent, received: receiving.join().unwrap(), bytes: passed.load(Ordering::Relaxed) }
    }

    /// The directory of a layer on the receiver's side.
    pub(crate) fn arrived(&self, layer: &DiffId) -> PathBuf {
        assert!(self.there.layers().contains(layer), "the layer did not arrive");
        self.there.layers().dir(layer)
    }

    /// Expects nothing on the receiver's side: no image, no layer, nothing half made.
    pub(crate) fn expect_nothing_seen_there(&self) {
        assert!(self.there.images().list().unwrap().is_empty());
        let entries = |path: PathBuf| {
            let names = fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.file_name());
            names.filter(|name| name != "lock").collect::<Vec<_>>()
        };
        assert!(entries(self.there.root().layers()).is_empty());
        assert!(entries(self.there.root().scratch()).is_empty());
    }
}

pub(crate) fn names(images: &[Image]) -> Vec<(ImageId, Reference)> {
    let named = |image: &Image| image.references.first().map(|name| (image.id.clone(), name.clone()));
    images.iter().filter_map(named).collect()
}

/// Bytes that cannot be compressed, the same for the same seed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

impl<W: Write> Write for Brittle<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        let written = self.writer.write(&bytes[..most])?;
        self.left -= written as u64;
        self.passed.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}
