//! What the porter calls in the network namespace is an address of that namespace itself.

use crate::rootless::door::HERE_IPV6;
use crate::sys::loopback::{self, Source};

/// Brings `lo` up, which nobody else does where there is no way out, and gives it an address of IPv6 that packets can
/// leave a link with. Where there is no IPv6, nobody comes by it either.
pub(super) fn prepare() {
    let _ = loopback::bring_up();
    let _ = loopback::lend(HERE_IPV6, Source::Usual);
}
