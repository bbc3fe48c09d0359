//! Twenty releases in a row under load: short connections, long downloads, and connections that say nothing.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::world::{World, get, get_at};

const WEB: &str = "
services:
  web: {build: ., ports: ['80'], depends_on: [store], stop_grace_period: 0s}
  store: {build: ., ports: ['80'], volumes: ['data:/data'], stop_grace_period: 0s}
volumes: {data: {}}
";

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
    world.write("Dockerfile", &dockerfile.replace("COPY page", "COPY big /www/big\nCOPY page"));
    world.rdeploy(["up"]).succeeds();
    let ports = [world.port(0, "web"), world.port(0, "store")];
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
        let ((), pages) = world.clients(&ports, || {
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
}

#[test]
fn whoever_comes_by_ipv6_waits_for_a_service_that_stops_first() {
    let world = World::new(
        1,
        "
services:
  store: {build: ., command: [httpd, -f, -p, '[::]:80', -h, /www], ports: ['80'], volumes: ['data:/data'], stop_grace_period: 0s}
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
