//! Following several containers at once: over restarts, and when others take their place.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::Engine;
use engine::container::logs::{LogLine, LogOptions};
use engine::container::state::State;
use engine::event::{Event, Journal};
use engine::id::ContainerId;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::failure::CliError;
use super::interrupts::Interrupts;
use super::logs::{LogFlags, printer};
use super::menu::Key;
use super::session::{self, Opened};
use crate::observe::SeenContainer;
use crate::operation::{Instance, Operation};
use crate::output::LogPrinter;
use crate::runtime::Runtime;
use crate::{labels, names};

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
    /// A container ended and starts again.
    Again {
        /// Its name.
        name: String,
        /// Its exit code.
        code: i32,
    },
    /// A container ended because another one has taken its place and its name.
    Replaced {
        /// Their name.
        name: String,
    },
    /// None is left.
    AllEnded,
    /// The user pressed Ctrl-C, or the program is told to end.
    Interrupted,
    /// The user pressed a key.
    Pressed(Key),
    /// Nobody reads any more what is printed.
    Unread,
}

/// What a thread tells.
struct News {
    happening: Happening,
    /// Whether the thread is done.
    is_last: bool,
}

/// Prints what several containers write, as they write it. Each container has a thread that blocks on its log.
pub(super) struct Follower {
    handle: Starter,
    news: UnboundedReceiver<News>,
    executor: tokio::runtime::Runtime,
    /// From the beginning on: Ctrl-C is never what ends the program by itself.
    interrupts: Interrupts,
}

/// Follows containers as they start.
#[derive(Clone)]
pub(super) struct Starter {
    runtime: Arc<Runtime>,
    printer: Arc<LogPrinter>,
    shown: Arc<BTreeSet<String>>,
    timestamps: bool,
    since: Option<Timestamp>,
    sender: UnboundedSender<News>,
    open: Arc<AtomicUsize>,
    met: Arc<Mutex<BTreeMap<ContainerId, Met>>>,
}

/// A container that is, or was, followed.
#[derive(Clone, Copy)]
enum Met {
    /// Somebody follows it.
    Followed,
    /// Nobody does since its last line.
    Until(Timestamp),
}

/// A container that is followed.
struct Followed {
    id: ContainerId,
    name: String,
    service: String,
}

// === impl Follower ===

impl Follower {
    pub(super) fn new(opened: &Opened, flags: &LogFlags, shown: &BTreeSet<String>) -> Result<Self, CliError> {
        let executor = session::runtime()?;
        let interrupts = {
            let _inside = executor.enter();
            Interrupts::listen()?
        };
        let desired = opened.desired();
        let names: Vec<String> = shown
            .iter()
            .filter_map(|service| Some(desired.container_name(service, desired.services.get(service)?.scale)))
            .collect();
        let mut printer = printer(names.iter().map(String::as_str), &desired.project, flags);
        if flags.splits {
            printer = printer.splitting();
        }
        let (sender, news) = unbounded_channel();
        let handle = Starter {
            runtime: opened.runtime.clone(),
            printer: Arc::new(printer),
            shown: Arc::new(shown.clone()),
            timestamps: flags.timestamps,
            since: None,
            sender,
            open: Arc::default(),
            met: Arc::default(),
        };
        Ok(Self { handle, news, executor, interrupts })
    }

    /// Follows a container from some time on.
    pub(super) fn follow(&self, instance: &Instance, since: Option<Timestamp>) {
        Starter { since, ..self.handle.clone() }.follow(instance);
    }

    /// Follows a container in this way.
    pub(super) fn read(&self, container: &SeenContainer, options: LogOptions) {
        self.handle.read(Followed::of(container), options);
    }

    /// Follows what others start from now on, as far as it is asked for by service and number.
    pub(super) fn welcome(
        &self,
        is_asked: impl Fn(&str, &str) -> bool + Send + 'static,
    ) -> Result<(), CliError> {
        let starter = self.handle.clone();
        let journal = Journal::of(starter.runtime.engine().root());
        let mut reader = journal
            .follow(None)
            .map_err(|error| engine::Error::failed("read the journal of events", error))?;
        std::thread::spawn(move || {
            // A journal that cannot be read any more brings nobody new; who is followed stays followed.
            while let Ok(Some(event)) = reader.next(None) {
                if let Some(container) = starter.started_elsewhere(&event, &is_asked) {
                    starter
                        .read(container, LogOptions { follow: true, tail: None, since: None, until: None });
                }
            }
        });
        Ok(())
    }

    /// Goes on even when no container is left: others will start.
    pub(super) fn keep_open(&self) {
        self.handle.open.fetch_add(1, Ordering::SeqCst);
    }

    /// Takes back [`Self::keep_open`].
    pub(super) fn let_close(&self) {
        self.handle.open.fetch_sub(1, Ordering::SeqCst);
    }

