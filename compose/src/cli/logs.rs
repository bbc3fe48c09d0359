//! `logs`: what containers wrote, and what they write.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, sync_channel};

use clap::Args;
use engine::container::logs::{LogLine, LogOptions, parse_moment};
use jiff::Timestamp;

use super::failure::{CliError, INTERRUPTED};
use super::follower::{Follower, Happening};
use super::session::{Opened, Session, Wanted};
use crate::names;
use crate::observe::SeenContainer;
use crate::output::{self, LogPrinter};

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
    /// Whether what was written on standard error goes there.
    pub(super) splits: bool,
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
        splits: false,
    };
    let moment = |text: &Option<String>| {
        let parsed = text.as_deref().map(parse_moment).transpose();
        parsed.map_err(|error| CliError::Invalid(error.to_string()))
    };
    let tail = match args.tail.as_str() {
        "all" => None,
        number => match number.parse::<i64>() {
            // As with docker, less than none is all.
            Ok(number) => usize::try_from(number).ok(),
            Err(_) => return Err(CliError::Invalid(format!("invalid --tail {number:?}: a number, or all"))),
        },
    };
    let options = Reading { tail, since: moment(&args.since)?, until: moment(&args.until)?, flags };
    if args.follow {
        let (services, index) = (args.services.clone(), args.index.map(|index| index.to_string()));
        return options.follow(&opened, &containers, move |service, number| {
            (services.is_empty() || services.iter().any(|name| name == service))
                && index.as_deref().is_none_or(|index| index == number)
        });
    }
    options.print(&opened, &containers)?;
    Ok(0)
}

/// The containers whose output is asked for.
fn containers(opened: &Opened, args: &LogsArgs) -> Result<Vec<SeenContainer>, CliError> {
    let mut containers = opened.containers()?;
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

/// How many lines of a log are read before they are printed.
const AHEAD: usize = 256;

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

    /// All lines of all containers, in the order they were written. However long the logs are, few of their lines are in
    /// memory at a time.
    fn print(&self, opened: &Opened, containers: &[SeenContainer]) -> Result<(), CliError> {
        let project = &opened.project().name;
        let printer =
            printer(containers.iter().map(|container| container.name.as_str()), project, &self.flags);
        let print = |place: usize, line: &LogLine| {
            let name = names::without_project(project, &containers[place].name);
            printer.print(name, self.flags.timestamps.then_some(line.time.as_str()), line.stream, &line.log)
        };
        let options = self.options(false);
        std::thread::scope(|scope| {
            let (mut readers, mut logs) = (Vec::new(), Vec::new());
            for container in containers {
                let (sender, lines) = sync_channel(AHEAD);
                logs.push(lines);
                let (engine, options) = (opened.engine(), &options);
                readers.push(scope.spawn(move || {
                    engine.logs(&container.id, options, &mut |line| match sender.send(line.clone()) {
                        Ok(()) => ControlFlow::Continue(()),
                        // Whoever prints has enough.
                        Err(_) => ControlFlow::Break(()),
                    })
                }));
            }
            merge(&logs, print);
            // Whoever still reads has read enough.
            drop(logs);
            readers.into_iter().try_for_each(|reader| match reader.join() {
                Ok(read) => Ok(read?),
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })
    }

    /// Until none of the containers is left, nor one that took the place of another.
    fn follow(
        &self,
        opened: &Opened,
        containers: &[SeenContainer],
        is_asked: impl Fn(&str, &str) -> bool + Send + 'static,
    ) -> Result<u8, CliError> {
        let shown = containers.iter().map(|container| container.service.clone()).collect();
        let mut follower = Follower::new(opened, &self.flags, &shown)?;
        let mut idle = BTreeSet::new();
        for container in containers {
            if !container.life.is_up() {
                idle.insert(container.name.as_str());
            }
            follower.read(container, self.options(true));
        }
        follower.welcome(is_asked)?;
        let shown = |name: &str| names::without_project(&opened.project().name, name).to_owned();
        loop {
            match follower.next()? {
                // Of what had ended before there is nothing to tell.
                Happening::Ended { name, .. } if idle.remove(name.as_str()) => {}
                Happening::Ended { name, code, .. } => output::note(&ended(&shown(&name), code)),
                Happening::Again { name, code } => output::note(&again(&shown(&name), code)),
                Happening::Replaced { name } => output::note(&replaced(&shown(&name))),
                Happening::Pressed(_) => {}
                Happening::AllEnded | Happening::Unread => return Ok(0),
                Happening::Interrupted => return Ok(INTERRUPTED),
            }
        }
    }
}

/// Hands out the lines of several logs by their times, until somebody has enough. A line whose time is before that of the
/// one above it in its own log stays behind that one.
fn merge(logs: &[Receiver<LogLine>], print: impl Fn(usize, &LogLine) -> bool) {
    let mut next: BinaryHeap<Reverse<(String, usize)>> = BinaryHeap::new();
    let mut heads: Vec<Option<LogLine>> = Vec::new();
    for (place, log) in logs.iter().enumerate() {
        let head = log.recv().ok();
        next.extend(head.iter().map(|line| Reverse((line.time.clone(), place))));
        heads.push(head);
    }
    while let Some(Reverse((_, place))) = next.pop() {
        let Some(line) = std::mem::replace(&mut heads[place], logs[place].recv().ok()) else { continue };
        if !print(place, &line) {
            return;
        }
        if let Some(line) = &heads[place] {
            next.push(Reverse((line.time.clone(), place)));
        }
    }
}

/// How the end of a container that is followed is told.
pub(super) fn ended(name: &str, code: i32) -> String {
    format!("{name} exited with code {code}")
}

/// How the end of a container is told that starts again.
pub(super) fn again(name: &str, code: i32) -> String {
    format!("{} (restarting)", ended(name, code))
}

/// How it is told that another container has taken the place of one that is followed.
pub(super) fn replaced(name: &str) -> String {
    format!("{name} has been recreated")
}

pub(super) fn printer<'a>(
    names: impl Iterator<Item = &'a str>,
    project: &str,
    flags: &LogFlags,
) -> LogPrinter {
    let width = names.map(|name| names::without_project(project, name).len()).max().unwrap_or(0);
    LogPrinter::new(width, flags.prefix, flags.colours)
}
