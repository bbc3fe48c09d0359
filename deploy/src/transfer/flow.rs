//! A long stream of bytes over a channel: compressed, in small frames, each of which can be read without the next,
//! so that a cut loses less than one. The receiver says after each [`STEP`] that it goes on, or that it is no use;
//! the sender runs no further ahead of its word than [`AHEAD`].

use std::io::{self, Read, Write};

use zstd::stream::raw::{self, Operation};

use crate::protocol::{Channel, ChannelError};
use crate::transfer::failure::{Failure, TransferError, here};
use crate::transfer::message::{Answer, Tag, told};

/// The sending end.
pub(super) struct Outflow<'a> {
    channel: &'a mut Channel,
    encoder: zstd::stream::write::Encoder<'static, Vec<u8>>,
    /// Bytes in the encoder since a frame was sent.
    waiting: usize,
    sent: u64,
    steps_heard: u64,
    is_over: bool,
}

/// The receiving end.
pub(super) struct Inflow<'a> {
    channel: &'a mut Channel,
    decoder: raw::Decoder<'static>,
    frame: Vec<u8>,
    at: usize,
    received: u64,
    steps_said: u64,
    is_over: bool,
    /// Why reading failed, where an `io::Error` cannot tell.
    pub(super) failed: Option<TransferError>,
}

/// Bytes before compression that go into one frame.
const FRAME: usize = 32 << 10;

/// Bytes on the wire after which the receiver gives a sign.
const STEP: u64 = 1 << 20;

/// Steps that may be on their way without one: more than fits a fast line with a long way.
const AHEAD: u64 = 8;

/// Compression by speed: links are slower than this, and files above a few kilobytes gain little from more.
const LEVEL: i32 = 3;

// === impl Outflow ===

impl<'a> Outflow<'a> {
    pub(super) fn new(channel: &'a mut Channel) -> Result<Self, TransferError> {
        let encoder =
            zstd::stream::write::Encoder::new(Vec::new(), LEVEL).map_err(here("start to compress"))?;
        Ok(Self { channel, encoder, waiting: 0, sent: 0, steps_heard: 0, is_over: false })
    }

    pub(super) fn write(&mut self, mut bytes: &[u8]) -> Result<(), TransferError> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(FRAME - self.waiting));
            self.encoder.write_all(now).map_err(here("compress what is sent"))?;
            self.waiting += now.len();
            if self.waiting == FRAME {
                self.frame()?;
            }
            bytes = later;
        }
        Ok(())
    }

    /// Sends what is left, and hears that all of it was taken.
    pub(super) fn finish(mut self) -> Result<(), TransferError> {
        if self.waiting > 0 {
            self.frame()?;
        }
        self.send(Tag::End, &[])?;
        self.hear_all()
    }

    /// Tells the other side that the rest will not come, and why. Gives the reason back.
    pub(super) fn fail(mut self, error: TransferError) -> TransferError {
        if !error.is_of_use_to_tell() {
            return error;
        }
        // When this does not reach the other side either, the first failure is still the one to tell.
        let told = serde_json::to_vec(&error.to_failure()).unwrap_or_default();
        let _ = self.send(Tag::Failed, &told).and_then(|()| self.hear_all());
        error
    }

    fn frame(&mut self) -> Result<(), TransferError> {
        self.encoder.flush().map_err(here("compress what is sent"))?;
        self.waiting = 0;
        let bytes = std::mem::take(self.encoder.get_mut());
        self.send(Tag::Bytes, &bytes)?;
        while self.sent / STEP >= self.steps_heard + AHEAD {
            self.hear()?;
        }
        Ok(())
    }

    fn send(&mut self, tag: Tag, bytes: &[u8]) -> Result<(), TransferError> {
        let frame = [&[tag.byte()], bytes].concat();
        self.channel.send_data(&frame)?;
        self.sent += frame.len() as u64;
        if tag != Tag::Bytes {
            self.is_over = true;
            // Only a message makes the channel send what waits.
            self.channel.send(&())?;
        }
        Ok(())
    }

    fn hear_all(&mut self) -> Result<(), TransferError> {
        while self.sent / STEP > self.steps_heard {
            self.hear()?;
        }
        Ok(())
    }

    fn hear(&mut self) -> Result<(), TransferError> {
        match self.channel.receive()? {
            Answer::Go => {
                self.steps_heard += 1;
                Ok(())
            }
            Answer::Failed(failure) => {
                // It reads on until it sees the end.
                if !self.is_over {
                    self.send(Tag::End, &[])?;
                }
                Err(TransferError::There(failure))
            }
            other => Err(TransferError::Refused(format!("{other:?} in the middle of a stream"))),
        }
    }
}

