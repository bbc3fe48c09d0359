//! The line to the client, and what happens when it goes dead: the agent ends at once, and whoever guards the rollout
//! puts things right.

use std::io::{self, Write as _};
use std::process;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// How long a client may be silent. It sends a beat every three seconds (see [`crate::protocol`]).
const SILENCE: Duration = Duration::from_secs(12);

/// The code an agent ends with whose client is gone.
const CLIENT_GONE: i32 = 3;

/// Standard input through a pipe of our own. The process ends when the client hangs up or says nothing for too long,
/// whatever it is busy with.
pub(crate) fn watched() -> io::Result<io::PipeReader> {
    let (reader, writer) = io::pipe()?;
    std::thread::Builder::new().name("line".to_owned()).spawn(move || {
        let _ = pass_on(writer);
        process::exit(CLIENT_GONE);
    })?;
    Ok(reader)
}

/// Returns when nothing more will come.
fn pass_on(mut writer: io::PipeWriter) -> io::Result<()> {
    let stdin = rustix::stdio::stdin();
    let mut buffer = vec![0; 1 << 16];
    let silence = Timespec::try_from(SILENCE).map_err(io::Error::other)?;
    loop {
        match poll(&mut [PollFd::from_borrowed_fd(stdin, PollFlags::IN)], Some(&silence)) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        match rustix::io::read(stdin, &mut buffer)? {
            0 => return Ok(()),
            // Whoever is busy with this piece is alive, and so is the client that waits for it to be taken.
            count => writer.write_all(&buffer[..count])?,
        }
    }
}
