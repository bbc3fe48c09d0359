//! Copying between a container and the standard streams of the command that attached to it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::fs::FileType;
use rustix::io::Errno;

use crate::container::client::{Connection, News};
use crate::container::protocol::{Reply, Request};
use crate::container::ready::Ready;
use crate::container::stdio::{Stream, Streams};
use crate::container::terminal::{DetachKeys, KeyWatch, RawMode, Typed, size_of};
use crate::error::{Error, Result};
use crate::signal::Signal;
use crate::sys::notice::Notices;

/// How a command attaches to a container with its own standard streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachOptions {
    /// Whether what is typed goes to the container.
    pub stdin: bool,
    /// Whether its standard output is shown.
    pub stdout: bool,
    /// Whether its standard error is shown.
    pub stderr: bool,
    /// What leaves it without ending it; control-P, control-Q when `None`.
    pub detach_keys: Option<DetachKeys>,
    /// Whether signals to the command go to the container. With a terminal, keys do that.
    pub sig_proxy: bool,
    /// Whether the container has a terminal.
    pub tty: bool,
}

/// Why an attached command goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachEnd {
    /// The container ended with this code.
    Exited(i32),
    /// The user left it; it goes on.
    Detached,
}

/// What a session waits for.
#[derive(Debug, Clone, Copy)]
enum Source {
    Monitor,
    Typing,
    Stdout,
    Stderr,
    Signal,
}

/// Bytes that one of our own streams has not taken yet. The stream may be shared with other programs, so it is never
/// made non-blocking: it is written to when poll(2) says so, no more than cannot block.
#[derive(Debug)]
pub(super) struct Drain {
    target: OwnedFd,
    waiting: VecDeque<u8>,
    step: usize,
}

/// More than this much unread output is not taken from the monitor: it then slows the container down.
const MOST_WAITING: usize = 64 << 20;
/// More than this much input is not taken from the user before the monitor has taken what was typed.
const MOST_TYPED: usize = 64 << 10;
/// What a pipe takes without blocking when poll(2) calls it writable.
const PIPE_BUF: usize = 4096;
/// Asking this often to be interrupted means it.
const PATIENCE: u32 = 3;

const PROXIED: [i32; 8] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGWINCH,
];

impl Default for AttachOptions {
    fn default() -> Self {
        Self { stdin: false, stdout: true, stderr: true, detach_keys: None, sig_proxy: true, tty: false }
    }
}

impl AttachOptions {
    /// The streams they connect.
    pub fn streams(&self) -> Streams {
        Streams { stdin: self.stdin, stdout: self.stdout, stderr: self.stderr }
    }
}

impl Connection {
    /// Connects the container with this process's standard streams until it ends or the user leaves it. Called
    /// before [`Self::started`], after [`Self::subscribe`], nothing is missed.
    ///
    /// # Errors
    /// When the container could not be started, or its monitor was killed.
    pub fn attach(mut self, options: &AttachOptions) -> Result<AttachEnd> {
        if self.subscribed.is_none() {
            self.subscribe(options.streams())?;
        }
        let stdin = io::stdin();
        let raw = if options.tty && options.stdin { RawMode::enter(&stdin) } else { Ok(None) };
        let _raw = raw.map_err(|error| Error::failed("put the terminal into raw mode", error))?;
        let signals = if options.sig_proxy && !options.tty { &PROXIED[..] } else { &PROXIED[7..] };
        let notices = Notices::of(signals).map_err(|error| Error::failed("catch signals", error))?;
        Session::new(self, options, notices)?.run()
    }

    /// Hands the container's output on until it ends, and returns its exit code. Call [`Self::subscribe`] first.
    ///
    /// # Errors
    /// When its monitor was killed.
    pub fn follow(mut self, output: &mut dyn FnMut(Stream, &[u8])) -> Result<i32> {
        loop {
            match self.next_news(None)? {
                Some(News::Output(stream, bytes)) => output(stream, &bytes),
                Some(News::Reply(Reply::Exited(exit))) => return Ok(exit.code),
                Some(News::Reply(Reply::Refused(refusal))) => return Err(refusal.into()),
                Some(News::Reply(Reply::FellBehind)) => return Err(fell_behind()),
                Some(News::Reply(_)) | None => {}
            }
        }
    }
}

