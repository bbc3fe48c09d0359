//! Build caches at the service of GitHub's actions, in both its generations.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::cache;
use crate::world::{Outcome, Running, World};

/// The service, until the test's process ends.
struct Service {
    address: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Whole entries, by key, in the order they were written.
    entries: Vec<(String, Vec<u8>)>,
    /// Those that are being written, by number: the key, and the pieces by place or name.
    begun: Vec<(String, BTreeMap<String, Vec<u8>>)>,
    /// What a client must not do.
    complaints: Vec<String>,
    /// Whether the next piece is refused once.
    is_moody: bool,
}

struct Request {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

// === impl Service ===

impl Service {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State { is_moody: true, ..State::default() }));
        let (shared, own) = (state.clone(), address.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let Some(request) = Request::read(&mut stream) else { continue };
                let (status, body) = shared.lock().unwrap().answer(&request, &own);
                let head = format!(
                    "HTTP/1.1 {status} x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all(&[head.as_bytes(), &body].concat());
            }
        });
        Self { address, state }
    }

    fn keys(&self) -> Vec<String> {
        self.state.lock().unwrap().entries.iter().map(|(key, _)| key.clone()).collect()
    }
}

impl Request {
    fn read(stream: &mut TcpStream) -> Option<Self> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let mut words = line.split(' ').map(str::to_owned);
        let (method, path) = (words.next()?, words.next()?);
        let mut headers = BTreeMap::new();
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            let Some((name, value)) = header.trim_end().split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        Some(Self { method, path, headers, body })
    }

    /// A parameter of the query, decoded as far as these tests need it.
    fn parameter(&self, name: &str) -> Option<String> {
        let (_, query) = self.path.split_once('?')?;
        let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
        Some(value.replace("%3A", ":").replace("%23", "#").replace("%3D", "="))
    }
}

