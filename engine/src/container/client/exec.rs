//! Running a process beside a container's own, with this command's streams or others.
//!
//! The process gets our pipes and sockets themselves. Anything else, a terminal or a file of the host, stays here and
//! is copied through a pipe: a descriptor of it inside the container would be a way out of it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::FileType;
use rustix::io::Errno;

use crate::container::client::pump::{AttachEnd, AttachOptions, Drain, when};
use crate::container::client::{Connection, News};
use crate::container::exec::ExecSpec;
use crate::container::plan::TerminalSize;
use crate::container::protocol::{Reply, Request};
use crate::container::ready::Ready;
use crate::container::stdio::{Pipe, never_block};
use crate::container::terminal::{self, DetachKeys, KeyWatch, RawMode, Typed};
use crate::error::{Error, Result};
use crate::sys::notice::Notices;

/// What an exec reads from and writes to; `None` is nothing.
#[derive(Debug, Default)]
pub struct ExecIo {
    /// Read when the exec is interactive.
    pub stdin: Option<OwnedFd>,
    /// Standard output; the terminal's when it has one.
    pub stdout: Option<OwnedFd>,
    /// Standard error.
    pub stderr: Option<OwnedFd>,
    /// What leaves it without ending it, with a terminal.
    pub detach_keys: DetachKeys,
}

/// Bytes on their way from one descriptor to another.
struct Flow {
    from: Option<OwnedFd>,
    to: Option<Drain>,
    keys: Option<KeyWatch>,
    kind: FlowKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FlowKind {
    /// Towards the process: it ends when the process does.
    Input,
    /// Away from it: it is finished even if the process has ended.
    Output,
}

/// What an exec waits for.
#[derive(Debug, Clone, Copy)]
enum Source {
    Monitor,
    Signal,
    From(usize),
    To(usize),
}

/// What became of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flowed {
    On,
    Detach,
}

/// The file system of pipes without names (statfs(2), `PIPEFS_MAGIC`).
const PIPES_WITHOUT_NAMES: rustix::fs::FsWord = 0x5049_5045;

/// Most that waits in a flow before no more is read.
const MOST_WAITING: usize = 64 << 10;

// === impl ExecIo ===

impl ExecIo {
    /// This process's own streams.
    ///
    /// # Errors
    /// When there are too many descriptors.
    pub fn inherit() -> io::Result<Self> {
        Ok(Self {
            stdin: Some(io::stdin().as_fd().try_clone_to_owned()?),
            stdout: Some(io::stdout().as_fd().try_clone_to_owned()?),
            stderr: Some(io::stderr().as_fd().try_clone_to_owned()?),
            detach_keys: DetachKeys::default(),
        })
    }
}

impl Connection {
    /// Runs a process in the container with this process's own streams, and returns when it has ended or the user
    /// left it.
    ///
    /// # Errors
    /// As [`Self::exec_with`].
    pub fn exec(mut self, spec: &ExecSpec, options: &AttachOptions) -> Result<AttachEnd> {
        let failed = |error| Error::failed("open the standard streams", error);
        let mut io = ExecIo::inherit().map_err(failed)?;
        io.detach_keys = options.detach_keys.clone().unwrap_or_default();
        let end = self.exec_with(spec, io)?;
        Ok(end.map_or(AttachEnd::Detached, AttachEnd::Exited))
    }

    /// Runs a process in the container and returns its exit code when it has ended. `None` when the user left it
    /// with the detach keys.
    ///
    /// # Errors
    /// When it could not be executed ([`crate::Kind::CommandNotFound`], [`crate::Kind::NotExecutable`]), the
    /// container is not running, or its monitor was killed.
    pub fn exec_with(&mut self, spec: &ExecSpec, io: ExecIo) -> Result<Option<i32>> {
        if spec.tty { self.exec_with_terminal(spec, io) } else { self.exec_with_streams(spec, io) }
    }

    /// Runs a process in the container and leaves it to itself.
    ///
    /// # Errors
    /// As [`Self::exec`].
    pub fn exec_detached(mut self, spec: &ExecSpec) -> Result<()> {
        let failed = |error| Error::failed("open /dev/null", error);
        let descriptors = if spec.tty {
            Vec::new()
        } else {
            let null = || null().map_err(failed);
            vec![null()?, null()?, null()?]
        };
        self.begin_exec(spec, TerminalSize::default(), descriptors)
    }

