//! `action`: what `action/action.yml` calls. It reads the action's inputs, deploys, and tells GitHub what came of it:
//! masks, outputs, a summary and annotations (docs.github.com, Workflow commands).

mod annotation;
mod mask;
mod runner;

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use engine::error::{Error, Result};
use engine::quantity::Span;

use self::annotation::annotate;
use self::mask::mask_secrets;
use self::runner::{output_token, summarize, write_output};
use super::image::{ImageInputs, absolute, is_dockerfile};
use super::rollout::{UpArgs, Waiting};
use super::{Globals, connect, output, rollout};
use crate::host::LOCAL;
use crate::pipeline::Report;
use crate::release::ReleaseId;
use crate::ssh::Address;

/// What the workflow asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wish {
    Up,
    Rollback,
    Plan,
    Uninstall,
}

/// `action`.
pub(super) fn action(globals: &Globals) -> Result<ExitCode> {
    mask_secrets();
    // What hosts and builds write must not be taken for commands of ours.
    let token = ReleaseId::new(jiff::Timestamp::now()).to_string() + &output_token();
    output::line(&format!("::stop-commands::{token}"));
    let asked = super::give_login(globals).and_then(|()| asked(globals));
    let known = asked.as_ref().ok().map(|(globals, _)| globals.clone());
    let result = asked.and_then(|(globals, wish)| run(&globals, &wish)).map_err(in_words_of_inputs);
    output::line(&format!("::{token}::"));
    match result {
        Ok(None) => {
            write_output("status", "removed")?;
            summarize("### The project is gone from the hosts\n")?;
            Ok(ExitCode::SUCCESS)
        }
        Ok(Some(report)) => {
            tell(&report)?;
            output::line(&format!("release {} serves on {} host(s)", report.release, report.hosts.len()));
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            write_output("status", "failed")?;
            annotate(&error, known.as_ref());
            let hint = error.hint().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
            summarize(&format!("### Not deployed\n\n```\n{}{hint}\n```\n", engine::error::chain(&error)))?;
            Err(error)
        }
    }
}

/// What is given by options and variables on a command line, workflows give by inputs.
const INPUTS: [(&str, &str); 8] = [
    ("-i, RDEPLOY_SSH_KEY", "the input key"),
    ("RDEPLOY_SSH_PASSWORD", "the input password"),
    ("RDEPLOY_SSH_PASSPHRASE", "the input passphrase"),
    ("RDEPLOY_SUDO_PASSWORD", "the input sudo-password"),
    ("RDEPLOY_REGISTRY_USERNAME", "the inputs registry-username"),
    ("RDEPLOY_REGISTRY_PASSWORD", "registry-password"),
    ("--fingerprint ", "the input fingerprint: "),
    ("--lock-wait", "the input lock-wait"),
];

/// The same failure, with what to do about it where the workflow is written.
fn in_words_of_inputs(error: Error) -> Error {
    let hint = error
        .hint()
        .map(|hint| INPUTS.iter().fold(hint.to_owned(), |hint, (option, input)| hint.replace(option, input)));
    error.with_hint_if(hint)
}

/// A secret that is not set is an empty input: who forgot it must not read of what they never wrote.
fn expect_host(globals: &Globals) -> Result<()> {
    if !globals.host.is_empty() || !connect::settings_alone(globals)?.hosts.is_empty() {
        return Ok(());
    }
    Err(Error::invalid("no host to deploy to: the input host is empty").with_hint(
        "is the secret or variable that it takes set for this repository and environment? Pull requests from forks get no secrets",
    ))
}

