//! Connections of the host, carried to where their port leads.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::net::{Shutdown, sockopt};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};

/// For how long nobody is let in when there is no descriptor left.
pub(crate) const BREATH: Duration = Duration::from_millis(100);
/// An other side that is gone without a word is found out, as a server of its own would.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// What is read at once. Nothing is kept of it but what the other side does not take at that moment, which is no more than
/// this for each direction: one that reads slowly is sent to slowly.
const MOST: usize = 128 << 10;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; MOST]);
}

/// Lets in whoever comes. Those who are in stay when this ends.
pub(super) async fn accept(listener: TcpListener, target: SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((outside, _)) => drop(tokio::task::spawn_local(carry(outside, target))),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_) => tokio::time::sleep(BREATH).await,
        }
    }
}

/// Calls the target and carries what both sides say, until both have said all.
pub(crate) async fn carry(outside: TcpStream, target: SocketAddr) {
    let connected = tokio::select! {
        connected = TcpStream::connect(target) => connected,
        error = broken(&outside) => Err(error),
    };
    let Ok(inside) = connected else { return cut(&outside) };
    for stream in [&outside, &inside] {
        let _ = stream.set_nodelay(true);
        let _ = sockopt::set_socket_keepalive(stream, true);
        let _ = sockopt::set_tcp_keepidle(stream, KEEP_ALIVE);
    }
    let both = async { tokio::try_join!(one_way(&outside, &inside), one_way(&inside, &outside)) };
    let ended = tokio::select! {
        biased;
        ended = both => ended.map(drop),
        error = broken(&outside) => Err(error),
        error = broken(&inside) => Err(error),
    };
    if ended.is_err() {
        cut(&outside);
        cut(&inside);
    }
}

/// Carries what one side says to the other one, and that it has nothing more to say.
async fn one_way(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    loop {
        from.readable().await?;
        let read = BUFFER.with_borrow_mut(|buffer| {
            let length = from.try_read(buffer)?;
            let bytes = buffer.get(..length).unwrap_or_default();
            let written = match to.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                written => written?,
            };
            Ok((length, bytes.get(written..).unwrap_or_default().to_vec()))
        });
        let (length, mut rest) = match read {
            Err(error) if error_is_temporary(&error) => continue,
            read => read?,
        };
        if length == 0 {
            return Ok(rustix::net::shutdown(to, Shutdown::Write)?);
        }
        while !rest.is_empty() {
            to.writable().await?;
            match to.try_write(&rest) {
                Ok(written) => drop(rest.drain(..written)),
                Err(error) if error_is_temporary(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn error_is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Until the other side resets the connection.
async fn broken(stream: &TcpStream) -> io::Error {
    match stream.ready(Interest::ERROR).await {
        Ok(_) => io::ErrorKind::ConnectionReset.into(),
        Err(error) => error,
    }
}

/// The other side learns that this was no ordinary end.
fn cut(stream: &TcpStream) {
    let _ = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}
