//! Images travel through registries: a real one on the loopback, and one of ours that misbehaves on purpose.

#![expect(clippy::unwrap_used, reason = "test helpers")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use engine::id::Digest;
use engine::image::{Image, ImageConfig, Images, Progress, PullOptions, PushOptions, Reference, Step};
use engine::{Kind, Root};

struct World {
    directory: tempfile::TempDir,
    images: Images,
}

/// A command that was executed on the root leaves a run directory.
impl Drop for World {
    fn drop(&mut self) {
        let _ = engine::store::remove_tree(Root::at(&self.directory.path().join("state")).run());
    }
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let images = Images::at(&Root::at(&directory.path().join("state")));
        Self { directory, images }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// An image of two layers made here, one of them of some size.
    fn image(&self, tag: &str) -> Image {
        let layer = |name: &str, content: &[u8]| {
            let upper = self.path("state/upper");
            fs::create_dir_all(upper.join("dir")).unwrap();
            fs::write(upper.join("dir").join(name), content).unwrap();
            self.images.layers().adopt(&upper).unwrap()
        };
        // Not compressible, so that what travels is large.
        let noise: Vec<u8> = (0..40_000u32)
            .flat_map(|n| Digest::of(&n.to_le_bytes()).hex().as_bytes()[..32].to_vec())
            .collect();
        let mut config =
            ImageConfig { os: "linux".into(), architecture: arch().into(), ..Default::default() };
        config.config.cmd = Some(vec!["sh".into()]);
        config.rootfs.diff_ids = vec![layer("small", b"hello"), layer("large", &noise)];
        self.images.commit(&config, &[tag.parse().unwrap()]).unwrap()
    }

    fn pull(&self, name: &str) -> Result<engine::image::Pulled, engine::Error> {
        self.pull_with(name, &PullOptions::default()).map(|(pulled, _)| pulled)
    }

    fn pull_with(
        &self,
        name: &str,
        options: &PullOptions,
    ) -> Result<(engine::image::Pulled, Vec<Step>), engine::Error> {
        let steps = Mutex::new(Vec::new());
        let tell = |progress: Progress| steps.lock().unwrap().push(progress.step);
        let pulled = self.images.pull(&name.parse::<Reference>().unwrap(), options, &tell)?;
        Ok((pulled, steps.into_inner().unwrap()))
    }

    fn push(&self, name: &str) -> Result<(engine::image::Pushed, Vec<Step>), engine::Error> {
        let steps = Mutex::new(Vec::new());
        let tell = |progress: Progress| steps.lock().unwrap().push(progress.step);
        let pushed = self.images.push(&name.parse::<Reference>().unwrap(), &PushOptions::default(), &tell)?;
        Ok((pushed, steps.into_inner().unwrap()))
    }
}

fn arch() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

#[test]
fn an_index_goes_to_a_registry_and_comes_back_one_platform_at_a_time() {
    let registry = Registry::start("");
    let name = format!("{}/team/many:1", registry.address);
    let reference: Reference = name.parse().unwrap();
    let world = World::new();
    let host = world.image(&name);
    let mut config = host.config.clone();
    config.architecture = "s390x".into();
    let other = world.images.commit(&config, &[]).unwrap();
    let ids = [other.id.clone(), host.id.clone()];
    world.images.name_several(std::slice::from_ref(&reference), &ids).unwrap();
    let (pushed, _) = world.push(&name).unwrap();
    let there = run("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")]);
    assert_eq!(Digest::of(there.as_bytes()), pushed.digest);
    assert!(there.contains("image.index") && there.contains("s390x"), "{there}");

    let elsewhere = World::new();
    let pulled = elsewhere.pull(&name).unwrap();
    assert_eq!((&pulled.image.id, &pulled.digest), (&host.id, &pushed.digest));
    let s390x: engine::image::Platform = "linux/s390x".parse().unwrap();
    assert!(elsewhere.images.find_for(&name, Some(&s390x)).unwrap().is_none());
    let options = PullOptions { platform: Some(s390x.clone()), ..Default::default() };
    let (pulled, _) = elsewhere.pull_with(&name, &options).unwrap();
    assert_eq!((&pulled.image.id, pulled.newer), (&other.id, true));
    // The name still means this machine's image where no platform is asked for, and both are here to be pushed.
    assert_eq!(elsewhere.images.get(&name).unwrap().id, host.id);
    assert!(!elsewhere.pull_with(&name, &options).unwrap().0.newer);
    assert!(!elsewhere.pull(&name).unwrap().newer);
    assert_eq!(elsewhere.push(&name).unwrap().0.digest, pushed.digest);
}

