//! The last steps of every process of a container, the first one and those that join: terminal, working
//! directory, identity, privileges, and the program found the way a shell finds it.

use std::ffi::CString;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;

use crate::container::failure::{AtStep, LaunchError, reason};
use crate::container::handshake::{ChildEnd, Report};
use crate::container::idmap::UserMap;
use crate::container::launch::Streams;
use crate::container::plan::ProcessPlan;
use crate::container::rootfs::{self, Missing, PROC_SUPER_MAGIC};
use crate::container::users::{self, Identity};
use crate::container::{merge, privileges};
use crate::sys;

/// A process that has everything but its program.
#[derive(Debug)]
pub(crate) struct Program {
    candidates: Vec<CString>,
    argv: Vec<CString>,
    env: Vec<CString>,
    name: String,
}

// === impl Program ===

impl Program {
    /// Looks up who the process is and prepares its words, while errors can still say what they are about.
    pub(crate) fn prepare(
        process: &ProcessPlan,
        root: BorrowedFd<'_>,
    ) -> Result<(Self, Identity), LaunchError> {
        let identity = match &process.exact {
            Some(exact) => users::of_numbers(root, exact)?,
            None => users::look_up(root, &process.user, &process.groups)?,
        };
        if let Some(map) = &process.users {
            is_mapped(&identity, map)?;
        }
        let mut env = process.env.clone();
        if !env.iter().any(|entry| entry.starts_with("HOME=")) {
            env.push(format!("HOME={}", identity.home));
        }
        let name = process.argv.first().cloned().unwrap_or_default();
        let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH="));
        let default = merge::DEFAULT_PATH.trim_start_matches("PATH=");
        let candidates = words(&candidates(&name, path.unwrap_or(default)))?;
        let program = Self { candidates, argv: words(&process.argv)?, env: words(&env)?, name };
        Ok((program, identity))
    }

    /// Finds out early what [`Self::execute`] could not do, while it can still be said to whoever creates the container.
    pub(crate) fn check(&self) -> Result<(), LaunchError> {
        let may = |path: &CString| {
            self.is_file(path) && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
        };
        if self.candidates.iter().any(may) {
            return Ok(());
        }
        match self.candidates.iter().find(|path| kind(path).is_some()) {
            Some(path) => Err(self.refused(path, &io::Error::from_raw_os_error(libc::EACCES))),
            None => Err(self.not_found()),
        }
    }

    /// Executes it. Comes back only with the reason why not.
    pub(crate) fn execute(&self) -> LaunchError {
        let mut refusal = None;
        for candidate in &self.candidates {
            let error = sys::process::execute(candidate, &self.argv, &self.env);
            let missing = matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR));
            // A file that is there and yet missing lacks its interpreter.
            if !missing || self.is_file(candidate) {
                refusal.get_or_insert((candidate, error));
            }
        }
        match refusal {
            Some((path, error)) => self.refused(path, &error),
            None => self.not_found(),
        }
    }

    fn not_found(&self) -> LaunchError {
        LaunchError::NotFound {
            program: self.name.clone(),
            reason: if self.name.contains('/') {
                format!("stat {}: no such file or directory", self.name)
            } else {
                "executable file not found in $PATH".to_owned()
            },
        }
    }

    fn refused(&self, path: &CString, error: &io::Error) -> LaunchError {
        let program = self.name.clone();
        let errno = error.raw_os_error().unwrap_or_default();
        match errno {
            libc::ENOENT => LaunchError::NotFound {
                program,
                reason: "no such file or directory: its interpreter is missing".to_owned(),
            },
            libc::EACCES if is_directory(path) => {
                LaunchError::NotExecutable { program, reason: "is a directory".to_owned() }
            }
            _ => LaunchError::NotExecutable { program, reason: reason(errno) },
        }
    }

    fn is_file(&self, path: &CString) -> bool {
        kind(path) == Some(FileType::RegularFile)
    }
}

fn is_directory(path: &CString) -> bool {
    kind(path) == Some(FileType::Directory)
}

fn kind(path: &CString) -> Option<FileType> {
    rustix::fs::stat(path).ok().map(|stat| FileType::from_raw_mode(stat.st_mode))
}

