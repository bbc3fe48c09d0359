//! One Dockerfile for several platforms: a build for each, and one name for all.
//!
//! What `FROM --platform=$BUILDPLATFORM` begins is the same for all of them, and the cache has it after the first.

use std::time::Instant;

use super::course::{self, Purpose};
use super::exchange::Exchange;
use super::{BuildEvent, BuildRequest, CacheTarget, Runner, Vertex, Warning};
use crate::error::Result;
use crate::id::{DiffId, ImageId};
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
    let mut joined = Joined { events, before: 0, last: 0, warned: Vec::new() };
    let (mut made, used) = (Vec::new(), Exchange::default());
    for platform in &request.platforms {
        let mut one = BuildRequest { platforms: vec![platform.clone()], ..request.clone() };
        one.tags.clear();
        // One cache for all of them, when all are there.
        one.cache_to.retain(|target| !target.is_apart());
        let tell = &mut |event| joined.tell(event);
        let (image, exchange) = course::build_one(root, runner, &one, Purpose::OneOfSeveral, tell)?;
        made.push(image);
        used.join(&exchange);
        joined.before = joined.last;
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

// === impl Joined ===

impl Joined<'_> {
    /// Names the images, which is a vertex of its own.
    fn name(&mut self, root: &Root, request: &BuildRequest, ids: &[ImageId]) -> Result<Vec<Image>> {
        let (began, vertex) = (Instant::now(), Vertex(self.last + 1));
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
        let (began, vertex) = (Instant::now(), Vertex(self.last + 2));
        (self.events)(BuildEvent::Started { vertex, name: "exporting cache".to_owned() });
        let note = &mut |text| (self.events)(BuildEvent::Note { vertex, text });
        used.lend(&Images::at(root), layers, &request.cache_to, note)?;
        (self.events)(BuildEvent::Done { vertex, took: began.elapsed() });
        Ok(())
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