    fn exec_with_streams(&mut self, spec: &ExecSpec, io: ExecIo) -> Result<Option<i32>> {
        let failed = |error| Error::failed("open the standard streams", error);
        let mut flows = Vec::new();
        let stdin = io.stdin.filter(|_| spec.interactive);
        let descriptors = vec![
            input(stdin, &mut flows).map_err(failed)?,
            output(io.stdout, &mut flows).map_err(failed)?,
            output(io.stderr, &mut flows).map_err(failed)?,
        ];
        self.begin_exec(spec, TerminalSize::default(), descriptors)?;
        self.copy_until_exit(flows, None)
    }

    fn exec_with_terminal(&mut self, spec: &ExecSpec, io: ExecIo) -> Result<Option<i32>> {
        let failed = |error| Error::failed("set up the terminal", error);
        let own = io.stdout.as_ref().or(io.stdin.as_ref());
        let size = own.and_then(|fd| terminal::size_of(fd.as_fd())).unwrap_or_default();
        self.begin_exec(spec, size, Vec::new())?;
        let Some([master]) = self.wire.take_descriptors() else {
            return Err(self.broken("get the terminal from", io::ErrorKind::InvalidData.into()));
        };
        never_block(&master).map_err(failed)?;
        let stdin = io.stdin.filter(|_| spec.interactive);
        let raw = stdin.as_ref().map(RawMode::enter).transpose();
        let _raw = raw.map_err(failed)?;
        let mut flows = vec![
            Flow::new(master.try_clone().map_err(failed)?, io.stdout.as_ref(), FlowKind::Output)
                .map_err(failed)?,
        ];
        if let Some(stdin) = stdin {
            let master = master.try_clone().map_err(failed)?;
            let mut flow = Flow::new(stdin, Some(&master), FlowKind::Input).map_err(failed)?;
            flow.keys = Some(KeyWatch::new(&io.detach_keys));
            flows.push(flow);
        }
        self.copy_until_exit(flows, Some(&master))
    }

    fn begin_exec(&mut self, spec: &ExecSpec, size: TerminalSize, descriptors: Vec<OwnedFd>) -> Result<()> {
        let request = Request::Exec { spec: Box::new(spec.clone()), size: (size.rows, size.columns) };
        self.wire
            .send_with(&request, descriptors)
            .map_err(|error| self.broken("send a request to", error))?;
        self.expect("start a process with", |reply| matches!(reply, Reply::ExecStarted { .. }).then_some(()))
    }

    fn copy_until_exit(&mut self, mut flows: Vec<Flow>, terminal: Option<&OwnedFd>) -> Result<Option<i32>> {
        let failed = |error| Error::failed("copy the process's streams", error);
        let signals: &[i32] = if terminal.is_some() { &[libc::SIGWINCH] } else { &[] };
        let notices = Notices::of(signals).map_err(failed)?;
        let code = loop {
            while let Some(news) = self.arrived_news()? {
                if let News::Reply(Reply::ExecExited { code }) = news {
                    return finish(&mut flows).map(|()| Some(code)).map_err(failed);
                }
            }
            let mut ready = Ready::new();
            ready.add(Source::Monitor, self.wire.socket(), PollFlags::IN);
            ready.add(Source::Signal, notices.descriptor(), PollFlags::IN);
            for (at, flow) in flows.iter().enumerate() {
                flow.add_to(&mut ready, at);
            }
            let mut detach = false;
            for (source, _) in ready.wait(None).map_err(failed)? {
                match source {
                    Source::Monitor => self.take_in()?,
                    Source::Signal => {
                        notices.take();
                        take_over_size(terminal);
                    }
                    Source::From(at) => detach |= flows[at].read().map_err(failed)? == Flowed::Detach,
                    Source::To(at) => flows[at].write().map_err(failed)?,
                }
            }
            flows.iter_mut().for_each(Flow::close_when_finished);
            if detach {
                break None;
            }
        };
        Ok(code)
    }
}

/// The process has ended: what it wrote is in the pipes, and whoever else holds them is not waited for.
fn finish(flows: &mut [Flow]) -> io::Result<()> {
    for flow in flows.iter_mut().filter(|flow| flow.kind == FlowKind::Output) {
        while flow.from.is_some() {
            let before = flow.to.as_ref().map(Drain::len);
            flow.read()?;
            if before == flow.to.as_ref().map(Drain::len) {
                break;
            }
        }
        while let Some(to) = flow.to.as_mut().filter(|to| !to.is_empty()) {
            poll(&mut [PollFd::from_borrowed_fd(to.target(), PollFlags::OUT)], None)?;
            match to.write() {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                result => result?,
            }
        }
    }
    Ok(())
}

