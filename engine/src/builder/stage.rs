//! One stage while it is built: its configuration grows with every instruction, its layers with some.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cache::{Key, Parts, Record};
use super::copy::Written;
use super::error::Trouble;
use super::execute::{Broken, Build, Message};
use super::expand::{Expanded, Expander};
use super::explain::BELOW;
use super::fault::{Fault, nearest};
use super::graph::{Planned, Source};
use super::ignore::clean;
use super::instruction::{Instruction, Step};
use super::report::Work;
use super::setting::{Setting, Wrong, variable};
use super::{Failure, lint};
use crate::id::{DiffId, ImageId};
use crate::image::Platform;
use crate::image::config::{History, ImageConfig};

/// What a stage made.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    /// Its configuration, with layers and history.
    pub(crate) config: ImageConfig,
    /// The arguments it declared; stages built on it have them too.
    pub(crate) args: Vec<(String, Option<String>)>,
    /// What it began with.
    pub(crate) base: Base,
}

/// The image that a stage, or the stage below it, was begun with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Base {
    /// Which; `None` is `scratch`.
    pub(crate) id: Option<ImageId>,
    /// How many of the layers are its.
    pub(crate) layers: usize,
    /// How many of the lines of history are its.
    pub(crate) history: usize,
}

/// A stage being built.
pub(crate) struct StageRun<'a> {
    pub(super) build: &'a Build<'a>,
    pub(super) planned: &'a Planned,
    pub(super) config: ImageConfig,
    pub(super) args: Vec<(String, Option<String>)>,
    /// Arguments with names of proxies that were declared, which makes them count.
    pub(super) step: usize,
    steps: usize,
    base: Base,
    has_own_command: bool,
    has_absolute_workdir: bool,
}

/// Where a layer came from.
pub(super) enum Origin {
    Cache(Record),
    New { diff: DiffId, created: String },
}

/// The search path of images that have none.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Arguments that every RUN sees without declaring them, and that no cache key knows, in both spellings.
pub(super) const PROXIES: [[&str; 2]; 5] = [
    ["HTTP_PROXY", "http_proxy"],
    ["HTTPS_PROXY", "https_proxy"],
    ["FTP_PROXY", "ftp_proxy"],
    ["NO_PROXY", "no_proxy"],
    ["ALL_PROXY", "all_proxy"],
];

// === impl StageRun ===

impl<'a> StageRun<'a> {
    /// Builds a stage; what it made is in `build.made` afterwards.
    pub(crate) fn run(build: &'a Build<'a>, planned: &'a Planned) -> Result<(), Box<Broken>> {
        let mut stage = Self::start(build, planned).map_err(|trouble| {
            Box::new(Broken { lines: planned.lines, trouble, failure: Failure::default() })
        })?;
        for step in &planned.steps {
            if build.joint.is_called_off() {
                return Err(Broken::at(step, Trouble::CalledOff, Failure::default()));
            }
            stage.dispatch(step)?;
        }
        let made = Made { config: stage.config, args: stage.args, base: stage.base };
        if let Some(slot) = build.made.get(&planned.number) {
            // Each stage runs once, so its slot is empty.
            let _ = slot.set(Arc::new(made));
        }
        Ok(())
    }

    fn start(build: &'a Build<'a>, planned: &'a Planned) -> Result<Self, Trouble> {
        let mut args = Vec::new();
        let mut is_pulled = false;
        let mut base = Base::default();
        let mut config = match &planned.base {
            Source::Scratch => scratch_config(build.request.platform()),
            Source::Image(image) => {
                is_pulled = true;
                lint::base_platform(build, planned, &image.platform());
                let (layers, history) = (image.config.rootfs.diff_ids.len(), image.config.history.len());
                base = Base { id: Some(image.id.clone()), layers, history };
                image.config.clone()
            }
            Source::Stage(number) => match build.result(*number) {
                Some(made) => {
                    args.clone_from(&made.args);
                    base.clone_from(&made.base);
                    made.config.clone()
                }
                None => return Err(Trouble::invalid(format!("stage {number} has not been built"))),
            },
            Source::Directory(_) => {
                return Err(Trouble::invalid(format!(
                    "the context {:?} is a directory and cannot be a base image",
                    planned.base_name
                )));
            }
        };
        config.config.on_build.clear();
        if !config.config.env.iter().any(|pair| pair.starts_with("PATH=")) {
            config.config.env.push(PATH.to_owned());
        }
        if config.config.working_dir.is_empty() {
            config.config.working_dir = "/".to_owned();
        }
        let makes_layer = |step: &&Step| {
            matches!(step.instruction, Instruction::Copy(_) | Instruction::Run(_) | Instruction::Workdir(_))
        };
        let steps = planned.steps.iter().filter(makes_layer).count() + usize::from(is_pulled);
        let has_absolute_workdir = config.config.working_dir != "/";
        let mut stage = Self {
            build,
            planned,
            config,
            args,
            step: 0,
            steps,
            base,
            has_own_command: false,
            has_absolute_workdir,
        };
        if is_pulled {
            stage.work(&format!("FROM {}", planned.base_name)).cached();
        }
        Ok(stage)
    }

