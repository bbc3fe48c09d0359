//! A registry of three servers (registry, tokens, storage) that misbehaves by a schedule.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use engine::id::Digest;

use crate::seed::Seed;

/// What goes wrong with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The connection ends without an answer.
    Reset,
    /// It ends in the middle of a body, whoever sends it.
    Half,
    /// 429 with a word on how long to wait.
    TooMany,
    /// 500, 502 or 503.
    Broken(u16),
    /// One byte of a body is another one.
    WrongByte,
    /// A body is longer than what was asked for.
    TooLong,
    /// A range is answered from the beginning.
    NoRange,
    /// A range is answered with another one.
    OtherRange,
    /// A body comes in small pieces.
    Drip,
    /// The token is no longer good.
    Expired,
}

const FAULTS: [Fault; 12] = [
    Fault::Reset,
    Fault::Half,
    Fault::Half,
    Fault::TooMany,
    Fault::Broken(500),
    Fault::Broken(502),
    Fault::Broken(503),
    Fault::NoRange,
    Fault::Drip,
    Fault::Drip,
    Fault::Expired,
    Fault::Reset,
];

/// Faults that a client cannot get over, only notice.
const LIES: [Fault; 3] = [Fault::WrongByte, Fault::TooLong, Fault::OtherRange];

/// What the three servers know together.
pub(crate) struct State {
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
    pub(crate) manifests: BTreeMap<String, Vec<u8>>,
    uploads: Vec<Vec<u8>>,
    seed: Seed,
    /// Of a hundred requests, so many go wrong.
    share: u64,
    /// Whether lies are among the faults.
    lies: bool,
    wants_token: bool,
    /// `user:password` that the token server wants.
    login: Option<String>,
    redirects: bool,
    /// How many requests each token is still good for.
    good_for: Vec<u64>,
    /// What no client may do.
    pub(crate) violations: Vec<String>,
    storage: String,
    tokens: String,
}

pub(crate) struct Servers {
    pub(crate) address: String,
    pub(crate) state: Arc<Mutex<State>>,
    is_over: Arc<AtomicBool>,
    listeners: Vec<(String, JoinHandle<()>)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Registry,
    Tokens,
    Storage,
}

struct Request {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
    /// Whether all of the body came.
    is_whole: bool,
}

type Headers = Vec<(&'static str, String)>;

struct Answer {
    status: u16,
    headers: Headers,
    body: Vec<u8>,
}

impl Servers {
    /// Starts servers whose behaviour depends on the seed alone.
    pub(crate) fn start(mut seed: Seed, login: Option<&str>) -> Self {
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (registry, tokens, storage) = (listen(), listen(), listen());
        let name = |listener: &TcpListener| listener.local_addr().unwrap().to_string();
        let wants_token = login.is_some() || seed.below(2) == 0;
        let state = State {
            blobs: BTreeMap::new(),
            manifests: BTreeMap::new(),
            uploads: Vec::new(),
            share: [0, 10, 25, 50, 90][usize::try_from(seed.below(5)).unwrap()],
            lies: seed.below(3) == 0,
            wants_token,
            login: login.map(str::to_owned),
            redirects: seed.below(2) == 0,
            good_for: Vec::new(),
            violations: Vec::new(),
            storage: name(&storage),
            tokens: name(&tokens),
            seed,
        };
        let (address, state) = (name(&registry), Arc::new(Mutex::new(state)));
        let is_over = Arc::new(AtomicBool::new(false));
        let serve = |(listener, role): (TcpListener, Role)| {
            let (state, is_over, address) = (state.clone(), is_over.clone(), name(&listener));
            let accept = move || {
                for stream in listener.incoming() {
                    if is_over.load(Ordering::Acquire) {
                        break;
                    }
                    let state = state.clone();
                    std::thread::spawn(move || {
                        // A client that goes away is no failure of the server's.
                        let _ = converse(stream?, role, &state);
                        std::io::Result::Ok(())
                    });
                }
            };
            (address, std::thread::spawn(accept))
        };
        let roles = [(registry, Role::Registry), (tokens, Role::Tokens), (storage, Role::Storage)];
        let listeners = roles.into_iter().map(serve).collect();
        Self { address, state, is_over, listeners }
    }

    /// From now on nothing goes wrong.
    pub(crate) fn behave(&self) {
        self.state().share = 0;
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        for (address, listener) in self.listeners.drain(..) {
            let _ = TcpStream::connect(address);
            let _ = listener.join();
        }
    }
}

impl State {
    fn fault(&mut self) -> Option<Fault> {
        if self.seed.below(100) >= self.share {
            return None;
        }
        if self.lies && self.seed.below(6) == 0 {
            return Some(*self.seed.one_of(&LIES));
        }
        Some(*self.seed.one_of(&FAULTS))
    }
}

fn converse(mut stream: TcpStream, role: Role, state: &Mutex<State>) -> std::io::Result<()> {
    let Some(mut request) = read_head(&mut stream)? else { return Ok(()) };
    let fault = state.lock().unwrap().fault();
    let length: usize = request.headers.get("content-length").map_or(0, |text| text.parse().unwrap());
    let read = if fault == Some(Fault::Half) && length > 1 { length / 2 } else { length };
    request.body = vec![0; read];
    stream.read_exact(&mut request.body)?;
    request.is_whole = read == length;
    let answer = {
        let mut state = state.lock().unwrap();
        match role {
            Role::Tokens => state.token_answer(&request, fault),
            Role::Registry => state.registry_answer(&request, fault),
            Role::Storage => state.storage_answer(&request, fault),
        }
    };
    match answer {
        Some(answer) if request.is_whole => write_answer(&mut stream, &request, &answer, fault),
        _ => Ok(()),
    }
}

fn read_head(stream: &mut TcpStream) -> std::io::Result<Option<Request>> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    // Byte by byte: what follows the head is the body's.
    let mut reader = BufReader::with_capacity(1, stream);
    let mut line = Vec::new();
    // A TLS client's hello is no request, and has no lines.
    let mut first = [0];
    reader.read_exact(&mut first)?;
    if !first[0].is_ascii_uppercase() {
        return Ok(None);
    }
    reader.read_until(b'\n', &mut line)?;
    let line = format!("{}{}", char::from(first[0]), String::from_utf8_lossy(&line));
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let path = path.replace("%3A", ":");
    Ok(Some(Request { method: method.to_owned(), path, headers, body: Vec::new(), is_whole: true }))
}

