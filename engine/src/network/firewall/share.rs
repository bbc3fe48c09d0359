//! A part of the new connections to published ports that is led elsewhere than the rest: a table of its own, asked
//! before the root's, that is there only as long as anything is shared.

use super::{
    Entry, FORMS, Forward, PRIORITY_DESTINATION_NAT, add_entrance, add_publish_rules, change, forward_entry,
    forward_of, refused,
};
use serde::{Deserialize, Serialize};

use crate::network::NetworkError;
use crate::network::nft::{
    self, Chain, Change, DataType, Element, Expression, Field, Hook, Place, Register, SetForm, Transaction,
};
use crate::quantity::Percent;

/// By what it is decided which connections are led elsewhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Draw {
    /// By chance, for each connection anew.
    #[default]
    Connection,
    /// By the address of who connects: always the same for the same one, and for a greater part whoever is in a smaller one.
    Sender,
}

/// So many of a hundred new connections to a published port, and where they go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) forward: Forward,
    pub(crate) percent: Percent,
}

/// The table of what is shared in a root, by one way to draw.
#[derive(Debug)]
pub(crate) struct ShareTable {
    name: String,
    draw: Draw,
}

/// Before the root's own table.
const PRIORITY: i32 = PRIORITY_DESTINATION_NAT - 1;

/// One element a hundredth.
pub(super) const WHOLE: u32 = 100;

const HUNDREDTH: DataType = DataType::Mark;
const SHARED_4: SetForm = SetForm {
    name: "shared4",
    key: &[HUNDREDTH, DataType::Protocol, DataType::Port],
    value: &[DataType::Ipv4, DataType::Port],
    ranges: false,
};
const SHARED_6: SetForm = SetForm {
    name: "shared6",
    key: &[HUNDREDTH, DataType::Protocol, DataType::Port],
    value: &[DataType::Ipv6, DataType::Port],
    ranges: false,
};
const SHARED_BOUND_4: SetForm = SetForm {
    name: "shared_bound4",
    key: &[DataType::Ipv4, HUNDREDTH, DataType::Protocol, DataType::Port],
    value: &[DataType::Ipv4, DataType::Port],
    ranges: false,
};
const SHARED_BOUND_6: SetForm = SetForm {
    name: "shared_bound6",
    key: &[DataType::Ipv6, HUNDREDTH, DataType::Protocol, DataType::Port],
    value: &[DataType::Ipv6, DataType::Port],
    ranges: false,
};

/// Each map with the one of the root's table that it stands before, and where the hundredth is in its keys.
static SHARED: [(&SetForm, &str, usize); 4] = [
    (&SHARED_4, "ports4", 0),
    (&SHARED_6, "ports6", 0),
    (&SHARED_BOUND_4, "bound4", 4),
    (&SHARED_BOUND_6, "bound6", 16),
];

// === impl ShareTable ===

impl ShareTable {
    /// Those of the root whose own table has this name, whether they exist or not.
    pub(crate) fn beside(table: &str) -> [Self; 2] {
        [(Draw::Connection, "shares"), (Draw::Sender, "shares-by-sender")]
            .map(|(draw, name)| Self { name: format!("{table}-{name}"), draw })
    }

    /// How it is drawn here.
    pub(crate) fn draw(&self) -> Draw {
        self.draw
    }

    /// What is shared.
    pub(crate) fn shares(&self) -> Result<Vec<Share>, NetworkError> {
        let mut shares: Vec<(Forward, u8)> = Vec::new();
        for (form, plain, at) in &SHARED {
            let elements = nft::elements(&self.name, form.name).map_err(|refusal| self.refused(&refusal))?;
            let Some(plain) = FORMS.into_iter().find(|form| form.name == *plain) else { continue };
            for element in elements {
                let Some(forward) = forward_of(plain, &without_hundredth(element, *at)) else { continue };
                match shares.iter_mut().find(|(known, _)| *known == forward) {
                    Some((_, count)) => *count += 1,
                    None => shares.push((forward, 1)),
                }
            }
        }
        let share = |(forward, count)| Some(Share { forward, percent: Percent::new(count)? });
        Ok(shares.into_iter().filter_map(share).collect())
    }