    fn dispatch(&mut self, step: &Step) -> Result<(), Box<Broken>> {
        match &step.instruction {
            Instruction::Copy(copy) if self.build.is_check => {
                self.check_copy(step, copy).map_err(|trouble| Broken::at(step, trouble, Failure::default()))
            }
            Instruction::Run(_) if self.build.is_check => Ok(()),
            Instruction::Copy(copy) => self.copy(step, copy),
            Instruction::Run(run) => self.run_command(step, run),
            Instruction::Workdir(path) => self.workdir(step, path),
            _ => self.configure(step).map_err(|trouble| Broken::at(step, trouble, Failure::default())),
        }
    }

    /// The instructions that only change the configuration.
    fn configure(&mut self, step: &Step) -> Result<(), Trouble> {
        let entry = match &step.instruction {
            Instruction::Arg(definitions) => self.declare(step, definitions)?,
            Instruction::Maintainer(name) => {
                self.config.author = Some(name.clone());
                format!("MAINTAINER {name}")
            }
            instruction => {
                let expand = |text: &str| self.expand(step, text);
                let setting = Setting::of(instruction, &expand).map_err(|error| match error {
                    Wrong::Word(message) => fault(step, message),
                    Wrong::Expansion(trouble) => trouble,
                })?;
                let Some(setting) = setting else { return Ok(()) };
                match setting.apply(&mut self.config.config, &mut self.has_own_command) {
                    Some(entry) => entry,
                    // BuildKit has no line of history for it.
                    None if matches!(instruction, Instruction::Onbuild(_)) => return Ok(()),
                    None => step.code.clone(),
                }
            }
        };
        self.remember(entry, None);
        Ok(())
    }

    fn declare(&mut self, step: &Step, definitions: &[(String, Option<String>)]) -> Result<String, Trouble> {
        let mut shown = Vec::new();
        let mut declared = Vec::new();
        for (name, default) in definitions {
            let name = self.expand(step, name)?.text;
            let default = match default {
                Some(default) => Some(self.expand(step, default)?.text),
                None => None,
            };
            let global = || self.build.globals.get(&name).cloned();
            let value = self.build.request.args.get(&name).cloned().or(default).or_else(global);
            shown.push(match &value {
                Some(value) => format!("{name}={value}"),
                None => name.clone(),
            });
            declared.push((name, value));
        }
        for (name, value) in declared {
            match self.args.iter_mut().find(|(known, _)| *known == name) {
                Some(known) => known.1 = value,
                None => self.args.push((name, value)),
            }
        }
        Ok(format!("ARG {}", shown.join(" ")))
    }

    /// WORKDIR: a directory owned by the current user, and a layer of its own even if it was there.
    fn workdir(&mut self, step: &Step, path: &str) -> Result<(), Box<Broken>> {
        let early = |trouble| Broken::at(step, trouble, Failure::default());
        let path = self.expand(step, path).map_err(early)?.text;
        if !path.starts_with('/') && !self.has_absolute_workdir {
            lint::relative_workdir(&self.build.reporter, step.lines.0, &path);
        }
        self.has_absolute_workdir = true;
        let path = clean(&format!(
            "{}/{path}",
            if path.starts_with('/') { "" } else { &self.config.config.working_dir }
        ));
        self.config.config.working_dir.clone_from(&path);
        let entry = format!("WORKDIR {path}");
        if path == "/" || self.build.is_check {
            self.remember(entry, None);
            return Ok(());
        }
        let user = self.config.config.user.clone();
        let key = self.key("workdir").named("the path", &path).named("USER", &user);
        let work = self.work(&step.code);
        self.layer(step, &key, work, &Vec::new, |stage, upper, _| stage.make_workdir(upper, &path, &user))
            .map(|origin| self.add(origin, entry))
    }

    /// The beginning of a key: the layers below, and the time if it is part of what is made.
    pub(super) fn key(&self, kind: &str) -> Key {
        self.times(Key::of(kind)).named_all(BELOW, self.chain())
    }

    /// A key with the time if it is part of what is made.
    pub(super) fn times(&self, key: Key) -> Key {
        match self.build.epoch.filter(|_| self.build.request.clamp_times) {
            Some(epoch) => key.named("SOURCE_DATE_EPOCH", epoch.to_string()),
            None => key,
        }
    }

