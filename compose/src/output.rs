//! Everything that is printed: data on standard output, progress and remarks on standard error.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use engine::container::stdio::Stream;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::execute::Event;
use crate::operation::{Operation, Provision};
use crate::runtime::Telling;

/// Writes one line of data.
pub fn line(text: &str) {
    raw(format!("{text}\n").as_bytes());
}

/// Writes data as it is.
pub fn raw(bytes: &[u8]) {
    // A reader that went away is success (`rcompose ps | head -1`); nothing else can be done about it here.
    let _ = offer(bytes);
}

/// Writes data as it is; whether anybody still reads.
#[must_use]
pub fn offer(bytes: &[u8]) -> bool {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).is_ok()
}

/// Writes one line for the person.
pub fn note(text: &str) {
    raw_error(format!("{text}\n").as_bytes());
}

/// Writes a warning.
pub fn warning(text: &str) {
    note(&format!("WARNING: {text}"));
}

/// In whose name failures are told.
static SPEAKER: OnceLock<&'static str> = OnceLock::new();

/// Tells failures in the name of another program from now on, whose user never called this one.
pub fn speak_as(program: &'static str) {
    // Whoever was first is the one that was called.
    let _ = SPEAKER.set(program);
}

/// Writes a failure and what to do about it.
pub fn failure(text: &str, hint: Option<&str>) {
    note(&format!("{}: {text}", SPEAKER.get().unwrap_or(&"rcompose")));
    if let Some(hint) = hint {
        note(&format!("hint: {hint}"));
    }
}

/// Asks a person for a yes.
pub fn confirm(question: &str) -> bool {
    raw_error(format!("{question} [y/N] ").as_bytes());
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// How wide the columns of a table are.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// No column but the last is narrower, with its gap.
    pub narrowest: usize,
    /// The spaces between two columns.
    pub gap: usize,
}

/// As wide as the widest cell.
pub const PLAIN: Layout = Layout { narrowest: 0, gap: 3 };

/// As docker compose has most of its tables.
pub const WIDE: Layout = Layout { narrowest: 20, gap: 3 };

/// As docker compose has tables of many columns.
pub const TIGHT: Layout = Layout { narrowest: 4, gap: 2 };

/// Writes rows as a table.
pub fn table(layout: Layout, head: &[&str], rows: &[Vec<String>]) {
    let head: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    let all: Vec<&Vec<String>> = std::iter::once(&head).chain(rows).collect();
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            let cells = all.iter().filter_map(|row| row.get(column));
            let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
            if column + 1 == head.len() { 0 } else { (widest + layout.gap).max(layout.narrowest) }
        })
        .collect();
    let mut text = String::new();
    for row in all {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.concat().trim_end());
        text.push('\n');
    }
    raw(text.as_bytes());
}

// === progress ===

/// How progress is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ProgressMode {
    /// Live on a terminal, plain elsewhere.
    #[default]
    Auto,
    /// Live.
    Tty,
    /// A line for each thing that is done.
    Plain,
    /// A JSON object for each change.
    Json,
    /// Not at all.
    Quiet,
}

/// When control characters are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Ansi {
    /// Where a terminal is.
    #[default]
    Auto,
    /// Everywhere.
    Always,
    /// Nowhere.
    Never,
}

/// Shows how far a plan is.
pub struct Progress {
    mode: ProgressMode,
    to_stdout: bool,
    all: MultiProgress,
    bars: Mutex<BTreeMap<String, ProgressBar>>,
}

// === impl Progress ===

impl Progress {
    /// Progress in this mode, on standard output or standard error; `auto` looks at what is there, unless control
    /// characters are never or always written.
    pub fn new(mode: ProgressMode, ansi: Ansi, to_stdout: bool) -> Self {
        let is_live = match ansi {
            Ansi::Auto if to_stdout => io::stdout().is_terminal(),
            Ansi::Auto => io::stderr().is_terminal(),
            Ansi::Always => true,
            Ansi::Never => false,
        };
        let mode = match mode {
            ProgressMode::Auto if is_live => ProgressMode::Tty,
            ProgressMode::Auto => ProgressMode::Plain,
            other => other,
        };
        let target = if to_stdout { ProgressDrawTarget::stdout() } else { ProgressDrawTarget::stderr() };
        Self { mode, to_stdout, all: MultiProgress::with_draw_target(target), bars: Mutex::default() }
    }

