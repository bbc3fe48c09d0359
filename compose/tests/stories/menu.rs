//! A person at a terminal, with `up` attached to it.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::process::{Child, Command};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use crate::world::World;

/// A program at a terminal of the test's own.
struct Screen {
    master: File,
    slave: File,
    child: Child,
    seen: String,
}

/// After this long something that should be shown counts as missing.
const PATIENCE: Duration = Duration::from_secs(60);

impl Screen {
    fn of(command: &mut Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let copy = || slave.try_clone().unwrap();
        let child = command.stdin(copy()).stdout(copy()).stderr(copy()).spawn().unwrap();
        Self { master: master.into(), slave, child, seen: String::new() }
    }

    fn types(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until this is shown, behind what was waited for before.
    fn shows(&mut self, text: &str) {
        let timeout = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        while !self.seen.contains(text) {
            let ready = poll(&mut [PollFd::new(&self.master, PollFlags::IN)], Some(&timeout)).unwrap();
            assert_eq!(ready, 1, "{text:?} is not shown: {}", self.seen);
            let mut piece = [0; 4096];
            let length = self.master.read(&mut piece).unwrap_or(0);
            self.seen.push_str(&String::from_utf8_lossy(&piece[..length]));
        }
        let end = self.seen.find(text).unwrap() + text.len();
        self.seen.drain(..end);
    }

    fn is_line_by_line(&self) -> bool {
        tcgetattr(&self.slave).unwrap().local_modes.contains(LocalModes::ICANON | LocalModes::ECHO)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // It has ended, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const PROJECT: &str = r#"
services:
  web:
    image: box
    build: {context: ., dockerfile_inline: "FROM box"}
    command: [sleep, "1000"]
    stop_grace_period: 0s
    develop: {watch: [{path: ./src, action: sync, target: /src}]}
"#;

#[test]
fn keys_start_and_end_the_watching_and_leave_the_containers_running() {
    let world = World::new(PROJECT);
    world.write("src/page", "one");
    let mut screen = Screen::of(&mut world.command(["up"]));
    screen.shows("w Enable Watch   d Detach");
    assert!(!screen.is_line_by_line(), "keys come one by one");
    screen.types("xw");
    screen.shows("Watch enabled");
    world.save("src/page", "two");
    screen.shows("\"web\" synced");
    assert_eq!(world.inside("web", "cat /src/page"), "two");
    screen.types("w");
    screen.shows("w Enable Watch");
    screen.types("d");
    assert_eq!(screen.child.wait().unwrap().code(), Some(0));
    assert!(screen.is_line_by_line(), "the terminal is as it was");
    assert_eq!(world.running(), ["p-web-1"]);
    // Nobody is asked who does not want to be; Ctrl-C stops.
    let mut screen = Screen::of(&mut world.command(["up", "--menu=false"]));
    screen.shows("p-web-1");
    let pid = rustix::process::Pid::from_child(&screen.child);
    // What is typed at a terminal of its own reaches it as this signal; it is there once the first line is shown.
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(screen.child.wait().unwrap().code(), Some(130));
    assert!(!screen.seen.contains("Enable Watch"), "{}", screen.seen);
}
