//! Whatever is killed, at whatever moment, a host is of one version afterwards and goes on serving.

use std::fs;
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::world::{World, get};

const WEB: &str = "
services:
  web: {build: ., ports: ['80'], stop_grace_period: 0s}
  store: {build: ., ports: ['80'], volumes: ['data:/data'], stop_grace_period: 0s}
volumes: {data: {}}
";

/// Who is killed.
#[derive(Debug, Clone, Copy)]
enum Victim {
    Client,
    Agent,
    Both,
}

impl Victim {
    fn kill(self, client: &Child) {
        let client = client.id();
        let agents = children(client);
        if matches!(self, Self::Client | Self::Both) {
            end(client);
        }
        if matches!(self, Self::Agent | Self::Both) {
            agents.into_iter().for_each(end);
        }
    }
}

fn end(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    // It may have ended by itself.
    let _ = kill_process(pid, Signal::KILL);
}

fn children(pid: u32) -> Vec<u32> {
    let mut all = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        all.extend(text.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    all
}

#[test]
fn sixty_cuts_and_always_one_version() {
    let world = World::new(1, WEB);
    world.rdeploy(["up"]).succeeds();
    let ports = [world.port(0, "web"), world.port(0, "store")];
    world.page("a");
    let began = Instant::now();
    world.rdeploy(["up", "--drain", "0s"]).succeeds();
    let whole = began.elapsed();
    let mut serving = "a".to_owned();
    let victims = [Victim::Client, Victim::Agent, Victim::Both];
    for cut in 0..60_u32 {
        let victim = victims[cut as usize % victims.len()];
        let page = format!("page{cut}");
        world.page(&page);
        let mut client = world.spawn(["up", "--drain", "0s"]);
        // Not a wait for something: the moment is what the test is about.
        std::thread::sleep(whole * cut / 60 + Duration::from_millis(5));
        victim.kill(&client);
        let _ = client.wait();
        world.settle(0);
        assert_eq!(world.names(0), ["p-store-1", "p-web-1"], "cut {cut} of {victim:?}\n{}", world.account(0));
        let served = ports.map(|port| get(port).unwrap_or_else(|error| error.to_string()));
        assert_eq!(served[0], served[1], "cut {cut} of {victim:?}\n{}", world.account(0));
        let now = served[0].clone();
        assert!(now == serving || now == page, "cut {cut} of {victim:?}: {now} after {serving}");
        serving = now;
    }
    // Nothing that was cut off is in the way.
    world.page("end");
    let up = world.rdeploy(["up", "--drain", "0s"]).succeeds();
    let served = ports.map(|port| get(port).unwrap_or_else(|error| error.to_string()));
    assert_eq!(served, ["end"; 2], "{ports:?} {}\n{}", up.stderr, world.account(0));
}
