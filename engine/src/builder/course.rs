//! A build from its Dockerfile to its image: what is done, in its order.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, OnceLock};

use super::bases::Bases;
use super::cache::Cache;
use super::digests::Digests;
use super::error::Trouble;
use super::exchange::{CacheTarget, Exchange};
use super::execute::{self, Broken, Build, Message};
use super::fault::Source;
use super::graph::{self, Plan};
use super::instruction::Dockerfile;
use super::joint::Joint;
use super::prompt::Remains;
use super::provenance::Material;
use super::report::Reporter;
use super::stage::Made;
use super::{BuildError, BuildEvent, BuildRequest, Failure, Runner};
use super::{argument, dockerfile, lint, parser, squash};
use crate::image::config::History;
use crate::image::{Image, ImageConfig, Images, Platform, Reference};
use crate::layer::Layers;
use crate::paths::Root;
use crate::store::private_directory;

/// What a Dockerfile is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To build an image.
    Image,
    /// To build one platform's image of several.
    OneOfSeveral,
    /// To see what is wrong with it.
    Check,
}

/// Whoever asked for the build, and how the threads that work on it are heard.
struct Audience<'a> {
    text: Source,
    sender: Sender<Message>,
    receiver: Receiver<Message>,
    events: &'a mut dyn FnMut(BuildEvent),
}

/// Builds an image for one platform; with it comes what it used, for a cache.
pub(super) fn build_one(
    root: &Root,
    runner: &dyn Runner,
    request: &BuildRequest,
    purpose: (Purpose, &Joint),
    events: &mut dyn FnMut(BuildEvent),
) -> crate::Result<(Image, Exchange)> {
    let built = carry_out(root, runner, request, purpose, events)?;
    built.ok_or_else(|| crate::Error::new(crate::Kind::Failed, "the build ended without an image"))
}

/// Carries a build out; `None` when the Dockerfile is only looked at.
pub(super) fn carry_out(
    root: &Root,
    runner: &dyn Runner,
    request: &BuildRequest,
    (purpose, joint): (Purpose, &Joint),
    events: &mut dyn FnMut(BuildEvent),
) -> crate::Result<Option<(Image, Exchange)>> {
    argument::refuse(request)?;
    let (text, file) = dockerfile::read(request)?;
    let (sender, receiver) = channel();
    let mut audience = Audience { text, sender, receiver, events };
    let reporter = Reporter::to(audience.sender.clone(), audience.text.clone());
    let dockerfile = audience.parse(request, &reporter)?;
    let target = target(&dockerfile, request)?;
    prepare_directories(root)?;
    let _hold = Layers::at(root).hold()?;
    let doing = (runner, joint);
    let mut build = open(root, doing, request, &dockerfile, target, (file, reporter), &mut audience)?;
    build.is_check = purpose == Purpose::Check;
    if !build.is_check {
        build.exchange = Exchange::open(&build.images, request, &build.reporter);
    }
    let mut plan = audience.plan(&build, &dockerfile, target)?;
    if purpose == Purpose::OneOfSeveral {
        name_platform(&mut plan, request);
    }
    build.made = plan.stages.node_weights().map(|stage| (stage.number, OnceLock::new())).collect();
    audience.run(&build, &plan)?;
    if build.is_check {
        return Ok(None);
    }
    audience.judge(&build)?;
    let image = export(&build, plan.stages[plan.target].number);
    audience.pass_on();
    image.map(|image| Some((image, build.exchange)))
}

/// The number of the stage to stop at.
fn target(dockerfile: &Dockerfile, request: &BuildRequest) -> Result<usize, BuildError> {
    graph::target_of(dockerfile, request.target.as_deref()).ok_or_else(|| {
        let known = dockerfile.stages.iter().filter_map(|stage| stage.name.clone()).collect();
        BuildError::Target { target: request.target.clone().unwrap_or_default(), known }
    })
}

