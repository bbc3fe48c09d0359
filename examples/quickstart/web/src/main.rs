//! Answers every request on port 8080 with the next number, which it asks the service `counter` for.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

const COUNTER: &str = "counter:7000";
const PATIENCE: Duration = Duration::from_secs(5);

fn main() -> io::Result<()> {
    if std::env::args().nth(1).as_deref() == Some("check") {
        return check();
    }
    let listener = TcpListener::bind("0.0.0.0:8080")?;
    for client in listener.incoming().flatten() {
        thread::spawn(move || {
            // A browser that went away needs no answer.
            let _ = answer(&client);
        });
    }
    Ok(())
}

fn answer(mut client: &TcpStream) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(client).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    // The rest of the head has to be read, or closing would reset the connection under the answer.
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let (status, text) = match request.split(' ').nth(1) {
        Some("/") => match next_number() {
            Ok(number) => ("200 OK", format!("You are visitor number {number}.\n")),
            Err(error) => ("502 Bad Gateway", format!("The counter does not answer: {error}\n")),
        },
        Some("/health") => ("200 OK", "ok\n".to_owned()),
        _ => ("404 Not Found", "There is nothing here.\n".to_owned()),
    };
    let length = text.len();
    write!(
        client,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{text}"
    )
}

fn next_number() -> io::Result<u64> {
    let mut counter = TcpStream::connect(COUNTER)?;
    counter.set_read_timeout(Some(PATIENCE))?;
    counter.write_all(b"?")?;
    let mut text = String::new();
    counter.read_to_string(&mut text)?;
    text.trim().parse().map_err(io::Error::other)
}

fn check() -> io::Result<()> {
    let mut web = TcpStream::connect("127.0.0.1:8080")?;
    web.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    web.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(io::Error::other(answer)) }
}
