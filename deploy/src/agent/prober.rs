//! How long nobody was served: connects to every published port again and again while who answers changes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use engine::container::spec::Protocol;
use engine::network::PublishedPort;

/// Watches ports until it is asked what it saw.
pub(crate) struct Prober {
    over: Arc<AtomicBool>,
    watches: Vec<JoinHandle<Duration>>,
}

/// How often a port is tried.
const PAUSE: Duration = Duration::from_millis(20);

/// How long one try may take.
const PATIENCE: Duration = Duration::from_secs(1);

impl Prober {
    /// Begins to watch the TCP ports among these that accept connections now.
    pub(crate) fn start(ports: &[PublishedPort]) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let mut addresses: Vec<SocketAddr> = ports
            .iter()
            .filter(|port| port.container.protocol == Protocol::Tcp)
            .map(|port| SocketAddr::new(reachable(port.host_ip), port.host_port))
            .filter(accepts)
            .collect();
        addresses.sort();
        addresses.dedup();
        let watch = |address: SocketAddr| {
            let over = over.clone();
            std::thread::Builder::new().name("prober".to_owned()).spawn(move || longest_gap(address, &over))
        };
        let watches = addresses.into_iter().filter_map(|address| watch(address).ok()).collect();
        Self { over, watches }
    }

    /// The longest time within which a port accepted no connection; `None` when there was no port to watch.
    pub(crate) fn finish(self) -> Option<Duration> {
        self.over.store(true, Ordering::SeqCst);
        self.watches.into_iter().filter_map(|watch| watch.join().ok()).max()
    }
}

fn longest_gap(address: SocketAddr, over: &AtomicBool) -> Duration {
    let mut longest = Duration::ZERO;
    let mut refused_since: Option<Instant> = None;
    loop {
        let began = Instant::now();
        let is_over = over.load(Ordering::SeqCst);
        if accepts(&address) {
            if let Some(since) = refused_since.take() {
                longest = longest.max(since.elapsed());
            }
        } else {
            refused_since.get_or_insert(began);
        }
        if is_over {
            return refused_since.map_or(longest, |since| longest.max(since.elapsed()));
        }
        std::thread::sleep(PAUSE);
    }
}

fn accepts(address: &SocketAddr) -> bool {
    TcpStream::connect_timeout(address, PATIENCE).is_ok()
}

fn reachable(host: IpAddr) -> IpAddr {
    match host {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_port_that_closes_and_opens_again_was_down_for_as_long() {
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = open.local_addr().unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let watch = scope.spawn(|| longest_gap(address, &over));
            drop(open);
            // The time for which nobody accepts is what is measured; it is long for who is late to watch.
            std::thread::sleep(Duration::from_millis(600));
            let again = TcpListener::bind(address).unwrap();
            over.store(true, Ordering::SeqCst);
            let gap = watch.join().unwrap();
            assert!(gap >= Duration::from_millis(100), "{gap:?}");
            drop(again);
        });
    }
}
