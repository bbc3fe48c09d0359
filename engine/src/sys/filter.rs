//! Classic BPF on a socket: the kernel drops what nobody waits for, so that nobody is woken for it
//! (Documentation/networking/filter.rst). Only for messages in which the interesting fields have fixed places.
#![expect(unsafe_code, reason = "SO_ATTACH_FILTER exists in no safe form")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libc::{sock_filter, sock_fprog};

/// A field of a message, in the machine's order unless it is bytes, and what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Two bytes at this place.
    Half(u32, u16),
    /// Four bytes at this place.
    Word(u32, u32),
    /// These bytes from this place on.
    Bytes(u32, Vec<u8>),
}

/// What is let through: messages all of whose `every` fields are so, and one at least of its `any` fields, if it has
/// some.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Must all be so.
    pub(crate) every: Vec<Wanted>,
    /// One of them must be so.
    pub(crate) any: Vec<Wanted>,
}

/// The value of the load instructions' field that means the whole message.
const WHOLE_MESSAGE: u32 = u32::MAX;

// === impl Filter ===

impl Filter {
    /// From now on the socket receives only what this lets through.
    pub(crate) fn attach(&self, socket: impl AsFd) -> io::Result<()> {
        let program = self.program();
        let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let program = sock_fprog { len, filter: program.as_ptr().cast_mut() };
        let size =
            libc::socklen_t::try_from(size_of::<sock_fprog>()).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the kernel copies the program, which outlives the call, and checks every instruction of it.
        let result = unsafe {
            libc::setsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                std::ptr::from_ref(&program).cast(),
                size,
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// A field that is missing from a message that is too short drops the message: so the kernel ends a program that
    /// loads from behind the end.
    fn program(&self) -> Vec<sock_filter> {
        let mut program = Vec::new();
        for (load, at, value) in self.every.iter().flat_map(Wanted::loads) {
            program.push(instruction(libc::BPF_LD | load | libc::BPF_ABS, 0, 0, at));
            program.push(instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, 0, value));
            program.push(instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0));
        }
        for field in &self.any {
            // Ends with the whole message when all parts of the field are so, and goes on behind it otherwise.
            let loads = field.loads();
            let parts = loads.len();
            for (part, (load, at, value)) in loads.into_iter().enumerate() {
                let behind = u8::try_from((parts - part - 1) * 2 + 1).unwrap_or(u8::MAX);
                program.push(instruction(libc::BPF_LD | load | libc::BPF_ABS, 0, 0, at));
                program.push(instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, behind, value));
            }
            program.push(instruction(libc::BPF_RET | libc::BPF_K, 0, 0, WHOLE_MESSAGE));
        }
        let rest = if self.any.is_empty() { WHOLE_MESSAGE } else { 0 };
        program.push(instruction(libc::BPF_RET | libc::BPF_K, 0, 0, rest));
        program
    }
}

// === impl Wanted ===

impl Wanted {
    /// The loads it takes: their width, place and result. The machine of these programs reads in network order.
    fn loads(&self) -> Vec<(u32, u32, u32)> {
        match self {
            Self::Half(at, value) => {
                vec![(libc::BPF_H, *at, u32::from(u16::from_be_bytes(value.to_ne_bytes())))]
            }
            Self::Word(at, value) => vec![(libc::BPF_W, *at, u32::from_be_bytes(value.to_ne_bytes()))],
            Self::Bytes(at, bytes) => {
                (*at..).zip(bytes).map(|(at, byte)| (libc::BPF_B, at, u32::from(*byte))).collect()
            }
        }
    }
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    // Every code of these programs fits: the highest bit in use is 0x80.
    sock_filter { code: u16::try_from(code).unwrap_or_default(), jt, jf, k }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    /// Which of these messages a socket with this filter receives.
    fn passes(filter: &Filter, messages: &[&[u8]]) -> Vec<Vec<u8>> {
        let (out, into) = UnixDatagram::pair().unwrap();
        filter.attach(&into).unwrap();
        into.set_nonblocking(true).unwrap();
        for message in messages {
            // A message that is dropped is refused to its sender, or silently gone.
            let _ = out.send(message);
        }
        let mut buffer = [0; 16];
        std::iter::from_fn(|| into.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec())).collect()
    }

    #[test]
    fn only_what_is_asked_for_passes() {
        let word = 7u32.to_ne_bytes();
        let other = 8u32.to_ne_bytes();
        let message = |half: u16, word: [u8; 4], text: &[u8]| [&half.to_ne_bytes()[..], &word, text].concat();
        let (right, second) = (message(3, word, b"ab"), message(3, other, b"ab"));
        let (wrong_half, wrong_text) = (message(4, word, b"ab"), message(3, word, b"aa"));
        let (neither, short) = (message(3, 9u32.to_ne_bytes(), b"ab"), vec![3, 0]);
        let all: [&[u8]; 6] = [&right, &wrong_half, &wrong_text, &second, &neither, &short];

        let every = vec![Wanted::Half(0, 3), Wanted::Bytes(6, b"ab".to_vec())];
        let filter = Filter { every: every.clone(), any: Vec::new() };
        assert_eq!(passes(&filter, &all), [right.clone(), second.clone(), neither.clone()]);

        let filter = Filter { every, any: vec![Wanted::Word(2, 7), Wanted::Word(2, 8)] };
        assert_eq!(passes(&filter, &all), [right.clone(), second.clone()]);

        let filter =
            Filter { every: Vec::new(), any: vec![Wanted::Bytes(6, b"aa".to_vec()), Wanted::Half(0, 4)] };
        assert_eq!(passes(&filter, &all), [wrong_half.clone(), wrong_text.clone()]);
    }
}
