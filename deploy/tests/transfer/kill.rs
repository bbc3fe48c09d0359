//! A receiver that is killed leaves a store that can be used, and what it had received.

use std::fs;
use std::io::{self, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use deploy::protocol::Channel;
use deploy::transfer::{self, FailureKind};
use engine::engine::Engine;
use engine::image::Image;

use crate::world::{World, names, noise};

const SOCKET: &str = "TRANSFER_TEST_SOCKET";
const ROOT: &str = "TRANSFER_TEST_ROOT";

/// Not a test but the process that the tests below kill.
#[test]
#[ignore = "a process of other tests"]
fn receiver() {
    let socket = UnixStream::connect(std::env::var(SOCKET).unwrap()).unwrap();
    let engine = Engine::open(Some(Path::new(&std::env::var(ROOT).unwrap()))).unwrap();
    let mut channel = Channel::new(socket.try_clone().unwrap(), socket);
    // The sender sees how it ended.
    let _ = transfer::receive(&mut channel, &engine);
}

/// A way out to a process that is killed after so many bytes.
struct Deadly {
    writer: UnixStream,
    left: u64,
    victim: Arc<Mutex<Child>>,
}

impl Write for Deadly {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        if most == 0 {
            self.victim.lock().unwrap().kill()?;
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let written = self.writer.write(&bytes[..most])?;
        self.left -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

const RECEIVER: [&str; 3] = ["--exact", "kill::receiver", "--ignored"];

/// Starts a receiver, and is connected with it.
fn start(world: &World, command: &mut Command) -> (Child, UnixStream) {
    let socket = world.here.root().state().join("socket");
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).unwrap();
    let child = command
        .env(SOCKET, &socket)
        .env(ROOT, world.there.root().state())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    (child, listener.accept().unwrap().0)
}

/// Sends an image to a process of its own, which is killed after so many bytes, or by `strike`. Whether it arrived.
fn send(world: &World, image: &Image, limit: u64, strike: impl FnOnce(&Mutex<Child>) + Send) -> bool {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(RECEIVER);
    let (child, near) = start(world, &mut command);
    let victim = Arc::new(Mutex::new(child));
    let writer = Deadly { writer: near.try_clone().unwrap(), left: limit, victim: victim.clone() };
    let sent = std::thread::scope(|scope| {
        scope.spawn(|| strike(&victim));
        let mut channel = Channel::new(near, writer);
        let images = std::slice::from_ref(image);
        transfer::send(&mut channel, &world.here, std::slice::from_ref(&image.id), &names(images), &|_| {})
    });
    victim.lock().unwrap().wait().unwrap();
    if let Err(error) = &sent {
        assert!(error.is_lost_connection(), "{error:?}");
    }
    sent.is_ok()
}

fn fill(upper: &Path) {
    for number in 0..300 {
        fs::write(upper.join(format!("file{number}")), noise(number, 10_000)).unwrap();
    }
}

fn expect_usable(world: &World) {
    assert!(world.there.images().list().unwrap().is_empty());
    let found = world.there.check().unwrap();
    assert!(found.damaged.is_empty(), "{found:?}");
    for layer in world.there.layers().list().unwrap() {
        let mut tar = Vec::new();
        world.there.layers().pack(&layer, &mut tar).unwrap();
        assert_eq!(engine::id::Digest::of(&tar), layer, "a layer is whole or not there");
    }
}

#[test]
fn a_receiver_killed_while_it_receives_leaves_a_usable_store() {
    let world = World::new();
    let image = world.image_of("app", fill);
    for limit in [1, 300, 5_000, 40_000, 700_000, 1_500_000] {
        assert!(!send(&world, &image, limit, |_| {}), "{limit}");
        expect_usable(&world);
    }
    assert!(world.send(&image).bytes() < 2_000_000);
    expect_whole(&world, &image);
}

#[test]
fn a_receiver_killed_while_it_unpacks_leaves_a_usable_store() {
    let world = World::new();
    let image = world.image_of("app", fill);
    for files in [0, 10, 250] {
        let unpacked =
            |directory: &PathBuf| fs::read_dir(directory.join("fs")).is_ok_and(|fs| fs.count() > files);
        let arrived = send(&world, &image, u64::MAX, |victim| {
            let scratch = world.there.root().scratch();
            loop {
                let made = fs::read_dir(&scratch).into_iter().flatten().flatten().map(|entry| entry.path());
                let is_due = made.into_iter().any(|directory| unpacked(&directory));
                let mut victim = victim.lock().unwrap();
                if is_due || victim.try_wait().unwrap().is_some() {
                    let _ = victim.kill();
                    return;
                }
            }
        });
        if arrived || !world.there.images().list().unwrap().is_empty() {
            // It was faster than who was to kill it.
            break;
        }
        expect_usable(&world);
        // Everything had arrived.
        assert!(fs::metadata(world.there.root().transfers()).is_ok());
    }
    world.send(&image);
    expect_whole(&world, &image);
}

fn expect_whole(world: &World, image: &Image) {
    let layer = world.arrived(&image.config.rootfs.diff_ids[0]);
    for number in 0..300 {
        assert!(fs::read(layer.join(format!("file{number}"))).unwrap() == noise(number, 10_000));
    }
}

#[test]
fn a_disk_that_is_full_is_named_to_the_sender() {
    let world = World::new();
    let image = world.image_of("app", |upper| fs::write(upper.join("a"), noise(1, 6 << 20)).unwrap());
    let mut command = Command::new("unshare");
    let script = format!("mount -t tmpfs -o size=4m tmpfs \"${ROOT}\" && exec \"$0\" {}", RECEIVER.join(" "));
    command.args(["-m", "sh", "-c", &script]).arg(std::env::current_exe().unwrap());
    let (mut child, near) = start(&world, &mut command);
    let mut channel = Channel::new(near.try_clone().unwrap(), near);
    let images = std::slice::from_ref(&image);
    let ids = std::slice::from_ref(&image.id);
    let error = transfer::send(&mut channel, &world.here, ids, &names(images), &|_| {}).unwrap_err();
    assert_eq!(error.kind(), Some(FailureKind::NoSpace), "{error:?}");
    let told: engine::error::Error = error.into();
    assert!(told.hint().is_some_and(|hint| hint.contains("prune")), "{told:?}");
    child.wait().unwrap();
}
