//! What the porter calls in the network namespace is an address of that namespace itself.

use crate::rootless::door::HERE_IPV6;
use crate::sys::netlink::{Batch, CREATE, Socket};

// linux/rtnetlink.h and linux/if_link.h
const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const ADDRESS_ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;
/// `lo` is the first link of every network namespace.
const LOOPBACK: u32 = 1;
const FAMILY_IPV6: u8 = 10;
const UP: u32 = 1;
const REPLACE: u16 = 0x100;
const NO_DUPLICATES: u8 = 2;

/// Brings `lo` up, which nobody else does where there is no way out, and gives it an address of IPv6 that packets can
/// leave a link with. Where there is no IPv6, nobody comes by it either.
pub(super) fn prepare() {
    let Ok(socket) = Socket::route() else { return };
    let mut batch = Batch::new();
    let mut header = vec![0; 4];
    for word in [LOOPBACK, UP, UP] {
        header.extend_from_slice(&word.to_ne_bytes());
    }
    batch.message("bring up lo", NEW_LINK, 0, &header).tolerated();
    let mut header = vec![FAMILY_IPV6, 128, NO_DUPLICATES, 0];
    header.extend_from_slice(&LOOPBACK.to_ne_bytes());
    batch.message("give lo an address", NEW_ADDRESS, CREATE | REPLACE, &header).tolerated();
    batch.attribute(ADDRESS_LOCAL, &HERE_IPV6.octets()).attribute(ADDRESS_ADDRESS, &HERE_IPV6.octets());
    let _ = socket.run(batch);
}
