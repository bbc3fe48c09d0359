//! The container's standard streams on our side: output into the log and to whoever is attached, input to the
//! container. Nothing here blocks.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use jiff::Timestamp;
use rustix::event::PollFlags;
use rustix::io::Errno;

use crate::container::monitor::{Monitor, Phase, Source};
use crate::container::plan::TerminalSize;
use crate::container::ready::Ready;
use crate::container::stdio::{Stream, never_block};
use crate::container::terminal;

/// Where a container's output arrives.
pub(super) struct Outputs(Vec<(Stream, OwnedFd)>);

/// Where a container's input goes.
pub(super) struct Input {
    end: InputEnd,
    waiting: VecDeque<u8>,
    /// Nothing more comes: it closes when everything is written.
    ending: bool,
}

enum InputEnd {
    None,
    Pipe(OwnedFd),
    Terminal(OwnedFd),
}

/// Most input that is kept for a container that does not read.
const MOST_INPUT: usize = 64 << 10;
/// How much is read at a time: what a pipe holds at first.
const PIECE: usize = 16 << 10;
/// Control-D: what a terminal calls the end of input.
const END_OF_INPUT: u8 = 4;

// === impl Outputs ===

impl Outputs {
    pub(super) fn pipes(stdout: OwnedFd, stderr: OwnedFd) -> io::Result<Self> {
        never_block(&stdout)?;
        never_block(&stderr)?;
        Ok(Self(vec![(Stream::Stdout, stdout), (Stream::Stderr, stderr)]))
    }

    pub(super) fn terminal(master: OwnedFd) -> io::Result<Self> {
        never_block(&master)?;
        Ok(Self(vec![(Stream::Stdout, master)]))
    }

    pub(super) fn add_to<'a>(&'a self, ready: &mut Ready<'a, Source>) {
        for (at, (_, end)) in self.0.iter().enumerate() {
            ready.add(Source::Output(at), end.as_fd(), PollFlags::IN);
        }
    }

    /// Reads one piece. `None` when there is nothing now or never again.
    fn read(&mut self, at: usize, piece: &mut [u8]) -> Option<(Stream, usize)> {
        let (stream, end) = self.0.get(at)?;
        match rustix::io::read(end, piece) {
            Ok(0) | Err(Errno::IO) => {
                self.0.remove(at);
                None
            }
            Ok(length) => Some((*stream, length)),
            Err(_) => None,
        }
    }
}

// === impl Input ===

impl Input {
    pub(super) fn none() -> Self {
        Self { end: InputEnd::None, waiting: VecDeque::new(), ending: false }
    }

    pub(super) fn pipe(end: OwnedFd) -> io::Result<Self> {
        never_block(&end)?;
        Ok(Self { end: InputEnd::Pipe(end), ..Self::none() })
    }

    pub(super) fn terminal(end: OwnedFd) -> io::Result<Self> {
        never_block(&end)?;
        Ok(Self { end: InputEnd::Terminal(end), ..Self::none() })
    }

    pub(super) fn add_to<'a>(&'a self, ready: &mut Ready<'a, Source>) {
        if let (InputEnd::Pipe(end) | InputEnd::Terminal(end), false) = (&self.end, self.waiting.is_empty()) {
            ready.add(Source::Input, end.as_fd(), PollFlags::OUT);
        }
    }

    fn is_full(&self) -> bool {
        self.waiting.len() >= MOST_INPUT
    }

    fn add(&mut self, bytes: &[u8]) {
        if !matches!(self.end, InputEnd::None) && !self.ending {
            self.waiting.extend(bytes);
            self.write();
        }
    }

    fn end(&mut self) {
        if let InputEnd::Terminal(_) = self.end {
            self.add(&[END_OF_INPUT]);
        } else {
            self.ending = true;
            self.write();
        }
    }

    fn write(&mut self) {
        let (InputEnd::Pipe(end) | InputEnd::Terminal(end)) = &self.end else { return };
        while !self.waiting.is_empty() {
            let (first, _) = self.waiting.as_slices();
            match rustix::io::write(end, first) {
                Ok(written) => drop(self.waiting.drain(..written)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // The program closed its input.
                Err(_) => {
                    self.waiting = VecDeque::new();
                    self.end = InputEnd::None;
                    return;
                }
            }
        }
        self.waiting.shrink_to_fit();
        if self.ending {
            self.end = InputEnd::None;
        }
    }

    fn resize(&self, size: TerminalSize) {
        if let InputEnd::Terminal(end) = &self.end {
            // A terminal that is gone needs no size.
            let _ = terminal::resize(end.as_fd(), size);
        }
    }
}

// === impl Monitor ===

impl Monitor {
    /// Moves one piece of output to the log and to whoever is attached.
    pub(super) fn pass_output(&mut self, at: usize) {
        let Phase::Running(run) = &mut self.phase else { return };
        let mut piece = [0; PIECE];
        let Some((stream, length)) = run.outputs.read(at, &mut piece) else { return };
        // On a full disk the lines are lost and the container goes on.
        let _ = self.log.write(stream, &piece[..length], Timestamp::now());
        self.show(stream, &piece[..length]);
    }

    /// Takes everything that is still in the streams of a container that has ended.
    pub(super) fn drain_output(&mut self, outputs: &mut Outputs) {
        let mut piece = [0; PIECE];
        for at in (0..outputs.0.len()).rev() {
            while let Some((stream, length)) = outputs.read(at, &mut piece) {
                let _ = self.log.write(stream, &piece[..length], Timestamp::now());
                self.show(stream, &piece[..length]);
            }
        }
        let _ = self.log.finish(Timestamp::now());
    }

    pub(super) fn pass_input(&mut self) {
        if let Phase::Running(run) = &mut self.phase {
            run.input.write();
        }
    }

    pub(super) fn take_input(&mut self, bytes: &[u8]) {
        if let Phase::Running(run) = &mut self.phase {
            run.input.add(bytes);
        }
    }

    /// An attached command has no more input. Only a container that was made for one such command hears of it.
    pub(super) fn end_input(&mut self) {
        let once = self.record.spec.process.stdin_once;
        if let Phase::Running(run) = &mut self.phase
            && once
        {
            run.input.end();
        }
    }

    pub(super) fn input_is_full(&self) -> bool {
        matches!(&self.phase, Phase::Running(run) if run.input.is_full())
    }

    pub(super) fn resize(&mut self, size: TerminalSize) {
        self.size = Some(size);
        if let Phase::Running(run) = &self.phase {
            run.input.resize(size);
        }
    }
}