/// What all stages share, before anything of them is known.
fn open<'a>(
    root: &'a Root,
    (runner, joint): (&'a dyn Runner, &'a Joint),
    request: &'a BuildRequest,
    dockerfile: &Dockerfile,
    target: usize,
    (file, reporter): (Option<PathBuf>, Reporter<Message>),
    audience: &mut Audience<'_>,
) -> crate::Result<Build<'a>> {
    let globals = argument::globals(dockerfile, request, target);
    let globals = globals.map_err(|trouble| audience.fail((1, 1), trouble))?;
    let epoch = argument::epoch(request, &globals);
    let cache =
        Cache::at(root).map_err(|source| BuildError::Store { step: "open the build cache", source })?;
    Ok(Build {
        root,
        images: Images::at(root),
        layers: Layers::at(root),
        runner,
        request,
        escape: dockerfile.escape,
        globals,
        context: execute::context_tree(&request.context, file.as_deref())?,
        cache,
        exchange: Exchange::default(),
        digests: Digests::open(digests_file(root, &request.context)),
        place: format!("{} {}", request.context.display(), audience.text.name),
        is_check: false,
        epoch,
        now: argument::now(epoch),
        reporter,
        made: HashMap::new(),
        joint,
        remains: Remains::default(),
        agents: Mutex::default(),
    })
}

/// Of several platforms each stage says which one it is for.
fn name_platform(plan: &mut Plan, request: &BuildRequest) {
    let Some(platform) = request.platform() else { return };
    let stages = plan.stages.node_weights_mut();
    stages.for_each(|stage| stage.title = format!("{platform} {}", stage.title).trim_end().to_owned());
}

// === impl Audience ===

impl Audience<'_> {
    /// Passes on what has been told until now.
    fn pass_on(&mut self) {
        while let Ok(Message::Event(event)) = self.receiver.try_recv() {
            (self.events)(event);
        }
    }

    /// Tells where a build failed, and turns it into the error that is returned.
    fn fail(&mut self, lines: (usize, usize), trouble: Trouble) -> crate::Error {
        self.fail_with(Broken { lines, trouble, failure: Failure::default() })
    }

    fn fail_with(&mut self, broken: Broken) -> crate::Error {
        let Broken { lines, trouble, mut failure } = broken;
        failure.excerpt = Some(self.text.excerpt(lines.0, lines.1));
        (self.events)(BuildEvent::Failure(failure));
        let place = format!("{}:{}", self.text.name, lines.0);
        let error = match trouble {
            Trouble::Fault(fault) => {
                BuildError::Dockerfile { place: self.text.place(&fault), message: fault.message }
            }
            Trouble::Command { command, code, hint } => BuildError::Command { place, command, code, hint },
            Trouble::CalledOff => {
                return crate::Error::new(crate::Kind::Failed, Trouble::CalledOff.summary());
            }
            Trouble::Step(source) => BuildError::Step { place, step: source.to_string(), source },
        };
        error.into()
    }

    fn parse(&mut self, request: &BuildRequest, reporter: &Reporter<Message>) -> crate::Result<Dockerfile> {
        let work = reporter.start(format!("[internal] load build definition from {}", self.text.name));
        let parsed = parser::parse(&self.text.text);
        work.done();
        let parsed = parsed.and_then(|mut dockerfile| {
            if let Some(rules) = request.args.get("BUILDKIT_DOCKERFILE_CHECK") {
                dockerfile.check = Some(rules.clone());
            }
            lint::check(&dockerfile, reporter)?;
            Ok(dockerfile)
        });
        self.pass_on();
        parsed.map_err(|fault| self.fail(fault.lines, Trouble::Fault(fault)))
    }

    /// Plans the build, with the images that it needs.
    fn plan(&mut self, build: &Build<'_>, dockerfile: &Dockerfile, target: usize) -> crate::Result<Plan> {
        // Who wants a Dockerfile looked at and names no stage means all of it.
        let target = (target, build.is_check && build.request.target.is_none());
        let channel = (&self.sender, &self.receiver);
        let mut bases = Bases::find(build, dockerfile, target, channel, self.events);
        let mut find = |reference: &Reference, platform: Option<&Platform>| {
            let found = bases.take(reference, platform);
            let found = found.unwrap_or_else(|| find_image(build, reference, platform));
            self.pass_on();
            if let Ok(image) = &found {
                (self.events)(BuildEvent::Material(material(reference, image)));
            }
            found
        };
        let plan = graph::plan(dockerfile, build.request, &build.globals, target, &mut find);
        plan.map_err(|(lines, trouble)| self.fail(lines, trouble))
    }

    /// Runs the stages. What the first command that failed has left is there for a person before the build ends.
    fn run(&mut self, build: &Build<'_>, plan: &Plan) -> crate::Result<()> {
        let result = execute::run(build, plan, (self.sender.clone(), &self.receiver), self.events);
        // What was unpacked for this build alone is never seen again.
        if !build.request.context.starts_with(build.root.scratch()) {
            build.digests.save();
        }
        let Err(mut broken) = result else { return Ok(()) };
        if matches!(broken.trouble, Trouble::CalledOff) {
            // Whoever called it off tells why.
            return Err(crate::Error::new(crate::Kind::Failed, broken.trouble.summary()));
        }
        broken.failure.has_prompt = build.remains.is_kept();
        let error = self.fail_with(*broken);
        build.remains.enter(build.runner)?;
        Err(error)
    }

    /// The end of a build whose Dockerfile says that a rule not kept is an error.
    fn judge(&mut self, build: &Build<'_>) -> crate::Result<()> {
        build.reporter.verdict().map_err(|fault| self.fail(fault.lines, Trouble::Fault(fault)))
    }
}

