//! Calls that a container's filter hands to somebody else, and mounts whose files have other owners.
#![expect(unsafe_code, reason = "answering on a listener")]

use std::fs;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::net::UnixListener;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serde_json::{Value, json};

use super::shelf::{Runtime, Shelf};

/// What comes to a listener's socket: the state of a process and its filter's listener.
fn received(socket: &UnixListener) -> (Value, OwnedFd) {
    let (connection, _) = socket.accept().unwrap();
    let mut message = vec![0; 8192];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut message)];
    let length =
        rustix::net::recvmsg(&connection, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap().bytes;
    let mut rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let listener = rights.next().unwrap().next().unwrap();
    (serde_json::from_slice(&message[..length]).unwrap(), listener)
}

/// Answers one call on this listener with an error number (seccomp_unotify(2)).
fn refuse_one(listener: &OwnedFd, errno: i32) {
    const RECEIVE: libc::Ioctl = 0xc050_2100_u32 as libc::Ioctl;
    const SEND: libc::Ioctl = 0xc018_2101_u32 as libc::Ioctl;
    // `struct seccomp_notif`, whose first member is the call's id; then `struct seccomp_notif_resp`.
    let mut call = [0u64; 10];
    // SAFETY: the kernel writes one structure of 80 bytes, which is what there is.
    let got = unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, call.as_mut_ptr()) };
    assert_eq!(got, 0, "{}", std::io::Error::last_os_error());
    let mut answer = [call[0], 0, u64::from((-errno).cast_unsigned())];
    // SAFETY: the kernel reads one structure of 24 bytes, which is what there is.
    let sent = unsafe { libc::ioctl(listener.as_raw_fd(), SEND, answer.as_mut_ptr()) };
    assert_eq!(sent, 0, "{}", std::io::Error::last_os_error());
}

/// A filter that asks about directories, and whoever answers for it.
fn asks_about_directories(shelf: &Shelf) -> UnixListener {
    let socket = shelf.path("listener");
    shelf.change(|config| {
        config["annotations"] = json!({"colour": "red"});
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": socket,
            "listenerMetadata": "of the test",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
        });
    });
    UnixListener::bind(socket).unwrap()
}

#[test]
fn calls_are_handed_to_the_listener_of_the_filter() {
    let shelf = Shelf::script("mkdir /tmp/a; echo $?; exec sleep 1000");
    let socket = asks_about_directories(&shelf);
    shelf.create(&[]);
    let starting = {
        let mut command = shelf.command(Runtime::Ours, ["start", &shelf.id]);
        std::thread::spawn(move || command.status().unwrap())
    };
    let (told, listener) = received(&socket);
    let pid = shelf.state(Runtime::Ours)["pid"].clone();
    assert_eq!(told["fds"], json!(["seccompFd"]));
    assert_eq!((&told["pid"], &told["metadata"]), (&pid, &json!("of the test")));
    let state = &told["state"];
    assert_eq!((&state["id"], &state["status"]), (&json!(shelf.id), &json!("created")));
    assert_eq!(state["annotations"], json!({"colour": "red"}));
    assert!(starting.join().unwrap().success());
    refuse_one(&listener, libc::EDQUOT);

    // A second process has a filter of its own with the same listener.
    let joining = {
        let mut command = shelf.command(Runtime::Ours, ["exec", &shelf.id, "mkdir", "/tmp/b"]);
        std::thread::spawn(move || command.output().unwrap())
    };
    let (told, listener) = received(&socket);
    assert_eq!(told["state"]["pid"], pid);
    assert_ne!(told["pid"], pid);
    refuse_one(&listener, libc::EDQUOT);
    let joined = joining.join().unwrap();
    let said = String::from_utf8_lossy(&joined.stderr).into_owned();
    assert!(said.contains("Disk quota exceeded"), "{said}");
    shelf.kill();
    assert_eq!(shelf.output(), "1\n");
}

#[test]
fn a_filter_that_asks_nobody_is_refused() {
    let shelf = Shelf::new(&["true"]);
    let socket = asks_about_directories(&shelf);
    let refused = |key: &str, value: Value, message: &str| {
        let before = fs::read(shelf.bundle().join("config.json")).unwrap();
        shelf.change(|config| config["linux"]["seccomp"][key] = value);
        shelf.ours(["run", &shelf.id]).exits(1).complains(message);
        fs::write(shelf.bundle().join("config.json"), before).unwrap();
    };
    refused("listenerPath", json!(""), "without a listener the action");
    refused("defaultAction", json!("SCMP_ACT_NOTIFY"), "as default the action");
    let writes = json!([{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}]);
    refused("syscalls", writes, "to be asked about the call");
    drop(socket);
    shelf.ours(["run", &shelf.id]).exits(1).complains("send the listener to");
    assert!(!shelf.path("ours").join(&shelf.id).exists());
}

#[test]
fn a_mount_shows_owners_as_its_mappings_say() {
    let shelf = Shelf::script("stat -c '%u:%g' /data/file; touch /data/new");
    let data = shelf.path("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), "").unwrap();
    chown(data.join("file"), Some(7), Some(8)).unwrap();
    chown(&data, Some(0), Some(0)).unwrap();
    let mapping = |host: u32| json!([{"containerID": 0, "hostID": host, "size": 1000}]);
    let mount = |options: Value| {
        json!({"destination": "/data", "type": "bind", "source": data, "options": options,
            "uidMappings": mapping(5000), "gidMappings": mapping(6000)})
    };
    shelf.change(|config| {
        config["mounts"].as_array_mut().unwrap().push(mount(json!(["bind", "idmap"])));
        // Files are made by somebody whom the file system knows.
        config["process"]["user"] = json!({"uid": 5001, "gid": 6001});
        config["root"]["readonly"] = json!(false);
    });
    fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    shelf.ours(["run", &shelf.id]).succeeds().prints("5007:6008\n");
    let made = fs::metadata(data.join("new")).unwrap();
    assert_eq!((made.uid(), made.gid()), (1, 1));
}

#[test]
fn a_mount_is_mapped_as_the_containers_own_users() {
    let shelf = Shelf::script("stat -c '%u:%g' /data/file");
    let data = shelf.path("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), "").unwrap();
    chown(data.join("file"), Some(7), Some(8)).unwrap();
    shelf.change(|config| {
        let mount =
            json!({"destination": "/data", "type": "bind", "source": data, "options": ["rbind", "ridmap"]});
        config["mounts"].as_array_mut().unwrap().push(mount);
    });
    shelf.ours(["run", &shelf.id]).exits(1).complains("neither it nor the container says");
    let mapping = json!([{"containerID": 0, "hostID": 300_000, "size": 1000}]);
    shelf.change(|config| {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        config["linux"]["uidMappings"] = mapping.clone();
        config["linux"]["gidMappings"] = mapping;
    });
    give_root_away(&shelf);
    shelf.ours(["run", &shelf.id]).succeeds().prints("7:8\n");
}

/// The root of a container with users of its own belongs to them.
fn give_root_away(shelf: &Shelf) {
    let rootfs = shelf.bundle().join("rootfs");
    let rootfs = rootfs.to_str().unwrap();
    let done = std::process::Command::new("chown").args(["-R", "300000:300000", rootfs]).status().unwrap();
    assert!(done.success());
    for directory in [shelf.bundle(), shelf.path("")] {
        fs::set_permissions(directory, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
}
