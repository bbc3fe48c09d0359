//! SSH agents that a build may use: one whose socket is there already, or one of our own for a key in a file.

use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::store::private_directory;
use crate::store::scratch::Scratch;

/// An agent to talk to, as long as this lives.
pub(crate) struct Agent {
    socket: PathBuf,
    _own: Option<Own>,
}

/// An agent that was started for a key. It ends with its holder.
struct Own {
    process: Child,
    _room: Scratch,
}

// === impl Agent ===

impl Agent {
    /// The agent at a socket, or one with the key in this file. What is made for it is made in `directory`, which is in
    /// memory.
    ///
    /// # Errors
    /// When it is neither, when there is no `ssh-agent`, or when the key cannot be read.
    pub(crate) fn at(directory: &Path, path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        if metadata.file_type().is_socket() {
            return Ok(Self { socket: path.to_owned(), _own: None });
        }
        if !metadata.is_file() {
            let message = "neither the socket of an SSH agent nor the file of a key";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        private_directory(directory)?;
        let room = Scratch::directory_in(directory)?;
        let socket = room.path().join("agent");
        let process = start(&socket)?;
        let own = Own { process, _room: room };
        add(&socket, path)?;
        Ok(Self { socket, _own: Some(own) })
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // One that has ended already is no trouble.
        let _ = self.process.kill().and_then(|()| self.process.wait());
    }
}

fn start(socket: &Path) -> io::Result<Child> {
    let mut agent = Command::new("ssh-agent");
    agent.arg("-D").arg("-a").arg(socket).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut process = agent.spawn().map_err(|error| missing(error, "ssh-agent"))?;
    // It says where it listens once it does.
    let mut line = String::new();
    if let Some(output) = process.stdout.take() {
        let mut reader = BufReader::new(output);
        reader.read_line(&mut line)?;
        // It has more to say, which nobody has to read.
        process.stdout = Some(reader.into_inner());
    }
    if line.is_empty() {
        let end = process.wait()?;
        return Err(io::Error::other(format!("ssh-agent did not start: {end}")));
    }
    Ok(process)
}

/// Gives the agent a key. Of one with a passphrase `ssh-add` asks at the terminal for it.
fn add(socket: &Path, key: &Path) -> io::Result<()> {
    let mut command = Command::new("ssh-add");
    command.arg("-q").arg(key).env("SSH_AUTH_SOCK", socket).stdout(Stdio::null()).stderr(Stdio::piped());
    let outcome = command.output().map_err(|error| missing(error, "ssh-add"))?;
    if outcome.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&outcome.stderr);
    Err(io::Error::other(said.split_whitespace().collect::<Vec<_>>().join(" ")))
}

fn missing(error: io::Error, program: &str) -> io::Error {
    let advice = "openssh-client has it; or give the socket of an agent that has the key";
    match error.kind() {
        io::ErrorKind::NotFound => io::Error::new(error.kind(), format!("{program} is not there: {advice}")),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn an_agent_for_a_key_has_that_key_and_ends_with_its_holder() {
        let temp = tempfile::tempdir().unwrap();
        let key = temp.path().join("key");
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "the-key", "-f", key.to_str().unwrap()])
            .status();
        assert!(made.unwrap().success());
        let directory = temp.path().join("run");
        let agent = Agent::at(&directory, &key).unwrap();
        let mut stream = UnixStream::connect(agent.socket()).unwrap();
        // A request of one byte: the identities (draft-ietf-sshm-ssh-agent, 3.5).
        stream.write_all(&[0, 0, 0, 1, 11]).unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut answer).unwrap();
        assert!(answer.ends_with(b"the-key"));
        let socket = agent.socket().to_owned();
        drop(agent);
        assert!(UnixStream::connect(&socket).is_err() && !socket.exists());
        assert!(Agent::at(&directory, temp.path()).is_err());
        std::fs::write(&key, "no key").unwrap();
        assert!(Agent::at(&directory, &key).is_err());
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
    }
}