/// Says which id a container's users do not have, where the kernel would only say that the argument is invalid.
fn is_mapped(identity: &Identity, map: &UserMap) -> Result<(), LaunchError> {
    let missing = |kind: &str, id: u32| {
        LaunchError::Invalid(format!("the {kind} {id} is not among the container's mapped ids (--userns)"))
    };
    if map.uids.outside(identity.uid).is_none() {
        return Err(missing("user", identity.uid));
    }
    let mut groups = std::iter::once(identity.gid).chain(identity.groups.iter().copied());
    groups.find(|gid| map.gids.outside(*gid).is_none()).map_or(Ok(()), |gid| Err(missing("group", gid)))
}

/// Where a program of this name may be. A name with a slash is a path, one without is looked for in each
/// directory; an empty directory is the working directory.
fn candidates(name: &str, path: &str) -> Vec<String> {
    if name.is_empty() || name.contains('/') {
        return vec![name.to_owned()];
    }
    path.split(':').map(|dir| format!("{}/{name}", if dir.is_empty() { "." } else { dir })).collect()
}

fn words(texts: &[String]) -> Result<Vec<CString>, LaunchError> {
    let word = |text: &String| {
        CString::new(text.as_str()).map_err(|_| LaunchError::Invalid(format!("{text:?} contains a NUL byte")))
    };
    texts.iter().map(word).collect()
}

/// Makes the working directory of a container's first process, unless it is there.
pub(crate) fn make_working_directory(root: BorrowedFd<'_>, cwd: &Path) -> Result<(), LaunchError> {
    is_absolute(cwd)?;
    let made = rootfs::find_or_make(root, cwd, Missing::Directory);
    made.map(drop).at("make the working directory", cwd.display())
}

fn is_absolute(cwd: &Path) -> Result<(), LaunchError> {
    let wrong = || format!("the working directory {} is not an absolute path", cwd.display());
    if cwd.is_absolute() { Ok(()) } else { Err(LaunchError::Invalid(wrong())) }
}

/// Enters the working directory and checks that it is inside the root: a leaked descriptor of the host must not
/// become the working directory (CVE-2024-21626).
fn enter_working_directory(root: BorrowedFd<'_>, cwd: &Path) -> Result<(), LaunchError> {
    is_absolute(cwd)?;
    let shown = cwd.display();
    let directory = rootfs::find(root, cwd).at("enter the working directory", &shown)?;
    rustix::process::fchdir(&directory).at("enter the working directory", &shown)?;
    let here = rustix::process::getcwd(Vec::new()).at("enter the working directory", &shown)?;
    if here.as_bytes().first() == Some(&b'/') {
        Ok(())
    } else {
        Err(LaunchError::Invalid(format!("the working directory {shown} is outside the container")))
    }
}

/// Makes these the standard streams. They are copied out of the way first, as any may be any of the three.
pub(crate) fn use_streams(streams: &Streams<'_>) -> Result<(), LaunchError> {
    let copy = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 3);
    let stdin = copy(streams.stdin).at("copy", "standard input")?;
    let stdout = copy(streams.stdout).at("copy", "standard output")?;
    let stderr = copy(streams.stderr).at("copy", "standard error")?;
    become_standard(&stdin, &stdout, &stderr)
}

/// Makes this terminal the standard streams.
pub(crate) fn use_terminal(slave: &OwnedFd) -> Result<(), LaunchError> {
    become_standard(slave, slave, slave)
}

fn become_standard(stdin: &OwnedFd, stdout: &OwnedFd, stderr: &OwnedFd) -> Result<(), LaunchError> {
    rustix::stdio::dup2_stdin(stdin).at("set", "standard input")?;
    rustix::stdio::dup2_stdout(stdout).at("set", "standard output")?;
    rustix::stdio::dup2_stderr(stderr).at("set", "standard error")
}

/// Lets the user open /dev/stdout and its like again: pipes and terminals belong to it.
pub(crate) fn give_streams_away(identity: &Identity) {
    if identity.uid == 0 {
        return;
    }
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    for stream in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let Ok(stat) = rustix::fs::fstat(stream) else { continue };
        let group = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Fifo => Some(gid),
            FileType::CharacterDevice if rustix::termios::isatty(stream) => None,
            _ => continue,
        };
        // A pipe that cannot be given away can still be read and written.
        let _ = rustix::fs::fchown(stream, Some(uid), group);
    }
}

