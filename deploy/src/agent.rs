//! The far side: the same executable, started on a host over SSH, that does there what a client asks for.
//!
//! It does everything itself and holds the project's lock while it does, so that work can never be done in the name of
//! somebody who has lost the lock. When its client is gone it ends, and a guard puts right what it left.

mod audit;
mod brought;
mod builds;
mod canary;
mod form;
pub(crate) mod guard;
mod history;
mod journal;
mod keep;
mod leave;
mod ledger;
mod line;
mod opened;
mod pins;
mod places;
mod ports;
mod prober;
mod prune;
mod remove;
mod reserve;
mod rollout;
mod setup;
mod status;
mod taking;
mod telling;
mod turn;
mod undo;

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use engine::Engine;
use engine::error::{Error, Result};
use engine::id::Digest;
use engine::image::Reference;
use engine::store::Lock;

use self::places::Places;
use self::rollout::Running;
use crate::message::{Answer, Event, Failure, Hello, Outcome, PROTOCOL, Request};
use crate::protocol::{Channel, ChannelError};
use crate::release::SENT_TAG;
use crate::transfer;

/// Takes what is told while work is done.
pub(crate) type Tell = Arc<dyn Fn(Event) + Send + Sync>;

/// An agent with what it holds for its client.
struct Agent {
    engine: Engine,
    channel: Arc<Mutex<Channel>>,
    held: Option<Held>,
}

/// A project whose lock the agent holds.
struct Held {
    project: String,
    author: String,
    places: Places,
    running: Option<Running>,
    _lock: Lock,
}

/// Serves one client on standard input and output until it hangs up. To one who has just brought the executable it
/// tells first what has arrived.
///
/// # Errors
/// When the engine cannot be opened or the connection cannot be set up.
pub fn serve(root: Option<&Path>, tells_digest: bool) -> Result<ExitCode> {
    let engine = Engine::open(root)?;
    let failed = |error: io::Error| Error::failed("set up the connection to the client", error);
    let mut channel = Channel::new(line::watched().map_err(failed)?, io::stdout());
    let hello = hello(tells_digest)?;
    channel.send(&hello).map_err(|error| Error::failed("greet the client", error))?;
    let mut agent = Agent { engine, channel: Arc::new(Mutex::new(channel)), held: None };
    agent.work();
    Ok(ExitCode::SUCCESS)
}

/// The digest of this executable, by which a client knows whether a host has the same one.
///
/// # Errors
/// When it cannot be read.
pub fn executable_digest() -> Result<String> {
    // A running executable does not change, and it is large: whoever comes second waits for the first.
    static DIGEST: OnceLock<std::result::Result<String, io::ErrorKind>> = OnceLock::new();
    let digest = DIGEST.get_or_init(|| match std::fs::read("/proc/self/exe") {
        Ok(bytes) => Ok(Digest::of(&bytes).to_string()),
        Err(error) => Err(error.kind()),
    });
    digest.clone().map_err(|kind| Error::failed("read this executable", io::Error::from(kind)))
}

fn hello(tells_digest: bool) -> Result<Hello> {
    let name = rustix::system::uname();
    Ok(Hello {
        protocol: PROTOCOL,
        executable: if tells_digest { Some(executable_digest()?) } else { None },
        hostname: name.nodename().to_string_lossy().into_owned(),
        architecture: std::env::consts::ARCH.to_owned(),
        kernel: name.release().to_string_lossy().into_owned(),
    })
}

// === impl Agent ===

impl Agent {
    /// Answers until the client is gone.
    fn work(&mut self) {
        loop {
            let request = self.channel().receive::<Request>();
            let answer = match request {
                Ok(request) => match self.answer(request) {
                    Ok(outcome) => Answer::Done(outcome),
                    Err(error) => Answer::Failed(Failure::from(&error)),
                },
                Err(ChannelError::Garbled(what)) => Answer::Failed(Failure { message: what, hint: None }),
                Err(_) => return,
            };
            if self.channel().send(&answer).is_err() {
                return;
            }
        }
    }