fn material(reference: &Reference, image: &Image) -> Material {
    let known = image.digests.iter().chain(&image.part_of);
    let mut same = known.filter(|name| name.familiar_name() == reference.familiar_name());
    let digest = reference.digest().cloned().or_else(|| same.find_map(|name| name.digest().cloned()));
    Material { reference: reference.clone(), digest, platform: image.platform().to_string() }
}

/// A base image from here, or from its registry if it is missing or asked for anew.
pub(super) fn find_image(
    build: &Build<'_>,
    reference: &Reference,
    platform: Option<&Platform>,
) -> Result<Image, Trouble> {
    let name = reference.to_string();
    let found = |images: &Images| match images.find_for(&name, platform)? {
        Some(image) => Ok(Some(image)),
        None => images.find(&name),
    };
    let work = build.reporter.start(format!("[internal] load metadata for {}", reference.canonical()));
    let fits = |image: &Image| platform.is_none_or(|wanted| wanted.rank(&image.platform()).is_some());
    let look = || -> crate::Result<Image> {
        let here = found(&build.images)?;
        if !build.request.pull
            && let Some(image) = here.as_ref().filter(|image| fits(image))
        {
            return Ok(image.clone());
        }
        let pulled = build.runner.pull(reference, platform, &mut |line| work.note(line));
        pulled.map_err(|error| match here.filter(|image| !fits(image)) {
            Some(other) => {
                error.with_hint(format!("the {reference} that is here is for {}", other.platform()))
            }
            None => error,
        })?;
        found(&build.images)?.ok_or_else(|| crate::Error::not_found(format!("image {reference} not found")))
    };
    match look() {
        Ok(image) => {
            work.done();
            Ok(image)
        }
        Err(error) => {
            work.failed(&crate::error::chain(&error));
            Err(Trouble::Step(error))
        }
    }
}

