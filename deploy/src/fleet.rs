//! Hosts that do the same at once: all succeed, or the failures are told together.

use std::thread;

use engine::error::{Error, Result};

use crate::host::Host;
use crate::message::{Event, Request};

/// The hosts of a deployment, each with what it is about there.
#[derive(Debug)]
pub struct Fleet<T> {
    /// The hosts.
    pub members: Vec<Member<T>>,
}

/// One host.
#[derive(Debug)]
pub struct Member<T> {
    /// The host.
    pub host: Host,
    /// What it is about there.
    pub task: T,
}

/// Why some hosts did not do what all were to do.
#[derive(Debug)]
pub struct Failures(pub Vec<(String, Error)>);

// === impl Fleet ===

impl<T: Send> Fleet<T> {
    /// Does something on every host at once, and waits for all. What each came to is in their order.
    ///
    /// # Errors
    /// When one failed, or several; all that did are told.
    pub fn each<R: Send>(
        &mut self,
        work: impl Fn(&mut Host, &mut T) -> Result<R> + Sync,
    ) -> Result<Vec<R>, Failures> {
        let work = &work;
        let results: Vec<(String, Result<R>)> = thread::scope(|scope| {
            let running: Vec<_> = self
                .members
                .iter_mut()
                .map(|member| {
                    let name = member.host.name().to_owned();
                    (name, scope.spawn(move || work(&mut member.host, &mut member.task)))
                })
                .collect();
            running
                .into_iter()
                .map(|(name, thread)| {
                    let result = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                    (name, result)
                })
                .collect()
        });
        let mut done = Vec::new();
        let mut failed = Vec::new();
        for (name, result) in results {
            match result {
                Ok(value) => done.push(value),
                Err(error) => failed.push((name, error)),
            }
        }
        if failed.is_empty() { Ok(done) } else { Err(Failures(failed)) }
    }

    /// Keeps others from changing a project on every host as long as the connections last, in the order of the hosts'
    /// names, so that two who do this never wait for each other. Every host waits so many milliseconds for whoever is at
    /// it, and tells what it has to put right first.
    ///
    /// # Errors
    /// When a host is not free.
    pub fn lock(
        &mut self,
        project: &str,
        author: &str,
        wait_ms: u64,
        told: &dyn Fn(&str, Event),
    ) -> Result<()> {
        self.members.sort_by(|a, b| a.host.name().cmp(b.host.name()));
        for Member { host, .. } in &mut self.members {
            let name = host.name().to_owned();
            let request = Request::Lock { project: project.to_owned(), author: author.to_owned(), wait_ms };
            host.ask(&request, &|event| told(&name, event))
                .map_err(|error| Error::from(Failures(vec![(name.clone(), error)])))?;
        }
        Ok(())
    }

    /// The hosts' names.
    pub fn names(&self) -> Vec<&str> {
        self.members.iter().map(|member| member.host.name()).collect()
    }
}

impl<T> Drop for Fleet<T> {
    /// All agents are let go before one is waited for.
    fn drop(&mut self) {
        self.members.iter_mut().for_each(|member| member.host.hang_up());
    }
}

// === impl Failures ===

impl From<Failures> for Error {
    fn from(Failures(all): Failures) -> Self {
        let hint = all.iter().find_map(|(_, error)| error.hint().map(str::to_owned));
        let text = all
            .iter()
            .map(|(name, error)| {
                let text = engine::error::chain(error);
                if names(&text, name) { text } else { format!("host {name}: {text}") }
            })
            .collect::<Vec<_>>()
            .join("\n");
        Self::new(engine::Kind::Failed, text).with_hint_if(hint)
    }
}

/// Whether a failure says which host it is about: whoever reached it in vain has done so. A plain word may as well be a
/// service's name.
fn names(text: &str, host: &str) -> bool {
    let is_plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let beginning = if is_plain { format!("host {host}: ") } else { host.to_owned() };
    text.contains(&beginning) || text.starts_with(&format!("{host} "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_is_called_like_a_service_is_named_all_the_same() {
        let said = |host: &str, text: &str| {
            Error::from(Failures(vec![(host.to_owned(), Error::invalid(text.to_owned()))])).to_string()
        };
        assert_eq!(said("web", "service web: it ended"), "host web: service web: it ended");
        assert_eq!(said("web", "host web: it is lost"), "host web: it is lost");
        assert_eq!(said("web", "web accepts publickey"), "web accepts publickey");
        assert_eq!(said("me@web.example", "no way to me@web.example"), "no way to me@web.example");
    }
}