/// Does it. There is nothing to report of a project that is gone.
fn run(globals: &Globals, wish: &Wish) -> Result<Option<Report>> {
    expect_host(globals)?;
    let services: Vec<String> = words("services");
    match wish {
        Wish::Up => {
            // A step has a comma of its own.
            let canary: Vec<String> =
                input("canary").iter().flat_map(|text| text.split_whitespace()).map(str::to_owned).collect();
            let args = UpArgs::of(services, waiting()?, &canary)?;
            rollout::rolled_out(globals, &args).map(Some)
        }
        Wish::Rollback => rollout::rollback_quietly(globals, waiting()?).map(Some),
        Wish::Plan => rollout::plan_quietly(globals, &services).map(Some),
        Wish::Uninstall => rollout::uninstalled(globals, is_asked("volumes")?).map(|_| None),
    }
}

fn waiting() -> Result<Waiting> {
    Waiting::of(input("lock-wait"), input("drain"), input("deploy-timeout"))
}

/// The inputs over what the command line says.
fn asked(globals: &Globals) -> Result<(Globals, Wish)> {
    let mut globals = globals.clone();
    let user = input("username");
    let port = input("port");
    globals.host =
        words("host").into_iter().map(|host| full_address(&host, user.as_deref(), port.as_deref())).collect();
    let (instructions, files): (Vec<_>, Vec<_>) =
        words("file").into_iter().partition(|file| is_dockerfile(file));
    globals.file = files.into_iter().map(Into::into).collect();
    globals.image = image(instructions.into_iter().next())?;
    globals.image_services = words("services");
    through(&mut globals);
    globals.ssh.ssh_key = input("key_path").map(Into::into).or(globals.ssh.ssh_key);
    globals.ssh.host_keys = input("known_hosts");
    if input("script").is_some() {
        return Err(Error::invalid("script: this action runs no script on the servers")
            .with_hint("stop, rm, pull and up are what it does by itself; further commands go under `hooks:` in rdeploy.yaml"));
    }
    if let Some(directory) = input("project-directory") {
        globals.project_directory = Some(directory.clone().into());
        env::set_current_dir(&directory)
            .map_err(|error| Error::failed(format!("project-directory: enter {directory}"), error))?;
        globals.project_directory = None;
    }
    globals.env_file.extend(words("env-file").into_iter().map(PathBuf::from));
    globals.profile.extend(words("profiles"));
    globals.project_name = input("project-name").or(globals.project_name);
    // A runner is somebody else's when the job is over.
    globals.ssh.ssh_persist = Some(Span(Duration::ZERO));
    // Nobody reads the text for people there, and the outputs take what is in the other one.
    globals.json = true;
    globals.destination = input("destination").or(globals.destination);
    globals.config = input("config").map(Into::into).or(globals.config);
    let wish = match input("command").as_deref() {
        None | Some("up" | "deploy") => Wish::Up,
        Some("rollback") => Wish::Rollback,
        Some("plan") => Wish::Plan,
        Some("uninstall") => Wish::Uninstall,
        Some(other) => {
            return Err(Error::invalid(format!("command: {other:?} is not up, rollback, plan or uninstall")));
        }
    };
    Ok((globals, wish))
}

/// What the inputs of docker/build-push-action say of an image.
fn image(instructions: Option<String>) -> Result<ImageInputs> {
    let place = |text: Option<String>| text.map(|text| absolute(&text)).transpose();
    Ok(ImageInputs {
        context: place(input("context"))?,
        dockerfile: place(input("dockerfile").or(instructions))?,
        target: input("target"),
        args: lines("build-args"),
        labels: lines("labels"),
        tags: words("tags"),
        platforms: words("platforms"),
        cache_from: lines("cache-from"),
        cache_to: lines("cache-to"),
        contexts: lines("build-contexts"),
        hosts: lines("add-hosts"),
        network: input("network"),
        no_cache: is_asked("no-cache")?,
        pull: is_asked("pull")?,
        push: is_asked("push")?,
    })
}

/// The host to go through by the names of appleboy/ssh-action, after those that `jump` names.
fn through(globals: &mut Globals) {
    if let Some(host) = input("proxy_host") {
        let (user, port) = (input("proxy_username"), input("proxy_port"));
        globals.ssh.jump.push(full_address(&host, user.as_deref(), port.as_deref()));
    }
    globals.ssh.fingerprint.extend(input("proxy_fingerprint"));
}

