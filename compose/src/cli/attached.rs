//! `up` in the foreground: output is shown, ends are seen, and single keys are obeyed.

use std::collections::BTreeSet;
use std::thread::{Scope, ScopedJoinHandle};

use jiff::Timestamp;

use super::failure::{CliError, INTERRUPTED};
use super::follower::{Follower, Happening};
use super::logs::{LogFlags, again, ended, replaced};
use super::menu::{Key, Menu};
use super::session::Opened;
use super::up::{UpArgs, show_standing};
use super::update;
use super::watch::Watching;
use crate::names;
use crate::observe::{Life, Observed};
use crate::operation::{Instance, Operation};
use crate::output;
use crate::plan::Plan;
use crate::plan::up::{self, UpOptions};
use crate::plan::verbs::{self, Verb};
use crate::watch::Stopper;

/// `up` in the foreground.
pub(super) struct Attached<'a> {
    pub(super) args: &'a UpArgs,
    pub(super) options: &'a UpOptions,
    /// Whether keys are obeyed at a terminal.
    pub(super) has_menu: bool,
}

/// Why the waiting is over.
enum Over {
    /// Everything has ended, or was stopped because something has: the code.
    Ended(u8),
    /// The user pressed a key.
    Pressed(Key),
}

/// The thread that brings files to the containers.
struct Watcher<'scope> {
    stopper: Stopper,
    thread: ScopedJoinHandle<'scope, ()>,
}

// === impl Watcher ===

impl Watcher<'_> {
    fn end(self, follower: &Follower) {
        self.stopper.stop();
        // What it has to say it has said.
        let _ = self.thread.join();
        follower.let_close();
    }
}

// === impl Attached ===