/// One attached command.
struct Session {
    connection: Connection,
    notices: Notices,
    stdout: Drain,
    stderr: Drain,
    typing: bool,
    keys: Option<KeyWatch>,
    tty: bool,
    interrupts: u32,
    end: Option<AttachEnd>,
}

impl Session {
    fn new(connection: Connection, options: &AttachOptions, notices: Notices) -> Result<Self> {
        let failed = |error| Error::failed("open the standard streams", error);
        let keys = (options.stdin && options.tty)
            .then(|| KeyWatch::new(&options.detach_keys.clone().unwrap_or_default()));
        let mut session = Self {
            connection,
            notices,
            stdout: Drain::new(&io::stdout()).map_err(failed)?,
            stderr: Drain::new(&io::stderr()).map_err(failed)?,
            typing: options.stdin,
            keys,
            tty: options.tty,
            interrupts: 0,
            end: None,
        };
        session.tell_size()?;
        Ok(session)
    }

    fn run(mut self) -> Result<AttachEnd> {
        loop {
            while let Some(news) = self.connection.arrived_news()? {
                self.heard(news)?;
            }
            self.connection.flush()?;
            if let Some(end) = self.end
                && self.stdout.is_empty()
                && self.stderr.is_empty()
                && (end != AttachEnd::Detached || self.connection.wire.backlog() == 0)
            {
                return Ok(end);
            }
            self.wait()?;
        }
    }

    fn heard(&mut self, news: News) -> Result<()> {
        match news {
            News::Output(Stream::Stdout, bytes) => self.stdout.add(&bytes),
            News::Output(Stream::Stderr, bytes) => self.stderr.add(&bytes),
            News::Reply(Reply::Exited(exit)) => self.end = Some(AttachEnd::Exited(exit.code)),
            News::Reply(Reply::Refused(refusal)) if self.end.is_none() => return Err(refusal.into()),
            News::Reply(Reply::FellBehind) => return Err(fell_behind()),
            News::Reply(_) => {}
        }
        Ok(())
    }

    /// Waits until one of the descriptors is ready and serves those that are.
    fn wait(&mut self) -> Result<()> {
        let stdin = io::stdin();
        let wire = &self.connection.wire;
        let listening = self.end.is_none() && self.stdout.len() + self.stderr.len() < MOST_WAITING;
        let typing = self.typing && self.end.is_none() && wire.backlog() < MOST_TYPED;
        let mut ready = Ready::new();
        ready.add(Source::Monitor, wire.socket(), wire.sending() | when(listening, PollFlags::IN));
        ready.add(Source::Typing, stdin.as_fd(), when(typing, PollFlags::IN));
        ready.add(Source::Stdout, self.stdout.target(), when(!self.stdout.is_empty(), PollFlags::OUT));
        ready.add(Source::Stderr, self.stderr.target(), when(!self.stderr.is_empty(), PollFlags::OUT));
        ready.add(Source::Signal, self.notices.descriptor(), PollFlags::IN);
        let happened = ready.wait(None).map_err(|error| Error::failed("wait for the container", error))?;
        for (source, _) in happened {
            match source {
                Source::Monitor if listening => self.connection.take_in()?,
                Source::Monitor => {}
                Source::Typing => self.read_input(stdin.as_fd())?,
                Source::Signal => self.noticed()?,
                Source::Stdout => {
                    let written = self.stdout.write();
                    self.after_write(written)?;
                }
                Source::Stderr => {
                    let written = self.stderr.write();
                    self.after_write(written)?;
                }
            }
        }
        Ok(())
    }