    fn channel(&self) -> std::sync::MutexGuard<'_, Channel> {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) -> Tell {
        let channel = self.channel.clone();
        Arc::new(move |event| {
            // A client that is gone is noticed where the line is watched.
            let _ = channel.lock().unwrap_or_else(PoisonError::into_inner).send(&Answer::Event(event));
        })
    }

    fn answer(&mut self, request: Request) -> Result<Outcome> {
        let tell = self.tell();
        self.audit(&request, &tell);
        match request {
            Request::Lock { project, author, wait_ms } => {
                self.lock(project, &author, Duration::from_millis(wait_ms)).map(|()| Outcome::Nothing)
            }
            Request::Freeze { project, freeze } => {
                let places = self.held(&project)?.places.clone();
                taking::freeze(&places, &freeze.beginning(jiff::Timestamp::now())).map(|()| Outcome::Nothing)
            }
            Request::Note { .. } => Ok(Outcome::Nothing),
            Request::Audit { project } => audit::deeds(&self.places(&project)).map(Outcome::Audit),
            Request::Thaw { project, .. } => taking::thaw(&self.places(&project)).map(Outcome::Thawed),
            Request::ReceiveImages { names } => self.receive_images(names).map(|()| Outcome::Nothing),
            Request::Build(order) => {
                let secrets = builds::take_secrets(&mut self.channel(), &order.secrets)?;
                let held = self.held.as_ref().filter(|held| held.project == order.project);
                let places = held.map(|held| &held.places);
                builds::build(&self.engine, places, &order, &secrets, &tell).map(Outcome::Built)
            }
            Request::SendImages { images } => {
                transfer::send_named(&mut self.channel(), &self.engine, &images, &|_| {})?;
                Ok(Outcome::Nothing)
            }
            Request::KeepFiles { project, files } => {
                let places = self.held(&project)?.places.clone();
                let mut channel = self.channel();
                files.iter().try_for_each(|file| keep::keep(&mut channel, &places, file))?;
                Ok(Outcome::Nothing)
            }
            Request::Plan(rollout) => {
                let places = Places::of(self.engine.root(), &rollout.release.project);
                rollout::plan(&self.engine, &places, &rollout, &tell).map(Outcome::Plan)
            }
            Request::Prepare(rollout) => self.prepare(&rollout, &tell),
            Request::Share { percent, draw } => self.running()?.share(percent, draw).map(Outcome::Shared),
            Request::Watch { time_ms } => {
                self.running()?.watch(Duration::from_millis(time_ms)).map(|()| Outcome::Nothing)
            }
            Request::Commit => self.running()?.commit().map(Outcome::Committed),
            Request::Finish => self.take_running()?.finish(&tell).map(|()| Outcome::Nothing),
            Request::BackOut { reason } => self.back_out(reason).map(|()| Outcome::Nothing),
            Request::History { project } => history::entries(&self.places(&project)).map(Outcome::History),
            Request::Kept { project } => history::kept(&self.places(&project)).map(Outcome::Kept),
            Request::Release { project, id } => {
                history::find(&self.places(&project), &id).map(|release| Outcome::Release(Box::new(release)))
            }
            Request::Status { project } => {
                status::status(&self.engine, &self.places(&project), &project, &tell).map(Outcome::Status)
            }
            Request::Turn { project, services, turn } => {
                let places = self.held(&project)?.places.clone();
                turn::turn(&self.engine, &places, &services, turn, &tell).map(|()| Outcome::Nothing)
            }
            Request::Prune { project } => {
                let places = self.held(&project)?.places.clone();
                let gone = prune::prune(&self.engine, &places, 1)?;
                Ok(Outcome::Pruned(gone + prune::prune_executables(&self.engine)?))
            }
            Request::Remove { project, volumes } => {
                let held = self.held(&project)?;
                let places = held.places.clone();
                remove::remove(&self.engine, &places, &project, volumes, &tell)?;
                leave::leave(&self.engine, &project).map(|left| Outcome::Removed { left })
            }
            Request::Setup => setup::setup(&self.engine).map(Outcome::Remarks),
        }
    }

    /// Puts down what is asked for. A host that has no room for that can still be put right.
    fn audit(&self, request: &Request, tell: &Tell) {
        let Some(what) = audit::deed(request) else { return };
        let (places, author) = match (request, &self.held) {
            (Request::Note { project, author, .. } | Request::Thaw { project, author }, _) => {
                (self.places(project), author)
            }
            (_, Some(held)) => (held.places.clone(), &held.author),
            // It is refused.
            (_, None) => return,
        };
        if places.state().exists()
            && let Err(error) = audit::note(&places, author, &what)
        {
            tell(Event::Remark(format!("WARNING: {}", engine::error::chain(&error))));
        }
    }

    fn places(&self, project: &str) -> Places {
        Places::of(self.engine.root(), project)
    }

    /// Takes the project's lock, and puts right what an earlier rollout left.
    fn lock(&mut self, project: String, author: &str, wait: Duration) -> Result<()> {
        if project.is_empty() || project.contains(['/', '\0']) || project.starts_with('.') {
            return Err(Error::invalid(format!("{project:?} is not the name of a project")));
        }
        let places = self.places(&project);
        let lock = taking::take(&places, &project, author, wait, &self.tell())?;
        undo::recover(&self.engine, &places)?;
        self.held = Some(Held { project, author: author.to_owned(), places, running: None, _lock: lock });
        Ok(())
    }

    fn held(&mut self, project: &str) -> Result<&mut Held> {
        let held = self.held.as_mut().filter(|held| held.project == project);
        held.ok_or_else(|| Error::conflict(format!("the project {project} is not locked by this connection")))
    }

    fn receive_images(&self, names: Vec<Reference>) -> Result<()> {
        if let Some(held) = &self.held {
            // Contexts of builds have other names, and stay for the next build.
            let is_sent = |name: &Reference| name.tag().is_some_and(|tag| tag.starts_with(SENT_TAG));
            let expected = brought::expect(&self.engine, &held.places, names.into_iter().filter(is_sent));
            if let Err(error) = expected {
                // A client that is gone is noticed with the answer.
                let _ = transfer::decline(&mut self.channel(), &error);
                return Err(error);
            }
        }
        let received = transfer::receive(&mut self.channel(), &self.engine);
        received.map(drop).map_err(|error| Error::failed("take the images over", error))
    }

    fn prepare(&mut self, rollout: &crate::message::Rollout, tell: &Tell) -> Result<Outcome> {
        let engine = self.engine.clone();
        let held = self.held(&rollout.release.project)?;
        match Running::prepare(&engine, &held.places, rollout, tell) {
            Ok((running, planned)) => {
                held.running = Some(running);
                Ok(Outcome::Plan(planned))
            }
            Err(error) => {
                // What was made ready so far goes; the failure that led here is the one to tell.
                undo_failed(&engine, &held.places, &error);
                Err(error)
            }
        }
    }

    fn running(&mut self) -> Result<&mut Running> {
        let running = self.held.as_mut().and_then(|held| held.running.as_mut());
        running.ok_or_else(|| Error::conflict("nothing is prepared"))
    }

    fn take_running(&mut self) -> Result<Running> {
        let running = self.held.as_mut().and_then(|held| held.running.take());
        running.ok_or_else(|| Error::conflict("nothing is prepared"))
    }

    /// Nothing to go back from is fine.
    fn back_out(&mut self, reason: Option<String>) -> Result<()> {
        match (self.take_running(), &self.held) {
            (Ok(running), _) => running.back_out(reason),
            // One whose preparation failed has gone back already, or could not.
            (Err(_), Some(held)) => match journal::Journal::read(&held.places)? {
                Some(journal) => undo::back_out(&self.engine, &held.places, &journal, reason),
                None => Ok(()),
            },
            (Err(_), None) => Ok(()),
        }
    }
}

/// Leaves everything as it was before a rollout whose preparation failed.
fn undo_failed(engine: &Engine, places: &Places, error: &Error) {
    let reason = engine::error::chain(error);
    if let Ok(Some(journal)) = journal::Journal::read(places) {
        // When even that fails, the journal stays: it is tried again, and told, when the client lets go.
        let _ = undo::back_out(engine, places, &journal, Some(reason));
    }
}