// === impl Inflow ===

impl<'a> Inflow<'a> {
    pub(super) fn new(channel: &'a mut Channel) -> Result<Self, TransferError> {
        let decoder = raw::Decoder::new().map_err(here("start to decompress"))?;
        let (frame, at, received, steps_said) = (Vec::new(), 0, 0, 0);
        Ok(Self { channel, decoder, frame, at, received, steps_said, is_over: false, failed: None })
    }

    /// What is behind an error of reading.
    pub(super) fn failure(&mut self, error: io::Error) -> TransferError {
        self.failed.take().unwrap_or_else(|| here("read what is sent")(error))
    }

    /// Reads to the end of the stream, in which nothing more may be.
    pub(super) fn finish(mut self) -> Result<(), TransferError> {
        let mut rest = [0];
        match self.read(&mut rest) {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.stop(TransferError::Refused("more bytes came than were asked for".to_owned()))),
            Err(error) => Err(self.failure(error)),
        }
    }

    /// Tells the sender to stop, and why, and waits until it does. Gives the reason back.
    pub(super) fn stop(mut self, error: TransferError) -> TransferError {
        if !error.is_of_use_to_tell() {
            return error;
        }
        // When this does not reach the other side either, the first failure is still the one to tell.
        let _ = self.stop_and_drain(error.to_failure());
        error
    }

    fn stop_and_drain(&mut self, failure: Failure) -> Result<(), ChannelError> {
        self.channel.send(&Answer::Failed(failure))?;
        if self.is_over {
            return Ok(());
        }
        while !self.is_over {
            let frame = self.channel.receive_data()?;
            self.is_over = frame.first().copied().and_then(Tag::of) != Some(Tag::Bytes);
        }
        self.channel.receive()
    }

    /// The next frame; false at the end.
    fn next_frame(&mut self) -> Result<bool, TransferError> {
        if self.is_over {
            return Ok(false);
        }
        self.frame = self.channel.receive_data()?;
        self.at = 1;
        self.received += self.frame.len() as u64;
        while self.received / STEP > self.steps_said {
            self.channel.send(&Answer::Go)?;
            self.steps_said += 1;
        }
        match self.frame.first().copied().and_then(Tag::of) {
            Some(Tag::Bytes) => Ok(true),
            Some(Tag::End) => {
                self.is_over = true;
                self.channel.receive::<()>()?;
                Ok(false)
            }
            Some(Tag::Failed) => {
                self.is_over = true;
                self.channel.receive::<()>()?;
                Err(told(&self.frame[1..]))
            }
            None => Err(TransferError::Refused("a frame of no known kind".to_owned())),
        }
    }
}

impl Read for Inflow<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        loop {
            let done = self.decoder.run_on_buffers(&self.frame[self.at.min(self.frame.len())..], bytes)?;
            self.at += done.bytes_read;
            if done.bytes_written > 0 {
                return Ok(done.bytes_written);
            }
            if self.at < self.frame.len() && done.bytes_read > 0 {
                continue;
            }
            match self.next_frame() {
                Ok(true) => {}
                Ok(false) => return Ok(0),
                Err(error) => {
                    let told = io::Error::other(error.to_string());
                    self.failed = Some(error);
                    return Err(told);
                }
            }
        }
    }
}