/// A host as the inputs `host`, `username` and `port` say together; what is in the host itself wins.
fn full_address(host: &str, user: Option<&str>, port: Option<&str>) -> String {
    let mut address = host.to_owned();
    if host == "local" || host.starts_with("local:") {
        return address;
    }
    if let Some(user) = user.filter(|_| !host.contains('@')) {
        address = format!("{user}@{address}");
    }
    let bare = address.rsplit('@').next().unwrap_or_default();
    let has_port = bare.rsplit_once(':').is_some_and(|(before, port)| {
        !before.is_empty() && !before.contains(':') && port.bytes().all(|byte| byte.is_ascii_digit())
    }) || bare.contains("]:");
    if let Some(port) = port.filter(|port| !has_port && *port != "22") {
        address = format!("{address}:{port}");
    }
    address
}

/// An input of the action, as runners hand them over; nothing when it is empty.
fn input(name: &str) -> Option<String> {
    // A shell in between passes only names on that could be variables of its own.
    let variable = format!("INPUT_{}", name.to_uppercase().replace('-', "_"));
    env::var(variable).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// An input that is a yes or a no.
fn is_asked(name: &str) -> Result<bool> {
    match input(name).as_deref() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(Error::invalid(format!("{name}: {other:?} is not true or false"))),
    }
}

