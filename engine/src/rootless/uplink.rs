//! The way out of a user's engine: a program on the host that speaks for the network namespace, `pasta` or
//! `slirp4netns`. Ports of the host are not its affair (see `door`).

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::Access;
use rustix::io::FdFlags;
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

use super::door::inside;
use crate::paths::RootlessRun;
use crate::store::{self, Durability};

/// Those that are installed, the best one first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Programs(pub(super) Vec<PathBuf>);

/// The one that runs, if there is one.
pub(super) struct Uplink {
    run: RootlessRun,
    keeper: Pid,
    programs: Programs,
    process: Option<OwnedFd>,
    /// When it was last started because it had ended.
    renewed: Option<Instant>,
}

/// What is kept of it.
#[derive(Debug, Serialize, Deserialize)]
struct UplinkRecord {
    version: u32,
    /// For whose namespaces it speaks.
    keeper: i32,
    /// Its name; none when there is no way out.
    program: Option<String>,
    /// Its process, and when that began, as the kernel counts.
    pid: i32,
    began: u64,
    /// Why there is no way out.
    reason: Option<String>,
}

/// Both move data at the same pace. slirp4netns asks the name servers that the host has at the moment, and there are
/// versions of pasta, as Debian 12's, that lose the end of every second connection whose client is the first to say that
/// it has nothing more to say. pasta knows IPv6.
const PREFERRED: [&str; 2] = ["slirp4netns", "pasta"];
/// The variable by which a user chooses one of the two.
const CHOICE: &str = "RENGINE_UPLINK";
/// Where the network namespace is in the network of either.
const GUEST: &str = "10.0.2.100";
const GATEWAY: &str = "10.0.2.2";
/// The name server that either shows in that network: the host's own.
const NAME_SERVER: &str = "10.0.2.3";
/// A unique local range (RFC 4193) drawn for this purpose.
const GUEST_IPV6: &str = "fd2e:7265:6e67::100";
const GATEWAY_IPV6: &str = "fd2e:7265:6e67::2";
/// As large as it gets: no wire is in between.
const MTU: &str = "65520";
const TAP: &str = "tap0";
/// Documentation/networking/tuntap.rst of the kernel: everybody may open it.
const TUN: &str = "/dev/net/tun";
/// Long enough for it to be ready on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// One that ends sooner after it was started again is left alone until the next command.
const TOO_SOON: Duration = Duration::from_secs(2);

/// What is to be done where there is no way out.
const HINT: &str = "install the package slirp4netns or passt";

/// Why there is no way out of the engine that this process is in; `None` when there is one, or root's network is used.
pub(crate) fn lack() -> Option<String> {
    if !super::is_inside() {
        return None;
    }
    let record: UplinkRecord = store::read_json(&inside().uplink()).ok()??;
    let mut reason = record.program.is_none().then_some(record.reason)??;
    if let Some(choice) = choice() {
        reason = format!("{CHOICE} asks for {choice} alone; {reason}");
    }
    Some(format!("this user's engine has no way out: {reason}"))
}

/// Which program leads out.
pub(crate) fn program() -> Option<String> {
    let record: UplinkRecord = store::read_json(&inside().uplink()).ok()??;
    record.program
}

/// Whether a way out is to be looked for again: there was none.
pub(super) fn is_missed(run: &RootlessRun) -> bool {
    let record: Option<UplinkRecord> = store::read_json(&run.uplink()).ok().flatten();
    record.is_some_and(|record| record.program.is_none())
}

fn choice() -> Option<String> {
    std::env::var(CHOICE).ok().filter(|choice| !choice.is_empty())
}

/// What the host's resolver configuration is in the network namespace. Servers on the host's loopback cannot be reached
/// from there; slirp4netns asks whatever servers the host has at that moment, pasta those it had when it began.
pub(super) fn resolv_conf(host: &str, program: Option<&str>) -> String {
    let is_server = |line: &&str| line.trim_start().starts_with("nameserver");
    let is_near = |line: &&str| {
        let address = line.split_whitespace().nth(1).unwrap_or_default();
        address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    };
    let kept = host.lines().filter(|line| !is_server(line));
    let mut lines: Vec<String> = kept.map(str::to_owned).collect();
    let far: Vec<&str> = host.lines().filter(is_server).filter(|line| !is_near(line)).collect();
    match program {
        Some("slirp4netns") => lines.push(format!("nameserver {NAME_SERVER}")),
        Some(_) if far.is_empty() => lines.push(format!("nameserver {NAME_SERVER}")),
        _ => lines.extend(far.into_iter().map(str::to_owned)),
    }
    lines.into_iter().map(|line| line + "\n").collect()
}

