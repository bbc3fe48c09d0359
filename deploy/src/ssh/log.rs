//! What an ssh process says, as it comes, shared between the one who listens and those who ask.

use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The text so far. Only its end is kept when it gets long.
#[derive(Debug, Clone, Default)]
pub(super) struct Log(Arc<(Mutex<String>, Condvar)>);

/// More than any healthy connection says in a day, in bytes.
const LONGEST: usize = 256 << 10;

// === impl Log ===

impl Log {
    /// Reads once and adds what came; says whether anything did.
    pub(super) fn read_from(&self, source: &mut impl Read) -> bool {
        let mut chunk = [0; 8192];
        loop {
            match source.read(&mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return false,
                Ok(count) => {
                    self.add(&String::from_utf8_lossy(&chunk[..count]));
                    return true;
                }
            }
        }
    }

    /// The text so far.
    pub(super) fn text(&self) -> String {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until this has been said, for a while.
    pub(super) fn wait_for(&self, words: &str, within: Duration) {
        let text = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.0.1.wait_timeout_while(text, within, |text| !text.contains(words));
    }

    /// Takes this text out, and says whether it was there.
    pub(super) fn take_out(&self, part: &str) -> bool {
        let mut text = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(start) = text.find(part) else { return false };
        text.replace_range(start..start + part.len(), "");
        true
    }

    fn add(&self, more: &str) {
        let mut text = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.push_str(more);
        if text.len() > LONGEST {
            let cut = text.ceil_char_boundary(text.len() - LONGEST / 2);
            text.drain(..cut);
        }
        self.0.1.notify_all();
    }
}
