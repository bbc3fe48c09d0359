//! Addresses of IPv6 on `lo` of this process's network namespace, for those who must be called at one of their own.

use std::io;
use std::net::Ipv6Addr;

use crate::sys::netlink::{Batch, CREATE, Socket};

/// Whether what this namespace calls may be called from such an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// As from any other one.
    Usual,
    /// Never: it is deprecated (RFC 4862 section 5.5.4).
    Never,
}

// linux/rtnetlink.h, linux/if_link.h and linux/if_addr.h
const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const ADDRESS_ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;
const ADDRESS_LIFETIMES: u16 = 6;
const NO_DUPLICATES: u8 = 2;
const REPLACE: u16 = 0x100;
const UP: u32 = 1;
/// Seconds, in `ifa_cacheinfo`.
const NEVER_PREFERRED: u32 = 0;
const VALID_FOR_EVER: u32 = u32::MAX;
/// `lo` is the first link of every network namespace.
const LOOPBACK: u32 = 1;
const FAMILY_IPV6: u8 = 10;

/// Brings `lo` up; one that is up is fine.
pub(crate) fn bring_up() -> io::Result<()> {
    change(|batch| {
        let mut header = vec![0; 4];
        for word in [LOOPBACK, UP, UP] {
            header.extend_from_slice(&word.to_ne_bytes());
        }
        batch.message("bring up lo", NEW_LINK, 0, &header);
    })
}

/// Gives `lo` an address that packets can leave a link with, unlike ::1; one that it has already is fine.
///
/// # Errors
/// When the kernel refuses, as one without IPv6 does.
pub(crate) fn lend(address: Ipv6Addr, source: Source) -> io::Result<()> {
    change(|batch| {
        let step = format!("lend {address} to lo");
        batch.message(step, NEW_ADDRESS, CREATE | REPLACE, &header(NO_DUPLICATES));
        batch.attribute(ADDRESS_LOCAL, &address.octets()).attribute(ADDRESS_ADDRESS, &address.octets());
        if source == Source::Never {
            let lifetimes = [NEVER_PREFERRED, VALID_FOR_EVER, 0, 0].map(u32::to_ne_bytes).concat();
            batch.attribute(ADDRESS_LIFETIMES, &lifetimes);
        }
    })
}

/// Takes it away again; one that is not there is fine.
pub(crate) fn take(address: Ipv6Addr) -> io::Result<()> {
    change(|batch| {
        batch.message(format!("take {address} from lo"), DELETE_ADDRESS, 0, &header(0)).tolerated();
        batch.attribute(ADDRESS_LOCAL, &address.octets()).attribute(ADDRESS_ADDRESS, &address.octets());
    })
}

fn change(change: impl FnOnce(&mut Batch)) -> io::Result<()> {
    let socket = Socket::route()?;
    let mut batch = Batch::new();
    change(&mut batch);
    socket.run(batch).map_err(|refusal| refusal.errno.into())
}

/// `ifaddrmsg`: family, prefix length, flags, scope and link.
fn header(flags: u8) -> Vec<u8> {
    [&[FAMILY_IPV6, 128, flags, 0][..], &LOOPBACK.to_ne_bytes()].concat()
}
