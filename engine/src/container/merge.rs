//! A container's specification and its image's configuration become one. Pure.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::container::spec::{
    ContainerPort, ContainerSpec, Grace, HealthCheck, MountSource, MountSpec, Protocol, VolumeMaking,
};
use crate::error::{Error, Result};
use crate::image::config::{ImageHealthCheck, RunConfig};
use crate::quantity::Span;

/// The search path of a container whose image has none.
pub const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a container runs and where, after the merge.
#[derive(Debug, Clone, PartialEq)]
pub struct Merged {
    /// The specification with nothing left to the image.
    pub spec: ContainerSpec,
    /// The program and its arguments.
    pub argv: Vec<String>,
}

/// Merges as docker does: the command line wins, then the image; an entrypoint given on the command line drops
/// the image's command.
///
/// # Errors
/// When neither names a program, or the image carries a value that makes no sense.
pub fn merge(mut spec: ContainerSpec, image: &RunConfig) -> Result<Merged> {
    let argv = merge_argv(&spec, image)?;
    // Kept as merged, so that what is shown of the container does not hang on an image that may go.
    if spec.process.entrypoint.is_none() {
        if spec.process.command.as_ref().is_none_or(Vec::is_empty) {
            spec.process.command.clone_from(&image.cmd);
        }
        spec.process.entrypoint.clone_from(&image.entrypoint);
    }
    merge_environment(&mut spec, image);
    spec.process.user.get_or_insert_with(|| image.user.clone());
    let working_dir = if image.working_dir.is_empty() { "/" } else { &image.working_dir };
    spec.process.working_dir.get_or_insert_with(|| PathBuf::from(working_dir));
    for (key, value) in &image.labels {
        spec.labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    merge_ports(&mut spec, image)?;
    merge_volumes(&mut spec, image);
    merge_ending(&mut spec, image)?;
    if spec.healthcheck.is_none() {
        spec.healthcheck = image.healthcheck.as_ref().map(from_image);
    }
    spec.healthcheck = spec.healthcheck.filter(|check| check.test.is_some());
    if let Some(check) = &mut spec.healthcheck {
        let timing = std::mem::take(&mut spec.health_timing);
        check.interval = timing.interval.unwrap_or(check.interval);
        check.timeout = timing.timeout.unwrap_or(check.timeout);
        check.retries = timing.retries.unwrap_or(check.retries);
        check.start_period = timing.start_period.unwrap_or(check.start_period);
        check.start_interval = timing.start_interval.unwrap_or(check.start_interval);
    }
    Ok(Merged { spec, argv })
}

fn merge_argv(spec: &ContainerSpec, image: &RunConfig) -> Result<Vec<String>> {
    let process = &spec.process;
    let entrypoint = process.entrypoint.as_ref().or(image.entrypoint.as_ref());
    let image_command = if process.entrypoint.is_some() { None } else { image.cmd.as_ref() };
    let command = process.command.as_ref().filter(|command| !command.is_empty()).or(image_command);
    let argv: Vec<String> = entrypoint.into_iter().chain(command).flatten().cloned().collect();
    if argv.is_empty() {
        return Err(Error::invalid(format!("image {} names no command and none was given", spec.image))
            .with_hint("give the container a command, or the image a CMD or ENTRYPOINT"));
    }
    Ok(argv)
}

fn merge_environment(spec: &mut ContainerSpec, image: &RunConfig) {
    let mut merged: Vec<String> = Vec::new();
    // An image's entry without `=` is dropped: it must never import a variable of the host (CVE-2026-57231).
    let from_image = image.env.iter().filter(|entry| entry.contains('=')).cloned();
    let defaults = std::iter::once(DEFAULT_PATH.to_owned());
    for entry in defaults.chain(from_image).chain(std::mem::take(&mut spec.process.env)) {
        let key = entry.split('=').next().unwrap_or_default();
        merged.retain(|known| known.split('=').next() != Some(key));
        if entry.contains('=') {
            merged.push(entry);
        }
    }
    spec.process.env = merged;
}

fn merge_ports(spec: &mut ContainerSpec, image: &RunConfig) -> Result<()> {
    let mut expose: BTreeSet<ContainerPort> = spec.expose.iter().copied().collect();
    for text in image.exposed_ports.keys() {
        expose.extend(expand_exposed(text)?);
    }
    expose.extend(spec.ports.iter().map(|binding| binding.container));
    spec.expose = expose.into_iter().collect();
    Ok(())
}

/// The ports that `8080`, `8080/udp` or `8000-8010/tcp` names.
pub fn expand_exposed(text: &str) -> Result<Vec<ContainerPort>> {
    let wrong = || {
        Error::invalid(format!("invalid exposed port {text:?}")).with_hint(
            "write a port or a range, with a protocol where it is not tcp: 8080, 53/udp, 8000-8010",
        )
    };
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return Err(wrong()),
    };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let (first, last): (u16, u16) = match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first > 0 && first <= last => (first, last),
        _ => return Err(wrong()),
    };
    Ok((first..=last).map(|port| ContainerPort { port, protocol }).collect())
}

