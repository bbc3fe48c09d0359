//! Subnets for networks and addresses for endpoints. Pure: it chooses, it never configures a link or writes a file.

use std::net::IpAddr;

use crate::network::cidr::Cidr;
use crate::network::link::UsedRange;
use crate::network::{NetworkError, Subnet};

/// Where subnets come from when none is asked for, and how large each is. The first ones are docker's; the rest of
/// its pool is cut smaller, so that it lasts for 91 networks instead of 31.
const POOLS: [(&str, u8); 14] = [
    ("172.17.0.0/16", 16),
    ("172.18.0.0/16", 16),
    ("172.19.0.0/16", 16),
    ("172.20.0.0/16", 16),
    ("172.21.0.0/16", 16),
    ("172.22.0.0/16", 16),
    ("172.23.0.0/16", 16),
    ("172.24.0.0/16", 16),
    ("172.25.0.0/16", 16),
    ("172.26.0.0/16", 16),
    ("172.27.0.0/16", 16),
    ("172.28.0.0/15", 20),
    ("172.30.0.0/15", 20),
    ("192.168.0.0/16", 20),
];

/// The subnet of a new network's IPv4 side: the first of the pool that nothing uses.
///
/// # Errors
/// When there is none left, naming some of those who use it.
pub(crate) fn choose_subnet(used: &[UsedRange]) -> Result<Cidr, NetworkError> {
    let pool =
        || POOLS.iter().filter_map(|(range, size)| Some(range.parse::<Cidr>().ok()?.split(*size))).flatten();
    if let Some(free) = pool().find(|range| overlapping(range, used).is_none()) {
        return Ok(free);
    }
    let mut users: Vec<&str> =
        pool().filter_map(|range| overlapping(&range, used)).map(|used| used.user.as_str()).collect();
    users.dedup();
    users.truncate(4);
    Err(NetworkError::Conflict(format!(
        "no address range is left for another network: those of the pool are taken by {}, …",
        users.join(", ")
    )))
}

/// The subnet of a new network's IPv6 side: unique local addresses (RFC 4193) made from the network's identity.
pub(crate) fn choose_ula(seed: &[u8; 7]) -> Option<Cidr> {
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..8].copy_from_slice(seed);
    Cidr::around(IpAddr::from(octets), 64)
}

/// A subnet that was asked for, with its gateway decided.
///
/// # Errors
/// When it overlaps with something, or its parts do not lie in it.
pub(crate) fn settle_subnet(asked: &Subnet, used: &[UsedRange]) -> Result<Subnet, NetworkError> {
    let range = asked.cidr;
    // A wider route gives way to a narrower one, so a part of what is behind it may be taken on purpose.
    let narrow: Vec<UsedRange> = used
        .iter()
        .filter(|used| !(used.is_route && used.range.prefix() < range.prefix()))
        .cloned()
        .collect();
    if let Some(culprit) = overlapping(&range, &narrow) {
        return Err(NetworkError::Conflict(format!("the subnet {range} overlaps with {}", culprit.user)));
    }
    if range.size() < 4 {
        return Err(NetworkError::Invalid(format!(
            "the subnet {range} is too small for a gateway and a container"
        )));
    }
    let outside = |what: &str, object: &dyn std::fmt::Display| {
        NetworkError::Invalid(format!("{what} {object} does not lie in the subnet {range}"))
    };
    if let Some(ip_range) = asked.ip_range.filter(|part| !range.covers(part)) {
        return Err(outside("the range", &ip_range));
    }
    if let Some((_, address)) = asked.aux_addresses.iter().find(|(_, address)| !range.contains(**address)) {
        return Err(outside("the auxiliary address", address));
    }
    let gateway = match asked.gateway {
        Some(gateway) if !range.contains(gateway) => return Err(outside("the gateway", &gateway)),
        Some(gateway) => gateway,
        None => first_free_gateway(asked).ok_or_else(|| {
            NetworkError::Conflict(format!("no address of the subnet {range} is left for the gateway"))
        })?,
    };
    Ok(Subnet { gateway: Some(gateway), ..asked.clone() })
}

/// The next address behind the one given last that nobody has, so that a released one is not given again at once.
pub(crate) fn next_address(
    subnet: &Subnet,
    last: Option<IpAddr>,
    is_taken: &dyn Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let pool = subnet.ip_range.unwrap_or(subnet.cidr);
    let size = pool.size();
    let start = last.and_then(|last| pool.offset(last)).map_or(0, |offset| offset + 1);
    (0..size)
        .filter_map(|step| pool.nth((start + step) % size))
        .find(|address| is_usable(subnet, *address) && !is_taken(*address))
}

/// Whether a container may have this address of the subnet.
///
/// # Errors
/// When it may not, saying why.
pub(crate) fn check_address(subnet: &Subnet, address: IpAddr) -> Result<(), NetworkError> {
    if is_usable(subnet, address) {
        return Ok(());
    }
    let range = subnet.cidr;
    let why = if subnet.gateway == Some(address) {
        "it is the gateway's"
    } else if subnet.aux_addresses.values().any(|reserved| *reserved == address) {
        "it is reserved"
    } else {
        "no container can have it"
    };
    Err(NetworkError::Invalid(format!("the address {address} of the subnet {range} cannot be given: {why}")))
}