/// The registry of the distribution project, on a port of its own, until dropped.
struct Registry {
    child: Child,
    address: String,
    _directory: tempfile::TempDir,
}

impl Registry {
    fn start(extra: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("data");
        let config = directory.path().join("config.yml");
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n{extra}",
            root.display()
        );
        fs::write(&config, text).unwrap();
        let mut child = Command::new("docker-registry")
            .args(["serve", config.to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .find_map(|line| {
                let line = line.unwrap();
                let (_, rest) = line.split_once("listening on ")?;
                Some(rest.split(['"', ',', ' ']).next().unwrap().to_owned())
            })
            .unwrap();
        // It must not block on a full pipe.
        thread::spawn(move || lines.for_each(drop));
        Self { child, address, _directory: directory }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn an_image_goes_to_a_registry_and_comes_back() {
    let registry = Registry::start("");
    let name = format!("{}/team/app:1", registry.address);
    let world = World::new();
    let image = world.image(&name);
    let (pushed, steps) = world.push(&name).unwrap();
    assert_eq!(steps.iter().filter(|step| **step == Step::Compressing).count(), 2);
    assert_eq!(steps.iter().filter(|step| **step == Step::Pushed).count(), 2);
    // Skopeo agrees on what is there.
    let there = run("skopeo", &["inspect", "--tls-verify=false", &format!("docker://{name}")]);
    assert!(there.contains(pushed.digest.as_str()), "{there}");
    // A second time nothing moves.
    let (again, steps) = world.push(&name).unwrap();
    assert_eq!(again.digest, pushed.digest);
    assert_eq!(steps, [Step::ExistsThere, Step::ExistsThere]);

    let other = World::new();
    let (pulled, steps) = other.pull_with(&name, &PullOptions::default()).unwrap();
    assert_eq!((&pulled.image.id, &pulled.digest, pulled.newer), (&image.id, &pushed.digest, true));
    assert_eq!(steps.iter().filter(|step| **step == Step::Complete).count(), 2);
    let lower = other.images.lower_dirs(&pulled.image);
    assert_eq!(fs::read_to_string(lower[1].join("dir/small")).unwrap(), "hello");
    assert_eq!(fs::metadata(lower[0].join("dir/large")).unwrap().len(), 40_000 * 32);
    assert!(!other.pull(&name).unwrap().newer);
    // By digest, and from another repository of the same registry without sending it again.
    let by_digest = format!("{}/team/app@{}", registry.address, pushed.digest);
    assert_eq!(World::new().pull(&by_digest).unwrap().image.id, image.id);
    let second = format!("{}/other/copy:2", registry.address);
    other.images.tag(&name, &second.parse().unwrap()).unwrap();
    let (copied, steps) = other.push(&second).unwrap();
    assert_eq!(copied.digest, pushed.digest);
    assert!(!steps.iter().any(|step| matches!(step, Step::Pushing(bytes, _) if *bytes > 0)), "{steps:?}");
}

#[test]
fn images_pulled_at_once_fetch_a_shared_layer_once() {
    let (image, blobs) = pieces();
    let fake = Fake::start(Box::new(move |request| match blobs.get(&path_of(request)) {
        Some(blob) => response("200 OK", &[], blob),
        None => response("404 Not Found", &[], b"{}"),
    }));
    let world = World::new();
    let name = format!("{}/app:1", fake.address);
    thread::scope(|scope| {
        let pulls: Vec<_> = (0..4).map(|_| scope.spawn(|| world.pull(&name).unwrap().image.id)).collect();
        assert!(pulls.into_iter().all(|pull| pull.join().unwrap() == image.id));
    });
    for diff in &image.config.rootfs.diff_ids {
        assert_eq!(fake.seen(&format!("GET /v2/app/blobs/{diff}")).len(), 1);
    }
}

#[test]
fn what_skopeo_pushed_is_pulled_and_an_index_gives_this_machines_image() {
    let registry = Registry::start("");
    let world = World::new();
    let image = world.image("local:1");
    let archive = world.path("saved.tar");
    world.images.save(&["local:1".to_owned()], &mut fs::File::create(&archive).unwrap()).unwrap();
    let name = format!("{}/app:v2s2", registry.address);
    let source = format!("oci-archive:{}", archive.display());
    run(
        "skopeo",
        &["copy", "--format", "v2s2", "--dest-tls-verify=false", &source, &format!("docker://{name}")],
    );
    let other = World::new();
    let pulled = other.pull(&name).unwrap();
    assert_eq!(pulled.image.config.rootfs, image.config.rootfs);

    // An index of ours beside it: this machine, another one, and an attestation.
    let (manifest, media_type) = get(
        &registry.address,
        "/v2/app/manifests/v2s2",
        &["application/vnd.docker.distribution.manifest.v2+json"],
    );
    let entry = |digest: &str, os: &str, arch: &str| {
        serde_json::json!({"mediaType": media_type, "digest": digest, "size": manifest.len(),
            "platform": {"os": os, "architecture": arch}})
    };
    let digest = Digest::of(&manifest);
    let index = serde_json::json!({"schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
        "manifests": [entry(digest.as_str(), "linux", "s390x"), entry(digest.as_str(), "linux", arch())]});
    let index = index.to_string();
    put(
        &registry.address,
        "/v2/app/manifests/many",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        index.as_bytes(),
    );
    let many = format!("{}/app:many", registry.address);
    let pulled = World::new().pull(&many).unwrap();
    assert_eq!(pulled.digest, Digest::of(index.as_bytes()));
    assert_eq!(pulled.image.config.rootfs, image.config.rootfs);
    let options = PullOptions { platform: Some("linux/riscv64".parse().unwrap()), ..Default::default() };
    let error = World::new().pull_with(&many, &options).unwrap_err();
    assert!(error.to_string().contains("linux/s390x"), "{error}");
}

#[test]
fn a_registry_that_wants_a_password_gets_it_after_login_only() {
    let file = tempfile::NamedTempFile::new().unwrap();
    // bcrypt of "se:cret".
    fs::write(file.path(), "me:$2b$05$FXaJyFAHkWA8CF5b9nSemuUN9WY9nBU/egrUa/nRytRfFnUHylM3W\n").unwrap();
    let registry = Registry::start(&format!(
        "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
        file.path().display()
    ));
    let world = World::new();
    let name = format!("{}/app:1", registry.address);
    world.image(&name);
    let error = world.push(&name).unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(error.hint().unwrap().contains(&format!("rengine login {}", registry.address)));

    let config = world.path("docker");
    let rengine = |arguments: &[&str], input: &str| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_rengine"))
            .arg("--root")
            .arg(world.path("state"))
            .args(arguments)
            .env("DOCKER_CONFIG", &config)
            .env_remove("REGISTRY_AUTH_FILE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), said)
    };
    let login =
        |password: &str| rengine(&["login", "-u", "me", "--password-stdin", &registry.address], password);
    assert!(!login("wrong").0);
    assert!(!config.join("config.json").exists());
    let (good, said) = login("se:cret");
    assert!(good, "{said}");
    assert!(!said.contains("se:cret"));
    let (good, said) = rengine(&["push", &name], "");
    assert!(good, "{said}");
    let (good, said) = rengine(&["pull", &name], "");
    assert!(good, "{said}");
    let (good, said) = rengine(&["logout", &registry.address], "");
    assert!(good, "{said}");
    assert!(!rengine(&["pull", &name], "").0);
    // Another directory of credentials, for one command.
    let (other, login) = (world.path("other"), ["login", "-u", "me", "--password-stdin", &registry.address]);
    let asked = ["--config", other.to_str().unwrap()];
    let (good, said) = rengine(&[asked.as_slice(), &login].concat(), "se:cret");
    assert!(good && other.join("config.json").exists(), "{said}");
    let (good, said) = rengine(&[asked.as_slice(), &["pull", &name]].concat(), "");
    assert!(good, "{said}");
    assert!(!rengine(&["pull", &name], "").0);
}

#[test]
fn failures_say_what_is_wrong() {
    let registry = Registry::start("");
    let world = World::new();
    let missing = format!("{}/no/such:tag", registry.address);
    let error = world.pull(&missing).unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.to_string().contains("no/such"), "{error}");
    // A port nobody listens on: ours, closed again.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = world.pull(&format!("{free}/app")).unwrap_err();
    assert!(error.to_string().contains(&free.to_string()), "{error}");
    assert!(engine::error::chain(&error).contains("refused"), "{}", engine::error::chain(&error));
    let error = world.push("not/here:1").unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
}

// --- A registry that misbehaves ---

type Answer = dyn Fn(&Request) -> Vec<u8> + Send + Sync;

/// One request as it came.
#[derive(Debug, Clone)]
struct Request {
    line: String,
    headers: BTreeMap<String, String>,
}

/// An HTTP server of one request a connection, on a port of its own.
struct Fake {
    address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Fake {
    fn start(answer: Box<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        // Ends with the test's process: a thread that waits for connections harms nobody.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                if let Some(request) = read_request(&mut stream) {
                    seen.lock().unwrap().push(request.clone());
                    let _ = stream.write_all(&answer(&request));
                }
            }
        });
        Self { address, requests }
    }

    fn seen(&self, what: &str) -> Vec<Request> {
        self.requests.lock().unwrap().iter().filter(|request| request.line.contains(what)).cloned().collect()
    }
}