    /// Finds the layer in the cache or has it made, and tells about either. `details` are further parts of what it
    /// depends on, too many to look at unless it has to be made.
    pub(super) fn layer(
        &self,
        step: &Step,
        key: &Key,
        mut work: Work<Message>,
        details: &dyn Fn() -> Parts,
        make: impl FnOnce(&Self, &Path, &mut Work<Message>) -> Result<Written, Trouble>,
    ) -> Result<Origin, Box<Broken>> {
        let began = std::time::SystemTime::now();
        let mut claim = None;
        if self.build.uses_cache(self.planned.name.as_deref()) {
            if let Some(record) = self.recorded(key, began) {
                work.cached();
                return Ok(Origin::Cache(record));
            }
            claim = self
                .build
                .cache
                .claim(key)
                .map(Some)
                .map_err(|error| Broken::at(step, error.into(), Failure::default()))?;
            // It may have been made while we waited.
            if let Some(record) = self.recorded(key, began) {
                work.cached();
                return Ok(Origin::Cache(record));
            }
        }
        self.explain(step, key, &work, details);
        let made = self.make_layer(step, key, began, &mut work, make);
        drop(claim);
        match made {
            Ok(origin) => {
                work.done();
                Ok(origin)
            }
            Err(_) if self.build.joint.is_called_off() => {
                work.called_off();
                Err(Broken::at(step, Trouble::CalledOff, Failure::default()))
            }
            Err(trouble) => {
                let failure = work.failed(&trouble.summary());
                Err(Broken::at(step, trouble, failure))
            }
        }
    }

    /// The layer as it was made before, here or elsewhere.
    fn recorded(&self, key: &Key, began: std::time::SystemTime) -> Option<Record> {
        let record = self.build.cache.find(key).or_else(|| self.borrowed(key, began))?;
        self.build.exchange.note(key, &record.diff, &record.created, &record.instruction);
        Some(record)
    }

    /// A layer that was made elsewhere, and is in our cache from now on.
    fn borrowed(&self, key: &Key, began: std::time::SystemTime) -> Option<Record> {
        let record = self.build.exchange.find(&self.build.images, &key.digest())?;
        let kept = self.build.cache.keep(key, &record.diff, &record.created, &record.instruction, began);
        kept.ok()?.or_else(|| self.build.cache.find(key))
    }

    fn make_layer(
        &self,
        step: &Step,
        key: &Key,
        began: std::time::SystemTime,
        work: &mut Work<Message>,
        make: impl FnOnce(&Self, &Path, &mut Work<Message>) -> Result<Written, Trouble>,
    ) -> Result<Origin, Trouble> {
        let scratch = self.build.scratch()?;
        let upper = scratch.path().join("upper");
        std::fs::create_dir(&upper).map_err(Trouble::io("make a layer's directory"))?;
        let Written { is_steady, known } = match make(self, &upper, work) {
            Ok(written) => written,
            Err(trouble) => {
                self.build.remains.keep_layer(&upper, scratch);
                return Err(trouble);
            }
        };
        if let Some(epoch) = self.build.epoch.filter(|_| self.build.request.clamp_times) {
            clamp(&upper, epoch).map_err(Trouble::io("set the times of a layer's files"))?;
        }
        let diff = self.build.layers.adopt_known(&upper, &known)?;
        self.build.cache.remember_layer(&self.place(), &diff);
        let created = self.build.date();
        // A layer of files that changed while they were copied is right for this build, but not for another.
        if is_steady {
            let record = self.build.cache.keep(key, &diff, &created, &step.code, began)?;
            let (kept, at) = record.as_ref().map_or((&diff, &created), |it| (&it.diff, &it.created));
            self.build.exchange.note(key, kept, at, &step.code);
            if let Some(record) = record {
                return Ok(Origin::Cache(record));
            }
        }
        Ok(Origin::New { diff, created })
    }

    /// Adds a layer and its line of history.
    pub(super) fn add(&mut self, origin: Origin, entry: String) {
        let (diff, created) = match origin {
            // A date that was asked for holds for all of the image.
            Origin::Cache(record) if self.build.epoch.is_some() => (record.diff, self.build.date()),
            Origin::Cache(record) => (record.diff, record.created),
            Origin::New { diff, created } => (diff, created),
        };
        self.config.rootfs.diff_ids.push(diff);
        self.remember(entry, Some(created));
    }

