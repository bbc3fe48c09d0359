//! Signals as readable bytes: a handler that does nothing but write the signal's number into a pipe.
#![expect(unsafe_code, reason = "sigaction exists in no safe form")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, Ordering};

use crate::sys::pipe::{Pipe, never_block};

/// Catches signals for as long as it lives; one at a time in a process.
#[derive(Debug)]
pub(crate) struct Notices {
    read: OwnedFd,
    write: OwnedFd,
    previous: Vec<(i32, libc::sigaction)>,
}

/// Where the handler writes to; -1 while nobody listens.
static TARGET: AtomicI32 = AtomicI32::new(-1);
static TURN: Mutex<()> = Mutex::new(());

// === impl Notices ===

impl Notices {
    /// Catches these signals. When somebody else in this process does already, nothing is caught.
    pub(crate) fn of(signals: &[i32]) -> io::Result<Self> {
        let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Pipe { read, write } = Pipe::new()?;
        never_block(&read)?;
        never_block(&write)?;
        let mut notices = Self { read, write, previous: Vec::new() };
        let target = notices.write.as_raw_fd();
        if TARGET.compare_exchange(-1, target, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            for signal in signals {
                let previous = set_action(*signal, &handling())?;
                notices.previous.push((*signal, previous));
            }
        }
        Ok(notices)
    }

    /// Readable when a signal came.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }

    /// The signals that came since the last look.
    pub(crate) fn take(&self) -> Vec<i32> {
        let mut numbers = [0; 64];
        match rustix::io::read(&self.read, &mut numbers) {
            Ok(length) => numbers[..length].iter().copied().map(i32::from).collect(),
            Err(_) => Vec::new(),
        }
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for (signal, previous) in &self.previous {
            // The action was valid before; there is nothing to do about a kernel that refuses it now.
            let _ = set_action(*signal, previous);
        }
        let mine = self.write.as_raw_fd();
        let _ = TARGET.compare_exchange(mine, -1, Ordering::SeqCst, Ordering::SeqCst);
    }
}

extern "C" fn handle(signal: libc::c_int) {
    let target = TARGET.load(Ordering::SeqCst);
    if target < 0 {
        return;
    }
    // SAFETY: errno's place is valid for this thread.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above; the interrupted code must find its errno unchanged.
    let saved = unsafe { errno.read() };
    let number = signal.to_le_bytes()[0];
    // SAFETY: one byte that lives through the call; write is async-signal-safe; a full pipe loses nothing that
    // matters.
    unsafe { libc::write(target, std::ptr::from_ref(&number).cast(), 1) };
    // SAFETY: as above.
    unsafe { errno.write(saved) };
}

fn handling() -> libc::sigaction {
    // SAFETY: all zeroes is a valid sigaction: default action, empty mask, no flags.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handle as extern "C" fn(libc::c_int) as usize;
    action.sa_flags = libc::SA_RESTART;
    action
}

fn set_action(signal: i32, action: &libc::sigaction) -> io::Result<libc::sigaction> {
    let mut previous = *action;
    // SAFETY: both structures live through the call; the handler is async-signal-safe.
    let result = unsafe { libc::sigaction(signal, action, &mut previous) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(previous) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_noticed_and_then_handled_as_before() {
        let notices = Notices::of(&[libc::SIGWINCH]).unwrap();
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::WINCH).unwrap();
        let mut waiting =
            [rustix::event::PollFd::from_borrowed_fd(notices.descriptor(), rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut waiting, None).ok();
        rustix::event::poll(&mut waiting, None).unwrap();
        assert_eq!(notices.take(), [libc::SIGWINCH]);
        assert!(notices.take().is_empty());
        drop(notices);
        assert_eq!(TARGET.load(Ordering::SeqCst), -1);
    }
}