/// Makes an image of the target stage and names it.
fn export(build: &Build<'_>, target: usize) -> crate::Result<Image> {
    let made = build
        .result(target)
        .ok_or_else(|| crate::Error::new(crate::Kind::Failed, "the target stage ended without a result"))?;
    let mut made = Made::clone(made);
    date(&mut made.config.history);
    let work = build.reporter.start("exporting to image");
    let mut config = if build.request.squash {
        let squashed = squash::squashed(build, &made);
        squashed.map_err(|trouble| match trouble {
            Trouble::Step(error) => error,
            other => crate::Error::new(crate::Kind::Failed, other.summary()),
        })?
    } else {
        made.config
    };
    config.config.labels.extend(build.request.labels.clone());
    if let Some(platform) = build.request.platform() {
        become_one_for(&mut config, platform);
    }
    if build.request.cache_to.iter().any(|target| !target.is_apart())
        || argument::asks(build.request, argument::INLINE_CACHE)
    {
        config.build_cache = build.exchange.records(Some(&config.rootfs.diff_ids));
    }
    let image = build.images.commit(&config, &build.request.tags)?;
    work.note(format!("writing image {} done", image.id));
    for tag in &build.request.tags {
        work.note(format!("naming to {} done", tag.canonical()));
    }
    work.done();
    if build.request.cache_to.iter().any(CacheTarget::is_apart) {
        let (work, layers) = (build.reporter.start("exporting cache"), &image.config.rootfs.diff_ids);
        let note = &mut |text| work.note(text);
        build.exchange.lend(&build.images, layers, &build.request.cache_to, note)?;
        work.done();
    }
    Ok(image)
}

/// Gives each line of history a date, as BuildKit does: what made no layer has that of the layer before, and what came
/// before the first new layer has that one's and not the base image's.
fn date(history: &mut [History]) {
    let first_new =
        history.iter().skip_while(|line| line.created.is_some()).find_map(|line| line.created.clone());
    let last_known = history.iter().rev().find_map(|line| line.created.clone());
    let mut created = first_new.or(last_known);
    let mut is_past_base = false;
    for line in history {
        match &line.created {
            None => {
                is_past_base = true;
                line.created.clone_from(&created);
            }
            known if is_past_base => created.clone_from(known),
            _ => {}
        }
    }
}

/// An image is for the platform that was asked for, whatever it was made on: `FROM --platform=$BUILDPLATFORM` may begin
/// the last stage, too, when what it holds runs anywhere or was compiled for there.
fn become_one_for(config: &mut ImageConfig, platform: &Platform) {
    let is_other = config.os != platform.os || config.architecture != platform.architecture;
    if is_other || platform.variant.is_some() {
        config.variant.clone_from(&platform.variant);
    }
    config.os.clone_from(&platform.os);
    config.architecture.clone_from(&platform.architecture);
}

fn prepare_directories(root: &Root) -> Result<(), BuildError> {
    for directory in [root.scratch(), root.build_cache(), root.build_cache().join("digests")] {
        private_directory(&directory)
            .map_err(|source| BuildError::Store { step: "make the build cache", source })?;
    }
    Ok(())
}

/// Where the digests of a context's files are remembered.
fn digests_file(root: &Root, context: &Path) -> PathBuf {
    let path = std::fs::canonicalize(context).unwrap_or_else(|_| context.to_owned());
    root.build_cache().join("digests").join(crate::id::Digest::of(path.as_os_str().as_encoded_bytes()).hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_layer_is_as_old_as_the_layer_it_belongs_to() {
        let dated = |dates: &str| {
            let line = |date: &str| History {
                created: Some(date.to_owned()).filter(|date| date != "-"),
                ..History::default()
            };
            let mut history: Vec<History> = dates.split(' ').map(line).collect();
            date(&mut history);
            let dates = history.into_iter().map(|line| line.created.unwrap_or_else(|| "-".to_owned()));
            dates.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(dated("base base - - 5 - 7 -"), "base base 5 5 5 5 7 7");
        assert_eq!(dated("- 5 -"), "5 5 5");
        assert_eq!(dated("base - -"), "base base base");
        assert_eq!(dated("- -"), "- -");
    }
}
