//! Giving up privileges, in the one order that works: raised limits, bounding set, groups and user, capabilities,
//! no_new_privs, lowered limits, and the system call filter last.

use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, Signal};
use rustix::thread::CapabilitySets;

use crate::container::capabilities::CapabilitySet;
use crate::container::failure::{AtStep, LaunchError};
use crate::container::handshake::ChildEnd;
use crate::container::plan::{Limit, ProcessPlan};
use crate::container::users::Identity;
use crate::sys;

/// The capabilities of a process.
#[derive(Debug, Clone, Copy)]
struct Sets {
    effective: CapabilitySet,
    permitted: CapabilitySet,
    inheritable: CapabilitySet,
}

/// Raises the hard limits of this process to those that are wanted, which only root may do. What lies above what the
/// engine itself may have stays below it, with a warning.
pub(crate) fn raise_limits(limits: &[Limit], warn: &mut dyn FnMut(String)) -> Result<(), LaunchError> {
    for (resource, raised) in higher(limits) {
        let name = limit_name(resource);
        match rustix::process::setrlimit(resource, raised) {
            Err(Errno::PERM) => {
                let own = rustix::process::getrlimit(resource).maximum;
                warn(format!("the limit {name} is {}: more is not ours to give", shown(own)));
            }
            other => other.at("raise the limit", name)?,
        }
    }
    Ok(())
}

/// The hard limits that are above those of this process, each beside the soft limit there is.
pub(crate) fn higher(limits: &[Limit]) -> impl Iterator<Item = (Resource, Rlimit)> {
    limits.iter().filter_map(|limit| {
        let own = rustix::process::getrlimit(limit.resource);
        let is_higher = lower(limit.hard, own.maximum) != limit.hard;
        is_higher.then_some((limit.resource, Rlimit { current: own.current, maximum: limit.hard }))
    })
}

/// Sets the limits per process, as far as they were raised. From here on this process may have no file left to open: it
/// comes last.
pub(crate) fn limit(limits: &[Limit]) -> Result<(), LaunchError> {
    for limit in limits {
        let own = rustix::process::getrlimit(limit.resource).maximum;
        let wanted = Rlimit { current: lower(limit.soft, own), maximum: lower(limit.hard, own) };
        rustix::process::setrlimit(limit.resource, wanted).at("set the limit", limit_name(limit.resource))?;
    }
    Ok(())
}

/// Becomes this user with these capabilities. Only the filter is left to be installed, which may forbid whatever
/// else is done.
pub(crate) fn give_up(process: &ProcessPlan, identity: &Identity) -> Result<(), LaunchError> {
    drop_bounding_set(process.capabilities)?;
    // A change of user clears capabilities that the filter still needs, unless the kernel is told to keep them.
    rustix::thread::set_keep_capabilities(true).at("keep", "capabilities")?;
    become_user(identity)?;
    rustix::thread::set_keep_capabilities(false).at("release", "capabilities")?;
    // Any change of user forgets the parent's death, so it is asked for only now.
    if process.dies_with_parent {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .at("ask for", "the parent's death")?;
    }
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).at("set", "no_new_privs")?;
    }
    let kept = kept(process, identity);
    set_capabilities(if filter_needs_right(process) { with_filter_installer(kept) } else { kept })?;
    for bit in ambient(process).into_iter().flat_map(CapabilitySet::singles) {
        rustix::thread::configure_capability_in_ambient_set(bit.bits(), true)
            .at("raise the ambient capability", bit)?;
    }
    Ok(())
}

/// Installs the filter, and gives up the right to do so. Whoever answers for the filter is told of it over the channel
/// before that: what comes next may have to be answered.
pub(crate) fn filter(
    process: &ProcessPlan,
    identity: &Identity,
    channel: &ChildEnd,
) -> Result<(), LaunchError> {
    let Some(filter) = &process.seccomp else { return Ok(()) };
    let installed = sys::process::install_filter(filter, process.seccomp_flags);
    if let Some(listener) = installed.at("install", "the system call filter")? {
        channel.hand_over_listener(&listener).at("hand over", "the listener of the system call filter")?;
    }
    if filter_needs_right(process) { set_capabilities(kept(process, identity)) } else { Ok(()) }
}

/// Without no_new_privs only an administrator may install a filter, so what is left is given up after it.
fn filter_needs_right(process: &ProcessPlan) -> bool {
    process.seccomp.is_some() && !process.no_new_privileges
}

/// The capabilities that the program starts with.
fn kept(process: &ProcessPlan, identity: &Identity) -> Sets {
    match &process.exact {
        Some(exact) => {
            Sets { effective: exact.effective, permitted: exact.permitted, inheritable: exact.inheritable }
        }
        None => {
            let set = if identity.uid == 0 { process.capabilities } else { CapabilitySet::EMPTY };
            Sets { effective: set, permitted: set, inheritable: CapabilitySet::EMPTY }
        }
    }
}

fn with_filter_installer(sets: Sets) -> Sets {
    let more = CapabilitySet::filter_installer();
    Sets { effective: sets.effective.union(more), permitted: sets.permitted.union(more), ..sets }
}

/// What can be ambient of what is to be: the kernel wants it permitted and inheritable (capabilities(7)).
fn ambient(process: &ProcessPlan) -> Option<CapabilitySet> {
    let exact = process.exact.as_ref()?;
    Some(exact.ambient.intersection(exact.permitted).intersection(exact.inheritable))
}

fn drop_bounding_set(kept: CapabilitySet) -> Result<(), LaunchError> {
    for bit in 0..u64::BITS {
        let one = rustix::thread::CapabilitySet::from_bits_retain(1 << bit);
        if kept.bits().contains(one) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(one) {
            // Beyond the last capability this kernel has.
            Err(Errno::INVAL) => break,
            other => other.at("drop capability", bit)?,
        }
    }
    rustix::thread::clear_ambient_capability_set().at("clear", "the ambient capabilities")
}

fn become_user(identity: &Identity) -> Result<(), LaunchError> {
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    rustix::thread::set_thread_groups(&groups).at("set", "the supplementary groups")?;
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).at("become group", identity.gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).at("become user", identity.uid)
}

fn set_capabilities(sets: Sets) -> Result<(), LaunchError> {
    let sets = CapabilitySets {
        effective: sets.effective.bits(),
        permitted: sets.permitted.bits(),
        inheritable: sets.inheritable.bits(),
    };
    rustix::thread::set_capabilities(None, sets).at("set", "the capabilities")
}

fn lower(wanted: Option<u64>, own: Option<u64>) -> Option<u64> {
    match (wanted, own) {
        (Some(wanted), Some(own)) => Some(wanted.min(own)),
        (wanted, own) => wanted.or(own),
    }
}

fn shown(limit: Option<u64>) -> String {
    limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string())
}

/// The limits by docker's names (getrlimit(2), without `RLIMIT_`).
pub(crate) const LIMIT_NAMES: [(&str, Resource); 15] = [
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("locks", Resource::Locks),
    ("memlock", Resource::Memlock),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("rss", Resource::Rss),
    ("rtprio", Resource::Rtprio),
    ("rttime", Resource::Rttime),
    ("sigpending", Resource::Sigpending),
    ("stack", Resource::Stack),
];

fn limit_name(resource: Resource) -> &'static str {
    LIMIT_NAMES.iter().find(|(_, known)| *known == resource).map_or("of a resource", |(name, _)| name)
}
