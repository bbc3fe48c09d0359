//! `--progress`: a build's events as a live view of the terminal, plain lines, JSON, or nothing.

use std::io::IsTerminal;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::builder::BuildEvent;
use crate::builder::progress::{Plain, Tty, explain, json};
use crate::cli::output;
use crate::error::{Error, Result};

/// How a build's events are shown.
pub(super) enum Show {
    Plain(Plain),
    Tty(Live),
    Json,
    Quiet,
}

/// A view that is drawn again and again on a thread of its own.
pub(super) struct Live {
    view: Arc<Mutex<View>>,
    stop: Sender<()>,
    painter: Option<JoinHandle<()>>,
}

struct View {
    tty: Tty,
    /// Lines drawn last time.
    drawn: usize,
}

/// How often the view is drawn.
const TICK: Duration = Duration::from_millis(100);

// === impl Show ===

impl Show {
    /// The view that `--progress` asks for; `auto` looks at where it is shown.
    pub(super) fn of(progress: &str) -> Result<Self> {
        let is_terminal = std::io::stderr().is_terminal();
        match progress {
            "quiet" | "none" => Ok(Self::Quiet),
            "plain" => Ok(Self::Plain(Plain::new())),
            "rawjson" => Ok(Self::Json),
            "tty" if !is_terminal => Err(Error::invalid("--progress tty needs a terminal on standard error")),
            "tty" => Ok(Self::Tty(Live::start())),
            "auto" if is_terminal && std::env::var_os("TERM").is_none_or(|term| term != "dumb") => {
                Ok(Self::Tty(Live::start()))
            }
            "auto" => Ok(Self::Plain(Plain::new())),
            other => Err(Error::invalid(format!("invalid progress {other:?}"))
                .with_hint("auto, plain, tty, quiet and rawjson are there")),
        }
    }

    /// Shows an event.
    pub(super) fn event(&mut self, event: &BuildEvent) {
        match self {
            Self::Plain(plain) => output::raw_error(plain.text(event).as_bytes()),
            Self::Tty(live) => live.apply(event),
            Self::Json => {
                if let Some(line) = json::line(event) {
                    output::note(&line);
                }
            }
            Self::Quiet => {
                if let BuildEvent::Failure(failure) = event {
                    output::raw_error(explain(failure).as_bytes());
                }
            }
        }
    }

    /// Ends the view.
    pub(super) fn finish(self, is_success: bool) {
        if let Self::Tty(live) = self {
            live.finish(is_success);
        }
    }
}

// === impl Live ===

impl Live {
    fn start() -> Self {
        let view = Arc::new(Mutex::new(View { tty: Tty::new(), drawn: 0 }));
        let (stop, stopped) = channel();
        let painted = view.clone();
        let painter = std::thread::spawn(move || {
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                lock(&painted).draw();
            }
        });
        Self { view, stop, painter: Some(painter) }
    }

    fn apply(&self, event: &BuildEvent) {
        let mut view = lock(&self.view);
        view.tty.apply(event);
        if let BuildEvent::Failure(failure) = event {
            view.tty.finish(false);
            view.draw();
            view.drawn = 0;
            output::raw_error(explain(failure).as_bytes());
        }
    }

    fn finish(mut self, is_success: bool) {
        // The painter may have ended with a broken terminal.
        let _ = self.stop.send(());
        if let Some(painter) = self.painter.take() {
            let _ = painter.join();
        }
        let mut view = lock(&self.view);
        if is_success {
            view.tty.finish(true);
            view.draw();
        }
        output::raw_error(view.tty.warnings().as_bytes());
    }
}

// === impl View ===

impl View {
    fn draw(&mut self) {
        if self.tty.is_failed() && self.drawn == 0 {
            return;
        }
        // A terminal that does not know its size says 0.
        let size = rustix::termios::tcgetwinsize(std::io::stderr()).ok().filter(|size| size.ws_col > 0);
        let size = size.map(|size| (usize::from(size.ws_col), usize::from(size.ws_row)));
        let (width, height) = size.unwrap_or((80, 24));
        let lines = self.tty.lines(width, height.max(4));
        let mut text = String::new();
        if self.drawn > 0 {
            // Back to the first line of the view, and everything from there on cleared (ECMA-48, CPL and ED).
            text.push_str(&format!("\u{1b}[{}F\u{1b}[J", self.drawn));
        }
        for line in &lines {
            text.push_str(line);
            text.push('\n');
        }
        self.drawn = lines.len();
        output::raw_error(text.as_bytes());
    }
}

fn lock(view: &Mutex<View>) -> std::sync::MutexGuard<'_, View> {
    view.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