    /// Shares this and nothing else, in one transaction. The table goes with the last share.
    pub(crate) fn set(&self, shares: &[Share]) -> Result<(), NetworkError> {
        let mut transaction = Transaction::new();
        // The first of the two makes sure that there is something for the second one to remove.
        transaction.push(Change::Table);
        transaction.push(Change::NoTable);
        if !shares.is_empty() {
            transaction.push(Change::Table);
            SHARED.iter().for_each(|(form, ..)| transaction.push(Change::Set(form)));
            self.add_chains(&mut transaction);
            let entries: Vec<Entry> = shares.iter().filter_map(entry).collect();
            change(&mut transaction, SHARED.iter().map(|(form, ..)| *form), &entries, Change::Add);
        }
        transaction.commit(&self.name).map_err(|refusal| self.refused(&refusal))
    }

    fn add_chains(&self, transaction: &mut Transaction) {
        transaction.push(Change::Chain(Chain { name: "publish", hook: None }));
        for (name, place) in [("prerouting", Place::Prerouting), ("output", Place::Output)] {
            let hook = Some(Hook { kind: "nat", place, priority: PRIORITY });
            transaction.push(Change::Chain(Chain { name, hook }));
        }
        add_entrance(transaction);
        let maps = [[SHARED_BOUND_4.name, SHARED_4.name], [SHARED_BOUND_6.name, SHARED_6.name]];
        add_publish_rules(transaction, Some(self.draw), maps);
    }

    fn refused(&self, refusal: &crate::sys::netlink::Refusal) -> NetworkError {
        refused(&self.name, refusal)
    }
}

// === impl Draw ===

impl Draw {
    /// Draws a number below this one; `sender` is where a packet says who sends it.
    pub(super) fn below(self, whole: u32, sender: Field, register: Register) -> Expression {
        match self {
            Self::Connection => Expression::Random(whole, register),
            Self::Sender => Expression::Hash(sender, whole, register),
        }
    }
}

/// As many elements as hundredths, for the same port.
fn entry(share: &Share) -> Option<Entry> {
    let plain = forward_entry(&share.forward);
    let (form, _, at) = SHARED.iter().find(|(_, name, _)| *name == plain.set)?;
    let element = plain.elements.first()?;
    let hundredths = 0..u32::from(share.percent.get());
    let elements = hundredths.map(|hundredth| with_hundredth(element.clone(), *at, hundredth)).collect();
    Some(Entry { set: form.name, elements })
}

fn with_hundredth(mut element: Element, at: usize, hundredth: u32) -> Element {
    // As the kernel's random numbers are: in the host's order.
    element.key.splice(at..at, hundredth.to_ne_bytes());
    element
}

fn without_hundredth(mut element: Element, at: usize) -> Element {
    if element.key.len() >= at + 4 {
        element.key.drain(at..at + 4);
    }
    element
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::spec::Protocol;

    #[test]
    fn a_share_is_one_element_a_hundredth_before_the_same_port() {
        let forward = |host: &str, target: &str| {
            let host: std::net::SocketAddr = host.parse().unwrap();
            Forward {
                host_ip: host.ip(),
                host_port: host.port(),
                protocol: Protocol::Tcp,
                target: target.parse().unwrap(),
                owner: "0123456789ab web".to_owned(),
            }
        };
        for (host, target, set) in [
            ("0.0.0.0:80", "172.18.0.2:8080", "shared4"),
            ("127.0.0.1:80", "172.18.0.2:8080", "shared_bound4"),
            ("[::]:80", "[fd00::2]:8080", "shared6"),
            ("[fd12::1]:80", "[fd00::2]:8080", "shared_bound6"),
        ] {
            let share = Share { forward: forward(host, target), percent: Percent::new(30).unwrap() };
            let entry = entry(&share).unwrap();
            assert_eq!((entry.set, entry.elements.len()), (set, 30));
            let (_, plain, at) = SHARED.iter().find(|(form, ..)| form.name == set).unwrap();
            let plain = FORMS.into_iter().find(|form| form.name == *plain).unwrap();
            for element in entry.elements {
                assert_eq!(forward_of(plain, &without_hundredth(element, *at)), Some(share.forward.clone()));
            }
        }
    }
}
