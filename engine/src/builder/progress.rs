//! A build's events as the plain text that people and logs know. Pure: it returns text, it prints none.

pub mod json;
mod tty;

use std::collections::HashMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

pub use tty::Tty;

use super::{BuildEvent, Failure, Vertex, Warning};

/// Turns events into lines: `#7 [build 2/4] RUN make`, `#7 0.512 cc -c a.c`, `#7 DONE 1.2s`.
#[derive(Debug, Default)]
pub struct Plain {
    started: HashMap<Vertex, Instant>,
    open: HashMap<Vertex, Vec<u8>>,
    last: Option<Vertex>,
}

// === impl Plain ===

impl Plain {
    /// A new rendering.
    pub fn new() -> Self {
        Self::default()
    }

    /// The text of an event; lines end with a newline, and some events have none.
    pub fn text(&mut self, event: &BuildEvent) -> String {
        match event {
            BuildEvent::Planned(_) | BuildEvent::Material(_) => String::new(),
            BuildEvent::Started { vertex, name } => {
                self.started.insert(*vertex, Instant::now());
                self.lines(*vertex, [name.as_str()])
            }
            BuildEvent::Note { vertex, text } => self.lines(*vertex, text.lines()),
            BuildEvent::Output { vertex, bytes, .. } => self.output(*vertex, bytes),
            BuildEvent::Cached(vertex) => self.end(*vertex, "CACHED"),
            BuildEvent::CalledOff(vertex) => self.end(*vertex, "CANCELED"),
            BuildEvent::Done { vertex, took } => self.end(*vertex, &format!("DONE {}", seconds(*took))),
            BuildEvent::Failed { vertex, message } => self.end(*vertex, &format!("ERROR: {message}")),
            BuildEvent::Warning(warning) => {
                let Warning { rule, message, excerpt, .. } = warning;
                format!("WARN: {rule}: {message}\n{excerpt}\n\n")
            }
            BuildEvent::Failure(failure) => explain(failure),
        }
    }

    fn output(&mut self, vertex: Vertex, bytes: &[u8]) -> String {
        let time = self.started.get(&vertex).map(Instant::elapsed).unwrap_or_default();
        let open = self.open.entry(vertex).or_default();
        open.extend_from_slice(bytes);
        let Some(end) = open.iter().rposition(|byte| *byte == b'\n') else { return String::new() };
        let whole: Vec<u8> = open.drain(..=end).collect();
        let text = String::from_utf8_lossy(&whole).into_owned();
        let lines: Vec<String> =
            text.lines().map(|line| format!("{:.3} {line}", time.as_secs_f64())).collect();
        self.lines(vertex, lines.iter().map(String::as_str))
    }

    fn end(&mut self, vertex: Vertex, word: &str) -> String {
        let rest = match self.open.remove(&vertex).filter(|rest| !rest.is_empty()) {
            Some(mut rest) => {
                rest.push(b'\n');
                self.output(vertex, &rest)
            }
            None => String::new(),
        };
        self.started.remove(&vertex);
        let line = self.lines(vertex, [word]);
        self.last = None;
        format!("{rest}{line}\n")
    }

    /// Lines of one vertex; a blank line tells them from another's that was not finished.
    fn lines<'a>(&mut self, vertex: Vertex, lines: impl IntoIterator<Item = &'a str>) -> String {
        let mut text = String::new();
        if self.last.is_some_and(|last| last != vertex) {
            text.push('\n');
        }
        self.last = Some(vertex);
        for line in lines {
            let _ = writeln!(text, "#{} {line}", vertex.0);
        }
        text
    }
}

/// The end of a failed command's output, and the place in the Dockerfile.
pub fn explain(failure: &Failure) -> String {
    let mut text = String::new();
    if let Some(vertex) = failure.vertex.as_ref().filter(|_| !failure.tail.is_empty()) {
        let _ = writeln!(text, "------\n > {vertex}:");
        for (time, line) in &failure.tail {
            let _ = writeln!(text, "{:.3} {line}", time.as_secs_f64());
        }
        text.push_str("------\n");
    }
    if let Some(excerpt) = &failure.excerpt {
        let _ = writeln!(text, "{excerpt}");
    }
    if failure.has_prompt {
        text.push_str("a shell in the sandbox of the failed step, as it was left; exit ends the build\n");
    }
    text
}

/// A length of time as BuildKit prints it.
pub fn seconds(time: Duration) -> String {
    format!("{:.1}s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::Stream;

    #[test]
    fn events_become_the_lines_people_know() {
        let mut plain = Plain::new();
        let vertex = Vertex(7);
        let mut text = String::new();
        for event in [
            BuildEvent::Started { vertex, name: "[2/2] RUN make".into() },
            BuildEvent::Output { vertex, stream: Stream::Stdout, bytes: b"one\ntw".to_vec() },
            BuildEvent::Output { vertex, stream: Stream::Stdout, bytes: b"o".to_vec() },
            BuildEvent::Done { vertex, took: Duration::from_millis(1234) },
            BuildEvent::Started { vertex: Vertex(8), name: "exporting to image".into() },
            BuildEvent::Cached(Vertex(8)),
        ] {
            text.push_str(&plain.text(&event));
        }
        let wanted = "#7 [2/2] RUN make\n#7 0.000 one\n#7 0.000 two\n#7 DONE 1.2s\n\n#8 exporting to image\n#8 CACHED\n\n";
        assert_eq!(text, wanted);
    }

    #[test]
    fn a_failure_shows_the_output_and_the_place() {
        let failure = Failure {
            vertex: Some("[2/2] RUN x".into()),
            tail: vec![(Duration::from_millis(120), "no such thing".into())],
            excerpt: Some("Dockerfile:2".into()),
            has_prompt: false,
        };
        assert_eq!(explain(&failure), "------\n > [2/2] RUN x:\n0.120 no such thing\n------\nDockerfile:2\n");
    }
}
