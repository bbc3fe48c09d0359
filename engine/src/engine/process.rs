//! `top`: the processes of a container, as ps -ef shows them.

use std::fs;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use rustix::process::Pid;

use crate::container::cgroup::Cgroup;
use crate::container::state::State;
use crate::engine::{Container, Engine};
use crate::error::{Error, Result};
use crate::id::ContainerId;

/// A process of a container.
#[derive(Debug, Clone, PartialEq)]
pub struct Process {
    /// Its user: a name of the host where it has one, else the number.
    pub user: String,
    /// Its user's number.
    pub uid: String,
    /// As the host numbers it.
    pub pid: i32,
    /// Its parent, as the host numbers it.
    pub parent: i32,
    /// When it started, `HH:MM`.
    pub started: String,
    /// Its terminal, `?` without one.
    pub terminal: String,
    /// Processor time it used, `HH:MM:SS`.
    pub time: String,
    /// Its command line.
    pub command: String,
    /// Its program's name.
    pub name: String,
    /// ps(1)'s letter for what it does: `S`, `R`, `Z`.
    pub state: String,
    /// How nice it is to others.
    pub nice: i64,
    /// Its threads.
    pub threads: i64,
    /// Seconds since it was started.
    pub elapsed: u64,
    /// Bytes of its address space.
    pub virtual_memory: u64,
    /// Bytes of it that are in memory.
    pub resident_memory: u64,
    /// Processor time it used of the time since it was started.
    pub cpu_percent: f64,
    /// Its part of the machine's memory.
    pub memory_percent: f64,
}

impl Engine {
    /// The processes of a running container.
    ///
    /// # Errors
    /// When it does not run.
    pub fn top(&self, id: &ContainerId) -> Result<Vec<Process>> {
        let container = self.container(id.as_str())?;
        if !container.state.is_running() {
            return Err(Error::conflict(format!("container {} is not running", container.name())));
        }
        let failed =
            |error| Error::failed(format!("list the processes of container {}", container.name()), error);
        let cgroup = Cgroup::open(self.root(), id).map_err(failed)?;
        let found = cgroup.processes().map_err(failed)?;
        let found = if found.is_empty() { of_same_namespace(&container) } else { found };
        let pids: Vec<i32> = found.into_iter().map(|pid| pid.as_raw_nonzero().get()).collect();
        Ok(processes(&pids))
    }
}

/// One look at each of these processes, by their numbers; those that ended meanwhile are left out.
pub fn processes(pids: &[i32]) -> Vec<Process> {
    let mut processes: Vec<Process> = pids.iter().filter_map(|pid| look(*pid)).collect();
    processes.sort_by_key(|process| process.pid);
    processes
}

/// The processes in a container's own namespace, of an ordinary user's container that is in no group.
fn of_same_namespace(container: &Container) -> Vec<Pid> {
    let State::Running(running) = &container.state else { return Vec::new() };
    let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(own) = namespace(running.pid) else { return Vec::new() };
    if namespace(std::process::id().cast_signed()).as_ref() == Some(&own) {
        return Pid::from_raw(running.pid).into_iter().collect();
    }
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| namespace(*pid).as_ref() == Some(&own)).filter_map(Pid::from_raw).collect()
}

/// One look at a process; `None` when it ended meanwhile.
fn look(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let (head, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // Fields are counted from 1 in proc(5), and the name is the second one.
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<i64>().ok());
    let uid =
        status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().next()?.to_owned();
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command).trim_end_matches('\0').replace('\0', " ");
    let name = head.split_once('(').map_or("", |(_, name)| name);
    let ticks = rustix::param::clock_ticks_per_second() as i64;
    let ticks = ticks.max(1);
    let seconds = (field(14)? + field(15)?) / ticks;
    let elapsed = u64::try_from(uptime()? - field(22)? / ticks).unwrap_or(0);
    let page = rustix::param::page_size() as u64;
    let resident_memory = field(24)?.unsigned_abs() * page;
    let share = |part: f64, whole: f64| if whole > 0.0 { part / whole * 100.0 } else { 0.0 };
    Some(Process {
        user: user_name(&uid).unwrap_or_else(|| uid.clone()),
        uid,
        name: name.to_owned(),
        state: (*fields.first()?).to_owned(),
        nice: field(19)?,
        threads: field(20)?,
        elapsed,
        virtual_memory: field(23)?.unsigned_abs(),
        resident_memory,
        cpu_percent: share(seconds as f64, elapsed as f64),
        memory_percent: share(resident_memory as f64, super::usage::machine_memory() as f64),
        pid,
        parent: i32::try_from(field(4)?).ok()?,
        started: started(field(22)? / ticks).unwrap_or_default(),
        terminal: terminal(field(7)?),
        time: format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
        command: if command.is_empty() { format!("[{name}]") } else { command },
    })
}

/// Seconds since the machine was started.
fn uptime() -> Option<i64> {
    let text = fs::read_to_string("/proc/uptime").ok()?;
    text.split(['.', ' ']).next()?.parse().ok()
}

fn user_name(uid: &str) -> Option<String> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    })
}

/// The time of day that lies this many seconds after boot.
fn started(seconds_after_boot: i64) -> Option<String> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let boot: i64 = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let time = Timestamp::from_second(boot + seconds_after_boot).ok()?.to_zoned(TimeZone::UTC);
    Some(format!("{:02}:{:02}", time.hour(), time.minute()))
}

/// A device number of stat's as ps names it (proc(5), tty_nr): pseudo-terminals have the majors 136 to 143.
fn terminal(number: i64) -> String {
    let (major, minor) = ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xfff00));
    match major {
        0 => "?".to_owned(),
        136..=143 => format!("pts/{}", minor + (major - 136) * 256),
        _ => format!("tty{minor}"),
    }
}
