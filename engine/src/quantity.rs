//! Sizes, durations and truths as docker's flags and Go's JSON write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A number of bytes. Parses `64`, `64b`, `64k`, `64kb`, `64m`, `1.5g`, … in powers of 1024, as docker's
/// memory flags do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ByteSize(pub u64);

/// A length of time in Go's notation, `1h2m3.5s`, and in nanoseconds in JSON, as docker writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(pub Duration);

/// A part of a whole, more than nothing and less than all: `1%` to `99%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Percent(u8);

/// Why a text is not a size or a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseQuantityError {
    /// Not a size.
    #[error("invalid size {0:?}: a number with b, k, m, g or t is needed, as in 64m")]
    Size(String),
    /// Not a duration.
    #[error("invalid duration {0:?}: numbers with ns, us, ms, s, m or h are needed, as in 1m30s")]
    Duration(String),
    /// Not a part of a whole.
    #[error("invalid percentage {0:?}: a number from 1 to 99 is needed, as in 10%")]
    Percent(String),
}

/// A truth as Go reads one (`strconv.ParseBool`); `None` for what is neither true nor false.
pub fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

// === impl ByteSize ===

impl FromStr for ByteSize {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseQuantityError::Size(text.to_owned());
        let lower = text.trim().to_ascii_lowercase();
        let digits_end = lower.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(lower.len());
        let (digits, unit) = lower.split_at(digits_end);
        let shift = match unit.trim() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(wrong()),
        };
        if let Ok(whole) = digits.parse::<u64>() {
            return whole.checked_mul(1 << shift).map(Self).ok_or_else(wrong);
        }
        let number: f64 = digits.parse().map_err(|_| wrong())?;
        let bytes = number * (1u64 << shift) as f64;
        if bytes.is_finite() && bytes < u64::MAX as f64 { Ok(Self(bytes as u64)) } else { Err(wrong()) }
    }
}

/// Three significant digits in powers of 1000, as docker's tables print sizes: `174MB`, `1.24kB`.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_scaled(f, self.0 as f64, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB"], 3)
    }
}

impl ByteSize {
    /// Four significant digits in powers of 1000, as `system df` prints sizes: `1.984MB`.
    pub fn precise(self) -> impl fmt::Display {
        struct Precise(u64);
        impl fmt::Display for Precise {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_scaled(f, self.0 as f64, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB"], 4)
            }
        }
        Precise(self.0)
    }

    /// Four significant digits in powers of 1024, as `stats` prints memory: `1.235MiB`.
    pub fn binary(self) -> impl fmt::Display {
        struct Binary(u64);
        impl fmt::Display for Binary {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_scaled(f, self.0 as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"], 4)
            }
        }
        Binary(self.0)
    }
}

fn write_scaled(
    f: &mut fmt::Formatter<'_>,
    mut value: f64,
    base: f64,
    units: &[&str],
    significant: usize,
) -> fmt::Result {
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    let whole_digits = format!("{value:.0}").len().max(1);
    let decimals = significant.saturating_sub(whole_digits);
    let mut text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    write!(f, "{text}{}", units[unit])
}

// === impl Percent ===

impl Percent {
    /// So many of a hundred.
    pub const fn new(percent: u8) -> Option<Self> {
        if percent > 0 && percent < 100 { Some(Self(percent)) } else { None }
    }

    /// How many of a hundred.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for Percent {
    type Error = ParseQuantityError;

    fn try_from(percent: u8) -> Result<Self, Self::Error> {
        Self::new(percent).ok_or_else(|| ParseQuantityError::Percent(percent.to_string()))
    }
}

impl From<Percent> for u8 {
    fn from(percent: Percent) -> Self {
        percent.0
    }
}

impl FromStr for Percent {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.trim().strip_suffix('%').and_then(|number| number.parse().ok());
        number.and_then(Self::new).ok_or_else(|| ParseQuantityError::Percent(text.to_owned()))
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

// === impl Span ===

impl Span {
    /// This many whole seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl FromStr for Span {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseQuantityError::Duration(text.to_owned());
        let mut rest = text.trim();
        if rest == "0" {
            return Ok(Self::default());
        }
        if rest.is_empty() {
            return Err(wrong());
        }
        let mut nanos = 0f64;
        while !rest.is_empty() {
            let digits_end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or_else(wrong)?;
            let (digits, tail) = rest.split_at(digits_end);
            let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_end);
            let scale = match unit {
                "ns" => 1.0,
                "us" | "µs" | "μs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                "d" => 86_400e9,
                "w" => 604_800e9,
                _ => return Err(wrong()),
            };
            nanos += digits.parse::<f64>().map_err(|_| wrong())? * scale;
            rest = tail;
        }
        if nanos.is_finite() && nanos < u64::MAX as f64 {
            Ok(Self(Duration::from_nanos(nanos.round() as u64)))
        } else {
            Err(wrong())
        }
    }
}

/// Go's `time.Duration.String`: `1m30s`, `500ms`, `0s`.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        match nanos {
            0 => return f.write_str("0s"),
            1..1_000 => return write!(f, "{nanos}ns"),
            1_000..1_000_000 => return write!(f, "{}µs", trimmed(nanos as f64 / 1e3)),
            1_000_000..1_000_000_000 => return write!(f, "{}ms", trimmed(nanos as f64 / 1e6)),
            _ => {}
        }
        let seconds = self.0.as_secs();
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        write!(f, "{}s", trimmed((seconds % 60) as f64 + f64::from(self.0.subsec_nanos()) / 1e9))
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.9}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl Serialize for Span {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer).map(|nanos| Self(Duration::from_nanos(nanos)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024_and_print_in_powers_of_1000() {
        for (text, bytes) in [("0", 0), ("64", 64), ("64b", 64), ("64k", 65_536), ("1.5GB", 1_610_612_736)] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for wrong in ["", "m", "64x", "-1", "1.2.3k"] {
            assert!(wrong.parse::<ByteSize>().is_err(), "{wrong:?}");
        }
        assert_eq!(ByteSize(174_000_000).to_string(), "174MB");
        assert_eq!(ByteSize(1_240).to_string(), "1.24kB");
        assert_eq!(ByteSize(1_984_321).precise().to_string(), "1.984MB");
        assert_eq!(ByteSize(0).to_string(), "0B");
        assert_eq!(ByteSize(1024 * 1024 * 3 / 2).binary().to_string(), "1.5MiB");
    }

    #[test]
    fn durations_read_and_print_as_in_go() {
        for text in ["1h2m3.5s", "1m30s", "500ms", "2s", "1h0m0s"] {
            assert_eq!(text.parse::<Span>().unwrap().to_string(), text);
        }
        assert_eq!("90s".parse::<Span>().unwrap().to_string(), "1m30s");
        for wrong in ["", "5", "s", "1x", "-1s"] {
            assert!(wrong.parse::<Span>().is_err(), "{wrong:?}");
        }
    }
}