fn read_request(stream: &mut TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    // A TLS client's hello is no request.
    if !line.contains("HTTP/1.1") {
        return None;
    }
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length: usize = headers.get("content-length").map_or(0, |text: &String| text.parse().unwrap());
    reader.read_exact(&mut vec![0; length]).ok()?;
    Some(Request { line: line.trim_end().to_owned(), headers })
}

fn response(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    [text.as_bytes(), body].concat()
}

fn get(address: &str, path: &str, accept: &[&str]) -> (Vec<u8>, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    let accept = accept.join(", ");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    let end = all.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&all[..end]).into_owned();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let media_type = head.lines().find_map(|line| line.strip_prefix("Content-Type: ")).unwrap_or_default();
    (all[end + 4..].to_vec(), media_type.to_owned())
}

fn put(address: &str, path: &str, media_type: &str, body: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(stream, "PUT {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n").unwrap();
    stream.write_all(body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

/// What a registry would hold of an image: manifest, configuration and the layers, by path ends.
fn pieces() -> (Image, BTreeMap<String, Vec<u8>>) {
    let world = World::new();
    let image = world.image("piece:1");
    let mut blobs = BTreeMap::new();
    let mut layers = Vec::new();
    for diff in &image.config.rootfs.diff_ids {
        let mut tar = Vec::new();
        world.images.layers().pack(diff, &mut tar).unwrap();
        layers.push(serde_json::json!({"mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": diff, "size": tar.len()}));
        blobs.insert(format!("blobs/{diff}"), tar);
    }
    let config = fs::read(world.path("state/content/blobs/sha256").join(image.id.hex())).unwrap();
    let manifest = serde_json::json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": image.id, "size": config.len()},
        "layers": layers});
    blobs.insert(format!("blobs/{}", image.id), config);
    blobs.insert("manifests/1".to_owned(), manifest.to_string().into_bytes());
    (image, blobs)
}

