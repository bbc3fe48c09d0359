//! A tar as a stream of members: headers and extensions parsed with limits, contents borrowed, nothing trusted.
//!
//! Reads what layers are made of: ustar, GNU long names, PAX records (pax(1)), and sparse files.

use std::io::{self, BufRead, Read};

use tar::{EntryType, Header};

mod sparse;

pub(crate) use sparse::{Content, Sparse};

/// The members of a tar, read once from front to back.
pub(crate) struct Members<R> {
    reader: R,
    /// Bytes of the current member not read yet, and the padding behind them.
    left: u64,
    padding: u64,
}

/// One member: what its header and extensions say.
#[derive(Debug)]
pub(crate) struct Member {
    /// As the tar has it, neither cleaned nor trusted.
    pub(crate) path: Vec<u8>,
    /// What a link points to.
    pub(crate) link: Vec<u8>,
    pub(crate) kind: EntryType,
    /// Permission bits with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Bytes of content in the tar.
    pub(crate) size: u64,
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the content goes in a sparse file.
    pub(crate) sparse: Option<Sparse>,
}

/// Why a stream is not a tar that is unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MemberError {
    #[error("read the archive")]
    Read(#[source] io::Error),
    #[error("the archive ends in the middle of a member")]
    Truncated,
    #[error("the archive is damaged: {0}")]
    Damaged(&'static str),
    #[error("the archive has {0}, which is refused")]
    Refused(&'static str),
}

/// Extensions that precede a member.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    time: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse: Option<sparse::Notes>,
}

const BLOCK: usize = 512;

/// The most bytes extensions of one member may have: far more than any path or attribute, far less than memory.
const MOST_EXTENSION: u64 = 1 << 20;

// === impl Members ===

impl<R: BufRead> Members<R> {
    /// The members of this tar.
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, left: 0, padding: 0 }
    }

    /// The reader behind the members.
    pub(crate) fn get_mut(&mut self) -> &mut R {
        &mut self.reader
    }

    /// The next member; what is left of the current one is skipped.
    pub(crate) fn next(&mut self) -> Result<Option<Member>, MemberError> {
        let mut extensions = Extensions::default();
        loop {
            self.skip(self.left + self.padding)?;
            (self.left, self.padding) = (0, 0);
            let Some(header) = self.header()? else { return Ok(None) };
            let size = numeric(&header.as_old().size, header.entry_size(), "a size is not a number")?;
            match header.entry_type() {
                EntryType::GNULongName => extensions.path = Some(until_nul(self.extension(size)?)),
                EntryType::GNULongLink => extensions.link = Some(until_nul(self.extension(size)?)),
                EntryType::XHeader => {
                    let records = self.extension(size)?;
                    extensions.read(&records)?;
                }
                // Defaults for all members: nothing in them concerns a layer.
                EntryType::XGlobalHeader => self.begin(size),
                _ => return self.member(&header, extensions).map(Some),
            }
        }
    }

    /// The next bytes of the current member's content; empty at its end.
    pub(crate) fn content(&mut self) -> Result<&[u8], MemberError> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let bytes = fill(&mut self.reader)?;
        if bytes.is_empty() {
            return Err(MemberError::Truncated);
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        Ok(&bytes[..most])
    }

    /// Says that these bytes of content have been used.
    pub(crate) fn consume(&mut self, bytes: usize) {
        self.reader.consume(bytes);
        self.left -= bytes as u64;
    }

    /// Reads whatever follows the last member, so that the stream has been seen whole.
    pub(crate) fn drain(mut self) -> Result<(), MemberError> {
        loop {
            let bytes = fill(&mut self.reader)?.len();
            if bytes == 0 {
                return Ok(());
            }
            self.reader.consume(bytes);
        }
    }

    fn member(&mut self, header: &Header, extensions: Extensions) -> Result<Member, MemberError> {
        let kind = header.entry_type();
        let old = header.as_old();
        let header_size = numeric(&old.size, header.entry_size(), "a size is not a number")?;
        // Links, nodes and directories have no content, whatever their size field says (pax(1), "typeflag").
        let header_only = kind.is_hard_link() || kind.is_symlink() || kind.is_dir() || is_node(kind);
        let size = if header_only { 0 } else { extensions.size.unwrap_or(header_size) };
        let owner = |field: &[u8], value: io::Result<u64>, what| {
            let value = numeric(field, value, what)?;
            // The highest number means "nobody" to chown(2).
            u32::try_from(value).ok().filter(|id| *id != u32::MAX).ok_or(MemberError::Damaged(what))
        };
        let (seconds, nanoseconds) = match extensions.time {
            Some(time) => time,
            None => (numeric(&old.mtime, header.mtime(), "a time is not a number")?.cast_signed(), 0),
        };
        let device = match kind {
            EntryType::Char | EntryType::Block => {
                // Where both ustar and GNU tar have them.
                let (major, minor) = (&header.as_bytes()[329..337], &header.as_bytes()[337..345]);
                let number = |field: &[u8], value: io::Result<Option<u32>>| {
                    let value = value.map(|number| u64::from(number.unwrap_or(0)));
                    let value = numeric(field, value, "a device is not a number")?;
                    u32::try_from(value).map_err(|_| MemberError::Damaged("a device is not a number"))
                };
                (number(major, header.device_major())?, number(minor, header.device_minor())?)
            }
            _ => (0, 0),
        };
        let mode = numeric(&old.mode, header.mode().map(u64::from), "a mode is not a number")?;
        let mut member = Member {
            path: extensions.path.unwrap_or_else(|| header.path_bytes().into_owned()),
            link: extensions.link.unwrap_or_else(|| {
                header.link_name_bytes().map(|name| name.into_owned()).unwrap_or_default()
            }),
            kind,
            mode: u32::try_from(mode & 0o7777).unwrap_or(0),
            uid: extensions
                .uid
                .map_or_else(|| owner(&old.uid, header.uid(), "an owner is not a number"), Ok)?,
            gid: extensions
                .gid
                .map_or_else(|| owner(&old.gid, header.gid(), "a group is not a number"), Ok)?,
            size,
            seconds,
            nanoseconds,
            device,
            xattrs: extensions.xattrs,
            sparse: None,
        };
        if kind == EntryType::GNUSparse {
            member.sparse = Some(self.gnu_map(header, size)?);
        }
        // A regular file whose name ends in a slash is how tars older than POSIX write a directory.
        if kind == EntryType::Regular && member.path.ends_with(b"/") {
            member.kind = EntryType::Directory;
        }
        self.begin(size);
        if let Some(mut notes) = extensions.sparse.filter(|_| member.kind.is_file()) {
            member.path = notes.name.take().unwrap_or(member.path);
            let (map, before) = self.pax_map(notes, size)?;
            (self.left, member.size, member.sparse) = (size - before, size - before, Some(map));
        }
        Ok(member)
    }

    /// The next header; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>, MemberError> {
        let mut header = Header::new_old();
        if fill(&mut self.reader)?.is_empty() {
            return Ok(None);
        }
        read_exact(&mut self.reader, header.as_mut_bytes())?;
        let bytes = header.as_bytes();
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        // The checksum counts its own field as blanks.
        let sum: u32 =
            bytes[..148].iter().chain(&bytes[156..]).map(|byte| u32::from(*byte)).sum::<u32>() + 8 * 32;
        if header.cksum().ok() != Some(sum) {
            return Err(MemberError::Damaged("a header's checksum is wrong, as in what is no tar"));
        }
        Ok(Some(header))
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, MemberError> {
        if size > MOST_EXTENSION {
            return Err(MemberError::Refused("a name or attribute of more than a megabyte"));
        }
        self.begin(size);
        let mut bytes = Vec::new();
        (&mut self.reader).take(size).read_to_end(&mut bytes).map_err(MemberError::Read)?;
        if bytes.len() as u64 != size {
            return Err(MemberError::Truncated);
        }
        self.left = 0;
        Ok(bytes)
    }

    fn begin(&mut self, size: u64) {
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
    }

    fn skip(&mut self, mut bytes: u64) -> Result<(), MemberError> {
        while bytes > 0 {
            let here = fill(&mut self.reader)?.len();
            if here == 0 {
                return Err(MemberError::Truncated);
            }
            let step = usize::try_from(bytes).unwrap_or(usize::MAX).min(here);
            self.reader.consume(step);
            bytes -= step as u64;
        }
        Ok(())
    }
}

