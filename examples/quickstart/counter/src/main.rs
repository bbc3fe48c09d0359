//! Gives out the numbers 1, 2, 3, … over TCP, one a connection, and remembers the last in `/data`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

const ADDRESS: &str = "0.0.0.0:7000";
const FILE: &str = "/data/last";

fn main() -> io::Result<()> {
    if std::env::args().nth(1).as_deref() == Some("check") {
        return TcpStream::connect("127.0.0.1:7000").map(drop);
    }
    let listener = TcpListener::bind(ADDRESS)?;
    let mut last = last_number()?;
    for client in listener.incoming() {
        // A client that leaves early, as the health check does, has no number and costs nobody else one.
        if let Ok(client) = client
            && asks(&client)
        {
            last += 1;
            remember(last)?;
            let _ = writeln!(&client, "{last}");
        }
    }
    Ok(())
}

fn asks(mut client: &TcpStream) -> bool {
    matches!(client.read(&mut [0]), Ok(1))
}

fn last_number() -> io::Result<u64> {
    match fs::read_to_string(FILE) {
        Ok(text) => text.trim().parse().map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// A number that has been given out is never given out again, not even after a power cut.
fn remember(number: u64) -> io::Result<()> {
    let temporary = Path::new(FILE).with_extension("new");
    let mut file = File::create(&temporary)?;
    writeln!(file, "{number}")?;
    file.sync_all()?;
    fs::rename(&temporary, FILE)
}
