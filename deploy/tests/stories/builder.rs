//! A machine of its own that builds.

use std::fs;
use std::os::unix::net::UnixListener;

use crate::deploy::{Project, fails, get, succeeds};
use crate::server::{Kind, Network, Server};

/// Bytes that have come to a server so far.
fn arrived(server: &Server) -> u64 {
    server.run("cat /sys/class/net/eth0/statistics/rx_bytes").parse().unwrap()
}

#[test]
fn a_machine_of_the_images_kind_builds_and_gets_only_what_changed() {
    let network = Network::new();
    let (host, builder) = (Server::of(&network, Kind::default()), Server::of(&network, Kind::default()));
    let project = Project::new();
    let kind = engine::image::Platform::host();
    project.write("rdeploy.yaml", &format!("builder: {{{kind}: 'root@{}'}}\n", builder.ip()));
    // In the context, and in no image.
    let noise: Vec<u8> =
        (0..1_u32 << 20).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    std::fs::write(project.path().join("large"), noise).unwrap();
    let pin = builder.fingerprint("ed25519").to_string();
    let up = |words: &[&str]| {
        let words: Vec<&str> = ["--fingerprint", &pin, "up"].iter().chain(words).copied().collect();
        succeeds(&project.rdeploy(&[&host], &words))
    };
    up(&[]);
    assert_eq!(get(host.ip()).unwrap(), "one");
    let images = |server: &Server| server.run("$(ls /var/lib/rengine/bin/*/rdeploy) rengine images");
    assert!(images(&builder).contains("rdeploy/context") && !images(&host).contains("rdeploy/context"));
    project.write("page", "two\n");
    let before = arrived(&builder);
    up(&["--drain", "0s"]);
    assert_eq!(get(host.ip()).unwrap(), "two");
    let came = arrived(&builder) - before;
    assert!(came < 300_000, "{came} bytes for one line");
}

#[test]
fn a_build_on_a_server_asks_the_ssh_agent_of_this_machine() {
    let server = Server::of(&Network::new(), Kind::default());
    let project = Project::new();
    project.write("rdeploy.yaml", "builder: host\n");
    let agent = project.path().join("../agent");
    let file = fs::read_to_string(project.path().join("compose.yaml")).unwrap();
    let build = format!("build: {{context: ., ssh: ['default={}']}}", agent.display());
    assert!(file.contains("build: ."), "{file}");
    project.write("compose.yaml", &file.replace("build: .", &build));
    let dockerfile = fs::read_to_string(project.path().join("Dockerfile")).unwrap();
    let step = "RUN --mount=type=ssh [\"sh\", \"-c\", \"test -S $SSH_AUTH_SOCK\"]\nCMD";
    project.write("Dockerfile", &dockerfile.replace("CMD", step));
    let said = fails(&project.rdeploy(&[&server], &["up"]));
    assert!(said.contains("there is no SSH agent at"), "{said}");
    let listener = UnixListener::bind(&agent).unwrap();
    let visit = std::thread::spawn(move || drop(listener.accept().unwrap()));
    succeeds(&project.rdeploy(&[&server], &["up"]));
    assert_eq!(get(server.ip()).unwrap(), "one");
    visit.join().unwrap();
    assert_eq!(server.run("ls /tmp | grep -c ^rdeploy- || true"), "0", "the way to the agent is still there");
}

#[test]
fn a_host_of_another_kind_gets_the_executable_for_that() {
    // It only says that it is of another kind.
    let uname = "printf '#!/bin/sh\\necho riscv64\\n' >/usr/local/bin/uname; chmod 755 /usr/local/bin/uname";
    let server = Server::of(&Network::new(), Kind::default().script(uname));
    let project = Project::new();
    let said = fails(&project.rdeploy(&[&server], &["up"]));
    assert!(
        said.contains("is a machine of kind \"riscv64\"") && said.contains("executables: {riscv64: FILE}"),
        "{said}"
    );
    let mut other = std::fs::read(env!("CARGO_BIN_EXE_rdeploy")).unwrap();
    other.push(0);
    std::fs::write(project.path().join("../other"), &other).unwrap();
    project.write("rdeploy.yaml", "executables: {riscv64: ../other}\n");
    succeeds(&project.rdeploy(&[&server], &["up"]));
    assert_eq!(get(server.ip()).unwrap(), "one");
    let digest = engine::id::Digest::of(&other).to_string().replace(':', "-");
    assert_eq!(server.run("ls /var/lib/rengine/bin"), digest);
    assert_eq!(succeeds(&project.rdeploy(&[&server], &["exec", "web", "cat", "/www/page"])), "one\n");
}
