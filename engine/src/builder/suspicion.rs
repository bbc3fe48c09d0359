//! What may be behind a command that failed, where its exit code and what is in the image tell: said as a hint, since
//! nobody but the command knows.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::stack::Stack;

/// A command that failed, and what there is to look at.
pub(crate) struct Scene<'a> {
    /// The program and its arguments.
    pub(crate) argv: &'a [String],
    /// Whether a shell was given the text of the instruction.
    pub(crate) is_shell: bool,
    /// Where it ran.
    pub(crate) cwd: &'a Path,
    /// The files that it left.
    pub(crate) stack: &'a Stack,
    /// The last it wrote.
    pub(crate) said: &'a [u8],
    /// Whether its memory had a limit.
    pub(crate) is_limited: bool,
}

/// How much of a program's file is read: its header, and what it says of its loader.
const MOST_HEADER: u64 = 64 << 10;

/// ELF's number of the entry that names a program's loader (elf(5), `PT_INTERP`).
const PT_INTERP: u32 = 3;

// === impl Scene ===

impl Scene<'_> {
    /// What may be behind this exit code.
    pub(crate) fn of_code(&self, code: i32) -> Option<String> {
        match code {
            126 => self.named("Permission denied").and_then(|path| self.of_mode(&path)),
            127 if self.is_shell && self.argv.last().is_some_and(|text| text.starts_with('[')) => Some(
                "what stands in [ ] is no JSON, so the shell was given it: its words need double quotes"
                    .to_owned(),
            ),
            127 => self.named("not found").and_then(|path| self.of_program(&path)),
            137 if self.is_limited => {
                Some("it was killed: the limit of --memory may be too little".to_owned())
            }
            137 => {
                Some("it was killed, which the kernel does when memory runs out (dmesg says so)".to_owned())
            }
            _ => None,
        }
    }

    /// What may be behind a program that could not be started, by what is said of it.
    pub(crate) fn of_start(&self, message: &str) -> Option<String> {
        let program = Path::new(self.argv.first()?);
        if message.starts_with("unable to find user") || message.starts_with("unable to find group") {
            return Some("names are those of the image's own /etc/passwd and /etc/group: make them with RUN, as useradd does".to_owned());
        }
        if message.contains("exec format error") {
            return Some(format!(
                "{} is for another kind of machine, or a script whose first line does not name its interpreter (#!/bin/sh)",
                program.display()
            ));
        }
        if message.contains("no such file") {
            return match self.of_program(program) {
                None if self.is_shell => Some(format!(
                    "the image has no {}; RUN [\"program\", \"argument\"] needs no shell",
                    program.display()
                )),
                other => other,
            };
        }
        message.contains("permission denied").then(|| self.of_mode(program)).flatten()
    }

    /// A file that may not be executed.
    fn of_mode(&self, path: &Path) -> Option<String> {
        let (metadata, _) = self.file(path)?;
        let is_executable = std::os::unix::fs::MetadataExt::mode(&metadata) & 0o111 != 0;
        (metadata.is_file() && !is_executable)
            .then(|| format!("{0} is not executable: COPY --chmod=755, or RUN chmod +x {0}", path.display()))
    }

    /// A program that is there, and is said not to be: it is its interpreter or its loader that is missing.
    fn of_program(&self, path: &Path) -> Option<String> {
        if !path.to_string_lossy().contains('/') {
            return None;
        }
        let (_, host) = self.file(path)?;
        let (kind, needed) = needed(&host).ok()??;
        let shown = path.display();
        if needed.ends_with('\r') {
            return Some(format!(
                "the lines of {shown} end as Windows has it (CRLF), so it asks for {needed:?}: sed -i 's/\\r$//' {shown}"
            ));
        }
        match (self.file(Path::new(&needed)), kind) {
            (Some(_), _) => None,
            (None, Needed::Interpreter) => {
                Some(format!("{shown} begins with #!{needed}, which the image does not have"))
            }
            (None, Needed::Loader) => Some(format!(
                "{shown} is there, but its loader {needed} is not: it was linked for another C library than the image has"
            )),
        }
    }

    /// The path in the last line that ends in these words: `/bin/sh: 1: ./run.sh: not found`.
    fn named(&self, words: &str) -> Option<PathBuf> {
        let said = String::from_utf8_lossy(self.said);
        let line = said.lines().rev().find(|line| line.trim_end().ends_with(words))?;
        let before = line.trim_end().strip_suffix(words)?.trim_end().strip_suffix(':')?;
        Some(PathBuf::from(before.rsplit(": ").next()?.trim()))
    }

    /// A file of the image, and where it is here.
    fn file(&self, path: &Path) -> Option<(std::fs::Metadata, PathBuf)> {
        let path = Path::new("/").join(self.cwd).join(path);
        let entry = self.stack.resolve(&path, true).ok()?.entry?;
        Some((entry.metadata, entry.host))
    }
}

