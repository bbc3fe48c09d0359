//! A whole registry in memory of three hosts: itself, the server that gives tokens, and the one that has its blobs.

use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::id::Digest;

use crate::fault::{Access, Fault, Kind, Lie, Schedule};
use crate::http::{Answer, Request};

pub(crate) const USER: &str = "me";
pub(crate) const PASSWORD: &str = "se:cret";

/// Runs until dropped.
pub(crate) struct Registry {
    pub(crate) address: String,
    shared: Arc<Shared>,
}

/// What it has.
#[derive(Debug, Clone, Default)]
pub(crate) struct Content {
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
    pub(crate) manifests: BTreeMap<String, Vec<u8>>,
}

struct Shared {
    schedule: Schedule,
    front: String,
    tokens: String,
    storage: String,
    state: Mutex<State>,
    /// Whether nothing goes wrong any more.
    behaves: AtomicBool,
    is_over: AtomicBool,
}

#[derive(Default)]
struct State {
    content: Content,
    uploads: BTreeMap<String, Vec<u8>>,
    /// How many uploads there ever were.
    begun: u32,
    /// How often each request came.
    asked: BTreeMap<String, u32>,
    /// Tokens name the generation they are of; only the last is good.
    generation: u32,
    log: Vec<String>,
    complaints: Vec<String>,
}

/// Which of the hosts was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host {
    Front,
    Tokens,
    Storage,
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What every manifest comes with.
const WARNING: &str = "299 - \"mind the gap\"";

