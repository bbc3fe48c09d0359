//! Pulls and pushes against a registry that misbehaves by 240 schedules, each made of one number. Every one ends
//! in success or in one error; no byte that was not asked for is kept, and no credential leaves its host.
//!
//! A failure names its number: `SCHEDULE=7 cargo test --test schedules` runs that one alone.

#![expect(clippy::unwrap_used, reason = "test helpers")]

mod seed;
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use engine::id::Digest;
use engine::image::{Image, ImageConfig, Images, Login, Platform, PullOptions, PushOptions, Reference};
use engine::{Root, error};
use seed::Seed;
use server::Servers;

/// Schedules of each kind.
const SCHEDULES: u64 = 120;

/// At once: they wait more than they work.
const WORKERS: usize = 24;

struct World {
    directory: tempfile::TempDir,
    images: Images,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let images = Images::at(&Root::at(&directory.path().join("state")));
        Self { directory, images }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// An image of two layers, one of them of several pieces on its way.
    fn image(&self, tag: &str) -> Image {
        let layer = |name: &str, content: &[u8]| {
            let upper = self.path("state/upper");
            fs::create_dir_all(&upper).unwrap();
            fs::write(upper.join(name), content).unwrap();
            self.images.layers().adopt(&upper).unwrap()
        };
        let noise: Vec<u8> = (0..8_000u32)
            .flat_map(|n| Digest::of(&n.to_le_bytes()).hex().as_bytes()[..16].to_vec())
            .collect();
        let host = Platform::host();
        let mut config = ImageConfig { os: host.os, architecture: host.architecture, ..Default::default() };
        config.rootfs.diff_ids = vec![layer("small", b"hello"), layer("large", &noise)];
        self.images.commit(&config, &[tag.parse().unwrap()]).unwrap()
    }

