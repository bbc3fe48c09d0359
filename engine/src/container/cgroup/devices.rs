//! Which device nodes a container may use: rules as values, and their translation for the kernel.

use serde::{Deserialize, Serialize};

use crate::sys::bpf::Instruction;

/// What a container may do with devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Devices {
    /// Everything the host may (privileged containers).
    All,
    /// What these rules allow, and nothing else.
    Only(Vec<DeviceRule>),
    /// What these say, the last one that is about it, and otherwise what the first word says.
    Ordered {
        /// Whether that is allowed which no rule is about.
        otherwise: bool,
        /// Whether it is allowed, and what.
        rules: Vec<(bool, DeviceRule)>,
    },
}

/// One thing that is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Character or block devices.
    pub kind: DeviceKind,
    /// The driver; any when `None`.
    pub major: Option<u32>,
    /// The device of that driver; any when `None`.
    pub minor: Option<u32>,
    /// What may be done with it.
    pub access: Access,
}

/// A kind of device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// `c`.
    Character,
    /// `b`.
    Block,
}

/// Some of read, write and mknod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// `r`: opening for reading.
    pub read: bool,
    /// `w`: opening for writing.
    pub write: bool,
    /// `m`: making a node.
    pub make: bool,
}

// === impl Devices ===

impl Devices {
    /// What every container may use, as in docker: making any node, and null, zero, full, random, urandom, tty,
    /// console, ptmx and the terminals of its own devpts.
    pub fn standard() -> Self {
        use DeviceKind::{Block, Character};
        let node = |major, minor| DeviceRule { kind: Character, major, minor, access: Access::ALL };
        let make = |kind| DeviceRule { kind, major: None, minor: None, access: Access::MAKE };
        Self::Only(vec![
            node(Some(1), Some(3)),
            node(Some(1), Some(5)),
            node(Some(1), Some(7)),
            node(Some(1), Some(8)),
            node(Some(1), Some(9)),
            node(Some(5), Some(0)),
            node(Some(5), Some(1)),
            node(Some(5), Some(2)),
            node(Some(136), None),
            make(Character),
            make(Block),
        ])
    }

    /// The same and this.
    pub fn allow(&mut self, rule: DeviceRule) {
        match self {
            Self::All => {}
            Self::Only(rules) => rules.push(rule),
            Self::Ordered { rules, .. } => rules.push((true, rule)),
        }
    }
}

// === impl Access ===

impl Access {
    /// Everything.
    pub const ALL: Self = Self { read: true, write: true, make: true };
    /// Making nodes only.
    pub const MAKE: Self = Self { read: false, write: false, make: true };

    /// Reads `rwm` and parts of it; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut access = Self { read: false, write: false, make: false };
        for letter in text.chars() {
            match letter {
                'r' => access.read = true,
                'w' => access.write = true,
                'm' => access.make = true,
                _ => return None,
            }
        }
        (!text.is_empty()).then_some(access)
    }

    fn without(self, other: Self) -> Self {
        Self {
            read: self.read && !other.read,
            write: self.write && !other.write,
            make: self.make && !other.make,
        }
    }

    fn bits(self) -> i32 {
        i32::from(self.make) | i32::from(self.read) << 1 | i32::from(self.write) << 2
    }
}

// === impl DeviceRule ===

impl DeviceRule {
    /// Reads docker's notation, `a|b|c major:minor rwm` with `*` for any number; `a` is a rule for each kind.
    pub fn parse(text: &str) -> Option<Vec<Self>> {
        let mut fields = text.split(' ');
        let kinds: &[DeviceKind] = match fields.next()? {
            "a" => &[DeviceKind::Character, DeviceKind::Block],
            "b" => &[DeviceKind::Block],
            "c" => &[DeviceKind::Character],
            _ => return None,
        };
        let (major, minor) = fields.next()?.split_once(':')?;
        let number = |text: &str| match text {
            "*" => Some(None),
            digits => digits.parse().ok().map(Some),
        };
        let (major, minor) = (number(major)?, number(minor)?);
        let access = Access::parse(fields.next()?)?;
        let rule = |kind: &DeviceKind| Self { kind: *kind, major, minor, access };
        fields.next().is_none().then(|| kinds.iter().map(rule).collect())
    }

