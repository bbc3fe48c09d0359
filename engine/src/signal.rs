//! Signals by name or number, as `kill -s` and `STOPSIGNAL` take them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A Linux signal, 1 to 64 (signal(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Signal(i32);

/// Why a text is not a signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid signal {0:?}: a name as in SIGTERM or a number from 1 to 64 is needed")]
pub struct ParseSignalError(String);

const NAMES: [(&str, i32); 32] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
    ("POLL", libc::SIGPOLL),
];

/// The first real-time signal that programs may use: glibc keeps 32 and 33 for itself.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

// === impl Signal ===

impl Signal {
    /// Please end.
    pub const TERM: Self = Self(libc::SIGTERM);
    /// End now; cannot be caught.
    pub const KILL: Self = Self(libc::SIGKILL);

    /// The number the kernel knows it by.
    pub fn number(self) -> i32 {
        self.0
    }
}

impl FromStr for Signal {
    type Err = ParseSignalError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseSignalError(text.to_owned());
        if let Ok(number) = text.parse::<i32>() {
            return if (1..=RTMAX).contains(&number) { Ok(Self(number)) } else { Err(wrong()) };
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let real_time = |base: i32, sign: i32, offset: &str| -> Option<i32> {
            let offset = if offset.is_empty() { 0 } else { offset[1..].parse::<i32>().ok()? };
            Some(base + sign * offset).filter(|number| (RTMIN..=RTMAX).contains(number))
        };
        let number = if let Some(offset) = name.strip_prefix("RTMIN") {
            offset
                .is_empty()
                .then_some(RTMIN)
                .or_else(|| offset.starts_with('+').then(|| real_time(RTMIN, 1, offset)).flatten())
        } else if let Some(offset) = name.strip_prefix("RTMAX") {
            offset
                .is_empty()
                .then_some(RTMAX)
                .or_else(|| offset.starts_with('-').then(|| real_time(RTMAX, -1, offset)).flatten())
        } else {
            NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
        };
        number.map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => write!(f, "SIG{name}"),
            None if self.0 >= RTMIN => write!(f, "SIGRTMIN+{}", self.0 - RTMIN),
            None => write!(f, "{}", self.0),
        }
    }
}

impl TryFrom<String> for Signal {
    type Error = ParseSignalError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Signal> for String {
    fn from(signal: Signal) -> String {
        signal.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_known_by_name_or_number() {
        for text in ["TERM", "SIGTERM", "sigterm", "15"] {
            assert_eq!(text.parse(), Ok(Signal::TERM), "{text}");
        }
        assert_eq!("RTMIN+3".parse::<Signal>().unwrap().number(), 37);
        assert_eq!("SIGRTMAX-1".parse::<Signal>().unwrap().number(), 63);
        for wrong in ["", "0", "65", "NOPE", "RTMIN+40", "RTMIN-1"] {
            assert!(wrong.parse::<Signal>().is_err(), "{wrong:?}");
        }
    }
}
