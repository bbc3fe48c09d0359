//! Instructions that change a configuration and nothing else, with their words expanded: what a Dockerfile says in
//! between, and what `commit --change` and `import --change` say afterwards.

use std::collections::BTreeSet;

use super::expand::{Expanded, Expander};
use super::ignore::clean;
use super::instruction::{CommandLine, Instruction};
use super::parser;
use crate::error::{Error, Result};
use crate::image::config::{Empty, ImageHealthCheck, RunConfig};

/// A change of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Setting {
    Cmd(CommandLine),
    Entrypoint(CommandLine),
    Healthcheck(ImageHealthCheck),
    Shell(Vec<String>),
    Onbuild(String),
    Env(Vec<(String, String)>),
    Label(Vec<(String, String)>),
    Expose(Vec<String>),
    Volume(Vec<String>),
    User(String),
    Stopsignal(String),
}

/// Why a word makes no setting: in words, or because it could not be expanded.
pub(super) enum Wrong<E> {
    Word(String),
    Expansion(E),
}

/// What `--change` may say.
const CHANGES: &str =
    "CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME and WORKDIR";

// === impl Setting ===

impl Setting {
    /// The change that an instruction makes, with its words expanded by `expand`; `None` when it is more than that.
    pub(super) fn of<E>(
        instruction: &Instruction,
        expand: &dyn Fn(&str) -> Result<Expanded, E>,
    ) -> Result<Option<Self>, Wrong<E>> {
        let text = |text: &str| expand(text).map(|expanded| expanded.text).map_err(Wrong::Expansion);
        let pairs = |pairs: &[(String, String)]| {
            let pair = |(name, value): &(String, String)| Ok((text(name)?, text(value)?));
            pairs.iter().map(pair).collect::<Result<Vec<_>, _>>()
        };
        Ok(Some(match instruction {
            Instruction::Cmd(command) => Self::Cmd(command.clone()),
            Instruction::Entrypoint(command) => Self::Entrypoint(command.clone()),
            Instruction::Healthcheck(check) => Self::Healthcheck(check.clone()),
            Instruction::Shell(words) => Self::Shell(words.clone()),
            Instruction::Onbuild(trigger) => Self::Onbuild(trigger.clone()),
            Instruction::Env(given, _) => Self::Env(pairs(given)?),
            Instruction::Label(given, _) => Self::Label(pairs(given)?),
            Instruction::Expose(words) => {
                let mut ports = Vec::new();
                for word in words {
                    for word in expand(word).map_err(Wrong::Expansion)?.words {
                        ports.extend(ports_of(&word).map_err(Wrong::Word)?);
                    }
                }
                Self::Expose(ports)
            }
            Instruction::Volume(words) => {
                Self::Volume(words.iter().map(|word| text(word)).collect::<Result<_, _>>()?)
            }
            Instruction::User(user) => Self::User(text(user)?),
            Instruction::Stopsignal(signal) => {
                let signal = text(signal)?;
                let parsed = signal.parse::<crate::signal::Signal>();
                parsed.map_err(|error| Wrong::Word(error.to_string()))?;
                Self::Stopsignal(signal)
            }
            _ => return Ok(None),
        }))
    }

