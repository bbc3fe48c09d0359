//! What is odd about a server, and what becomes of commands there.

use deploy::ssh::SshError;

use super::world::World;
use super::{Case, Expected};

pub(super) fn cases(world: &World) -> Vec<Case> {
    let as_user = |name, user, expected| world.case(name, user, world.login(), expected);
    vec![
        as_user("banner", "banner", Expected::In("banner")),
        as_user("noisy start files", "noisy", Expected::In("noisy")),
        as_user("no home directory", "homeless", Expected::In("homeless")),
        as_user(
            "forced command",
            "forced",
            fails!(SshError::NoShell { said, .. } if said.contains("no more than this")),
        ),
        as_user(
            "forced command that never ends",
            "endless",
            fails!(SshError::NoShell { said, .. } if said.contains("no more than this")),
        ),
        as_user("no shell", "falsy", fails!(SshError::NoShell { .. })),
        as_user(
            "nologin",
            "nologin",
            fails!(SshError::NoShell { said, .. } if said.contains("not available")),
        ),
        as_user("one session at a time", "single", Expected::In("single")),
        as_user(
            "one session at most",
            "single",
            Expected::So(|session| {
                let running = session.pipes("cat", false);
                running.is_ok()
                    && matches!(session.pipes("true", false), Err(SshError::SessionRefused { .. }))
            }),
        ),
        as_user(
            "more at once than a server allows",
            "me",
            Expected::So(|session| {
                std::thread::scope(|scope| {
                    let runs: Vec<_> = (0..24).map(|_| scope.spawn(|| session.run("cat", b"x"))).collect();
                    runs.into_iter().all(|run| run.join().unwrap().is_ok_and(|output| output.stdout == b"x"))
                })
            }),
        ),
        as_user(
            "full disk",
            "root",
            Expected::So(|session| {
                let output = session.upload(&mut &vec![7; 1 << 20][..], "cat > /media/big").unwrap();
                matches!(output.expect_success("h", "upload"), Err(SshError::NoSpace { .. }))
            }),
        ),
        as_user(
            "noexec",
            "me",
            Expected::So(|session| {
                let output = session.run("cp /bin/true /srv/t-$$ && exec /srv/t-$$", b"").unwrap();
                matches!(output.expect_success("h", "run"), Err(SshError::NotExecutable { .. }))
            }),
        ),
        as_user(
            "a command that is not there",
            "me",
            Expected::So(|session| session.run("exec no-such-command", b"").unwrap().code == Some(127)),
        ),
        as_user(
            "a command that is killed",
            "me",
            Expected::So(|session| session.run("kill -9 $$", b"").is_ok_and(|output| output.code.is_none())),
        ),
        as_user(
            "words that a shell would take apart",
            "ops",
            Expected::So(|session| {
                session.run_as_root("printf %s \"it's \\$HOME\"; cat", b"\xff\0").unwrap().stdout
                    == b"it's $HOME\xff\0"
            }),
        ),
    ]
}
