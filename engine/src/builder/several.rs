//! One Dockerfile for several platforms: a build for each, all at once, and one name for all.
//!
//! What `FROM --platform=$BUILDPLATFORM` begins is the same for all of them: who comes second waits for it, and takes it
//! from the cache.

use std::collections::BTreeMap;
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

use super::course::{self, Purpose};
use super::exchange::Exchange;
use super::joint::Joint;
use super::{BuildEvent, BuildRequest, CacheTarget, Runner, Vertex, Warning};
use crate::error::{Error, Kind, Result};
use crate::id::{DiffId, ImageId};
use crate::image::{Image, Images, Platform};
use crate::paths::Root;

/// What one of the builds tells.
enum Message {
    Event(BuildEvent),
    Ended(Box<Result<(Image, Exchange)>>),
}

/// One list of events made of several builds'.
struct Joined<'a> {
    events: &'a mut dyn FnMut(BuildEvent),
    /// The vertices of each build as they are told.
    vertices: BTreeMap<(usize, Vertex), Vertex>,
    /// The highest vertex so far.
    last: u32,
    /// How many vertices each build will have, as it said last.
    planned: Vec<usize>,
    /// What the Dockerfile was warned of already: all builds read the same.
    warned: Vec<Warning>,
}

/// Builds an image for each platform, and gives them their names together. A build that fails names nothing.
pub(super) fn build(
    root: &Root,
    runner: &dyn Runner,
    request: &BuildRequest,
    events: &mut dyn FnMut(BuildEvent),
) -> Result<Vec<Image>> {
    let mut joined = Joined {
        events,
        vertices: BTreeMap::new(),
        last: 0,
        planned: vec![0; request.platforms.len()],
        warned: Vec::new(),
    };
    // A person in the sandbox of a step that failed has the terminal alone.
    let built = if request.run.shell_on_failure {
        one_after_the_other(root, runner, request, &mut joined)?
    } else {
        at_once(root, runner, request, &mut joined)?
    };
    let (mut made, used) = (Vec::new(), Exchange::default());
    for (image, exchange) in built {
        used.join(&exchange);
        made.push(image);
    }
    let ids: Vec<ImageId> = made.iter().map(|image| image.id.clone()).collect();
    let named = joined.name(root, request, &ids)?;
    if request.cache_to.iter().any(CacheTarget::is_apart) {
        let layers: Vec<DiffId> =
            made.iter().flat_map(|image| image.config.rootfs.diff_ids.iter().cloned()).collect();
        joined.lend(root, request, &used, &layers)?;
    }
    Ok(named)
}

/// What is asked for of one platform.
fn request_for(request: &BuildRequest, platform: &Platform) -> BuildRequest {
    let mut one = BuildRequest { platforms: vec![platform.clone()], ..request.clone() };
    one.tags.clear();
    // One cache for all of them, when all are there.
    one.cache_to.retain(|target| !target.is_apart());
    one
}

fn one_after_the_other(
    root: &Root,
    runner: &dyn Runner,
    request: &BuildRequest,
    joined: &mut Joined<'_>,
) -> Result<Vec<(Image, Exchange)>> {
    let mut built = Vec::new();
    for (number, platform) in request.platforms.iter().enumerate() {
        let one = request_for(request, platform);
        let tell = &mut |event| joined.tell(number, event);
        built.push(course::build_one(root, runner, &one, (Purpose::OneOfSeveral, &Joint::default()), tell)?);
    }
    Ok(built)
}

/// The first that fails ends the others, and its failure is that of all.
fn at_once(
    root: &Root,
    runner: &dyn Runner,
    request: &BuildRequest,
    joined: &mut Joined<'_>,
) -> Result<Vec<(Image, Exchange)>> {
    let (sender, receiver) = channel();
    let joint = Joint::default();
    let mut built: Vec<Option<(Image, Exchange)>> = request.platforms.iter().map(|_| None).collect();
    let mut failure = None;
    std::thread::scope(|scope| {
        for (number, platform) in request.platforms.iter().enumerate() {
            let (sender, joint): (Sender<(usize, Message)>, _) = (sender.clone(), &joint);
            scope.spawn(move || {
                let one = request_for(request, platform);
                // The receiver lives until every build has ended.
                let tell = &mut |event| drop(sender.send((number, Message::Event(event))));
                let ended = course::build_one(root, runner, &one, (Purpose::OneOfSeveral, joint), tell);
                let _ = sender.send((number, Message::Ended(Box::new(ended))));
            });
        }
        drop(sender);
        // All senders go with their builds.
        for (number, message) in receiver {
            match message {
                Message::Event(event) => joined.tell(number, event),
                Message::Ended(ended) => match *ended {
                    Ok(one) => built[number] = Some(one),
                    Err(error) => {
                        joint.call_off(runner);
                        failure.get_or_insert(error);
                    }
                },
            }
        }
    });
    let lost = || Error::new(Kind::Failed, "the build for a platform ended without an image");
    match failure {
        Some(error) => Err(error),
        None => built.into_iter().map(|one| one.ok_or_else(lost)).collect(),
    }
}

// === impl Joined ===

impl Joined<'_> {
    /// Names the images, which is a vertex of its own.
    fn name(&mut self, root: &Root, request: &BuildRequest, ids: &[ImageId]) -> Result<Vec<Image>> {
        let (began, vertex) = (Instant::now(), self.next());
        (self.events)(BuildEvent::Started { vertex, name: "exporting manifest list".to_owned() });
        let images = Images::at(root).tag_several(&request.tags, ids)?;
        for tag in &request.tags {
            (self.events)(BuildEvent::Note { vertex, text: format!("naming to {} done", tag.canonical()) });
        }
        (self.events)(BuildEvent::Done { vertex, took: began.elapsed() });
        Ok(images)
    }

    /// Writes the caches that are asked for, which is a vertex of its own, too.
    fn lend(
        &mut self,
        root: &Root,
        request: &BuildRequest,
        used: &Exchange,
        layers: &[DiffId],
    ) -> Result<()> {
        let (began, vertex) = (Instant::now(), self.next());
        (self.events)(BuildEvent::Started { vertex, name: "exporting cache".to_owned() });
        let note = &mut |text| (self.events)(BuildEvent::Note { vertex, text });
        used.lend(&Images::at(root), layers, &request.cache_to, note)?;
        (self.events)(BuildEvent::Done { vertex, took: began.elapsed() });
        Ok(())
    }

    fn next(&mut self) -> Vertex {
        self.last += 1;
        Vertex(self.last)
    }

    /// Passes on what one of the builds tells.
    fn tell(&mut self, number: usize, mut event: BuildEvent) {
        match &mut event {
            BuildEvent::Planned(count) => {
                self.planned[number] = *count;
                *count = self.planned.iter().sum();
            }
            BuildEvent::Started { vertex, .. }
            | BuildEvent::Note { vertex, .. }
            | BuildEvent::Output { vertex, .. }
            | BuildEvent::Cached(vertex)
            | BuildEvent::CalledOff(vertex)
            | BuildEvent::Done { vertex, .. }
            | BuildEvent::Failed { vertex, .. } => {
                let next = self.last + 1;
                let told = *self.vertices.entry((number, *vertex)).or_insert(Vertex(next));
                self.last = self.last.max(told.0);
                *vertex = told;
            }
            BuildEvent::Warning(warning) if self.warned.contains(warning) => return,
            BuildEvent::Warning(warning) => self.warned.push(warning.clone()),
            BuildEvent::Material(_) | BuildEvent::Failure(_) => {}
        }
        (self.events)(event);
    }
}