    /// Makes the change. An `ENTRYPOINT` takes a command away that is not `own`: of the base image. What a history says
    /// of it is returned, unless that is the instruction as it was written, or nothing.
    pub(super) fn apply(self, config: &mut RunConfig, own_command: &mut bool) -> Option<String> {
        Some(match self {
            Self::Cmd(command) => {
                let argv = with_shell(config.shell.as_deref(), &command);
                let entry = format!("CMD {}", quoted_list(&argv));
                config.cmd = Some(argv);
                config.args_escaped = true;
                *own_command = true;
                entry
            }
            Self::Entrypoint(command) => {
                let argv = with_shell(config.shell.as_deref(), &command);
                let entry = format!("ENTRYPOINT {}", quoted_list(&argv));
                config.entrypoint = Some(argv);
                if !*own_command {
                    config.cmd = None;
                }
                entry
            }
            Self::Healthcheck(check) => {
                config.healthcheck = Some(check);
                return None;
            }
            Self::Onbuild(trigger) => {
                config.on_build.push(trigger);
                return None;
            }
            Self::Shell(words) => {
                let entry = format!("SHELL [{}]", words.join(" "));
                config.shell = Some(words);
                entry
            }
            Self::Env(pairs) => {
                pairs.iter().for_each(|(name, value)| set_env(&mut config.env, name, value));
                format!("ENV {}", joined(&pairs))
            }
            Self::Label(pairs) => {
                config.labels.extend(pairs.iter().cloned());
                format!("LABEL {}", joined(&pairs))
            }
            Self::Expose(ports) => {
                let shown: BTreeSet<String> = ports.iter().map(|port| format!("{port}:{{}}")).collect();
                config.exposed_ports.extend(ports.into_iter().map(|port| (port, Empty {})));
                format!("EXPOSE map[{}]", shown.into_iter().collect::<Vec<_>>().join(" "))
            }
            Self::Volume(paths) => {
                config.volumes.extend(paths.iter().map(|path| (path.clone(), Empty {})));
                format!("VOLUME [{}]", paths.join(" "))
            }
            Self::User(user) => {
                config.user.clone_from(&user);
                format!("USER {user}")
            }
            Self::Stopsignal(signal) => {
                config.stop_signal = Some(signal.clone());
                format!("STOPSIGNAL {signal}")
            }
        })
    }
}

/// Changes a configuration as instructions of a Dockerfile would.
///
/// # Errors
/// At the first that is none, or does more than that.
pub fn change(config: &mut RunConfig, changes: &[String]) -> Result<()> {
    let mut own_command = false;
    for change in changes {
        let wrong = |reason: String| Error::invalid(format!("invalid change {change:?}: {reason}"));
        let only = || wrong(format!("only {CHANGES} change a configuration"));
        let parsed = parser::parse(&format!("FROM scratch\n{}", change.trim()));
        let parsed = parsed.map_err(|fault| wrong(fault.message))?;
        let [stage] = parsed.stages.as_slice() else { return Err(only()) };
        let [step] = stage.steps.as_slice() else { return Err(only()) };
        let env = config.env.clone();
        let expand = |text: &str| Expander::new('\\').expand(text, &|name| variable(&env, name));
        if let Instruction::Workdir(path) = &step.instruction {
            let path = expand(path).map_err(wrong)?.text;
            let base = if path.starts_with('/') { "" } else { &config.working_dir };
            config.working_dir = clean(&format!("{base}/{path}"));
            continue;
        }
        let setting = Setting::of(&step.instruction, &expand).map_err(|error| match error {
            Wrong::Word(reason) | Wrong::Expansion(reason) => wrong(reason),
        })?;
        match setting {
            Some(Setting::Shell(_)) | None => return Err(only()),
            Some(setting) => drop(setting.apply(config, &mut own_command)),
        }
    }
    Ok(())
}

/// The value of a variable of a configuration.
pub(super) fn variable(env: &[String], name: &str) -> Option<String> {
    let known = env.iter().filter_map(|pair| pair.split_once('='));
    known.filter(|(known, _)| *known == name).map(|(_, value)| value.to_owned()).next()
}

/// A command with the shell its form asks for.
pub(super) fn with_shell(shell: Option<&[String]>, command: &CommandLine) -> Vec<String> {
    match command {
        CommandLine::Exec(argv) => argv.clone(),
        CommandLine::Shell(text) => {
            let mut argv =
                shell.map_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()], <[String]>::to_vec);
            argv.push(text.clone());
            argv
        }
    }
}

fn set_env(env: &mut Vec<String>, name: &str, value: &str) {
    let pair = format!("{name}={value}");
    let is_same = |known: &&mut String| known.split('=').next() == Some(name);
    match env.iter_mut().find(is_same) {
        Some(known) => *known = pair,
        None => env.push(pair),
    }
}