impl Attached<'_> {
    pub(super) fn run(&self, opened: &mut Opened, observed: &Observed, plan: Plan) -> Result<u8, CliError> {
        let shown = self.shown(opened)?;
        let flags = LogFlags {
            prefix: !self.args.no_log_prefix,
            colours: opened.colours() && !self.args.no_color,
            timestamps: self.args.timestamps,
            splits: true,
        };
        let mut follower = Follower::new(opened, &flags, &shown)?;
        show_standing(opened, observed, self.options, &plan);
        for container in &observed.containers {
            let runs_on = container.life.is_up() && !container.one_off && shown.contains(&container.service);
            if runs_on {
                follower.follow(&Instance::Existing(container.existing()), Some(Timestamp::now()));
            }
        }
        let started = follower.starter(Timestamp::now());
        let result = update::walk(opened, observed, plan, None, &|operation| started.started(operation));
        drop(started);
        // Others may change the project from here on.
        opened.lock = None;
        match result {
            Ok(()) => {}
            Err(CliError::Interrupted) => {
                self.stop(opened)?;
                return Err(CliError::Interrupted);
            }
            Err(error) => return Err(error),
        }
        self.stay(opened, &mut follower)
    }

    /// Until everything has ended or the user has enough, with files brought to the containers when that is wanted.
    fn stay(&self, opened: &Opened, follower: &mut Follower) -> Result<u8, CliError> {
        let started = follower.starter(Timestamp::now());
        let done = move |operation: &Operation| started.started(operation);
        let menu = Menu::open(self.has_menu, follower.presser());
        std::thread::scope(|scope| {
            let mut watcher = None;
            if self.args.watch {
                watcher = Some(self.bring_files(scope, opened, follower, &done)?);
            }
            let over = loop {
                if let Some(menu) = &menu {
                    menu.show(watcher.is_some());
                }
                match self.watch(opened, follower) {
                    Ok(Over::Pressed(Key::Detach)) => break Ok(0),
                    Ok(Over::Pressed(Key::Watch)) => match watcher.take() {
                        Some(running) => running.end(follower),
                        None => match self.bring_files(scope, opened, follower, &done) {
                            Ok(running) => watcher = Some(running),
                            Err(error) => error.print(false),
                        },
                    },
                    Ok(Over::Ended(code)) => break Ok(code),
                    Err(error) => break Err(error),
                }
            };
            if let Some(running) = watcher {
                running.end(follower);
            }
            over
        })
    }

    fn bring_files<'scope>(
        &self,
        scope: &'scope Scope<'scope, '_>,
        opened: &'scope Opened,
        follower: &Follower,
        done: &'scope (dyn Fn(&Operation) + Sync),
    ) -> Result<Watcher<'scope>, CliError> {
        let watching = Watching::new(opened, &self.args.services, true, done)?;
        let tree = watching.tree()?;
        let stopper = tree.stopper();
        follower.keep_open();
        let thread = scope.spawn(move || {
            if let Err(error) = watching.follow(tree) {
                error.print(false);
            }
        });
        Ok(Watcher { stopper, thread })
    }

    /// The services whose output is shown.
    fn shown(&self, opened: &Opened) -> Result<BTreeSet<String>, CliError> {
        let scope = up::scope(opened.desired(), self.options)?;
        let args = self.args;
        let asked = |name: &String| {
            if !args.attach.is_empty() {
                return args.attach.contains(name);
            }
            let named = args.services.is_empty() || args.attach_dependencies || args.services.contains(name);
            let attach = opened.project().services.get(name).and_then(|service| service.attach);
            named && attach.unwrap_or(true)
        };
        Ok(scope.into_iter().filter(|name| asked(name) && !args.no_attach.contains(name)).collect())
    }

    /// Until every container has ended, one ends that ends all, or the user has enough.
    fn watch(&self, opened: &Opened, follower: &mut Follower) -> Result<Over, CliError> {
        let shown = |name: &str| names::without_project(&opened.project().name, name).to_owned();
        let abort = self.args.abort_on_container_exit || self.args.exit_code_from.is_some();
        loop {
            match follower.next()? {
                Happening::Ended { name, service, code } => {
                    output::note(&ended(&shown(&name), code));
                    let fails = self.args.abort_on_container_failure && code != 0;
                    if abort || fails {
                        output::note("Aborting on container exit...");
                        self.stop(opened)?;
                        return self.code(opened, &service, code).map(Over::Ended);
                    }
                }
                Happening::Again { name, code } => output::note(&again(&shown(&name), code)),
                Happening::Replaced { name } => output::note(&replaced(&shown(&name))),
                Happening::AllEnded => return Ok(Over::Ended(0)),
                Happening::Pressed(key) => return Ok(Over::Pressed(key)),
                // What ends because of a container, or is told of one, goes on without.
                Happening::Unread if abort || self.args.abort_on_container_failure => {}
                Happening::Unread => {
                    output::note("nobody reads the output any more; the containers run on");
                    return Ok(Over::Pressed(Key::Detach));
                }
                Happening::Interrupted => {
                    output::note("Gracefully stopping... (press Ctrl+C again to force)");
                    if matches!(self.stop(opened), Err(CliError::Interrupted)) {
                        self.apply(opened, Verb::Kill { signal: engine::signal::Signal::KILL })?;
                    }
                    return Ok(Over::Ended(INTERRUPTED));
                }
            }
        }
    }

    fn stop(&self, opened: &Opened) -> Result<(), CliError> {
        self.apply(opened, Verb::Stop { grace: self.options.grace })
    }

    fn apply(&self, opened: &Opened, verb: Verb) -> Result<(), CliError> {
        // As with `stop`: what these depend on may be of use to others.
        let plan = verbs::apply(opened.desired(), &opened.observe()?, &self.args.services, verb)?;
        opened.execute(plan)
    }

    /// The code of the container that ended, or of the service that was named.
    fn code(&self, opened: &Opened, ended: &str, code: i32) -> Result<u8, CliError> {
        let Some(service) = self.args.exit_code_from.as_deref().filter(|name| *name != ended) else {
            return Ok(code as u8);
        };
        let seen = opened.observe()?;
        let code = seen.of_service(service).find_map(|container| match container.life {
            Life::Exited(code) => Some(code),
            _ => None,
        });
        Ok(code.unwrap_or(0) as u8)
    }
}
