//! Copying and comparing bytes, for every program that links the engine on x86-64 where the C library is musl.
//!
//! musl's own are a string instruction, which takes dozens of cycles before its first byte, and a loop over single
//! bytes; most of what a program in Rust copies and compares is a name of twenty. Reading a compose file of a thousand
//! services takes a fifth longer with them. These are the usual ones instead: two moves that may overlap up to twice
//! the width of a register, a loop over 64 bytes above, and the string instruction where it is the fastest.
#![expect(
    unsafe_code,
    reason = "the names of the C library's functions are taken, and they work on raw memory"
)]

use std::arch::naked_asm;
use std::ffi::c_int;

/// From this size on the string instruction is the fastest: an immediate of the assembly below, in bytes.
const LONG: usize = 2048;

/// `memmove(3)`; the ranges may overlap.
///
/// # Safety
/// `from` must be readable and `to` writable for `size` bytes.
// SAFETY: it does what the C library promises of this name.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, size: usize) -> *mut u8 {
    naked_asm!(
        "mov rax, rdi",
        "cmp rdx, 16",
        "jb 20f",
        "cmp rdx, 32",
        "ja 30f",
        // 16 to 32: both halves are read before either is written, here and below.
        "movups xmm0, [rsi]",
        "movups xmm1, [rsi + rdx - 16]",
        "movups [rdi], xmm0",
        "movups [rdi + rdx - 16], xmm1",
        "ret",
        // Fewer than 16.
        "20:",
        "cmp edx, 8",
        "jb 21f",
        "mov rcx, [rsi]",
        "mov r8, [rsi + rdx - 8]",
        "mov [rdi], rcx",
        "mov [rdi + rdx - 8], r8",
        "ret",
        "21:",
        "cmp edx, 4",
        "jb 22f",
        "mov ecx, [rsi]",
        "mov r8d, [rsi + rdx - 4]",
        "mov [rdi], ecx",
        "mov [rdi + rdx - 4], r8d",
        "ret",
        "22:",
        "cmp edx, 1",
        "jb 24f",
        "je 23f",
        "movzx ecx, word ptr [rsi]",
        "movzx r8d, byte ptr [rsi + rdx - 1]",
        "mov [rdi], cx",
        "mov [rdi + rdx - 1], r8b",
        "ret",
        "23:",
        "mov cl, [rsi]",
        "mov [rdi], cl",
        "24:",
        "ret",
        // 33 to 64.
        "30:",
        "cmp rdx, 64",
        "ja {move_many}",
        "movups xmm0, [rsi]",
        "movups xmm1, [rsi + 16]",
        "movups xmm2, [rsi + rdx - 32]",
        "movups xmm3, [rsi + rdx - 16]",
        "movups [rdi], xmm0",
        "movups [rdi + 16], xmm1",
        "movups [rdi + rdx - 32], xmm2",
        "movups [rdi + rdx - 16], xmm3",
        "ret",
        move_many = sym move_many,
    )
}

