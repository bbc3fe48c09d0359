//! Twenty releases in a row under load: short connections and ones that stay (`wrk`), long downloads, and connections that
//! say nothing.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::world::{World, get, get_at};

const WEB: &str = "
services:
  web: {build: ., ports: ['80'], depends_on: [store], stop_grace_period: 0s}
  store: {build: ., ports: ['80'], volumes: ['data:/data'], stop_grace_period: 0s}
  talk: {build: ., command: [sh, /talk], ports: ['80'], stop_grace_period: 10s}
volumes: {data: {}}
";

/// A server whose connections stay, and that ends as servers should: whoever asks once more is told that this was the last
/// answer, and nobody is hung up on before.
const TALK: &str = r#"
cat >/answer <<'END'
mkdir -p /open; touch /open/$$
how=keep-alive
while [ $how = keep-alive ] && read -r line; do
    while [ "${#line}" -gt 1 ]; do read -r line || exit; done
    [ ! -e /ending ] || how=close
    page=$(cat /www/page)
    printf 'HTTP/1.1 200 OK\r\nContent-Length: %s\r\nConnection: %s\r\n\r\n%s' ${#page} $how "$page"
done
rm /open/$$
END
nc -ll -p 80 -e sh /answer &
trap 'touch /ending' TERM
until [ -e /ending ]; do sleep 0.1; done
while [ -n "$(ls /open)" ]; do sleep 0.05; done
"#;

/// `wrk`, which asks for the page as often as it can until it is stopped.
struct Wrk(std::process::Child);

impl Wrk {
    fn at(port: u16) -> Self {
        let mut command = Command::new("wrk");
        command.args(["-t1", "-c2", "-d600s", "--timeout", "30s", &format!("http://127.0.0.1:{port}/page")]);
        Self(command.stdout(Stdio::piped()).spawn().expect("wrk is installed"))
    }

    /// How many answers it got; every one of them a good one.
    fn stop(self) -> u64 {
        kill_process(Pid::from_child(&self.0), Signal::INT).unwrap();
        let said = String::from_utf8(self.0.wait_with_output().unwrap().stdout).unwrap();
        assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
        let count = said.lines().find_map(|line| line.trim().split_once(" requests in ")).unwrap().0;
        count.parse().unwrap()
    }
}

const DEPLOYMENTS: usize = 20;
const IDLE: usize = 20;
const BIG: usize = 4 << 20;

/// A download that is read slowly: a quarter of a second for all of it.
fn download(port: u16) -> std::io::Result<usize> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /big HTTP/1.0\r\n\r\n")?;
    let mut piece = vec![0; BIG / 50];
    let mut count = 0;
    loop {
        match stream.read(&mut piece)? {
            0 => return Ok(count),
            read => count += read,
        }
        // The pace is what the test is about.
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn twenty_releases_under_load_and_nobody_is_refused_reset_or_cut_off() {
    let world = World::new(1, WEB);
    std::fs::write(world.project().join("big"), vec![b'x'; BIG]).unwrap();
    let dockerfile = std::fs::read_to_string(world.project().join("Dockerfile")).unwrap();
    world.write("talk", TALK);
    world.write(
        "Dockerfile",
        &dockerfile.replace("COPY page", "COPY big /www/big\nCOPY talk /talk\nCOPY page"),
    );
    world.rdeploy(["up"]).succeeds();
    let ports = [world.port(0, "web"), world.port(0, "store")];
    let load = [Wrk::at(ports[0]), Wrk::at(world.port(0, "talk"))];
    let (over, downloads) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let downloader = scope.spawn(|| {
            let mut failures = Vec::new();
            while !over.load(Ordering::SeqCst) {
                match download(ports[0]) {
                    // The head is a little more.
                    Ok(count) if count > BIG => drop(downloads.fetch_add(1, Ordering::SeqCst)),
                    Ok(count) => failures.push(format!("cut off after {count} bytes")),
                    Err(error) => failures.push(error.to_string()),
                }
            }
            failures
        });
        let ((), pages) = world.clients(&ports[1..], || {
            for number in 0..DEPLOYMENTS {
                let mut idle: Vec<TcpStream> =
                    (0..IDLE).map(|_| TcpStream::connect(("127.0.0.1", ports[0])).unwrap()).collect();
                world.page(&format!("release{number}"));
                world.rdeploy(["up", "--drain", "600ms"]).succeeds();
                assert_eq!(get(ports[0]).unwrap(), format!("release{number}"));
                for stream in &mut idle {
                    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                    // An end, and no reset.
                    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "deployment {number}");
                }
            }
        });
        over.store(true, Ordering::SeqCst);
        assert_eq!(downloader.join().unwrap(), Vec::<String>::new());
        for answers in &pages {
            let failed: Vec<&String> = answers.iter().filter(|page| page.starts_with("FAILED")).collect();
            assert!(failed.is_empty() && answers.len() > DEPLOYMENTS, "{failed:?} of {}", answers.len());
        }
    });
    assert!(downloads.load(Ordering::SeqCst) > 10, "{downloads:?} downloads");
    let answers = load.map(Wrk::stop);
    assert!(answers.iter().all(|count| *count > 100), "{answers:?}");
}

#[test]
fn whoever_comes_by_ipv6_waits_for_a_service_that_stops_first() {
    let world = World::new(
        1,
        "
services:
  store: {build: ., command: [httpd, -f, -p, '[::]:80', -h, /www], ports: ['80'], volumes: ['data:/data'], stop_grace_period: 1s}
networks: {default: {enable_ipv6: true}}
volumes: {data: {}}
",
    );
    world.rdeploy(["up"]).succeeds();
    let container = world.engine(0).container("p-store-1").unwrap();
    let mut gateways = container.endpoints[0].addresses.iter().filter_map(|entry| entry.gateway);
    let gateway = gateways.find(std::net::IpAddr::is_ipv6).unwrap();
    let port = container.ports.iter().find(|port| port.host_ip.is_ipv6()).unwrap().host_port;
    let address = (gateway, port).into();
    assert_eq!(get_at(address).unwrap(), "one");
    let over = AtomicBool::new(false);
    let answers = std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut answers = Vec::new();
            while !over.load(Ordering::SeqCst) {
                answers.push(get_at(address).unwrap_or_else(|error| format!("FAILED: {error}")));
            }
            answers
        });
        for number in 0..3 {
            world.page(&format!("release{number}"));
            world.rdeploy(["up", "--drain", "0s"]).succeeds();
        }
        over.store(true, Ordering::SeqCst);
        client.join().unwrap()
    });
    let failed: Vec<&String> = answers.iter().filter(|page| page.starts_with("FAILED")).collect();
    let (count, all) = (failed.len(), answers.len());
    assert!(count == 0 && all > 3, "{count} of {all}, first {:?}", failed.first());
    assert_eq!(get_at(address).unwrap(), "release2");
}
