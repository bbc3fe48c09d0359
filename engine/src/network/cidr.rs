//! Address ranges in CIDR form. Pure arithmetic on both families.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A range of addresses, `172.18.0.0/16`. The bits behind the prefix are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    first: IpAddr,
    prefix: u8,
}

/// Why a text is no address range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid address range {0:?}: an address and a prefix length are needed, as in 172.30.0.0/16")]
pub struct ParseCidrError(String);

// === impl Cidr ===

impl Cidr {
    /// The range of this prefix length that the address lies in; `None` when the length is too long.
    pub fn around(address: IpAddr, prefix: u8) -> Option<Self> {
        let width = width(&address);
        if prefix > width {
            return None;
        }
        let host_bits = host_mask(width, prefix);
        Some(Self { first: from_number(number(address) & !host_bits, address.is_ipv4()), prefix })
    }

    /// The first address, which names the range.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// The last address: the broadcast address of an IPv4 subnet.
    pub fn last(&self) -> IpAddr {
        from_number(number(self.first) | host_mask(width(&self.first), self.prefix), self.is_ipv4())
    }

    /// The prefix length.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether it is a range of IPv4.
    pub fn is_ipv4(&self) -> bool {
        self.first.is_ipv4()
    }

    /// How many addresses it has, as far as that can be counted.
    pub fn size(&self) -> u128 {
        host_mask(width(&self.first), self.prefix).saturating_add(1)
    }

    /// The address this far behind the first one; `None` outside.
    pub fn nth(&self, offset: u128) -> Option<IpAddr> {
        (offset < self.size()).then(|| from_number(number(self.first) + offset, self.is_ipv4()))
    }

    /// How far the address lies behind the first one; `None` outside.
    pub fn offset(&self, address: IpAddr) -> Option<u128> {
        self.contains(address).then(|| number(address) - number(self.first))
    }

    /// Whether the address lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        Self::around(address, self.prefix)
            .is_some_and(|range| range == *self && address.is_ipv4() == self.is_ipv4())
    }

    /// Whether every address of the other range lies in it.
    pub fn covers(&self, other: &Self) -> bool {
        self.prefix <= other.prefix && self.contains(other.first)
    }

    /// Whether the two share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// The ranges of this longer prefix it consists of, in order.
    pub fn split(self, prefix: u8) -> impl Iterator<Item = Self> {
        let width = width(&self.first);
        let count =
            if prefix < self.prefix || prefix > width { 0 } else { 1u128 << u32::from(prefix - self.prefix) };
        let step = host_mask(width, prefix.min(width)).saturating_add(1);
        (0..count).filter_map(move |turn| self.nth(turn * step).map(|first| Self { first, prefix }))
    }
}

impl FromStr for Cidr {
    type Err = ParseCidrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || ParseCidrError(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(refuse)?;
        let address: IpAddr = address.parse().map_err(|_| refuse())?;
        let prefix = prefix.parse().map_err(|_| refuse())?;
        Self::around(address, prefix).ok_or_else(refuse)
    }
}

impl TryFrom<String> for Cidr {
    type Error = ParseCidrError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(range: Cidr) -> Self {
        range.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

fn width(address: &IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn host_mask(width: u8, prefix: u8) -> u128 {
    let bits = u32::from(width - prefix);
    if bits == 128 { u128::MAX } else { (1u128 << bits) - 1 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn from_number(number: u128, is_ipv4: bool) -> IpAddr {
    if is_ipv4 {
        // The arithmetic above never leaves the 32 bits it started from.
        IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)))
    } else {
        IpAddr::V6(Ipv6Addr::from_bits(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn a_range_knows_its_ends() {
        let net = range("172.18.3.4/16");
        assert_eq!(net.to_string(), "172.18.0.0/16");
        assert_eq!(net.last().to_string(), "172.18.255.255");
        assert_eq!(net.nth(1).unwrap().to_string(), "172.18.0.1");
        assert_eq!(net.nth(65536), None);
        assert_eq!(net.offset("172.18.1.0".parse().unwrap()), Some(256));
        assert_eq!(net.offset("172.19.1.0".parse().unwrap()), None);
        assert_eq!(range("::/0").last().to_string(), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
    }

    #[test]
    fn overlap_is_symmetric() {
        for (one, other, overlap) in [
            ("10.0.0.0/8", "10.1.0.0/16", true),
            ("10.0.0.0/16", "10.1.0.0/16", false),
            ("fd00::/8", "10.0.0.0/8", false),
            ("fd00::/8", "fd12::/64", true),
            ("0.0.0.0/0", "::/0", false),
        ] {
            assert_eq!(range(one).overlaps(&range(other)), overlap, "{one} {other}");
            assert_eq!(range(other).overlaps(&range(one)), overlap, "{other} {one}");
        }
    }

    #[test]
    fn a_range_splits_into_smaller_ones() {
        let parts: Vec<String> = range("192.168.0.0/16").split(18).map(|part| part.to_string()).collect();
        assert_eq!(parts, ["192.168.0.0/18", "192.168.64.0/18", "192.168.128.0/18", "192.168.192.0/18"]);
        assert_eq!(range("10.0.0.0/16").split(8).count(), 0);
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for wrong in ["", "10.0.0.0", "10.0.0.0/33", "fd00::/129", "10.0.0/8", "a/8", "10.0.0.0/-1"] {
            assert!(wrong.parse::<Cidr>().is_err(), "{wrong:?}");
        }
    }
}