/// [`memmove`] of more than 64 bytes, whose result is in its place.
///
/// # Safety
/// As [`memmove`]'s, which alone goes here.
#[unsafe(naked)]
unsafe extern "C" fn move_many(to: *mut u8, from: *const u8, size: usize) -> *mut u8 {
    naked_asm!(
        // Downwards when the destination begins inside the source.
        "mov rcx, rdi",
        "sub rcx, rsi",
        "cmp rcx, rdx",
        "jb 50f",
        "cmp rdx, {long}",
        "jae 60f",
        // Upwards by 64, with the last 64 read beforehand.
        "movups xmm4, [rsi + rdx - 64]",
        "movups xmm5, [rsi + rdx - 48]",
        "movups xmm6, [rsi + rdx - 32]",
        "movups xmm7, [rsi + rdx - 16]",
        "lea r8, [rdi + rdx - 64]",
        "41:",
        "movups xmm0, [rsi]",
        "movups xmm1, [rsi + 16]",
        "movups xmm2, [rsi + 32]",
        "movups xmm3, [rsi + 48]",
        "movups [rdi], xmm0",
        "movups [rdi + 16], xmm1",
        "movups [rdi + 32], xmm2",
        "movups [rdi + 48], xmm3",
        "add rsi, 64",
        "add rdi, 64",
        "cmp rdi, r8",
        "jb 41b",
        "movups [r8], xmm4",
        "movups [r8 + 16], xmm5",
        "movups [r8 + 32], xmm6",
        "movups [r8 + 48], xmm7",
        "ret",
        // Downwards by 64, with the first 64 read beforehand.
        "50:",
        "test rcx, rcx",
        "je 52f",
        "movups xmm4, [rsi]",
        "movups xmm5, [rsi + 16]",
        "movups xmm6, [rsi + 32]",
        "movups xmm7, [rsi + 48]",
        "51:",
        "movups xmm0, [rsi + rdx - 16]",
        "movups xmm1, [rsi + rdx - 32]",
        "movups xmm2, [rsi + rdx - 48]",
        "movups xmm3, [rsi + rdx - 64]",
        "movups [rdi + rdx - 16], xmm0",
        "movups [rdi + rdx - 32], xmm1",
        "movups [rdi + rdx - 48], xmm2",
        "movups [rdi + rdx - 64], xmm3",
        "sub rdx, 64",
        "cmp rdx, 64",
        "ja 51b",
        "movups [rdi], xmm4",
        "movups [rdi + 16], xmm5",
        "movups [rdi + 32], xmm6",
        "movups [rdi + 48], xmm7",
        "52:",
        "ret",
        "60:",
        "mov rcx, rdx",
        "rep movsb",
        "ret",
        long = const LONG,
    )
}

/// `memcpy(3)`, which is [`memmove`] here.
///
/// # Safety
/// As [`memmove`]'s.
// SAFETY: it does what the C library promises of this name, and more.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, size: usize) -> *mut u8 {
    naked_asm!("jmp {memmove}", memmove = sym memmove)
}

/// `memcmp(3)`: 16 bytes at a time, then the difference of the first two bytes that are not the same.
///
/// # Safety
/// `left` and `right` must be readable for `size` bytes.
// SAFETY: it does what the C library promises of this name.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, size: usize) -> c_int {
    naked_asm!(
        "xor ecx, ecx",
        "cmp rdx, 16",
        "jb 20f",
        // The last 16 begin at r8, perhaps among bytes that are known to be the same.
        "lea r8, [rdx - 16]",
        "10:",
        "movups xmm0, [rdi + rcx]",
        "movups xmm1, [rsi + rcx]",
        "pcmpeqb xmm0, xmm1",
        "pmovmskb eax, xmm0",
        "xor eax, 0xffff",
        "jne 11f",
        "cmp rcx, r8",
        "jae 12f",
        "add rcx, 16",
        "cmp rcx, r8",
        "cmova rcx, r8",
        "jmp 10b",
        "11:",
        "bsf eax, eax",
        "add rcx, rax",
        "movzx eax, byte ptr [rdi + rcx]",
        "movzx edx, byte ptr [rsi + rcx]",
        "sub eax, edx",
        "ret",
        "12:",
        "xor eax, eax",
        "ret",
        // Fewer than 16, as big-endian numbers: their order is that of the bytes.
        "20:",
        "cmp edx, 8",
        "jb 21f",
        "mov r8, [rdi]",
        "mov r9, [rsi]",
        "cmp r8, r9",
        "jne 23f",
        "mov r8, [rdi + rdx - 8]",
        "mov r9, [rsi + rdx - 8]",
        "cmp r8, r9",
        "jne 23f",
        "xor eax, eax",
        "ret",
        "21:",
        "cmp edx, 4",
        "jb 22f",
        "mov r8d, [rdi]",
        "mov r9d, [rsi]",
        "cmp r8, r9",
        "jne 23f",
        "mov r8d, [rdi + rdx - 4]",
        "mov r9d, [rsi + rdx - 4]",
        "cmp r8, r9",
        "jne 23f",
        "xor eax, eax",
        "ret",
        "22:",
        "cmp rcx, rdx",
        "jae 12b",
        "movzx eax, byte ptr [rdi + rcx]",
        "movzx r8d, byte ptr [rsi + rcx]",
        "inc rcx",
        "sub eax, r8d",
        "je 22b",
        "ret",
        "23:",
        "bswap r8",
        "bswap r9",
        "xor eax, eax",
        "cmp r8, r9",
        "seta al",
        "setb cl",
        "movzx ecx, cl",
        "sub eax, ecx",
        "ret",
    )
}

