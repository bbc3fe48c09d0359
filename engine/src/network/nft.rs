//! Rules of nf_tables as values, and their encoding into one transaction. What the rules are for is decided by
//! those who build them.

use std::io;

use crate::sys::filter::{Filter, Wanted};
use crate::sys::netlink::{APPEND, Answer, Attributes, Batch, CREATE, DUMP, Ear, Refusal, ask_netfilter};

/// A change of one table; everything in it happens at once, or nothing does.
#[derive(Debug, Clone, Default)]
pub(crate) struct Transaction {
    changes: Vec<Change>,
}

/// One step of a transaction.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// Makes the table unless it is there.
    Table,
    /// Takes the table away, which must be there.
    NoTable,
    /// Makes a set or a map.
    Set(&'static SetForm),
    /// Makes a chain.
    Chain(Chain),
    /// Appends a rule to a chain.
    Rule(&'static str, Vec<Expression>),
    /// Adds elements to a set or a map.
    Add(&'static str, Vec<Element>),
    /// Removes elements, which must be there.
    Remove(&'static str, Vec<Element>),
}

/// What a set or a map holds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SetForm {
    /// Its name.
    pub(crate) name: &'static str,
    /// The parts of its keys.
    pub(crate) key: &'static [DataType],
    /// The parts of its values; empty for a set.
    pub(crate) value: &'static [DataType],
    /// Whether its keys are ranges.
    pub(crate) ranges: bool,
}

/// A kind of data, with the number that nft(8) shows it by (libnftables, `enum datatypes`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DataType {
    /// An address of IPv4.
    Ipv4,
    /// An address of IPv6.
    Ipv6,
    /// A transport protocol.
    Protocol,
    /// A port.
    Port,
    /// The name of a link.
    LinkName,
    /// A number in the host's order.
    Mark,
}

/// A chain, on a hook or to jump to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chain {
    /// Its name.
    pub(crate) name: &'static str,
    /// Where packets enter it by themselves.
    pub(crate) hook: Option<Hook>,
}

/// Where packets enter a chain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hook {
    /// `filter` or `nat`.
    pub(crate) kind: &'static str,
    /// The place on a packet's way.
    pub(crate) place: Place,
    /// Lower ones come first.
    pub(crate) priority: i32,
}

/// A place on a packet's way.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    /// It has come in.
    Prerouting = 0,
    /// It is for this host.
    Input = 1,
    /// It is for another one.
    Forward = 2,
    /// This host made it.
    Output = 3,
    /// It is about to leave.
    Postrouting = 4,
}

/// An element of a set or a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Element {
    /// Its key; the parts padded to four bytes each.
    pub(crate) key: Vec<u8>,
    /// Its value, padded in the same way.
    pub(crate) value: Option<Vec<u8>>,
    /// Whether a range ends before this key.
    pub(crate) ends_range: bool,
    /// What nft(8) shows behind it.
    pub(crate) comment: Option<String>,
}

/// A register, numbered as the kernel does: four of 16 bytes, which are also sixteen of 4 bytes.
pub(crate) type Register = u32;

/// The first 16 bytes.
pub(crate) const REGISTER: Register = 1;
/// The second 16 bytes.
pub(crate) const REGISTER_2: Register = 2;
/// The last 16 bytes.
const REGISTER_4: Register = 4;
/// The second 4 bytes of the first register.
pub(crate) const WORD_1: Register = 9;
/// The third 4 bytes of the first register.
pub(crate) const WORD_2: Register = 10;
/// The last 4 bytes of the first register.
pub(crate) const WORD_3: Register = 11;
/// The second 4 bytes of the second register.
pub(crate) const WORD_5: Register = 13;
/// The third 4 bytes of the second register.
pub(crate) const WORD_6: Register = 14;

