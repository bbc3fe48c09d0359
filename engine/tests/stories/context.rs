//! What builds read from elsewhere than their directory: standard input, addresses, agents, secrets.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::world::World;

/// A server of files: each with an ETag, so that it can say that nothing has changed.
struct Server {
    address: String,
    served: Arc<AtomicUsize>,
}

impl Server {
    fn of(files: &[(&str, Vec<u8>)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let served = Arc::new(AtomicUsize::new(0));
        let files: Vec<(String, Vec<u8>)> =
            files.iter().map(|(path, content)| ((*path).to_owned(), content.clone())).collect();
        let count = served.clone();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), &files, &count);
            }
        });
        Self { address, served }
    }
}

fn answer(mut stream: TcpStream, files: &[(String, Vec<u8>)], served: &AtomicUsize) {
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(count) => request.extend_from_slice(&chunk[..count]),
        }
    }
    let text = String::from_utf8_lossy(&request).to_lowercase();
    let path = text.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let found = files.iter().find(|(known, _)| *known == path);
    let head = "Connection: close\r\nETag: \"one\"\r\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n";
    let response = match found {
        _ if path == "/private" && !text.contains("authorization: bearer sesame") => {
            b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_vec()
        }
        None => b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_vec(),
        Some(_) if text.contains("if-none-match: \"one\"") => {
            format!("HTTP/1.1 304 Not Modified\r\n{head}\r\n").into_bytes()
        }
        Some((_, content)) => {
            served.fetch_add(1, Ordering::SeqCst);
            let head = format!("HTTP/1.1 200 OK\r\n{head}Content-Length: {}\r\n\r\n", content.len());
            [head.into_bytes(), content.clone()].concat()
        }
    };
    // Whoever asked may have gone away.
    let _ = stream.write_all(&response);
}

fn tar(directory: &Path, flags: &str) -> Vec<u8> {
    let output = Command::new("tar").current_dir(directory).args([flags, "-", "."]).output().unwrap();
    assert!(output.status.success());
    output.stdout
}

fn cat(world: &World, path: &str) -> String {
    world.rengine(["run", "--rm", "--network", "none", "built", "cat", path]).succeeds().stdout
}

#[test]
fn a_context_is_an_archive_on_standard_input() {
    let world = World::new();
    world.write("context/Dockerfile", "FROM box\nCOPY sub/a /a\n");
    world.write("context/sub/a", "from the archive");
    for flags in ["-cf", "-czf"] {
        world.feed(["build", "-t", "built", "-"], &tar(&world.path("context"), flags)).succeeds();
        assert_eq!(cat(&world, "/a"), "from the archive");
    }
    world.feed(["build", "-t", "built", "-"], b"FROM box\nRUN echo -n text > /a\n").succeeds();
    assert_eq!(cat(&world, "/a"), "text");
    world.feed(["build", "-"], b"FROM box\nCOPY a /a\n").fails().complains("not found");
    assert_eq!(fs::read_dir(world.root().scratch()).unwrap().count(), 0);
}

#[test]
fn a_context_is_an_archive_or_a_dockerfile_at_an_address() {
    let world = World::new();
    world.write("context/Dockerfile", "FROM box\nCOPY a /a\n");
    world.write("context/a", "from afar");
    let archive = tar(&world.path("context"), "-czf");
    let server = Server::of(&[
        ("/context.tar.gz", archive),
        ("/dockerfile", b"FROM box\nRUN echo -n alone > /a\n".to_vec()),
    ]);
    let address = &server.address;
    world.rengine(["build", "-t", "built", &format!("{address}/context.tar.gz")]).succeeds();
    assert_eq!(cat(&world, "/a"), "from afar");
    world.rengine(["build", "-t", "built", &format!("{address}/Dockerfile")]).succeeds();
    assert_eq!(cat(&world, "/a"), "alone");
    world.rengine(["build", &format!("{address}/none")]).fails().complains("404");
    world.rengine(["build", "https://example.com/a.git"]).fails().complains("git").complains("clone");
}