// === impl Programs ===

impl Programs {
    /// Finds them.
    pub(super) fn find() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        let directories: Vec<PathBuf> =
            std::env::split_paths(&path).filter(|path| path.is_absolute()).collect();
        let found = |name: &str| {
            let candidates = directories.iter().map(|directory| directory.join(name));
            candidates.into_iter().find(|path| rustix::fs::access(path, Access::EXEC_OK).is_ok())
        };
        let choice = choice();
        let is_wanted = |name: &&&str| choice.as_ref().is_none_or(|choice| choice == **name);
        Self(PREFERRED.iter().filter(is_wanted).filter_map(|name| found(name)).collect())
    }
}

// === impl Uplink ===

impl Uplink {
    /// The one on record when it still runs, or a new one. There may be none: what needs no way out works without.
    pub(super) fn begin(run: RootlessRun, keeper: Pid, programs: Programs) -> Self {
        let mut uplink = Self { run, keeper, programs, process: None, renewed: None };
        match uplink.recorded() {
            Some((record, process)) if record.keeper == keeper.as_raw_nonzero().get() => {
                uplink.process = Some(process);
            }
            Some((_, process)) => {
                // It speaks for namespaces that nobody holds any more.
                let _ = rustix::process::pidfd_send_signal(process, Signal::TERM);
                uplink.start();
            }
            None => uplink.start(),
        }
        uplink
    }

