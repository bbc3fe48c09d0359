//! A host of a story's own, the containers on it, its neighbour, and calls between them.
#![expect(unsafe_code, reason = "entering a network namespace of a story's own")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use engine::Root;
use engine::container::spec::{ContainerPort, NetworkAttachment, PortBinding, Protocol};
use engine::id::ContainerId;
use engine::network::{
    self, Endpoint, InsideLink, LinkOptions, Network, NetworkSpec, Networks, Party, configure_inside,
};
use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// Long enough for a packet that would come, short enough for one that must not.
pub(crate) const IMPATIENCE: Duration = Duration::from_millis(400);

/// A host with an engine on it.
pub(crate) struct Host {
    pub(crate) networks: Networks,
    pub(crate) root: Root,
    _state: tempfile::TempDir,
}

/// A network namespace with a process in it.
pub(crate) struct Place {
    process: Child,
}

/// A container, as far as its network goes.
pub(crate) struct Guest {
    pub(crate) place: Place,
    pub(crate) id: ContainerId,
    pub(crate) endpoints: Vec<Endpoint>,
}

/// Runs the story on a host of its own.
pub(crate) fn on_a_host(story: impl FnOnce(&Host) + Send) {
    thread::scope(|scope| {
        let play = scope.spawn(|| {
            // SAFETY: only this thread changes its namespace, and it holds nothing of the old one.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
            ip("link set lo up");
            // The relay would be this program executed again, which is none.
            std::fs::write("/proc/sys/net/ipv6/conf/lo/disable_ipv6", "1").unwrap();
            story(&Host::new());
        });
        if let Err(panic) = play.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

pub(crate) fn ip(arguments: &str) {
    run("ip", arguments);
}

pub(crate) fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn port(host_ip: Option<&str>, host_port: u16, container: u16, protocol: Protocol) -> PortBinding {
    PortBinding {
        host_ip: host_ip.map(|text| text.parse().unwrap()),
        host_port: (host_port != 0).then_some((host_port, host_port)),
        container: ContainerPort { port: container, protocol },
    }
}

pub(crate) fn on(network: &str) -> NetworkAttachment {
    NetworkAttachment {
        network: network.to_owned(),
        aliases: Vec::new(),
        addresses: Vec::new(),
        mac_address: None,
        gateway_priority: 0,
        link_local: Vec::new(),
        link: LinkOptions::default(),
    }
}

/// Nobody has the same link-local address, so there is no need to wait a second for a duplicate of it.
pub(crate) fn trust_the_wire() {
    std::fs::write("/proc/sys/net/ipv6/conf/wire0/accept_dad", "0").unwrap();
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl Host {
    /// Releases every container, and says how many there were.
    pub(crate) fn sweep(&self) -> usize {
        let holders = self.networks.holders().unwrap();
        holders.iter().for_each(|holder| self.networks.sweep(holder).unwrap());
        holders.len()
    }

    pub(crate) fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let root = Root::at(state.path());
        Self { networks: Networks::at(&root), root, _state: state }
    }

    pub(crate) fn network(&self, name: &str) -> Network {
        self.networks.create(NetworkSpec::new(name.parse().unwrap())).unwrap()
    }

    pub(crate) fn internal(&self, name: &str) -> Network {
        let spec = NetworkSpec { internal: true, ..NetworkSpec::new(name.parse().unwrap()) };
        self.networks.create(spec).unwrap()
    }

    pub(crate) fn guest(&self, name: &str, attachments: &[NetworkAttachment]) -> Guest {
        let place = Place::new();
        let id = ContainerId::random();
        let party = Party { container: id.clone(), name: name.parse().unwrap(), hostname: None, held: false };
        let endpoints = self.networks.attach(&party, attachments).unwrap();
        let links = network::plug(&endpoints, place.pid()).unwrap();
        // As it travels from the monitor to the child.
        let message = serde_json::to_vec(&links).unwrap();
        place.enter(move || {
            let links: Vec<InsideLink> = serde_json::from_slice(&message).unwrap();
            configure_inside(&links).unwrap();
        });
        Guest { place, id, endpoints }
    }

    pub(crate) fn publish(&self, guest: &Guest, bindings: &[PortBinding]) -> Result<Vec<String>, String> {
        self.networks
            .publish(&guest.id, bindings, &guest.endpoints)
            .map(|ports| ports.iter().map(ToString::to_string).collect())
            .map_err(|error| error.to_string())
    }

    /// Another machine on a wire to this host, whose address there is 198.51.100.1.
    pub(crate) fn neighbour(&self) -> Place {
        let place = Place::new();
        let pid = place.pid().as_raw_pid();
        ip(&format!("link add wire0 type veth peer name wire0 netns {pid}"));
        trust_the_wire();
        ip("addr add 198.51.100.1/24 dev wire0");
        ip("addr add 2001:db8::1/64 dev wire0 nodad");
        ip("link set wire0 up");
        place.enter(|| {
            ip("link set lo up");
            trust_the_wire();
            ip("addr add 198.51.100.9/24 dev wire0");
            ip("addr add 2001:db8::9/64 dev wire0 nodad");
            ip("link set wire0 up");
        });
        place
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.root.run());
    }
}

impl Place {
    pub(crate) fn new() -> Self {
        let mut process = Command::new("unshare")
            .args(["-n", "sh", "-c", "echo ready; exec sleep 600"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { process }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    /// Runs this inside. Sockets that it returns stay inside.
    pub(crate) fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let namespace = std::fs::File::open(format!("/proc/{}/ns/net", self.process.id())).unwrap();
        thread::scope(|scope| {
            let visit = scope.spawn(|| {
                let kind = Some(LinkNameSpaceType::Network);
                rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).unwrap();
                act()
            });
            visit.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Serves TCP connections for ever: each is told the client's address and closed.
    pub(crate) fn serve_tcp(&self, at: &str, greeting: &'static str) {
        let listener = self.enter(|| TcpListener::bind(at).unwrap());
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = write!(stream, "{greeting} {}", stream.peer_addr().unwrap().ip());
            }
        });
    }

    pub(crate) fn serve_udp(&self, at: &str, greeting: &'static str) {
        let socket = self.enter(|| UdpSocket::bind(at).unwrap());
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(format!("{greeting} {}", peer.ip()).as_bytes(), peer);
            }
        });
    }

    pub(crate) fn call(&self, to: &str) -> Option<String> {
        self.enter(|| call(to))
    }

    pub(crate) fn misses(&self, to: &str) -> bool {
        self.enter(|| is_silent(to))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Guest {
    pub(crate) fn ip(&self) -> IpAddr {
        self.endpoints[0].ipv4().unwrap()
    }

    pub(crate) fn at(&self, port: u16) -> String {
        SocketAddr::new(self.ip(), port).to_string()
    }

    pub(crate) fn call(&self, to: &str) -> Option<String> {
        self.place.call(to)
    }

    pub(crate) fn misses(&self, to: &str) -> bool {
        self.place.misses(to)
    }
}

/// What a TCP server there says, from the network namespace of this thread; `None` when nobody answers.
pub(crate) fn call(to: &str) -> Option<String> {
    // The first packet may well be lost: the kernel needs its moment to notice that a new link is up.
    call_within(to, PATIENCE)
}

/// Whether nobody there answers a call.
pub(crate) fn is_silent(to: &str) -> bool {
    call_within(to, IMPATIENCE).is_none()
}

pub(crate) fn call_within(to: &str, patience: Duration) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&to.parse().unwrap(), patience).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

pub(crate) fn call_udp(to: &str) -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(IMPATIENCE)).unwrap();
    let mut buffer = [0; 64];
    let asked = std::iter::repeat_with(|| socket.send(b"hello"));
    let length = asked.take(5).find_map(|sent| sent.and_then(|_| socket.recv(&mut buffer)).ok())?;
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}
