//! Pulls from and pushes to a registry that does everything a network and a server can do wrong, by a schedule that a seed
//! gives. Whatever it does: the command succeeds or says what is wrong, nothing that is not what its digest says is
//! taken in, and credentials stay with their host.
//!
//! Beside `schedules`, which speaks to the library, this runs the commands of somebody who has logged in, and lets uploads go to a second
//! host, be forgotten, be asked for patience and lose their tokens. A failure names its seeds; `MISBEHAVING_SEED=7 cargo test -p engine --test misbehaving` runs one of them alone.

#![expect(clippy::unwrap_used, reason = "test helpers")]

mod client;
mod fault;
mod http;
mod registry;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use client::Base;
use fault::Schedule;

/// How many schedules there are: pulls and pushes in turn.
const SCHEDULES: u64 = 80;

/// They mostly wait.
const AT_ONCE: usize = 24;

#[test]
fn whatever_a_registry_does_ends_in_success_or_a_clear_failure() {
    let only: Option<u64> = std::env::var("MISBEHAVING_SEED").ok().map(|text| text.parse().unwrap());
    let seeds: Vec<u64> = only.map_or_else(|| (0..SCHEDULES).collect(), |seed| vec![seed]);
    let base = Base::new();
    let next = AtomicU64::new(0);
    let complaints = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(seed) =
                    seeds.get(usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap())
                {
                    let schedule = Schedule::of(*seed);
                    let result = if seed % 2 == 0 { base.pull(&schedule) } else { base.push(&schedule) };
                    if let Err(complaint) = result {
                        complaints.lock().unwrap().push(format!("seed {seed}: {complaint}"));
                    }
                }
            });
        }
    });
    let complaints = complaints.into_inner().unwrap();
    assert!(
        complaints.is_empty(),
        "{} of {} failed:\n{}",
        complaints.len(),
        seeds.len(),
        complaints.join("\n")
    );
}
