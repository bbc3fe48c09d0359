//! Names, asked of a container's own name server with dig(1).

use crate::host::*;
use engine::container::spec::{DnsSpec, NetworkAttachment};
use engine::network::{DnsSockets, Resolver, open_dns_sockets};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// A name server of the outside: it answers every question with this address, after as many refusals as asked for, and
/// counts what it was asked. It serves UDP and TCP at the same port.
struct Outside {
    at: SocketAddr,
    asked: std::sync::Arc<AtomicUsize>,
}

impl Outside {
    fn answering(address: [u8; 4], refusing: bool) -> Self {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = udp.local_addr().unwrap();
        let tcp = TcpListener::bind(at).unwrap();
        let asked = std::sync::Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, peer)) = udp.recv_from(&mut buffer) {
                count.fetch_add(1, Ordering::Relaxed);
                let _ = udp.send_to(&Self::reply(&buffer[..length], address, refusing), peer);
            }
        });
        let count = asked.clone();
        thread::spawn(move || {
            for stream in tcp.incoming() {
                let mut stream = stream.unwrap();
                let mut length = [0; 2];
                if stream.read_exact(&mut length).is_err() {
                    continue;
                }
                let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut question).unwrap();
                count.fetch_add(1, Ordering::Relaxed);
                let reply = Self::reply(&question, address, refusing);
                stream.write_all(&u16::try_from(reply.len()).unwrap().to_be_bytes()).unwrap();
                stream.write_all(&reply).unwrap();
            }
        });
        Self { at, asked }
    }

    fn reply(question: &[u8], address: [u8; 4], refusing: bool) -> Vec<u8> {
        // Everything behind the question itself, such as EDNS, is left out.
        let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
        let mut reply = question[..end].to_vec();
        reply[2] |= 0x80;
        reply[3] = if refusing { 0x85 } else { 0x80 };
        reply[6..12].copy_from_slice(&[0, u8::from(!refusing), 0, 0, 0, 0]);
        if !refusing {
            reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4]);
            reply.extend_from_slice(&address);
        }
        reply
    }

    fn times_asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

/// Runs the story while a resolver serves the guest, as its monitor would: from the host's namespace, in a poll loop.
fn while_resolving(host: &Host, guest: &Guest, servers: &[SocketAddr], story: impl FnOnce()) {
    let sockets = guest.place.enter(|| open_dns_sockets().unwrap());
    // As they travel from the child to the monitor.
    let sockets = DnsSockets::from_descriptors(sockets.into_descriptors()).unwrap();
    let mut resolver = Resolver::new(sockets, &host.networks, &guest.id, &DnsSpec::default())
        .unwrap()
        .asking(servers.to_vec());
    let namespace = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
    let (end, told) = rustix::pipe::pipe().unwrap();
    let wakes = AtomicUsize::new(0);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            rustix::thread::move_into_link_name_space(namespace.as_fd(), None).unwrap();
            loop {
                use rustix::event::{PollFd, PollFlags, poll};
                let mut fds = [PollFd::new(&resolver, PollFlags::IN), PollFd::new(&end, PollFlags::IN)];
                poll(&mut fds, None).unwrap();
                if done.load(Ordering::Relaxed) {
                    return;
                }
                wakes.fetch_add(1, Ordering::Relaxed);
                resolver.ready();
            }
        });
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(story));
        done.store(true, Ordering::Relaxed);
        drop(told);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    // A resolver that spins would be woken millions of times.
    assert!(wakes.load(Ordering::Relaxed) < 10_000);
}

/// What dig(1) prints inside, line by line.
fn dig(guest: &Guest, arguments: &str) -> Vec<String> {
    let text = guest.place.enter(|| run("dig", &format!("@127.0.0.11 +tries=1 +time=3 {arguments}")));
    text.lines().map(str::to_owned).collect()
}

fn short(guest: &Guest, arguments: &str) -> Vec<String> {
    dig(guest, &format!("+short {arguments}"))
}

