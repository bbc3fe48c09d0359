//! Which ports the relay carries, and to where. The files of published ports say so; the kernel tells when they change
//! (inotify(7)), and before each look it is asked whether they have.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use crate::network::Networks;
use crate::store;
use crate::sys::readiness;

/// The carried ports of all containers of a root.
pub(super) struct Ports {
    networks: Networks,
    lock: OwnedFd,
    news: AsyncFd<OwnedFd>,
    /// Whether the lock or the directory is gone, which is told once.
    gone: Cell<bool>,
    /// What the files said; nothing when they have changed since.
    known: RefCell<Option<HashMap<(IpAddr, u16), SocketAddr>>>,
}

/// Records are renamed into their place, and removed.
const CHANGES: WatchFlags =
    WatchFlags::MOVED_TO.union(WatchFlags::DELETE).union(WatchFlags::DELETE_SELF).union(WatchFlags::ONLYDIR);
const NEWS: usize = 4096;

// === impl Ports ===

impl Ports {
    /// Begins to watch; `lock` is the relay's own.
    pub(super) fn watch(networks: &Networks, lock: OwnedFd) -> io::Result<Self> {
        let root = &networks.root;
        store::private_directory(&root.port_runs())?;
        let news = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        inotify::add_watch(&news, root.port_runs(), CHANGES)?;
        // A name that is removed changes the file, also one that is open.
        inotify::add_watch(&news, root.relay(), WatchFlags::ATTRIB)?;
        Ok(Self {
            networks: networks.clone(),
            lock,
            news: readiness::of(news)?,
            gone: Cell::new(false),
            known: RefCell::new(None),
        })
    }

    /// Waits until something has changed.
    ///
    /// # Errors
    /// When there is nothing to watch any more.
    pub(super) async fn change(&self) -> io::Result<()> {
        let mut ready = self.news.readable().await?;
        self.hear()?;
        ready.clear_ready();
        Ok(())
    }

    /// Where a connection to this address of the host is led.
    pub(super) fn target(&self, address: IpAddr, port: u16) -> Option<SocketAddr> {
        self.look(|known| {
            let any = IpAddr::from(Ipv6Addr::UNSPECIFIED);
            known.get(&(address, port)).or_else(|| known.get(&(any, port))).copied()
        })
    }

    /// Whether the lock or the directory is gone, and with them whatever was to be carried.
    pub(super) fn are_gone(&self) -> bool {
        self.hear().is_err()
    }

    pub(super) fn are_none(&self) -> bool {
        self.look(HashMap::is_empty)
    }

    fn look<T>(&self, at: impl FnOnce(&HashMap<(IpAddr, u16), SocketAddr>) -> T) -> T {
        // Without a directory there are no ports, which is what is found then.
        let _ = self.hear();
        let mut known = self.known.borrow_mut();
        at(known.get_or_insert_with(|| self.networks.carried_ports().unwrap_or_default()))
    }

    /// Takes note of what has changed.
    fn hear(&self) -> io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); NEWS];
        let mut reader = inotify::Reader::new(self.news.get_ref(), &mut buffer);
        loop {
            match reader.next() {
                Ok(news) => {
                    self.known.replace(None);
                    let events = news.events();
                    // There may be another one of that name already.
                    let unlocked = rustix::fs::fstat(&self.lock).is_ok_and(|lock| lock.st_nlink == 0);
                    if unlocked || events.contains(ReadFlags::IGNORED) {
                        self.gone.set(true);
                    }
                }
                Err(Errno::AGAIN) if self.gone.get() => return Err(io::ErrorKind::NotFound.into()),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
