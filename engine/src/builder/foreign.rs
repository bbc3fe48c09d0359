//! Programs of other processors: whether this kernel runs them, and a clear word when it does not.
//!
//! The kernel hands them to an emulator that binfmt_misc names (admin-guide/binfmt-misc.rst). Where that is mounted
//! and QEMU is installed but not registered, it is registered here, with the flag that makes it work in containers.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::image::Platform;

/// What the ELF headers of an architecture's programs have.
struct Machine {
    /// Go's name.
    architecture: &'static str,
    /// QEMU's name.
    qemu: &'static str,
    /// EI_CLASS: 1 for 32 bits, 2 for 64.
    class: u8,
    /// Whether numbers begin with their high byte.
    is_big_endian: bool,
    /// e_machine.
    number: u16,
}

const MACHINES: [Machine; 9] = [
    Machine::little("386", "i386", 1, 3),
    Machine::little("amd64", "x86_64", 2, 62),
    Machine::little("arm", "arm", 1, 40),
    Machine::little("arm64", "aarch64", 2, 183),
    Machine::little("loong64", "loongarch64", 2, 258),
    Machine::little("mips64le", "mips64el", 2, 8),
    Machine::little("ppc64le", "ppc64le", 2, 21),
    Machine::little("riscv64", "riscv64", 2, 243),
    Machine { architecture: "s390x", qemu: "s390x", class: 2, is_big_endian: true, number: 22 },
];

/// Where the kernel's table of emulators is, if it is mounted.
const TABLE: &str = "/proc/sys/fs/binfmt_misc";

/// Makes sure that programs for this platform can run here.
pub(crate) fn make_ready(platform: &Platform) -> Result<()> {
    if is_native(platform) {
        return Ok(());
    }
    let Some(machine) = MACHINES.iter().find(|machine| machine.architecture == platform.architecture) else {
        return Err(cannot(platform, "nothing here knows that processor"));
    };
    let table = Path::new(TABLE);
    if !table.join("status").exists() {
        let hint = format!("mount -t binfmt_misc binfmt_misc {TABLE}, and install qemu-user-static");
        return Err(cannot(platform, hint));
    }
    if is_registered(table, machine) {
        return Ok(());
    }
    let Some(emulator) = machine.emulator() else {
        return Err(cannot(platform, "install an emulator: apt-get install qemu-user-static binfmt-support"));
    };
    fs::write(table.join("register"), machine.registration(&emulator)).map_err(|error| {
        Error::failed(format!("register {} for {platform}", emulator.display()), error)
            .with_hint("docker run --privileged --rm tonistiigi/binfmt, or update-binfmts --enable")
    })
}

fn cannot(platform: &Platform, hint: impl Into<String>) -> Error {
    let host = Platform::host();
    let message =
        format!("programs for {platform} do not run on this machine ({host}): it has no emulator for them");
    Error::new(Kind::Unsupported, message).with_hint(hint)
}

fn is_native(platform: &Platform) -> bool {
    let host = Platform::host();
    // Processors of 64 bits run what their predecessors ran.
    let is_older = matches!(
        (host.architecture.as_str(), platform.architecture.as_str()),
        ("amd64", "386") | ("arm64", "arm")
    );
    platform.architecture.is_empty() || host.architecture == platform.architecture || is_older
}

fn is_registered(table: &Path, machine: &Machine) -> bool {
    let entries = fs::read_dir(table).into_iter().flatten().flatten();
    entries.filter_map(|entry| fs::read_to_string(entry.path()).ok()).any(|entry| takes(&entry, machine))
}

/// Whether an entry of the table is for this machine's programs: it is on, and looks at their headers' numbers.
fn takes(entry: &str, machine: &Machine) -> bool {
    let magic = entry.lines().find_map(|line| line.strip_prefix("magic ")).unwrap_or_default();
    let at = |start: usize| magic.get(start * 2..start * 2 + 4).unwrap_or_default();
    let number = if machine.is_big_endian { machine.number } else { machine.number.swap_bytes() };
    entry.lines().next() == Some("enabled")
        && magic.get(8..10) == Some(&format!("{:02x}", machine.class))
        && at(18) == format!("{number:04x}")
}

// === impl Machine ===

impl Machine {
    const fn little(architecture: &'static str, qemu: &'static str, class: u8, number: u16) -> Self {
        Self { architecture, qemu, class, is_big_endian: false, number }
    }

    fn emulator(&self) -> Option<PathBuf> {
        let names = [format!("/usr/bin/qemu-{}-static", self.qemu), format!("/usr/bin/qemu-{}", self.qemu)];
        names.into_iter().map(PathBuf::from).find(|path| is_static(path).unwrap_or(false))
    }

    /// The line that the kernel reads: name, magic, mask, emulator, and `F`, which opens the emulator now so that
    /// it need not be in the container.
    fn registration(&self, emulator: &Path) -> String {
        let order = if self.is_big_endian { 2 } else { 1 };
        let mut magic = vec![0x7f, b'E', b'L', b'F', self.class, order, 1, 0];
        magic.extend([0; 8]);
        let mut mask = vec![0xff; 7];
        mask.push(0);
        mask.extend([0xff; 8]);
        // Programs and position-independent ones: ET_EXEC is 2, ET_DYN is 3.
        if self.is_big_endian {
            magic.extend([0, 2]);
            magic.extend(self.number.to_be_bytes());
            mask.extend([0xff, 0xfe, 0xff, 0xff]);
        } else {
            magic.extend([2, 0]);
            magic.extend(self.number.to_le_bytes());
            mask.extend([0xfe, 0xff, 0xff, 0xff]);
        }
        let escaped = |bytes: &[u8]| bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
        format!(":qemu-{}:M::{}:{}:{}:F", self.qemu, escaped(&magic), escaped(&mask), emulator.display())
    }
}

/// Whether a program needs nothing but itself: one with an interpreter (PT_INTERP) needs that in the container.
fn is_static(path: &Path) -> io::Result<bool> {
    use std::io::Read;
    let mut head = Vec::new();
    fs::File::open(path)?.take(4096).read_to_end(&mut head)?;
    Ok(!head.windows(8).any(|window| window == b"/ld-linu" || window == b"/ld64.so"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_known_by_the_headers_it_looks_at() {
        let machine = |name: &str| MACHINES.iter().find(|machine| machine.architecture == name).unwrap();
        let entry = "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: PF\noffset 0\n\
                     magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";
        assert!(takes(entry, machine("arm64")));
        assert!(!takes(entry, machine("riscv64")) && !takes(entry, machine("arm")));
        assert!(!takes(&entry.replace("enabled", "disabled"), machine("arm64")));
        assert!(!takes("enabled\n", machine("arm64")));
        let line = machine("arm64").registration(Path::new("/q"));
        let magic = r"\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00";
        assert!(line.starts_with(&format!(":qemu-aarch64:M::{magic}:")) && line.ends_with(":/q:F"), "{line}");
        assert!(is_native(&Platform::host()));
    }
}
