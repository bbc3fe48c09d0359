//! The system call filter: which calls a container may make, as a program for the kernel.
//!
//! The default is docker's profile, kept as a column of the table of system calls. A filter is a search tree over
//! ranges of call numbers, because the kernel tries a new filter with every number there is before it accepts it:
//! the tree answers in ten steps where a list needs hundreds, and that is most of the price of installing one.
//!
//! Where docker's profile is loose, this one is not: arguments that the kernel cuts to 32 bits are compared as 32
//! bits, so that garbage above them does not get a forbidden socket family past the filter. Programs for i386 are
//! allowed as in docker. Those for x32 and for 32-bit arm are refused: no distribution's kernel runs the first by
//! default, and hardly any server the second. A call that is newer than this table gets ENOSYS instead of EPERM, so
//! that C libraries fall back to an older one.

use rustix::system::uname;

use super::capabilities::CapabilitySet;
use super::spec::Seccomp;

mod profile;
mod program;
mod syscalls;

use program::{Argument, Clause, Comparison, Condition, Verdict, Width};
use syscalls::{Architecture, SYSCALLS};

/// Why a profile cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// Not JSON, or not a profile.
    #[error("read the seccomp profile")]
    Parse(#[from] serde_json::Error),
    /// An action, comparison or feature this engine does not have.
    #[error("the seccomp profile wants {what} {value:?}, which is not supported")]
    Unsupported {
        /// What kind of thing.
        what: &'static str,
        /// As the profile writes it.
        value: String,
    },
    /// More instructions than the kernel takes (4096).
    #[error("the seccomp profile needs {0} instructions and the kernel takes 4096")]
    TooLong(usize),
}

/// When the default profile allows a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Always.
    Allow,
    /// Never.
    Refuse,
    /// With one of these capabilities.
    With(&'static [&'static str]),
    /// `socket`: every family but AF_ALG and AF_VSOCK.
    Socket,
    /// `personality`: what does not weaken the address space.
    Personality,
    /// `clone`: no namespaces without SYS_ADMIN.
    Clone,
    /// `clone3`: its flags are in memory, out of a filter's sight, so C libraries are sent back to `clone`.
    Clone3,
}

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// The machine's own architecture and those whose programs it also runs.
const NATIVE: &[Architecture] = if cfg!(target_arch = "aarch64") {
    &[Architecture::Aarch64]
} else {
    &[Architecture::X86_64, Architecture::I386]
};

/// The filter for a process that may have these capabilities; `None` when unconfined. It is installed last, after
/// everything that it would refuse.
///
/// # Errors
/// When a profile of the user's cannot be read or asks for what this engine does not have.
pub fn compile(
    profile: &Seccomp,
    capabilities: CapabilitySet,
) -> Result<Option<Vec<libc::sock_filter>>, SeccompError> {
    let program = match profile {
        Seccomp::Unconfined => return Ok(None),
        Seccomp::Default => standard(NATIVE, capabilities),
        Seccomp::Profile(text) => profile::compile(text, NATIVE, capabilities, &kernel(), false)?,
    };
    fits(program).map(Some)
}

/// The filter of a profile of the user's some of whose calls may be handed to a listener; whether there are such.
///
/// # Errors
/// As for [`compile`].
pub fn compile_for_listener(
    text: &str,
    capabilities: CapabilitySet,
) -> Result<(Vec<libc::sock_filter>, bool), SeccompError> {
    let program = fits(profile::compile(text, NATIVE, capabilities, &kernel(), true)?)?;
    let asks = |step: &libc::sock_filter| {
        u32::from(step.code) == libc::BPF_RET | libc::BPF_K && step.k == libc::SECCOMP_RET_USER_NOTIF
    };
    let asks = program.iter().any(asks);
    Ok((program, asks))
}

fn fits(program: Vec<libc::sock_filter>) -> Result<Vec<libc::sock_filter>, SeccompError> {
    if program.len() > 4096 { Err(SeccompError::TooLong(program.len())) } else { Ok(program) }
}

