//! Signals to a process that is held by descriptor.
#![expect(unsafe_code, reason = "real-time signals have no safe name")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sends the process a signal, real-time ones included (pidfd_send_signal(2)).
pub(crate) fn send_signal(process: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    // SAFETY: numbers, and a null pointer that asks for the information kill(2) would send.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            number,
            std::ptr::null::<libc::siginfo_t>(),
            0u32,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
