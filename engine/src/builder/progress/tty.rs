//! A build as a live view of a terminal, as buildx has it: finished steps, running ones with their last lines.
//! Pure: it keeps what happened and returns lines; whoever owns the terminal draws them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::seconds;
use crate::builder::{BuildEvent, Vertex};

/// What a terminal shows of a build.
#[derive(Debug)]
pub struct Tty {
    started: Instant,
    steps: Vec<Step>,
    ended: Option<(Duration, bool)>,
    warnings: Vec<String>,
}

#[derive(Debug)]
struct Step {
    vertex: Vertex,
    name: String,
    started: Instant,
    end: Option<End>,
    log: VecDeque<String>,
    open: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Cached,
    Done(Duration),
    Failed(Duration),
    CalledOff(Duration),
}

/// How many lines of a running command's output are shown.
const WINDOW: usize = 6;

// === impl Tty ===

impl Tty {
    /// A build that begins now.
    pub fn new() -> Self {
        Self { started: Instant::now(), steps: Vec::new(), ended: None, warnings: Vec::new() }
    }

    /// Takes in what happened.
    pub fn apply(&mut self, event: &BuildEvent) {
        match event {
            BuildEvent::Started { vertex, name } => self.steps.push(Step {
                vertex: *vertex,
                name: name.clone(),
                started: Instant::now(),
                end: None,
                log: VecDeque::new(),
                open: String::new(),
            }),
            BuildEvent::Output { vertex, bytes, .. } => self.output(*vertex, bytes),
            BuildEvent::Cached(vertex) => self.end(*vertex, |_| End::Cached),
            BuildEvent::Done { vertex, took } => self.end(*vertex, |_| End::Done(*took)),
            BuildEvent::Failed { vertex, .. } => {
                self.end(*vertex, |step| End::Failed(step.started.elapsed()))
            }
            BuildEvent::CalledOff(vertex) => self.end(*vertex, |step| End::CalledOff(step.started.elapsed())),
            BuildEvent::Warning(warning) => {
                self.warnings.push(format!("{}: {}\n{}", warning.rule, warning.message, warning.excerpt));
            }
            BuildEvent::Planned(_)
            | BuildEvent::Material(_)
            | BuildEvent::Note { .. }
            | BuildEvent::Failure(_) => {}
        }
    }

    /// Says that nothing more will happen.
    pub fn finish(&mut self, is_success: bool) {
        self.ended = Some((self.started.elapsed(), is_success));
    }

    /// Whether it is over, and failed.
    pub fn is_failed(&self) -> bool {
        matches!(self.ended, Some((_, false)))
    }

    /// The lines to show on a terminal of this size. A finished build is shown whole.
    pub fn lines(&self, width: usize, height: usize) -> Vec<String> {
        let done = self.steps.iter().filter(|step| step.end.is_some()).count();
        let count = format!("({done}/{})", self.steps.len());
        let head = match self.ended {
            Some((took, true)) => format!("[+] Building {} {count} FINISHED", seconds(took)),
            Some((took, false)) => format!("[+] Building {} {count} FAILED", seconds(took)),
            None => format!("[+] Building {} {count}", seconds(self.started.elapsed())),
        };
        let mut lines: Vec<String> = self.steps.iter().flat_map(|step| step.lines(width)).collect();
        let room = height.saturating_sub(2).max(1);
        if self.ended.is_none() && lines.len() > room {
            // What runs is more interesting than what has ended, and comes later.
            lines.drain(..lines.len() - room);
        }
        lines.insert(0, fitted(&head, width));
        lines
    }

    /// What is to be said about the Dockerfile when the build is over.
    pub fn warnings(&self) -> String {
        let count = self.warnings.len();
        if count == 0 {
            return String::new();
        }
        let word = if count == 1 { "warning" } else { "warnings" };
        format!("\n {count} {word} found:\n\n{}\n", self.warnings.join("\n\n"))
    }

    fn output(&mut self, vertex: Vertex, bytes: &[u8]) {
        let Some(step) = self.steps.iter_mut().find(|step| step.vertex == vertex) else { return };
        for c in String::from_utf8_lossy(bytes).chars() {
            match c {
                // Progress bars write a line over and over.
                '\r' => step.open.clear(),
                '\n' => {
                    if step.log.len() == WINDOW {
                        step.log.pop_front();
                    }
                    step.log.push_back(std::mem::take(&mut step.open));
                }
                c => step.open.push(c),
            }
        }
    }

    fn end(&mut self, vertex: Vertex, how: impl Fn(&Step) -> End) {
        if let Some(step) = self.steps.iter_mut().find(|step| step.vertex == vertex) {
            step.end = Some(how(step));
        }
    }
}

impl Default for Tty {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Step ===

impl Step {
    fn lines(&self, width: usize) -> Vec<String> {
        let (word, time) = match self.end {
            None => ("", self.started.elapsed()),
            Some(End::Cached) => ("CACHED ", Duration::ZERO),
            Some(End::Done(took)) => ("", took),
            Some(End::Failed(took)) => ("ERROR ", took),
            Some(End::CalledOff(took)) => ("CANCELED ", took),
        };
        let time = seconds(time);
        let text = fitted(&format!(" => {word}{}", self.name), width.saturating_sub(time.len() + 1));
        let gap = width.saturating_sub(text.chars().count() + time.len());
        let mut lines = vec![format!("{text}{}{time}", " ".repeat(gap))];
        if self.end.is_none() {
            let shown = |line: &String| fitted(&format!(" => => # {line}"), width);
            lines.extend(self.log.iter().map(shown));
        }
        lines
    }
}

/// A text on one line of this width, without what would move the cursor.
fn fitted(text: &str, width: usize) -> String {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            // A control sequence ends with a letter (ECMA-48, 5.4).
            '\u{1b}' => {
                if chars.next() == Some('[') {
                    let _ = chars.find(|c| ('@'..='~').contains(c));
                }
            }
            '\t' => plain.push_str("    "),
            c if c.is_control() => {}
            c => plain.push(c),
        }
    }
    if plain.chars().count() <= width {
        return plain;
    }
    plain.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::Stream;

    #[test]
    fn a_running_step_shows_its_last_lines_and_a_finished_one_its_time() {
        let mut tty = Tty::new();
        let start = |tty: &mut Tty, number, name: &str| {
            tty.apply(&BuildEvent::Started { vertex: Vertex(number), name: name.into() });
        };
        start(&mut tty, 1, "[1/2] FROM box");
        tty.apply(&BuildEvent::Cached(Vertex(1)));
        start(&mut tty, 2, "[2/2] RUN make");
        let bytes: Vec<u8> = (0..9).flat_map(|n| format!("\u{1b}[1mline {n}\n10%\r").into_bytes()).collect();
        tty.apply(&BuildEvent::Output { vertex: Vertex(2), stream: Stream::Stdout, bytes });
        let lines = tty.lines(40, 24);
        assert!(lines[0].starts_with("[+] Building 0.") && lines[0].ends_with("(1/2)"), "{lines:?}");
        assert_eq!(lines[1], " => CACHED [1/2] FROM box           0.0s");
        assert_eq!(lines[3], " => => # line 3");
        assert_eq!(lines.len(), 3 + WINDOW);
        assert_eq!(tty.lines(40, 4).len(), 3);
        tty.apply(&BuildEvent::Done { vertex: Vertex(2), took: Duration::from_millis(1234) });
        tty.finish(true);
        let lines = tty.lines(20, 2);
        assert_eq!(lines[2], " => [2/2] RUN … 1.2s");
        assert!(lines[0].ends_with('…'), "{lines:?}");
    }
}
