//! What a process of a bundle is, has and joins.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serde_json::json;

use super::shelf::{Runtime, Shelf};

#[test]
fn a_second_process_is_what_its_description_or_the_flags_say() {
    let shelf = Shelf::new(&["sleep", "1000"]);
    shelf.detach(Runtime::Ours, &[]);
    let exec = |args: &[&str]| shelf.ours(["exec"].into_iter().chain(args.iter().copied()));
    let id = shelf.id.as_str();
    exec(&[id, "sh", "-c", "id -u; pwd; exit 7"]).exits(7).prints("0\n/\n");
    exec(&[
        "--user",
        "5:6",
        "-g",
        "7",
        "--cwd",
        "/tmp",
        "-e",
        "A=b",
        id,
        "sh",
        "-c",
        "id -u; id -G; pwd; echo $A",
    ])
    .succeeds()
    .prints("5\n6 7\n/tmp\nb\n");
    exec(&[id, "nope"]).exits(255).complains("executable file not found in $PATH");
    exec(&["--cap", "CAP_SYS_CHROOT", id, "sh", "-c", "grep CapPrm /proc/self/status"])
        .succeeds()
        .shows("0000000020040420");
    let described = shelf.path("process.json");
    let process = json!({
        "args": ["sh", "-c", "id -u; umask; grep -E 'NoNewPrivs|CapBnd' /proc/self/status; ulimit -n"],
        "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 9, "gid": 9, "umask": 0o77},
        "capabilities": {"bounding": ["CAP_CHOWN"]},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 99, "hard": 100}],
    });
    fs::write(&described, process.to_string()).unwrap();
    exec(&["--process", described.to_str().unwrap(), id])
        .succeeds()
        .prints("9\n0077\nCapBnd:\t0000000000000001\nNoNewPrivs:\t0\n99\n");
    let pid = shelf.path("pid");
    let script = "exec 1>&- 2>&-; sleep 1000; true";
    exec(&["-d", "--pid-file", pid.to_str().unwrap(), id, "sh", "-c", script]).succeeds();
    let pid = fs::read_to_string(pid).unwrap();
    assert_eq!(fs::read(format!("/proc/{pid}/cmdline")).unwrap(), format!("sh\0-c\0{script}\0").as_bytes());
}

#[test]
fn a_terminal_goes_to_the_console_socket() {
    let shelf = Shelf::script("tty; ls -l /dev/console | cut -c1; stty size; exec sleep 1000");
    shelf.change(|config| {
        config["process"]["terminal"] = json!(true);
        config["process"]["consoleSize"] = json!({"height": 21, "width": 43});
    });
    shelf.ours(["create", &shelf.id]).exits(1).complains("without setting console socket");
    let socket = shelf.path("console");
    let listener = UnixListener::bind(&socket).unwrap();
    shelf.create(&["--console-socket", socket.to_str().unwrap()]);
    let master = received(&listener);
    shelf.verb("start").succeeds();
    let mut text = String::new();
    let mut terminal = fs::File::from(master);
    while text.lines().count() < 3 || !text.ends_with('\n') {
        let mut chunk = [0; 100];
        let count = terminal.read(&mut chunk).unwrap();
        text.push_str(std::str::from_utf8(&chunk[..count]).unwrap());
    }
    assert_eq!(text, "/dev/pts/0\r\nc\r\n21 43\r\n");
}