    /// Whether it is about every device that the other one is about.
    fn covers(&self, other: &Self) -> bool {
        let number = |own: Option<u32>, others: Option<u32>| own.is_none() || own == others;
        self.kind == other.kind && number(self.major, other.major) && number(self.minor, other.minor)
    }

    /// Whether there may be a device that both are about.
    fn meets(&self, other: &Self) -> bool {
        let number =
            |own: Option<u32>, others: Option<u32>| own.is_none() || others.is_none() || own == others;
        self.kind == other.kind && number(self.major, other.major) && number(self.minor, other.minor)
    }

    /// The rule in v1's words: `c 1:3 rwm`.
    pub fn to_v1(self) -> String {
        let kind = match self.kind {
            DeviceKind::Character => 'c',
            DeviceKind::Block => 'b',
        };
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
        let mut text = format!("{kind} {}:{} ", number(self.major), number(self.minor));
        for (set, letter) in [(self.access.read, 'r'), (self.access.write, 'w'), (self.access.make, 'm')] {
            if set {
                text.push(letter);
            }
        }
        text
    }
}

/// Ordered rules as v1 can keep them: exceptions from one word about everything.
///
/// # Errors
/// With the rule that takes a part out of what an earlier one says: the kernel changes an exception as a whole or not at
/// all, and does not say which.
pub(super) fn exceptions(
    otherwise: bool,
    rules: &[(bool, DeviceRule)],
) -> Result<Vec<DeviceRule>, DeviceRule> {
    let mut exceptions: Vec<DeviceRule> = Vec::new();
    for (allow, rule) in rules {
        if *allow != otherwise {
            exceptions.push(*rule);
            continue;
        }
        for exception in &mut exceptions {
            if rule.covers(exception) {
                exception.access = exception.access.without(rule.access);
            } else if rule.meets(exception) && exception.access.without(rule.access) != exception.access {
                return Err(*rule);
            }
        }
        exceptions.retain(|exception| exception.access.bits() != 0);
    }
    Ok(exceptions)
}

/// The registers of the programs: the context the kernel gives, and what is taken from it.
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 0;

/// The kernel passes the kind of device in the low and the access in the high half of the first word, then major
/// and minor.
fn prologue() -> Vec<Instruction> {
    vec![
        Instruction::load_word(KIND, CONTEXT, 0),
        Instruction::copy(ACCESS, KIND),
        Instruction::and(KIND, 0xffff),
        Instruction::shift_right(ACCESS, 16),
        Instruction::load_word(MAJOR, CONTEXT, 4),
        Instruction::load_word(MINOR, CONTEXT, 8),
    ]
}

fn kind_number(kind: DeviceKind) -> i32 {
    match kind {
        DeviceKind::Block => 1,
        DeviceKind::Character => 2,
    }
}

/// Rules of which the last one counts, as a program: they are asked from the last to the first. A rule that allows
/// takes what it is about off what was asked for, and nothing left is allowed; one that refuses refuses whatever is
/// left of it.
pub(super) fn ordered_program(otherwise: bool, rules: &[(bool, DeviceRule)]) -> Vec<Instruction> {
    let mut program = prologue();
    for (allow, rule) in rules.iter().rev() {
        let checks = 1 + usize::from(rule.major.is_some()) + usize::from(rule.minor.is_some());
        let action = if *allow { 4 } else { 5 };
        let end = program.len() + checks + action;
        let past = |program: &Vec<Instruction>| (end - program.len() - 1) as i16;
        program.push(Instruction::jump_unless(KIND, kind_number(rule.kind), past(&program)));
        for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
            if let Some(number) = number {
                program.push(Instruction::jump_unless(register, number as i32, past(&program)));
            }
        }
        if *allow {
            program.push(Instruction::and(ACCESS, !rule.access.bits() & 7));
            program.push(Instruction::jump_unless(ACCESS, 0, past(&program)));
            program.push(Instruction::set(SCRATCH, 1));
        } else {
            program.push(Instruction::copy(SCRATCH, ACCESS));
            program.push(Instruction::and(SCRATCH, !rule.access.bits() & 7));
            // What is left after it is what was there before it: none of it is refused.
            program.push(Instruction::jump_if_same(SCRATCH, ACCESS, past(&program)));
            program.push(Instruction::set(SCRATCH, 0));
        }
        program.push(Instruction::exit());
    }
    program.push(Instruction::set(SCRATCH, i32::from(otherwise)));
    program.push(Instruction::exit());
    program
}

