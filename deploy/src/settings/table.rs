//! Which keys the settings have and what they take: one table, by which a file is checked before it is read.

use engine::image::Platform;
use engine::quantity::Span;

use crate::canary::CanaryStep;
use crate::host::is_local;
use crate::patience::Patience;
use crate::ssh::{Address, Fingerprint};

/// What a key takes.
#[derive(Debug)]
pub(super) enum Shape {
    /// A text.
    Text,
    /// A text that a function finds nothing wrong with.
    Checked(fn(&str) -> Result<(), String>),
    /// One of these words.
    Word(&'static [&'static str]),
    /// True or false.
    Bool,
    /// A whole number that is not negative.
    Count,
    /// A list of this.
    List(&'static Shape),
    /// A mapping of names to this.
    Map(&'static Shape),
    /// A mapping with these keys, of which some must be there.
    Object(&'static [(&'static str, Shape)], &'static [&'static str]),
    /// A text of the first form, or a mapping of the second one.
    TextOr(&'static Shape, &'static Shape),
}

/// The whole file.
pub(super) static SETTINGS: Shape = Shape::Object(
    &[
        ("hosts", Shape::List(&Shape::TextOr(&HOST, &HOST_DETAILS))),
        ("roles", Shape::Map(&Shape::List(&Shape::Text))),
        ("ssh", SSH),
        ("executables", Shape::Map(&Shape::Text)),
        ("builder", Shape::TextOr(&Shape::Word(&["here", "host"]), &Shape::Map(&HOST))),
        ("transfer", Shape::Word(&["direct", "registry"])),
        ("drain", DURATION),
        ("deploy_timeout", Shape::Checked(positive)),
        ("canary", Shape::List(&Shape::Checked(canary))),
        ("keep", Shape::Count),
        ("strategy", Shape::Map(&Shape::Word(&["start-first", "stop-first"]))),
        ("hooks", HOOKS),
        ("aliases", Shape::Map(&Shape::Checked(command))),
    ],
    &[],
);

static HOST: Shape = Shape::Checked(host);

static HOST_DETAILS: Shape =
    Shape::Object(&[("address", Shape::Checked(host)), ("roles", Shape::List(&Shape::Text))], &["address"]);

const DURATION: Shape = Shape::Checked(duration);

const SSH: Shape = Shape::Object(
    &[
        ("key", Shape::Text),
        ("fingerprint", Shape::List(&Shape::Checked(fingerprint))),
        ("known_hosts", Shape::Text),
        ("jump", Shape::List(&Shape::Checked(jump))),
        ("sudo", Shape::Word(&["auto", "never"])),
        ("accept_new", Shape::Bool),
        ("persist", DURATION),
    ],
    &[],
);

const HOOKS: Shape = Shape::Object(
    &[
        ("before-build", COMMANDS),
        ("before-prepare", COMMANDS),
        ("before-commit", COMMANDS),
        ("after-commit", COMMANDS),
        ("after-failure", COMMANDS),
    ],
    &[],
);

const COMMANDS: Shape = Shape::List(&Shape::Text);

/// What people write who come from elsewhere, and what it is here.
pub(super) const ELSEWHERE: [(&str, &str); 12] = [
    ("servers", "hosts"),
    ("server", "hosts"),
    ("user", "hosts: [user@server]"),
    ("port", "hosts: [server:port]"),
    ("registry", "transfer: registry"),
    ("retain_containers", "keep"),
    ("drain_timeout", "drain"),
    ("pre-build", "before-build"),
    ("pre-deploy", "before-commit"),
    ("post-deploy", "after-commit"),
    ("password", "the variable RDEPLOY_SSH_PASSWORD, which is in no file"),
    ("passphrase", "the variable RDEPLOY_SSH_PASSPHRASE, which is in no file"),
];

fn host(text: &str) -> Result<(), String> {
    if is_local(text) { Ok(()) } else { jump(text) }
}

fn jump(text: &str) -> Result<(), String> {
    text.parse::<Address>().map(drop).map_err(|error| error.to_string())
}

fn duration(text: &str) -> Result<(), String> {
    text.parse::<Span>().map(drop).map_err(|error| error.to_string())
}

fn positive(text: &str) -> Result<(), String> {
    text.parse::<Patience>().map(drop)
}

fn command(text: &str) -> Result<(), String> {
    compose::document::words(text).map(drop)
}

fn canary(text: &str) -> Result<(), String> {
    text.parse::<CanaryStep>().map(drop).map_err(|error| error.to_string())
}

fn fingerprint(text: &str) -> Result<(), String> {
    text.parse::<Fingerprint>().map(drop).map_err(|error| error.to_string())
}

/// What a machine that builds is named by.
pub(super) fn platform(text: &str) -> Result<(), String> {
    text.parse::<Platform>().map(drop).map_err(|error| error.to_string())
}
