//! Frames on the two pipes between a client and the agent on a host: a length, a kind, and JSON or plain bytes.
//!
//! A client that waits sends a beat now and then; it is how an agent knows that the client is alive.
//! Whoever asks waits for the answer, and one conversation at a time goes over a channel. Neither side trusts a length
//! further than [`LONGEST`].

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest frame either side takes, in bytes. What is longer is sent in several.
pub const LONGEST: usize = 16 << 20;

/// One end of a connection, with a count of what went over it.
pub struct Channel {
    reader: Box<dyn Read + Send>,
    writer: Writer,
    sent: u64,
    received: u64,
}

/// The way out, which a channel shares with its heart.
type Writer = Arc<Mutex<Box<dyn Write + Send>>>;

/// Sends beats over a channel until it is dropped.
#[derive(Debug)]
pub struct Heart {
    stop: Option<std::sync::mpsc::Sender<()>>,
}

/// How often a client says that it is alive.
pub const BEAT: Duration = Duration::from_secs(3);

/// Why a frame did not come or go.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other side is gone.
    #[error("the connection has ended")]
    Closed,
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    /// What came is no frame of this protocol.
    #[error("what came over the connection was not understood: {0}")]
    Garbled(String),
}

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Message,
    Data,
    Beat,
}

const HEAD: usize = 5;

// === impl Channel ===

impl Channel {
    /// A channel over a way in and a way out. The way out is buffered here, and flushed when a message is sent.
    pub fn new(reader: impl Read + Send + 'static, writer: impl Write + Send + 'static) -> Self {
        Self {
            reader: Box::new(io::BufReader::with_capacity(1 << 16, reader)),
            writer: Arc::new(Mutex::new(Box::new(io::BufWriter::with_capacity(1 << 16, writer)))),
            sent: 0,
            received: 0,
        }
    }

    /// Sends a beat every [`BEAT`] from now on.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn heart(&self) -> io::Result<Heart> {
        let writer = self.writer.clone();
        let (stop, stopped) = std::sync::mpsc::channel();
        std::thread::Builder::new().name("heart".to_owned()).spawn(move || {
            while stopped.recv_timeout(BEAT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
                let head = [0, 0, 0, 0, Kind::Beat.byte()];
                if writer.write_all(&head).and_then(|()| writer.flush()).is_err() {
                    return;
                }
            }
        })?;
        Ok(Heart { stop: Some(stop) })
    }

    /// Bytes sent so far, heads of frames included.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Bytes received so far, heads of frames included.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Sends a message, and all data sent before it.
    ///
    /// # Errors
    /// When the other side is gone, or the message is too long.
    pub fn send(&mut self, message: &impl Serialize) -> Result<(), ChannelError> {
        let text = serde_json::to_vec(message).map_err(|error| ChannelError::Garbled(error.to_string()))?;
        self.write(Kind::Message, &text)?;
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).flush().map_err(broken)
    }

    /// Receives a message.
    ///
    /// # Errors
    /// When the other side is gone, or sent something else.
    pub fn receive<T: DeserializeOwned>(&mut self) -> Result<T, ChannelError> {
        let bytes = self.read(Kind::Message)?;
        serde_json::from_slice(&bytes).map_err(|error| ChannelError::Garbled(error.to_string()))
    }

    /// Sends bytes as they are; they leave at the latest with the next message.
    ///
    /// # Errors
    /// When the other side is gone, or there are too many of them.
    pub fn send_data(&mut self, bytes: &[u8]) -> Result<(), ChannelError> {
        self.write(Kind::Data, bytes)
    }

    /// Lets what was sent leave now.
    ///
    /// # Errors
    /// When the other side is gone.
    pub fn flush(&mut self) -> Result<(), ChannelError> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).flush().map_err(broken)
    }

    /// Receives bytes that the other side sent in one piece.
    ///
    /// # Errors
    /// When the other side is gone, or sent something else.
    pub fn receive_data(&mut self) -> Result<Vec<u8>, ChannelError> {
        self.read(Kind::Data)
    }

    fn write(&mut self, kind: Kind, bytes: &[u8]) -> Result<(), ChannelError> {
        let length = u32::try_from(bytes.len()).ok().filter(|_| bytes.len() <= LONGEST);
        let length = length.ok_or_else(|| {
            ChannelError::Garbled(format!("a frame of {} bytes is too long to send", bytes.len()))
        })?;
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(&length.to_be_bytes());
        head[4] = kind.byte();
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer.write_all(&head).map_err(broken)?;
        writer.write_all(bytes).map_err(broken)?;
        self.sent += (HEAD + bytes.len()) as u64;
        Ok(())
    }

    fn read(&mut self, wanted: Kind) -> Result<Vec<u8>, ChannelError> {
        loop {
            let (kind, bytes) = self.read_any()?;
            if kind == wanted {
                return Ok(bytes);
            }
            if kind != Kind::Beat {
                return Err(ChannelError::Garbled(format!("{kind:?} came where {wanted:?} was expected")));
            }
        }
    }

    fn read_any(&mut self) -> Result<(Kind, Vec<u8>), ChannelError> {
        let mut head = [0; HEAD];
        self.reader.read_exact(&mut head).map_err(broken)?;
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let kind = Kind::of(head[4]).filter(|_| length <= LONGEST);
        let kind = kind.ok_or_else(|| {
            let text = String::from_utf8_lossy(&head).into_owned();
            ChannelError::Garbled(format!("{text:?} does not begin a frame"))
        })?;
        let mut bytes = vec![0; length];
        self.reader.read_exact(&mut bytes).map_err(broken)?;
        self.received += (HEAD + length) as u64;
        Ok((kind, bytes))
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel").field("sent", &self.sent).field("received", &self.received).finish()
    }
}

