//! What is wrong with a project's files, and where. Text and JSON come from the same value.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The project cannot be used.
    Error,
    /// It can be used, but perhaps not as meant.
    Warning,
}

/// A place in a file. Lines and columns count from 1; columns are characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The file; `-` is standard input.
    pub file: PathBuf,
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
    /// How many characters are meant.
    pub width: usize,
    /// The text of the line.
    pub excerpt: String,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Where, when it is in a file.
    pub place: Option<Place>,
    /// The key's path: `services.web.ports[0]`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// What is wrong, one sentence.
    pub message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// A second place that belongs to it, with what it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub related: Option<(Place, String)>,
}

/// Everything that is wrong, sorted by place. Never empty as an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics(pub Vec<Diagnostic>);

// === impl Diagnostic ===

impl Diagnostic {
    /// An error without a place.
    pub fn error(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            place: None,
            path: String::new(),
            message: message.into(),
            help: None,
            related: None,
        }
    }

    /// A warning without a place.
    pub fn warning(message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(message) }
    }

    /// The same with what to do about it.
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same at a place.
    pub fn at(mut self, place: Option<Place>) -> Self {
        self.place = place;
        self
    }

    /// The same about a key.
    pub fn on(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }
}

/// The message, its place with the excerpt and a caret, the key, and the help; no line break at the end.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}: {}", self.message)?;
        if let Some(place) = &self.place {
            write_place(f, place)?;
        }
        if !self.path.is_empty() {
            write!(f, "\n  key: {}", self.path)?;
        }
        if let Some((place, what)) = &self.related {
            write!(f, "\nnote: {what}")?;
            write_place(f, place)?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

fn write_place(f: &mut fmt::Formatter<'_>, place: &Place) -> fmt::Result {
    let number = place.line.to_string();
    let gutter = " ".repeat(number.len());
    write!(f, "\n{gutter}--> {}:{}:{}", place.file.display(), place.line, place.column)?;
    if place.excerpt.trim().is_empty() {
        return Ok(());
    }
    // Tabs keep the caret under the character it points at, whatever a terminal makes of them.
    let lead: String = place
        .excerpt
        .chars()
        .take(place.column.saturating_sub(1))
        .map(|c| if c == '\t' { '\t' } else { ' ' })
        .collect();
    let rest = place.excerpt.chars().count().saturating_sub(place.column.saturating_sub(1));
    let carets = "^".repeat(place.width.clamp(1, rest.max(1)));
    write!(f, "\n{gutter} |\n{number} | {}\n{gutter} | {lead}{carets}", place.excerpt)
}

// === impl Diagnostics ===

impl Diagnostics {
    /// Sorts by place, then by text, and drops what is said twice.
    pub fn sorted(mut list: Vec<Diagnostic>) -> Self {
        list.sort_by(|a, b| {
            (a.severity, a.place.is_none(), &a.place, &a.path, &a.message).cmp(&(
                b.severity,
                b.place.is_none(),
                &b.place,
                &b.path,
                &b.message,
            ))
        });
        list.dedup();
        Self(list)
    }

    /// The JSON form: a list of objects.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

/// One after the other, with an empty line between them.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}
