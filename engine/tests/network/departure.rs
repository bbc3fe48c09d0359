//! Containers that let go of their networks.

use std::io::{BufRead, BufReader, Lines};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::host::*;
use engine::container::spec::Protocol;
use rustix::fs::FlockOperation;

/// Hears of every change of the firewall.
struct Witness {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Witness {
    /// It listens when this returns: it has heard of a table that is made until it is heard of.
    fn new() -> Self {
        let mut process = Command::new("nft").arg("monitor").stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let heard = std::sync::atomic::AtomicBool::new(false);
        let lines = thread::scope(|scope| {
            scope.spawn(|| {
                while !heard.load(std::sync::atomic::Ordering::Relaxed) {
                    run("nft", "add table inet probe");
                    run("nft", "delete table inet probe");
                }
            });
            let mut lines = lines;
            lines.next().unwrap().unwrap();
            heard.store(true, std::sync::atomic::Ordering::Relaxed);
            lines
        });
        let mut witness = Self { process, lines };
        witness.changes("heard");
        witness
    }

    /// How many changes there were until now.
    fn changes(&mut self, word: &str) -> usize {
        run("nft", &format!("add table inet {word}"));
        let end = format!("add table inet {word}");
        let until_now = self.lines.by_ref().map(Result::unwrap).take_while(|line| *line != end);
        until_now.filter(|line| line.starts_with("# new generation")).count()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn containers_that_end_at_the_same_time_leave_the_firewall_in_one_change() {
    on_a_host(|host| {
        host.network("back");
        let guests: Vec<Guest> =
            (0..8).map(|number| host.guest(&format!("web-{number}"), &[on("back")])).collect();
        for (guest, number) in guests.iter().zip(9000..) {
            host.publish(guest, &[port(None, number, 80, Protocol::Tcp)]).unwrap();
        }
        let mut witness = Witness::new();
        let lock = std::fs::File::open(host.root.network_lock()).unwrap();
        rustix::fs::flock(lock.as_fd(), FlockOperation::LockExclusive).unwrap();
        thread::scope(|scope| {
            for guest in &guests {
                scope.spawn(|| host.networks.release(&guest.id).unwrap());
            }
            while std::fs::read_dir(host.root.departures()).map_or(0, Iterator::count) < guests.len() {
                thread::sleep(Duration::from_millis(1));
            }
            drop(lock);
        });
        assert_eq!(witness.changes("end"), 2, "one for all, and one that ends the count");
        assert_eq!(host.networks.holders().unwrap(), []);
        assert_eq!(std::fs::read_dir(host.root.departures()).unwrap().count(), 0);
        let elements = run("nft", "list ruleset");
        assert!(!elements.contains("web-"), "{elements}");
    });
}

#[test]
fn a_container_that_was_killed_while_it_left_and_comes_back_stays() {
    on_a_host(|host| {
        host.network("back");
        let other = host.guest("other", &[on("back")]);
        let web = host.guest("web", &[on("back")]);
        // What a process leaves that is killed when it has said that its container goes.
        std::fs::create_dir_all(host.root.departures()).unwrap();
        std::fs::write(host.root.departure(&web.id), []).unwrap();
        let party = web.endpoints[0].party.clone();
        let endpoints = host.networks.attach(&party, &[on("back")]).unwrap();
        let ports =
            host.networks.publish(&web.id, &[port(None, 8080, 80, Protocol::Tcp)], &endpoints).unwrap();
        host.networks.release(&other.id).unwrap();
        assert_eq!(host.networks.endpoints(&web.id).unwrap(), endpoints);
        assert_eq!(host.networks.published(&web.id).unwrap(), ports);
    });
}
