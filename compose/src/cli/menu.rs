//! Single keys while `up` is attached to a terminal, which hands them over one by one meanwhile.

use std::io::{IsTerminal as _, Read as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};

use crate::output;

/// A key that means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    /// `w`: bring files that change to the containers, or not any more.
    Watch,
    /// `d`: leave, and let the containers run.
    Detach,
}

/// Keys are obeyed as long as it is there.
pub(super) struct Menu {
    before: Termios,
}

// === impl Menu ===

impl Menu {
    /// Obeys keys when that is wished for; never away from a terminal, nor in the background of one, where reading
    /// would stop us.
    pub(super) fn open(is_wished: bool, pressed: impl Fn(Key) + Send + 'static) -> Option<Self> {
        let stdin = std::io::stdin();
        if !is_wished || !stdin.is_terminal() || !std::io::stdout().is_terminal() {
            return None;
        }
        // A terminal that does not control us has no background.
        let is_in_front = tcgetpgrp(&stdin).map_or(true, |group| group == rustix::process::getpgrp());
        let before = tcgetattr(&stdin).ok().filter(|_| is_in_front)?;
        let mut modes = before.clone();
        // Ctrl-C stays a signal.
        modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Now, &modes).ok()?;
        std::thread::spawn(move || {
            for byte in std::io::stdin().lock().bytes().map_while(Result::ok) {
                match byte {
                    b'w' | b'W' => pressed(Key::Watch),
                    b'd' | b'D' => pressed(Key::Detach),
                    // Room between what was before and what comes.
                    b'\n' | b'\r' => output::note(""),
                    _ => {}
                }
            }
        });
        Some(Self { before })
    }

    /// Says what the keys do.
    pub(super) fn show(&self, watches: bool) {
        let watch = if watches { "Disable" } else { "Enable" };
        output::note(&format!("\n   w {watch} Watch   d Detach   Ctrl+C Stop\n"));
    }
}

impl Drop for Menu {
    fn drop(&mut self) {
        // A terminal that is gone needs no modes.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}
