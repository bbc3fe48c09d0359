//! The images of the services that can be built, on the engine of this machine.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use compose::Project;
use compose::desired::{Changes, Desired, ImagePolicy};
use compose::operation::Operation;
use compose::plan::images;
use compose::runtime::{Flags, Runtime, Telling};
use engine::Engine;
use engine::error::{Error, Result};
use engine::id::ImageId;
use engine::image::Reference;

use crate::release::{SENT_TAG, SentImage};
use crate::walk;

/// The images that were built for a name, one a platform.
type Built = BTreeMap<String, Vec<ImageId>>;

/// How many images are built at once: each build uses all cores by itself.
const AT_ONCE: usize = 2;

/// A build that goes on beside the caller. Dropped, nobody hears of it any more.
pub struct Building {
    lines: mpsc::Receiver<String>,
    thread: thread::JoinHandle<Result<BTreeMap<String, SentImage>>>,
}

/// Begins to build.
///
/// # Errors
/// When there is no thread to do it.
pub fn start(root: Option<&Path>, project: &Project, services: &[String]) -> Result<Building> {
    let (root, project, services) = (root.map(Path::to_owned), project.clone(), services.to_vec());
    let (tell, lines) = mpsc::channel();
    let thread = thread::Builder::new()
        .name("build".to_owned())
        .spawn(move || build(root.as_deref(), &project, &services, tell))
        .map_err(|error| Error::failed("start to build", error))?;
    Ok(Building { lines, thread })
}

// === impl Building ===

impl Building {
    /// Waits for the end, and says what became of each service. `told` takes the lines of the builds.
    ///
    /// # Errors
    /// When a build fails.
    pub fn finish(self, told: &dyn Fn(&str)) -> Result<BTreeMap<String, SentImage>> {
        self.lines.iter().for_each(|line| told(&line));
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn build(
    root: Option<&Path>,
    project: &Project,
    services: &[String],
    lines: mpsc::Sender<String>,
) -> Result<BTreeMap<String, SentImage>> {
    if self::services(project, services)?.is_empty() {
        return known(root, project);
    }
    with(&Engine::open(root)?, project, services, Flags::default(), lines)
}

/// Builds with this engine, and says what became of each service.
pub(crate) fn with(
    engine: &Engine,
    project: &Project,
    services: &[String],
    flags: Flags,
    lines: mpsc::Sender<String>,
) -> Result<BTreeMap<String, SentImage>> {
    let desired = Desired::of(project, &Changes::default());
    let plan = images::build(&desired, services).map_err(|error| Error::invalid(error.to_string()))?;
    let built: Arc<Mutex<Built>> = Arc::default();
    let made = built.clone();
    let tell = Box::new(move |telling: Telling<'_>| {
        let line = match telling {
            Telling::Built(name, images) => {
                made.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), images.to_vec());
                return;
            }
            Telling::Build(service, bytes) => {
                let text = String::from_utf8_lossy(bytes);
                let said = text.lines().filter(|line| !line.trim().is_empty());
                said.map(|line| format!("{service}: {line}")).collect::<Vec<_>>().join("\n")
            }
            Telling::Warning(text) => format!("WARNING: {text}"),
            Telling::Pull(..) | Telling::Said(..) | Telling::Hook(..) => return,
        };
        // Whoever listened has gone: then nobody is left to be told.
        let _ = lines.send(line);
    });
    let runtime = Runtime::new(engine.clone(), project.clone(), desired, flags, tell);
    // The sender of lines goes with the runtime, which goes when the walk is over.
    walk::to_the_end(plan, AT_ONCE, move |operation| runtime.perform(operation), &|_| {})?;
    let built = built.lock().unwrap_or_else(PoisonError::into_inner);
    here(engine, project, &built)
}

/// The services among these, among all when none is named, whose images are built.
pub(crate) fn services(project: &Project, services: &[String]) -> Result<Vec<String>> {
    let desired = Desired::of(project, &Changes::default());
    let plan = images::build(&desired, services).map_err(|error| Error::invalid(error.to_string()))?;
    let built = plan.steps().iter().filter_map(|step| match &step.operation {
        Operation::BuildImage { service, .. } => Some(service.clone()),
        _ => None,
    });
    Ok(built.collect())
}

/// What the image of a service is called here.
pub(crate) fn image_name(project: &Project, service: &str) -> String {
    let desired = Desired::of(project, &Changes::default());
    desired.services.get(service).map(|service| service.image.name.clone()).unwrap_or_default()
}

/// The images that come from here, as they are now: those of services that can be built, and those that no registry is
/// known to have. Services whose image is not here are left out.
///
/// # Errors
/// When the engine cannot be read.
pub fn known(root: Option<&Path>, project: &Project) -> Result<BTreeMap<String, SentImage>> {
    let desired = Desired::of(project, &Changes::default());
    let engine = match Engine::open(root) {
        Ok(engine) => engine,
        // Who has no engine here has no images here either.
        Err(_) if !desired.services.values().any(|service| service.image.buildable) => {
            return Ok(BTreeMap::new());
        }
        Err(error) => return Err(error),
    };
    here(&engine, project, &Built::new())
}

fn here(engine: &Engine, project: &Project, built: &Built) -> Result<BTreeMap<String, SentImage>> {
    let desired = Desired::of(project, &Changes::default());
    let mut images = BTreeMap::new();
    for (name, service) in &desired.services {
        let wanted = &service.image;
        if !wanted.buildable && wanted.policy == ImagePolicy::Always {
            continue;
        }
        let named = engine.images().find(&wanted.name)?;
        let built = built.get(&wanted.name).map(Vec::as_slice).unwrap_or_default();
        let Some(id) = meant(built, named.as_ref().map(|image| &image.id)) else { continue };
        let image = engine.images().get(id.as_str())?;
        if wanted.buildable || image.digests.is_empty() {
            let name_there = sent_name(&wanted.name, image.id.hex())?;
            images.insert(name.clone(), SentImage { name: name_there, id: image.id.to_string() });
        }
    }
    Ok(images)
}

/// Which image is meant by a name that these were built for just now: one of them, whatever somebody else who builds here
/// has given the name to since.
fn meant<'a>(built: &'a [ImageId], named: Option<&'a ImageId>) -> Option<&'a ImageId> {
    match built {
        [first, ..] => named.filter(|named| built.contains(named)).or(Some(first)),
        [] => named,
    }
}

/// An image is called by what is in it, so that a name on a host never means something else later:
/// `shop-web:rdeploy-0123456789ab`.
fn sent_name(name: &str, hex: &str) -> Result<String> {
    let failed = |error| Error::invalid(format!("image {name:?}")).with_source(error);
    let reference: Reference = name.parse().map_err(failed)?;
    let tagged = reference.with_tag(&format!("{SENT_TAG}{}", &hex[..12])).map_err(failed)?;
    Ok(tagged.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_built_is_meant_whoever_has_the_name_now() {
        let [one, two, other] = [b"1", b"2", b"3"].map(|text| ImageId::of(text));
        let built = [one.clone(), two.clone()];
        assert_eq!(meant(&built, Some(&other)), Some(&one));
        assert_eq!(meant(&built, None), Some(&one));
        assert_eq!(meant(&built, Some(&two)), Some(&two), "the one for this machine");
        assert_eq!(meant(&[], Some(&other)), Some(&other));
        assert_eq!(meant(&[], None), None);
    }
}
