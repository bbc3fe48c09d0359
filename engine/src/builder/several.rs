//! One Dockerfile for several platforms: a build for each, and one name for all.
//!
//! What `FROM --platform=$BUILDPLATFORM` begins is the same for all of them, and the cache has it after the first.

use std::time::Instant;

use super::{BuildEvent, BuildRequest, CacheTarget, Purpose, Runner, Vertex, Warning};
use crate::error::{Error, Result};
use crate::id::ImageId;
use crate::image::{Image, Images};
use crate::paths::Root;

/// One list of events made of several builds'.
struct Joined<'a> {
    events: &'a mut dyn FnMut(BuildEvent),
    /// Vertices of the builds before this one.
    before: u32,
    /// The highest vertex so far.
    last: u32,
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
    if request.cache_to.iter().any(|target| *target != CacheTarget::Inline) {
        let message = "--cache-to is not supported for several platforms, but for type=inline";
        return Err(Error::invalid(message).with_hint("build each platform with a cache of its own"));
    }
    let mut joined = Joined { events, before: 0, last: 0, warned: Vec::new() };
    let mut ids: Vec<ImageId> = Vec::new();
    for platform in &request.platforms {
        let mut one = BuildRequest { platforms: vec![platform.clone()], ..request.clone() };
        one.tags.clear();
        let tell = &mut |event| joined.tell(event);
        ids.push(super::build_one(root, runner, &one, Purpose::OneOfSeveral, tell)?.id);
        joined.before = joined.last;
    }
    joined.name(root, request, &ids)
}

// === impl Joined ===

impl Joined<'_> {
    /// Names the images, which is a vertex of its own.
    fn name(&mut self, root: &Root, request: &BuildRequest, ids: &[ImageId]) -> Result<Vec<Image>> {
        let (began, vertex) = (Instant::now(), Vertex(self.last + 1));
        (self.events)(BuildEvent::Started { vertex, name: "exporting manifest list".to_owned() });
        let images = Images::at(root).name_several(&request.tags, ids)?;
        for tag in &request.tags {
            (self.events)(BuildEvent::Note { vertex, text: format!("naming to {} done", tag.canonical()) });
        }
        (self.events)(BuildEvent::Done { vertex, took: began.elapsed() });
        Ok(images)
    }

    fn tell(&mut self, mut event: BuildEvent) {
        match &mut event {
            BuildEvent::Planned(count) => *count += usize::try_from(self.before).unwrap_or(0),
            BuildEvent::Started { vertex, .. }
            | BuildEvent::Note { vertex, .. }
            | BuildEvent::Output { vertex, .. }
            | BuildEvent::Cached(vertex)
            | BuildEvent::Done { vertex, .. }
            | BuildEvent::Failed { vertex, .. } => {
                vertex.0 += self.before;
                self.last = self.last.max(vertex.0);
            }
            BuildEvent::Warning(warning) if self.warned.contains(warning) => return,
            BuildEvent::Warning(warning) => self.warned.push(warning.clone()),
            BuildEvent::Material(_) | BuildEvent::Failure(_) => {}
        }
        (self.events)(event);
    }
}