    /// Everything in the store is what it is called, and is of the image that was asked for.
    fn holds_only(&self, image: &Image) -> Result<(), String> {
        for file in files(&self.path("state/content/blobs/sha256")) {
            let digest = Digest::of(&fs::read(&file).unwrap());
            if digest.hex() != file.file_name().unwrap().to_str().unwrap() {
                return Err(format!("{} has other bytes than its name says", file.display()));
            }
        }
        match self
            .images
            .layers()
            .list()
            .unwrap()
            .into_iter()
            .find(|diff| !image.config.rootfs.diff_ids.contains(diff))
        {
            Some(diff) => Err(format!("the layer {diff} was not asked for")),
            None => Ok(()),
        }
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect()
}

/// Runs all schedules, or the one that SCHEDULE names, and tells of those that went wrong.
fn run(schedule: impl Fn(u64) -> Result<(), String> + Sync) {
    let one = std::env::var("SCHEDULE").ok().and_then(|text| text.parse::<u64>().ok());
    let numbers: Vec<u64> = one.map_or_else(|| (0..SCHEDULES).collect(), |number| vec![number]);
    let (next, failures) = (AtomicU64::new(0), std::sync::Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while let Some(number) =
                    numbers.get(usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap())
                {
                    if let Err(failure) = schedule(*number) {
                        failures.lock().unwrap().push(format!("SCHEDULE={number}: {failure}"));
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), numbers.len(), failures.join("\n"));
}

/// What must hold of any failure: it says what it is about.
fn is_clear(failure: &engine::Error, address: &str) -> Result<(), String> {
    let text = error::chain(failure);
    let about = ["127.0.0.1", "sha256:", "layer", "blob", "manifest", "image"];
    if text.contains(address) || about.iter().any(|word| text.contains(word)) {
        return Ok(());
    }
    Err(format!("the failure says nothing: {text}"))
}

fn check_violations(servers: &Servers) -> Result<(), String> {
    match servers.state().violations.first() {
        Some(violation) => Err(violation.clone()),
        None => Ok(()),
    }
}

#[test]
fn a_pull_ends_in_the_image_or_in_one_error() {
    let source = World::new();
    let image = source.image("source:1");
    let whole = Servers::start(Seed::of(0), None);
    whole.behave();
    let name = format!("{}/app:1", whole.address);
    source.images.tag("source:1", &name.parse().unwrap()).unwrap();
    source.images.push(&name.parse().unwrap(), &PushOptions::default(), &|_| {}).unwrap();
    let (blobs, manifests) = {
        let state = whole.state();
        (state.blobs.clone(), state.manifests.clone())
    };
    let (succeeded, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    run(|number| {
        let mut seed = Seed::of(number);
        // user:secret
        let login = (seed.below(2) == 0).then_some("dXNlcjpzZWNyZXQ=");
        let servers = Servers::start(seed, login);
        {
            let mut state = servers.state();
            (state.blobs, state.manifests) = (blobs.clone(), manifests.clone());
        }
        let logins = login.map(|_| Login {
            registry: servers.address.clone(),
            username: "user".to_owned(),
            password: "secret".to_owned(),
        });
        let options = PullOptions { logins: logins.into_iter().collect(), ..Default::default() };
        let reference: Reference = format!("{}/app:1", servers.address).parse().unwrap();
        let world = World::new();
        let check = |pulled: &engine::image::Pulled| {
            let lower = world.images.lower_dirs(&pulled.image);
            let read = |at: usize, name: &str| fs::read(lower[at].join(name)).unwrap_or_default();
            let is_right = pulled.image.id == image.id
                && read(1, "small") == b"hello"
                && read(0, "large").len() == 128_000;
            if is_right { Ok(()) } else { Err("the image is not what was pushed".to_owned()) }
        };
        match world.images.pull(&reference, &options, &|_| {}) {
            Ok(pulled) => {
                succeeded.fetch_add(1, Ordering::Relaxed);
                check(&pulled)?;
            }
            Err(failure) => {
                failed.fetch_add(1, Ordering::Relaxed);
                is_clear(&failure.into(), &servers.address)?;
                if !world.images.list().unwrap().is_empty() {
                    return Err("an image can be seen after a failure".to_owned());
                }
            }
        }
        world.holds_only(&image)?;
        servers.behave();
        let again = world.images.pull(&reference, &options, &|_| {});
        check(&again.map_err(|failure| {
            format!("the next pull fails: {}", error::chain(&engine::Error::from(failure)))
        })?)?;
        world.holds_only(&image)?;
        check_violations(&servers)
    });
    if std::env::var_os("SCHEDULE").is_none() {
        let counts = (succeeded.into_inner(), failed.into_inner());
        assert!(counts.0 > 30 && counts.1 > 5, "(good, bad) = {counts:?}: the schedules show nothing");
    }
}

#[test]
fn a_push_ends_with_everything_there_or_in_one_error() {
    let world = World::new();
    let image = world.image("source:1");
    let (succeeded, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    run(|number| {
        let servers = Servers::start(Seed::of(1_000 + number), None);
        let reference: Reference = format!("{}/app:1", servers.address).parse().unwrap();
        world.images.tag(image.id.as_str(), &reference).unwrap();
        let push = || world.images.push(&reference, &PushOptions::default(), &|_| {});
        let is_there = || {
            let state = servers.state();
            for (digest, bytes) in &state.blobs {
                if Digest::of(bytes).as_str() != digest {
                    return Err(format!("{digest} has other bytes there"));
                }
            }
            // The manifest was refused there if a blob of it was missing.
            if state.manifests.contains_key("1") { Ok(()) } else { Err("the tag is not there".to_owned()) }
        };
        match push() {
            Ok(_) => {
                succeeded.fetch_add(1, Ordering::Relaxed);
                is_there()?;
            }
            Err(failure) => {
                failed.fetch_add(1, Ordering::Relaxed);
                is_clear(&failure.into(), &servers.address)?;
            }
        }
        servers.behave();
        push().map_err(|failure| {
            format!("the next push fails: {}", error::chain(&engine::Error::from(failure)))
        })?;
        is_there()?;
        check_violations(&servers)
    });
    if std::env::var_os("SCHEDULE").is_none() {
        let counts = (succeeded.into_inner(), failed.into_inner());
        assert!(counts.0 > 30 && counts.1 > 2, "(good, bad) = {counts:?}: the schedules show nothing");
    }
}