fn joined(pairs: &[(String, String)]) -> String {
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

/// A list as Go's `%q` prints it, which is what histories hold.
fn quoted_list(words: &[String]) -> String {
    let words: Vec<String> =
        words.iter().map(|word| serde_json::to_string(word).unwrap_or_default()).collect();
    format!("[{}]", words.join(" "))
}

/// The ports an EXPOSE word names: `80`, `53/udp`, `3000-3005`, and `ip:host:container` for its last part.
fn ports_of(word: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("invalid containerPort: {word}");
    let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("invalid proto: {protocol}"));
    }
    let ports = ports.rsplit(':').next().unwrap_or(ports);
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last): (u16, u16) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
    if first == 0 || last < first {
        return Err(wrong());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exposed_ports_have_a_protocol_and_may_be_ranges() {
        assert_eq!(ports_of("80").unwrap(), ["80/tcp"]);
        assert_eq!(ports_of("53/UDP").unwrap(), ["53/udp"]);
        assert_eq!(ports_of("8000-8002").unwrap(), ["8000/tcp", "8001/tcp", "8002/tcp"]);
        assert_eq!(ports_of("127.0.0.1:80:8080").unwrap(), ["8080/tcp"]);
        for wrong in ["x", "0", "2-1", "80/what", "70000"] {
            assert!(ports_of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_variable_keeps_its_place_when_it_changes() {
        let mut env = vec!["A=1".to_owned(), "B=2".to_owned()];
        set_env(&mut env, "A", "3");
        set_env(&mut env, "C", "4");
        assert_eq!(env, ["A=3", "B=2", "C=4"]);
    }

    fn changed(config: RunConfig, changes: &[&str]) -> Result<RunConfig> {
        let mut config = config;
        let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
        change(&mut config, &changes).map(|()| config)
    }

    #[test]
    fn a_dockerfiles_words_change_a_configuration() {
        let before = RunConfig { env: vec!["A=old".into(), "PATH=/bin".into()], ..RunConfig::default() };
        let config = changed(
            before,
            &[
                r#"CMD ["sh", "-c", "true"]"#,
                "entrypoint run me",
                r#"ENV A=new B="two words" C=a\ b PATH=$PATH:/opt"#,
                "ENV OLD the rest of it",
                "EXPOSE 80 53/UDP 90-91",
                r#"LABEL a.b="c d" of=$A"#,
                r#"VOLUME ["/data"]"#,
                "USER 1000:1000",
                "WORKDIR /srv",
                "WORKDIR app/../web",
                "STOPSIGNAL SIGINT",
                "HEALTHCHECK --interval=3s CMD true",
                "ONBUILD RUN true",
            ],
        )
        .unwrap();
        assert_eq!(config.cmd.unwrap(), ["sh", "-c", "true"]);
        assert_eq!(config.entrypoint.unwrap(), ["/bin/sh", "-c", "run me"]);
        assert_eq!(config.env, ["A=new", "PATH=/bin:/opt", "B=two words", "C=a b", "OLD=the rest of it"]);
        assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["53/udp", "80/tcp", "90/tcp", "91/tcp"]);
        assert_eq!((config.labels["a.b"].as_str(), config.labels["of"].as_str()), ("c d", "new"));
        assert_eq!(config.working_dir, "/srv/web");
        assert_eq!((config.user.as_str(), config.stop_signal.as_deref()), ("1000:1000", Some("SIGINT")));
        assert_eq!(config.healthcheck.unwrap().test, ["CMD-SHELL", "true"]);
        assert_eq!(config.on_build, ["RUN true"]);
    }

    #[test]
    fn an_entrypoint_takes_the_command_before_it_away() {
        let cmd_after = |changes: &[&str]| {
            let before = RunConfig { cmd: Some(vec!["before".into()]), ..RunConfig::default() };
            changed(before, changes).unwrap().cmd.map(|cmd| cmd.join(" "))
        };
        assert_eq!(cmd_after(&["ENTRYPOINT [\"run\"]"]), None);
        assert_eq!(cmd_after(&["CMD [\"new\"]", "entrypoint [\"run\"]"]).unwrap(), "new");
        assert_eq!(cmd_after(&["USER me"]).unwrap(), "before");
    }

    #[test]
    fn what_changes_no_configuration_is_refused() {
        for wrong in [
            "RUN true",
            "CMD",
            "ENV A=\"open",
            "ENV ALONE",
            "",
            "FROM x",
            "ARG a",
            "COPY a b",
            "EXPOSE 99999",
            "STOPSIGNAL what",
            "ONBUILD FROM x",
            "USER a\nRUN true",
            "SHELL [\"sh\"]",
        ] {
            let error = changed(RunConfig::default(), &[wrong]).unwrap_err();
            assert!(error.to_string().starts_with("invalid change"), "{wrong}: {error}");
        }
    }
}
