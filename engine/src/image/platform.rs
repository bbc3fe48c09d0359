//! Platforms: `os/arch[/variant]`, normalised to Go's names, and which of an index's entries suits one best.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An operating system and a processor, in Go's names (OCI image-spec, image-index.md, `platform`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `v7`; absent where the architecture's usual variant is meant.
    pub variant: Option<String>,
}

/// The architectures of Linux images, in Go's names.
const ARCHITECTURES: [&str; 13] = [
    "386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc64", "ppc64le",
    "riscv64", "s390x",
];

/// The operating systems that there are images for, in Go's names.
const SYSTEMS: [&str; 5] = ["linux", "windows", "darwin", "freebsd", "wasip1"];

/// Why a text is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid platform {0:?}: os/arch or os/arch/variant is needed, as in linux/arm64")]
pub struct ParsePlatformError(String);

// === impl Platform ===

impl Platform {
    /// The platform with these parts, normalised.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let (architecture, variant) = normalise(architecture, variant.unwrap_or_default());
        let os = match os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        Self { os, architecture, variant }
    }

    /// The machine this program runs on.
    pub fn host() -> Self {
        let variant = (std::env::consts::ARCH == "arm").then_some("v7");
        Self::new("linux", std::env::consts::ARCH, variant)
    }

    /// Whether there may be images for it.
    pub(crate) fn is_known(&self) -> bool {
        ARCHITECTURES.contains(&self.architecture.as_str()) && SYSTEMS.contains(&self.os.as_str())
    }

    /// How well `offered` serves somebody who wants `self`: `None` not at all, else the higher the better.
    pub fn rank(&self, offered: &Self) -> Option<u32> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        let wanted = level(&self.architecture, self.variant.as_deref())?;
        let level = level(&offered.architecture, offered.variant.as_deref())?;
        (level <= wanted).then_some(level)
    }
}

impl FromStr for Platform {
    type Err = ParsePlatformError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParsePlatformError(text.to_owned());
        let parts: Vec<&str> = text.trim().split('/').collect();
        let is_word = |part: &&str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        if !parts.iter().all(is_word) {
            return Err(wrong());
        }
        match parts[..] {
            [alone] if matches!(alone, "linux" | "windows" | "darwin") => {
                Ok(Self { os: alone.to_owned(), ..Self::host() })
            }
            [architecture] => {
                let platform = Self::new("linux", architecture, None);
                // A word alone may be a slip of the pen for anything.
                if ARCHITECTURES.contains(&platform.architecture.as_str()) {
                    Ok(platform)
                } else {
                    Err(wrong())
                }
            }
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            _ => Err(wrong()),
        }
    }
}

impl TryFrom<String> for Platform {
    type Error = ParsePlatformError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Platform> for String {
    fn from(platform: Platform) -> Self {
        platform.to_string()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl From<ParsePlatformError> for crate::Error {
    fn from(error: ParsePlatformError) -> Self {
        crate::Error::invalid(error.to_string())
    }
}

/// The names other systems use, as containerd's platforms package maps them.
fn normalise(architecture: &str, variant: &str) -> (String, Option<String>) {
    let (architecture, variant) = (architecture.to_ascii_lowercase(), variant.to_ascii_lowercase());
    let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
        ("i386" | "i486" | "i586" | "i686" | "x86" | "386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "" | "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", other) => ("amd64", other),
        ("aarch64" | "arm64", "" | "8" | "v8") => ("arm64", ""),
        ("aarch64" | "arm64", other) => ("arm64", other),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7" | "v7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        (other, variant) => (other, variant),
    };
    (architecture.to_owned(), (!variant.is_empty()).then(|| variant.to_owned()))
}

/// Variants of one architecture are levels: a higher one runs what a lower one runs.
fn level(architecture: &str, variant: Option<&str>) -> Option<u32> {
    let usual = match architecture {
        "arm64" => 8,
        _ => 1,
    };
    match variant {
        None => Some(usual),
        Some(text) => text.trim_start_matches('v').split('.').next()?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn other_names_become_gos_names() {
        for (text, wanted) in [
            ("linux/x86_64", "linux/amd64"),
            ("amd64", "linux/amd64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("armhf", "linux/arm/v7"),
            ("Linux/AMD64", "linux/amd64"),
            ("linux/i686", "linux/386"),
        ] {
            assert_eq!(platform(text).to_string(), wanted, "{text}");
        }
        for text in ["", "linux/", "a/b/c/d", "linux/am d64", "foo"] {
            assert!(text.parse::<Platform>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_lower_variant_serves_and_a_higher_one_does_not() {
        let wanted = platform("linux/arm/v7");
        assert!(wanted.rank(&platform("linux/arm/v6")) < wanted.rank(&platform("linux/arm/v7")));
        assert_eq!(platform("linux/arm/v6").rank(&wanted), None);
        assert_eq!(platform("linux/amd64").rank(&platform("linux/amd64/v3")), None);
        assert!(platform("linux/amd64/v3").rank(&platform("linux/amd64")).is_some());
        assert_eq!(platform("linux/amd64").rank(&platform("linux/arm64")), None);
    }
}
