//! Who sees a deployment through that was decided when its client is gone: a process of its own, which knows the hosts
//! and the release, and does nothing as long as the client lives.
//!
//! When every host has changed over, it is decided that all of them finish; but they are told one by one, and a host
//! that is not told goes back by itself. That the heir has read the whole will is the one moment before which a
//! deployment whose client dies goes back everywhere, and after which it goes on everywhere.

use std::io::{self, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use engine::error::{Error, Result};
use rustix::process::setsid;
use serde::{Deserialize, Serialize};

use crate::host::{Host, Place};
use crate::message::{Event, Outcome, Request, Rollout, confused, millis};
use crate::release::ReleaseId;

/// What is to be done when the client is gone.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Will {
    /// The project.
    pub(crate) project: String,
    /// Who deploys it.
    pub(crate) author: String,
    /// The hosts.
    pub(crate) hosts: Vec<Legacy>,
}

/// A host, and what is rolled out there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Legacy {
    /// How it is reached.
    pub(crate) place: Place,
    /// The release that served when the rollout began.
    pub(crate) previous: Option<ReleaseId>,
    /// The release.
    pub(crate) rollout: Rollout,
}

/// The process that knows the will.
#[derive(Debug)]
pub(crate) struct Heir {
    child: Child,
    line: ChildStdin,
}

/// The name that asks for it.
const NAME: &str = "rdeploy-heir";

/// What it hears when there is nothing left to do.
const DISMISSED: &str = "dismissed\n";

/// How long a host is tried to be reached.
const TRIES: Duration = Duration::from_secs(30);

/// How long to wait before a host is tried again.
const BETWEEN_TRIES: Duration = Duration::from_secs(1);

// === impl Heir ===

impl Heir {
    /// Tells a new process the will. When this returns, it is decided.
    ///
    /// # Errors
    /// When there is no such process; then nothing is decided.
    pub(crate) fn appoint(will: &Will) -> Result<Self> {
        let failed = |error| Error::failed("start who sees the deployment through", error);
        let mut command = Command::new("/proc/self/exe");
        // Whoever waits for the end of this program's output is not to wait for the heir's.
        command.arg0(NAME).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.current_dir("/").spawn().map_err(failed)?;
        let Some(mut line) = child.stdin.take() else { return Err(Error::conflict("the heir has no pipe")) };
        let mut text = serde_json::to_vec(will).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        if let Err(error) = line.write_all(&text) {
            drop(line);
            // Half a will is none: it ends by itself.
            let _ = child.wait();
            return Err(failed(error));
        }
        Ok(Self { child, line })
    }

    /// There is nothing left to do.
    pub(crate) fn dismiss(mut self) {
        // One that is gone already does not have to go.
        let _ = self.line.write_all(DISMISSED.as_bytes());
        drop(self.line);
        let _ = self.child.wait();
    }
}

/// Becomes the heir when this process was started to.
pub fn enter_if_asked() -> Option<ExitCode> {
    (std::env::args_os().next()? == NAME).then(|| {
        // It outlives the session of its client.
        let _ = setsid();
        match inherit(&mut BufReader::new(io::stdin().lock())) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        }
    })
}

/// Waits for the end of the client, and acts when it was not meant to be.
fn inherit(line: &mut impl io::BufRead) -> Result<()> {
    let failed = |error| Error::failed("read the will", error);
    let mut text = String::new();
    line.read_line(&mut text).map_err(failed)?;
    if !text.ends_with('\n') {
        return Ok(());
    }
    let will: Will = serde_json::from_str(&text).map_err(|error| failed(error.into()))?;
    let mut last = String::new();
    // A client that is killed says nothing, and a broken line says as much.
    let _ = line.read_line(&mut last);
    if last == DISMISSED {
        return Ok(());
    }
    thread::scope(|scope| {
        let all: Vec<_> = will
            .hosts
            .iter()
            .map(|legacy| scope.spawn(|| see_through(&will.project, &will.author, legacy, &|_| {})))
            .collect();
        all.into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Result<Vec<_>>>()
            .map(drop)
    })
}

/// Brings one host to the release, which may have it, be about to have it, or have gone back; for [`TRIES`]. `told` takes
/// what happens.
///
/// # Errors
/// When it could not be reached, or cannot have it.
pub(crate) fn see_through(
    project: &str,
    author: &str,
    legacy: &Legacy,
    told: &dyn Fn(Event),
) -> Result<Host> {
    let began = Instant::now();
    let mut said = String::new();
    loop {
        match bring(project, author, legacy, told) {
            Ok(host) => return Ok(host),
            Err(error) if began.elapsed() >= TRIES => return Err(error),
            Err(error) => {
                let text = format!("{}; trying again", engine::error::chain(&error));
                if text != said {
                    told(Event::Remark(text.clone()));
                    said = text;
                }
            }
        }
        thread::sleep(BETWEEN_TRIES);
    }
}

fn bring(project: &str, author: &str, legacy: &Legacy, told: &dyn Fn(Event)) -> Result<Host> {
    let mut host = legacy.place.reach()?;
    let project = project.to_owned();
    // Whoever has the lock has put right what was left there: it went on, or back.
    let lock = Request::Lock { project: project.clone(), author: author.to_owned(), wait_ms: millis(TRIES) };
    host.ask(&lock, told)?;
    let Outcome::Status(status) = host.ask(&Request::Status { project }, &|_| {})? else {
        return Err(confused());
    };
    // Neither what it has already nor what somebody else has deployed since is touched.
    if status.release == legacy.previous && status.release.as_ref() != Some(&legacy.rollout.release.id) {
        for request in [Request::Prepare(Box::new(legacy.rollout.clone())), Request::Commit, Request::Finish]
        {
            host.ask(&request, told)?;
        }
    }
    Ok(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_will_is_none_and_whoever_is_dismissed_does_nothing() {
        let nowhere = |rest: &str| {
            let will = r#"{"project": "p", "author": "me", "hosts": []}"#;
            inherit(&mut format!("{will}{rest}").as_bytes())
        };
        nowhere("").unwrap();
        nowhere("\ndismissed\n").unwrap();
        nowhere("\n").unwrap();
        inherit(&mut "{\"project\"".as_bytes()).unwrap();
        assert!(inherit(&mut "{\"project\"\n".as_bytes()).is_err());
    }
}
