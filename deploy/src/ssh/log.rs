//! What an ssh process says, as it comes, shared between the one who listens and those who ask.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

/// The text so far. Only its end is kept when it gets long.
#[derive(Debug, Clone, Default)]
pub(super) struct Log(Arc<Mutex<String>>);

/// More than any healthy connection says in a day, in bytes.
const LONGEST: usize = 256 << 10;

// === impl Log ===

impl Log {
    /// Reads once and adds what came; says whether anything did.
    pub(super) fn read_from(&self, source: &mut impl Read) -> bool {
        let mut chunk = [0; 8192];
        match source.read(&mut chunk) {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.add(&String::from_utf8_lossy(&chunk[..count]));
                true
            }
        }
    }

    /// The text so far.
    pub(super) fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes this text out, and says whether it was there.
    pub(super) fn take_out(&self, part: &str) -> bool {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(start) = text.find(part) else { return false };
        text.replace_range(start..start + part.len(), "");
        true
    }

    fn add(&self, more: &str) {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.push_str(more);
        if text.len() > LONGEST {
            let cut = text.ceil_char_boundary(text.len() - LONGEST / 2);
            text.drain(..cut);
        }
    }
}