/// `bcmp(3)`, which is [`memcmp`] here.
///
/// # Safety
/// As [`memcmp`]'s.
// SAFETY: it does what the C library promises of this name, and more.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, size: usize) -> c_int {
    naked_asm!("jmp {memcmp}", memcmp = sym memcmp)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each size to beyond twice the widest loop, and around the string instruction.
    fn sizes() -> impl Iterator<Item = usize> {
        (0..=300).chain(LONG - 70..=LONG + 70)
    }

    fn numbered(size: usize) -> Vec<u8> {
        (0..size).map(|index| (index % 251) as u8).collect()
    }

    /// Byte by byte, as nothing else here is.
    fn assert_same(found: &[u8], wanted: impl Fn(usize) -> u8, what: &str) {
        for (index, byte) in found.iter().enumerate() {
            assert!(*byte == wanted(index), "{what}: byte {index} is {byte}");
        }
    }

    #[test]
    fn a_copy_is_whole_and_touches_nothing_else() {
        for size in sizes() {
            for shift in [0, 1, 7, 15] {
                let from = numbered(size + shift);
                let mut to = vec![255; size + 2 * shift + 32];
                let start = shift + 16;
                // SAFETY: both ranges are inside of their vectors.
                let told = unsafe { memcpy(to[start..].as_mut_ptr(), from[shift..].as_ptr(), size) };
                assert!(told == to[start..].as_mut_ptr());
                let copied = |index: usize| {
                    if (start..start + size).contains(&index) { ((index - 16) % 251) as u8 } else { 255 }
                };
                assert_same(&to, copied, &format!("{size} bytes shifted by {shift}"));
            }
        }
    }

    #[test]
    fn ranges_that_overlap_move_both_ways() {
        for size in sizes() {
            for distance in [0, 1, 3, 8, 15, 16, 17, 31, 33, 63, 64, 65, 100, 129] {
                let mut up = numbered(size + distance);
                let (to, from) = (up[distance..].as_mut_ptr(), up.as_ptr());
                // SAFETY: both ranges are inside of the vector.
                unsafe { memmove(to, from, size) };
                let moved = |index: usize| (index.checked_sub(distance).unwrap_or(index) % 251) as u8;
                assert_same(&up, moved, &format!("{size} bytes up by {distance}"));
                let mut down = numbered(size + distance);
                let (to, from) = (down.as_mut_ptr(), down[distance..].as_ptr());
                // SAFETY: both ranges are inside of the vector.
                unsafe { memmove(to, from, size) };
                let moved =
                    |index: usize| ((if index < size { index + distance } else { index }) % 251) as u8;
                assert_same(&down, moved, &format!("{size} bytes down by {distance}"));
            }
        }
    }

    #[test]
    fn the_first_byte_that_differs_decides() {
        for size in (0..=100).chain([255, 256, 257]) {
            let left = numbered(size);
            let mut right = numbered(size + 1);
            // What is behind the end does not count.
            right[size] = 254;
            // SAFETY: both vectors have that many bytes, here and below.
            assert!(unsafe { memcmp(left.as_ptr(), right.as_ptr(), size) } == 0, "{size} bytes");
            for place in 0..size {
                for (byte, later) in [(255, 0), (left[place].wrapping_sub(1), 255)] {
                    let mut right = numbered(size);
                    right[place] = byte;
                    right[place + 1..].fill(later);
                    // SAFETY: as above.
                    let there = unsafe { memcmp(left.as_ptr(), right.as_ptr(), size) };
                    // SAFETY: as above.
                    let back = unsafe { memcmp(right.as_ptr(), left.as_ptr(), size) };
                    let wanted = left[place] > byte;
                    assert!(
                        (there > 0) == wanted && (back > 0) != wanted && there != 0,
                        "{size} bytes, byte {place}"
                    );
                    // SAFETY: as above.
                    assert!(unsafe { bcmp(left.as_ptr(), right.as_ptr(), size) } != 0);
                }
            }
        }
    }
}
