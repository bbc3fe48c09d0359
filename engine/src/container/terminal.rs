//! The user's side of a terminal: raw mode, its size, and the keys that leave a container without ending it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::str::FromStr;

use rustix::termios::{OptionalActions, Termios, Winsize};

use crate::container::plan::TerminalSize;

/// Keeps a terminal in raw mode; it is as before when this is dropped.
#[derive(Debug)]
pub struct RawMode {
    terminal: OwnedFd,
    before: Termios,
}

/// The keys that detach from a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys(Vec<u8>);

/// Why a text names no keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid detach keys {0:?}: write single characters and ctrl-<key>, separated by commas")]
pub struct ParseKeysError(String);

/// Looks for the detach keys in what is typed.
#[derive(Debug)]
pub(crate) struct KeyWatch {
    keys: Vec<u8>,
    matched: usize,
}

/// What became of typed bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// They go on to the container.
    Bytes(Vec<u8>),
    /// The user leaves; these came before the keys.
    Detach(Vec<u8>),
}

// === impl RawMode ===

impl RawMode {
    /// Puts this terminal into raw mode; `None` when it is no terminal.
    ///
    /// # Errors
    /// When the terminal refuses.
    pub fn enter(terminal: impl AsFd) -> io::Result<Option<Self>> {
        let terminal = terminal.as_fd();
        if !rustix::termios::isatty(terminal) {
            return Ok(None);
        }
        let before = rustix::termios::tcgetattr(terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(terminal, OptionalActions::Now, &raw)?;
        Ok(Some(Self { terminal: terminal.try_clone_to_owned()?, before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = rustix::termios::tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

/// The size of this terminal; `None` when it is no terminal or has none.
pub fn size_of(terminal: BorrowedFd<'_>) -> Option<TerminalSize> {
    let size = rustix::termios::tcgetwinsize(terminal).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some(TerminalSize { rows: size.ws_row, columns: size.ws_col })
}

/// Gives a terminal this size; the program in it gets SIGWINCH.
pub(crate) fn resize(terminal: BorrowedFd<'_>, size: TerminalSize) -> io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

// === impl DetachKeys ===

impl Default for DetachKeys {
    /// Control-P, Control-Q.
    fn default() -> Self {
        Self(vec![0x10, 0x11])
    }
}

impl FromStr for DetachKeys {
    type Err = ParseKeysError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseKeysError(text.to_owned());
        if text.is_empty() {
            return Ok(Self::default());
        }
        let key = |key: &str| match (key.strip_prefix("ctrl-"), key.as_bytes()) {
            (None, [byte]) => Some(*byte),
            (Some(name), _) => match name.as_bytes() {
                [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
                b"@" => Some(0),
                [symbol @ b'['..=b'_'] => Some(symbol - b'[' + 27),
                _ => None,
            },
            _ => None,
        };
        text.split(',').map(key).collect::<Option<Vec<u8>>>().map(Self).ok_or_else(wrong)
    }
}

// === impl KeyWatch ===

impl KeyWatch {
    pub(crate) fn new(keys: &DetachKeys) -> Self {
        Self { keys: keys.0.clone(), matched: 0 }
    }

    /// Sorts typed bytes. The beginning of the keys is held back until the next byte shows what it was.
    pub(crate) fn typed(&mut self, bytes: &[u8]) -> Typed {
        let mut passed = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if self.keys[self.matched] == *byte {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    self.matched = 0;
                    return Typed::Detach(passed);
                }
                continue;
            }
            passed.extend_from_slice(&self.keys[..self.matched]);
            self.matched = usize::from(self.keys.len() > 1 && self.keys[0] == *byte);
            if self.matched == 0 {
                passed.push(*byte);
            }
        }
        Typed::Bytes(passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_docker_writes_them() {
        assert_eq!("ctrl-p,ctrl-q".parse(), Ok(DetachKeys::default()));
        assert_eq!("a,ctrl-@,ctrl-]".parse(), Ok(DetachKeys(vec![b'a', 0, 29])));
        for wrong in ["ctrl-", "ctrl-1", "ab", ","] {
            assert!(wrong.parse::<DetachKeys>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_keys_detach_and_their_beginnings_do_not() {
        let mut watch = KeyWatch::new(&DetachKeys::default());
        let bytes = |bytes: &[u8]| Typed::Bytes(bytes.to_vec());
        assert_eq!(watch.typed(b"ab\x10"), bytes(b"ab"));
        assert_eq!(watch.typed(b"c"), bytes(b"\x10c"));
        assert_eq!(watch.typed(b"\x10\x10"), bytes(b"\x10"));
        assert_eq!(watch.typed(b"\x11x"), Typed::Detach(Vec::new()));
    }

    #[test]
    fn raw_mode_ends_with_its_guard() {
        let master = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR).unwrap();
        rustix::pty::grantpt(&master).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let local = |fd: &OwnedFd| rustix::termios::tcgetattr(fd).unwrap().local_modes;
        let before = local(&master);
        let guard = RawMode::enter(&master).unwrap().unwrap();
        assert_ne!(local(&master), before);
        drop(guard);
        assert_eq!(local(&master), before);
        resize(master.as_fd(), TerminalSize { rows: 24, columns: 80 }).unwrap();
        assert_eq!(size_of(master.as_fd()), Some(TerminalSize { rows: 24, columns: 80 }));
        let pipe = crate::container::stdio::Pipe::new().unwrap();
        assert!(RawMode::enter(&pipe.read).unwrap().is_none());
    }
}
