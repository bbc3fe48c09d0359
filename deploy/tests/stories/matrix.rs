//! Every way into a server, and everything that can be in the way: each with a name, and none longer than 20 s.

use std::collections::VecDeque;
use std::fs;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use deploy::ssh::{Access, Address, PATIENCE, Session, SshError};

use self::world::World;
use crate::server::PASSWORD;

macro_rules! fails {
    ($($pattern:tt)+) => { Expected::Fails(|error| matches!(error, $($pattern)+), stringify!($($pattern)+)) };
}

macro_rules! root_fails {
    ($($pattern:tt)+) => { Expected::RootFails(|error| matches!(error, $($pattern)+), stringify!($($pattern)+)) };
}

mod authentication;
mod host_key;
mod oddity;
mod sudo;
mod way;
mod world;

/// One way in, and what comes of it.
struct Case {
    name: &'static str,
    address: Address,
    access: Access,
    expected: Expected,
}

enum Expected {
    /// The session opens, and commands run as this user.
    In(&'static str),
    /// Commands run as root, with their input untouched.
    Root,
    /// The session does not open, for this reason.
    Fails(fn(&SshError) -> bool, &'static str),
    /// The session opens, and no command runs as root, for this reason.
    RootFails(fn(&SshError) -> bool, &'static str),
    /// The session opens, and this is so.
    So(fn(&Session) -> bool),
}

// === impl Case ===

impl Case {
    /// What is wrong, or nothing.
    fn wrong(&self) -> Option<String> {
        let begin = Instant::now();
        let session = Session::open(&self.address, &self.access);
        let took = begin.elapsed();
        let wrong = match (&self.expected, &session) {
            (Expected::Fails(is, what), Err(error)) => {
                (!is(error) || shows_secret(error)).then(|| format!("{error} ({error:?}) is not {what}"))
            }
            (Expected::Fails(_, what), Ok(_)) => Some(format!("got in; expected {what}")),
            (_, Err(error)) => Some(format!("{error} ({error:?})")),
            (Expected::In(user), Ok(session)) => {
                let output = session.run("id -un; cat", b"fed");
                let good = format!("{user}\nfed");
                let is_good = output.as_ref().is_ok_and(|output| output.stdout == good.as_bytes());
                (!is_good).then(|| format!("{output:?}"))
            }
            (Expected::Root, Ok(session)) => match session.run_as_root("id -u; cat", b"fed") {
                Ok(output) => (output.stdout != b"0\nfed").then(|| format!("{output:?}")),
                Err(error) => Some(format!("{error} ({error:?})")),
            },
            (Expected::RootFails(is, what), Ok(session)) => match session.run_as_root("id -u", b"") {
                Err(error) => (!is(&error)).then(|| format!("{error} ({error:?}) is not {what}")),
                Ok(output) => Some(format!("got root: {output:?}")),
            },
            (Expected::So(is), Ok(session)) => (!is(session)).then(|| "not so".to_owned()),
        };
        // The time it takes to clean up is on top, on a busy machine.
        let late = (took > PATIENCE + Duration::from_secs(5)).then(|| format!("took {took:?}"));
        wrong.or(late).map(|wrong| format!("{}: {wrong}", self.name))
    }
}

fn shows_secret(error: &SshError) -> bool {
    [error.to_string(), format!("{error:?}")].iter().any(|text| text.contains(PASSWORD))
}

#[test]
fn every_way_in_works_or_fails_by_name() {
    let mut world = World::new();
    let mut cases = way::cases(&mut world);
    cases.extend(authentication::cases(&world));
    cases.extend(host_key::cases(&world));
    cases.extend(sudo::cases(&world));
    cases.extend(oddity::cases(&world));
    assert!(cases.len() >= 40);
    let wanted = std::env::var("CASE").ok();
    let chosen = |case: &Case| wanted.as_ref().is_none_or(|name| case.name == *name);
    let queue: Mutex<VecDeque<_>> = Mutex::new(cases.into_iter().filter(chosen).collect());
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some(case) = { queue.lock().unwrap().pop_front() } {
                    let found = case.wrong();
                    wrong.lock().unwrap().extend(found);
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(fs::read_to_string(world.network.path("fresh")).is_ok_and(|kept| !kept.is_empty()));
}