impl Registry {
    pub(crate) fn start(schedule: Schedule, content: Content) -> Self {
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (front, tokens, storage) = (listen(), listen(), listen());
        let address = |listener: &TcpListener| listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            schedule,
            front: address(&front),
            tokens: address(&tokens),
            storage: address(&storage),
            state: Mutex::new(State { content, ..State::default() }),
            behaves: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        });
        for (listener, host) in [(front, Host::Front), (tokens, Host::Tokens), (storage, Host::Storage)] {
            let shared = shared.clone();
            thread::spawn(move || {
                for stream in listener.incoming() {
                    if shared.is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let (shared, stream) = (shared.clone(), stream.unwrap());
                    thread::spawn(move || shared.serve(stream, host));
                }
            });
        }
        Self { address: shared.front.clone(), shared }
    }

    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }

    pub(crate) fn content(&self) -> Content {
        self.shared.state().content.clone()
    }

    /// From now on nothing goes wrong.
    pub(crate) fn behave(&self) {
        self.shared.behaves.store(true, Ordering::Relaxed);
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.shared.state().log.clone()
    }

    /// What a client may never do.
    pub(crate) fn complaints(&self) -> Result<(), String> {
        let complaints = &self.shared.state().complaints;
        if complaints.is_empty() { Ok(()) } else { Err(complaints.join(", ")) }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        for address in [&self.shared.front, &self.shared.tokens, &self.shared.storage] {
            drop(TcpStream::connect(address));
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn serve(&self, stream: TcpStream, host: Host) {
        let Some(mut request) = Request::read(stream) else { return };
        let path = request.path.trim_start_matches("/v2/app/").to_owned();
        let kind = kind(&request.method, &path);
        if host == Host::Storage && request.headers.contains_key("authorization") {
            self.state().complaints.push(format!("{path} brought credentials to another host"));
        }
        if host == Host::Front && request.header("authorization").starts_with("Basic") {
            self.state().complaints.push(format!("{path} brought the token server's password"));
        }
        if host == Host::Front && !self.is_known(&request) {
            return request.answer(&self.challenge());
        }
        let fault = kind.and_then(|kind| self.fault(kind, host, &request, &path));
        // What does not look at the body takes it all the same: a reset would hide the answer.
        match fault {
            Some(Fault::Reset) => return request.reset(),
            Some(Fault::Status(status)) => {
                let _ = request.body(request.length());
                return request.answer(&Answer::error(status, "UNAVAILABLE"));
            }
            Some(Fault::TooMany) => {
                let _ = request.body(request.length());
                return request.answer(&Answer::error(429, "TOOMANYREQUESTS").with("Retry-After", "0"));
            }
            Some(Fault::TokenRanOut) if host == Host::Front && self.revoke() => {
                let _ = request.body(request.length());
                return request.answer(&self.challenge());
            }
            _ => {}
        }
        let Some(mut answer) = self.answer(&mut request, &path, host, fault) else { return request.reset() };
        answer.head_only = request.method == "HEAD";
        let is_content = answer.status < 300 && !answer.body.is_empty();
        match fault {
            Some(Fault::WrongByte) if is_content => answer.body[0] ^= 1,
            Some(Fault::TooLong) if is_content => answer.body.extend([0; 100]),
            _ => {}
        }
        match fault {
            Some(Fault::DoneButFailed) => request.answer(&Answer::error(502, "UNKNOWN")),
            Some(Fault::Drip) => request.answer_slowly(&answer),
            Some(Fault::ResetInBody) if request.method == "GET" => request.answer_half(&answer),
            _ => request.answer(&answer),
        }
    }

    fn fault(&self, kind: Kind, host: Host, request: &Request, path: &str) -> Option<Fault> {
        if self.behaves.load(Ordering::Relaxed) {
            return None;
        }
        let mut state = self.state();
        // An upload's own address differs from run to run.
        let path = if path.starts_with("blobs/uploads") { "an upload" } else { path };
        let asked = state.asked.entry(format!("{host:?} {} {path}", request.method)).or_default();
        let before = *asked;
        *asked += 1;
        let fault = self.schedule.fault(kind, path, before);
        state.log.push(format!("{host:?} {} {path} {} {fault:?}", request.method, request.header("range")));
        fault
    }

    fn is_known(&self, request: &Request) -> bool {
        self.schedule.access == Access::Open
            || request.header("authorization") == format!("Bearer token-{}", self.state().generation)
    }

    /// Makes all tokens void, if that has not happened too often: one request may meet all of these times.
    fn revoke(&self) -> bool {
        let mut state = self.state();
        let may = state.generation < self.schedule.most_generations && self.schedule.access != Access::Open;
        state.generation += u32::from(may);
        may
    }

    fn challenge(&self) -> Answer {
        let realm = format!("Bearer realm=\"http://{}/token\",service=\"misbehaving\"", self.tokens);
        Answer::error(401, "UNAUTHORIZED").with("WWW-Authenticate", realm)
    }

    /// What a registry does and says. `None` is a connection that breaks while a body comes.
    fn answer(&self, request: &mut Request, path: &str, host: Host, fault: Option<Fault>) -> Option<Answer> {
        let lie = self.schedule.lie;
        if host == Host::Tokens {
            return Some(self.token(request));
        }
        if lie == Some(Lie::Forbidden) {
            let _ = request.body(request.length());
            return Some(Answer::error(403, "DENIED"));
        }
        let method = request.method.clone();
        Some(match (method.as_str(), path) {
            ("GET" | "HEAD", _) if path.starts_with("manifests/") => self.manifest(path),
            ("PUT", _) if path.starts_with("manifests/") => self.put_manifest(request, path),
            (_, _) if lie == Some(Lie::Quota) && path.starts_with("blobs/") => {
                let _ = request.body(request.length());
                Answer::error(429, "TOOMANYREQUESTS")
                    .with("Retry-After", "3600")
                    .with("ratelimit-limit", "100;w=21600")
                    .with("ratelimit-remaining", "0;w=21600")
            }
            ("POST", "blobs/uploads/") => self.begin(),
            ("PATCH" | "PUT" | "GET", _) if path.starts_with("blobs/uploads/") => {
                return self.upload(request, path, fault);
            }
            ("GET" | "HEAD", _) if path.starts_with("blobs/") => self.blob(request, path, host, fault),
            ("GET", "/v2/") => Answer::of(200),
            _ => Answer::error(404, "NAME_UNKNOWN"),
        })
    }

    fn token(&self, request: &Request) -> Answer {
        let login = || format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
        let expected = if self.schedule.access == Access::LoggedIn { login() } else { String::new() };
        if request.header("authorization") != expected {
            self.state().complaints.push("the token server got something else than the password".to_owned());
            return Answer::error(401, "UNAUTHORIZED");
        }
        let generation = self.state().generation;
        Answer::of(200).body(format!(r#"{{"token":"token-{generation}","expires_in":5}}"#))
    }

    fn manifest(&self, path: &str) -> Answer {
        let lie = self.schedule.lie;
        if lie == Some(Lie::Unavailable) {
            return Answer::error(503, "UNAVAILABLE").with("Retry-After", "0");
        }
        let media_type = if lie == Some(Lie::MediaType) { INDEX } else { MANIFEST };
        match self.state().content.manifests.get(path.trim_start_matches("manifests/")) {
            Some(bytes) => {
                Answer::of(200).with("Content-Type", media_type).with("Warning", WARNING).body(bytes.clone())
            }
            None => Answer::error(404, "MANIFEST_UNKNOWN"),
        }
    }

    fn put_manifest(&self, request: &mut Request, path: &str) -> Answer {
        let body = request.body(request.length());
        if self.schedule.lie == Some(Lie::Unavailable) {
            return Answer::error(503, "UNAVAILABLE").with("Retry-After", "0");
        }
        let mut state = self.state();
        let manifest: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let layers = manifest["layers"].as_array().into_iter().flatten();
        for blob in layers.chain([&manifest["config"]]) {
            let digest = blob["digest"].as_str().unwrap_or_default();
            if state.content.blobs.get(digest).map(Vec::len)
                != blob["size"].as_u64().map(|size| size as usize)
            {
                state.complaints.push(format!("the manifest came before its blob {digest}"));
            }
        }
        state.content.manifests.insert(path.trim_start_matches("manifests/").to_owned(), body);
        Answer::of(201)
    }

    fn blob(&self, request: &Request, path: &str, host: Host, fault: Option<Fault>) -> Answer {
        let digest = path.trim_start_matches("blobs/");
        let Some(mut bytes) = self.state().content.blobs.get(digest).cloned() else {
            return Answer::error(404, "BLOB_UNKNOWN");
        };
        if request.method == "HEAD" {
            return Answer::of(200).body(bytes);
        }
        if host == Host::Front && self.schedule.redirects {
            let status = [302, 303, 307, 308][usize::try_from(self.schedule.seed).unwrap() % 4];
            let address = format!("http://{}/v2/app/{path}?signature=x", self.storage);
            return Answer::of(status).with("Location", address);
        }
        // The large layer is what is lied about.
        let is_large = bytes.len() > 100_000;
        match self.schedule.lie {
            Some(Lie::LayerByte) if is_large => bytes[50_000] ^= 1,
            Some(Lie::ConfigByte) if bytes.starts_with(b"{") => bytes[20] ^= 1,
            Some(Lie::Longer) if is_large => bytes.extend([0; 700]),
            Some(Lie::Shorter) if is_large => bytes.truncate(60_000),
            _ => {}
        }
        let start =
            request.header("range").trim_start_matches("bytes=").split('-').next().unwrap_or_default();
        match start.parse::<usize>() {
            Ok(start) if start >= bytes.len() => Answer::error(416, "RANGE_INVALID"),
            Ok(start) if fault != Some(Fault::IgnoredRange) => {
                let start = if fault == Some(Fault::OtherRange) { start / 2 } else { start };
                let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
                Answer::of(206).with("Content-Range", range).body(&bytes[start..])
            }
            _ => Answer::of(200).body(bytes),
        }
    }

    fn begin(&self) -> Answer {
        let mut state = self.state();
        state.begun += 1;
        let id = state.begun.to_string();
        state.uploads.insert(id.clone(), Vec::new());
        Answer::of(202).with("Location", self.location(&id))
    }

    fn location(&self, id: &str) -> String {
        let host = if self.schedule.redirects { format!("http://{}", self.storage) } else { String::new() };
        format!("{host}/v2/app/blobs/uploads/{id}?state=kept")
    }

    fn upload(&self, request: &mut Request, path: &str, fault: Option<Fault>) -> Option<Answer> {
        let id = path.trim_start_matches("blobs/uploads/");
        let length = request.length();
        let is_cut = fault == Some(Fault::ResetInBody);
        let body = request.body(if is_cut { length / 2 } else { length });
        let mut state = self.state();
        if request.parameter("state").as_deref() != Some("kept") {
            state.complaints.push("an upload's address lost its query".to_owned());
        }
        if fault == Some(Fault::Forgotten) {
            state.uploads.remove(id);
        }
        let Some(upload) = state.uploads.get_mut(id) else {
            return Some(Answer::error(404, "BLOB_UPLOAD_UNKNOWN"));
        };
        if request.method == "PATCH" && self.schedule.refuses_streams {
            return Some(Answer::error(405, "UNSUPPORTED"));
        }
        let begins = request.header("content-range").split('-').next().and_then(|text| text.parse().ok());
        if request.method == "PATCH" && begins.unwrap_or(0) != upload.len() {
            return Some(Answer::error(416, "BLOB_UPLOAD_INVALID"));
        }
        upload.extend(body);
        if is_cut && request.method != "GET" {
            return None;
        }
        let range = format!("0-{}", upload.len().saturating_sub(1));
        if request.method != "PUT" {
            let status = if request.method == "GET" { 204 } else { 202 };
            return Some(Answer::of(status).with("Location", self.location(id)).with("Range", range));
        }
        let bytes = state.uploads.remove(id).unwrap_or_default();
        let digest = request.parameter("digest").unwrap_or_default();
        if Digest::of(&bytes).as_str() != digest {
            state.complaints.push(format!("{digest} was closed with other bytes"));
            return Some(Answer::error(400, "DIGEST_INVALID"));
        }
        state.content.blobs.insert(digest, bytes);
        Some(Answer::of(201))
    }
}

fn kind(method: &str, path: &str) -> Option<Kind> {
    let is_upload = path.starts_with("blobs/uploads/");
    Some(match method {
        _ if path == "/token" => Kind::Token,
        "PUT" if path.starts_with("manifests/") => Kind::PutManifest,
        _ if path.starts_with("manifests/") => Kind::Manifest,
        "PUT" if is_upload => Kind::PutBlob,
        "PATCH" => Kind::Piece,
        _ if is_upload => Kind::Upload,
        _ if path.starts_with("blobs/") => Kind::Blob,
        _ => return None,
    })
}