    /// What ends with it.
    pub(super) fn process(&self) -> Option<BorrowedFd<'_>> {
        self.process.as_ref().map(AsFd::as_fd)
    }

    /// Starts it again after it has ended. What happened, in words.
    pub(super) fn renew(&mut self) -> String {
        let name = self.record().and_then(|record| record.program).unwrap_or_default();
        self.process = None;
        reap();
        if self.renewed.is_some_and(|renewed| renewed.elapsed() < TOO_SOON) {
            let reason = format!("{name} ended, and again when it had just been started");
            self.write(None, 0, 0, Some(reason.clone()));
            return format!("lost the way out: {reason}");
        }
        self.renewed = Some(Instant::now());
        self.start();
        match self.record() {
            Some(UplinkRecord { program: Some(program), .. }) => {
                format!("started {program} again, the way out, after {name} had ended")
            }
            record => {
                let reason = record.and_then(|record| record.reason).unwrap_or_default();
                format!("lost the way out, {name}: {reason}")
            }
        }
    }

    /// Starts one of these when none runs.
    pub(super) fn look_again(&mut self, programs: Programs) {
        if self.process.is_none() {
            self.programs = programs;
            self.start();
        }
    }

    /// Ends it with the namespaces that it speaks for.
    pub(super) fn end(self) {
        if let Some(process) = &self.process {
            let _ = rustix::process::pidfd_send_signal(process, Signal::TERM);
        }
        let _ = store::remove_file(&self.run.uplink());
    }

    fn start(&mut self) {
        let mut reasons = Vec::new();
        if self.programs.0.is_empty() {
            reasons.push(format!("no slirp4netns and no pasta is there ({HINT})"));
        } else if let Err(errno) = rustix::fs::access(TUN, Access::READ_OK | Access::WRITE_OK) {
            reasons.push(format!("open {TUN}: {errno} (as root: chmod 666 {TUN})"));
        }
        let candidates = if reasons.is_empty() { self.programs.0.clone() } else { Vec::new() };
        for program in candidates {
            let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let started =
                if name == "pasta" { self.start_pasta(&program) } else { self.start_slirp(&program) };
            let held = started.and_then(|pid| {
                let process = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
                Ok((pid, process))
            });
            match held {
                Ok((pid, process)) => {
                    let began = began(pid).unwrap_or_default();
                    self.write(Some(name), pid.as_raw_nonzero().get(), began, None);
                    self.process = Some(process);
                    return;
                }
                Err(error) => reasons.push(format!("start {name}: {error}{}", self.last_words())),
            }
        }
        self.write(None, 0, 0, Some(reasons.join("; ")));
    }

    /// It is ready when its first process ends (passt(1)).
    fn start_pasta(&self, program: &Path) -> io::Result<Pid> {
        let number = self.run.uplink_pid();
        store::remove_file(&number)?;
        let mut command = self.command(program)?;
        command.args(["--config-net", "--quiet", "--ns-ifname", TAP, "--mtu", MTU]);
        command.args(["--address", GUEST, "--netmask", "24", "--gateway", GATEWAY]);
        command.args(["--address", GUEST_IPV6, "--gateway", GATEWAY_IPV6]);
        // What listens on the host's loopback is not meant for containers, and ports are not its affair.
        command.args(["--no-map-gw", "-t", "none", "-u", "none", "-T", "none", "-U", "none"]);
        command.args(["--dns-forward", NAME_SERVER, "--no-dhcp", "--no-dhcpv6", "--no-ndp", "--no-ra"]);
        // It would look every second whether the namespace is there, which the outpost knows.
        command.args([OsStr::new("--no-netns-quit"), OsStr::new("--pid"), number.as_os_str()]);
        let status = command.arg(self.keeper.as_raw_nonzero().to_string()).status()?;
        if !status.success() {
            return Err(io::Error::other(status.to_string()));
        }
        let text = std::fs::read_to_string(&number)?;
        text.trim().parse().ok().and_then(Pid::from_raw).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// It is ready when it says so (slirp4netns(1)).
    fn start_slirp(&self, program: &Path) -> io::Result<Pid> {
        let (ready, is_ready) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let mut command = self.command(program)?;
        command.args(["--configure", "--disable-host-loopback"]).arg(format!("--mtu={MTU}"));
        command.arg(format!("--ready-fd={}", is_ready.as_raw_fd()));
        command.arg(self.keeper.as_raw_nonzero().to_string()).arg(TAP);
        rustix::io::fcntl_setfd(&is_ready, FdFlags::empty())?;
        let child = command.spawn()?;
        drop(is_ready);
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        let mut fds = [PollFd::new(&ready, PollFlags::IN)];
        let limit = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
        let count = rustix::event::poll(&mut fds, Some(&limit))?;
        if count == 1 && rustix::io::read(&ready, &mut [0]).is_ok_and(|count| count == 1) {
            return Ok(pid);
        }
        let _ = rustix::process::kill_process(pid, Signal::KILL);
        reap();
        Err(io::Error::other("it ended before it was ready"))
    }

    fn command(&self, program: &Path) -> io::Result<Command> {
        let mut command = Command::new(program);
        let words = File::create(self.run.uplink_words())?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(words).current_dir("/");
        Ok(command)
    }

    /// The last line that it wrote.
    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(self.run.uplink_words()).unwrap_or_default();
        let last = text.lines().rev().find(|line| !line.trim().is_empty());
        last.map(|line| format!(": {}", line.trim())).unwrap_or_default()
    }

    fn record(&self) -> Option<UplinkRecord> {
        store::read_json(&self.run.uplink()).ok()?
    }

    /// The one on record, if it is still that process.
    fn recorded(&self) -> Option<(UplinkRecord, OwnedFd)> {
        let record = self.record()?;
        let pid = Pid::from_raw(record.pid)?;
        let process = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
        (record.program.is_some() && began(pid) == Some(record.began)).then_some((record, process))
    }

    fn write(&self, program: Option<String>, pid: i32, began: u64, reason: Option<String>) {
        let keeper = self.keeper.as_raw_nonzero().get();
        let record = UplinkRecord { version: 1, keeper, program, pid, began, reason };
        // Without it the next outpost starts another one, and names are looked up as on the host.
        let _ = store::write_json(&self.run.uplink(), &record, Durability::Rename);
    }
}

/// When a process began, in ticks since the machine did (proc(5), `/proc/<pid>/stat`).
fn began(pid: Pid) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Takes note of children that have ended, for the kernel.
fn reap() {
    while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_domains_stay_and_name_servers_out_of_reach_go() {
        let near = "search a.example\nnameserver 127.0.0.53\noptions edns0\n";
        let shown = "search a.example\noptions edns0\nnameserver 10.0.2.3\n";
        assert_eq!(resolv_conf(near, Some("slirp4netns")), shown);
        assert_eq!(resolv_conf(near, Some("pasta")), shown);
        assert_eq!(resolv_conf(near, None), "search a.example\noptions edns0\n");
        let far = "nameserver 192.0.2.1\nnameserver 127.0.0.1\n";
        assert_eq!(resolv_conf(far, Some("pasta")), "nameserver 192.0.2.1\n");
        assert_eq!(resolv_conf(far, Some("slirp4netns")), "nameserver 10.0.2.3\n");
    }
}
