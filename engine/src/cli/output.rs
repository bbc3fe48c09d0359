//! Tables, JSON and templates: the only room of the engine that prints.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use serde_json::Value;

use crate::cli::template::Template;
use crate::error::{self, Error, Result};

/// Rows under a head, with columns as wide as their widest cell and three spaces between.
#[derive(Debug, Default)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// Between two columns.
const GAP: usize = 3;
/// No column but the last is narrower, with its gap, as with docker.
const NARROWEST: usize = 10;

/// The field of a row that only templates see: what Go's types have as methods, each a map of argument and value.
pub const METHODS: &str = "methods";

/// Writes one line of data.
pub fn line(text: &str) {
    // A reader that went away is success (`rengine ps | head -1`); nothing else can be done about it here.
    let _ = writeln!(io::stdout(), "{text}");
}

/// Writes data as it is.
pub fn raw(bytes: &[u8]) {
    offer(bytes);
}

/// Writes data as it is; whether anybody still reads.
pub fn offer(bytes: &[u8]) -> bool {
    io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()).is_ok()
}

/// Writes bytes of a container's standard error as they are.
pub fn raw_error(bytes: &[u8]) {
    offer_error(bytes);
}

/// Writes bytes of a container's standard error as they are; whether anybody still reads.
pub fn offer_error(bytes: &[u8]) -> bool {
    io::stderr().write_all(bytes).is_ok()
}

/// Writes one line of data now; whether anybody still reads.
pub fn flushed_line(text: &str) -> bool {
    let mut stdout = io::stdout();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).is_ok()
}

/// Writes a text in the place of the last one on a terminal, and after it elsewhere; whether anybody still reads.
pub fn redraw(text: &str) -> bool {
    let mut stdout = io::stdout();
    let drawn = if rustix::termios::isatty(&stdout) {
        // Home, then each line to its end, then whatever was below.
        format!("\x1b[H{}\x1b[J", text.replace('\n', "\x1b[K\n"))
    } else {
        text.to_owned()
    };
    stdout.write_all(drawn.as_bytes()).and_then(|()| stdout.flush()).is_ok()
}

