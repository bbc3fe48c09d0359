//! `logs`, and following several containers at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use clap::Args;
use engine::Engine;
use engine::container::logs::{LogLine, LogOptions, parse_moment};
use engine::id::ContainerId;
use jiff::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::failure::CliError;
use super::menu::Key;
use super::session::{self, Opened, Session, Wanted};
use crate::names;
use crate::observe::SeenContainer;
use crate::operation::{Instance, Operation};
use crate::output::LogPrinter;
use crate::runtime::Runtime;

/// The flags of `logs`.
#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    /// Show what comes as it comes
    #[arg(short, long)]
    follow: bool,
    /// How many of the last lines of each container
    #[arg(short = 'n', long, default_value = "all", value_name = "LINES")]
    tail: String,
    /// Nothing before this time: a date, or a duration as in 10m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Nothing after this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Show times
    #[arg(short, long)]
    timestamps: bool,
    /// Which of the service's containers
    #[arg(long)]
    index: Option<u32>,
    /// No colours
    #[arg(long)]
    no_color: bool,
    /// No names in front of lines
    #[arg(long)]
    no_log_prefix: bool,
    /// The services; all when none is named
    services: Vec<String>,
}

/// How lines look.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogFlags {
    /// Whether the container's name stands in front.
    pub(super) prefix: bool,
    /// Whether it has a colour.
    pub(super) colours: bool,
    /// Whether the time follows it.
    pub(super) timestamps: bool,
}

/// `logs`.
pub(super) fn logs(session: &Session, args: &LogsArgs) -> Result<u8, CliError> {
    let project = session.load_or_name(&args.services)?;
    let opened = session.open_project(project, Wanted::default())?;
    let containers = containers(&opened, args)?;
    let flags = LogFlags {
        prefix: !args.no_log_prefix,
        colours: opened.colours() && !args.no_color,
        timestamps: args.timestamps,
    };
    let moment = |text: &Option<String>| {
        let parsed = text.as_deref().map(parse_moment).transpose();
        parsed.map_err(|error| CliError::Invalid(error.to_string()))
    };
    let tail = match args.tail.as_str() {
        "all" | "-1" => None,
        number => Some(number.parse().map_err(|_| CliError::Invalid(format!("invalid --tail {number:?}")))?),
    };
    let options = Reading { tail, since: moment(&args.since)?, until: moment(&args.until)?, flags };
    if args.follow {
        options.follow(&opened, &containers)?;
    } else {
        options.print(&opened, &containers)?;
    }
    Ok(0)
}

/// The containers whose output is asked for.
fn containers(opened: &Opened, args: &LogsArgs) -> Result<Vec<SeenContainer>, CliError> {
    let mut containers = crate::observe::containers(opened.engine(), &opened.project().name)?;
    let Some(index) = args.index else {
        containers.retain(|container| match args.services.as_slice() {
            [] => !container.one_off,
            services => services.contains(&container.service),
        });
        return Ok(containers);
    };
    let [service] = args.services.as_slice() else {
        return Err(CliError::Invalid("--index is for one service: name it".to_owned()));
    };
    containers
        .retain(|container| container.service == *service && container.number == index && !container.one_off);
    if containers.is_empty() {
        return Err(CliError::Invalid(format!("service {service:?} has no container #{index}")));
    }
    Ok(containers)
}

struct Reading {
    tail: Option<usize>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    flags: LogFlags,
}

impl Reading {
    fn options(&self, follow: bool) -> LogOptions {
        LogOptions { follow, tail: self.tail, since: self.since, until: self.until }
    }

    /// All lines of all containers, in the order they were written.
    fn print(&self, opened: &Opened, containers: &[SeenContainer]) -> Result<(), CliError> {
        let project = &opened.project().name;
        let printer =
            printer(containers.iter().map(|container| container.name.as_str()), project, &self.flags);
        let mut lines: Vec<(usize, String, String)> = Vec::new();
        for (place, container) in containers.iter().enumerate() {
            opened.engine().logs(&container.id, &self.options(false), &mut |line| {
                lines.push((place, line.time.clone(), line.log.clone()));
            })?;
        }
        lines.sort_by(|(_, a, _), (_, b, _)| a.cmp(b));
        for (place, time, text) in &lines {
            let name = names::without_project(project, &containers[*place].name);
            printer.print(name, self.flags.timestamps.then_some(time.as_str()), text);
        }
        Ok(())
    }

    fn follow(&self, opened: &Opened, containers: &[SeenContainer]) -> Result<(), CliError> {
        let shown = containers.iter().map(|container| container.service.clone()).collect();
        let mut follower = Follower::new(opened, &self.flags, &shown)?;
        for container in containers {
            follower.read(&container.id, &container.name, &container.service, self.options(true));
        }
        loop {
            match follower.next()? {
                Happening::Ended { .. } | Happening::Pressed(_) => {}
                Happening::AllEnded => return Ok(()),
                Happening::Interrupted => return Err(CliError::Interrupted),
            }
        }
    }
}

fn printer<'a>(names: impl Iterator<Item = &'a str>, project: &str, flags: &LogFlags) -> LogPrinter {
    let width = names.map(|name| names::without_project(project, name).len()).max().unwrap_or(0);
    LogPrinter::new(width, flags.prefix, flags.colours)
}

/// Something that happened while containers are followed.
pub(super) enum Happening {
    /// A container ended, and will not start again by itself.
    Ended {
        /// Its name.
        name: String,
        /// Its service.
        service: String,
        /// Its exit code.
        code: i32,
    },
    /// None is left.
    AllEnded,
    /// The user pressed Ctrl-C.
    Interrupted,
    /// The user pressed a key.
    Pressed(Key),
}

