//! Changes to a configuration in a Dockerfile's words, as `import --change` and `commit --change` take them.

use crate::image::config::{Empty, RunConfig};

/// Why a change was not made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid change {change:?}: {reason}")]
pub struct ChangeError {
    change: String,
    reason: &'static str,
}

/// Makes changes, one after the other. As in a Dockerfile, an `ENTRYPOINT` takes the command away that it was not given with.
///
/// # Errors
/// At the first change that is none.
pub fn apply_all(config: &mut RunConfig, changes: &[String]) -> Result<(), ChangeError> {
    let before = config.cmd.take();
    for change in changes {
        apply(config, change)?;
    }
    let is_entrypoint = |change: &String| {
        change.split_whitespace().next().is_some_and(|word| word.eq_ignore_ascii_case("entrypoint"))
    };
    if config.cmd.is_none() && !changes.iter().any(is_entrypoint) {
        config.cmd = before;
    }
    Ok(())
}

/// Makes one change: `CMD`, `ENTRYPOINT`, `ENV`, `EXPOSE`, `LABEL`, `ONBUILD`, `STOPSIGNAL`, `USER`, `VOLUME` or
/// `WORKDIR`, with what a Dockerfile would have behind it.
fn apply(config: &mut RunConfig, change: &str) -> Result<(), ChangeError> {
    let wrong = |reason| ChangeError { change: change.to_owned(), reason };
    let (word, rest) = change.trim().split_once(char::is_whitespace).unwrap_or((change.trim(), ""));
    let rest = rest.trim();
    if rest.is_empty() {
        return Err(wrong("an instruction and its arguments are needed"));
    }
    let pairs = || pairs(rest).ok_or_else(|| wrong("KEY=value is needed, quotes closed"));
    match word.to_ascii_uppercase().as_str() {
        "CMD" => config.cmd = Some(command(rest)),
        "ENTRYPOINT" => config.entrypoint = Some(command(rest)),
        "ENV" => {
            for (key, value) in pairs()? {
                let prefix = format!("{key}=");
                config.env.retain(|known| !known.starts_with(&prefix));
                config.env.push(format!("{key}={value}"));
            }
        }
        "LABEL" => config.labels.extend(pairs()?),
        "EXPOSE" => {
            for port in rest.split_whitespace() {
                let port = port.to_ascii_lowercase();
                let port = if port.contains('/') { port } else { format!("{port}/tcp") };
                config.exposed_ports.insert(port, Empty {});
            }
        }
        "VOLUME" => {
            let paths = list(rest).unwrap_or_else(|| rest.split_whitespace().map(str::to_owned).collect());
            config.volumes.extend(paths.into_iter().map(|path| (path, Empty {})));
        }
        "ONBUILD" => config.on_build.push(rest.to_owned()),
        "STOPSIGNAL" => config.stop_signal = Some(rest.to_owned()),
        "USER" => config.user = rest.to_owned(),
        "WORKDIR" => {
            config.working_dir = match (rest.starts_with('/'), config.working_dir.trim_end_matches('/')) {
                (true, _) => rest.to_owned(),
                (false, before) => format!("{before}/{rest}"),
            };
        }
        _ => {
            return Err(wrong(
                "only CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME and WORKDIR change a configuration",
            ));
        }
    }
    Ok(())
}

impl From<ChangeError> for crate::Error {
    fn from(error: ChangeError) -> Self {
        crate::Error::invalid(error.to_string())
    }
}

fn command(text: &str) -> Vec<String> {
    list(text).unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()])
}

fn list(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

/// `KEY=value …` with quotes and backslashes, or the old `KEY value`.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let words = words(text)?;
    if !words.first()?.contains('=') {
        let (key, value) = text.split_once(char::is_whitespace)?;
        return Some(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    words
        .into_iter()
        .map(|word| {
            let (key, value) = word.split_once('=')?;
            (!key.is_empty()).then(|| (key.to_owned(), value.to_owned()))
        })
        .collect()
}

fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word = None::<String>;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().push(chars.next()?),
            (None, _) if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dockerfiles_words_change_a_configuration() {
        let mut config = RunConfig { env: vec!["A=old".into()], ..Default::default() };
        for change in [
            r#"CMD ["sh", "-c", "true"]"#,
            "entrypoint run me",
            r#"ENV A=new B="two words" C=a\ b"#,
            "ENV OLD the rest of it",
            "EXPOSE 80 53/UDP",
            r#"LABEL a.b="c d""#,
            r#"VOLUME ["/data"]"#,
            "USER 1000:1000",
            "WORKDIR /srv",
            "WORKDIR app",
            "STOPSIGNAL SIGINT",
            "ONBUILD RUN true",
        ] {
            apply(&mut config, change).unwrap();
        }
        assert_eq!(config.cmd.unwrap(), ["sh", "-c", "true"]);
        assert_eq!(config.entrypoint.unwrap(), ["/bin/sh", "-c", "run me"]);
        assert_eq!(config.env, ["A=new", "B=two words", "C=a b", "OLD=the rest of it"]);
        assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!(config.labels["a.b"], "c d");
        assert_eq!(config.working_dir, "/srv/app");
        assert_eq!((config.user.as_str(), config.stop_signal.as_deref()), ("1000:1000", Some("SIGINT")));
    }

    #[test]
    fn an_entrypoint_takes_the_command_before_it_away() {
        let cmd_after = |changes: &[&str]| {
            let mut config = RunConfig { cmd: Some(vec!["before".into()]), ..Default::default() };
            let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
            apply_all(&mut config, &changes).unwrap();
            config.cmd.map(|cmd| cmd.join(" "))
        };
        assert_eq!(cmd_after(&["ENTRYPOINT [\"run\"]"]), None);
        assert_eq!(cmd_after(&["CMD [\"new\"]", "entrypoint [\"run\"]"]).unwrap(), "new");
        assert_eq!(cmd_after(&["USER me"]).unwrap(), "before");
    }

    #[test]
    fn what_changes_no_configuration_is_refused() {
        for change in ["RUN true", "CMD", "ENV A=\"open", "ENV ALONE", "", "FROM x"] {
            assert!(apply(&mut RunConfig::default(), change).is_err(), "{change}");
        }
    }
}
