//! Everything that is printed: data on standard output, progress and remarks on standard error.

use std::io::{self, Write as _};

use engine::Error;
use serde_json::Value;

use crate::message::Event;

/// Writes one line of data.
pub(super) fn line(text: &str) {
    let mut stdout = io::stdout().lock();
    // A reader that went away is success; nothing else can be done about it here.
    let _ = writeln!(stdout, "{text}");
}

/// Writes data as it is.
pub(super) fn raw(bytes: &[u8]) {
    let _ = io::stdout().lock().write_all(bytes);
}

/// Writes one JSON object.
pub(super) fn json(value: &Value) {
    line(&value.to_string());
}

/// Writes one line for the person.
pub(super) fn note(text: &str) {
    // Whoever read it has gone (`2>&1 | head`): that is no reason to break a rollout off.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes a failure once, with what to do about it.
pub(super) fn failure(error: &Error, as_json: bool) {
    let text = engine::error::chain(error);
    if as_json {
        json(&serde_json::json!({ "error": text, "hint": error.hint() }));
    }
    // What is wrong in a compose file is said as rcompose says it.
    let name = if text.starts_with("error: ") { "" } else { "rdeploy: " };
    note(&format!("{name}{text}"));
    if let Some(hint) = error.hint() {
        note(&format!("hint: {hint}"));
    }
}

/// Writes what happens on a host, as it happens.
pub(super) fn event(host: &str, event: &Event) {
    let place = if host.is_empty() { String::new() } else { format!("{host}  ") };
    match event {
        Event::Step { took_ms: Some(took), object, word } => {
            note(&format!("{place}{object}  {word}  {}", seconds(*took)));
        }
        Event::Step { took_ms: None, object, word } if word == "Error" => {
            note(&format!("{place}{object}  {word}"));
        }
        // What begins is said when it is done: a log is no place for what changes.
        Event::Step { .. } => {}
        Event::Remark(text) => text.lines().for_each(|line| note(&format!("{place}{line}"))),
    }
}

/// A time as people read it.
pub(super) fn seconds(millis: u64) -> String {
    if millis < 1000 { format!("{millis}ms") } else { format!("{}.{}s", millis / 1000, millis % 1000 / 100) }
}

/// Rows in columns as wide as their widest cell, three spaces apart.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) {
    compose::output::table(compose::output::PLAIN, head, rows);
}
