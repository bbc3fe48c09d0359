//! What can be told of a `run` before its flags are read, which takes about as long as a monitor takes to come to life.

use std::ffi::OsString;

use crate::container::monitor::Ahead;
use crate::engine::{Anticipated, Engine};

/// Begins with the container that a command line is likely to ask for. Whether it does, and what it will be, is for
/// whoever reads the command line; a guess that is wrong costs a little time and nothing else.
pub(in crate::cli) fn anticipate(arguments: &[OsString]) -> Option<Anticipated> {
    let words: Vec<&str> = arguments.iter().skip(1).map_while(|word| word.to_str()).collect();
    let flags = asks_to_run(&words)?;
    // What makes this fail is said when the container is made.
    Engine::open(None).and_then(|engine| engine.anticipate(ahead(flags))).ok()
}

/// The words after the verb of a command line that is likely to run a container of the usual engine.
fn asks_to_run<'a>(words: &'a [&'a str]) -> Option<&'a [&'a str]> {
    let flags = match words {
        ["run", flags @ ..] | ["container", "run", flags @ ..] => flags,
        _ => return None,
    };
    let is_elsewhere = |word: &&str| *word == "--help" || word.starts_with("--root");
    (!flags.is_empty() && !flags.iter().any(is_elsewhere)).then_some(flags)
}

/// Most containers have a network namespace that is made for them.
fn ahead(flags: &[&str]) -> Option<Ahead> {
    let names_network = |flag: &str| matches!(flag, "--network" | "--net");
    let is_others = |value: &str| value == "host" || value.starts_with("container:");
    let in_two = flags.windows(2).any(|pair| names_network(pair[0]) && is_others(pair[1]));
    let in_one = flags
        .iter()
        .filter_map(|word| word.split_once('='))
        .any(|(flag, value)| flag == "--userns" || (names_network(flag) && is_others(value)));
    (!in_two && !in_one && !flags.contains(&"--userns")).then_some(Ahead::Network)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(line: &str) -> Option<Option<Ahead>> {
        let words: Vec<&str> = line.split(' ').collect();
        asks_to_run(&words).map(ahead)
    }

    #[test]
    fn a_container_that_is_run_is_told_by_its_first_words() {
        assert_eq!(guess("run --rm box true"), Some(Some(Ahead::Network)));
        assert_eq!(guess("container run box"), Some(Some(Ahead::Network)));
        for line in
            ["ps", "run", "create box", "container ls", "run --help", "run --root /srv box", "-D run box"]
        {
            assert_eq!(guess(line), None, "{line}");
        }
    }

    #[test]
    fn a_network_that_is_somebody_elses_is_not_made() {
        for line in
            ["--network host box", "--net=container:web box", "--userns auto box", "--userns=auto box"]
        {
            assert_eq!(guess(&format!("run {line}")), Some(None), "{line}");
        }
        for line in ["--network none box", "--net=shop box", "box host", "-e network=host box"] {
            assert_eq!(guess(&format!("run {line}")), Some(Some(Ahead::Network)), "{line}");
        }
    }
}
