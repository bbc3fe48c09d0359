//! Messages in the two forms that callers of runc read: logrus's text and JSON.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use jiff::Timestamp;
use serde_json::json;

use crate::cli::output;
use crate::error::{self, Error};

/// Where messages go, and how they are written.
#[derive(Debug)]
pub(super) struct Log {
    file: Option<PathBuf>,
    json: bool,
    debug: bool,
}

// === impl Log ===

impl Log {
    pub(super) fn open(file: Option<PathBuf>, json: bool, debug: bool) -> Self {
        Self { file: file.filter(|path| !path.as_os_str().is_empty()), json, debug }
    }

    pub(super) fn debug(&self, text: &str) {
        if self.debug {
            self.write("debug", text);
        }
    }

    pub(super) fn warning(&self, text: &str) {
        self.write("warning", text);
    }

    /// A failure is told in the log, and on standard error when that is not the log.
    pub(super) fn failure(&self, error: &Error) {
        let text = error::chain(error);
        self.write("error", &text);
        if self.file.is_some() {
            output::note(&text);
        }
        if let Some(hint) = error.hint() {
            output::note(&format!("hint: {hint}"));
        }
    }

    fn write(&self, level: &str, text: &str) {
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
        let line = if self.json {
            json!({"level": level, "msg": text, "time": now.to_string()}).to_string()
        } else {
            format!("time=\"{now}\" level={level} msg={}", json!(text))
        };
        match &self.file {
            None => output::note(&line),
            Some(path) => {
                let opened = OpenOptions::new().append(true).create(true).open(path);
                if opened.and_then(|mut file| writeln!(file, "{line}")).is_err() {
                    output::note(&line);
                }
            }
        }
    }
}
