//! Linux capabilities by name, and the sets containers get. Pure, apart from reading one's own bounding set.

use std::fmt;

use rustix::thread::CapabilitySet as Bits;

/// A set of capabilities (capabilities(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CapabilitySet(Bits);

/// Why a text is not a capability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown capability {0:?}")]
pub struct UnknownCapability(String);

const NAMES: [(&str, Bits); 41] = [
    ("CHOWN", Bits::CHOWN),
    ("DAC_OVERRIDE", Bits::DAC_OVERRIDE),
    ("DAC_READ_SEARCH", Bits::DAC_READ_SEARCH),
    ("FOWNER", Bits::FOWNER),
    ("FSETID", Bits::FSETID),
    ("KILL", Bits::KILL),
    ("SETGID", Bits::SETGID),
    ("SETUID", Bits::SETUID),
    ("SETPCAP", Bits::SETPCAP),
    ("LINUX_IMMUTABLE", Bits::LINUX_IMMUTABLE),
    ("NET_BIND_SERVICE", Bits::NET_BIND_SERVICE),
    ("NET_BROADCAST", Bits::NET_BROADCAST),
    ("NET_ADMIN", Bits::NET_ADMIN),
    ("NET_RAW", Bits::NET_RAW),
    ("IPC_LOCK", Bits::IPC_LOCK),
    ("IPC_OWNER", Bits::IPC_OWNER),
    ("SYS_MODULE", Bits::SYS_MODULE),
    ("SYS_RAWIO", Bits::SYS_RAWIO),
    ("SYS_CHROOT", Bits::SYS_CHROOT),
    ("SYS_PTRACE", Bits::SYS_PTRACE),
    ("SYS_PACCT", Bits::SYS_PACCT),
    ("SYS_ADMIN", Bits::SYS_ADMIN),
    ("SYS_BOOT", Bits::SYS_BOOT),
    ("SYS_NICE", Bits::SYS_NICE),
    ("SYS_RESOURCE", Bits::SYS_RESOURCE),
    ("SYS_TIME", Bits::SYS_TIME),
    ("SYS_TTY_CONFIG", Bits::SYS_TTY_CONFIG),
    ("MKNOD", Bits::MKNOD),
    ("LEASE", Bits::LEASE),
    ("AUDIT_WRITE", Bits::AUDIT_WRITE),
    ("AUDIT_CONTROL", Bits::AUDIT_CONTROL),
    ("SETFCAP", Bits::SETFCAP),
    ("MAC_OVERRIDE", Bits::MAC_OVERRIDE),
    ("MAC_ADMIN", Bits::MAC_ADMIN),
    ("SYSLOG", Bits::SYSLOG),
    ("WAKE_ALARM", Bits::WAKE_ALARM),
    ("BLOCK_SUSPEND", Bits::BLOCK_SUSPEND),
    ("AUDIT_READ", Bits::AUDIT_READ),
    ("PERFMON", Bits::PERFMON),
    ("BPF", Bits::BPF),
    ("CHECKPOINT_RESTORE", Bits::CHECKPOINT_RESTORE),
];

/// What docker gives a container that asks for nothing.
const DEFAULT: Bits = Bits::CHOWN
    .union(Bits::DAC_OVERRIDE)
    .union(Bits::FSETID)
    .union(Bits::FOWNER)
    .union(Bits::MKNOD)
    .union(Bits::NET_RAW)
    .union(Bits::SETGID)
    .union(Bits::SETUID)
    .union(Bits::SETFCAP)
    .union(Bits::SETPCAP)
    .union(Bits::NET_BIND_SERVICE)
    .union(Bits::SYS_CHROOT)
    .union(Bits::KILL)
    .union(Bits::AUDIT_WRITE);

// === impl CapabilitySet ===

impl Default for CapabilitySet {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl CapabilitySet {
    /// No capability.
    pub const EMPTY: Self = Self(Bits::empty());

    /// Every capability this room knows.
    pub fn all() -> Self {
        NAMES.iter().map(|(_, bit)| Self(*bit)).fold(Self::EMPTY, Self::union)
    }