fn path_of(request: &Request) -> String {
    request.line.split(' ').nth(1).unwrap().trim_start_matches("/v2/app/").to_owned()
}

#[test]
fn a_token_is_fetched_and_never_follows_a_redirect_to_another_host() {
    let (image, blobs) = pieces();
    let blobs = Arc::new(blobs);
    let storage = {
        let blobs = blobs.clone();
        Fake::start(Box::new(move |request| response("200 OK", &[], &blobs[path_of(request).as_str()])))
    };
    let front = {
        let storage = storage.address.clone();
        let address: Arc<Mutex<String>> = Arc::default();
        let own = address.clone();
        let fake = Fake::start(Box::new(move |request| {
            let path = path_of(request);
            if path.starts_with("/token") {
                return response("200 OK", &[], br#"{"access_token": "sesame", "expires_in": 300}"#);
            }
            if request.headers.get("authorization").is_none_or(|value| value != "Bearer sesame") {
                let realm = format!("http://{}/token", own.lock().unwrap());
                let challenge =
                    format!(r#"Bearer realm="{realm}",service="fake",scope="repository:app:pull""#);
                return response("401 Unauthorized", &[("WWW-Authenticate", &challenge)], b"{}");
            }
            if path.starts_with("manifests/") {
                return response("200 OK", &[], &blobs["manifests/1"]);
            }
            let location = format!("http://{storage}/v2/app/{path}");
            response("307 Temporary Redirect", &[("Location", &location)], b"")
        }));
        address.lock().unwrap().clone_from(&fake.address);
        fake
    };
    let pulled = World::new().pull(&format!("{}/app:1", front.address)).unwrap();
    assert_eq!(pulled.image.id, image.id);
    let tokens = front.seen("GET /token");
    assert_eq!(tokens.len(), 1, "{tokens:?}");
    assert!(
        tokens[0].line.contains("service=fake") && tokens[0].line.contains("scope=repository%3Aapp%3Apull"),
        "{tokens:?}"
    );
    assert_eq!(storage.seen("GET").len(), 3);
    for request in storage.seen("") {
        assert!(!request.headers.contains_key("authorization"), "{request:?}");
    }
}

#[test]
fn a_broken_download_goes_on_where_it_broke() {
    for knows_ranges in [true, false] {
        let (image, blobs) = pieces();
        let failures = Mutex::new(BTreeMap::<String, u32>::new());
        let fake = Fake::start(Box::new(move |request| {
            let path = path_of(request);
            let Some(blob) = blobs.get(&path) else { return response("404 Not Found", &[], b"{}") };
            let mut failures = failures.lock().unwrap();
            let failures = failures.entry(path.clone()).or_default();
            *failures += 1;
            if *failures == 1 {
                return response("503 Service Unavailable", &[("Retry-After", "0")], b"");
            }
            let start =
                request.headers.get("range").filter(|_| knows_ranges).map_or(0, |range| {
                    range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap()
                });
            let range = format!("bytes {start}-{}/{}", blob.len() - 1, blob.len());
            let status = if start > 0 { "206 Partial Content" } else { "200 OK" };
            let mut answer = response(status, &[("Content-Range", &range)], &blob[start..]);
            if blob.len() > 100_000 && *failures < 5 {
                answer.truncate(answer.len() - (blob.len() - start) / 2);
            }
            answer
        }));
        let (pulled, steps) =
            World::new().pull_with(&format!("{}/app:1", fake.address), &PullOptions::default()).unwrap();
        assert_eq!(pulled.image.id, image.id);
        assert!(steps.iter().any(|step| matches!(step, Step::Retrying(_))));
        assert!(fake.seen("blobs").iter().any(|request| request.headers.contains_key("range")));
    }
}

#[test]
fn a_registry_that_lies_leaves_nothing_behind() {
    let (image, good) = pieces();
    let large = format!("blobs/{}", image.config.rootfs.diff_ids[1]);
    let small = format!("blobs/{}", image.config.rootfs.diff_ids[0]);
    type Lie = dyn Fn(&mut BTreeMap<String, Vec<u8>>) + Send + Sync;
    let lies: [(&str, Box<Lie>); 4] = [
        ("digest", {
            let large = large.clone();
            Box::new(move |blobs| blobs.get_mut(&large).unwrap()[2000] ^= 1)
        }),
        ("more", Box::new(move |blobs| blobs.get_mut(&small).unwrap().extend([0; 512]))),
        ("another blob", {
            let config = format!("blobs/{}", image.id);
            Box::new(move |blobs| blobs.get_mut(&config).unwrap().push(b' '))
        }),
        ("less", Box::new(move |blobs| blobs.get_mut(&large).unwrap().truncate(4096))),
    ];
    for (complaint, lie) in lies {
        let mut blobs = good.clone();
        lie(&mut blobs);
        let fake = Fake::start(Box::new(move |request| match blobs.get(&path_of(request)) {
            Some(blob) => response("200 OK", &[], blob),
            None => response("404 Not Found", &[], b"{}"),
        }));
        let world = World::new();
        let error = world.pull(&format!("{}/app:1", fake.address)).unwrap_err();
        let message = engine::error::chain(&error);
        assert!(message.contains(complaint), "{complaint}: {message}");
        assert!(world.images.list().unwrap().is_empty());
        assert_eq!(fs::read_dir(world.path("state/tmp")).map_or(0, Iterator::count), 0);
    }
}

/// What a proxy saw, and did.
#[derive(Default)]
struct Broken {
    uploads: u32,
    is_done: bool,
}

/// Something between a client and a registry that breaks one large blob on its way.
fn breaking_proxy(registry: &str) -> (String, Arc<Mutex<Broken>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let registry = registry.to_owned();
    let broken = Arc::new(Mutex::new(Broken::default()));
    let shared = broken.clone();
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            let server = TcpStream::connect(&registry).unwrap();
            let (mut from_server, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || {
                let _ = std::io::copy(&mut from_server, &mut to_client);
                let _ = to_client.shutdown(std::net::Shutdown::Both);
            });
            let broken = shared.clone();
            thread::spawn(move || pass_or_break(client, server, &broken));
        }
    });
    (address, broken)
}