    /// Adds a line of history; one without a date made no layer and has none yet, unless all have the same one.
    fn remember(&mut self, created_by: String, created: Option<String>) {
        let empty_layer = created.is_none();
        let created = created.or_else(|| self.build.epoch.map(|_| self.build.date()));
        if created.is_some() {
            self.config.created.clone_from(&created);
        }
        self.config.history.push(History {
            created,
            created_by: Some(created_by),
            author: self.config.author.clone(),
            comment: Some("buildkit.dockerfile.v0".to_owned()),
            empty_layer,
        });
    }

    /// Starts the next vertex: `[build 2/4] RUN make`.
    pub(super) fn work(&mut self, code: &str) -> Work<Message> {
        self.step += 1;
        let shown = self.display(code);
        let width = self.steps.to_string().len();
        let title = &self.planned.title;
        let gap = if title.is_empty() { "" } else { " " };
        self.build.reporter.start(format!("[{title}{gap}{:>width$}/{}] {shown}", self.step, self.steps))
    }

    /// The layers below, as parts of a key.
    pub(super) fn chain(&self) -> impl Iterator<Item = &str> {
        self.config.rootfs.diff_ids.iter().map(DiffId::as_str)
    }

    /// A variable as instructions see it: ENV before ARG.
    pub(super) fn value_of(&self, name: &str) -> Option<String> {
        variable(&self.config.config.env, name).or_else(|| {
            self.args.iter().find(|(known, _)| known == name).and_then(|(_, value)| value.clone())
        })
    }

    pub(super) fn expand(&self, step: &Step, text: &str) -> Result<Expanded, Trouble> {
        let lookup = |name: &str| self.value_of(name);
        let expanded =
            Expander::new(self.build.escape).expand(text, &lookup).map_err(|message| fault(step, message))?;
        for name in &expanded.unset {
            self.warn_unset(step, name);
        }
        Ok(expanded)
    }

    fn warn_unset(&self, step: &Step, name: &str) {
        // A declared argument without a value is meant to be empty.
        if self.args.iter().any(|(known, _)| known == name) {
            return;
        }
        let env = self.config.config.env.iter().filter_map(|pair| pair.split('=').next());
        let known = env.chain(self.args.iter().map(|(known, _)| known.as_str()));
        let hint = match nearest(name, known) {
            // What is before FROM is for FROM alone, which nobody expects.
            _ if self.build.globals.contains_key(name) => {
                format!(" (`ARG {name}` in this stage brings it here)")
            }
            Some(meant) => format!(" (did you mean ${meant}?)"),
            None => String::new(),
        };
        lint::undefined(&self.build.reporter, step.lines.0, name, &hint);
    }

    /// An instruction for people: known variables shown by their values.
    fn display(&self, code: &str) -> String {
        let lookup = |name: &str| self.value_of(name);
        let text = Expander::for_display(self.build.escape)
            .expand(code, &lookup)
            .map_or_else(|_| code.to_owned(), |expanded| expanded.text);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let end = text.find(' ').unwrap_or(text.len());
        format!("{}{}", text[..end].to_ascii_uppercase(), &text[end..])
    }

    /// A path below the working directory, and whether it was written as a directory.
    pub(super) fn destination(&self, text: &str) -> (PathBuf, bool) {
        let into = text.ends_with('/')
            || text == "."
            || text.ends_with("/.")
            || text == ".."
            || text.ends_with("/..");
        let base = if text.starts_with('/') { "" } else { &self.config.config.working_dir };
        (PathBuf::from(clean(&format!("{base}/{text}"))), into)
    }
}

/// Makes no file of a layer younger than this.
fn clamp(directory: &Path, epoch: i64) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if std::fs::symlink_metadata(&path)?.is_dir() {
            clamp(&path, epoch)?;
        } else {
            clamp_one(&path, epoch)?;
        }
    }
    // After what is in it: a directory's time need not be set twice.
    clamp_one(directory, epoch)
}

fn clamp_one(path: &Path, epoch: i64) -> std::io::Result<()> {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::symlink_metadata(path)?;
    let mtime = (metadata.mtime(), metadata.mtime_nsec());
    // A file with this very time may be another layer's, too.
    if mtime <= (epoch, 0) {
        return Ok(());
    }
    let time = Timespec { tv_sec: epoch, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// The configuration of a stage that starts from nothing.
fn scratch_config(platform: Option<&Platform>) -> ImageConfig {
    let platform = platform.cloned().unwrap_or_else(Platform::host);
    ImageConfig {
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
        os: platform.os.clone(),
        ..ImageConfig::default()
    }
}

pub(super) fn fault(step: &Step, message: impl Into<String>) -> Trouble {
    Trouble::Fault(Fault::at(step.lines.0, message).over(step.lines.0, step.lines.1))
}
