//! `watch`: files of the host that change are brought to the containers, as the services say.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::Args;

use super::failure::CliError;
use super::interrupts::Interrupts;
use super::session::{self, Opened, Session, Wanted};
use super::up::{UpArgs, prepare, up_project};
use super::update;
use crate::model::Project;
use crate::operation::Operation;
use crate::output;
use crate::plan::images::{self, Building};
use crate::plan::up::{Orphans, UpOptions};
use crate::plan::verbs::{self, Verb};
use crate::watch::{Changed, Reaction, Rule, Tree, initial};

/// The flags of `watch`.
#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// Do not bring the services up first
    #[arg(long)]
    no_up: bool,
    /// Remove images that a rebuild leaves without a name
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    prune: bool,
    /// Build without showing the steps
    #[arg(long)]
    quiet: bool,
    /// The services; all when none is named
    services: Vec<String>,
}

/// Watches the files of some services.
pub(super) struct Watching<'a> {
    opened: &'a Opened,
    rules: Vec<Rule>,
    prune: bool,
    /// Learns of every step that is done.
    done: &'a (dyn Fn(&Operation) + Sync),
}

/// `watch`.
pub(super) fn watch(session: &Session, args: &WatchArgs) -> Result<u8, CliError> {
    let mut wanted = Wanted { services: args.services.clone(), makes: !args.no_up, ..Wanted::default() };
    wanted.flags.build.quiet = args.quiet;
    let mut project = session.load(&wanted)?;
    let opened = session.open_project(project.clone(), wanted)?;
    let watching = Watching::new(&opened, &args.services, args.prune, &|_| {})?;
    if !args.no_up {
        build_watched(&mut project);
        up_project(session, project, &UpArgs::before_watch(&args.services, args.quiet))?;
    }
    if opened.is_dry_run() {
        return Ok(0);
    }
    watching.run()
}

/// Has the images built of services whose files are watched, whatever a registry has: what is here is worked on.
fn build_watched(project: &mut Project) {
    let watched = project.services.values_mut().filter(|service| {
        service.build.is_some() && service.develop.as_ref().is_some_and(|develop| !develop.watch.is_empty())
    });
    watched.for_each(|service| service.pull_policy = Some("build".to_owned()));
}

// === impl Watching ===

impl<'a> Watching<'a> {
    /// Reads the rules.
    ///
    /// # Errors
    /// When there are none, or one makes no sense.
    pub(super) fn new(
        opened: &'a Opened,
        services: &[String],
        prune: bool,
        done: &'a (dyn Fn(&Operation) + Sync),
    ) -> Result<Self, CliError> {
        let (rules, warnings) = Rule::all(opened.project(), services).map_err(CliError::Invalid)?;
        for warning in warnings {
            output::warning(&warning);
        }
        if rules.is_empty() {
            return Err(CliError::Invalid(
                "none of the selected services is configured for watch: they need a develop section"
                    .to_owned(),
            ));
        }
        Ok(Self { opened, rules, prune, done })
    }

    /// Watches until the user has enough.
    fn run(&self) -> Result<u8, CliError> {
        let tree = self.tree()?;
        let stopper = tree.stopper();
        std::thread::spawn(move || {
            if let Ok(tokio) = session::runtime() {
                // Without a handler the signal ends the program, which is what it asks for.
                let interrupted = tokio.block_on(async {
                    Interrupts::listen()?.next().await;
                    Ok::<(), CliError>(())
                });
                if interrupted.is_ok() {
                    stopper.stop();
                }
            }
        });
        self.follow(tree)?;
        Err(CliError::Interrupted)
    }

    /// The directories to watch, watched from now on.
    pub(super) fn tree(&self) -> Result<Tree, CliError> {
        Tree::new(&self.rules).map_err(failed)
    }

    /// Reacts to changes until the tree is stopped.
    pub(super) fn follow(&self, mut tree: Tree) -> Result<(), CliError> {
        self.sync(&initial(&self.rules), &BTreeMap::new());
        output::note("Watch enabled");
        while let Some(changed) = tree.changed().map_err(failed)? {
            self.react(&changed);
        }
        Ok(())
    }

    /// A reaction that fails is reported, and the next change has its chance.
    fn react(&self, changed: &Changed) {
        let reaction = Reaction::to(&self.rules, changed);
        let steps: [&dyn Fn() -> Result<(), CliError>; 3] = [
            &|| self.rebuild(&reaction.rebuild),
            &|| {
                self.sync(&reaction.sync, &reaction.replace);
                Ok(())
            },
            &|| self.restart(&reaction.restart),
        ];
        for step in steps {
            if let Err(error) = step() {
                error.print(false);
            }
        }
        for (service, hook) in &reaction.exec {
            for failure in self.opened.runtime.run_in_all(service, hook) {
                output::failure(&failure.to_string(), failure.error.hint());
            }
        }
    }

    fn rebuild(&self, services: &BTreeSet<String>) -> Result<(), CliError> {
        if services.is_empty() {
            return Ok(());
        }
        let services: Vec<String> = services.iter().cloned().collect();
        output::note(&format!("Rebuilding service(s) {services:?} after changes were detected..."));
        let _lock = self.opened.lock_project()?;
        let plan = images::build(self.opened.desired(), &services)?;
        let settled = plan.steps().iter().filter_map(|step| match &step.operation {
            Operation::BuildImage { image, .. } => Some(image.clone()),
            _ => None,
        });
        let mut options = UpOptions {
            services: services.clone(),
            no_dependencies: true,
            orphans: Orphans::Ignore,
            building: Building::AsNeeded,
            settled_images: settled.collect(),
            ..UpOptions::default()
        };
        self.opened.execute_with(plan, None, self.done)?;
        let (observed, plan) = prepare(self.opened, &mut options)?;
        update::walk(self.opened, &observed, plan, None, self.done)?;
        if self.prune {
            self.opened.engine().prune_images(false, &|_| true)?;
        }
        output::note(&format!("service(s) {services:?} successfully built"));
        Ok(())
    }

    /// Brings files to all containers of their services at once; what they replace that is no file goes first.
    fn sync(
        &self,
        files: &BTreeMap<String, BTreeMap<PathBuf, PathBuf>>,
        replace: &BTreeMap<String, BTreeSet<PathBuf>>,
    ) {
        let nothing = BTreeSet::new();
        for (service, files) in files.iter().filter(|(_, files)| !files.is_empty()) {
            output::note(&format!("Syncing service {service:?} after {} changes were detected", files.len()));
            let failures = self.opened.runtime.sync(service, files, replace.get(service).unwrap_or(&nothing));
            for failure in &failures {
                output::failure(&failure.to_string(), failure.error.hint());
            }
            if failures.is_empty() {
                output::note(&format!("service {service:?} synced"));
            }
        }
    }

    fn restart(&self, services: &BTreeSet<String>) -> Result<(), CliError> {
        if services.is_empty() {
            return Ok(());
        }
        let services: Vec<String> = services.iter().cloned().collect();
        let _lock = self.opened.lock_project()?;
        let verb = Verb::Restart { grace: None, no_dependents: false };
        let plan = verbs::apply(self.opened.desired(), &self.opened.observe()?, &services, verb)?;
        self.opened.execute_with(plan, None, self.done)?;
        output::note(&format!("service(s) {services:?} restarted"));
        Ok(())
    }
}

fn failed(error: crate::watch::WatchError) -> CliError {
    CliError::Engine(engine::Error::failed("watch the files of the project", error))
}
