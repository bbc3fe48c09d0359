//! The instructions of a Dockerfile as values. Variables in them are not expanded yet.

use std::collections::BTreeMap;

use super::lexer::Heredoc;
use crate::image::config::ImageHealthCheck;

/// A whole Dockerfile.
#[derive(Debug, Clone)]
pub(crate) struct Dockerfile {
    /// The escape character.
    pub(crate) escape: char,
    /// `# check=`.
    pub(crate) check: Option<String>,
    /// The comments right above instructions, by the line of the instruction.
    pub(crate) remarks: BTreeMap<usize, Vec<String>>,
    /// The ARGs before the first FROM.
    pub(crate) globals: Vec<Step>,
    /// The stages in order.
    pub(crate) stages: Vec<Stage>,
}

/// A FROM and what follows it.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    /// The image or stage it starts from, as written.
    pub(crate) base: String,
    /// Its name, in lower case.
    pub(crate) name: Option<String>,
    /// `--platform`.
    pub(crate) platform: Option<String>,
    /// The FROM line as written.
    pub(crate) code: String,
    /// First and last line of FROM.
    pub(crate) lines: (usize, usize),
    /// What follows.
    pub(crate) steps: Vec<Step>,
}

/// An instruction and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// What is to be done.
    pub(crate) instruction: Instruction,
    /// The instruction as written, on one line.
    pub(crate) code: String,
    /// First and last line.
    pub(crate) lines: (usize, usize),
    /// Whether empty lines were skipped inside it.
    pub(crate) has_gap: bool,
}

/// An instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Instruction {
    /// Names and defaults.
    Arg(Vec<(String, Option<String>)>),
    /// Names and values; whether in the old form `ENV name value`.
    Env(Vec<(String, String)>, bool),
    /// Names and values; whether in the old form `LABEL name value`.
    Label(Vec<(String, String)>, bool),
    /// COPY and ADD.
    Copy(Copy),
    /// RUN.
    Run(Run),
    /// CMD.
    Cmd(CommandLine),
    /// ENTRYPOINT.
    Entrypoint(CommandLine),
    /// HEALTHCHECK, complete; a shell form is `CMD-SHELL`.
    Healthcheck(ImageHealthCheck),
    /// Ports.
    Expose(Vec<String>),
    /// Paths.
    Volume(Vec<String>),
    /// `user[:group]`.
    User(String),
    /// The working directory.
    Workdir(String),
    /// A signal.
    Stopsignal(String),
    /// The shell of shell forms.
    Shell(Vec<String>),
    /// The instruction, as written, with its here-documents.
    Onbuild(String),
    /// The author.
    Maintainer(String),
}

/// A command of RUN, CMD or ENTRYPOINT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CommandLine {
    /// For the shell.
    Shell(String),
    /// A program and its arguments.
    Exec(Vec<String>),
}

/// COPY or ADD.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Copy {
    /// Whether it is ADD: archives are unpacked and addresses are fetched.
    pub(crate) is_add: bool,
    /// `--from`: a stage, its number, a context or an image.
    pub(crate) from: Option<String>,
    /// `--chown`.
    pub(crate) chown: Option<String>,
    /// `--chmod`.
    pub(crate) chmod: Option<String>,
    /// `--link`.
    pub(crate) link: bool,
    /// `--parents`.
    pub(crate) parents: bool,
    /// `--exclude`, each one.
    pub(crate) exclude: Vec<String>,
    /// `--keep-git-dir`.
    pub(crate) keeps_git: Option<bool>,
    /// `--checksum`.
    pub(crate) checksum: Option<String>,
    /// `--unpack`.
    pub(crate) unpack: Option<bool>,
    /// Paths and addresses.
    pub(crate) sources: Vec<String>,
    /// Texts that become files.
    pub(crate) heredocs: Vec<Heredoc>,
    /// Where to.
    pub(crate) destination: String,
}

/// RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    /// What.
    pub(crate) command: CommandLine,
    /// `--mount`, each one as written.
    pub(crate) mounts: Vec<String>,
    /// `--network`.
    pub(crate) network: Option<String>,
    /// `--security`.
    pub(crate) security: Option<String>,
    /// `--device`, each one as written.
    pub(crate) devices: Vec<String>,
    /// Texts that follow.
    pub(crate) heredocs: Vec<Heredoc>,
}