#[test]
fn a_file_is_added_from_an_address() {
    let world = World::new();
    world.write("inner/x", "inside");
    let server = Server::of(&[
        ("/some/file.txt", b"fetched".to_vec()),
        ("/private", b"private".to_vec()),
        ("/a.tar", tar(&world.path("inner"), "-cf")),
    ]);
    let address = &server.address;
    let dockerfile = format!(
        "FROM box\nADD {address}/some/file.txt /into/\nADD --chmod=644 {address}/some/file.txt /named\n\
         ADD {address}/a.tar /kept.tar\nADD --unpack=true {address}/a.tar /unpacked\n\
         RUN stat -c '%a %u %Y' /into/file.txt /named > /stat && cat /unpacked/x >> /stat && test -f /kept.tar\n"
    );
    let build = |dockerfile: &str, flags: &[&str]| {
        world.write("context/Dockerfile", dockerfile);
        let context = world.path("context");
        world
            .rengine(["build", "-t", "built"].iter().chain(flags).copied().chain([context.to_str().unwrap()]))
    };
    build(&dockerfile, &[]).succeeds();
    assert_eq!(cat(&world, "/stat"), "600 0 1445412480\n644 0 1445412480\ninside");
    let served = server.served.load(Ordering::SeqCst);
    build(&dockerfile, &[]).succeeds();
    assert_eq!(server.served.load(Ordering::SeqCst), served, "nothing is sent again that has not changed");

    let sum = "sha256:".to_owned() + &sha256(b"fetched");
    build(&format!("FROM box\nADD --checksum={sum} {address}/some/file.txt /f\n"), &[]).succeeds();
    let wrong = "sha256:".to_owned() + &"0".repeat(64);
    build(&format!("FROM box\nADD --checksum={wrong} {address}/some/file.txt /f\n"), &[])
        .fails()
        .complains("Dockerfile:2")
        .complains("mismatch");
    build(&format!("FROM box\nADD --checksum={sum} Dockerfile /f\n"), &[]).fails().complains("http");
    build(&format!("FROM box\nADD {address}/missing /f\n"), &[]).fails().complains("404");

    let private = format!("FROM box\nADD {address}/private /f\n");
    build(&private, &[]).fails().complains("403");
    world.write("token", "sesame");
    let secret = format!(
        "id=HTTP_AUTH_TOKEN_{},src={}",
        address.trim_start_matches("http://"),
        world.path("token").display()
    );
    build(&private, &["--secret", &secret]).succeeds();
    assert_eq!(cat(&world, "/f"), "private");
}

fn sha256(bytes: &[u8]) -> String {
    let mut child = Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}

#[test]
fn an_agent_answers_inside_a_step_and_leaves_no_trace() {
    let world = World::new();
    let socket = world.path("agent");
    let agent = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for stream in agent.incoming() {
            let mut stream = stream.unwrap();
            // A visitor that only looks whether somebody is at home hears nothing.
            let _ = stream.write_all(b"keys\n");
        }
    });
    let dockerfile = "FROM box\n\
         RUN --mount=type=ssh,uid=1000 test -S $SSH_AUTH_SOCK && stat -c %u $SSH_AUTH_SOCK > /seen\n\
         RUN test ! -e /run/buildkit && test -z \"$SSH_AUTH_SOCK\"\n\
         RUN --mount=type=ssh,id=other test -z \"$SSH_AUTH_SOCK\"\n";
    world.write("context/Dockerfile", dockerfile);
    let context = world.path("context");
    let given = format!("default={}", socket.display());
    world.rengine(["build", "-t", "built", "--ssh", &given, context.to_str().unwrap()]).succeeds();
    assert_eq!(cat(&world, "/seen"), "1000\n");
    world.write("context/Dockerfile", "FROM box\nRUN --mount=type=ssh,required true\n");
    world.rengine(["build", context.to_str().unwrap()]).fails().complains("Dockerfile:2").complains("--ssh");
    world.rengine(["build", "--ssh", "a=/nosuch", context.to_str().unwrap()]).fails().complains("/nosuch");
}

#[test]
fn a_named_context_stands_in_for_stages_and_images() {
    let world = World::new();
    world.write("context/Dockerfile", "FROM elsewhere\nCOPY --from=files a /a\n");
    world.write("other/a", "from the other");
    let (context, other) = (world.path("context"), world.path("other"));
    let files = format!("files={}", other.display());
    let flags = ["--build-context", &files, "--build-context", "elsewhere=docker-image://box"];
    world
        .rengine(["build", "-t", "built"].into_iter().chain(flags).chain([context.to_str().unwrap()]))
        .succeeds();
    assert_eq!(cat(&world, "/a"), "from the other");
}

#[test]
fn a_root_file_system_is_imported_from_an_address() {
    let world = World::empty();
    world.write("files/a", "imported");
    let server = Server::of(&[("/files.tar.gz", tar(&world.path("files"), "-czf"))]);
    world.rengine(["import", &format!("{}/files.tar.gz", server.address), "far:1"]).succeeds();
    let out = world.path("out");
    world.write("context/Dockerfile", "FROM far:1\n");
    world.rengine(["build", "-o", out.to_str().unwrap(), world.path("context").to_str().unwrap()]).succeeds();
    assert_eq!(fs::read_to_string(out.join("a")).unwrap(), "imported");
}
