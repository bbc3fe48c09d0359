//! What is wrong with a Dockerfile, and where.

use std::fmt::Write;

/// A mistake at a place in a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Fault {
    /// First and last line, from 1.
    pub(crate) lines: (usize, usize),
    /// The column in the first line, from 1.
    pub(crate) column: Option<usize>,
    /// What is wrong.
    pub(crate) message: String,
}

/// A Dockerfile's text under the name that people know it by.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// The file's name as it was asked for.
    pub(crate) name: String,
    /// Its text.
    pub(crate) text: String,
}

// === impl Fault ===

impl Fault {
    /// A mistake on this line.
    pub(crate) fn at(line: usize, message: impl Into<String>) -> Self {
        Self { lines: (line, line), column: None, message: message.into() }
    }

    /// The same mistake at this column of its first line.
    pub(crate) fn in_column(mut self, column: usize) -> Self {
        self.column = Some(column);
        self
    }

    /// The same mistake over these lines.
    pub(crate) fn over(mut self, first: usize, last: usize) -> Self {
        self.lines = (first, last);
        self
    }
}

// === impl Source ===

impl Source {
    /// `Dockerfile:3:1` for a mistake.
    pub(crate) fn place(&self, fault: &Fault) -> String {
        match fault.column {
            Some(column) => format!("{}:{}:{column}", self.name, fault.lines.0),
            None => format!("{}:{}", self.name, fault.lines.0),
        }
    }

    /// The lines around a mistake in BuildKit's form, the mistaken ones marked by `>>>`.
    pub(crate) fn excerpt(&self, first: usize, last: usize) -> String {
        const RULE: &str = "--------------------";
        /// How much of a line is shown.
        const WIDEST: usize = 500;
        let lines: Vec<&str> = self.text.lines().collect();
        let mut text = format!("{}:{first}\n{RULE}\n", self.name);
        let around = if first == last { 2 } else { 1 };
        let from = first.saturating_sub(around).max(1);
        let to = (last + around).min(lines.len());
        for number in from..=to {
            let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
            let line = lines.get(number - 1).copied().unwrap_or_default();
            let shown: String = line.chars().take(WIDEST).collect();
            let more = if shown.len() < line.len() { "…" } else { "" };
            let _ = writeln!(text, " {number:>3} | {mark} {shown}{more}");
        }
        text.push_str(RULE);
        text
    }
}

/// The known word nearest to a mistyped one, if one is near enough to be meant.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    known
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 2 && *distance < candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many letters must be added, dropped, replaced or swapped with their neighbour.
fn distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().collect();
    let to: Vec<char> = to.chars().collect();
    let mut rows = vec![vec![0; to.len() + 1]; from.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=to.len()).collect();
    for i in 1..=from.len() {
        for j in 1..=to.len() {
            let cost = usize::from(from[i - 1] != to[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + cost);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_excerpt_marks_the_mistaken_line() {
        let source = Source {
            name: "Dockerfile".into(),
            text: "FROM scratch\n\nFOO bar\nRUN x\nRUN y\nRUN z\n".into(),
        };
        assert_eq!(
            source.excerpt(3, 3),
            "Dockerfile:3\n--------------------\n   1 |     FROM scratch\n   2 |     \n   3 | >>> FOO bar\n   4 |     RUN x\n   5 |     RUN y\n--------------------"
        );
    }

    #[test]
    fn a_mistyped_word_finds_the_one_meant() {
        assert_eq!(nearest("FORM", ["FROM", "RUN"]), Some("FROM"));
        assert_eq!(nearest("cpy", ["ADD", "COPY"]), Some("COPY"));
        assert_eq!(nearest("APT-GET", ["ADD", "COPY"]), None);
    }
}