    /// What docker gives a container that asks for nothing.
    pub fn docker_default() -> Self {
        Self(DEFAULT)
    }

    /// Docker's default with these dropped and then those added; `ALL` is every capability.
    ///
    /// # Errors
    /// When a name is no capability.
    pub fn tweaked(drop: &[String], add: &[String]) -> Result<Self, UnknownCapability> {
        let is_all = |name: &String| name.eq_ignore_ascii_case("ALL");
        let named = |names: &[String]| {
            names
                .iter()
                .filter(|name| !is_all(name))
                .try_fold(Self::EMPTY, |set, name| Ok::<_, UnknownCapability>(set.union(Self::named(name)?)))
        };
        let (dropped, added) = (named(drop)?, named(add)?);
        if add.iter().any(is_all) {
            return Ok(Self::all().difference(dropped));
        }
        let kept = if drop.iter().any(is_all) { Self::EMPTY } else { Self::docker_default() };
        Ok(kept.difference(dropped).union(added))
    }

    /// The capability of this name, with or without `CAP_`, in any case.
    ///
    /// # Errors
    /// When there is none.
    pub fn named(name: &str) -> Result<Self, UnknownCapability> {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let known = NAMES.iter().find(|(known, _)| *known == bare);
        known.map(|(_, bit)| Self(*bit)).ok_or_else(|| UnknownCapability(name.to_owned()))
    }

    /// What installing a system call filter takes (seccomp(2)).
    pub(crate) fn filter_installer() -> Self {
        Self(Bits::SYS_ADMIN)
    }

    /// What this process may ever have: its bounding set.
    pub fn bounding() -> Self {
        let has = |bit: Bits| rustix::thread::capability_is_in_bounding_set(bit).unwrap_or(false);
        NAMES.iter().filter(|(_, bit)| has(*bit)).map(|(_, bit)| Self(*bit)).fold(Self::EMPTY, Self::union)
    }

    /// Whether every capability of the other set is in this one.
    pub fn contains(self, other: Self) -> bool {
        self.0.contains(other.0)
    }

    /// Whether the capability of this name is in it.
    pub fn has(self, name: &str) -> bool {
        Self::named(name).is_ok_and(|one| self.contains(one))
    }

    /// What is in either.
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both.
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in this one alone.
    pub fn difference(self, other: Self) -> Self {
        Self(self.0.difference(other.0))
    }

    /// The names in it, without `CAP_`.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().filter(move |(_, bit)| self.0.contains(*bit)).map(|(name, _)| *name)
    }

    /// Each of them by itself.
    pub(crate) fn singles(self) -> impl Iterator<Item = Self> {
        NAMES.iter().filter(move |(_, bit)| self.0.contains(*bit)).map(|(_, bit)| Self(*bit))
    }

    /// The kernel's form.
    pub(crate) fn bits(self) -> Bits {
        self.0
    }
}

impl fmt::Display for CapabilitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.names().enumerate() {
            write!(f, "{}CAP_{name}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn drops_come_before_additions_and_all_is_everything() {
        let default = CapabilitySet::docker_default();
        let chown = CapabilitySet::named("cap_chown").unwrap();
        let admin = CapabilitySet::named("SYS_ADMIN").unwrap();
        for (drop, add, wanted) in [
            ("", "", default),
            ("CHOWN", "", default.difference(chown)),
            ("ALL", "chown", chown),
            ("ALL", "ALL", CapabilitySet::all()),
            ("", "ALL", CapabilitySet::all()),
            ("SYS_ADMIN", "ALL", CapabilitySet::all().difference(admin)),
            ("CAP_CHOWN", "CAP_CHOWN SYS_ADMIN", default.union(admin)),
        ] {
            assert_eq!(CapabilitySet::tweaked(&words(drop), &words(add)), Ok(wanted), "-{drop} +{add}");
        }
        assert!(CapabilitySet::tweaked(&words("NOPE"), &[]).is_err());
        assert_eq!(default.names().count(), 14);
        assert!(default.has("NET_RAW") && !default.has("SYS_ADMIN"));
    }
}