/// What a program needs to be started.
enum Needed {
    Interpreter,
    Loader,
}

/// The interpreter of a script, or the loader of a program that is linked to libraries.
fn needed(host: &Path) -> io::Result<Option<(Needed, String)>> {
    let mut file = File::open(host)?;
    let mut head = Vec::new();
    file.by_ref().take(MOST_HEADER).read_to_end(&mut head)?;
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let line = line.trim_start_matches([' ', '\t']);
        let end = line.find([' ', '\t']).unwrap_or(line.len());
        // A carriage return after an argument is the argument's.
        return Ok(Some((Needed::Interpreter, line[..end].to_owned())));
    }
    Ok(loader(&mut file, &head)?.map(|loader| (Needed::Loader, loader)))
}

/// The loader that a program of 64 bits names.
fn loader(file: &mut File, head: &[u8]) -> io::Result<Option<String>> {
    // Of the class and the order of bytes that this machine's programs have.
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return Ok(None);
    }
    let (Some(table), Some(size), Some(count)) =
        (number(head, 32, 8), number(head, 54, 2), number(head, 56, 2))
    else {
        return Ok(None);
    };
    for index in 0..count {
        // Whoever made the file may have written any numbers.
        let at = table.checked_add(index * size).and_then(|at| usize::try_from(at).ok());
        let Some(entry) = at.and_then(|at| head.get(at..)) else { break };
        if number(entry, 0, 4) != Some(u64::from(PT_INTERP)) {
            continue;
        }
        let (Some(offset), Some(length)) = (number(entry, 8, 8), number(entry, 32, 8)) else { break };
        let mut name = Vec::new();
        file.seek(SeekFrom::Start(offset))?;
        file.by_ref().take(length.min(4096)).read_to_end(&mut name)?;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        return Ok(OsStr::to_str(std::os::unix::ffi::OsStrExt::from_bytes(name)).map(str::to_owned));
    }
    Ok(None)
}

/// A number in the order of bytes that this machine's programs have.
fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + size)?;
    Some(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn hint(said: &str, code: i32, files: &[(&str, &[u8])]) -> Option<String> {
        let root = tempfile::tempdir().unwrap();
        for (path, bytes) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        }
        let stack = Stack::of(vec![root.path().to_owned()]);
        let argv = ["/bin/sh", "-c", "./run.sh"].map(str::to_owned);
        let cwd = Path::new("/app");
        let scene = Scene {
            argv: &argv,
            is_shell: true,
            cwd,
            stack: &stack,
            said: said.as_bytes(),
            is_limited: false,
        };
        scene.of_code(code)
    }

    #[test]
    fn a_program_that_is_there_and_not_found_lacks_what_starts_it() {
        let said = "before\n/bin/sh: 1: ./run.sh: not found\n";
        let is_said = |bytes: &[u8], part: &str| {
            let hint = hint(said, 127, &[("app/run.sh", bytes)]);
            assert!(hint.as_ref().is_some_and(|hint| hint.contains(part)), "{hint:?}");
        };
        is_said(b"#!/bin/sh\r\necho hi\r\n", "CRLF");
        is_said(b"#! /usr/bin/bash -e\n", "#!/usr/bin/bash, which the image does not have");
        assert_eq!(hint(said, 127, &[("app/run.sh", b"#!/bin/sh\n"), ("bin/sh", b"")]), None);
        assert_eq!(hint(said, 127, &[]), None);
        assert_eq!(hint("/bin/sh: 1: pip: not found", 127, &[]), None);
        is_said(&linked(64), "its loader /lib/ld.so is not");
        assert_eq!(hint(said, 127, &[("app/run.sh", &linked(64)), ("lib/ld.so", b"")]), None);
        assert_eq!(hint(said, 127, &[("app/run.sh", &linked(u64::MAX))]), None);
    }

    /// A program of 64 bits whose only entry, at this offset, names its loader.
    fn linked(table: u64) -> Vec<u8> {
        let mut program = b"\x7fELF\x02\x01".to_vec();
        program.resize(64, 0);
        program[32..40].copy_from_slice(&table.to_le_bytes());
        program[54..56].copy_from_slice(&56_u16.to_le_bytes());
        program[56..58].copy_from_slice(&1_u16.to_le_bytes());
        program.extend(PT_INTERP.to_le_bytes());
        program.resize(120, 0);
        program[72..80].copy_from_slice(&120_u64.to_le_bytes());
        program[96..104].copy_from_slice(&11_u64.to_le_bytes());
        program.extend(b"/lib/ld.so\0");
        program
    }

    #[test]
    fn a_file_that_may_not_be_executed_is_named() {
        let said = "/bin/sh: 1: ./run.sh: Permission denied\n";
        let hint = hint(said, 126, &[("app/run.sh", b"#!/bin/sh\n")]).unwrap();
        assert_eq!(hint, "./run.sh is not executable: COPY --chmod=755, or RUN chmod +x ./run.sh");
    }
}