    /// Shows an event of a walk.
    pub fn show(&self, event: &Event<'_>) {
        match event {
            Event::Began(operation) if is_shown(operation) => {
                let long = matches!(
                    operation,
                    Operation::PullImage { .. }
                        | Operation::BuildImage { .. }
                        | Operation::Await { .. }
                        | Operation::Prove { .. }
                        | Operation::Watch { .. }
                );
                self.change(&operation.object(), operation.words().0, Phase::Working { long });
            }
            Event::Done(operation, took) if is_shown(operation) => {
                self.change(&operation.object(), operation.words().1, Phase::Done(*took));
            }
            Event::Failed(operation) => self.change(&operation.object(), "Error", Phase::Failed),
            Event::Forgiven(operation, why) => {
                self.change(&operation.object(), "Skipped", Phase::Failed);
                let object = operation.object();
                let is_named = why.to_lowercase().starts_with(&object.to_lowercase());
                let about = if is_named { String::new() } else { format!("{object}: ") };
                self.remark(&format!("WARNING: {about}{why}"));
            }
            Event::Began(_) | Event::Done(..) => {}
        }
    }

    /// Shows something that is as it should be already.
    pub fn stands(&self, object: &str, word: &str) {
        self.change(object, word, Phase::Done(Duration::ZERO));
    }

    /// Shows something that is being done.
    pub fn begins(&self, object: &str, word: &str) {
        self.change(object, word, Phase::Working { long: true });
    }

    /// Shows something that failed.
    pub fn fails(&self, object: &str) {
        self.change(object, "Error", Phase::Failed);
    }

    /// Shows what an operation tells.
    pub fn tell(&self, telling: &Telling<'_>) {
        match telling {
            Telling::Build(_, bytes) => self.pass(bytes),
            Telling::Built(..) => {}
            Telling::Pull(image, progress) => self.pulled(image, progress),
            Telling::Said(object, text) => self.change(object, text, Phase::Working { long: true }),
            Telling::Hook(container, line) if self.mode == ProgressMode::Json => {
                self.change(&format!("Container {container}"), line, Phase::Working { long: true });
            }
            Telling::Hook(container, line) => self.remark(&format!("{container} ->  | {line}")),
            Telling::Warning(text) => self.remark(&format!("WARNING: {text}")),
        }
    }

    /// A line between the others.
    pub fn remark(&self, text: &str) {
        match self.mode {
            ProgressMode::Quiet => {}
            ProgressMode::Tty => {
                let _ = self.all.println(text);
            }
            _ => self.note(text),
        }
    }

    /// Leaves the lines as they are and makes no new ones.
    pub fn finish(&self) {
        for bar in self.bars.lock().unwrap_or_else(PoisonError::into_inner).values() {
            if !bar.is_finished() {
                bar.abandon();
            }
        }
    }

    fn pass(&self, bytes: &[u8]) {
        match self.mode {
            ProgressMode::Quiet => {}
            ProgressMode::Tty => self.all.suspend(|| self.write(bytes)),
            _ => self.write(bytes),
        }
    }

    fn note(&self, text: &str) {
        self.write(format!("{text}\n").as_bytes());
    }

    fn write(&self, bytes: &[u8]) {
        if self.to_stdout { raw(bytes) } else { raw_error(bytes) }
    }

    fn pulled(&self, image: &str, progress: &engine::image::Progress) {
        use engine::image::Step;
        let word = match progress.step {
            Step::Complete => "Pull complete",
            Step::Exists => "Already exists",
            _ => return,
        };
        if self.mode == ProgressMode::Plain {
            self.note(&format!(" {} {word}", progress.layer.short()));
        } else {
            self.change(&format!("Image {image}"), "Pulling", Phase::Working { long: false });
        }
    }

