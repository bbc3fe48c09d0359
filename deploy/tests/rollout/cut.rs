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

/// Waits until all hosts are of one version and nobody works on any of them. The version.
fn one_version(world: &World, hosts: usize, ports: &[u16]) -> String {
    let began = Instant::now();
    loop {
        (0..hosts).for_each(|host| world.settle(host));
        let served: Vec<String> =
            ports.iter().map(|port| get(*port).unwrap_or_else(|error| error.to_string())).collect();
        if served.iter().all(|page| *page == served[0]) {
            return served[0].clone();
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{served:?}\n{}", world.account(0));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until every host has changed over and none has been told that all have.
fn everywhere_committed(world: &World, hosts: usize, client: &mut Child) {
    let committed = |host| {
        fs::read_to_string(world.root(host).join("deploy/p/journal.json")).is_ok_and(|text| {
            text.contains("\"stage\": \"committed\"") || text.contains("\"stage\":\"committed\"")
        })
    };
    while !(0..hosts).all(committed) && client.try_wait().unwrap().is_none() {}
}

#[test]
fn cuts_of_a_deployment_to_several_hosts_and_always_one_version() {
    const HOSTS: usize = 3;
    let world = World::new(HOSTS, "services: {web: {build: ., ports: ['80'], stop_grace_period: 0s}}\n");
    world.rdeploy(["up"]).succeeds();
    let ports: Vec<u16> = (0..HOSTS).map(|host| world.port(host, "web")).collect();
    world.page("a");
    let began = Instant::now();
    world.rdeploy(["up", "--drain", "0s"]).succeeds();
    let whole = began.elapsed();
    let (mut went_back, mut went_on) = (0, 0);
    for cut in 0..24_u32 {
        let page = format!("page{cut}");
        world.page(&page);
        let mut client = world.spawn(["up", "--drain", "0s", "--lock-wait", "1m"]);
        // Not a wait for something: the moment is what the test is about. Half of them are around the decision.
        if cut % 2 == 0 {
            std::thread::sleep(whole * cut / 24);
        } else {
            everywhere_committed(&world, HOSTS, &mut client);
            std::thread::sleep(Duration::from_millis(u64::from(cut)));
        }
        end(client.id());
        let _ = client.wait();
        if one_version(&world, HOSTS, &ports) == page { went_on += 1 } else { went_back += 1 }
    }
    assert!(
        went_back > 0 && went_on > 0,
        "all cuts were on one side of the decision: {went_back}, {went_on}"
    );
    world.page("end");
    world.rdeploy(["up", "--drain", "0s", "--lock-wait", "1m"]).succeeds();
    assert_eq!(one_version(&world, HOSTS, &ports), "end");
    (0..HOSTS).for_each(|host| assert_eq!(world.names(host), ["p-web-1"]));
}
