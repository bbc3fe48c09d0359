//! Runs a plan: stages start when those they need are done, several at once; the first failure ends the rest.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, OnceLock};

use petgraph::graph::NodeIndex;
use rustix::fs::Timespec;

use super::agent::Agent;
use super::cache::Cache;
use super::context::Tree;
use super::digests::Digests;
use super::error::Trouble;
use super::exchange::Exchange;
use super::graph::{Plan, Source};
use super::ignore::Ignore;
use super::instruction::Step;
use super::joint::Joint;
use super::prompt::Remains;
use super::report::Reporter;
use super::stack::Stack;
use super::stage::{Made, StageRun};
use super::{BuildEvent, BuildRequest, CacheUse, Failure, Runner};
use crate::id::DiffId;
use crate::image::Images;
use crate::layer::Layers;
use crate::paths::Root;
use crate::store::scratch::Scratch;

/// What all stages of one build share.
pub(crate) struct Build<'a> {
    /// Where everything is kept.
    pub(crate) root: &'a Root,
    /// Base images.
    pub(crate) images: Images,
    /// Layers.
    pub(crate) layers: Layers,
    /// Runs commands.
    pub(crate) runner: &'a dyn Runner,
    /// What was asked.
    pub(crate) request: &'a BuildRequest,
    /// The escape character.
    pub(crate) escape: char,
    /// The arguments before the first FROM, and those about platforms.
    pub(crate) globals: BTreeMap<String, String>,
    /// The context without what is ignored.
    pub(crate) context: Tree,
    /// Layers made before.
    pub(crate) cache: Cache,
    /// Layers made elsewhere, and what goes there.
    pub(crate) exchange: Exchange,
    /// Digests of files seen before.
    pub(crate) digests: Digests,
    /// Which context and Dockerfile this is, to compare with the last build of them.
    pub(crate) place: String,
    /// Whether nothing is made: the Dockerfile is only looked at.
    pub(crate) is_check: bool,
    /// SOURCE_DATE_EPOCH.
    pub(crate) epoch: Option<i64>,
    /// What new files get as their time, and new layers as their date.
    pub(crate) now: Timespec,
    /// Where events go.
    pub(crate) reporter: Reporter<Message>,
    /// What stages have made, by their number.
    pub(crate) made: HashMap<usize, OnceLock<Arc<Made>>>,
    /// What it shares with the builds for other platforms.
    pub(crate) joint: &'a Joint,
    /// What the first command that failed has left.
    pub(crate) remains: Remains,
    /// The SSH agents that were asked for until now, by their ids.
    pub(crate) agents: Mutex<BTreeMap<String, Arc<Agent>>>,
}

/// From the threads of stages to the one that started them.
pub(crate) enum Message {
    /// For whoever asked for the build.
    Event(BuildEvent),
    /// A stage ended.
    Ended(Result<(), Box<Broken>>),
}

/// A failed stage.
pub(crate) struct Broken {
    /// The lines of the instruction that failed.
    pub(crate) lines: (usize, usize),
    /// Why.
    pub(crate) trouble: Trouble,
    /// What people want to see of it.
    pub(crate) failure: Failure,
}

impl Broken {
    /// What became of an instruction. A fault knows its lines better than the instruction does.
    pub(super) fn at(step: &Step, trouble: Trouble, failure: Failure) -> Box<Self> {
        let lines = match &trouble {
            Trouble::Fault(fault) => fault.lines,
            _ => step.lines,
        };
        Box::new(Self { lines, trouble, failure })
    }
}

impl From<BuildEvent> for Message {
    fn from(event: BuildEvent) -> Self {
        Self::Event(event)
    }
}

/// Runs all stages of a plan; the target's result is in `build.made` afterwards.
pub(crate) fn run(
    build: &Build<'_>,
    plan: &Plan,
    channel: (Sender<Message>, &Receiver<Message>),
    events: &mut dyn FnMut(BuildEvent),
) -> Result<(), Box<Broken>> {
    let (sender, receiver) = channel;
    let limit = build.runner.parallelism().max(1);
    let mut waiting: Vec<NodeIndex> = plan.stages.node_indices().collect();
    let mut running = 0;
    let mut broken = None;
    std::thread::scope(|scope| {
        loop {
            while running < limit && broken.is_none() {
                let is_done = |node: NodeIndex| build.result(plan.stages[node].number).is_some();
                let Some(at) = waiting.iter().position(|node| plan.needs(*node).all(is_done)) else { break };
                let node = waiting.remove(at);
                running += 1;
                let sender = sender.clone();
                scope.spawn(move || {
                    let result = StageRun::run(build, &plan.stages[node]);
                    // The receiver lives until every stage has ended.
                    let _ = sender.send(Message::Ended(result));
                });
            }
            if running == 0 {
                break;
            }
            match receiver.recv() {
                Ok(Message::Event(event)) => events(event),
                Ok(Message::Ended(result)) => {
                    running -= 1;
                    if let Err(error) = result {
                        build.joint.call_off(build.runner);
                        broken.get_or_insert(error);
                    }
                }
                Err(_) => break,
            }
        }
    });
    while let Ok(Message::Event(event)) = receiver.try_recv() {
        events(event);
    }
    broken.map_or(Ok(()), Err)
}

