//! A registry that does everything a network and a server can do wrong, by a schedule that a seed gives. Whatever it does: a pull or a push
//! succeeds or says what is wrong, nothing that is not what its digest says is taken in, and credentials stay with their host.
//!
//! `commands` are those of somebody who has logged in, against what passes and against what is wrong for good; `storm` speaks to the
//! library while more goes wrong than patience helps against, and once more when it is over. A failure names its seed:
//! `MISBEHAVING_SEED=7 cargo test -p engine --test misbehaving` runs it alone.

#![expect(clippy::unwrap_used, reason = "test helpers")]

mod client;
mod fault;
mod http;
mod registry;
mod storm;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use client::Base;
use fault::Schedule;

/// How many schedules of commands there are: pulls and pushes in turn.
const COMMANDS: u64 = 80;

/// They mostly wait.
const AT_ONCE: usize = 24;

/// Runs the schedules of so many seeds, or of the one that was named, and tells of those that went wrong. Says whether
/// it were all.
fn each_seed(count: u64, run: impl Fn(u64) -> Result<(), String> + Sync) -> bool {
    let only: Option<u64> = std::env::var("MISBEHAVING_SEED").ok().map(|text| text.parse().unwrap());
    let seeds: Vec<u64> = only.map_or_else(|| (0..count).collect(), |seed| vec![seed]);
    let next = AtomicU64::new(0);
    let complaints = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(seed) =
                    seeds.get(usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap())
                {
                    if let Err(complaint) = run(*seed) {
                        complaints.lock().unwrap().push(format!("seed {seed}: {complaint}"));
                    }
                }
            });
        }
    });
    let complaints = complaints.into_inner().unwrap();
    let (failed, all) = (complaints.len(), seeds.len());
    assert!(complaints.is_empty(), "{failed} of {all} failed:\n{}", complaints.join("\n"));
    only.is_none()
}

#[test]
fn a_command_ends_in_success_or_a_clear_failure() {
    let base = Base::new();
    each_seed(COMMANDS, |seed| {
        let schedule = Schedule::of(seed);
        if seed % 2 == 0 { base.pull(&schedule) } else { base.push(&schedule) }
    });
}
