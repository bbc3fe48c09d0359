//! Verdicts on system calls, assembled into a classic BPF program (linux/seccomp.h, linux/bpf_common.h). Pure.

use libc::sock_filter;

use super::syscalls::Architecture;

/// What is to become of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This, whatever its arguments.
    Return(u32),
    /// That of the first clause that holds, or else the last one.
    Ask {
        /// In order.
        clauses: Vec<Clause>,
        /// When none holds.
        otherwise: u32,
    },
}

/// Conditions that must all hold, and what follows then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clause {
    /// All of them.
    pub(super) conditions: Vec<Condition>,
    /// What is returned.
    pub(super) action: u32,
}

/// A condition on one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    /// Which one.
    pub(super) argument: Argument,
    /// How much of it the kernel looks at.
    pub(super) width: Width,
    /// What must be true of it.
    pub(super) comparison: Comparison,
}

/// An argument, 0 to 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Argument(pub(super) u8);

/// How much of an argument counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    /// The low 32 bits.
    Low,
    /// All 64 bits.
    Full,
}

/// What must be true of an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    /// It is this.
    Equal(u64),
    /// It is not this.
    NotEqual(u64),
    /// It is below this.
    Less(u64),
    /// It is this or below.
    LessOrEqual(u64),
    /// It is above this.
    Greater(u64),
    /// It is this or above.
    GreaterOrEqual(u64),
    /// The bits of the mask are this.
    Masked {
        /// The bits that count.
        mask: u64,
        /// What they must be.
        value: u64,
    },
}

/// The verdicts for one architecture.
#[derive(Debug)]
pub(super) struct Table {
    /// Which one.
    pub(super) architecture: Architecture,
    /// Calls by number, in any order.
    pub(super) calls: Vec<(u32, Verdict)>,
    /// What is returned for numbers between them.
    pub(super) other: u32,
    /// What is returned for numbers above them all.
    pub(super) newer: u32,
}

/// One instruction whose jumps are not numbers yet.
struct Step {
    code: u32,
    k: u32,
    yes: Target,
    no: Target,
}

/// A program being written from its end: jumps only lead forward, so every target is in place before its jump.
#[derive(Default)]
struct Assembler {
    backwards: Vec<sock_filter>,
    /// Where each answer was written last.
    returns: Vec<(u32, usize)>,
}

/// Where a condition goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    /// The next instruction.
    Next,
    /// Past this condition, which holds.
    Holds,
    /// Past this clause, which does not hold.
    Fails,
}

/// Offsets in `struct seccomp_data`; the arguments follow the instruction pointer, low half first.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// What x32 adds to its numbers; the highest number a sane call has is far below.
const X32_BIT: u32 = 0x4000_0000;

/// How far a condition may jump, less what its other branch may need for a far jump.
const REACH: usize = 250;

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IF_ABOVE: u32 = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
const IF_NOT_BELOW: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const JUMP: u32 = libc::BPF_JMP | libc::BPF_JA;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// The whole program. A call from an architecture without a table kills its process: it would be judged by another
/// one's numbers.
pub(super) fn assemble(tables: Vec<Table>) -> Vec<sock_filter> {
    let mut program = vec![plain(LOAD, ARCHITECTURE)];
    for table in tables {
        let audit = table.architecture.audit();
        let mut body = vec![plain(LOAD, NUMBER)];
        body.extend(tree(&ranges(table)));
        program.push(jump(IF_EQUAL, audit, 1, 0));
        program.push(plain(JUMP, body.len() as u32));
        program.extend(body);
    }
    program.push(plain(RETURN, libc::SECCOMP_RET_KILL_PROCESS));
    program
}

/// Neighbouring numbers with one verdict become one range, named by its first number.
fn ranges(mut table: Table) -> Vec<(u32, Verdict)> {
    table.calls.sort_by_key(|(number, _)| *number);
    table.calls.dedup_by_key(|(number, _)| *number);
    let other = Verdict::Return(table.other);
    let mut ranges: Vec<(u32, Verdict)> = Vec::new();
    let mut next = 0;
    let mut add = |first: u32, verdict: Verdict| {
        if ranges.last().is_none_or(|(_, last)| *last != verdict) {
            ranges.push((first, verdict));
        }
    };
    for (number, verdict) in table.calls {
        if number > next {
            add(next, other.clone());
        }
        add(number, verdict);
        next = number + 1;
    }
    add(next, Verdict::Return(table.newer));
    add(X32_BIT, Verdict::Return(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32));
    ranges
}

/// A balanced tree over ranges: one comparison a level.
fn tree(ranges: &[(u32, Verdict)]) -> Vec<sock_filter> {
    let mut assembler = Assembler::default();
    let entry = assembler.tree(ranges);
    assembler.finish(entry)
}

// === impl Assembler ===

impl Assembler {
    /// Lays out a tree and says where it is entered. The upper half goes first, so that it ends up behind the lower.
    fn tree(&mut self, ranges: &[(u32, Verdict)]) -> usize {
        let (low, high) = match ranges {
            [(_, Verdict::Return(action))] => return self.shared_return(*action),
            [(_, verdict)] => return self.push_all(leaf(verdict)),
            _ => ranges.split_at(ranges.len() / 2),
        };
        let first_high = high.first().map_or(0, |(first, _)| *first);
        let high = self.tree(high);
        let low = self.tree(low);
        let (high, low) = (self.within_reach(high), self.within_reach(low));
        self.push(jump(IF_NOT_BELOW, first_high, self.distance(high) as u8, self.distance(low) as u8))
    }

