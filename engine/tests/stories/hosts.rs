//! What the operator says of registries: containerd's `hosts.toml`, docker's `certs.d`.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::registry::Registry;
use crate::world::{BOX, Outcome, Running, World};

/// An authority, and certificates of its for a server at 127.0.0.1 and for a client.
struct Authority(PathBuf);

impl Authority {
    fn new(world: &World) -> Self {
        let authority = Self(world.path("authority"));
        fs::create_dir(&authority.0).unwrap();
        authority.openssl(&[
            "req",
            "-x509",
            "-nodes",
            "-subj",
            "/CN=authority",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
        ]);
        for name in ["server", "client"] {
            let (key, request) = (format!("{name}.key"), format!("{name}.csr"));
            authority.openssl(&[
                "req",
                "-nodes",
                "-subj",
                &format!("/CN={name}"),
                "-keyout",
                &key,
                "-out",
                &request,
            ]);
            fs::write(authority.file("names"), "subjectAltName=IP:127.0.0.1").unwrap();
            let made = format!("{name}.pem");
            let signer = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names"];
            let args = [&["x509", "-req", "-in", &request, "-out", &made], signer.as_slice()].concat();
            authority.openssl(&args);
        }
        authority
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn openssl(&self, args: &[&str]) {
        let mut command = Command::new("openssl");
        command.args(args).current_dir(&self.0);
        // The key of a certificate that is asked for is made on the way.
        if args[0] == "req" {
            command.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
        }
        Running::start(&mut command).ends().succeeds();
    }

    /// A registry that shows its certificate, and wants to see one when it is told so.
    fn registry(&self, asks_clients: bool) -> Registry {
        let file = |name: &str| self.file(name).display().to_string();
        let mut keys =
            format!("tls:\n  certificate: {}\n  key: {}\n", file("server.pem"), file("server.key"));
        if asks_clients {
            keys.push_str(&format!("  clientcas: [{}]\n", file("ca.pem")));
        }
        Registry::start_with(&keys)
    }
}

/// What a registry's directory says of it.
fn say(world: &World, registry: &str, text: &str) -> PathBuf {
    world.write(&format!("certs.d/{registry}/hosts.toml"), text)
}

fn rengine(world: &World, args: &[&str]) -> Outcome {
    let mut command = world.command(args);
    command.env("RENGINE_CERTS_D", world.path("certs.d"));
    Running::start(&mut command).ends()
}

#[test]
fn certificates_decide_who_speaks_to_a_registry() {
    let world = World::new();
    let authority = Authority::new(&world);
    let registry = authority.registry(true);
    let (address, server) = (registry.address(), format!("server = \"https://{}\"\n", registry.address()));
    let name = format!("{address}/team/box:1");
    world.rengine(["tag", BOX, &name]).succeeds();
    let push = || rengine(&world, &["push", "-q", &name]);
    let client =
        format!("client = [[{:?}, {:?}]]\n", authority.file("client.pem"), authority.file("client.key"));
    say(&world, &address, &format!("{server}{client}"));
    push().exits(1).complains("UnknownIssuer");
    // Beside the file, as a relative path.
    let directory = world.path("certs.d").join(&address);
    fs::copy(authority.file("ca.pem"), directory.join("ca.pem")).unwrap();
    say(&world, &address, &format!("{server}ca = \"ca.pem\"\n"));
    push().exits(1);
    say(&world, &address, &format!("{server}ca = \"ca.pem\"\n{client}"));
    push().succeeds();
    say(&world, &address, &format!("{server}skip_verify = true\n{client}"));
    push().succeeds();
    say(&world, &address, &format!("{server}{client}colour = 1\n"));
    push().exits(1).complains("hosts.toml").complains("colour");
    // Docker's form says the same by the files' names.
    fs::remove_file(directory.join("hosts.toml")).unwrap();
    push().exits(1);
    for (from, to) in [("client.pem", "me.cert"), ("client.key", "me.key"), ("ca.pem", "ca.crt")] {
        fs::copy(authority.file(from), directory.join(to)).unwrap();
    }
    push().succeeds();
}

#[test]
fn a_mirror_is_asked_first_and_told_for_whom() {
    let world = World::new();
    let authority = Authority::new(&world);
    let registry = authority.registry(false);
    let ca = authority.file("ca.pem");
    let at_mirror = format!("{}/team/box:1", registry.address());
    world.rengine(["tag", BOX, &at_mirror]).succeeds();
    rengine(&world, &["push", "-q", &at_mirror]).succeeds();
    let text = format!(
        "[host.\"https://127.0.0.1:1\"]\ndial_timeout = \"2s\"\ncapabilities = [\"pull\", \"resolve\"]\n[host.\"https://{}\"]\nca = {ca:?}\n\
         capabilities = [\"pull\", \"resolve\"]\nheader.referer = \"a header\"\n",
        registry.address()
    );
    say(&world, "registry.test_5000_", &text);
    let name = "registry.test:5000/team/box:1";
    rengine(&world, &["pull", "-q", name]).succeeds();
    assert_eq!(world.inspect(name, "{{.Id}}"), world.inspect(BOX, "{{.Id}}"));
    registry.await_request("/v2/team/box/manifests/1?ns=registry.test%3A5000");
    registry.await_request("\"a header\"");
    // What may only be pulled from is not pushed to.
    rengine(&world, &["push", "-q", name]).exits(1).complains("registry.test:5000");
    // The directory of a registry comes before that of all others.
    say(&world, "_default", &text);
    say(&world, "registry.test_5000_", "[host.\"https://127.0.0.1:1\"]\n");
    let other = World::empty();
    let pull = |name: &str| {
        let mut command = other.command(["pull", "-q", name]);
        command.env("RENGINE_CERTS_D", world.path("certs.d"));
        Running::start(&mut command).ends()
    };
    pull(name).exits(1);
    pull("elsewhere.test/team/box:1").succeeds();
}

#[test]
fn capabilities_say_who_is_asked_for_what() {
    let world = World::new();
    let (upstream, mirror) = (Registry::start(), Registry::start_with("prefix: /deep/"));
    let host = |may: &str| {
        let says = format!(
            "[host.\"http://{}/deep/v2\"]\noverride_path = true\ncapabilities = [{may}]\n",
            mirror.address()
        );
        say(&world, "registry.test", &format!("server = \"http://{}\"\n{says}", upstream.address()));
    };
    let name = "registry.test/team/box:1";
    world.rengine(["tag", BOX, name]).succeeds();
    // The server has the tag, the mirror the content under another one.
    host("\"pull\"");
    rengine(&world, &["push", "-q", name]).succeeds();
    assert_eq!(mirror.requests(), "");
    world.rengine(["tag", BOX, "registry.test/team/box:2"]).succeeds();
    host("\"push\"");
    rengine(&world, &["push", "-q", "registry.test/team/box:2"]).succeeds();
    mirror.await_request("PUT /deep/v2/team/box/manifests/2");
    host("\"pull\"");
    pulls(&world.path("certs.d"), name);
    upstream.await_request("HEAD /v2/team/box/manifests/1");
    mirror.await_request("GET /deep/v2/team/box/manifests/sha256:");
    mirror.await_request("GET /deep/v2/team/box/blobs/");
    let there = upstream.requests();
    assert!(!there.contains("GET /v2/team/box/"), "{there}");
}

fn pulls(certificates: &Path, name: &str) {
    let other = World::empty();
    let mut command = other.command(["pull", "-q", name]);
    command.env("RENGINE_CERTS_D", certificates);
    Running::start(&mut command).ends().succeeds();
    other.rengine(["run", "--rm", "--network", "none", name, "true"]).succeeds();
}

/// A server that answers each request, and keeps what came before its body.
fn answering(answer: impl Fn(&str) -> String + Send + 'static) -> (String, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let heads = Arc::new(Mutex::new(String::new()));
    let kept = heads.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            let head = head.join("\n").to_lowercase();
            kept.lock().unwrap().push_str(&head);
            let _ = stream.write_all(answer(&head).as_bytes());
        }
    });
    (address, heads)
}

#[test]
fn headers_for_a_registry_are_for_no_other_host() {
    let world = World::empty();
    let answer = |status: &str, more: &str, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{more}\r\n{body}")
    };
    let (tokens, asked_for_tokens) = answering(move |_| answer("200 OK", "", r#"{"token":"t"}"#));
    let (registry, asked) = answering(move |head| {
        if head.contains("authorization: bearer t") {
            return answer("404 Not Found", "", "{}");
        }
        let challenge = format!("WWW-Authenticate: Bearer realm=\"http://{tokens}/token\",service=\"s\"\r\n");
        answer("401 Unauthorized", &challenge, "{}")
    });
    let text = format!("server = \"http://{registry}\"\n[header]\nx-key = \"hush\"\n");
    say(&world, "registry.test", &text);
    rengine(&world, &["pull", "-q", "registry.test/app:1"]).exits(1).complains("not in the registry");
    assert!(asked.lock().unwrap().contains("x-key: hush"), "{asked:?}");
    let told = asked_for_tokens.lock().unwrap();
    assert!(told.contains("get /token") && !told.contains("hush"), "{told}");
}