fn write_answer(
    stream: &mut TcpStream,
    request: &Request,
    answer: &Answer,
    fault: Option<Fault>,
) -> std::io::Result<()> {
    let mut body = answer.body.clone();
    let is_file = answer.status < 300 && !body.is_empty();
    match fault {
        Some(Fault::WrongByte) if is_file => body[0] ^= 1,
        Some(Fault::TooLong) if is_file => body.extend([0; 100]),
        _ => {}
    }
    let mut head =
        format!("HTTP/1.1 {} x\r\nConnection: close\r\nContent-Length: {}\r\n", answer.status, body.len());
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if request.method == "HEAD" {
        return Ok(());
    }
    match fault {
        Some(Fault::Half) => stream.write_all(&body[..body.len() / 2]),
        Some(Fault::Drip) => body.chunks(body.len() / 8 + 1).try_for_each(|piece| {
            std::thread::sleep(Duration::from_millis(2));
            stream.write_all(piece)
        }),
        _ => stream.write_all(&body),
    }
}

impl State {
    /// The answer of a server that is in trouble of its own; the outer `None` is one that is well.
    fn trouble(fault: Option<Fault>) -> Option<Option<Answer>> {
        match fault? {
            Fault::Reset => Some(None),
            Fault::TooMany => Some(Some(answer(429, vec![("Retry-After", "0".to_owned())], b"slow down"))),
            Fault::Broken(status) => Some(Some(answer(status, Vec::new(), b"broken"))),
            _ => None,
        }
    }

    fn token_answer(&mut self, request: &Request, fault: Option<Fault>) -> Option<Answer> {
        if let Some(trouble) = Self::trouble(fault) {
            return trouble;
        }
        let given = request.headers.get("authorization").cloned();
        let wanted = self.login.as_ref().map(|login| format!("Basic {login}"));
        if given != wanted {
            self.violations.push(format!("the token server got {given:?}"));
            return Some(answer(401, Vec::new(), b"no"));
        }
        let number = self.good_for.len();
        self.good_for.push(12 + self.seed.below(20));
        let body = format!("{{\"token\":\"t{number}\",\"expires_in\":5}}");
        Some(answer(200, vec![("Content-Type", "application/json".to_owned())], body.as_bytes()))
    }

    fn storage_answer(&mut self, request: &Request, fault: Option<Fault>) -> Option<Answer> {
        if let Some(given) = request.headers.get("authorization") {
            self.violations.push(format!("the storage got {given:?}"));
        }
        if let Some(trouble) = Self::trouble(fault) {
            return trouble;
        }
        let digest = request.path.rsplit('/').next()?;
        Some(match self.blobs.get(digest) {
            Some(blob) => ranged(request, blob, fault),
            None => answer(404, Vec::new(), b""),
        })
    }

