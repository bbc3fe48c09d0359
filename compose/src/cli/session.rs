//! What one command works with: the project, the engine, the lock, and the walk of a plan.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use engine::Engine;
use serde_json::json;

use super::Globals;
use super::failure::CliError;
use super::interrupts::Interrupts;
use super::settings::Settings;
use super::turn::{Turn, Underway};
use crate::desired::{Changes, Desired};
use crate::diagnostic::Diagnostic;
use crate::execute::{self, Event};
use crate::load::{LoadOptions, load, own_environment};
use crate::model::Project;
use crate::names::Separator;
use crate::observe::{self, Observed, SeenContainer};
use crate::operation::Operation;
use crate::output::{self, Ansi, Progress, ProgressMode};
use crate::plan::Plan;
use crate::remote::Remote;
use crate::runtime::parking::Parked;
use crate::runtime::{Failure, Flags, Runtime};

/// What one command works with.
pub(super) struct Session {
    globals: Globals,
    settings: Settings,
}

/// A project with the engine it is to run on.
pub(super) struct Opened {
    pub(super) runtime: Arc<Runtime>,
    pub(super) progress: Arc<Progress>,
    /// Keeps other commands away from the same project as long as it lives.
    pub(super) lock: Option<Turn>,
    dry_run: bool,
    limit: usize,
    ansi: Ansi,
}

/// What a command wants of a project.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    /// The services named on the command line: their profiles become active.
    pub(super) services: Vec<String>,
    /// What the command line changes.
    pub(super) changes: Changes,
    /// How things are done.
    pub(super) flags: Flags,
    /// Whether the command changes anything.
    pub(super) writes: bool,
    /// Whether it may make containers, for which every file has to be there.
    pub(super) makes: bool,
    /// Whether it builds every image, for which every context has to be there.
    pub(super) builds: bool,
    /// Whether it may name networks and volumes that no service uses.
    pub(super) all_resources: bool,
}

// === impl Session ===

impl Session {
    pub(super) fn new(globals: Globals) -> Self {
        Self { settings: Settings::of(&globals), globals }
    }

    pub(super) fn engine(&self) -> Result<Engine, CliError> {
        Ok(Engine::open(self.globals.root.as_deref())?)
    }

    /// What the loader is asked, before a command has its say.
    pub(super) fn load_options(&self, services: &[String]) -> Result<LoadOptions, CliError> {
        let globals = &self.globals;
        let from_stdin = globals.file.iter().any(|file| file == "-");
        let stdin = if from_stdin {
            Some(std::io::read_to_string(std::io::stdin()).map_err(|error| {
                CliError::Invalid(format!("read the compose file from standard input: {error}"))
            })?)
        } else {
            None
        };
        Ok(LoadOptions {
            files: globals.file.iter().map(PathBuf::from).collect(),
            remote: Some(Remote::of_user()),
            project_directory: globals.project_directory.as_ref().map(PathBuf::from),
            project_name: globals.project_name.clone(),
            env_files: globals.env_file.iter().map(PathBuf::from).collect(),
            profiles: globals.profile.clone(),
            services: services.to_vec(),
            environment: own_environment(),
            stdin,
            all_resources: globals.all_resources,
            ..LoadOptions::default()
        })
    }

    /// Whether nothing is to be changed.
    pub(super) fn is_dry_run(&self) -> bool {
        self.globals.dry_run
    }

    /// Loads the project and prints what is odd about it.
    pub(super) fn load(&self, wanted: &Wanted) -> Result<Project, CliError> {
        let mut options = self.load_options(&wanted.services)?;
        options.needs_files = wanted.makes;
        options.needs_contexts = wanted.builds;
        options.all_resources |= wanted.all_resources;
        let loaded = load(&options)?;
        self.warn(&loaded.warnings);
        Ok(loaded.project)
    }

    /// Says what is odd.
    pub(super) fn warn(&self, warnings: &[Diagnostic]) {
        for warning in warnings {
            match self.speaks_json() {
                true => output::note(&json!(warning).to_string()),
                false => output::note(warning.to_string().trim_end()),
            }
        }
    }