fn merge_volumes(spec: &mut ContainerSpec, image: &RunConfig) {
    for path in image.volumes.keys() {
        let target = PathBuf::from(path);
        if spec.mounts.iter().all(|mount| mount.target != target) {
            let source = MountSource::Volume {
                name: None,
                no_copy: false,
                subpath: None,
                making: VolumeMaking::default(),
            };
            spec.mounts.push(MountSpec { target, source, read_only: false });
        }
    }
}

fn merge_ending(spec: &mut ContainerSpec, image: &RunConfig) -> Result<()> {
    if let (None, Some(signal)) = (spec.stop_signal, &image.stop_signal) {
        let parsed = signal.parse().map_err(|error| {
            Error::invalid(format!("image {}: stop signal", spec.image)).with_source(error)
        })?;
        spec.stop_signal = Some(parsed);
    }
    if let (None, Some(seconds)) = (spec.stop_timeout, image.stop_timeout) {
        spec.stop_timeout = Some(Grace::Limited(Span::seconds(seconds)));
    }
    Ok(())
}

/// The health check an image carries, with docker's defaults for what it leaves out.
fn from_image(check: &ImageHealthCheck) -> HealthCheck {
    let or = |span: Span, seconds| if span.0.is_zero() { Span::seconds(seconds) } else { span };
    HealthCheck {
        test: probe_command(&check.test),
        interval: or(check.interval, 30),
        timeout: or(check.timeout, 30),
        retries: if check.retries == 0 { 3 } else { check.retries },
        start_period: check.start_period,
        start_interval: or(check.start_interval, 5),
    }
}

/// The program a `test` names: `CMD` and arguments, `CMD-SHELL` and a line, or `NONE`.
pub fn probe_command(test: &[String]) -> Option<Vec<String>> {
    match test.split_first() {
        Some((kind, words)) if kind == "CMD" && !words.is_empty() => Some(words.to_vec()),
        Some((kind, words)) if kind == "CMD-SHELL" && !words.is_empty() => {
            Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), words.join(" ")])
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::spec::HealthTiming;

    fn words(text: &str) -> Option<Vec<String>> {
        Some(text.split_whitespace().map(str::to_owned).collect())
    }

    fn image(entrypoint: &str, cmd: &str) -> RunConfig {
        RunConfig { entrypoint: words(entrypoint), cmd: words(cmd), ..RunConfig::default() }
    }

    fn argv(entrypoint: Option<&str>, command: Option<&str>, image: &RunConfig) -> String {
        let mut spec = ContainerSpec::default();
        spec.process.entrypoint = entrypoint.and_then(words);
        spec.process.command = command.and_then(words);
        merge(spec, image).map_or_else(|error| error.to_string(), |merged| merged.argv.join(" "))
    }

    #[test]
    fn entrypoint_and_command_merge_as_in_docker() {
        let both = image("/entry", "serve now");
        assert_eq!(argv(None, None, &both), "/entry serve now");
        assert_eq!(argv(None, Some("stop"), &both), "/entry stop");
        assert_eq!(argv(Some("/other"), None, &both), "/other");
        assert_eq!(argv(Some(""), Some("sh"), &both), "sh");
        assert_eq!(argv(None, None, &RunConfig::default()), "image  names no command and none was given");
    }

    #[test]
    fn the_environment_of_the_command_line_wins_and_none_of_the_host_comes_in() {
        let mut spec = ContainerSpec::default();
        spec.process.env = vec!["A=2".into(), "B".into()];
        let image = RunConfig {
            env: vec!["A=1".into(), "B=1".into(), "SECRET".into()],
            cmd: words("x"),
            ..RunConfig::default()
        };
        assert_eq!(merge(spec, &image).unwrap().spec.process.env, [DEFAULT_PATH, "A=2"]);
    }

    #[test]
    fn ports_expand() {
        assert_eq!(expand_exposed("8000-8002/udp").unwrap().len(), 3);
        for wrong in ["", "0", "9-8", "80/xyz", "x"] {
            assert!(expand_exposed(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_health_check_of_the_image_can_be_switched_off() {
        let check =
            ImageHealthCheck { test: vec!["CMD".into(), "true".into()], ..ImageHealthCheck::default() };
        let image = RunConfig { healthcheck: Some(check), cmd: words("x"), ..RunConfig::default() };
        let merged = merge(ContainerSpec::default(), &image).unwrap();
        assert_eq!(merged.spec.healthcheck.unwrap().interval, Span::seconds(30));
        let timing = HealthTiming { interval: Some(Span::seconds(1)), ..HealthTiming::default() };
        let merged =
            merge(ContainerSpec { health_timing: timing, ..ContainerSpec::default() }, &image).unwrap();
        let check = merged.spec.healthcheck.unwrap();
        assert_eq!((check.interval, check.retries), (Span::seconds(1), 3));
        assert_eq!(check.test.unwrap(), ["true"]);
        let off = HealthCheck {
            test: None,
            interval: Span::default(),
            timeout: Span::default(),
            retries: 0,
            start_period: Span::default(),
            start_interval: Span::default(),
        };
        let merged =
            merge(ContainerSpec { healthcheck: Some(off), ..ContainerSpec::default() }, &image).unwrap();
        assert_eq!(merged.spec.healthcheck, None);
    }
}