// === impl Build ===

impl Build<'_> {
    /// What a stage has made, once it is done.
    pub(crate) fn result(&self, stage: usize) -> Option<&Arc<Made>> {
        self.made.get(&stage).and_then(OnceLock::get)
    }

    /// The SSH agent of this id, if the build was given one.
    pub(crate) fn agent(&self, id: &str) -> Result<Option<Arc<Agent>>, Trouble> {
        let Some(path) = self.request.ssh.get(id) else { return Ok(None) };
        let mut agents = self.agents.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(agent) = agents.get(id) {
            return Ok(Some(agent.clone()));
        }
        let agent = Agent::at(self.root.run(), path);
        let step = format!("use {} as the SSH agent {id}", path.display());
        let agent = Arc::new(agent.map_err(Trouble::io(step))?);
        agents.insert(id.to_owned(), agent.clone());
        Ok(Some(agent))
    }

    /// The directories of these layers as overlayfs takes them, topmost first.
    pub(crate) fn lower(&self, diffs: &[DiffId]) -> Vec<PathBuf> {
        let mut seen = BTreeSet::new();
        // Two steps that change the same, or nothing, make the same layer. overlayfs refuses a directory twice
        // (ELOOP), and what the lower one has, the upper one shows already.
        let once = diffs.iter().rev().filter(|diff| seen.insert(*diff));
        once.map(|diff| self.layers.dir(diff)).collect()
    }

    /// The files of a source, and its layers' chain if it is made of layers.
    pub(crate) fn tree(&self, source: &Source) -> Result<Tree, Trouble> {
        let of_layers = |diffs: &[DiffId]| Tree {
            stack: Stack::of(self.lower(diffs)),
            ignore: Ignore::default(),
            keeps_owners: true,
        };
        match source {
            Source::Scratch => Ok(of_layers(&[])),
            Source::Image(image) => Ok(of_layers(&image.config.rootfs.diff_ids)),
            Source::Stage(number) => match self.result(*number) {
                Some(made) => Ok(of_layers(&made.config.rootfs.diff_ids)),
                None => Err(Trouble::invalid(format!("stage {number} has not been built"))),
            },
            Source::Directory(path) => context_tree(path, None).map_err(|error| Trouble::Step(error.into())),
        }
    }

    /// Whether cached layers may be used in a stage.
    pub(crate) fn uses_cache(&self, stage: Option<&str>) -> bool {
        match &self.request.cache {
            CacheUse::All => true,
            CacheUse::None => false,
            CacheUse::NotIn(stages) => {
                !stage.is_some_and(|stage| stages.iter().any(|name| name.eq_ignore_ascii_case(stage)))
            }
        }
    }

    /// An empty directory on the file system of the layers, removed when dropped.
    pub(crate) fn scratch(&self) -> Result<Scratch, Trouble> {
        Scratch::directory(self.root).map_err(Trouble::io("make room for a layer"))
    }

    /// The date of new layers, RFC 3339.
    pub(crate) fn date(&self) -> String {
        jiff::Timestamp::new(self.now.tv_sec, i32::try_from(self.now.tv_nsec).unwrap_or(0))
            .map(|stamp| stamp.to_string())
            .unwrap_or_default()
    }
}

/// A directory of the host as a context, with the ignore file that belongs to it.
pub(crate) fn context_tree(directory: &Path, dockerfile: Option<&Path>) -> Result<Tree, super::BuildError> {
    let read = |path: PathBuf| match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some((path, text))),
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(source) => Err(super::BuildError::Read { path, source }),
    };
    let own = match dockerfile {
        Some(file) => {
            let mut name = file.as_os_str().to_owned();
            name.push(".dockerignore");
            read(PathBuf::from(name))?
        }
        None => None,
    };
    let found = match own {
        Some(found) => Some(found),
        None => read(directory.join(".dockerignore"))?,
    };
    let ignore = match found {
        Some((path, text)) => Ignore::from_file(&text)
            .map_err(|error| super::BuildError::Ignore { path, message: error.to_string() })?,
        None => Ignore::default(),
    };
    // What is mounted from here is mounted by a process with another working directory.
    let directory = std::path::absolute(directory)
        .map_err(|source| super::BuildError::Read { path: directory.to_owned(), source })?;
    Ok(Tree { stack: Stack::of(vec![directory]), ignore, keeps_owners: false })
}
