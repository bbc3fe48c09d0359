//! A failure where it belongs: at its line of a file of the repository, as GitHub shows it beside the change.

use std::env;
use std::path::{Path, PathBuf};

use engine::error::Error;

use super::runner::{escaped, escaped_property};
use crate::cli::{Globals, connect, output};

/// One error where it belongs: at its line of a file when it has one.
pub(super) fn annotate(error: &Error, globals: Option<&Globals>) {
    let hint = error.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
    let text = engine::error::chain(error) + &hint;
    let find_in = |places: &[PathBuf], file: &str| {
        places.iter().map(|place| place.join(file)).find(|file| file.is_file())
    };
    let here = [PathBuf::new()];
    let place_in =
        |places: &[PathBuf]| text.lines().find_map(|line| place(line, &|file| find_in(places, file)));
    let found = place_in(&here).or_else(|| place_in(&contexts(globals?)));
    let place = found.map(|(file, line, column)| {
        let column = column.map(|column| format!("col={column},")).unwrap_or_default();
        format!("file={},line={line},{column}", escaped_property(&in_repository(&file)))
    });
    let place = place.unwrap_or_default();
    output::line(&format!("::error {place}title=rdeploy::{}", escaped(&text)));
}

/// What images are built from, where messages about instructions start. A project that cannot be read has none.
fn contexts(globals: &Globals) -> Vec<PathBuf> {
    let Ok(loaded) = connect::load_project(globals) else { return Vec::new() };
    let builds = loaded.project.services.into_values().filter_map(|service| service.build?.context);
    builds.map(PathBuf::from).collect()
}

/// `compose.yaml:3:5: …`, or `Dockerfile:3: …` anywhere in a line, as our own messages write places. A word is one when
/// `find` knows such a file; an address with a port is none.
fn place(line: &str, find: &dyn Fn(&str) -> Option<PathBuf>) -> Option<(PathBuf, u64, Option<u64>)> {
    line.split_whitespace().find_map(|word| {
        let mut parts = word.trim_end_matches(':').split(':');
        let (file, row) = (parts.next()?, parts.next()?.parse().ok()?);
        Some((find(file)?, row, parts.next().and_then(|column| column.parse().ok())))
    })
}

/// A file as GitHub names it: from the top of the repository.
fn in_repository(file: &Path) -> String {
    let path = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let top = env::var_os("GITHUB_WORKSPACE").unwrap_or_default();
    path.strip_prefix(&top).unwrap_or(file).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_with_a_place_is_shown_there() {
        let find = |file: &str| match file {
            "compose.yaml" => Some(file.into()),
            "Dockerfile" => Some("web/Dockerfile".into()),
            _ => None,
        };
        let place = |line: &str| place(line, &find);
        let found = Some(("compose.yaml".into(), 3, Some(5)));
        assert_eq!(place("compose.yaml:3:5: unknown key"), found);
        assert_eq!(place(" --> compose.yaml:3:5"), found);
        let of_build = "service web: image 127.0.0.1:80/a: Dockerfile:7: no such stage";
        assert_eq!(place(of_build), Some(("web/Dockerfile".into(), 7, None)));
        assert_eq!(place("host web: refused: really"), None);
        assert_eq!(escaped("100%\nnext"), "100%25%0Anext");
    }
}
