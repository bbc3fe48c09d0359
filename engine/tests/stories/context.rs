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
    // A query changes nothing for files.
    let plain = path.split('?').next().unwrap_or_default();
    let found = files.iter().find(|(known, _)| *known == plain);
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
    world.await_monitors_end();
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
fn a_key_gets_an_agent_for_as_long_as_the_build_lasts() {
    let world = World::new();
    let key = world.path("key");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "the-key", "-f", key.to_str().unwrap()])
        .status();
    assert!(made.unwrap().success());
    world.write("context/Dockerfile", "FROM box\nRUN --mount=type=ssh,required test -S $SSH_AUTH_SOCK\n");
    let context = world.path("context");
    let given = format!("default={}", key.display());
    world.rengine(["build", "--ssh", &given, context.to_str().unwrap()]).succeeds();
    let run = world.root().run().to_owned();
    let left =
        || fs::read_dir(&run).unwrap().filter(|entry| entry.as_ref().unwrap().path().join("agent").exists());
    assert_eq!(left().count(), 0);
    fs::write(&key, "no key").unwrap();
    let refused = world.rengine(["build", "--no-cache", "--ssh", &given, context.to_str().unwrap()]);
    refused.fails().complains("Dockerfile:2").complains("use ").complains("key");
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

/// A repository as a server of plain files has it: a branch, an annotated tag of its first commit, and a submodule
/// that is a directory of the server's machine.
struct Repository {
    files: Vec<(String, Vec<u8>)>,
    first: String,
    last: String,
}

impl Repository {
    fn make(world: &World) -> Self {
        let work = world.path("work");
        fs::create_dir_all(work.join("sub/deep")).unwrap();
        git(&work, &["init", "-q", "-b", "main"]);
        fs::write(work.join("sub/Dockerfile"), "FROM box\nCOPY . /all/\n").unwrap();
        fs::write(work.join("sub/script"), "one").unwrap();
        fs::set_permissions(work.join("sub/script"), std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .unwrap();
        std::os::unix::fs::symlink("/etc", work.join("out")).unwrap();
        let first = commit(&work);
        git(&work, &["tag", "-a", "-m", "x", "v1"]);
        fs::write(work.join("sub/script"), "two").unwrap();
        let last = commit(&work);
        git(&work, &["update-server-info"]);
        let mut files = Vec::new();
        collect(&work.join(".git"), "/a.git", &mut files);
        Self { files, first, last }
    }
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .args(["-c", "user.name=me", "-c", "user.email=me@example.com"])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn commit(directory: &Path) -> String {
    git(directory, &["add", "-A"]);
    git(directory, &["commit", "-q", "-m", "x"]);
    git(directory, &["rev-parse", "HEAD"])
}

fn collect(directory: &Path, prefix: &str, files: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{prefix}/{}", entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), &path, files);
        } else {
            // The server looks for paths in lower case.
            files.push((path.to_lowercase(), fs::read(entry.path()).unwrap()));
        }
    }
}

fn serve(files: &[(String, Vec<u8>)]) -> Server {
    let files: Vec<(&str, Vec<u8>)> =
        files.iter().map(|(path, bytes)| (path.as_str(), bytes.clone())).collect();
    Server::of(&files)
}

#[test]
fn a_context_is_a_repository() {
    let world = World::new();
    let repository = Repository::make(&world);
    let server = serve(&repository.files);
    let address = format!("{}/a.git", server.address);
    world.rengine(["build", "-t", "built", &format!("{address}#:sub")]).succeeds();
    assert_eq!(cat(&world, "/all/script"), "two");
    let listed = ["run", "--rm", "--network", "none", "built", "stat", "-c", "%a %u %n"];
    let listed = world.rengine(listed.iter().chain(&["/all/script", "/all/Dockerfile"])).succeeds().stdout;
    assert_eq!(listed, "755 0 /all/script\n644 0 /all/Dockerfile\n");
    // By tag, by the beginning of a commit, and in the other form.
    for wanted in ["#v1:sub", &format!("#{}:sub", &repository.first[..9]), "?tag=v1&subdir=sub"] {
        world.rengine(["build", "-t", "built", &format!("{address}{wanted}")]).succeeds();
        assert_eq!(cat(&world, "/all/script"), "one", "{wanted}");
    }
    let checked = |sum: &str| format!("{address}?branch=main&subdir=sub&checksum={sum}");
    world.rengine(["build", &checked(&repository.last)]).succeeds();
    world.rengine(["build", &checked(&repository.first)]).fails().complains("checksum mismatch");
    world.rengine(["build", &format!("{address}#nosuch")]).fails().complains("has no refs/heads/nosuch");
    // A directory outside of the repository, by its path or over a link in it.
    world.rengine(["build", &format!("{address}#main:../..")]).fails().complains("not in the repository");
    world.rengine(["build", &format!("{address}#main:out")]).fails().complains("has no directory \"out\"");
    world
        .rengine(["build", &format!("{address}#--upload-pack=touch")])
        .fails()
        .complains("cannot be a reference");
    assert!(!world.rengine(["builder", "du"]).succeeds().stdout.is_empty());
}

#[test]
fn a_repository_is_added_with_and_without_its_history() {
    let world = World::new();
    let repository = Repository::make(&world);
    let server = serve(&repository.files);
    let build = |flags: &str, reference: &str| {
        let text = format!("FROM box\nADD {flags} {}/a.git{reference} /all\n", server.address);
        world.feed(["build", "-t", "built", "-"], text.as_bytes())
    };
    build("", "#v1").succeeds();
    assert_eq!(cat(&world, "/all/sub/script"), "one");
    let list = ["run", "--rm", "--network", "none", "built", "ls", "-A", "/all"];
    world.rengine(list).succeeds().prints("out\nsub\n");
    build("--keep-git-dir=true", "").succeeds();
    assert_eq!(cat(&world, "/all/.git/HEAD"), format!("{}\n", repository.last));
    build(&format!("--checksum={}", &repository.last[..12]), "#main").succeeds();
    build(&format!("--checksum={}", repository.first), "#main").fails().complains("checksum mismatch");
    world
        .feed(["build", "-"], b"FROM box\nADD --keep-git-dir=true http://x/y /\n")
        .fails()
        .complains("git repositories");
}

#[test]
fn a_submodule_cannot_be_a_directory_of_the_machine() {
    let world = World::new();
    let work = world.path("work");
    let inner = world.path("inner");
    for directory in [&work, &inner] {
        fs::create_dir_all(directory).unwrap();
        git(directory, &["init", "-q", "-b", "main"]);
        fs::write(directory.join("Dockerfile"), "FROM box\n").unwrap();
        commit(directory);
    }
    // A submodule that is a directory of this machine, which only its owner may read.
    git(
        &work,
        &["-c", "protocol.file.allow=always", "submodule", "-q", "add", inner.to_str().unwrap(), "inner"],
    );
    commit(&work);
    git(&work, &["update-server-info"]);
    let mut files = Vec::new();
    collect(&work.join(".git"), "/a.git", &mut files);
    let server = serve(&files);
    let address = format!("{}/a.git", server.address);
    world.rengine(["build", &address]).fails().complains("not allowed");
    world.rengine(["build", &format!("{address}?submodules=false")]).succeeds();
}