fn pass_or_break(mut client: TcpStream, mut server: TcpStream, broken: &Mutex<Broken>) {
    let mut chunk = vec![0; 64 << 10];
    let mut left = None;
    while let Ok(length @ 1..) = client.read(&mut chunk) {
        if chunk.starts_with(b"PATCH ") {
            let head = String::from_utf8_lossy(&chunk[..length]).to_lowercase();
            let announced = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            let is_large = announced.trim().parse::<u64>().unwrap() > 400_000;
            let mut broken = broken.lock().unwrap();
            broken.uploads += 1;
            left = (is_large && !broken.is_done).then_some(300_000);
            broken.is_done |= is_large;
        }
        if server.write_all(&chunk[..length]).is_err() {
            break;
        }
        if let Some(bytes) = &mut left {
            *bytes -= i64::try_from(length).unwrap();
            if *bytes < 0 {
                break;
            }
        }
    }
    let _ = server.shutdown(std::net::Shutdown::Write);
    let _ = client.shutdown(std::net::Shutdown::Both);
}

#[test]
fn a_broken_upload_goes_on_and_arrives_whole() {
    let registry = Registry::start("");
    let (proxy, broken) = breaking_proxy(&registry.address);
    let world = World::new();
    let name = format!("{proxy}/team/app:1");
    let image = world.image(&name);
    world.push(&name).unwrap();
    // Two layers and the configuration, and the large one twice.
    assert_eq!(broken.lock().unwrap().uploads, 4);
    let there = format!("{}/team/app:1", registry.address);
    assert_eq!(World::new().pull(&there).unwrap().image.id, image.id);
}

