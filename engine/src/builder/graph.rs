//! Which stages a target needs, what each starts from and copies from, and in which order they can run.

use std::collections::BTreeMap;
use std::path::PathBuf;

use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;

use super::error::Trouble;
use super::expand::Expander;
use super::fault::{Fault, nearest};
use super::instruction::{Dockerfile, Instruction, Stage, Step};
use super::mount;
use super::parser::parse_trigger;
use super::{BuildRequest, NamedContext};
use crate::image::{Image, Platform, Reference};

/// The stages to run; an edge leads from a stage to one that needs it.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The stages.
    pub(crate) stages: DiGraph<Planned, ()>,
    /// The one that becomes the image.
    pub(crate) target: NodeIndex,
}

/// A stage that is needed.
#[derive(Debug)]
pub(crate) struct Planned {
    /// Its number in the Dockerfile.
    pub(crate) number: usize,
    /// Its name for progress; empty when there is only one stage.
    pub(crate) title: String,
    /// Its name, if it has one.
    pub(crate) name: Option<String>,
    /// What it starts from.
    pub(crate) base: Source,
    /// The base as the Dockerfile has it, variables expanded.
    pub(crate) base_name: String,
    /// Whether FROM names a platform of its own.
    pub(crate) has_platform: bool,
    /// FROM's lines.
    pub(crate) lines: (usize, usize),
    /// The base's ONBUILD triggers and its own instructions.
    pub(crate) steps: Vec<Step>,
    /// What its `--from`s mean.
    pub(crate) sources: BTreeMap<String, Source>,
}

/// Where files come from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// Nothing at all.
    Scratch,
    /// A stage, by its number.
    Stage(usize),
    /// An image.
    Image(Box<Image>),
    /// A directory of the host.
    Directory(PathBuf),
}

/// Finds images; asks registries for those that are not here.
pub(crate) type FindImage<'a> = &'a mut dyn FnMut(&Reference, Option<&Platform>) -> Result<Image, Trouble>;

/// What planning needs to know besides the Dockerfile.
struct Planner<'a> {
    dockerfile: &'a Dockerfile,
    request: &'a BuildRequest,
    globals: &'a BTreeMap<String, String>,
    find_image: FindImage<'a>,
    stages: DiGraph<Planned, ()>,
    nodes: BTreeMap<usize, NodeIndex>,
    images: BTreeMap<String, Image>,
}

/// A failure with the stage's line, for those that bring no place of their own.
pub(crate) type Placed = ((usize, usize), Trouble);

/// Plans a build of the stage with this number, or of `all` stages besides.
pub(crate) fn plan(
    dockerfile: &Dockerfile,
    request: &BuildRequest,
    globals: &BTreeMap<String, String>,
    (target, all): (usize, bool),
    find_image: FindImage<'_>,
) -> Result<Plan, Placed> {
    let mut planner = Planner {
        dockerfile,
        request,
        globals,
        find_image,
        stages: DiGraph::new(),
        nodes: BTreeMap::new(),
        images: BTreeMap::new(),
    };
    let target = planner.visit(target)?;
    for number in (0..dockerfile.stages.len()).filter(|_| all) {
        planner.visit(number)?;
    }
    Ok(Plan { stages: planner.stages, target })
}

/// The number of the stage to stop at.
pub(crate) fn target_of(dockerfile: &Dockerfile, target: Option<&str>) -> Option<usize> {
    let Some(target) = target else { return dockerfile.stages.len().checked_sub(1) };
    let lower = target.to_lowercase();
    let named = dockerfile.stages.iter().rposition(|stage| stage.name.as_deref() == Some(&lower));
    named.or_else(|| target.parse().ok().filter(|number| *number < dockerfile.stages.len()))
}

// === impl Plan ===

impl Plan {
    /// The stages that a stage waits for.
    pub(crate) fn needs(&self, stage: NodeIndex) -> impl Iterator<Item = NodeIndex> {
        self.stages.edges_directed(stage, petgraph::Direction::Incoming).map(|edge| edge.source())
    }
}

// === impl Planner ===

