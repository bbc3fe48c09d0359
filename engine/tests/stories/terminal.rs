//! A terminal through which a person works in a container: leaves it, comes back, and ends it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::world::{BOX, World};

/// A program at a terminal of the test's own; killed when dropped.
struct Screen {
    master: File,
    child: Child,
    seen: String,
}

/// After this long something that should be shown counts as missing.
const PATIENCE: Duration = Duration::from_secs(60);

impl Screen {
    fn of(mut command: Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let copy = || slave.try_clone().unwrap();
        let child = command.stdin(copy()).stdout(copy()).stderr(copy()).spawn().unwrap();
        Self { master: master.into(), child, seen: String::new() }
    }

    fn types(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until this is shown, behind what was waited for before.
    fn shows(&mut self, text: &str) {
        let timeout = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        loop {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return;
            }
            let ready = poll(&mut [PollFd::new(&self.master, PollFlags::IN)], Some(&timeout)).unwrap();
            assert_eq!(ready, 1, "{text:?} is not shown: {}", self.seen);
            let mut piece = [0; 4096];
            let length = self.master.read(&mut piece).unwrap_or(0);
            assert_ne!(length, 0, "the terminal closed without {text:?}: {}", self.seen);
            self.seen.push_str(&String::from_utf8_lossy(&piece[..length]));
        }
    }

    fn ends(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_person_leaves_with_the_detach_keys_and_comes_back() {
    let world = World::new();
    let run = ["run", "-it", "--network", "none", "--name", "it", BOX, "sh"];
    let mut screen = Screen::of(world.command(run));
    screen.types("tty; echo one-$((1 + 1))\n");
    screen.shows("/dev/pts/0");
    screen.shows("one-2");
    // Control-p, control-q.
    screen.types("\x10\x11");
    assert_eq!(screen.ends(), Some(0));
    assert_eq!(world.inspect("it", "{{.State.Running}}"), "true");

    let mut screen = Screen::of(world.command(["attach", "--detach-keys", "ctrl-a,d", "it"]));
    screen.types("echo two-$((1 + 1))\n");
    screen.shows("two-2");
    screen.types("\x01d");
    assert_eq!(screen.ends(), Some(0));

    let mut screen = Screen::of(world.command(["attach", "it"]));
    // A person types once the shell answers.
    screen.types("echo back-$((1 + 1))\n");
    screen.shows("back-2");
    screen.types("exit 3\n");
    assert_eq!(screen.ends(), Some(3));
    let mut screen = Screen::of(world.command(["start", "-ai", "it"]));
    screen.types("echo three-$((1 + 1)); exit 4\n");
    screen.shows("three-2");
    assert_eq!(screen.ends(), Some(4));
}

#[test]
fn leaving_while_the_program_writes_ends_nothing() {
    let world = World::new();
    let script = "while :; do echo noise; usleep 300; done & exec sh";
    let run = ["run", "-it", "--network", "none", "--name", "it", BOX, "sh", "-c", script];
    let mut screen = Screen::of(world.command(run));
    screen.shows("noise");
    screen.types("\x10\x11");
    assert_eq!(screen.ends(), Some(0));
    for round in 0..30 {
        let mut screen = Screen::of(world.command(["attach", "it"]));
        screen.shows("noise");
        screen.types("\x10\x11");
        assert_eq!(screen.ends(), Some(0));
        // The shell reads its input; were that at an end, it would be gone when it has answered this.
        let answer = world.rengine(["exec", "it", "sh", "-c", "kill -0 1 && echo alive"]);
        assert_eq!(answer.stdout, "alive\n", "round {round}: {}", answer.stderr);
    }
    assert_eq!(world.inspect("it", "{{.State.Running}}"), "true");
}

#[test]
fn usage_is_drawn_again_in_its_place() {
    let world = World::new();
    world.background("--network none --name it", "sleep 1000");
    let mut screen = Screen::of(world.command(["stats", "it"]));
    for _ in 0..2 {
        screen.shows("\x1b[HCONTAINER ID");
        screen.shows("it");
    }
}

#[test]
fn the_end_of_a_file_does_not_end_somebody_elses_shell() {
    let world = World::new();
    world.rengine(["run", "-dit", "--name", "it", BOX, "sh"]).succeeds();
    world.rengine(["attach", "it"]).exits(1).complains("not a TTY").complains("--no-stdin");
    assert_eq!(world.rengine(["inspect", "-f", "{{.State.Running}}", "it"]).succeeds().line(), "true");
    world.rengine(["stop", "-t", "0", "it"]).succeeds();
    world.rengine(["start", "-ai", "it"]).exits(1).complains("not a TTY");
    assert_eq!(world.rengine(["inspect", "-f", "{{.State.Running}}", "it"]).succeeds().line(), "false");
}

#[test]
fn a_person_looks_around_where_a_build_failed() {
    let world = World::new();
    let dockerfile = "FROM box\nWORKDIR /work\nENV NAME=value\n\
         RUN --mount=type=cache,target=/cache echo left >file; echo kept >/cache/it; exit 3\n";
    world.write("context/Dockerfile", dockerfile);
    let context = world.path("context");
    let args = ["build", "--on-fail", "shell", "--network", "none", "-t", "built", context.to_str().unwrap()];
    world.rengine(args).exits(1).complains("--on-fail shell needs a terminal");
    for progress in ["plain", "tty"] {
        let mut command = world.command(args.iter().chain(&["--progress", progress]));
        command.env("TERM", "xterm");
        let mut screen = Screen::of(command);
        screen.shows("exit ends the build");
        screen.types("echo $(pwd) $NAME $(cat file /cache/it) $((1 + 1))\n");
        screen.shows("/work value left kept 2");
        screen.types("exit 7\n");
        screen.shows("exit code: 3");
        assert_eq!(screen.ends(), Some(1));
    }
    world.rengine(["images", "-q", "built"]).succeeds().prints("");
    world.rengine(["ps", "-aq"]).succeeds().prints("");
    assert_eq!(std::fs::read_dir(world.root().scratch()).unwrap().count(), 0);
}
