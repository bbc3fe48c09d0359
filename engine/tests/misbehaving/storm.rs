//! More goes wrong than patience helps against; then it is over, and what failed succeeds.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use engine::error;
use engine::id::Digest;
use engine::image::{Login, PullOptions, Pulled, PushOptions, Reference};

use crate::client::{Base, NAME, World, is_sound};
use crate::each_seed;
use crate::fault::{Access, Schedule};
use crate::registry::{Content, PASSWORD, Registry, USER};

/// Storms of each kind.
const STORMS: u64 = 120;

/// How often something succeeded and failed while the storm went on.
#[derive(Default)]
struct Tally {
    succeeded: AtomicU64,
    failed: AtomicU64,
}

impl Tally {
    fn count<T, E: Into<engine::Error>>(&self, result: Result<T, E>) -> Result<T, engine::Error> {
        let counter = if result.is_ok() { &self.succeeded } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        result.map_err(Into::into)
    }

    /// Schedules under which nothing fails, or everything, show nothing.
    fn shows_something(&self) {
        let counts = (self.succeeded.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed));
        assert!(counts.0 > 30 && counts.1 > 5, "{counts:?} succeeded and failed");
    }
}

/// What must hold of any failure: it says what it is about.
fn is_clear(failure: &engine::Error) -> Result<(), String> {
    let text = error::chain(failure);
    let about = ["127.0.0.1", "sha256:", "layer", "blob", "manifest", "image"];
    if about.iter().any(|word| text.contains(word)) { Ok(()) } else { Err(format!("it only says: {text}")) }
}

fn explain(problem: &str, schedule: &Schedule, registry: &Registry) -> String {
    format!("{problem}\n  {schedule:?}\n  {}", registry.log().join("\n  "))
}

#[test]
fn a_pull_ends_in_the_image_or_in_one_error() {
    let base = Base::new();
    let tally = Tally::default();
    let accesses = [Access::Open, Access::WithToken, Access::LoggedIn];
    let are_all = each_seed(STORMS, |seed| {
        let schedule = Schedule::storm(seed, &accesses);
        let registry = Registry::start(schedule.clone(), base.content.clone());
        pull(&base, &registry, &schedule, &tally).map_err(|problem| explain(&problem, &schedule, &registry))
    });
    if are_all {
        tally.shows_something();
    }
}

fn pull(base: &Base, registry: &Registry, schedule: &Schedule, tally: &Tally) -> Result<(), String> {
    let login = || Login {
        registry: registry.address.clone(),
        username: USER.to_owned(),
        password: PASSWORD.to_owned(),
    };
    let logins = (schedule.access == Access::LoggedIn).then(login).into_iter().collect();
    let options = PullOptions { logins, ..PullOptions::default() };
    let reference: Reference = registry.name(NAME).parse().unwrap();
    let world = World::new();
    match tally.count(world.images().pull(&reference, &options, &|_| {})) {
        Ok(pulled) => is_right(base, &world, &pulled)?,
        Err(failure) => {
            is_clear(&failure)?;
            if !world.images().list().unwrap().is_empty() {
                return Err("an image can be seen after a failure".to_owned());
            }
        }
    }
    is_sound(&world)?;
    registry.behave();
    let again = world.images().pull(&reference, &options, &|_| {});
    let again = again
        .map_err(|error| format!("the next pull fails: {}", error::chain(&engine::Error::from(error))))?;
    is_right(base, &world, &again)?;
    is_sound(&world)?;
    registry.complaints()
}

/// It is the image that was pushed, its files are there, and no layer besides.
fn is_right(base: &Base, world: &World, pulled: &Pulled) -> Result<(), String> {
    let image = &pulled.image;
    let lower = world.images().lower_dirs(image);
    let length =
        |at: usize, name: &str| fs::metadata(lower[at].join("dir").join(name)).map_or(0, |it| it.len());
    let layers = world.images().layers().list().unwrap();
    if image.id.as_str() != base.id || length(1, "small") != 5 || length(0, "large") != 320_000 {
        return Err("the image is not what was pushed".to_owned());
    }
    match layers.into_iter().find(|diff| !image.config.rootfs.diff_ids.contains(diff)) {
        Some(diff) => Err(format!("the layer {diff} was not asked for")),
        None => Ok(()),
    }
}

#[test]
fn a_push_ends_with_everything_there_or_in_one_error() {
    let base = Base::new();
    let tally = Tally::default();
    let are_all = each_seed(STORMS, |seed| {
        let schedule = Schedule::storm(seed, &[Access::Open, Access::WithToken]);
        let registry = Registry::start(schedule.clone(), Content::default());
        push(&base, &registry, &tally).map_err(|problem| explain(&problem, &schedule, &registry))
    });
    if are_all {
        tally.shows_something();
    }
}

fn push(base: &Base, registry: &Registry, tally: &Tally) -> Result<(), String> {
    let reference: Reference = registry.name(NAME).parse().unwrap();
    let images = base.root.images();
    images.tag(&base.id, &reference).map_err(|error| error.to_string())?;
    let push = || images.push(&reference, &PushOptions::default(), &|_| {});
    let is_there = || {
        let content = registry.content();
        if let Some((digest, _)) =
            content.blobs.iter().find(|(digest, bytes)| Digest::of(bytes).as_str() != *digest)
        {
            return Err(format!("{digest} has other bytes there"));
        }
        if content.manifests.contains_key("1") { Ok(()) } else { Err("the tag is not there".to_owned()) }
    };
    match tally.count(push()) {
        Ok(_) => is_there()?,
        Err(failure) => is_clear(&failure)?,
    }
    registry.behave();
    push().map_err(|error| format!("the next push fails: {}", error::chain(&engine::Error::from(error))))?;
    is_there()?;
    registry.complaints()
}
