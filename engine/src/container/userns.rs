//! User namespaces: described by their maps, entered as their root, and given what their processes may not take.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Gid, Mode, OFlags, Uid};
use rustix::process::{DumpableBehavior, Pid, Signal, WaitId, WaitIdOptions};

use crate::container::failure::{AtStep, LaunchError};
use crate::container::idmap::UserMap;
use crate::container::launch::Streams;
use crate::container::plan::ProcessPlan;
use crate::container::privileges;
use crate::sys::process::{NewNamespaces, clone_process, set_file_owner};

/// Says what the ids of the user namespace mean that this process was born into.
pub(crate) fn describe(pid: Pid, users: &UserMap) -> Result<(), LaunchError> {
    let pid = pid.as_raw_nonzero();
    for (file, map) in [("uid_map", &users.uids), ("gid_map", &users.gids)] {
        fs::write(format!("/proc/{pid}/{file}"), map.lines()).at("map the ids of", "the container")?;
    }
    Ok(())
}

/// A user namespace with these maps and nobody in it: what a mount maps its owners by.
pub(crate) fn without_processes(users: &UserMap) -> Result<OwnedFd, LaunchError> {
    let new = NewNamespaces { user: true, ..NewNamespaces::default() };
    let (pid, pidfd) = clone_process(new, None, wait_to_be_killed).at("make", "a user namespace")?;
    let namespace = describe(pid, users).and_then(|()| {
        let path = format!("/proc/{}/ns/user", pid.as_raw_nonzero());
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).at("open", "a user namespace")
    });
    // It has done its part whether or not this worked, and a process that is gone needs no killing.
    let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
    let _ = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
    namespace
}

fn wait_to_be_killed() -> i32 {
    // Should this fail, the parent still kills it, unless it dies first.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    loop {
        rustix::event::pause();
    }
}

/// Becomes the root of the user namespace this process is in: until then it is nobody there.
pub(crate) fn become_root() -> Result<(), LaunchError> {
    rustix::thread::set_thread_groups(&[]).at("drop", "the supplementary groups")?;
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).at("become group", 0)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).at("become user", 0)?;
    // The change of user may have made this process's memory readable for others of that user (CVE-2016-9962).
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).at("set", "dumpable")
}

/// Does something whose files belong to the root of these users, with this process's capabilities. An overlay makes its
/// files as whoever mounted it, who must therefore be somebody its writable layer knows.
pub(crate) fn as_root_of<T>(
    users: &UserMap,
    act: impl FnOnce() -> Result<T, LaunchError>,
) -> Result<T, LaunchError> {
    let (uid, gid) = users
        .root()
        .ok_or_else(|| LaunchError::Invalid("the container has no root: id 0 is not mapped".to_owned()))?;
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let capabilities = rustix::thread::capabilities(None).at("read", "the capabilities")?;
    let become_owner = |(uid, gid)| {
        set_file_owner(uid, gid).at("make files as user", uid)?;
        rustix::thread::set_capabilities(None, capabilities).at("set", "the capabilities")
    };
    let done = become_owner((uid, gid)).and_then(|()| act());
    become_owner(own)?;
    done
}

/// Gives a process in a user namespace of its own what only the host's root can give. What cannot be given, the process
/// finds out and warns about.
pub(crate) fn grant(pid: Pid, process: &ProcessPlan) {
    if let Some(score) = process.oom_score_adj {
        let _ = fs::write(format!("/proc/{}/oom_score_adj", pid.as_raw_nonzero()), score.to_string());
    }
    // It was born with the limits of this process.
    for (resource, raised) in privileges::higher(&process.limits) {
        let _ = rustix::process::prlimit(Some(pid), resource, raised);
    }
}

/// Lets the container's root open its /dev/stdout and the like again, as the host's root can its own.
pub(crate) fn give_streams(streams: &Streams<'_>, users: &UserMap) {
    let Some((uid, gid)) = users.root() else { return };
    for stream in [streams.stdin, streams.stdout, streams.stderr] {
        let is_pipe = rustix::fs::fstat(stream)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
        if is_pipe {
            // A pipe that cannot be given away can still be read and written.
            let _ = rustix::fs::fchown(stream, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        }
    }
}