    fn change(&self, object: &str, word: &str, phase: Phase) {
        match self.mode {
            ProgressMode::Quiet | ProgressMode::Auto => {}
            ProgressMode::Plain => match phase {
                Phase::Working { long: false } => {}
                _ => self.note(&format!(" {object}  {word}")),
            },
            ProgressMode::Json => {
                let status = match phase {
                    Phase::Working { .. } => "Working",
                    Phase::Done(_) => "Done",
                    Phase::Failed => "Error",
                };
                self.note(&serde_json::json!({ "id": object, "status": status, "text": word }).to_string());
            }
            ProgressMode::Tty => self.draw(object, word, phase),
        }
    }

    fn draw(&self, object: &str, word: &str, phase: Phase) {
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = bars.entry(object.to_owned()).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new_spinner());
            let style = ProgressStyle::with_template(" {spinner} {prefix}  {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.set_prefix(object.to_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        match phase {
            Phase::Working { .. } => bar.set_message(word.to_owned()),
            Phase::Done(took) => {
                finish(bar, "✔", &format!("{word}  {:.1}s", took.as_secs_f64()));
            }
            Phase::Failed => finish(bar, "✘", word),
        }
    }
}

/// How far one thing is.
#[derive(Clone, Copy)]
enum Phase {
    Working { long: bool },
    Done(Duration),
    Failed,
}

fn finish(bar: &ProgressBar, mark: &str, message: &str) {
    let style = ProgressStyle::with_template(&format!(" {mark} {{prefix}}  {{msg}}"));
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.abandon_with_message(message.to_owned());
}

/// A change of name is our own way of replacing a container, not news.
fn is_shown(operation: &Operation) -> bool {
    !matches!(
        operation,
        Operation::RenameContainer { .. }
            | Operation::HoldBack { .. }
            | Operation::Proceed { .. }
            | Operation::Provide { provision: Provision::Stop, .. }
    )
}

fn raw_error(bytes: &[u8]) {
    // Whoever read it has gone (`2>&1 | head`): that is no reason to leave things half done.
    let _ = io::stderr().lock().write_all(bytes);
}

// === log lines ===

/// Writes lines of several containers, each behind the name of its container.
#[derive(Debug)]
pub struct LogPrinter {
    width: usize,
    prefix: bool,
    colours: bool,
    splits: bool,
    known: Mutex<Vec<String>>,
}

/// The colours of names in front of lines, in docker compose's order; red is left to what goes wrong.
const COLOURS: [&str; 10] = ["36", "33", "32", "35", "34", "36;1", "33;1", "32;1", "35;1", "34;1"];

impl Ansi {
    /// Whether what goes to standard output is coloured.
    pub fn colours(self) -> bool {
        match self {
            Self::Auto => io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
            Self::Always => true,
            Self::Never => false,
        }
    }
}

impl LogPrinter {
    /// Names of up to this many characters are aligned.
    pub fn new(width: usize, prefix: bool, colours: bool) -> Self {
        Self { width, prefix, colours, splits: false, known: Mutex::default() }
    }

    /// What was written on standard error goes to standard error.
    pub fn splitting(self) -> Self {
        Self { splits: true, ..self }
    }

    /// Writes one line; `text` may or may not end with a line feed. Whether anybody still reads.
    #[must_use]
    pub fn print(&self, name: &str, time: Option<&str>, stream: Stream, text: &str) -> bool {
        let time = time.map(|time| format!("{time} ")).unwrap_or_default();
        let text = text.strip_suffix('\n').unwrap_or(text);
        let start = if self.prefix { self.start(name) } else { String::new() };
        let line = format!("{start}{time}{text}\n");
        match stream {
            Stream::Stderr if self.splits => {
                raw_error(line.as_bytes());
                true
            }
            _ => offer(line.as_bytes()),
        }
    }

    fn start(&self, name: &str) -> String {
        let width = self.width + 1;
        if !self.colours {
            return format!("{name:<width$} | ");
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let place = known.iter().position(|other| other == name).unwrap_or_else(|| {
            known.push(name.to_owned());
            known.len() - 1
        });
        format!("\x1b[{}m{name:<width$} | \x1b[0m", COLOURS[place % COLOURS.len()])
    }
}