/// Prints what several containers write, as they write it. Each container has a thread that blocks on its log.
pub(super) struct Follower {
    handle: Starter,
    happenings: UnboundedReceiver<Happening>,
    executor: tokio::runtime::Runtime,
    /// From the beginning on: Ctrl-C is never what ends the program by itself.
    interrupts: Signal,
}

/// Follows containers as they start.
#[derive(Clone)]
pub(super) struct Starter {
    runtime: Arc<Runtime>,
    printer: Arc<LogPrinter>,
    shown: Arc<BTreeSet<String>>,
    timestamps: bool,
    since: Option<Timestamp>,
    sender: UnboundedSender<Happening>,
    open: Arc<std::sync::atomic::AtomicUsize>,
}

// === impl Follower ===

impl Follower {
    pub(super) fn new(opened: &Opened, flags: &LogFlags, shown: &BTreeSet<String>) -> Result<Self, CliError> {
        let executor = session::runtime()?;
        let interrupts = {
            let _inside = executor.enter();
            signal(SignalKind::interrupt())
                .map_err(|error| CliError::Invalid(format!("listen for Ctrl-C: {error}")))?
        };
        let desired = opened.desired();
        let names: Vec<String> = shown
            .iter()
            .filter_map(|service| Some(desired.container_name(service, desired.services.get(service)?.scale)))
            .collect();
        let printer = printer(names.iter().map(String::as_str), &desired.project, flags);
        let (sender, happenings) = unbounded_channel();
        let handle = Starter {
            runtime: opened.runtime.clone(),
            printer: Arc::new(printer),
            shown: Arc::new(shown.clone()),
            timestamps: flags.timestamps,
            since: None,
            sender,
            open: Arc::default(),
        };
        Ok(Self { handle, happenings, executor, interrupts })
    }

    /// Follows a container from some time on.
    pub(super) fn follow(&self, instance: &Instance, since: Option<Timestamp>) {
        Starter { since, ..self.handle.clone() }.follow(instance);
    }

    /// Follows a container in this way.
    pub(super) fn read(&self, id: &ContainerId, name: &str, service: &str, options: LogOptions) {
        self.handle.read(id.clone(), name.to_owned(), service.to_owned(), options);
    }

    /// Goes on even when no container is left: others will start.
    pub(super) fn keep_open(&self) {
        self.handle.open.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }

    /// Takes back [`Self::keep_open`].
    pub(super) fn let_close(&self) {
        self.handle.open.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
    }

    /// Has a key among what happens.
    pub(super) fn presser(&self) -> impl Fn(Key) + Send + 'static {
        let sender = self.handle.sender.clone();
        // Nobody listens any more when the command is about to end.
        move |key| drop(sender.send(Happening::Pressed(key)))
    }

    /// Follows what starts from some time on.
    pub(super) fn starter(&self, since: Timestamp) -> Starter {
        Starter { since: Some(since), ..self.handle.clone() }
    }

    /// Waits until something happens.
    pub(super) fn next(&mut self) -> Result<Happening, CliError> {
        if self.handle.open.load(std::sync::atomic::Ordering::SeqCst) == 0 {
            return Ok(Happening::AllEnded);
        }
        let (happenings, interrupts) = (&mut self.happenings, &mut self.interrupts);
        let happening = self.executor.block_on(async {
            tokio::select! {
                happening = happenings.recv() => happening.unwrap_or(Happening::AllEnded),
                _ = interrupts.recv() => Happening::Interrupted,
            }
        });
        if let Happening::Ended { .. } = happening {
            self.handle.open.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
        }
        Ok(happening)
    }
}

// === impl Starter ===

impl Starter {
    /// Follows the container a step has started, when its output is wanted.
    pub(super) fn started(&self, operation: &Operation) {
        if let Operation::StartContainer { instance } = operation
            && self.shown.contains(instance.service())
        {
            self.follow(instance);
        }
    }

    fn follow(&self, instance: &Instance) {
        let Ok(id) = self.runtime.id_of(instance) else { return };
        let options = LogOptions { follow: true, tail: None, since: self.since, until: None };
        self.read(id, instance.name().to_owned(), instance.service().to_owned(), options);
    }

    fn read(&self, id: ContainerId, name: String, service: String, options: LogOptions) {
        self.open.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let this = self.clone();
        std::thread::spawn(move || {
            let shown = names::without_project(&this.runtime.project().name, &name).to_owned();
            let code = follow_to_the_end(this.runtime.engine(), &id, options, &mut |line| {
                this.printer.print(&shown, this.timestamps.then_some(line.time.as_str()), &line.log);
            });
            // Nobody listens any more when the command is about to end.
            let _ = this.sender.send(Happening::Ended { name, service, code });
        });
    }
}

/// Reads a container's log until the container has ended for good, over restarts.
fn follow_to_the_end(
    engine: &Engine,
    id: &ContainerId,
    mut options: LogOptions,
    each: &mut dyn FnMut(&LogLine),
) -> i32 {
    loop {
        let mut last = None;
        let read = engine.logs(id, &options, &mut |line| {
            last = line.time.parse::<Timestamp>().ok().or(last);
            each(line);
        });
        let ended = engine.wait(id);
        let goes_on = engine.container(id.as_str()).is_ok_and(|container| {
            use engine::container::state::State;
            matches!(container.state, State::Running(_) | State::Restarting(_))
        });
        if !goes_on || read.is_err() {
            return ended.unwrap_or(0);
        }
        let next = last.or(options.since).unwrap_or_else(Timestamp::now);
        options.since = next.checked_add(jiff::SignedDuration::from_nanos(1)).ok();
        options.tail = None;
    }
}