impl State {
    fn answer(&mut self, request: &Request, own: &str) -> (u16, Vec<u8>) {
        let path = request.path.split('?').next().unwrap();
        let knows_token =
            request.headers.get("authorization").is_some_and(|it| it.starts_with("Bearer e30."));
        let is_storage = path.starts_with("/blob/");
        if is_storage == knows_token {
            self.complaints.push(format!("{} {path}: token {knows_token}", request.method));
        }
        if matches!(request.method.as_str(), "PUT" | "PATCH") && std::mem::take(&mut self.is_moody) {
            return (503, Vec::new());
        }
        let said: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let key = || said["key"].as_str().unwrap().to_owned();
        let number = || path.rsplit('/').next().unwrap().parse::<usize>().unwrap();
        let answer = |value: Value| (200, value.to_string().into_bytes());
        match (request.method.as_str(), path) {
            ("GET", "/_apis/artifactcache/cache") => match self.find(&request.parameter("keys").unwrap()) {
                Some(at) => answer(
                    json!({ "cacheKey": self.entries[at].0, "archiveLocation": format!("{own}/blob/{at}") }),
                ),
                None => (204, Vec::new()),
            },
            ("POST", "/_apis/artifactcache/caches") => match self.reserve(key()) {
                Some(at) => answer(json!({ "cacheId": at })),
                None => {
                    (409, br#"{"typeKey":"ArtifactCacheItemAlreadyExistsException","message":"no"}"#.to_vec())
                }
            },
            ("PATCH", _) => {
                let range = request.headers["content-range"].trim_start_matches("bytes ").to_owned();
                let begin: u64 = range.split('-').next().unwrap().parse().unwrap();
                self.begun[number()].1.insert(format!("{begin:012}"), request.body.clone());
                answer(json!({}))
            }
            ("POST", _) if path.starts_with("/_apis/artifactcache/caches/") => {
                let size = said["size"].as_u64().unwrap();
                self.finish(number(), size);
                answer(json!({}))
            }
            ("POST", _) if path.ends_with("CacheService/GetCacheEntryDownloadURL") => match self.find(&key())
            {
                Some(at) => answer(json!({ "ok": true, "matched_key": self.entries[at].0,
                    "signed_download_url": format!("{own}/blob/{at}?sig=x") })),
                None => answer(json!({ "ok": false })),
            },
            ("POST", _) if path.ends_with("CacheService/CreateCacheEntry") => match self.reserve(key()) {
                Some(at) => {
                    answer(json!({ "ok": true, "signed_upload_url": format!("{own}/blob/{at}?sig=x") }))
                }
                None => answer(json!({ "ok": false })),
            },
            ("PUT", _) if request.parameter("sig").is_none() => (403, Vec::new()),
            ("PUT", _) if request.parameter("comp").as_deref() == Some("block") => {
                let name = request.parameter("blockid").unwrap();
                self.begun[number()].1.insert(name, request.body.clone());
                (201, Vec::new())
            }
            ("PUT", _) => {
                let list = String::from_utf8_lossy(&request.body).into_owned();
                let pieces = &mut self.begun[number()].1;
                // What is not listed is no part of it.
                pieces.retain(|name, _| list.contains(&format!("<Latest>{name}</Latest>")));
                (201, Vec::new())
            }
            ("POST", _) if path.ends_with("CacheService/FinalizeCacheEntryUpload") => {
                let key = key();
                let at = self.begun.iter().rposition(|(begun, _)| *begun == key).unwrap();
                let size = said["size_bytes"].as_u64().unwrap();
                self.finish(at, size);
                answer(json!({ "ok": true, "entry_id": "1" }))
            }
            ("GET", _) => (200, self.entries[number()].1.clone()),
            _ => (404, Vec::new()),
        }
    }

    /// The newest entry whose key begins so.
    fn find(&self, key: &str) -> Option<usize> {
        self.entries.iter().rposition(|(known, _)| known.starts_with(key))
    }

    fn reserve(&mut self, key: String) -> Option<usize> {
        if self.begun.iter().any(|(known, _)| *known == key) {
            return None;
        }
        self.begun.push((key, BTreeMap::new()));
        Some(self.begun.len() - 1)
    }

    fn finish(&mut self, at: usize, size: u64) {
        let (key, pieces) = &self.begun[at];
        let bytes: Vec<u8> = pieces.values().flatten().copied().collect();
        if bytes.len() as u64 != size {
            self.complaints.push(format!("{key} has {} bytes and not {size}", bytes.len()));
        }
        self.entries.push((key.clone(), bytes));
    }
}

/// A token that allows to write a branch's entries, and to read those of the main one.
fn token(branch: &str) -> String {
    let access =
        json!([{ "Scope": branch, "Permission": 3 }, { "Scope": "refs/heads/main", "Permission": 1 }]);
    let claims = json!({ "ac": access.to_string() }).to_string();
    format!("e30.{}.s", URL_SAFE_NO_PAD.encode(claims))
}

fn build(world: &World, service: &Service, is_second: bool, branch: &str, flags: &[&str]) -> Outcome {
    let mut command = cache::command(world, cache::DOCKERFILE, flags);
    let (url, v2) = if is_second { ("ACTIONS_RESULTS_URL", "True") } else { ("ACTIONS_CACHE_URL", "") };
    command.env(url, format!("{}/", service.address)).env("ACTIONS_CACHE_SERVICE_V2", v2);
    command.env("ACTIONS_RUNTIME_TOKEN", token(branch));
    Running::start(&mut command).ends()
}

fn printed(world: &World) -> String {
    world.rengine(["run", "--rm", "--network", "none", "built"]).succeeds().stdout
}

#[test]
fn a_job_takes_what_an_earlier_one_made() {
    for is_second in [false, true] {
        let (service, here) = (Service::start(), World::new());
        let all = ["--cache-to", "type=gha,mode=max"];
        build(&here, &service, is_second, "refs/heads/main", &all).succeeds().complains("exporting cache");
        let written = service.keys();
        // A branch reads what the main one wrote, and writes an index of its own and no blob again.
        let there = World::new();
        let both = ["--cache-from", "type=gha", "--cache-to", "type=gha,mode=max"];
        build(&there, &service, is_second, "refs/heads/topic", &both).succeeds().complains("CACHED");
        assert_eq!(printed(&there), printed(&here));
        let further = service.keys().split_off(written.len());
        assert!(
            matches!(&further[..], [key] if key.starts_with("index-buildkit-") && key.ends_with("#1")),
            "{further:?}"
        );
        build(&there, &service, is_second, "refs/heads/topic", &all).succeeds();
        assert!(service.keys().last().unwrap().ends_with("#2"), "{:?}", service.keys());
        // Another scope is another cache.
        let other = World::new();
        build(&other, &service, is_second, "refs/heads/main", &["--cache-from", "type=gha,scope=web"])
            .succeeds();
        assert_ne!(printed(&other), printed(&here));
        let complaints = &service.state.lock().unwrap().complaints;
        assert!(complaints.is_empty(), "{complaints:?}");
    }
}

#[test]
fn a_developers_machine_has_no_such_service_and_builds_all_the_same() {
    let world = World::new();
    world.write("context/Dockerfile", "FROM box\nRUN true\n");
    let context = world.path("context").display().to_string();
    let flags = ["--progress", "plain", "--cache-from", "type=gha", "--cache-to", "type=gha,mode=max"];
    let mut command = world.command(["build"].into_iter().chain(flags).chain([context.as_str()]));
    for name in
        ["ACTIONS_CACHE_URL", "ACTIONS_RESULTS_URL", "ACTIONS_RUNTIME_TOKEN", "ACTIONS_CACHE_SERVICE_V2"]
    {
        command.env_remove(name);
    }
    let outcome = Running::start(&mut command).ends().succeeds();
    outcome.complains("ACTIONS_CACHE_URL is not set");
}