/// Starts a session; its terminal is standard input, if it has one.
pub(crate) fn start_session(has_terminal: bool) -> Result<(), LaunchError> {
    rustix::process::setsid().map(drop).at("start", "a session")?;
    if has_terminal {
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()).at("control", "the terminal")?;
    }
    Ok(())
}

/// Begins a new process: nothing of its parent's open files and signal handlers goes further than it.
pub(crate) fn start_clean(process: &ProcessPlan, warn: &mut dyn FnMut(String)) -> Result<(), LaunchError> {
    sys::process::close_on_exec_from(3 + process.kept_descriptors).at("close", "inherited descriptors")?;
    sys::process::reset_signals().at("reset", "the signals")?;
    rustix::process::umask(Mode::empty());
    // The host's /proc is still the one in sight. Lowering the score takes a right that root may lack.
    if let Some(score) = process.oom_score_adj
        && let Err(error) = std::fs::write("/proc/self/oom_score_adj", score.to_string())
    {
        warn(format!("oom_score_adj {score}: {error}"));
    }
    Ok(())
}

/// Tells the parent that only the program is left. A parent that died before its death could be asked for would
/// never end this process.
pub(crate) fn announce(process: &ProcessPlan, channel: &ChildEnd) -> Result<(), LaunchError> {
    if process.dies_with_parent && channel.is_orphaned() {
        return Err(LaunchError::Vanished);
    }
    channel.send(&Report::Executing, &[]).at("report to", "the parent")
}

/// Becomes the process but for its limits and its filter: working directory, user, capabilities.
pub(crate) fn settle(
    process: &ProcessPlan,
    identity: &Identity,
    root: BorrowedFd<'_>,
    warn: &mut dyn FnMut(String),
) -> Result<(), LaunchError> {
    if process.own_keyring {
        // A kernel without keys has none to protect.
        let _ = sys::process::new_session_keyring();
    }
    if let Some(domain) = process.personality {
        sys::process::set_personality(domain).at("choose", "the execution domain")?;
    }
    privileges::raise_limits(&process.limits, warn)?;
    let umask = process.exact.as_ref().and_then(|exact| exact.umask).unwrap_or(0o022);
    rustix::process::umask(Mode::from_raw_mode(umask));
    enter_working_directory(root, &process.cwd)?;
    give_streams_away(identity);
    if let Some(profile) = &process.apparmor {
        confine(root, profile)?;
    }
    privileges::give_up(process, identity)
}

/// Asks AppArmor to confine what is executed next. The file must be the kernel's own: a write that an image redirects
/// would leave the program unconfined (CVE-2019-16884).
fn confine(root: BorrowedFd<'_>, profile: &str) -> Result<(), LaunchError> {
    let open = |path: &str| {
        let path = format!("proc/{}/attr/{path}", rustix::process::getpid());
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        rustix::fs::openat2(root, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve)
    };
    let file = match open("apparmor/exec") {
        // Before 5.8 every module had the same file.
        Err(Errno::NOENT) => open("exec"),
        other => other,
    };
    let file = file.at("choose the AppArmor profile", profile)?;
    let system = rustix::fs::fstatfs(&file).at("choose the AppArmor profile", profile)?;
    if system.f_type != PROC_SUPER_MAGIC {
        return Err(LaunchError::Invalid("/proc of the container is not the kernel's".to_owned()));
    }
    let order = format!("exec {profile}");
    rustix::io::write(&file, order.as_bytes()).map(drop).at("choose the AppArmor profile", profile)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_as_a_shell_does() {
        assert_eq!(candidates("sh", "/bin:/usr/bin"), ["/bin/sh", "/usr/bin/sh"]);
        assert_eq!(candidates("sh", ":/bin"), ["./sh", "/bin/sh"]);
        assert_eq!(candidates("./sh", "/bin"), ["./sh"]);
        assert_eq!(candidates("", "/bin"), [""]);
    }
}
