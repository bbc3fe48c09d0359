//! Texts that follow rules: each function says what would be right.

use engine::quantity::Span;
use engine::signal::Signal;

pub(super) fn restart(text: &str) -> Result<(), &'static str> {
    let right = "no, always, unless-stopped or on-failure[:max-retries] is needed";
    match text.split_once(':').unwrap_or((text, "")) {
        ("" | "no" | "always" | "unless-stopped" | "on-failure", "") => Ok(()),
        ("on-failure", limit) if limit.parse::<u32>().is_ok() => Ok(()),
        _ => Err(right),
    }
}

pub(super) fn pull_policy(text: &str) -> Result<(), &'static str> {
    const WORDS: [&str; 8] =
        ["always", "never", "missing", "if_not_present", "build", "refresh", "daily", "weekly"];
    let every = text.strip_prefix("every_").is_some_and(|span| span.parse::<Span>().is_ok());
    if WORDS.contains(&text) || every {
        Ok(())
    } else {
        Err("always, never, missing, build, daily, weekly or every_<duration> is needed")
    }
}

pub(super) fn signal(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.parse::<Signal>().is_ok() {
        Ok(())
    } else {
        Err("the name or number of a signal is needed, as in SIGTERM")
    }
}

pub(super) fn container_name(text: &str) -> Result<(), &'static str> {
    let mut chars = text.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphanumeric());
    let rest = chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if first && rest && text.len() != 1 {
        Ok(())
    } else {
        Err("two or more letters, digits, `_`, `.` and `-` are needed, a letter or digit first")
    }
}

pub(super) fn ipv4(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.parse::<std::net::Ipv4Addr>().is_ok() {
        Ok(())
    } else {
        Err("an IPv4 address is needed")
    }
}

pub(super) fn ipv6(text: &str) -> Result<(), &'static str> {
    if text.is_empty() || text.parse::<std::net::Ipv6Addr>().is_ok() {
        Ok(())
    } else {
        Err("an IPv6 address is needed")
    }
}