fn received(listener: &UnixListener) -> OwnedFd {
    let (connection, _) = listener.accept().unwrap();
    let mut name = [0; 64];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [std::io::IoSliceMut::new(&mut name)];
    rustix::net::recvmsg(&connection, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let messages = control.drain();
    let mut rights = messages.filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    rights.next().unwrap().next().unwrap()
}

#[test]
fn descriptors_are_passed_on_as_many_as_asked() {
    let shelf = Shelf::script("cat <&3; ls /proc/self/fd | wc -l");
    let file = shelf.path("given");
    fs::write(&file, "given\n").unwrap();
    let line = |count: &str| {
        let text = format!(
            "exec 3<{} 4</dev/null; exec {} oci --root {} run --preserve-fds {count} {}",
            file.display(),
            env!("CARGO_BIN_EXE_rengine"),
            shelf.path("ours").display(),
            shelf.id,
        );
        let mut shell = std::process::Command::new("/bin/sh");
        crate::world::Running::start(shell.args(["-c", &text]).current_dir(shelf.bundle())).ends()
    };
    // Besides the three streams and the one that lists: one that was asked for.
    line("1").succeeds().prints("given\n5\n");
    // The first descriptor that is free is the one that lists.
    line("0").succeeds().prints("4\n");
    line("4").exits(1).complains("preserved-fd 5 (of 4)");
}

#[test]
fn namespaces_are_joined_by_their_files() {
    let first = Shelf::new(&["sleep", "1000"]);
    first.detach(Runtime::Ours, &[]);
    let pid = first.state(Runtime::Ours)["pid"].to_string();
    let kinds = [("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid")];
    let second = Shelf::script("for one in net ipc uts pid; do readlink /proc/self/ns/$one; done");
    second.change(|config| {
        config["linux"]["namespaces"] = json!([{"type": "mount"}]);
        for (kind, file) in kinds {
            let namespace = json!({"type": kind, "path": format!("/proc/{pid}/ns/{file}")});
            config["linux"]["namespaces"].as_array_mut().unwrap().push(namespace);
        }
        config.as_object_mut().unwrap().remove("hostname");
    });
    let link = |(_, file)| fs::read_link(format!("/proc/{pid}/ns/{file}")).unwrap();
    let expected: Vec<String> = kinds.map(link).iter().map(|link| format!("{}\n", link.display())).collect();
    let seen = second.ours(["run", &second.id]).succeeds().stdout;
    assert!(seen.starts_with(&expected.concat()), "{seen}");
}

#[test]
fn what_cannot_be_honoured_is_named() {
    let shelf = Shelf::new(&["true"]);
    let original = fs::read(shelf.bundle().join("config.json")).unwrap();
    let refused = |pointer: &str, value: serde_json::Value, message: &str| {
        shelf.change(|config| {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            config.pointer_mut(parent).unwrap()[key] = value;
        });
        shelf.ours(["run", &shelf.id]).exits(1).complains(message);
        fs::write(shelf.bundle().join("config.json"), &original).unwrap();
    };
    refused("/linux/timeOffsets", json!({"boottime": {"secs": 1}}), "linux.timeOffsets is not supported");
    refused("/linux/mountLabel", json!("system_u"), "linux.mountLabel is not supported");
    refused("/linux/intelRdt", json!({"closID": "x"}), "linux.intelRdt is not supported");
    refused("/process/selinuxLabel", json!("x"), "process.selinuxLabel is not supported");
    refused("/linux/rootfsPropagation", json!("unbindable"), "rootfsPropagation");
    refused("/mounts/0/options", json!(["idmap"]), "the mount at /proc has the option");
    refused("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_NOTIFY"}), "SCMP_ACT_NOTIFY");
    refused("/linux/namespaces", json!([{"type": "pid"}]), "without a mount namespace");
    refused("/linux/sysctl", json!({"kernel.panic": "1"}), "does not belong to a namespace");
    refused("/process/rlimits", json!([{"type": "RLIMIT_NOPE", "soft": 1, "hard": 1}]), "RLIMIT_NOPE");
    refused("/ociVersion", json!("2.0.0"), "ociVersion");
    refused("/process/cwd", json!("tmp"), "Cwd must be an absolute path");
    shelf.change(|config| config["linux"]["brandNew"] = json!({"key": 1}));
    let outcome = shelf.ours(["run", &shelf.id]).succeeds();
    outcome.complains("level=warning msg=\"linux.brandNew has no effect: it is not known\"");
}