#[test]
fn an_upload_outlives_its_token() {
    let uploads = Mutex::new(0);
    let fake = Fake::start(Box::new(move |request| {
        let host = request.headers.get("host").cloned().unwrap_or_default();
        let authorization = request.headers.get("authorization").cloned().unwrap_or_default();
        let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
        let denied = || response("401 Unauthorized", &[("WWW-Authenticate", &challenge)], b"{}");
        let mut uploads = uploads.lock().unwrap();
        let line = request.line.as_str();
        if line.contains("/token") {
            return response("200 OK", &[], format!("{{\"token\":\"t{}\"}}", *uploads).as_bytes());
        }
        // The first blob's bytes end the first token.
        let is_old = *uploads > 0 && authorization == "Bearer t0";
        if authorization.is_empty() || is_old {
            return denied();
        }
        match line.split(' ').next().unwrap() {
            "HEAD" => response("404 Not Found", &[], b""),
            "POST" => response("202 Accepted", &[("Location", "/v2/app/blobs/uploads/1")], b""),
            "PATCH" if *uploads == 0 => {
                *uploads = 1;
                denied()
            }
            "PATCH" => response("202 Accepted", &[("Location", "/v2/app/blobs/uploads/1")], b""),
            "GET" if line.contains("uploads") => {
                response("204 No Content", &[("Location", "/v2/app/blobs/uploads/1"), ("Range", "0-0")], b"")
            }
            "PUT" => response("201 Created", &[], b""),
            _ => response("200 OK", &[], b"{}"),
        }
    }));
    let world = World::new();
    let name = format!("{}/app:1", fake.address);
    world.image(&name);
    world.push(&name).unwrap();
    assert!(fake.seen("/token").len() >= 2);
}