fn standard(architectures: &[Architecture], capabilities: CapabilitySet) -> Vec<libc::sock_filter> {
    let verdict = |rule: Rule| match rule {
        Rule::Allow => Verdict::Return(ALLOW),
        Rule::Refuse => Verdict::Return(EPERM),
        Rule::With(names) if names.iter().any(|name| capabilities.has(name)) => Verdict::Return(ALLOW),
        Rule::With(_) => Verdict::Return(EPERM),
        Rule::Clone | Rule::Clone3 if capabilities.has("SYS_ADMIN") => Verdict::Return(ALLOW),
        Rule::Clone => allow_if(0, &[Comparison::Masked { mask: NEW_NAMESPACES, value: 0 }]),
        Rule::Clone3 => Verdict::Return(ENOSYS),
        Rule::Socket => {
            let (alg, vsock) = (libc::AF_ALG as u64, libc::AF_VSOCK as u64);
            allow_if(0, &[Comparison::Less(alg), Comparison::Equal(alg + 1), Comparison::Greater(vsock)])
        }
        Rule::Personality => {
            let (linux32, no_randomize_ok) = (0x0008, 0x2_0000);
            let allowed = [0, linux32, no_randomize_ok, no_randomize_ok | linux32, 0xffff_ffff];
            allow_if(0, &allowed.map(Comparison::Equal))
        }
    };
    let tables = architectures.iter().map(|&architecture| {
        let numbered =
            SYSCALLS.iter().filter_map(|call| Some((call.number(architecture)?, verdict(call.rule))));
        program::Table { architecture, calls: numbered.collect(), other: EPERM, newer: ENOSYS }
    });
    program::assemble(tables.collect())
}

/// Allows when one of these holds for an argument of 32 bits.
fn allow_if(argument: u8, comparisons: &[Comparison]) -> Verdict {
    let clauses = comparisons.iter().map(|&comparison| Clause {
        conditions: vec![Condition { argument: Argument(argument), width: Width::Low, comparison }],
        action: ALLOW,
    });
    Verdict::Ask { clauses: clauses.collect(), otherwise: EPERM }
}

fn kernel() -> String {
    uname().release().to_string_lossy().into_owned()
}

// === impl SeccompError ===

