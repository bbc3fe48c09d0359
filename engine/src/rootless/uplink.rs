//! The way out of a user's engine: `slirp4netns`, a program on the host that speaks for the network namespace. It
//! listens on ports of the host in the name of containers (slirp4netns(1), API SOCKET).

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Access, Mode, OFlags};
use rustix::process::Pid;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Error, Kind, Result};
use crate::paths;
use crate::sys::detached;

/// The executable.
#[derive(Debug)]
pub(super) struct Program(OwnedFd);

/// A port of the host that leads into the network namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Door {
    /// `tcp` or `udp`.
    pub(crate) protocol: String,
    /// The address of the host.
    pub(crate) host: Ipv4Addr,
    /// The port, on both sides.
    pub(crate) port: u16,
}

#[derive(Debug, Deserialize)]
struct Listed {
    id: u64,
    proto: String,
    host_addr: Ipv4Addr,
    host_port: u16,
}

/// The name server of slirp4netns in its usual network.
const NAME_SERVER: &str = "10.0.2.3";
/// Where that network's only host is.
const GUEST: &str = "10.0.2.100";
const TAP: &str = "tap0";
/// Documentation/networking/tuntap.rst of the kernel: everybody may open it.
const TUN: &str = "/dev/net/tun";
/// Long enough for it to be ready on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

// === impl Program ===

impl Program {
    /// Finds it.
    ///
    /// # Errors
    /// When it is not installed, or lacks what it needs.
    pub(super) fn find() -> Result<Self> {
        let readable = rustix::fs::access(TUN, Access::READ_OK | Access::WRITE_OK);
        readable.map_err(|error| {
            Error::new(Kind::Unsupported, format!("open {TUN}, which slirp4netns makes its link of"))
                .with_source(error)
                .with_hint(format!("as root: chmod 666 {TUN}; or run it with sudo"))
        })?;
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let candidates = std::env::split_paths(&path).map(|directory| directory.join("slirp4netns"));
        candidates
            .filter_map(|candidate| rustix::fs::open(candidate, flags, Mode::empty()).ok())
            .next()
            .map(Self)
            .ok_or_else(|| {
                Error::new(Kind::Unsupported, "find slirp4netns, the way out of an ordinary user's engine")
                    .with_hint("install the package slirp4netns, or run it with sudo")
            })
    }

    /// Starts it for the network namespace of this process. It ends when nobody holds the other end of `ends`.
    pub(super) fn start(&self, pid: Pid, socket: &Path, ends: OwnedFd) -> Result<()> {
        let failed = |error: std::io::Error| Error::failed("start slirp4netns", error);
        let (ready, is_ready) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|error| failed(error.into()))?;
        let texts = [
            "--configure".to_owned(),
            "--mtu=65520".to_owned(),
            // What listens on the host's loopback is not meant for containers.
            "--disable-host-loopback".to_owned(),
            format!("--api-socket={}", socket.display()),
            format!("--ready-fd={}", is_ready.as_raw_fd()),
            format!("--exit-fd={}", ends.as_raw_fd()),
            pid.as_raw_nonzero().to_string(),
            TAP.to_owned(),
        ];
        crate::store::remove_file(socket).map_err(failed)?;
        let args: Vec<&std::ffi::OsStr> = texts.iter().map(std::ffi::OsStr::new).collect();
        detached::spawn(self.0.as_fd(), "slirp4netns", &args, &[is_ready.as_fd(), ends.as_fd()])
            .map_err(failed)?;
        drop((is_ready, ends));
        let mut fds = [PollFd::new(&ready, PollFlags::IN)];
        let limit = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
        let count = rustix::event::poll(&mut fds, Some(&limit)).map_err(|error| failed(error.into()))?;
        let mut byte = [0];
        if count == 1 && rustix::io::read(&ready, &mut byte).is_ok_and(|count| count == 1) {
            return Ok(());
        }
        Err(Error::failed("start slirp4netns", "it ended before it was ready"))
    }
}

/// What the host's resolver configuration is in the network namespace.
pub(super) fn resolv_conf(host: &str) -> String {
    let kept = host.lines().filter(|line| !line.trim_start().starts_with("nameserver"));
    let kept: String = kept.map(|line| format!("{line}\n")).collect();
    format!("{kept}nameserver {NAME_SERVER}\n")
}

/// Closes the doors that were and shall not be any more, and opens those that were not. Those of others are left alone.
///
/// # Errors
/// When a port of the host cannot be had, naming it; the others may be open then.
pub(crate) fn change_doors(before: &[Door], now: &[Door]) -> Result<()> {
    if before.is_empty() && now.is_empty() {
        return Ok(());
    }
    let listed: Vec<Listed> =
        serde_json::from_value(ask(&json!({"execute": "list_hostfwd"}))?["entries"].take())
            .map_err(|error| Error::failed("understand slirp4netns", error))?;
    let door = |listed: &Listed| Door {
        protocol: listed.proto.clone(),
        host: listed.host_addr,
        port: listed.host_port,
    };
    let leaves = |door: &Door| before.contains(door) && !now.contains(door);
    for old in listed.iter().filter(|listed| leaves(&door(listed))) {
        ask(&json!({"execute": "remove_hostfwd", "arguments": {"id": old.id}}))?;
    }
    let open: Vec<Door> = listed.iter().map(door).collect();
    for new in now.iter().filter(|new| !(open.contains(new) && before.contains(new))) {
        let arguments = json!({
            "proto": new.protocol, "host_addr": new.host, "host_port": new.port,
            "guest_addr": GUEST, "guest_port": new.port,
        });
        ask(&json!({"execute": "add_hostfwd", "arguments": arguments})).map_err(|error| {
            let why = if new.port < 1024 {
                "ordinary users get those from net.ipv4.ip_unprivileged_port_start on, 1024 unless changed"
            } else {
                "another program may listen there"
            };
            let Door { protocol, host, port } = new;
            Error::conflict(format!("the port {host}:{port}/{protocol} of the host cannot be had: {why}"))
                .with_source(error)
        })?;
    }
    Ok(())
}

/// The doors for a published port: slirp4netns speaks IPv4, TCP and UDP alone.
pub(crate) fn door(host: IpAddr, port: u16, protocol: &str) -> Option<Door> {
    match host {
        IpAddr::V4(host) if matches!(protocol, "tcp" | "udp") => {
            Some(Door { protocol: protocol.to_owned(), host, port })
        }
        _ => None,
    }
}

fn ask(request: &Value) -> Result<Value> {
    let failed = |error: std::io::Error| Error::failed("ask slirp4netns", error);
    let socket: PathBuf = paths::RootlessRun::at(paths::ROOTLESS_INSIDE.into()).uplink();
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    stream.write_all(request.to_string().as_bytes()).map_err(failed)?;
    stream.shutdown(std::net::Shutdown::Write).map_err(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(failed)?;
    let mut answer: Value = serde_json::from_str(&answer).map_err(|error| failed(error.into()))?;
    if let Some(error) = answer.get("error") {
        return Err(Error::failed("ask slirp4netns", error.to_string()));
    }
    // Some answers have `return` around what they say.
    Ok(match answer.get_mut("return") {
        Some(inner) => inner.take(),
        None => answer,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_domains_stay_and_name_servers_go() {
        let host = "search a.example\nnameserver 127.0.0.53\noptions edns0\n";
        assert_eq!(resolv_conf(host), "search a.example\noptions edns0\nnameserver 10.0.2.3\n");
    }
}
