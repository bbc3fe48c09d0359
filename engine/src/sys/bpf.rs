//! eBPF: just enough to attach a device filter to a cgroup2 node (bpf(2)).
#![expect(unsafe_code, reason = "rustix and libc have no safe bpf(2)")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// One eBPF instruction as the kernel reads it (`struct bpf_insn`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    code: u8,
    /// Destination register in the low half, source register in the high one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The head of `union bpf_attr` for BPF_PROG_LOAD; fields after these may be left out.
#[repr(C)]
struct LoadAttributes {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
}

/// The head of `union bpf_attr` for BPF_PROG_ATTACH.
#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

// === impl Instruction ===

impl Instruction {
    /// `destination = *(u32 *)(source + offset)`.
    pub(crate) fn load_word(destination: u8, source: u8, offset: i16) -> Self {
        Self { code: 0x61, registers: destination | source << 4, offset, immediate: 0 }
    }

    /// `destination = source`, 32 bits.
    pub(crate) fn copy(destination: u8, source: u8) -> Self {
        Self { code: 0xbc, registers: destination | source << 4, offset: 0, immediate: 0 }
    }

    /// `destination = immediate`, 32 bits.
    pub(crate) fn set(destination: u8, immediate: i32) -> Self {
        Self { code: 0xb4, registers: destination, offset: 0, immediate }
    }

    /// `destination &= immediate`, 32 bits.
    pub(crate) fn and(destination: u8, immediate: i32) -> Self {
        Self { code: 0x54, registers: destination, offset: 0, immediate }
    }

    /// `destination >>= immediate`, 32 bits.
    pub(crate) fn shift_right(destination: u8, immediate: i32) -> Self {
        Self { code: 0x74, registers: destination, offset: 0, immediate }
    }

    /// Skips `offset` instructions unless the register holds this number. 64 bits wide: both registers hold
    /// zero-extended words, and 32-bit jumps are younger than 64-bit ones.
    pub(crate) fn jump_unless(register: u8, immediate: i32, offset: i16) -> Self {
        Self { code: 0x55, registers: register, offset, immediate }
    }

    /// Skips `offset` instructions unless both registers hold the same.
    pub(crate) fn jump_unless_same(left: u8, right: u8, offset: i16) -> Self {
        Self { code: 0x5d, registers: left | right << 4, offset, immediate: 0 }
    }

    /// Skips `offset` instructions if both registers hold the same.
    pub(crate) fn jump_if_same(left: u8, right: u8, offset: i16) -> Self {
        Self { code: 0x1d, registers: left | right << 4, offset, immediate: 0 }
    }

    /// Ends the program with what register 0 holds.
    pub(crate) fn exit() -> Self {
        Self { code: 0x95, registers: 0, offset: 0, immediate: 0 }
    }
}

/// Has the kernel check and load a device filter.
pub(crate) fn load_device_program(program: &[Instruction]) -> io::Result<OwnedFd> {
    let attributes = LoadAttributes {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(program.len()).map_err(io::Error::other)?,
        instructions: program.as_ptr() as u64,
        license: c"MIT".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
    };
    let fd = bpf(BPF_PROG_LOAD, &attributes)?;
    // SAFETY: the kernel has just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a device filter to a node. Every filter on the way up must allow a device, so that a nested container
/// can only narrow what it has. The node keeps the program; the descriptor may be closed.
pub(crate) fn attach_device_program(node: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = AttachAttributes {
        target: node.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    bpf(BPF_PROG_ATTACH, &attributes).map(drop)
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_int> {
    let size = size_of::<T>();
    // SAFETY: the kernel reads exactly `size` bytes of a live `repr(C)` value and what its pointers lead to, all of
    // which outlives the call; it keeps none of them.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}
