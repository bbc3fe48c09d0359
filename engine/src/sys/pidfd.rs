//! Signals to a process that is held by descriptor, and copies of its descriptors.
#![expect(
    unsafe_code,
    reason = "real-time signals have no safe name, nor has a descriptor of another process"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

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

/// A copy of the descriptor that the process has under this number (pidfd_getfd(2)).
pub(crate) fn copy_descriptor(process: BorrowedFd<'_>, number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: numbers.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0u32) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let number = RawFd::try_from(result).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel has just opened it for this process, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
