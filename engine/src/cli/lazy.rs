//! Arguments that are defined only when their verb is the one that is given. The verbs of all three programs have
//! hundreds of flags; to define them all takes longer than most verbs do.

use std::ffi::OsString;
use std::ops::{Deref, DerefMut};

use clap::builder::Resettable;
use clap::{ArgAction, ArgMatches, Args, Command, FromArgMatches, Subcommand};

use crate::quantity;

/// The arguments of a verb.
#[derive(Debug)]
pub struct Lazy<T>(pub Box<T>);

/// The verb below a verb, as arguments.
#[derive(Debug, Args)]
pub struct Below<T: Subcommand> {
    /// The verb.
    #[command(subcommand)]
    pub verb: T,
}

// === impl Lazy ===

impl<T: Args> Args for Lazy<T> {
    fn augment_args(command: Command) -> Command {
        command.defer(define::<T>)
    }

    fn augment_args_for_update(command: Command) -> Command {
        T::augment_args_for_update(command)
    }
}

impl<T: FromArgMatches> FromArgMatches for Lazy<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        T::from_arg_matches(matches).map(|found| Self(Box::new(found)))
    }

    // Otherwise clap reads from a copy of all that was given.
    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, clap::Error> {
        T::from_arg_matches_mut(matches).map(|found| Self(Box::new(found)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

impl<T> Deref for Lazy<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Lazy<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// What the verb says of itself is more than what the type of its arguments says.
fn define<T: Args>(command: Command) -> Command {
    let about = Resettable::from(command.get_about().cloned());
    let long = Resettable::from(command.get_long_about().cloned());
    as_docker_reads(T::augment_args(command)).about(about).long_about(long)
}

/// Reads flags as docker's parser does (spf13/pflag): one that is given or not may be given a value too
/// (`--rm=false`), and one with a value takes the next word whatever it begins with (`--tail -1`).
pub fn as_docker_reads(command: Command) -> Command {
    let words = || std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let is_truth = |word: String| {
        let (flag, value) = word.split_once('=').unwrap_or_default();
        flag.starts_with('-') && truth(value).is_ok()
    };
    // What nobody gives needs no place in the help.
    let truths = words().any(is_truth);
    command.mut_args(|flag| match flag.get_action() {
        ArgAction::SetTrue if truths => flag
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_value("false")
            .default_missing_value("true")
            .value_parser(truth),
        ArgAction::Set | ArgAction::Append if !flag.is_positional() => flag.allow_hyphen_values(true),
        _ => flag,
    })
}

/// `help VERB` is `VERB --help`, as docker and kubectl have it.
pub fn help_as_flag(mut arguments: Vec<OsString>) -> Vec<OsString> {
    if arguments.get(1).is_some_and(|verb| verb == "help") {
        arguments.remove(1);
        arguments.push("--help".into());
    }
    arguments
}

fn truth(text: &str) -> Result<bool, &'static str> {
    quantity::truth(text).ok_or("true or false is needed")
}