impl Planner<'_> {
    /// Plans a stage after those it needs.
    fn visit(&mut self, number: usize) -> Result<NodeIndex, Placed> {
        if let Some(node) = self.nodes.get(&number) {
            return Ok(*node);
        }
        let stage = &self.dockerfile.stages[number];
        let lines = stage.lines;
        let placed = move |trouble: Trouble| (lines, trouble);
        let (base_name, platform) = self.expand_from(stage).map_err(placed)?;
        let base = self.base(stage, &base_name, number, platform.as_ref()).map_err(placed)?;
        let mut needed = Vec::new();
        if let Source::Stage(base) = base {
            needed.push(self.visit(base)?);
        }
        let mut steps = Vec::new();
        // A context that stands in for a stage is what the stage would have made.
        if stage.name.as_ref().and_then(|name| self.named_context(name)).is_none() {
            steps = self.triggers(&base, lines.0).map_err(placed)?;
            steps.extend(stage.steps.iter().cloned());
        }
        let mut sources = BTreeMap::new();
        for step in &steps {
            for from in froms(&step.instruction) {
                let source = self.source(&from, number).map_err(|trouble| (step.lines, trouble))?;
                if let Source::Stage(source) = source {
                    needed.push(self.visit(source)?);
                }
                sources.insert(from, source);
            }
        }
        let title = match &stage.name {
            Some(name) => name.clone(),
            None if self.dockerfile.stages.len() > 1 => format!("stage-{number}"),
            None => String::new(),
        };
        let node = self.stages.add_node(Planned {
            number,
            title,
            name: stage.name.clone(),
            base,
            base_name,
            has_platform: stage.platform.is_some(),
            lines,
            steps,
            sources,
        });
        for need in needed {
            self.stages.update_edge(need, node, ());
        }
        self.nodes.insert(number, node);
        Ok(node)
    }

    fn expand_from(&self, stage: &Stage) -> Result<(String, Option<Platform>), Trouble> {
        let lookup = |name: &str| self.globals.get(name).cloned();
        let expand = |text: &str| {
            let expanded = Expander::new(self.dockerfile.escape).expand(text, &lookup);
            expanded.map(|it| it.text).map_err(|message| Fault::at(stage.lines.0, message))
        };
        let base = expand(&stage.base)?;
        if base.is_empty() {
            let message = format!("base name ({}) should not be blank", stage.base);
            return Err(Fault::at(stage.lines.0, message).into());
        }
        let platform = match stage.platform.as_deref().map(expand).transpose()? {
            Some(text) if text.is_empty() => {
                let shown = stage.platform.as_deref().unwrap_or_default();
                return Err(self.no_platform(shown, stage.lines.0).into());
            }
            Some(text) => Some(text.parse().map_err(|error| {
                Fault::at(stage.lines.0, format!("failed to parse platform {text}: {error}"))
            })?),
            None => self.request.platform().cloned(),
        };
        Ok((base, platform))
    }

    /// `--platform=$TARGETPLATFROM` means nothing, which is not to mean any platform.
    fn no_platform(&self, shown: &str, line: usize) -> Fault {
        let name = shown.trim_matches(['$', '{', '}']);
        let meant = nearest(name, self.globals.keys().map(String::as_str));
        let meant = meant.map(|meant| format!(" (did you mean ${meant}?)")).unwrap_or_default();
        Fault::at(line, format!("--platform={shown} is empty{meant}"))
    }

    /// The further context of this name. Names of images are the same however they are spelled: `alpine` is
    /// `docker.io/library/alpine:latest`.
    fn named_context(&self, name: &str) -> Option<NamedContext> {
        let contexts = &self.request.contexts;
        let same = || {
            let wanted = name.parse::<Reference>().ok()?.canonical();
            let is_same =
                |known: &str| known.parse().is_ok_and(|known: Reference| known.canonical() == wanted);
            contexts.iter().find(|(known, _)| is_same(known)).map(|(_, context)| context)
        };
        contexts.get(name).or_else(same).cloned()
    }

    fn base(
        &mut self,
        stage: &Stage,
        base: &str,
        number: usize,
        platform: Option<&Platform>,
    ) -> Result<Source, Trouble> {
        if let Some(context) = stage.name.as_ref().and_then(|name| self.named_context(name)) {
            return self.context(&context, platform);
        }
        if base == "scratch" {
            return Ok(Source::Scratch);
        }
        if let Some(context) = self.named_context(base) {
            return self.context(&context, platform);
        }
        let earlier = &self.dockerfile.stages[..number];
        if let Some(found) = earlier.iter().rposition(|stage| stage.name.as_deref() == Some(base)) {
            return Ok(Source::Stage(found));
        }
        let reference: Reference = base.parse().map_err(|error| {
            Fault::at(stage.lines.0, format!("failed to parse stage name {base:?}: {error}"))
        })?;
        let is_near = nearest(base, earlier.iter().filter_map(|stage| stage.name.as_deref())).is_some();
        let found = self.image(&reference, platform);
        found.map_err(|trouble| if is_near { self.is_no_stage(base, number, trouble) } else { trouble })
    }

    /// What a `--from` means to the stage with this number.
    fn source(&mut self, from: &str, number: usize) -> Result<Source, Trouble> {
        if from.contains('$') {
            return Err(Trouble::invalid(format!(
                "variables are not expanded in --from={from}: name the image by FROM … AS and use that name"
            )));
        }
        if let Some(context) = self.named_context(from) {
            return self.context(&context, self.request.platform());
        }
        let lower = from.to_lowercase();
        let stages = &self.dockerfile.stages;
        if let Some(found) = stages[..number].iter().rposition(|stage| stage.name.as_deref() == Some(&lower))
        {
            return Ok(Source::Stage(found));
        }
        if let Some(later) = stages.iter().position(|stage| stage.name.as_deref() == Some(&lower)) {
            let what = if later == number { "itself" } else { "it" };
            return Err(Trouble::invalid(format!(
                "cannot copy from stage {from:?}, {what} needs to be defined before current stage {:?}",
                stages[number].name.as_deref().unwrap_or("<unnamed>")
            )));
        }
        if let Ok(index) = from.parse::<usize>() {
            if index < number {
                return Ok(Source::Stage(index));
            }
            return Err(Trouble::invalid(format!(
                "invalid stage index {index} in --from: stages before this one are 0 to {}",
                number.saturating_sub(1)
            )));
        }
        if from == "scratch" {
            return Ok(Source::Scratch);
        }
        let reference: Reference =
            from.parse().map_err(|error| Trouble::invalid(format!("invalid --from={from}: {error}")))?;
        let found = self.image(&reference, self.request.platform());
        found.map_err(|trouble| self.is_no_stage(from, number, trouble))
    }

    /// A name that is taken for an image's may have been meant for a stage's.
    fn is_no_stage(&self, name: &str, number: usize, trouble: Trouble) -> Trouble {
        let Trouble::Step(error) = trouble else { return trouble };
        if name.contains(['/', ':', '@', '.']) {
            return error.into();
        }
        let names = self.dockerfile.stages[..number].iter().filter_map(|stage| stage.name.as_deref());
        let meant = nearest(name, names).map(|meant| format!("; did you mean {meant}?"));
        let hint = format!("{name} is no stage before this one, so it is taken for an image");
        error.with_hint(hint + &meant.unwrap_or_default()).into()
    }

    fn context(&mut self, context: &NamedContext, platform: Option<&Platform>) -> Result<Source, Trouble> {
        match context {
            NamedContext::Directory(path) => Ok(Source::Directory(path.clone())),
            NamedContext::Image(reference) => self.image(reference, platform),
        }
    }

    fn image(&mut self, reference: &Reference, platform: Option<&Platform>) -> Result<Source, Trouble> {
        let key = format!("{reference} {}", platform.map(Platform::to_string).unwrap_or_default());
        if let Some(image) = self.images.get(&key) {
            return Ok(Source::Image(Box::new(image.clone())));
        }
        let image = (self.find_image)(reference, platform)?;
        self.images.insert(key, image.clone());
        Ok(Source::Image(Box::new(image)))
    }

    /// The instructions a base left for whoever builds on it.
    fn triggers(&self, base: &Source, line: usize) -> Result<Vec<Step>, Trouble> {
        let texts: Vec<String> = match base {
            Source::Image(image) => image.config.config.on_build.clone(),
            Source::Stage(number) => self
                .nodes
                .get(number)
                .map(|node| &self.stages[*node].steps)
                .into_iter()
                .flatten()
                .filter_map(|step| match &step.instruction {
                    Instruction::Onbuild(text) => Some(text.clone()),
                    _ => None,
                })
                .collect(),
            Source::Scratch | Source::Directory(_) => Vec::new(),
        };
        texts
            .iter()
            .map(|text| parse_trigger(text, self.dockerfile.escape, line).map_err(Trouble::from))
            .collect()
    }
}

/// The names after `--from=` and `from=` in an instruction.
fn froms(instruction: &Instruction) -> Vec<String> {
    match instruction {
        Instruction::Copy(copy) => copy.from.iter().cloned().collect(),
        Instruction::Run(run) => run.mounts.iter().filter_map(|text| mount::from_of(text)).collect(),
        _ => Vec::new(),
    }
}
