//! Command lines by other names, as `aliases:` of the settings has them.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::CommandFactory as _;
use clap::error::ErrorKind;
use compose::document::{suggestion, words};
use engine::error::{Error, Result};

use super::{Cli, Globals, connect};

/// The command line that one with a name of the project's own stands for: what is before that name, what the name stands
/// for, and what is behind it.
///
/// # Errors
/// When nothing has that name; it may be a command that is misspelt.
pub(super) fn expanded(
    globals: &Globals,
    mut line: Vec<OsString>,
    behind: &[OsString],
) -> std::result::Result<Vec<OsString>, clap::Error> {
    let rest = line.split_off(line.len().saturating_sub(behind.len()));
    let name = behind.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    // Whoever has no project here may have misspelt a command all the same.
    let aliases = connect::settings_alone(globals).map(|settings| settings.aliases);
    let meant = aliases.as_ref().ok().and_then(|aliases| aliases.get(&name));
    match meant.map(|text| words(text)) {
        Some(Ok(meant)) if !meant.is_empty() => {
            line.extend(meant.into_iter().map(OsString::from));
            line.extend(rest.into_iter().skip(1));
            Ok(line)
        }
        _ => Err(unknown(&name, &aliases.unwrap_or_default())),
    }
}

/// Expects that no alias has the name of a command, which it could never be used by.
///
/// # Errors
/// Names one that has.
pub(super) fn expect_free(aliases: &BTreeMap<String, String>) -> Result<()> {
    let cli = Cli::command();
    match aliases.keys().find(|name| cli.find_subcommand(name).is_some()) {
        Some(taken) => Err(Error::invalid(format!("aliases: {taken:?} is a command already"))),
        None => Ok(()),
    }
}

/// A name of no command and none of these aliases.
pub(super) fn unknown(name: &str, aliases: &BTreeMap<String, String>) -> clap::Error {
    let mut cli = Cli::command();
    let commands = cli.get_subcommands().filter(|command| !command.is_hide_set());
    let all = commands.map(clap::Command::get_name).chain(aliases.keys().map(String::as_str));
    let near = suggestion(name, all).map(|near| format!("; {near}")).unwrap_or_default();
    cli.error(ErrorKind::InvalidSubcommand, format!("unrecognized subcommand {name:?}{near}"))
}