    fn after_write(&mut self, written: io::Result<()>) -> Result<()> {
        match written {
            Ok(()) => Ok(()),
            // Nobody reads us any more: that is a way to leave, as in `run … | head`.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.stdout.clear();
                self.stderr.clear();
                self.leave()
            }
            Err(error) => Err(Error::failed("write the container's output", error)),
        }
    }

    fn read_input(&mut self, stdin: BorrowedFd<'_>) -> Result<()> {
        let mut bytes = [0; 16 << 10];
        let length = match rustix::io::read(stdin, &mut bytes) {
            Ok(length) => length,
            Err(Errno::INTR | Errno::AGAIN) => return Ok(()),
            // A terminal that hung up.
            Err(Errno::IO) => 0,
            Err(error) => return Err(Error::failed("read standard input", io::Error::from(error))),
        };
        if length == 0 {
            self.typing = false;
            self.connection.wire.send_input(&[]);
            return Ok(());
        }
        let typed = match &mut self.keys {
            Some(keys) => keys.typed(&bytes[..length]),
            None => Typed::Bytes(bytes[..length].to_vec()),
        };
        match typed {
            Typed::Bytes(bytes) if bytes.is_empty() => Ok(()),
            Typed::Bytes(bytes) => {
                self.connection.wire.send_input(&bytes);
                Ok(())
            }
            Typed::Detach(bytes) => {
                if !bytes.is_empty() {
                    self.connection.wire.send_input(&bytes);
                }
                self.leave()
            }
        }
    }

    fn leave(&mut self) -> Result<()> {
        self.end = Some(AttachEnd::Detached);
        self.typing = false;
        self.connection.send(&Request::Detach)
    }

    fn noticed(&mut self) -> Result<()> {
        for number in self.notices.take() {
            if number == libc::SIGWINCH {
                self.tell_size()?;
                continue;
            }
            self.interrupts += u32::from(matches!(number, libc::SIGINT | libc::SIGTERM));
            if self.interrupts >= PATIENCE {
                return Err(Error::conflict("interrupted; the container did not end and still runs")
                    .with_hint(format!("end it with: rengine kill {}", self.connection.id.short())));
            }
            if let Ok(signal) = number.to_string().parse::<Signal>() {
                self.connection.send(&Request::Kill(signal))?;
            }
        }
        Ok(())
    }

    fn tell_size(&mut self) -> Result<()> {
        match size_of(io::stdout().as_fd()).or_else(|| size_of(io::stdin().as_fd())) {
            Some(size) if self.tty => self.connection.resize(size),
            _ => Ok(()),
        }
    }
}

/// This interest on a condition.
pub(super) fn when(wanted: bool, interest: PollFlags) -> PollFlags {
    if wanted { interest } else { PollFlags::empty() }
}

fn fell_behind() -> Error {
    Error::conflict("the container's output was not read fast enough and is not shown any further")
        .with_hint("all of it is in: rengine logs")
}

// === impl Drain ===

impl Drain {
    /// Nothing waits for this stream yet.
    pub(super) fn new(target: &impl AsFd) -> io::Result<Self> {
        let target = target.as_fd().try_clone_to_owned()?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&target)?.st_mode);
        let step = if kind == FileType::RegularFile { usize::MAX } else { PIPE_BUF };
        Ok(Self { target, waiting: VecDeque::new(), step })
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.waiting.extend(bytes);
    }

    /// How much waits.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The stream, to wait on.
    pub(super) fn target(&self) -> BorrowedFd<'_> {
        self.target.as_fd()
    }

    /// Forgets what waits.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Writes what cannot block.
    pub(super) fn write(&mut self) -> io::Result<()> {
        let (first, _) = self.waiting.as_slices();
        match rustix::io::write(&self.target, &first[..first.len().min(self.step)]) {
            Ok(written) => {
                self.waiting.drain(..written);
                Ok(())
            }
            Err(Errno::INTR | Errno::AGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