    /// Whether progress, and what goes wrong, is for programs.
    pub(super) fn speaks_json(&self) -> bool {
        self.choice(self.globals.progress, "COMPOSE_PROGRESS").is_ok_and(|mode| mode == ProgressMode::Json)
    }

    /// The project when there is one to load, else nothing but its name: what exists can be listed, stopped and
    /// removed without its files.
    pub(super) fn load_or_name(&self, services: &[String]) -> Result<Project, CliError> {
        let named = self.globals.project_name.clone().filter(|_| self.globals.file.is_empty());
        match (load(&self.load_options(services)?), named) {
            (Ok(loaded), _) => Ok(loaded.project),
            (Err(_), Some(name)) if !self.has_files() => Ok(Project { name, ..Project::default() }),
            (Err(error), _) => Err(error.into()),
        }
    }

    fn has_files(&self) -> bool {
        let directory = self.globals.project_directory.as_ref().map(PathBuf::from);
        let Some(directory) = directory.or_else(|| std::env::current_dir().ok()) else { return false };
        let names = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
        std::env::var_os("COMPOSE_FILE").is_some()
            || directory.ancestors().any(|above| names.iter().any(|name| above.join(name).exists()))
    }

    /// Whether networks and volumes that no service uses are made too.
    pub(super) fn all_resources(&self) -> bool {
        self.globals.all_resources
    }

    /// What variables say of the tool.
    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn separator(&self) -> Separator {
        let asked = self.settings.says_yes("COMPOSE_COMPATIBILITY");
        if self.globals.compatibility || asked { Separator::Underscore } else { Separator::Dash }
    }

    pub(super) fn open(&self, wanted: Wanted) -> Result<Opened, CliError> {
        let project = self.load(&wanted)?;
        self.open_project(project, wanted)
    }

