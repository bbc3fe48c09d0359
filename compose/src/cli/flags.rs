//! Texts of flags that become values.

use std::collections::BTreeMap;

use engine::container::spec::Grace;
use engine::quantity::Span;

use super::failure::CliError;
use crate::shorthand::words;

/// Seconds until the kill; -1 waits for ever.
pub(super) fn grace(seconds: Option<i64>) -> Option<Grace> {
    seconds.map(|seconds| match u64::try_from(seconds) {
        Ok(seconds) => Grace::Limited(Span::seconds(seconds)),
        Err(_) => Grace::Unlimited,
    })
}

/// `SERVICE=NUMBER` of `--scale`.
pub(super) fn scale(texts: &[String]) -> Result<BTreeMap<String, u32>, CliError> {
    texts
        .iter()
        .map(|text| {
            let wrong = || CliError::Invalid(format!("invalid scale {text:?}: SERVICE=NUMBER is needed"));
            let (service, number) = text.split_once('=').ok_or_else(wrong)?;
            Ok((service.to_owned(), number.parse().map_err(|_| wrong())?))
        })
        .collect()
}

/// `KEY=VALUE`, or `KEY` with the value it has in this environment.
pub(super) fn variables(texts: &[String]) -> Vec<String> {
    texts
        .iter()
        .filter_map(|text| match text.split_once('=') {
            Some(_) => Some(text.clone()),
            None => std::env::var(text).ok().map(|value| format!("{text}={value}")),
        })
        .collect()
}

/// `KEY=VALUE` of `--label`.
pub(super) fn labels(texts: &[String]) -> Result<BTreeMap<String, String>, CliError> {
    texts
        .iter()
        .map(|text| match text.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(CliError::Invalid(format!("invalid label {text:?}: KEY=VALUE is needed"))),
        })
        .collect()
}

/// The words of a command line in one argument, as in `--entrypoint 'sh -c "echo hello"'`.
pub(super) fn command_line(flag: &str, text: &str) -> Result<Vec<String>, CliError> {
    let wrong = |why: String| CliError::Invalid(format!("invalid {flag} {text:?}: {why}"));
    let (words, rest) = words(text).map_err(wrong)?;
    if rest.is_empty() { Ok(words) } else { Err(wrong(format!("{rest:?} means something to a shell only"))) }
}

/// `KEY=VALUE` pairs; a key alone has the value it has in this environment.
pub(super) fn pairs(texts: &[String]) -> BTreeMap<String, String> {
    variables(texts)
        .into_iter()
        .filter_map(|text| text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())))
        .collect()
}
