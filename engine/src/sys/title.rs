//! The command line that others see of a process.
#![expect(unsafe_code, reason = "the kernel shows the memory that the arguments were put into")]

use std::fs;
use std::io;
use std::ptr;

/// Shows this in place of the arguments that the process was executed with, which end with it: whoever lists processes
/// sees nothing else (proc_pid_cmdline(5)). A longer text is cut. Only a process with one thread may call it.
pub(crate) fn set(title: &str) -> io::Result<()> {
    let strange = || io::Error::from(io::ErrorKind::InvalidData);
    let stat = fs::read_to_string("/proc/self/stat")?;
    // Behind the name comes the third field; the arguments begin at the 48th and end at the 49th (proc_pid_stat(5)).
    let (_, fields) = stat.rsplit_once(')').ok_or_else(strange)?;
    let mut places = fields.split_whitespace().skip(48 - 3).map(str::parse::<usize>);
    let mut place = || places.next().and_then(Result::ok).filter(|place| *place != 0).ok_or_else(strange);
    let (start, end) = (place()?, place()?);
    let room = end.checked_sub(start).filter(|room| *room > 0).ok_or_else(strange)?;
    let length = title.len().min(room - 1);
    let arguments = ptr::with_exposed_provenance_mut::<u8>(start);
    // SAFETY: the kernel has put the arguments there, in the writable stack of this process, for as long as it lives.
    // Whoever reads them later finds texts that end, as before, and nobody reads them meanwhile.
    unsafe { ptr::write_bytes(arguments, 0, room) };
    // SAFETY: as above, and `length` is less than the room.
    unsafe { ptr::copy_nonoverlapping(title.as_ptr(), arguments, length) };
    Ok(())
}
