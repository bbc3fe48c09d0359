//! The one executable: `rengine`, `rcompose` or `rdeploy`, by the name it is called by or its first argument.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

/// The program that a command line asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    Engine,
    /// `rengine buildx bake`, which reads compose files.
    Bake,
    Compose,
    Deploy,
}

fn main() -> ExitCode {
    // A monitor is this same executable; it must be found out before anything else of the program wakes up.
    if let Some(code) = engine::enter_monitor_if_asked() {
        return code;
    }
    // So must what ssh asks this executable.
    if let Some(code) = deploy::ssh::enter_if_asked() {
        return code;
    }
    if let Some(code) = deploy::heir::enter_if_asked() {
        return code;
    }
    let (program, arguments) = baking(chosen(std::env::args_os().collect()));
    match program {
        Program::Engine => engine::cli::main(arguments),
        Program::Bake => compose::cli::bake::main(arguments),
        Program::Compose => compose::cli::main(arguments),
        Program::Deploy => {
            if let Err(error) = deploy::secrets::hide() {
                return deploy::cli::fail(&error);
            }
            deploy::cli::main(arguments)
        }
    }
}

/// The program and its own command line, name first. Called by the name of one, the arguments are its; called by
/// any other name, the first argument may be such a name. `rengine compose` is `rcompose`, as docker has it.
fn chosen(mut arguments: Vec<OsString>) -> (Program, Vec<OsString>) {
    if arguments.first().and_then(|name| named(name)) == Some(Program::Engine)
        && arguments.get(1).is_some_and(|verb| verb == "compose")
    {
        arguments.remove(0);
        return (Program::Compose, arguments);
    }
    if let Some(program) = arguments.first().and_then(|name| named(name))
        && !(program == Program::Deploy && arguments.get(1).is_some_and(|name| named(name).is_some()))
    {
        return (program, arguments);
    }
    match arguments.get(1).and_then(|name| named(name)) {
        Some(program) => {
            arguments.remove(0);
            (program, arguments)
        }
        None => (Program::Deploy, arguments),
    }
}

/// `bake` is the builder's verb, and at home where compose files are read.
fn baking((program, mut arguments): (Program, Vec<OsString>)) -> (Program, Vec<OsString>) {
    if program != Program::Engine {
        return (program, arguments);
    }
    let mut at = 1;
    while let Some(flag) =
        arguments.get(at).and_then(|word| word.to_str()).filter(|word| word.starts_with('-'))
    {
        at += if flag == "--root" { 2 } else { 1 };
    }
    let word = |at: usize| arguments.get(at).and_then(|word| word.to_str());
    let verbs = match (word(at), word(at + 1)) {
        (Some("bake"), _) => 1,
        (Some("buildx" | "builder"), Some("bake")) => 2,
        _ => return (program, arguments),
    };
    arguments.drain(at..at + verbs);
    (Program::Bake, arguments)
}

fn named(path: &OsStr) -> Option<Program> {
    match Path::new(path).file_name()?.to_str()? {
        // `docker`, `docker-compose` and `runc` for those who link the old names to this file.
        "rengine" | "docker" | "rengine-oci" | "runc" => Some(Program::Engine),
        "rcompose" | "docker-compose" => Some(Program::Compose),
        "rdeploy" => Some(Program::Deploy),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_answers_to_three_names() {
        let line = |text: &str| {
            let (program, rest) = baking(chosen(text.split(' ').map(OsString::from).collect()));
            (program, rest.join(OsStr::new(" ")).into_string().unwrap())
        };
        assert_eq!(line("/usr/bin/rengine ps"), (Program::Engine, "/usr/bin/rengine ps".into()));
        assert_eq!(line("rcompose up"), (Program::Compose, "rcompose up".into()));
        assert_eq!(line("rdeploy --help"), (Program::Deploy, "rdeploy --help".into()));
        assert_eq!(line("rdeploy rengine ps"), (Program::Engine, "rengine ps".into()));
        assert_eq!(line("./anything rcompose up"), (Program::Compose, "rcompose up".into()));
        assert_eq!(line("rengine rcompose"), (Program::Engine, "rengine rcompose".into()));
        assert_eq!(line("docker buildx bake app"), (Program::Bake, "docker app".into()));
        assert_eq!(
            line("rengine --root /r bake --print"),
            (Program::Bake, "rengine --root /r --print".into())
        );
        assert_eq!(line("rengine buildx ls"), (Program::Engine, "rengine buildx ls".into()));
        assert_eq!(line("docker compose up"), (Program::Compose, "compose up".into()));
    }
}
