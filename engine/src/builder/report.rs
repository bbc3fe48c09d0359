//! How work tells what it does: events from several threads to the one that listens.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::fault::{Fault, Source};
use super::lint::Rules;
use super::{BuildEvent, Failure, Stream, Vertex, Warning};

/// Where events go.
#[derive(Debug, Clone)]
pub(crate) struct Reporter<M> {
    sender: Sender<M>,
    next: Arc<AtomicU32>,
    /// The Dockerfile, to show what warnings mean.
    source: Arc<Source>,
    /// Which rules for Dockerfiles count, once that is known.
    rules: Arc<OnceLock<Rules>>,
}

/// One vertex while it is worked on.
#[derive(Debug)]
pub(crate) struct Work<M> {
    reporter: Reporter<M>,
    vertex: Vertex,
    name: String,
    started: Instant,
    tail: VecDeque<(Duration, String)>,
    line: Vec<u8>,
}

/// How many lines of a failed command's output are shown again.
const TAIL: usize = 25;

// === impl Reporter ===

impl<M: From<BuildEvent>> Reporter<M> {
    /// A reporter whose vertices count from 1.
    pub(crate) fn to(sender: Sender<M>, source: Source) -> Self {
        Self { sender, next: Arc::new(AtomicU32::new(1)), source: Arc::new(source), rules: Arc::default() }
    }

    /// Starts work on something.
    pub(crate) fn start(&self, name: impl Into<String>) -> Work<M> {
        let vertex = Vertex(self.next.fetch_add(1, Ordering::Relaxed));
        let name = name.into();
        self.send(BuildEvent::Started { vertex, name: name.clone() });
        Work {
            reporter: Self {
                sender: self.sender.clone(),
                next: self.next.clone(),
                source: self.source.clone(),
                rules: self.rules.clone(),
            },
            vertex,
            name,
            started: Instant::now(),
            tail: VecDeque::new(),
            line: Vec::new(),
        }
    }

    /// Tells of a rule that was not kept.
    pub(crate) fn warn(&self, rule: &'static str, line: usize, message: impl Into<String>) {
        if !self.rules.get().is_none_or(|rules| rules.count(rule, line)) {
            return;
        }
        let excerpt = self.source.excerpt(line, line);
        self.send(BuildEvent::Warning(Warning { rule, message: message.into(), line, excerpt }));
    }

    /// Says which rules count from now on.
    pub(crate) fn judge_by(&self, rules: Rules) {
        // A Dockerfile is read once.
        let _ = self.rules.set(rules);
    }

    /// Whether what was told of is an error.
    ///
    /// # Errors
    /// When the Dockerfile says so.
    pub(crate) fn verdict(&self) -> Result<(), Fault> {
        self.rules.get().map_or(Ok(()), Rules::verdict)
    }

    /// Tells anything.
    pub(crate) fn send(&self, event: BuildEvent) {
        // Nobody listening any more is no reason to stop working.
        let _ = self.sender.send(event.into());
    }
}

// === impl Work ===

impl<M: From<BuildEvent>> Work<M> {
    /// A line for people.
    pub(crate) fn note(&self, text: impl Into<String>) {
        self.reporter.send(BuildEvent::Note { vertex: self.vertex, text: text.into() });
    }

    /// What a command printed.
    pub(crate) fn output(&mut self, stream: Stream, bytes: &[u8]) {
        self.reporter.send(BuildEvent::Output { vertex: self.vertex, stream, bytes: bytes.to_owned() });
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.end_line();
            }
        }
    }

    /// The result was there.
    pub(crate) fn cached(self) {
        self.reporter.send(BuildEvent::Cached(self.vertex));
    }

    /// It was ended, because of something else.
    pub(crate) fn called_off(self) {
        self.reporter.send(BuildEvent::CalledOff(self.vertex));
    }

    /// It is done.
    pub(crate) fn done(self) {
        self.reporter.send(BuildEvent::Done { vertex: self.vertex, took: self.started.elapsed() });
    }

    /// It failed. Returns what people want to see of it.
    pub(crate) fn failed(mut self, message: &str) -> Failure {
        if !self.line.is_empty() {
            self.end_line();
        }
        self.reporter.send(BuildEvent::Failed { vertex: self.vertex, message: message.to_owned() });
        Failure { vertex: Some(self.name), tail: self.tail.into(), ..Failure::default() }
    }

    fn end_line(&mut self) {
        let text = String::from_utf8_lossy(&self.line).trim_end_matches(['\r', '\n']).to_owned();
        self.line.clear();
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back((self.started.elapsed(), text));
    }
}
