//! A command line within a command line: what is run, after where it is run.

use std::marker::PhantomData;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

/// Where something is run, and what.
///
/// The first word that is no flag says where; all words after it are the command's own, whatever they look like
/// (`run postgres -c max_connections=200`), as docker reads them (pflag's `SetInterspersed(false)`).
#[derive(Debug)]
pub struct Invocation<P> {
    /// The name of the place.
    pub place: String,
    /// The command and its arguments; with a place that has one of its own, perhaps none.
    pub command: Vec<String>,
    kind: PhantomData<P>,
}

/// The kind of a place.
pub trait Place {
    /// What the usage calls it: `IMAGE`.
    const NAME: &'static str;
    /// What the usage calls the rest.
    const COMMAND: &'static str = "COMMAND";
    /// What the help says.
    const HELP: &'static str;
    /// Whether it has no command of its own.
    const NEEDS_COMMAND: bool;
}

/// A new container of an image.
#[derive(Debug)]
pub enum OfImage {}

/// A container that is there.
#[derive(Debug)]
pub enum InContainer {}

/// A further process of a container, which may be described elsewhere.
#[derive(Debug)]
pub enum OfProcess {}

/// `ps`, about the processes of a container.
#[derive(Debug)]
pub enum OfProcesses {}

/// A new container of a service.
#[derive(Debug)]
pub enum OfService {}

/// A container of a service that is there.
#[derive(Debug)]
pub enum InService {}

const WORDS: &str = "words";

// === impl Invocation ===

impl<P: Place> Args for Invocation<P> {
    fn augment_args(command: Command) -> Command {
        let words = Arg::new(WORDS).required(true).trailing_var_arg(true).help(P::HELP);
        if P::NEEDS_COMMAND {
            return command.arg(words.num_args(2..).value_names([P::NAME, P::COMMAND]));
        }
        // The name is known once the verb is given, which is when its arguments are defined (`Lazy`).
        let verb = command.get_bin_name().unwrap_or(command.get_name());
        let usage = format!("{verb} [OPTIONS] <{}> [{}]...", P::NAME, P::COMMAND);
        command.arg(words.num_args(1..).value_name(P::NAME)).override_usage(usage)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<P: Place> FromArgMatches for Invocation<P> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut words = matches.get_many::<String>(WORDS).into_iter().flatten().cloned();
        let place = words.next().unwrap_or_default();
        Ok(Self { place, command: words.collect(), kind: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

// === impl Place ===

impl Place for OfImage {
    const NAME: &'static str = "IMAGE";
    const HELP: &'static str = "The image, by name or id; after it the command and its arguments";
    const NEEDS_COMMAND: bool = false;
}

impl Place for InContainer {
    const NAME: &'static str = "CONTAINER";
    const HELP: &'static str = "The container, the command and its arguments";
    const NEEDS_COMMAND: bool = true;
}

impl Place for OfProcess {
    const NAME: &'static str = "CONTAINER";
    const HELP: &'static str = "The container; after it the program and its arguments";
    const NEEDS_COMMAND: bool = false;
}

impl Place for OfProcesses {
    const NAME: &'static str = "CONTAINER";
    const COMMAND: &'static str = "ps OPTIONS";
    const HELP: &'static str = "The container; after it options of ps(1)";
    const NEEDS_COMMAND: bool = false;
}

impl Place for OfService {
    const NAME: &'static str = "SERVICE";
    const HELP: &'static str =
        "The service; after it the command and its arguments, when not the service's own";
    const NEEDS_COMMAND: bool = false;
}

impl Place for InService {
    const NAME: &'static str = "SERVICE";
    const HELP: &'static str = "The service, the command and its arguments";
    const NEEDS_COMMAND: bool = true;
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line<P: Place> {
        #[arg(short = 'c', long)]
        count: Option<u8>,
        #[command(flatten)]
        invocation: Invocation<P>,
    }

    fn read<P: Place>(line: &str) -> Result<(Option<u8>, String, String), clap::Error> {
        let line = Line::<P>::try_parse_from(line.split(' '))?;
        Ok((line.count, line.invocation.place, line.invocation.command.join(" ")))
    }

    #[test]
    fn what_follows_the_place_is_the_commands_own() {
        let read = |line: &str| read::<OfImage>(line).unwrap();
        assert_eq!(read("run -c 1 box"), (Some(1), "box".to_owned(), String::new()));
        assert_eq!(
            read("run box -c x --count=y --help"),
            (None, "box".into(), "-c x --count=y --help".into())
        );
        assert_eq!(read("run -c 1 -- box -- x"), (Some(1), "box".into(), "-- x".into()));
    }

    #[test]
    fn an_unknown_flag_before_the_place_is_a_mistake() {
        assert_eq!(
            read::<OfImage>("run --nope box").unwrap_err().kind(),
            clap::error::ErrorKind::UnknownArgument
        );
    }

    #[test]
    fn a_command_is_needed_where_the_place_has_none() {
        assert!(read::<InContainer>("exec box").is_err());
        assert_eq!(read::<InContainer>("exec box -c -e").unwrap(), (None, "box".into(), "-c -e".into()));
    }
}