impl From<SeccompError> for crate::Error {
    fn from(error: SeccompError) -> Self {
        Self::invalid(error.to_string()).with_source(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel tells a filter about a call (`struct seccomp_data`).
    #[derive(Clone, Copy)]
    struct Call {
        architecture: u32,
        number: u32,
        arguments: [u64; 6],
    }

    /// Runs a filter as the kernel does, for the instructions that filters here are made of.
    fn judge(program: &[libc::sock_filter], call: Call) -> u32 {
        let word = |offset: u32| match offset {
            0 => call.number,
            4 => call.architecture,
            16..64 => {
                let argument = call.arguments[(offset as usize - 16) / 8];
                if offset.is_multiple_of(8) { argument as u32 } else { (argument >> 32) as u32 }
            }
            _ => panic!("offset {offset}"),
        };
        let (mut at, mut accumulator) = (0, 0u32);
        loop {
            let step = &program[at];
            at += 1;
            let decided = match u32::from(step.code) {
                0x20 => {
                    accumulator = word(step.k);
                    continue;
                }
                0x54 => {
                    accumulator &= step.k;
                    continue;
                }
                0x05 => {
                    at += step.k as usize;
                    continue;
                }
                0x06 => return step.k,
                0x15 => accumulator == step.k,
                0x25 => accumulator > step.k,
                0x35 => accumulator >= step.k,
                other => panic!("instruction {other:#x}"),
            };
            at += usize::from(if decided { step.jt } else { step.jf });
        }
    }

    fn number(name: &str, architecture: Architecture) -> u32 {
        let call = SYSCALLS.iter().find(|call| call.name == name).unwrap();
        call.number(architecture).unwrap()
    }

    fn call(name: &str, arguments: &[u64]) -> Call {
        let mut all = [0; 6];
        all[..arguments.len()].copy_from_slice(arguments);
        let architecture = Architecture::X86_64;
        Call { architecture: architecture.audit(), number: number(name, architecture), arguments: all }
    }

    const INTEL: &[Architecture] = &[Architecture::X86_64, Architecture::I386];

    #[test]
    fn the_default_profile_says_what_dockers_says() {
        let program = standard(INTEL, CapabilitySet::docker_default());
        for (name, arguments, expected) in [
            ("read", &[][..], ALLOW),
            ("openat2", &[], ALLOW),
            ("ptrace", &[], ALLOW),
            ("chroot", &[], ALLOW),
            ("mount", &[], EPERM),
            ("unshare", &[], EPERM),
            ("setns", &[], EPERM),
            ("bpf", &[], EPERM),
            ("keyctl", &[], EPERM),
            ("io_uring_setup", &[], EPERM),
            ("userfaultfd", &[], EPERM),
            ("open_by_handle_at", &[], EPERM),
            ("kexec_load", &[], EPERM),
            ("clock_settime", &[], EPERM),
            ("clone", &[libc::SIGCHLD as u64], ALLOW),
            ("clone", &[libc::CLONE_NEWUSER as u64], EPERM),
            ("clone", &[(libc::CLONE_NEWNET | libc::SIGCHLD) as u64], EPERM),
            ("clone3", &[], ENOSYS),
            ("socket", &[libc::AF_INET as u64], ALLOW),
            ("socket", &[libc::AF_ALG as u64], EPERM),
            ("socket", &[libc::AF_VSOCK as u64], EPERM),
            ("socket", &[39], ALLOW),
            ("socket", &[41], ALLOW),
            // The kernel takes the family from the low half alone.
            ("socket", &[1 << 32 | libc::AF_ALG as u64], EPERM),
            ("personality", &[0], ALLOW),
            ("personality", &[0x0002_0008], ALLOW),
            ("personality", &[0xffff_ffff], ALLOW),
            ("personality", &[0x0040_0000], EPERM),
        ] {
            assert_eq!(judge(&program, call(name, arguments)), expected, "{name} {arguments:x?}");
        }
    }

    #[test]
    fn capabilities_open_their_calls() {
        let admin = CapabilitySet::docker_default().union(CapabilitySet::named("SYS_ADMIN").unwrap());
        let program = standard(INTEL, admin);
        for name in ["mount", "clone3", "unshare", "bpf", "perf_event_open", "syslog"] {
            assert_eq!(judge(&program, call(name, &[])), ALLOW, "{name}");
        }
        assert_eq!(judge(&program, call("clone", &[libc::CLONE_NEWUSER as u64])), ALLOW);
        assert_eq!(judge(&program, call("reboot", &[])), EPERM);
        let program = standard(INTEL, CapabilitySet::EMPTY);
        assert_eq!(judge(&program, call("chroot", &[])), EPERM);
        assert_eq!(judge(&program, call("read", &[])), ALLOW);
    }

    #[test]
    fn numbers_belong_to_their_architecture() {
        let program = standard(INTEL, CapabilitySet::docker_default());
        let at = |architecture, number| Call { architecture, number, arguments: [0; 6] };
        let (wide, narrow) = (Architecture::X86_64, Architecture::I386);
        assert_eq!(judge(&program, at(narrow.audit(), number("mount", narrow))), EPERM);
        assert_eq!(judge(&program, at(narrow.audit(), number("_llseek", narrow))), ALLOW);
        // x32, numbers newer than the table, and an architecture that cannot be here.
        assert_eq!(judge(&program, at(wide.audit(), 0x4000_0000)), ENOSYS);
        assert_eq!(judge(&program, at(wide.audit(), 700)), ENOSYS);
        assert_eq!(judge(&program, at(Architecture::Aarch64.audit(), 0)), libc::SECCOMP_RET_KILL_PROCESS);
        let arm = standard(&[Architecture::Aarch64], CapabilitySet::docker_default());
        assert_eq!(judge(&arm, at(Architecture::Aarch64.audit(), 63)), ALLOW);
        assert_eq!(judge(&arm, at(Architecture::Aarch64.audit(), 40)), EPERM);
    }

    /// What docker's profile allows with each capability and not without (moby/profiles v0.2.3).
    const OPENED: [(&str, &str); 14] = [
        ("BPF", "bpf"),
        ("DAC_READ_SEARCH", "open_by_handle_at"),
        ("PERFMON", "perf_event_open"),
        ("SYSLOG", "syslog"),
        (
            "SYS_ADMIN",
            "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr \
             lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl \
             quotactl_fd setdomainname sethostname setns syslog umount2 unshare",
        ),
        ("SYS_BOOT", "reboot"),
        ("SYS_CHROOT", "chroot"),
        ("SYS_MODULE", "delete_module finit_module init_module"),
        ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
        ("SYS_PACCT", "acct"),
        ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
        ("SYS_RAWIO", "ioperm iopl"),
        ("SYS_TIME", "clock_settime settimeofday"),
        ("SYS_TTY_CONFIG", "vhangup"),
    ];

    #[test]
    fn each_capability_opens_what_it_opens_in_docker_and_nothing_else() {
        let allowed = |set| {
            let program = standard(&[Architecture::X86_64], set);
            let native = SYSCALLS.iter().filter(|call| call.number(Architecture::X86_64).is_some());
            let judged = native.filter(|one| {
                let new_namespace = [libc::CLONE_NEWUSER as u64];
                judge(&program, call(one.name, &new_namespace)) == ALLOW
            });
            judged.map(|one| one.name).collect::<std::collections::BTreeSet<_>>()
        };
        let always = allowed(CapabilitySet::EMPTY);
        for (capability, calls) in OPENED {
            let opened = allowed(CapabilitySet::named(capability).unwrap());
            let more: Vec<_> = opened.difference(&always).copied().collect();
            assert_eq!(more.join(" "), calls, "{capability}");
        }
        let named: Vec<_> = OPENED.iter().map(|(name, _)| CapabilitySet::named(name).unwrap()).collect();
        let others = CapabilitySet::all()
            .difference(named.into_iter().fold(CapabilitySet::EMPTY, CapabilitySet::union));
        assert_eq!(allowed(others), always);
    }

    #[test]
    fn every_call_of_the_table_gets_its_own_verdict() {
        let program = standard(INTEL, CapabilitySet::EMPTY);
        for call in SYSCALLS {
            let expected = match call.rule {
                Rule::Allow => ALLOW,
                Rule::Refuse | Rule::With(_) => EPERM,
                Rule::Clone3 => ENOSYS,
                Rule::Socket | Rule::Personality | Rule::Clone => continue,
            };
            for &architecture in INTEL {
                let Some(number) = call.number(architecture) else { continue };
                let seen = Call { architecture: architecture.audit(), number, arguments: [0; 6] };
                assert_eq!(judge(&program, seen), expected, "{} on {architecture:?}", call.name);
            }
        }
    }

    #[test]
    fn the_tree_is_shallow_enough_to_install_quickly() {
        let program = standard(INTEL, CapabilitySet::docker_default());
        assert!(program.len() < 300, "{}", program.len());
        let longest = (0..500).map(|number| {
            let call = Call { architecture: Architecture::I386.audit(), number, arguments: [0; 6] };
            steps(&program, call)
        });
        assert!(longest.max().unwrap() < 24);
    }

    fn steps(program: &[libc::sock_filter], call: Call) -> usize {
        // Every step moves forward, so a program cut short before the end is one that has not finished.
        let verdict = judge(program, call);
        let mut at = 0;
        let mut count = 0;
        let mut accumulator = 0;
        loop {
            let step = &program[at];
            at += 1;
            count += 1;
            match u32::from(step.code) {
                0x20 if step.k == 0 => accumulator = call.number,
                0x20 if step.k == 4 => accumulator = call.architecture,
                0x05 => at += step.k as usize,
                0x15 => at += usize::from(if accumulator == step.k { step.jt } else { step.jf }),
                0x35 => at += usize::from(if accumulator >= step.k { step.jt } else { step.jf }),
                0x06 => {
                    assert_eq!(step.k, verdict);
                    return count;
                }
                // Arguments are asked about in a leaf.
                _ => return count,
            }
        }
    }

    fn compiled(profile: &str) -> Vec<libc::sock_filter> {
        profile::compile(profile, INTEL, CapabilitySet::docker_default(), "6.1.0-18-amd64", false).unwrap()
    }

    #[test]
    fn a_profile_of_the_users_holds() {
        let program = compiled(
            r#"{"defaultAction": "SCMP_ACT_ALLOW",
                "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
                "syscalls": [
                  {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 30},
                  {"names": ["kill"], "action": "SCMP_ACT_KILL_PROCESS", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
                  {"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "excludes": {"minKernel": "4.8"}},
                  {"name": "write", "action": "SCMP_ACT_ERRNO",
                   "args": [{"index": 0, "value": 2, "op": "SCMP_CMP_EQ"},
                            {"index": 2, "value": 4294967296, "op": "SCMP_CMP_GE"}]}]}"#,
        );
        let refused = libc::SECCOMP_RET_ERRNO | libc::EROFS as u32;
        assert_eq!(judge(&program, call("mkdir", &[])), refused);
        assert_eq!(judge(&program, call("read", &[])), ALLOW);
        assert_eq!(judge(&program, call("kill", &[])), ALLOW);
        assert_eq!(judge(&program, call("chmod", &[])), ALLOW);
        assert_eq!(judge(&program, call("write", &[2, 0, 1 << 32])), EPERM);
        assert_eq!(judge(&program, call("write", &[2, 0, (1 << 32) - 1])), ALLOW);
        assert_eq!(judge(&program, call("write", &[1, 0, 1 << 33])), ALLOW);
        let narrow = Architecture::I386;
        let mkdir = Call { architecture: narrow.audit(), number: number("mkdir", narrow), arguments: [0; 6] };
        assert_eq!(judge(&program, mkdir), refused);
    }

    #[test]
    fn comparisons_are_64_bits_wide() {
        for (op, value, two, holds, fails) in [
            ("EQ", 5u64 << 32 | 1, 0u64, vec![5 << 32 | 1], vec![1, 5 << 32]),
            ("NE", 1 << 32, 0, vec![0, 1, 1 << 33], vec![1 << 32]),
            ("LT", 1 << 32, 0, vec![0, (1 << 32) - 1], vec![1 << 32, 1 << 40]),
            ("LE", 1 << 32, 0, vec![0, 1 << 32], vec![(1 << 32) + 1, 1 << 40]),
            ("GT", 1 << 32, 0, vec![(1 << 32) + 1, 1 << 40], vec![0, 1 << 32]),
            ("GE", 1 << 32, 0, vec![1 << 32, 1 << 40], vec![0, (1 << 32) - 1]),
            ("MASKED_EQ", 0xf0 << 32 | 0xf, 0x10 << 32 | 1, vec![0x1f << 32 | 0xf1], vec![1, 0x10 << 32]),
        ] {
            let program = compiled(&format!(
                r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{{"names": ["read"], "action": "SCMP_ACT_ALLOW",
                    "args": [{{"index": 1, "value": {value}, "valueTwo": {two}, "op": "SCMP_CMP_{op}"}}]}}]}}"#
            ));
            for argument in holds {
                assert_eq!(judge(&program, call("read", &[0, argument])), ALLOW, "{op} {argument:#x}");
            }
            for argument in fails {
                assert_eq!(judge(&program, call("read", &[0, argument])), EPERM, "{op} {argument:#x}");
            }
        }
    }

    #[test]
    fn what_a_profile_wants_and_cannot_have_is_named() {
        let notify = Seccomp::Profile(
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}]}"#
                .to_owned(),
        );
        let error = compile(&notify, CapabilitySet::EMPTY).unwrap_err();
        assert!(error.to_string().contains("SCMP_ACT_NOTIFY"), "{error}");
        assert!(compile(&Seccomp::Profile("{".to_owned()), CapabilitySet::EMPTY).is_err());
        assert!(compile(&Seccomp::Unconfined, CapabilitySet::EMPTY).unwrap().is_none());
    }
}