    pub(super) fn open_project(&self, project: Project, wanted: Wanted) -> Result<Opened, CliError> {
        let engine = self.engine()?;
        let changes = Changes { separator: self.separator(), ..wanted.changes };
        if let Some(unknown) = changes.scale.keys().find(|name| !project.services.contains_key(*name)) {
            return Err(CliError::Invalid(format!("no such service: {unknown}")));
        }
        let lock = if wanted.writes && !self.globals.dry_run {
            Some(Turn::take(&engine, &project.name)?)
        } else {
            None
        };
        let desired = Desired::of(&project, &changes);
        let (limit, ansi, progress) = (self.limit()?, self.ansi()?, Arc::new(self.progress()?));
        let teller = progress.clone();
        let tell = Box::new(move |telling: crate::runtime::Telling<'_>| teller.tell(&telling));
        let runtime = Arc::new(Runtime::new(engine, project, desired, wanted.flags, tell));
        Ok(Opened { runtime, progress, lock, dry_run: self.globals.dry_run, limit, ansi })
    }

    fn progress(&self) -> Result<Progress, CliError> {
        let mode = self.choice(self.globals.progress, "COMPOSE_PROGRESS")?;
        let to_stdout = self.settings.says_yes("COMPOSE_STATUS_STDOUT");
        Ok(Progress::new(mode, self.ansi()?, to_stdout))
    }

    fn ansi(&self) -> Result<Ansi, CliError> {
        let never = self.globals.no_ansi.then_some(Ansi::Never);
        self.choice(self.globals.ansi.or(never), "COMPOSE_ANSI")
    }

    /// One of a few words, of an option or a variable.
    fn choice<T: ValueEnum + Default>(&self, asked: Option<T>, variable: &str) -> Result<T, CliError> {
        let names = T::value_variants().iter().filter_map(T::to_possible_value);
        let wanted = names.map(|name| name.get_name().to_owned()).collect::<Vec<_>>().join(", ");
        let found = || self.settings.parse(variable, |text| T::from_str(text, true).ok(), &wanted);
        Ok(asked.map_or_else(found, |asked| Ok(Some(asked)))?.unwrap_or_default())
    }

    fn limit(&self) -> Result<usize, CliError> {
        let found =
            || self.settings.parse("COMPOSE_PARALLEL_LIMIT", |text| text.parse().ok(), "a whole number");
        let asked = self.globals.parallel.map_or_else(found, |asked| Ok(Some(asked)))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let asked = asked.and_then(|limit: i32| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
        Ok(asked.unwrap_or((cores * 4).max(8)))
    }
}

// === impl Opened ===

impl Opened {
    pub(super) fn engine(&self) -> &Engine {
        self.runtime.engine()
    }

    pub(super) fn desired(&self) -> &Desired {
        self.runtime.desired()
    }

    pub(super) fn project(&self) -> &Project {
        self.runtime.project()
    }

    pub(super) fn observe(&self) -> Result<Observed, CliError> {
        let told = self.runtime.told_to_services();
        Ok(Observed { told, ..observe::observe(self.engine(), self.desired())? })
    }

    /// The containers of the project, by service and number.
    pub(super) fn containers(&self) -> Result<Vec<SeenContainer>, CliError> {
        let project = self.project();
        Ok(observe::containers(self.engine(), &project.name, project.home.as_deref())?)
    }

    /// Keeps other commands away from the project for a while.
    pub(super) fn lock_project(&self) -> Result<Turn, CliError> {
        Turn::take(self.engine(), &self.project().name)
    }

    /// How many things are done at once.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Whether what goes to standard output is coloured.
    pub(super) fn colours(&self) -> bool {
        self.ansi.colours()
    }

    /// Whether the plan is only shown.
    pub(super) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// Walks a plan and reports what failed.
    pub(super) fn execute(&self, plan: Plan) -> Result<(), CliError> {
        self.execute_with(plan, None, &|_| {})
    }

    /// Walks a plan within some time; `done` learns of every step that is done.
    pub(super) fn execute_with(
        &self,
        plan: Plan,
        timeout: Option<Duration>,
        done: &(dyn Fn(&Operation) + Sync),
    ) -> Result<(), CliError> {
        for warning in plan.warnings() {
            self.progress.remark(&format!("WARNING: {warning}"));
        }
        if self.dry_run {
            if !plan.is_empty() {
                output::line(&plan.to_string());
            }
            return Ok(());
        }
        if plan.is_empty() {
            return Ok(());
        }
        let tokio = runtime()?;
        let result = tokio.block_on(self.walk(plan, timeout, done));
        // A step that still waits must not keep the program from ending.
        tokio.shutdown_background();
        self.progress.finish();
        result
    }

    async fn walk(
        &self,
        plan: Plan,
        timeout: Option<Duration>,
        done: &(dyn Fn(&Operation) + Sync),
    ) -> Result<(), CliError> {
        let tell = |event: Event<'_>| {
            self.progress.show(&event);
            if let Event::Done(operation, _) = event {
                done(operation);
            }
        };
        let underway = Arc::new(Underway::begin(self.engine(), &self.project().name)?);
        let steps = underway.clone();
        let (performer, parked) = (self.runtime.clone(), Parked::of(&plan));
        let (those_who_wait, plan) = (parked.clone(), Arc::new(plan));
        let walk = execute::walk(
            &plan,
            self.limit,
            move |operation: &Operation| steps.during(operation, || parked.perform(&performer, operation)),
            &tell,
        );
        let walk = async {
            let walked = walk.await;
            // A thread that waits in vain must not keep anybody from interrupting it.
            let _ = tokio::task::spawn_blocking(move || those_who_wait.drain(PASSED_ON)).await;
            walked
        };
        let limit = timeout.unwrap_or(Duration::MAX);
        let mut interrupts = Interrupts::listen()?;
        tokio::select! {
            walked = walk => {
                underway.is_over()?;
                let failures: Vec<Failure> = walked.failures.into_iter().map(|(_, failure)| failure).collect();
                if failures.is_empty() { Ok(()) } else { Err(CliError::Steps(failures)) }
            }
            () = sleep(limit) => {
                Err(CliError::Invalid(format!("timeout after {}s: not everything is ready", limit.as_secs())))
            }
            () = interrupts.next() => Err(CliError::Interrupted),
        }
    }
}

/// How long connections that came while a service was replaced may go on when all is done: they lead through this
/// process.
const PASSED_ON: Duration = Duration::from_secs(30);

/// Sleeps this long; for ever when it is the longest time there is.
async fn sleep(time: Duration) {
    if time == Duration::MAX {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(time).await;
}

/// The executor: one thread that waits, and threads for what blocks.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, CliError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::Invalid(format!("start the executor: {error}")))
}