fn take_over_size(terminal: Option<&OwnedFd>) {
    let size = terminal::size_of(io::stdout().as_fd()).or_else(|| terminal::size_of(io::stdin().as_fd()));
    if let (Some(terminal), Some(size)) = (terminal, size) {
        // The process may have closed its terminal; nobody looks at its size then.
        let _ = terminal::resize(terminal.as_fd(), size);
    }
}

fn null() -> io::Result<OwnedFd> {
    File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from)
}

/// The descriptor to pass as standard input, and the flow that feeds it where ours cannot go in.
fn input(stream: Option<OwnedFd>, flows: &mut Vec<Flow>) -> io::Result<OwnedFd> {
    let Some(stream) = stream else { return null() };
    if is_harmless(stream.as_fd())? {
        return Ok(stream);
    }
    let pipe = Pipe::new()?;
    never_block(&pipe.write)?;
    flows.push(Flow::new(stream, Some(&pipe.write), FlowKind::Input)?);
    Ok(pipe.read)
}

fn output(stream: Option<OwnedFd>, flows: &mut Vec<Flow>) -> io::Result<OwnedFd> {
    let Some(stream) = stream else { return null() };
    if is_harmless(stream.as_fd())? {
        return Ok(stream);
    }
    let pipe = Pipe::new()?;
    never_block(&pipe.read)?;
    flows.push(Flow::new(pipe.read, Some(&stream), FlowKind::Output)?);
    Ok(pipe.write)
}

/// Whether nothing of the host can be reached through a descriptor: pipes, sockets and /dev/null. A pipe with a name is
/// a file of the host: its owner and mode could be changed through it.
fn is_harmless(descriptor: BorrowedFd<'_>) -> io::Result<bool> {
    let metadata = File::from(descriptor.try_clone_to_owned()?).metadata()?;
    Ok(match FileType::from_raw_mode(metadata.mode()) {
        FileType::Fifo => rustix::fs::fstatfs(descriptor)?.f_type == PIPES_WITHOUT_NAMES,
        FileType::Socket => true,
        FileType::CharacterDevice => metadata.rdev() == rustix::fs::makedev(1, 3),
        _ => false,
    })
}

// === impl Flow ===

impl Flow {
    fn new(from: OwnedFd, to: Option<&OwnedFd>, kind: FlowKind) -> io::Result<Self> {
        let to = to.map(Drain::new).transpose()?;
        Ok(Self { from: Some(from), to, keys: None, kind })
    }

    fn add_to<'a>(&'a self, ready: &mut Ready<'a, Source>, at: usize) {
        let room = self.to.as_ref().is_none_or(|to| to.len() < MOST_WAITING);
        if let Some(from) = &self.from {
            ready.add(Source::From(at), from.as_fd(), when(room, PollFlags::IN));
        }
        if let Some(to) = &self.to {
            ready.add(Source::To(at), to.target(), when(!to.is_empty(), PollFlags::OUT));
        }
    }

    fn write(&mut self) -> io::Result<()> {
        match self.to.as_mut().map_or(Ok(()), Drain::write) {
            // The reader left; what is still to come is nobody's.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPIPE | libc::EIO)) => {
                self.to = None;
                self.from = None;
                Ok(())
            }
            result => result,
        }
    }

    /// A pipe that feeds the process closes once everything is in it: that is its end of file.
    fn close_when_finished(&mut self) {
        if self.from.is_none() && self.to.as_ref().is_some_and(Drain::is_empty) {
            self.to = None;
        }
    }

    fn read(&mut self) -> io::Result<Flowed> {
        let Some(from) = &self.from else { return Ok(Flowed::On) };
        let mut bytes = [0; 16 << 10];
        let length = match rustix::io::read(from, &mut bytes) {
            Ok(length) => length,
            Err(Errno::INTR | Errno::AGAIN) => return Ok(Flowed::On),
            // The other side of a terminal is closed.
            Err(Errno::IO) => 0,
            Err(error) => return Err(error.into()),
        };
        if length == 0 {
            self.from = None;
            return Ok(Flowed::On);
        }
        let typed = match &mut self.keys {
            Some(keys) => keys.typed(&bytes[..length]),
            None => Typed::Bytes(bytes[..length].to_vec()),
        };
        let (bytes, flowed) = match typed {
            Typed::Bytes(bytes) => (bytes, Flowed::On),
            Typed::Detach(bytes) => (bytes, Flowed::Detach),
        };
        if let Some(to) = &mut self.to {
            to.add(&bytes);
        }
        Ok(flowed)
    }
}