    /// The same few answers end most branches: each stands once for as far as a jump reaches.
    fn shared_return(&mut self, action: u32) -> usize {
        let known = self.returns.iter().rfind(|(known, _)| *known == action).map(|&(_, position)| position);
        if let Some(position) = known
            && self.distance(position) < REACH
        {
            return position;
        }
        let position = self.push(plain(RETURN, action));
        self.returns.push((action, position));
        position
    }

    /// The position itself, or that of a far jump to it.
    fn within_reach(&mut self, position: usize) -> usize {
        match self.distance(position) {
            0..=REACH => position,
            distance => self.push(plain(JUMP, distance as u32)),
        }
    }

    /// How many instructions the next one would have to skip to get there.
    fn distance(&self, position: usize) -> usize {
        self.backwards.len() - 1 - position
    }

    fn push(&mut self, instruction: sock_filter) -> usize {
        self.backwards.push(instruction);
        self.backwards.len() - 1
    }

    fn push_all(&mut self, program: Vec<sock_filter>) -> usize {
        self.backwards.extend(program.into_iter().rev());
        self.backwards.len() - 1
    }

    fn finish(mut self, entry: usize) -> Vec<sock_filter> {
        if self.distance(entry) > 0 {
            self.push(plain(JUMP, self.distance(entry) as u32));
        }
        self.backwards.reverse();
        self.backwards
    }
}

fn leaf(verdict: &Verdict) -> Vec<sock_filter> {
    match verdict {
        Verdict::Return(action) => vec![plain(RETURN, *action)],
        Verdict::Ask { clauses, otherwise } => {
            let mut program: Vec<_> = clauses.iter().flat_map(clause).collect();
            program.push(plain(RETURN, *otherwise));
            program
        }
    }
}

fn clause(clause: &Clause) -> Vec<sock_filter> {
    let conditions: Vec<Vec<Step>> = clause.conditions.iter().map(condition).collect();
    let length = conditions.iter().map(Vec::len).sum::<usize>() + 1;
    let mut program = Vec::with_capacity(length);
    for steps in conditions {
        let holds = program.len() + steps.len();
        for step in steps {
            let here = program.len() + 1;
            let distance = |target: Target| match target {
                Target::Next => 0,
                Target::Holds => holds - here,
                Target::Fails => length - here,
            };
            // Six arguments with at most six instructions each: a clause is never longer than a jump.
            program.push(jump(step.code, step.k, distance(step.yes) as u8, distance(step.no) as u8));
        }
    }
    program.push(plain(RETURN, clause.action));
    program
}

fn condition(condition: &Condition) -> Vec<Step> {
    use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, Masked, NotEqual};
    use Target::{Fails, Holds, Next};
    let low_at = ARGUMENTS + 8 * u32::from(condition.argument.0);
    let step = |code, k, yes, no| Step { code, k, yes, no };
    let load = |at| step(LOAD, at, Next, Next);
    let halves = |value: u64| ((value >> 32) as u32, value as u32);
    let full = condition.width == Width::Full;
    // The high half decides, unless it is equal; then the low one does.
    let (high, low) = match condition.comparison {
        Equal(value) => {
            let (high, low) = halves(value);
            (vec![step(IF_EQUAL, high, Next, Fails)], vec![step(IF_EQUAL, low, Next, Fails)])
        }
        NotEqual(value) => {
            let (high, low) = halves(value);
            (vec![step(IF_EQUAL, high, Next, Holds)], vec![step(IF_EQUAL, low, Fails, Next)])
        }
        Greater(value) | GreaterOrEqual(value) => {
            let (high, low) = halves(value);
            let code = if matches!(condition.comparison, Greater(_)) { IF_ABOVE } else { IF_NOT_BELOW };
            let above = vec![step(IF_ABOVE, high, Holds, Next), step(IF_EQUAL, high, Next, Fails)];
            (above, vec![step(code, low, Next, Fails)])
        }
        Less(value) | LessOrEqual(value) => {
            let (high, low) = halves(value);
            let code = if matches!(condition.comparison, Less(_)) { IF_NOT_BELOW } else { IF_ABOVE };
            let below = vec![step(IF_ABOVE, high, Fails, Next), step(IF_EQUAL, high, Next, Holds)];
            (below, vec![step(code, low, Fails, Next)])
        }
        Masked { mask, value } => {
            let ((high_mask, low_mask), (high, low)) = (halves(mask), halves(value));
            (
                vec![step(AND, high_mask, Next, Next), step(IF_EQUAL, high, Next, Fails)],
                vec![step(AND, low_mask, Next, Next), step(IF_EQUAL, low, Next, Fails)],
            )
        }
    };
    let mut steps = Vec::new();
    if full {
        steps.push(load(low_at + 4));
        steps.extend(high);
    }
    steps.push(load(low_at));
    steps.extend(low);
    steps
}

fn plain(code: u32, k: u32) -> sock_filter {
    jump(code, k, 0, 0)
}

fn jump(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}