/// One step of a rule. The rule ends where a comparison fails.
#[derive(Debug, Clone)]
pub(crate) enum Expression {
    /// Loads something known about the packet.
    Meta(Meta, Register),
    /// Loads a field of the packet.
    Load(Field, Register),
    /// Draws a number below this one.
    Random(u32, Register),
    /// Makes a number below this one of the value of a field: always the same one of the same value. The field is loaded
    /// into the last register.
    Hash(Field, u32, Register),
    /// Goes on if the register begins with these bytes.
    Equal(Register, Vec<u8>),
    /// Goes on if it does not.
    Differs(Register, Vec<u8>),
    /// Goes on if the register's value is in the set.
    In(Register, &'static str),
    /// Goes on if it is not.
    NotIn(Register, &'static str),
    /// Goes on if the register's value is in the map, with the value found there in the same register.
    Map(Register, &'static str),
    /// Goes on if one of these bits of the connection's state is set.
    ConnectionState(u32),
    /// Goes on if one of these bits of the connection's status is set.
    ConnectionStatus(u32),
    /// Goes on if the destination is an address of this host.
    DestinationIsLocal,
    /// Overwrites a port in the transport header.
    SetPort(PortField, u8, u16),
    /// Leads the connection to the address and the port in these registers, of this family.
    DestinationNat(u8, Register, Register),
    /// Gives the connection the address of the link it leaves by.
    Masquerade,
    /// What becomes of the packet.
    Verdict(Verdict),
}

/// Something known about a packet.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Meta {
    /// The name of the link it came in by.
    LinkIn = 6,
    /// The name of the link it leaves by.
    LinkOut = 7,
    /// Its family.
    Family = 15,
    /// Its transport protocol.
    Protocol = 16,
}

/// A field of a packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    base: u32,
    offset: u32,
    length: u32,
}

/// One of the two ports.
#[derive(Debug, Clone, Copy)]
pub(crate) enum PortField {
    /// The sender's.
    Source = 0,
    /// The receiver's.
    Destination = 2,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verdict {
    /// It ends here.
    Drop,
    /// This table has nothing against it.
    Accept,
    /// The rest of the chain does not concern it.
    Return,
    /// This chain decides, and the next rule if it does not.
    Jump(&'static str),
}

/// IPv4, as netfilter numbers it.
pub(crate) const FAMILY_IPV4: u8 = 2;
/// IPv6, as netfilter numbers it.
pub(crate) const FAMILY_IPV6: u8 = 10;
/// TCP.
pub(crate) const TCP: u8 = 6;
/// UDP.
pub(crate) const UDP: u8 = 17;

/// Fields of the headers.
impl Field {
    /// The first byte of the receiver's IPv4 address.
    pub(crate) const IPV4_RECEIVER_NET: Self = Self { base: 1, offset: 16, length: 1 };
    /// The first byte of the sender's IPv4 address.
    pub(crate) const IPV4_SENDER_NET: Self = Self { base: 1, offset: 12, length: 1 };
    /// The sender's IPv4 address.
    pub(crate) const IPV4_SENDER: Self = Self { base: 1, offset: 12, length: 4 };
    /// The receiver's IPv4 address.
    pub(crate) const IPV4_RECEIVER: Self = Self { base: 1, offset: 16, length: 4 };
    /// The sender's IPv6 address.
    pub(crate) const IPV6_SENDER: Self = Self { base: 1, offset: 8, length: 16 };
    /// The receiver's IPv6 address.
    pub(crate) const IPV6_RECEIVER: Self = Self { base: 1, offset: 24, length: 16 };

    /// A port in the transport header.
    pub(crate) const fn port(field: PortField) -> Self {
        Self { base: TRANSPORT_HEADER, offset: field as u32, length: 2 }
    }
}

const FAMILY_INET: u8 = 1;
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const GET_CHAIN: u16 = 4;
const DELETE_CHAIN: u16 = 5;
const NEW_RULE: u16 = 6;
const GET_RULE: u16 = 7;
const DELETE_RULE: u16 = 8;
const NEW_SET: u16 = 9;
const DELETE_SET: u16 = 11;
const NEW_ELEMENTS: u16 = 12;
const GET_ELEMENTS: u16 = 13;
const DELETE_ELEMENTS: u16 = 14;
/// `NFNLGRP_NFTABLES` as a bit.
const GROUP: u32 = 1 << 6;
/// Where a message has its type, and its first attribute, which is the name of the table: its length and its text.
const TYPE: u32 = 4;
const TABLE_NAME_LENGTH: u32 = 20;
const TABLE_NAME: u32 = 24;
const NET_HEADER: usize = 4;
const SET_OF_RANGES: u32 = 4;
const SET_IS_MAP: u32 = 8;
const ENDS_RANGE: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
/// A number is drawn anew each time (`NFT_NG_RANDOM`).
const DRAWN: u32 = 1;

/// `NFT_HASH_JENKINS`, and what it starts from.
const JENKINS: u32 = 0;
const SEED: u32 = 0x9e37_79b9;
/// An attribute's length has 16 bits; a message with more elements than this is continued in another one.
const FULL_MESSAGE: usize = 48 * 1024;
/// What the kernel keeps as user data of an element, less its header and the NUL.
const COMMENT_LIMIT: usize = 128;

/// Reads the names of the tables of the family `inet`.
pub(crate) fn tables() -> Result<Vec<String>, Refusal> {
    let mut batch = Batch::new();
    batch.message("list tables", kind(GET_TABLE), DUMP, &header(0));
    let answers = ask_netfilter(batch)?;
    Ok(answers
        .iter()
        .filter(|answer| answer.kind == kind(NEW_TABLE))
        .filter_map(|answer| Attributes::behind(&answer.body, NET_HEADER).text(1).map(str::to_owned))
        .collect())
}

/// Whether the table has a chain of this name.
pub(crate) fn has_chain(table: &str, chain: &str) -> Result<bool, Refusal> {
    let mut batch = Batch::new();
    batch.message("look for the chain", kind(GET_CHAIN), 0, &header(0)).text(1, table).text(3, chain);
    match ask_netfilter(batch) {
        Ok(answers) => Ok(!answers.is_empty()),
        Err(refusal) if refusal.errno == rustix::io::Errno::NOENT => Ok(false),
        Err(refusal) => Err(refusal),
    }
}

/// How many rules the table has.
pub(crate) fn count_rules(table: &str) -> Result<usize, Refusal> {
    let mut batch = Batch::new();
    batch.message("list rules", kind(GET_RULE), DUMP, &header(0)).text(1, table);
    let answers = ask_netfilter(batch)?;
    Ok(answers.iter().filter(|answer| answer.kind == kind(NEW_RULE)).count())
}

/// Hears of rules, chains and sets that are removed from this table, and of its own removal, in the network namespace
/// of the calling thread. Several are told of in one message, of which only the beginning is looked at.
pub(crate) fn hear_of_removals(table: &str) -> io::Result<Ear> {
    let mut name = table.as_bytes().to_vec();
    name.push(0);
    let length = u16::try_from(name.len() + 4).unwrap_or(u16::MAX);
    let filter = Filter {
        every: vec![Wanted::Half(TABLE_NAME_LENGTH, length), Wanted::Bytes(TABLE_NAME, name)],
        any: [DELETE_RULE, DELETE_CHAIN, DELETE_SET, DELETE_TABLE]
            .map(|message| Wanted::Half(TYPE, kind(message)))
            .into(),
    };
    Ear::netfilter(GROUP, &filter)
}

/// Reads the elements of a set or a map; none when it does not exist.
pub(crate) fn elements(table: &str, set: &str) -> Result<Vec<Element>, Refusal> {
    let mut batch = Batch::new();
    batch.message("list elements", kind(GET_ELEMENTS), DUMP, &header(0)).text(1, table).text(2, set);
    let answers = match ask_netfilter(batch) {
        Err(refusal) if refusal.errno == rustix::io::Errno::NOENT => return Ok(Vec::new()),
        answers => answers?,
    };
    Ok(answers.iter().flat_map(elements_of).collect())
}

// === impl Transaction ===

impl Transaction {
    /// Nothing to do yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a step.
    pub(crate) fn push(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// Adds a rule at the end of a chain.
    pub(crate) fn rule(&mut self, chain: &'static str, expressions: Vec<Expression>) {
        self.push(Change::Rule(chain, expressions));
    }

    /// How many steps it has.
    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether it would change nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Makes it happen in the network namespace of the calling thread.
    pub(crate) fn commit(&self, table: &str) -> Result<(), Refusal> {
        if self.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        batch.message("begin", BATCH_BEGIN, 0, &header(SUBSYSTEM));
        for (number, change) in (1u32..).zip(&self.changes) {
            change.encode(&mut batch, table, number);
        }
        batch.acknowledged();
        batch.message("commit", BATCH_END, 0, &header(SUBSYSTEM));
        ask_netfilter(batch).map(drop)
    }
}

// === impl Change ===

impl Change {
    fn encode(&self, batch: &mut Batch, table: &str, number: u32) {
        match self {
            Self::Table => {
                batch.message("make the table", kind(NEW_TABLE), CREATE, &header(0)).text(1, table);
            }
            Self::NoTable => {
                batch.message("remove the table", kind(DELETE_TABLE), 0, &header(0)).text(1, table);
            }
            Self::Set(form) => form.encode(batch, table, number),
            Self::Chain(chain) => chain.encode(batch, table),
            Self::Rule(chain, expressions) => {
                let step = format!("add a rule to {chain}");
                batch
                    .message(step, kind(NEW_RULE), CREATE | APPEND, &header(0))
                    .text(1, table)
                    .text(2, chain);
                batch.nest(4, |list| expressions.iter().for_each(|expression| expression.encode(list)));
            }
            Self::Add(set, elements) => encode_elements(batch, table, set, elements, NEW_ELEMENTS, CREATE),
            Self::Remove(set, elements) => encode_elements(batch, table, set, elements, DELETE_ELEMENTS, 0),
        }
    }
}

impl SetForm {
    fn encode(&self, batch: &mut Batch, table: &str, number: u32) {
        let is_map = !self.value.is_empty();
        let flags = if is_map { SET_IS_MAP } else { 0 } | if self.ranges { SET_OF_RANGES } else { 0 };
        batch
            .message(format!("make the set {}", self.name), kind(NEW_SET), CREATE, &header(0))
            .text(1, table)
            .text(2, self.name)
            .be32(3, flags)
            .be32(4, type_number(self.key))
            .be32(5, length(self.key));
        if is_map {
            batch.be32(6, type_number(self.value)).be32(7, length(self.value));
        }
        batch.be32(10, number);
        if self.key == [DataType::LinkName] {
            // For nft(8) alone: the key is a text, not a number in network order.
            let [a, b, c, d] = 1u32.to_ne_bytes();
            batch.attribute(13, &[0, 4, a, b, c, d]);
        }
    }
}

impl DataType {
    fn number(self) -> u32 {
        match self {
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::Protocol => 12,
            Self::Port => 13,
            Self::Mark => 19,
            Self::LinkName => 41,
        }
    }

    /// Every part takes whole registers of four bytes.
    fn length(self) -> u32 {
        match self {
            Self::Ipv4 | Self::Protocol | Self::Port | Self::Mark => 4,
            Self::Ipv6 | Self::LinkName => 16,
        }
    }
}

fn type_number(parts: &[DataType]) -> u32 {
    parts.iter().fold(0, |number, part| number << 6 | part.number())
}

fn length(parts: &[DataType]) -> u32 {
    parts.iter().map(|part| part.length()).sum()
}

impl Chain {
    fn encode(&self, batch: &mut Batch, table: &str) {
        let step = format!("make the chain {}", self.name);
        batch.message(step, kind(NEW_CHAIN), CREATE, &header(0)).text(1, table).text(3, self.name);
        if let Some(hook) = self.hook {
            batch.nest(4, |nest| {
                nest.be32(1, hook.place as u32).attribute(2, &hook.priority.to_be_bytes());
            });
            batch.text(7, hook.kind);
        }
    }
}

fn encode_elements(
    batch: &mut Batch,
    table: &str,
    set: &str,
    elements: &[Element],
    message: u16,
    flags: u16,
) {
    let mut rest = elements;
    while !rest.is_empty() {
        batch
            .message(format!("change elements of {set}"), kind(message), flags, &header(0))
            .text(1, table)
            .text(2, set);
        batch.nest(3, |list| {
            while let Some((element, others)) = rest.split_first() {
                if list.message_length() > FULL_MESSAGE {
                    break;
                }
                element.encode(list, message == NEW_ELEMENTS);
                rest = others;
            }
        });
    }
}

// === impl Element ===

impl Element {
    /// An element of a set.
    pub(crate) fn key(key: Vec<u8>) -> Self {
        Self { key, value: None, ends_range: false, comment: None }
    }

    fn encode(&self, list: &mut Batch, whole: bool) {
        list.nest(1, |element| {
            element.nest(1, |key| {
                key.attribute(1, &self.key);
            });
            if self.ends_range {
                element.be32(3, ENDS_RANGE);
            }
            if let Some(value) = self.value.as_ref().filter(|_| whole) {
                element.nest(2, |data| {
                    data.attribute(1, value);
                });
            }
            if let Some(comment) = self.comment.as_ref().filter(|_| whole) {
                element.attribute(6, &comment_data(comment));
            }
        });
    }
}

fn comment_data(comment: &str) -> Vec<u8> {
    let end = (0..=comment.len().min(COMMENT_LIMIT)).rev().find(|at| comment.is_char_boundary(*at));
    let text = &comment.as_bytes()[..end.unwrap_or(0)];
    let mut data = vec![0, u8::try_from(text.len() + 1).unwrap_or(u8::MAX)];
    data.extend_from_slice(text);
    data.push(0);
    data
}

fn elements_of(answer: &Answer) -> Vec<Element> {
    let Some(list) = Attributes::behind(&answer.body, NET_HEADER).nested(3) else { return Vec::new() };
    list.filter_map(|(_, payload)| {
        let element = Attributes::behind(payload, 0);
        let comment = element
            .find(6)
            .and_then(|data| data.strip_prefix(&[0])?.get(1..)?.strip_suffix(&[0]))
            .and_then(|text| std::str::from_utf8(text).ok())
            .map(str::to_owned);
        Some(Element {
            key: element.nested(1)?.find(1)?.to_vec(),
            value: element.nested(2).and_then(|data| data.find(1)).map(<[u8]>::to_vec),
            ends_range: element.find(3).is_some_and(|flags| flags.last().is_some_and(|byte| byte & 1 == 1)),
            comment,
        })
    })
    .collect()
}

// === impl Expression ===

impl Expression {
    fn encode(&self, list: &mut Batch) {
        match self {
            Self::Meta(key, register) => expression(list, "meta", |data| {
                data.be32(1, *register).be32(2, *key as u32);
            }),
            Self::Load(field, register) => expression(list, "payload", |data| {
                data.be32(1, *register).be32(2, field.base).be32(3, field.offset).be32(4, field.length);
            }),
            Self::Random(below, register) => expression(list, "numgen", |data| {
                data.be32(1, *register).be32(2, *below).be32(3, DRAWN);
            }),
            Self::Hash(field, below, register) => {
                Self::Load(*field, REGISTER_4).encode(list);
                expression(list, "hash", |data| {
                    data.be32(1, REGISTER_4).be32(2, *register).be32(3, field.length);
                    // Without a seed of ours each rule would have one of its own.
                    data.be32(4, *below).be32(5, SEED).be32(7, JENKINS);
                });
            }
            Self::Equal(register, bytes) => compare(list, *register, 0, bytes),
            Self::Differs(register, bytes) => compare(list, *register, 1, bytes),
            Self::In(register, set) => expression(list, "lookup", |data| {
                data.text(1, set).be32(2, *register);
            }),
            Self::NotIn(register, set) => expression(list, "lookup", |data| {
                data.text(1, set).be32(2, *register).be32(5, 1);
            }),
            Self::Map(register, set) => expression(list, "lookup", |data| {
                data.text(1, set).be32(2, *register).be32(3, REGISTER);
            }),
            Self::ConnectionState(bits) => connection_bits(list, 0, *bits),
            Self::ConnectionStatus(bits) => connection_bits(list, 2, *bits),
            Self::DestinationIsLocal => {
                expression(list, "fib", |data| {
                    data.be32(1, REGISTER).be32(2, 3).be32(3, 2);
                });
                compare(list, REGISTER, 0, &2u32.to_ne_bytes());
            }
            Self::SetPort(field, protocol, port) => {
                expression(list, "immediate", |data| {
                    data.be32(1, REGISTER).nest(2, |value| {
                        value.attribute(1, &port.to_be_bytes());
                    });
                });
                let checksum = if *protocol == TCP { 16 } else { 6 };
                expression(list, "payload", |data| {
                    data.be32(5, REGISTER).be32(2, TRANSPORT_HEADER).be32(3, *field as u32).be32(4, 2);
                    data.be32(6, 1).be32(7, checksum);
                });
            }
            Self::DestinationNat(family, address, port) => expression(list, "nat", |data| {
                data.be32(1, 1).be32(2, u32::from(*family)).be32(3, *address).be32(5, *port);
            }),
            Self::Masquerade => expression(list, "masq", |_| {}),
            Self::Verdict(verdict) => expression(list, "immediate", |data| {
                data.be32(1, 0).nest(2, |value| {
                    value.nest(2, |code| verdict.encode(code));
                });
            }),
        }
    }
}

impl Verdict {
    fn encode(self, data: &mut Batch) {
        match self {
            Self::Drop => data.be32(1, 0),
            Self::Accept => data.be32(1, 1),
            Self::Return => data.attribute(1, &(-5i32).to_be_bytes()),
            Self::Jump(chain) => data.attribute(1, &(-3i32).to_be_bytes()).text(2, chain),
        };
    }
}

fn expression(list: &mut Batch, name: &str, fill: impl FnOnce(&mut Batch)) {
    list.nest(1, |element| {
        element.text(1, name).nest(2, fill);
    });
}

fn compare(list: &mut Batch, register: Register, operation: u32, bytes: &[u8]) {
    expression(list, "cmp", |data| {
        data.be32(1, register).be32(2, operation).nest(3, |value| {
            value.attribute(1, bytes);
        });
    });
}

fn connection_bits(list: &mut Batch, key: u32, bits: u32) {
    expression(list, "ct", |data| {
        data.be32(1, REGISTER).be32(2, key);
    });
    expression(list, "bitwise", |data| {
        data.be32(1, REGISTER).be32(2, REGISTER).be32(3, 4);
        data.nest(4, |mask| {
            mask.attribute(1, &bits.to_ne_bytes());
        });
        data.nest(5, |xor| {
            xor.attribute(1, &[0; 4]);
        });
    });
    compare(list, REGISTER, 1, &[0; 4]);
}

fn kind(message: u16) -> u16 {
    SUBSYSTEM << 8 | message
}

fn header(resource: u16) -> [u8; NET_HEADER] {
    let [high, low] = resource.to_be_bytes();
    [FAMILY_INET, 0, high, low]
}