    fn registry_answer(&mut self, request: &Request, fault: Option<Fault>) -> Option<Answer> {
        let given = request.headers.get("authorization").cloned().unwrap_or_default();
        if given.starts_with("Basic") {
            self.violations.push("the registry got a password that is the token server's".to_owned());
        }
        if let Some(trouble) = Self::trouble(fault) {
            return trouble;
        }
        let token = given.strip_prefix("Bearer t").and_then(|number| number.parse::<usize>().ok());
        let left = token.and_then(|number| self.good_for.get_mut(number));
        let is_good = left.is_some_and(|left| std::mem::replace(left, left.saturating_sub(1)) > 0);
        if self.wants_token && (!is_good || fault == Some(Fault::Expired)) {
            let challenge = format!(
                "Bearer realm=\"http://{}/token\",service=\"s\",scope=\"repository:app:pull\"",
                self.tokens
            );
            return Some(answer(401, vec![("WWW-Authenticate", challenge)], b""));
        }
        let path = request.path.trim_start_matches("/v2/app/").to_owned();
        if let Some(name) = path.strip_prefix("manifests/") {
            return Some(self.manifest(request, name));
        }
        if let Some(upload) = path.strip_prefix("blobs/uploads/") {
            return Some(self.upload(request, upload));
        }
        let digest = path.strip_prefix("blobs/").unwrap_or_default();
        let Some(blob) = self.blobs.get(digest) else { return Some(answer(404, Vec::new(), b"")) };
        if self.redirects && request.method == "GET" {
            let place = format!("http://{}/{digest}", self.storage);
            return Some(answer(307, vec![("Location", place)], b""));
        }
        Some(ranged(request, blob, fault))
    }

    fn manifest(&mut self, request: &Request, name: &str) -> Answer {
        if request.method != "PUT" {
            let headers = |bytes: &[u8]| {
                vec![
                    ("Content-Type", "application/vnd.oci.image.manifest.v1+json".to_owned()),
                    ("Docker-Content-Digest", Digest::of(bytes).to_string()),
                ]
            };
            return match self.manifests.get(name) {
                Some(bytes) => answer(200, headers(bytes), bytes),
                None => answer(404, Vec::new(), b""),
            };
        }
        if !request.is_whole {
            return answer(400, Vec::new(), b"");
        }
        let manifest: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        let layers = manifest["layers"].as_array().unwrap().iter().chain([&manifest["config"]]);
        for blob in layers {
            if !self.blobs.contains_key(blob["digest"].as_str().unwrap()) {
                self.violations.push(format!("a manifest came before its blob {}", blob["digest"]));
            }
        }
        self.manifests.insert(name.to_owned(), request.body.clone());
        answer(201, Vec::new(), b"")
    }

    fn upload(&mut self, request: &Request, path: &str) -> Answer {
        let (number, query) = path.split_once('?').unwrap_or((path, ""));
        let at = |number: usize| ("Location", format!("/v2/app/blobs/uploads/{number}"));
        if request.method == "POST" {
            self.uploads.push(Vec::new());
            return answer(202, vec![at(self.uploads.len() - 1)], b"");
        }
        let number: usize = number.parse().unwrap();
        let have = self.uploads[number].len();
        match request.method.as_str() {
            "GET" => {
                let range = ("Range", format!("0-{}", have.saturating_sub(1)));
                return answer(204, vec![at(number), range], b"");
            }
            "PATCH" => {
                let start = request
                    .headers
                    .get("content-range")
                    .map_or(0, |range| range.split('-').next().unwrap().parse::<usize>().unwrap());
                if start != have {
                    return answer(
                        416,
                        vec![at(number), ("Range", format!("0-{}", have.saturating_sub(1)))],
                        b"",
                    );
                }
                self.uploads[number].extend_from_slice(&request.body);
                return answer(202, vec![at(number)], b"");
            }
            _ => {}
        }
        self.uploads[number].extend_from_slice(&request.body);
        let digest = query.trim_start_matches("digest=").to_owned();
        let bytes = self.uploads[number].clone();
        if Digest::of(&bytes).as_str() != digest {
            return answer(400, Vec::new(), b"the bytes are others than the digest's");
        }
        self.blobs.insert(digest, bytes);
        answer(201, Vec::new(), b"")
    }
}

/// A blob, or the part of it that is asked for.
fn ranged(request: &Request, blob: &[u8], fault: Option<Fault>) -> Answer {
    let start = request
        .headers
        .get("range")
        .and_then(|range| range.trim_start_matches("bytes=").trim_end_matches('-').parse::<usize>().ok());
    let Some(start) = start.filter(|_| fault != Some(Fault::NoRange)) else {
        return answer(200, Vec::new(), blob);
    };
    let start = if fault == Some(Fault::OtherRange) { start / 2 } else { start };
    let range = format!("bytes {start}-{}/{}", blob.len() - 1, blob.len());
    answer(206, vec![("Content-Range", range)], &blob[start.min(blob.len())..])
}

fn answer(status: u16, headers: Headers, body: &[u8]) -> Answer {
    Answer { status, headers, body: body.to_vec() }
}