/// A registry that wants to see the right to read where a blob is taken from, as those do that give tokens for scopes.
/// Whether its tokens have that right is as `grants` says.
fn strict_about_mounts(grants: bool) -> Fake {
    Fake::start(Box::new(move |request| {
        let host = request.headers.get("host").cloned().unwrap_or_default();
        let line = request.line.as_str();
        let path = line.split(' ').nth(1).unwrap();
        if path.starts_with("/token") {
            let scopes = path.split(['?', '&']).filter_map(|pair| pair.strip_prefix("scope="));
            let scopes: Vec<&str> =
                scopes.filter(|scope| grants || *scope != "repository%3Abase%3Apull").collect();
            return response("200 OK", &[], format!(r#"{{"token":"{}"}}"#, scopes.join("+")).as_bytes());
        }
        let granted = request.headers.get("authorization").cloned().unwrap_or_default();
        let may = |scope: &str| granted.contains(scope);
        // In any order: the registry of the distribution project has these in a map.
        let needed = if path.contains("mount=") {
            vec!["repository:base:pull", "repository:app:pull,push"]
        } else {
            vec!["repository:app:pull"]
        };
        let needed = if path.contains("/base/") { vec!["repository:base:pull,push"] } else { needed };
        if !needed.iter().all(|scope| may(&scope.replace(':', "%3A").replace(',', "%2C"))) {
            let scopes = needed.join(" ");
            let challenge = format!(r#"Bearer realm="http://{host}/token",service="s",scope="{scopes}""#);
            return response("401 Unauthorized", &[("WWW-Authenticate", &challenge)], b"{}");
        }
        let upload = format!("/v2/{}/blobs/uploads/1", path.split('/').nth(2).unwrap());
        let location = [("Location", upload.as_str())];
        match line.split(' ').next().unwrap() {
            "HEAD" => response("404 Not Found", &[], b""),
            "POST" if path.contains("mount=") => response("201 Created", &[], b""),
            "POST" | "PATCH" => response("202 Accepted", &location, b""),
            "PUT" => response("201 Created", &[], b""),
            _ => response("200 OK", &[], b"{}"),
        }
    }))
}

#[test]
fn a_blob_is_taken_from_another_repository_by_whoever_may_read_it() {
    for grants in [true, false] {
        let fake = strict_about_mounts(grants);
        let world = World::new();
        let name = format!("{}/base:1", fake.address);
        world.image(&name);
        world.push(&name).unwrap();
        let name = format!("{}/app:1", fake.address);
        world.images.tag(&format!("{}/base:1", fake.address), &name.parse().unwrap()).unwrap();
        let sent_before = fake.seen("PATCH").len();
        world.push(&name).unwrap();
        // Nothing is sent that the registry has, and all of it where its tokens do not reach.
        let sent = fake.seen("PATCH").len() - sent_before;
        assert_eq!(sent, if grants { 0 } else { 3 }, "grants: {grants}");
    }
}