/// The rules as an eBPF program of type CGROUP_DEVICE: 1 allows, 0 refuses.
pub(super) fn program(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut program = prologue();
    for rule in rules {
        let kind = kind_number(rule.kind);
        // Every check jumps past this rule, so its length has to be known before its first instruction.
        let checks = 4 + usize::from(rule.major.is_some()) + usize::from(rule.minor.is_some());
        let end = program.len() + checks + 2;
        let past = |program: &Vec<Instruction>| (end - program.len() - 1) as i16;
        program.push(Instruction::jump_unless(KIND, kind, past(&program)));
        program.push(Instruction::copy(SCRATCH, ACCESS));
        program.push(Instruction::and(SCRATCH, rule.access.bits()));
        program.push(Instruction::jump_unless_same(SCRATCH, ACCESS, past(&program)));
        for (register, number) in [(MAJOR, rule.major), (MINOR, rule.minor)] {
            if let Some(number) = number {
                program.push(Instruction::jump_unless(register, number as i32, past(&program)));
            }
        }
        program.push(Instruction::set(SCRATCH, 1));
        program.push(Instruction::exit());
    }
    program.push(Instruction::set(SCRATCH, 0));
    program.push(Instruction::exit());
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_read_as_v1_wants_them() {
        let Devices::Only(rules) = Devices::standard() else { panic!("standard is a list") };
        let texts: Vec<_> = rules.into_iter().map(DeviceRule::to_v1).collect();
        assert_eq!(texts[0], "c 1:3 rwm");
        assert_eq!(texts[8..], ["c 136:* rwm", "c *:* m", "b *:* m"]);
    }

    #[test]
    fn access_is_some_of_three_letters() {
        assert_eq!(Access::parse("rwm"), Some(Access::ALL));
        assert_eq!(Access::parse("m"), Some(Access::MAKE));
        assert_eq!(Access::parse(""), None);
        assert_eq!(Access::parse("rx"), None);
    }

    #[test]
    fn rules_are_read_as_docker_writes_them() {
        let texts = |text| {
            DeviceRule::parse(text).map(|rules| rules.into_iter().map(DeviceRule::to_v1).collect::<Vec<_>>())
        };
        assert_eq!(texts("c 13:* rwm").unwrap(), ["c 13:* rwm"]);
        assert_eq!(texts("a *:* r").unwrap(), ["c *:* r", "b *:* r"]);
        for wrong in ["", "c", "c 1:3", "d 1:3 r", "c 1 r", "c x:3 r", "c 1:3 rx", "c 1:3 r more"] {
            assert_eq!(texts(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn v1_is_never_asked_for_a_hole_in_an_exception() {
        let rule = |text: &str| DeviceRule::parse(text).unwrap()[0];
        let kept = |otherwise, rules: &[(bool, &str)]| {
            let rules: Vec<_> = rules.iter().map(|(allow, text)| (*allow, rule(text))).collect();
            let words = |rules: Vec<DeviceRule>| rules.into_iter().map(DeviceRule::to_v1).collect::<Vec<_>>();
            exceptions(otherwise, &rules).map(words).map_err(DeviceRule::to_v1)
        };
        assert_eq!(kept(false, &[(true, "b 7:* rw"), (false, "b 7:* w")]).unwrap(), ["b 7:* r"]);
        assert_eq!(kept(false, &[(true, "b 7:1 rw"), (false, "b *:* rwm")]).unwrap(), [""; 0]);
        assert_eq!(kept(true, &[(false, "c 1:3 rwm"), (true, "c 1:3 r")]).unwrap(), ["c 1:3 wm"]);
        // Not about the same devices, or not about the same access.
        assert_eq!(
            kept(false, &[(true, "b 7:* r"), (false, "b 7:3 w"), (false, "c 7:3 r")]).unwrap(),
            ["b 7:* r"]
        );
        assert_eq!(kept(false, &[(true, "b 7:* rw"), (false, "b 7:3 w")]).unwrap_err(), "b 7:3 w");
        assert_eq!(kept(true, &[(false, "c *:* w"), (true, "c 1:3 rwm")]).unwrap_err(), "c 1:3 rwm");
    }
}