// === impl Heart ===

impl Drop for Heart {
    fn drop(&mut self) {
        // The thread sees that nobody is left to tell it anything.
        self.stop = None;
    }
}

// === impl Kind ===

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::Message => b'm',
            Self::Data => b'd',
            Self::Beat => b'b',
        }
    }

    fn of(byte: u8) -> Option<Self> {
        [Self::Message, Self::Data, Self::Beat].into_iter().find(|kind| kind.byte() == byte)
    }
}

fn broken(error: io::Error) -> ChannelError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
            ChannelError::Closed
        }
        _ => ChannelError::Broken(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(bytes: Vec<u8>) -> Channel {
        Channel::new(io::Cursor::new(bytes), io::sink())
    }

    #[test]
    fn what_is_sent_is_what_comes() {
        let (reader, writer) = io::pipe().unwrap();
        let mut there = Channel::new(io::empty(), writer);
        let mut here = Channel::new(reader, io::sink());
        there.send_data(b"bytes").unwrap();
        there.send(&("word", 7)).unwrap();
        assert_eq!(here.receive_data().unwrap(), b"bytes");
        assert_eq!(here.receive::<(String, u32)>().unwrap(), ("word".to_owned(), 7));
        assert_eq!(here.received(), there.sent());
        drop(there);
        assert!(matches!(here.receive::<u32>(), Err(ChannelError::Closed)));
    }

    #[test]
    fn what_is_no_frame_is_refused_before_it_is_read() {
        let banner = channel(b"Welcome to the server\n".to_vec()).receive_data();
        assert!(matches!(&banner, Err(ChannelError::Garbled(said)) if said.contains("Welco")), "{banner:?}");
        let endless = channel(vec![0xff, 0xff, 0xff, 0xff, b'd']).receive_data();
        assert!(matches!(endless, Err(ChannelError::Garbled(_))));
        let other = channel(vec![0, 0, 0, 0, b'm']).receive_data();
        assert!(matches!(&other, Err(ChannelError::Garbled(said)) if said.contains("Message")), "{other:?}");
    }
}