    /// Has a key among what happens.
    pub(super) fn presser(&self) -> impl Fn(Key) + Send + 'static {
        let starter = self.handle.clone();
        move |key| starter.tell(Happening::Pressed(key), false)
    }

    /// Follows what starts from some time on.
    pub(super) fn starter(&self, since: Timestamp) -> Starter {
        Starter { since: Some(since), ..self.handle.clone() }
    }

    /// Waits until something happens.
    pub(super) fn next(&mut self) -> Result<Happening, CliError> {
        if self.handle.open.load(Ordering::SeqCst) == 0 {
            return Ok(Happening::AllEnded);
        }
        let (news, interrupts) = (&mut self.news, &mut self.interrupts);
        let news = self.executor.block_on(async {
            tokio::select! {
                news = news.recv() => news.unwrap_or(News { happening: Happening::AllEnded, is_last: false }),
                () = interrupts.next() => News { happening: Happening::Interrupted, is_last: false },
            }
        });
        if news.is_last {
            self.let_close();
        }
        Ok(news.happening)
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
        let (name, service) = (instance.name().to_owned(), instance.service().to_owned());
        let options = LogOptions { follow: true, tail: None, since: self.since, until: None };
        self.read(Followed { id, name, service }, options);
    }

    /// The container of the project that an event tells to have started.
    fn started_elsewhere(&self, event: &Event, is_asked: &dyn Fn(&str, &str) -> bool) -> Option<Followed> {
        let value = |label| labels::value(&event.attributes, label);
        let is_wanted = event.kind.word() == "container"
            && event.action == "start"
            && labels::belongs_to(&event.attributes, &self.runtime.project().name)
            && value(labels::ONE_OFF) != "True"
            && is_asked(value(labels::SERVICE), value(labels::NUMBER));
        let container = self.runtime.engine().container(&event.id).ok().filter(|_| is_wanted)?;
        Some(Followed::of(&SeenContainer::of(&container)))
    }

    fn read(&self, container: Followed, options: LogOptions) {
        let Some(options) = self.meet(&container.id, options) else { return };
        self.open.fetch_add(1, Ordering::SeqCst);
        let this = self.clone();
        std::thread::spawn(move || this.read_to_the_end(container, options));
    }

    /// Over restarts, and on with whatever takes the container's place.
    fn read_to_the_end(&self, mut container: Followed, mut options: LogOptions) {
        loop {
            let shown = names::without_project(&self.runtime.project().name, &container.name).to_owned();
            let print = &mut |line: &LogLine| {
                let time = self.timestamps.then_some(line.time.as_str());
                if !self.printer.print(&shown, time, line.stream, &line.log) {
                    self.tell(Happening::Unread, false);
                }
            };
            let again = &mut |code| self.tell(Happening::Again { name: container.name.clone(), code }, false);
            let code = follow_to_the_end(self.runtime.engine(), &container.id, options, print, again);
            self.met().insert(container.id.clone(), Met::Until(Timestamp::now()));
            let Followed { name, service, .. } = container;
            let Some(successor) = self.successor(&container.id, &name) else {
                return self.tell(Happening::Ended { name, service, code }, true);
            };
            let all = LogOptions { follow: true, tail: None, since: None, until: None };
            let taken_over = self.meet(&successor, all);
            self.tell(Happening::Replaced { name: name.clone() }, taken_over.is_none());
            let Some(all) = taken_over else { return };
            (container, options) = (Followed { id: successor, name, service }, all);
        }
    }

    /// How a container is read that nobody follows yet: on from where it was left.
    fn meet(&self, id: &ContainerId, options: LogOptions) -> Option<LogOptions> {
        match self.met().insert(id.clone(), Met::Followed) {
            Some(Met::Followed) => None,
            Some(Met::Until(left)) => Some(LogOptions { since: Some(left), tail: None, ..options }),
            None => Some(options),
        }
    }

    fn met(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Met>> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The container that has the name of one that ended, once it has started.
    fn successor(&self, ended: &ContainerId, name: &str) -> Option<ContainerId> {
        let engine = self.runtime.engine();
        let mut reader = Journal::of(engine.root()).follow(None).ok()?;
        let successor = engine.container(name).ok().filter(|other| other.id() != ended)?;
        let mut state = successor.state.clone();
        while matches!(state, State::Created) {
            reader.next(None).ok()?;
            state = engine.container(successor.id().as_str()).ok()?.state;
        }
        Some(successor.id().clone())
    }

    fn tell(&self, happening: Happening, is_last: bool) {
        // Nobody listens any more when the command is about to end.
        let _ = self.sender.send(News { happening, is_last });
    }
}

// === impl Followed ===

impl Followed {
    fn of(container: &SeenContainer) -> Self {
        Self { id: container.id.clone(), name: container.name.clone(), service: container.service.clone() }
    }
}

/// Reads a container's log until the container has ended for good, over restarts; `again` learns of the ends before. The
/// last exit code, which is told by whoever saw it: the container may be gone when it could be looked up.
fn follow_to_the_end(
    engine: &Engine,
    id: &ContainerId,
    mut options: LogOptions,
    each: &mut dyn FnMut(&LogLine),
    again: &mut dyn FnMut(i32),
) -> i32 {
    loop {
        let (mut last, mut told) = (None, None);
        let read = engine.logs_and_ends(
            id,
            &options,
            &mut |line| {
                last = line.time.parse::<Timestamp>().ok().or(last);
                each(line);
                ControlFlow::Continue(())
            },
            &mut |exit| match exit.again {
                true => again(exit.code),
                false => told = Some(exit.code),
            },
        );
        let code = told.or_else(|| engine.wait(id).ok()).unwrap_or(0);
        let goes_on = engine
            .container(id.as_str())
            .is_ok_and(|container| matches!(container.state, State::Running(_) | State::Restarting(_)));
        if !goes_on || read.is_err() {
            return code;
        }
        // By somebody's hand.
        again(code);
        let next = last.or(options.since).unwrap_or_else(Timestamp::now);
        options.since = next.checked_add(SignedDuration::from_nanos(1)).ok();
        options.tail = None;
    }
}