#[test]
fn containers_find_each_other_by_name() {
    on_a_host(|host| {
        host.network("back");
        host.network("front");
        let outside = Outside::answering([192, 0, 2, 77], false);
        let web = host.guest("web", &[on("front"), on("back")]);
        let db = host.guest("My_db.1", &[NetworkAttachment { aliases: vec!["db".to_owned()], ..on("back") }]);
        let hidden = host.guest("hidden", &[]);
        while_resolving(host, &web, &[outside.at], || {
            let address = db.ip().to_string();
            for name in ["My_db.1", "db", "DB", "db.", "dB.back", db.id.short(), "my_db.1.back"] {
                assert_eq!(short(&web, name), [address.as_str()], "{name}");
                assert_eq!(short(&web, &format!("+tcp {name}")), [address.as_str()], "{name} over TCP");
            }
            assert_eq!(short(&web, &format!("-x {address}")), ["My_db.1.back."]);
            // A name that is known has no other records, and nobody else is asked for them.
            let empty = dig(&web, "db AAAA").join("\n");
            assert!(empty.contains("status: NOERROR") && empty.contains("ANSWER: 0"), "{empty}");
            assert!(dig(&web, "db MX").join("").contains("status: NOERROR"));
            assert_eq!(outside.times_asked(), 0);
            // Names that are not known are asked outside, those of other networks among them.
            assert_eq!(short(&web, "example.org"), ["192.0.2.77"]);
            assert_eq!(short(&web, "+tcp example.org"), ["192.0.2.77"]);
            assert_eq!(short(&web, "hidden"), ["192.0.2.77"]);
            assert_eq!(outside.times_asked(), 3);
            // The names of a container come and go with it.
            let late = host.guest("late", &[on("back")]);
            assert_eq!(short(&web, "late"), [late.ip().to_string()]);
            host.networks.rename(&late.id, &"later".parse().unwrap()).unwrap();
            assert_eq!(short(&web, "later"), [late.ip().to_string()]);
            host.networks.release(&late.id).unwrap();
            assert_eq!(short(&web, "later"), ["192.0.2.77"]);
            // A server of the container's own on port 53 is not in the way.
            web.place.serve_udp("0.0.0.0:53", "own");
            assert!(web.place.enter(|| call_udp(&web.at(53))).unwrap().starts_with("own"));
            assert_eq!(short(&web, "db"), [address.as_str()]);
        });
        drop(hidden);
    });
}

#[test]
fn a_shared_alias_is_answered_by_all_who_have_it_in_turn() {
    on_a_host(|host| {
        host.network("back");
        let shared = || NetworkAttachment { aliases: vec!["app".to_owned()], ..on("back") };
        let guests: Vec<Guest> =
            (1..=60).map(|number| host.guest(&format!("app-{number}"), &[shared()])).collect();
        while_resolving(host, &guests[0], &[], || {
            let first: Vec<String> = (0..4).map(|_| short(&guests[0], "+tcp app")[0].clone()).collect();
            assert!(first.windows(2).all(|pair| pair[0] != pair[1]), "{first:?}");
            // Sixty addresses do not fit into 512 bytes: the client is told to come by TCP, and does.
            assert_eq!(short(&guests[0], "+noedns app").len(), 60);
            assert!(dig(&guests[0], "+noedns +ignore app").iter().any(|line| line.contains("flags: qr tc")));
            // With EDNS they fit.
            assert_eq!(short(&guests[0], "+bufsize=4096 +ignore app").len(), 60);
        });
    });
}

#[test]
fn servers_outside_are_asked_one_after_the_other() {
    on_a_host(|host| {
        host.network("back");
        host.internal("closed");
        let guest = host.guest("one", &[on("back")]);
        let refusing = Outside::answering([0; 4], true);
        let answering = Outside::answering([192, 0, 2, 78], false);
        let nobody: SocketAddr = "127.0.0.1:1".parse().unwrap();
        while_resolving(host, &guest, &[nobody, refusing.at, answering.at], || {
            for arguments in ["example.org", "+tcp example.org"] {
                assert_eq!(short(&guest, arguments), ["192.0.2.78"], "{arguments}");
            }
            // Many at once, of which each gets its own answer.
            let names: Vec<String> = (0..40).map(|number| format!("n{number}.example.org")).collect();
            assert_eq!(short(&guest, &names.join(" ")).len(), 40);
        });
        while_resolving(host, &guest, &[nobody, refusing.at], || {
            assert!(dig(&guest, "example.org").join("").contains("status: REFUSED"));
        });
        while_resolving(host, &guest, &[], || {
            assert!(dig(&guest, "example.org").join("").contains("status: SERVFAIL"));
        });
        let before = answering.times_asked();
        let shut_in = host.guest("two", &[on("closed")]);
        while_resolving(host, &shut_in, &[answering.at], || {
            assert_eq!(short(&shut_in, "two"), [shut_in.ip().to_string()]);
            assert!(dig(&shut_in, "example.org").join("").contains("status: NXDOMAIN"));
        });
        assert_eq!(answering.times_asked(), before);
    });
}