fn is_usable(subnet: &Subnet, address: IpAddr) -> bool {
    let is_end = address == subnet.cidr.first() || (address.is_ipv4() && address == subnet.cidr.last());
    !is_end
        && subnet.cidr.contains(address)
        && subnet.gateway != Some(address)
        && !subnet.aux_addresses.values().any(|reserved| *reserved == address)
}

fn first_free_gateway(asked: &Subnet) -> Option<IpAddr> {
    next_address(&Subnet { gateway: None, ..asked.clone() }, None, &|_| false)
}

fn overlapping<'a>(range: &Cidr, used: &'a [UsedRange]) -> Option<&'a UsedRange> {
    used.iter().find(|used| used.range.overlaps(range))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn used(range: &str) -> UsedRange {
        UsedRange { range: range.parse().unwrap(), user: format!("the test's {range}"), is_route: false }
    }

    fn subnet(cidr: &str) -> Subnet {
        Subnet { cidr: cidr.parse().unwrap(), gateway: None, ip_range: None, aux_addresses: BTreeMap::new() }
    }

    #[test]
    fn subnets_are_chosen_around_what_is_used() {
        assert_eq!(choose_subnet(&[]).unwrap().to_string(), "172.17.0.0/16");
        let busy = [used("172.17.0.0/16"), used("172.18.5.0/24"), used("172.16.0.0/13")];
        assert_eq!(choose_subnet(&busy).unwrap().to_string(), "172.24.0.0/16");
    }

    #[test]
    fn the_pool_lasts_for_91_networks_and_then_names_who_has_it() {
        let mut taken = Vec::new();
        while let Ok(range) = choose_subnet(&taken) {
            assert!(!taken.iter().any(|used: &UsedRange| used.range.overlaps(&range)));
            taken.push(used(&range.to_string()));
        }
        assert_eq!(taken.len(), 91);
        let text = choose_subnet(&taken).unwrap_err().to_string();
        assert!(text.contains("the test's 172.17.0.0/16, the test's 172.18.0.0/16"), "{text}");
    }

    #[test]
    fn a_wanted_subnet_must_make_sense() {
        let settle =
            |subnet: &Subnet| settle_subnet(subnet, &[used("10.1.0.0/16")]).map_err(|e| e.to_string());
        let settled = settle(&subnet("10.2.0.0/16")).unwrap();
        assert_eq!(settled.gateway, Some("10.2.0.1".parse().unwrap()));
        let ranged = Subnet { ip_range: Some("10.2.5.0/24".parse().unwrap()), ..subnet("10.2.0.0/16") };
        assert_eq!(settle(&ranged).unwrap().gateway, Some("10.2.5.0".parse().unwrap()));
        assert_eq!(
            settle(&subnet("10.1.2.0/24")).unwrap_err(),
            "the subnet 10.1.2.0/24 overlaps with the test's 10.1.0.0/16"
        );
        let outside = Subnet { gateway: Some("10.3.0.1".parse().unwrap()), ..subnet("10.2.0.0/16") };
        assert_eq!(
            settle(&outside).unwrap_err(),
            "the gateway 10.3.0.1 does not lie in the subnet 10.2.0.0/16"
        );
        assert!(settle(&subnet("10.2.0.0/31")).is_err());
        let vpn = UsedRange { is_route: true, ..used("10.0.0.0/8") };
        assert!(settle_subnet(&subnet("10.2.0.0/16"), std::slice::from_ref(&vpn)).is_ok());
        assert!(settle_subnet(&subnet("10.0.0.0/8"), &[vpn]).is_err());
    }

    #[test]
    fn addresses_come_round_and_a_released_one_waits() {
        let mut net = settle_subnet(&subnet("10.2.0.0/29"), &[]).unwrap();
        net.aux_addresses.insert("router".to_owned(), "10.2.0.3".parse().unwrap());
        let next = |last: &str, taken: &[&str]| {
            next_address(&net, last.parse().ok(), &|address| taken.contains(&address.to_string().as_str()))
                .map(|address| address.to_string())
        };
        assert_eq!(next("", &[]).as_deref(), Some("10.2.0.2"));
        assert_eq!(next("10.2.0.2", &[]).as_deref(), Some("10.2.0.4"));
        assert_eq!(next("10.2.0.6", &[]).as_deref(), Some("10.2.0.2"));
        assert_eq!(next("10.2.0.4", &["10.2.0.5", "10.2.0.6"]).as_deref(), Some("10.2.0.2"));
        assert_eq!(next("", &["10.2.0.2", "10.2.0.4", "10.2.0.5", "10.2.0.6"]), None);
    }

    #[test]
    fn an_address_that_cannot_be_given_says_why() {
        let net = settle_subnet(&subnet("10.2.0.0/24"), &[]).unwrap();
        assert!(check_address(&net, "10.2.0.9".parse().unwrap()).is_ok());
        for (address, why) in
            [("10.2.0.1", "the gateway's"), ("10.2.0.255", "no container"), ("10.2.0.0", "no container")]
        {
            let text = check_address(&net, address.parse().unwrap()).unwrap_err().to_string();
            assert!(text.contains(why), "{text}");
        }
    }
}