/// Writes one line for the person, not the data.
pub fn note(text: &str) {
    // Whoever read it has gone (`2>&1 | head`): that is no reason to leave things half done.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Writes a warning.
pub fn warning(text: &str) {
    note(&format!("WARNING: {text}"));
}

/// Writes a failure with its causes and its hint.
pub fn failure(error: &Error) {
    note(&format!("rengine: {}", error::chain(error)));
    if let Some(hint) = error.hint() {
        note(&format!("hint: {hint}"));
    }
}

/// Writes a value as indented JSON.
pub fn json(value: &Value) {
    line(&pretty(value));
}

/// Asks a person for a yes.
pub fn confirm(question: &str) -> bool {
    let _ = write!(io::stderr().lock(), "{question} [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// Asks a person for a line.
pub fn ask(question: &str) -> io::Result<String> {
    let _ = write!(io::stderr().lock(), "{question}");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(answer.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks a person for a secret, which the terminal does not show.
pub fn ask_secret(question: &str) -> io::Result<String> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let before = tcgetattr(io::stdin())?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(io::stdin(), OptionalActions::Flush, &hidden)?;
    let answer = ask(question);
    let restored = tcsetattr(io::stdin(), OptionalActions::Flush, &before);
    note("");
    restored?;
    answer
}

/// JSON with four spaces, as docker's inspect prints it.
fn pretty(value: &Value) -> String {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    match serde::Serialize::serialize(value, &mut serializer) {
        Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => error.to_string(),
    }
}

/// Writes rows as `--format` asks: a table of these columns when `None` or `table`, an object a row for `json`,
/// else a template a row. `table {{…}}` is a table of the template's columns.
pub fn rows(format: Option<&str>, columns: &[(&str, &str)], rows: &[Value]) -> Result<()> {
    raw(rows_text(format, columns, rows)?.as_bytes());
    Ok(())
}

/// What [`rows`] writes.
pub fn rows_text(format: Option<&str>, columns: &[(&str, &str)], rows: &[Value]) -> Result<String> {
    let invalid = |error: super::template::TemplateError| Error::invalid(error.to_string());
    match format {
        None | Some("table") => {
            let mut table = Table::new(columns.iter().map(|(head, _)| *head));
            for row in rows {
                table.row(columns.iter().map(|(_, field)| cell(row, field)));
            }
            Ok(table.text())
        }
        Some("json" | "{{json .}}" | "{{ json . }}") => {
            let plain = |row: &Value| {
                let mut row = row.clone();
                if let Some(fields) = row.as_object_mut() {
                    fields.shift_remove(METHODS);
                }
                row
            };
            Ok(rows.iter().map(|row| format!("{}\n", plain(row))).collect())
        }
        Some(text) => {
            let (table, text) = text.strip_prefix("table ").map_or((false, text), |rest| (true, rest));
            let text = text.replace("\\t", "\t").replace("\\n", "\n");
            let template = Template::parse(&text).map_err(invalid)?;
            let rendered: Vec<String> = rows
                .iter()
                .map(|row| template.render(row))
                .collect::<std::result::Result<_, _>>()
                .map_err(invalid)?;
            if table {
                let head = template.columns().into_iter().map(|name| head_of(&name, columns));
                let mut table = Table::new(head);
                rendered.iter().for_each(|text| table.row(text.split('\t').map(str::to_owned)));
                Ok(table.text())
            } else {
                Ok(rendered.iter().map(|text| format!("{text}\n")).collect())
            }
        }
    }
}

/// Writes objects as `inspect` does: an indented array, or a template's text an object.
pub fn inspected(format: Option<&str>, objects: &[Value]) -> Result<()> {
    match format {
        None => json(&Value::Array(objects.to_vec())),
        Some("json") => line(&Value::Array(objects.to_vec()).to_string()),
        Some(text) => {
            let template = Template::parse(text).map_err(|error| Error::invalid(error.to_string()))?;
            for object in objects {
                line(&template.render(object).map_err(|error| Error::invalid(error.to_string()))?);
            }
        }
    }
    Ok(())
}

fn cell(row: &Value, field: &str) -> String {
    match row.get(field) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn head_of(field: &str, columns: &[(&str, &str)]) -> String {
    columns
        .iter()
        .find(|(_, known)| *known == field)
        .map_or_else(|| spaced(field), |(head, _)| (*head).to_owned())
}

/// The words of a field's name: `CreatedAt` is `CREATED AT`.
fn spaced(field: &str) -> String {
    let mut head = String::new();
    let mut before = ' ';
    for c in field.chars() {
        if c.is_uppercase() && before.is_lowercase() {
            head.push(' ');
        }
        head.extend(c.to_uppercase());
        before = c;
    }
    head
}

// === impl Table ===

impl Table {
    /// An empty table with this head.
    pub fn new(head: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { head: head.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Writes it to standard output.
    pub fn print(&self) {
        raw(self.text().as_bytes());
    }

    fn text(&self) -> String {
        let all = || std::iter::once(&self.head).chain(&self.rows);
        let columns = all().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                all().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        for row in all() {
            let mut written = String::new();
            for (column, cell) in row.iter().enumerate() {
                let last = column + 1 == row.len();
                let width = if last { 0 } else { (widths[column] + GAP).max(NARROWEST) };
                let _ = write!(written, "{cell:<width$}");
            }
            text.push_str(written.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["NAME", "STATE"]);
        table.row(["a-long-name".to_owned(), "up".to_owned()]);
        table.row(["b".to_owned(), String::new()]);
        assert_eq!(["CreatedAt", "ID", "Names"].map(spaced), ["CREATED AT", "ID", "NAMES"]);
        assert_eq!(table.text(), "NAME          STATE\na-long-name   up\nb\n");
        let mut narrow = Table::new(["ID", "NAME"]);
        narrow.row(["1".to_owned(), "web".to_owned()]);
        assert_eq!(narrow.text(), "ID        NAME\n1         web\n");
    }
}