#[test]
fn a_server_that_says_nothing_is_given_up_in_time() {
    on_a_host(|host| {
        host.network("back");
        let guest = host.guest("one", &[on("back")]);
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let answering = Outside::answering([192, 0, 2, 79], false);
        while_resolving(host, &guest, &[silent.local_addr().unwrap(), answering.at], || {
            let begun = std::time::Instant::now();
            assert_eq!(short(&guest, "+time=8 example.org"), ["192.0.2.79"]);
            let waited = begun.elapsed();
            assert!((3..6).contains(&waited.as_secs()), "{waited:?}");
            assert_eq!(short(&guest, "one"), [guest.ip().to_string()]);
        });
    });
}

#[test]
fn nonsense_on_the_wire_harms_no_resolver() {
    on_a_host(|host| {
        host.network("back");
        let guest = host.guest("one", &[on("back")]);
        while_resolving(host, &guest, &[], || {
            guest.place.enter(|| {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                let mut seed = 7u32;
                for length in 0..300 {
                    let bytes: Vec<u8> = (0..length)
                        .map(|_| {
                            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                            u8::try_from(seed >> 24).unwrap()
                        })
                        .collect();
                    socket.send_to(&bytes, "127.0.0.11:53").unwrap();
                }
                // Half a message, and then nothing; and one that is all length.
                let mut half = TcpStream::connect("127.0.0.11:53").unwrap();
                half.write_all(&[0, 40, 1, 2, 3]).unwrap();
                let mut empty = TcpStream::connect("127.0.0.11:53").unwrap();
                empty.write_all(&[0; 400]).unwrap();
                // More clients than are served at once.
                let crowd: Vec<TcpStream> =
                    (0..100).filter_map(|_| TcpStream::connect("127.0.0.11:53").ok()).collect();
                drop((crowd, half, empty));
            });
            assert_eq!(short(&guest, "one"), [guest.ip().to_string()]);
            assert_eq!(short(&guest, "+tcp one"), [guest.ip().to_string()]);
        });
    });
}

#[test]
fn addresses_of_its_own_networks_are_asked_of_nobody_outside() {
    on_a_host(|host| {
        host.network("back");
        let outside = Outside::answering([192, 0, 2, 80], false);
        let guest = host.guest("one", &[on("back")]);
        while_resolving(host, &guest, &[outside.at], || {
            let neighbour = guest.ip().to_string().rsplit_once('.').unwrap().0.to_owned() + ".250";
            assert!(dig(&guest, &format!("-x {neighbour}")).join("").contains("status: NXDOMAIN"));
            assert_eq!(outside.times_asked(), 0);
            dig(&guest, "-x 192.0.2.1");
            assert_eq!(outside.times_asked(), 1);
        });
    });
}

#[test]
fn the_default_network_has_no_names_but_a_way_to_ask() {
    on_a_host(|host| {
        host.internal("closed");
        let outside = Outside::answering([192, 0, 2, 81], false);
        let other = host.guest("other", &[]);
        let guest = host.guest("one", &[on("bridge"), on("closed")]);
        let member = host.guest("member", &[on("closed")]);
        while_resolving(host, &guest, &[outside.at], || {
            assert_eq!(short(&guest, "example.org"), ["192.0.2.81"]);
            assert_eq!(short(&guest, "other"), ["192.0.2.81"]);
            assert_eq!(short(&guest, "member"), [member.ip().to_string()]);
        });
        drop(other);
    });
}