// === impl Extensions ===

impl Extensions {
    /// Reads PAX records, `<length> <key>=<value>\n`.
    fn read(&mut self, mut records: &[u8]) -> Result<(), MemberError> {
        const DAMAGED: MemberError = MemberError::Damaged("a PAX record is not one");
        while !records.is_empty() {
            let space = records.iter().position(|byte| *byte == b' ').ok_or(DAMAGED)?;
            let length: usize = std::str::from_utf8(&records[..space])
                .ok()
                .and_then(|text| text.parse().ok())
                .ok_or(DAMAGED)?;
            if length > records.len() || length < space + 3 || records[length - 1] != b'\n' {
                return Err(DAMAGED);
            }
            let record = &records[space + 1..length - 1];
            let equals = record.iter().position(|byte| *byte == b'=').ok_or(DAMAGED)?;
            self.set(&record[..equals], &record[equals + 1..])?;
            records = &records[length..];
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), MemberError> {
        // An empty value takes an earlier one back (pax(1)), and there was none.
        if value.is_empty() && !key.starts_with(b"SCHILY.xattr.") {
            return Ok(());
        }
        const NO_NUMBER: MemberError = MemberError::Damaged("a PAX record has no number");
        let text = || std::str::from_utf8(value).map_err(|_| NO_NUMBER);
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(text()?.parse().map_err(|_| NO_NUMBER)?),
            b"uid" => self.uid = Some(text()?.parse().ok().filter(|id| *id != u32::MAX).ok_or(NO_NUMBER)?),
            b"gid" => self.gid = Some(text()?.parse().ok().filter(|id| *id != u32::MAX).ok_or(NO_NUMBER)?),
            b"mtime" => self.time = Some(pax_time(text()?).ok_or(NO_NUMBER)?),
            _ => {
                if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    return self.sparse.get_or_insert_default().take(key, value);
                }
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

/// Seconds and nanoseconds since the epoch, of a decimal that may be negative.
fn pax_time(text: &str) -> Option<(i64, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanoseconds = fraction
        .bytes()
        .chain(std::iter::repeat(b'0'))
        .take(9)
        .fold(0u32, |value, digit| value * 10 + u32::from(digit - b'0'));
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some((seconds - 1, 1_000_000_000 - nanoseconds));
    }
    Some((seconds, nanoseconds))
}

/// A number of a header. Old writers leave fields empty that do not matter to them.
fn numeric(field: &[u8], value: io::Result<u64>, what: &'static str) -> Result<u64, MemberError> {
    let is_empty = field.iter().all(|byte| matches!(byte, 0 | b' '));
    if is_empty { Ok(0) } else { value.map_err(|_| MemberError::Damaged(what)) }
}

fn is_node(kind: EntryType) -> bool {
    kind.is_character_special() || kind.is_block_special() || kind.is_fifo()
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

fn fill<R: BufRead>(reader: &mut R) -> Result<&[u8], MemberError> {
    // Asked twice because a borrow cannot leave the loop that would retry an interrupted call.
    loop {
        match reader.fill_buf() {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(MemberError::Read(error)),
        }
    }
    reader.fill_buf().map_err(MemberError::Read)
}

fn read_exact(reader: &mut impl Read, bytes: &mut [u8]) -> Result<(), MemberError> {
    reader.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => MemberError::Truncated,
        _ => MemberError::Read(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(tar: &[u8]) -> Result<Vec<Member>, MemberError> {
        let mut members = Members::new(tar);
        let mut all = Vec::new();
        while let Some(member) = members.next()? {
            all.push(member);
        }
        members.drain()?;
        Ok(all)
    }

    fn header(name: &str, kind: EntryType, size: u64) -> Header {
        let mut header = Header::new_ustar();
        header.set_path(name).unwrap();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header.set_cksum();
        header
    }

    fn padded(mut tar: Vec<u8>, content: &[u8]) -> Vec<u8> {
        tar.extend_from_slice(content);
        tar.resize(tar.len().next_multiple_of(512), 0);
        tar
    }

    fn with_pax(records: &[u8]) -> Vec<u8> {
        let tar = header("pax", EntryType::XHeader, records.len() as u64).as_bytes().to_vec();
        let mut tar = padded(tar, records);
        tar.extend_from_slice(header("file", EntryType::Regular, 0).as_bytes());
        tar
    }

    #[test]
    fn pax_records_win_over_the_header() {
        let tar = with_pax(b"12 path=abc\n15 uid=3000000\n19 mtime=-1.500000\n27 SCHILY.xattr.user.a=b\0c\n");
        let member = read(&tar).unwrap().remove(0);
        assert_eq!(member.path, b"abc");
        assert_eq!(member.uid, 3_000_000);
        assert_eq!((member.seconds, member.nanoseconds), (-2, 500_000_000));
        assert_eq!(member.xattrs, [(b"user.a".to_vec(), b"b\0c".to_vec())]);
    }

    /// Each form of a sparse file of a million bytes, as it says where its two pieces go.
    #[test]
    fn sparse_files_are_read_in_every_form() {
        let with = |records: &[&str], content: &[u8]| {
            let record = |text: &&str| {
                let length =
                    (1..).find(|length| length.to_string().len() + text.len() + 2 == *length).unwrap();
                format!("{length} {text}\n")
            };
            let records: String = records.iter().map(record).collect();
            let tar = header("pax", EntryType::XHeader, records.len() as u64).as_bytes().to_vec();
            let mut tar = padded(tar, records.as_bytes());
            let name = "GNUSparseFile.0/made-up";
            tar.extend(header(name, EntryType::Regular, content.len() as u64).as_bytes());
            padded(tar, content)
        };
        let map = [&b"2\n0\n3\n999998\n2\n"[..], &[0; 497], b"abcyz"].concat();
        assert_eq!(map.len(), 512 + 5);
        let forms = [
            with(
                &[
                    "GNU.sparse.size=1000000",
                    "GNU.sparse.numblocks=2",
                    "GNU.sparse.offset=0",
                    "GNU.sparse.numbytes=3",
                    "GNU.sparse.offset=999998",
                    "GNU.sparse.numbytes=2",
                    "GNU.sparse.name=file",
                ],
                b"abcyz",
            ),
            with(
                &["GNU.sparse.size=1000000", "GNU.sparse.map=0,3,999998,2", "GNU.sparse.name=file"],
                b"abcyz",
            ),
            with(
                &[
                    "GNU.sparse.major=1",
                    "GNU.sparse.minor=0",
                    "GNU.sparse.name=file",
                    "GNU.sparse.realsize=1000000",
                ],
                &map,
            ),
        ];
        for form in forms {
            let mut members = Members::new(&form[..]);
            let member = members.next().unwrap().unwrap();
            assert_eq!((&member.path[..], member.size), (&b"file"[..], 5));
            let mut content = Vec::new();
            Content::of(&mut members, member.sparse.as_ref(), member.size).read_to_end(&mut content).unwrap();
            assert_eq!(content.len(), 1_000_000);
            assert!(content.starts_with(b"abc\0") && content.ends_with(b"\0yz"));
            assert!(members.next().unwrap().is_none());
        }
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let good = padded(header("file", EntryType::Regular, 700).as_bytes().to_vec(), &[7; 700]);
        assert_eq!(read(&good).unwrap().len(), 1);
        for length in 1..good.len() {
            assert!(read(&good[..length]).is_err(), "cut at {length}");
        }
        let mut flipped = good.clone();
        flipped[3] ^= 1;
        assert!(matches!(read(&flipped), Err(MemberError::Damaged(_))));
        let records = [
            &b"5 a=b\n"[..],
            b"99 path=a\n",
            b"x path=a\n",
            b"3 \n",
            b"7 size=\n",
            b"6 a=b\n0 ",
            b"22 GNU.sparse.major=1\n",
            b"22 GNU.sparse.map=0,3\n",
            b"21 GNU.sparse.map=0,\n",
        ];
        for records in records {
            let result = read(&with_pax(records));
            assert!(result.is_err(), "{:?}", String::from_utf8_lossy(records));
        }
    }

    #[test]
    fn an_extension_that_would_fill_the_memory_is_refused() {
        let tar = header("pax", EntryType::XHeader, 1 << 40).as_bytes().to_vec();
        assert!(matches!(read(&tar), Err(MemberError::Refused(_))));
        let tar = header("long", EntryType::GNULongName, 1 << 40).as_bytes().to_vec();
        assert!(matches!(read(&tar), Err(MemberError::Refused(_))));
    }
}