/// An input that is a list: by commas, spaces or lines.
fn words(name: &str) -> Vec<String> {
    let text = input(name).unwrap_or_default();
    text.split([',', ' ', '\n']).map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// An input that is a list by lines, since its items may have commas and spaces.
fn lines(name: &str) -> Vec<String> {
    let text = input(name).unwrap_or_default();
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn tell(report: &Report) -> Result<()> {
    let downtime = report.hosts.iter().filter_map(|host| host.measured.downtime_ms).max();
    let sent: u64 = report.hosts.iter().map(|host| host.sent).sum();
    let previous = report.hosts.iter().find_map(|host| host.planned.previous.as_ref());
    let digests: Vec<String> =
        report.images.iter().map(|(service, image)| format!("{service}={}", image.id)).collect();
    for (name, value) in [
        ("status", if report.changed { "deployed" } else { "unchanged" }.to_owned()),
        ("release", report.release.to_string()),
        ("previous", previous.map(ToString::to_string).unwrap_or_default()),
        ("changed", report.changed.to_string()),
        ("downtime-ms", downtime.unwrap_or_default().to_string()),
        ("bytes-sent", sent.to_string()),
        ("digest", digests.join("\n")),
        ("imageid", report.images.values().next().map(|image| image.id.clone()).unwrap_or_default()),
        ("url", report.hosts.iter().find_map(|host| url(&host.host, &host.ports)).unwrap_or_default()),
        ("ports", ports(report)),
    ] {
        write_output(name, &value)?;
    }
    let mut text = format!("### Release {}\n\n", report.release);
    text += "| host | before | changed | sent | down |\n| --- | --- | --- | --- | --- |\n";
    for host in &report.hosts {
        let before = host.planned.previous.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
        let down = host.measured.downtime_ms.map_or_else(|| "-".to_owned(), output::seconds);
        let changed = if host.planned.changed.is_empty() {
            "nothing".to_owned()
        } else {
            host.planned.changed.join(", ")
        };
        let sent = engine::quantity::ByteSize(host.sent);
        text += &format!("| {} | {before} | {changed} | {sent} | {down} |\n", host.host);
    }
    if let Some(previous) = previous {
        text += &format!("\nBack to what was before: `rdeploy rollback --to {previous}`\n");
    }
    summarize(&text)
}

/// Where the first port that is published to everybody is reached: what an environment's `url` takes.
fn url(host: &str, ports: &[String]) -> Option<String> {
    let (place, inside) = ports.iter().find_map(|port| {
        let (place, inside) = port.strip_suffix("/tcp")?.split_once("->")?;
        (!place.starts_with("127.") && !place.starts_with("[::1]")).then_some((place, inside))
    })?;
    let port = place.rsplit_once(':')?.1;
    let is_local = host == LOCAL || host.starts_with("local:");
    let name = if is_local { "localhost".to_owned() } else { host.parse::<Address>().ok()?.host };
    let name = if name.contains(':') { format!("[{name}]") } else { name };
    Some(match (inside, port) {
        ("443", "443") => format!("https://{name}"),
        ("443", port) => format!("https://{name}:{port}"),
        (_, "80") => format!("http://{name}"),
        (_, port) => format!("http://{name}:{port}"),
    })
}

/// What is published, a line a port.
fn ports(report: &Report) -> String {
    let lines =
        report.hosts.iter().flat_map(|host| host.ports.iter().map(|port| format!("{} {port}", host.host)));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_of_the_action_arrives_and_is_read() {
        let (action, source) = (include_str!("../../../action/action.yml"), include_str!("action.rs"));
        let (head, rest) = action.split_once("\noutputs:\n").unwrap();
        let names = head.split_once("\ninputs:\n").unwrap().1.lines().filter_map(|line| {
            line.strip_prefix("  ").filter(|name| !name.starts_with(' '))?.strip_suffix(':')
        });
        for name in names {
            let named = |end: &str| rest.contains(&format!("inputs.{name}{end}"));
            assert!(named(" }}") || named(" ||") || named(" !="), "{name} goes nowhere");
        }
        for variable in rest.lines().filter_map(|line| line.trim().strip_prefix("INPUT_")) {
            let (upper, value) = variable.split_once(": ").unwrap();
            let name = value.trim_start_matches("${{ inputs.").trim_end_matches(" }}");
            assert_eq!(name.to_uppercase().replace('-', "_"), upper);
            assert!(source.contains(&format!("(\"{name}\")")), "nobody reads {name}");
        }
        let outputs = rest.lines().filter_map(|line| line.trim().split_once("steps.deploy.outputs."));
        for (_, output) in outputs {
            let name = output.trim_end_matches(" }}");
            let is_written = source.contains(&format!("(\"{name}\", "));
            assert!(is_written, "nobody writes {name}");
        }
    }

    #[test]
    fn hints_name_the_inputs_of_the_workflow() {
        let hint =
            "a key (-i, RDEPLOY_SSH_KEY) for publickey, a password (RDEPLOY_SSH_PASSWORD) for password";
        let error = in_words_of_inputs(Error::invalid("no").with_hint(hint));
        let wanted = "a key (the input key) for publickey, a password (the input password) for password";
        assert_eq!(error.hint(), Some(wanted));
    }

    #[test]
    fn the_inputs_people_know_make_one_address() {
        let address = |host: &str| full_address(host, Some("deploy"), Some("2222"));
        assert_eq!(address("web1"), "deploy@web1:2222");
        assert_eq!(address("root@web1:22"), "root@web1:22");
        assert_eq!(address("[::1]:23"), "deploy@[::1]:23");
        assert_eq!(full_address("web1", None, Some("22")), "web1");
        assert_eq!(address("local"), "local");
    }

    #[test]
    fn an_environment_is_where_the_first_public_port_leads() {
        let ports =
            ["127.0.0.1:9000->9000/tcp", "0.0.0.0:53->53/udp", "0.0.0.0:49153->80/tcp"].map(str::to_owned);
        assert_eq!(url("deploy@web1:2222", &ports).unwrap(), "http://web1:49153");
        assert_eq!(url("local:/x", &ports).unwrap(), "http://localhost:49153");
        assert_eq!(url("web1", &ports[..2]), None);
        assert_eq!(url("a@[fd00::1]:22", &["[::]:443->443/tcp".to_owned()]).unwrap(), "https://[fd00::1]");
    }
}
