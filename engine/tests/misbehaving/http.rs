//! Just enough of HTTP/1.1 for one request a connection, and ways to break it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A request, its body still to be read.
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) stream: BufReader<TcpStream>,
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// Whether only the head goes out: `HEAD`.
    pub(crate) head_only: bool,
}

/// Bytes of a dripping answer that come at once.
const DROP: usize = 64 << 10;

impl Request {
    /// Reads a request's head. `None` for what is no request, such as the hello of TLS.
    pub(crate) fn read(stream: TcpStream) -> Option<Self> {
        let mut stream = BufReader::new(stream);
        if !stream.fill_buf().ok()?.first()?.is_ascii_uppercase() {
            return None;
        }
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let mut words = line.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let mut headers = BTreeMap::new();
        loop {
            let mut header = String::new();
            stream.read_line(&mut header).ok()?;
            let Some((name, value)) = header.trim_end().split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        Some(Self { method, path: path.to_owned(), query: query.to_owned(), headers, stream })
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn parameter(&self, name: &str) -> Option<String> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.replace("%3A", ":"))
    }

    /// How many bytes the body has.
    pub(crate) fn length(&self) -> usize {
        self.header("content-length").parse().unwrap_or(0)
    }

    /// So many bytes of the body, or what comes of them.
    pub(crate) fn body(&mut self, length: usize) -> Vec<u8> {
        let mut body = Vec::new();
        let _ = (&mut self.stream).take(length as u64).read_to_end(&mut body);
        body
    }

    /// Ends the connection the hard way.
    pub(crate) fn reset(&self) {
        // With no time to linger, closing sends a reset (tcp(7), SO_LINGER).
        let _ = rustix::net::sockopt::set_socket_linger(self.stream.get_ref(), Some(Duration::ZERO));
    }

    pub(crate) fn answer(&mut self, answer: &Answer) {
        let _ = self.stream.get_mut().write_all(&answer.bytes());
    }

    /// Sends half of an answer, and resets the connection.
    pub(crate) fn answer_half(&mut self, answer: &Answer) {
        let bytes = answer.bytes();
        let end = bytes.len() - answer.body.len() / 2;
        let _ = self.stream.get_mut().write_all(&bytes[..end]);
        self.reset();
    }

    /// Sends an answer in small pieces.
    pub(crate) fn answer_slowly(&mut self, answer: &Answer) {
        for piece in answer.bytes().chunks(DROP) {
            if self.stream.get_mut().write_all(piece).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Answer {
    pub(crate) fn of(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), head_only: false }
    }

    pub(crate) fn error(status: u16, code: &str) -> Self {
        let body = format!(r#"{{"errors":[{{"code":"{code}","message":"the registry says {code}"}}]}}"#);
        Self::of(status).body(body)
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let length = self.body.len();
        let mut head =
            format!("HTTP/1.1 {} Said\r\nConnection: close\r\nContent-Length: {length}\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        if !self.head_only {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}
