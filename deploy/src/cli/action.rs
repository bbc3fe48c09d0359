//! `action`: what `action/action.yml` calls. It reads the action's inputs, deploys, and tells GitHub what came of it:
//! masks, outputs, a summary and annotations (docs.github.com, Workflow commands).

use std::env;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::error::{Error, Result};
use engine::quantity::Span;

use super::rollout::UpArgs;
use super::{Globals, output, rollout};
use crate::host::LOCAL;
use crate::pipeline::Report;
use crate::release::ReleaseId;
use crate::secrets;
use crate::ssh::Address;

/// What the workflow asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wish {
    Up,
    Rollback,
    Plan,
    Uninstall,
}

/// The shortest text that is masked: what is shorter is in everything.
const MASKABLE: usize = 4;

/// `action`.
pub(super) fn action(globals: &Globals) -> Result<ExitCode> {
    mask_secrets();
    let (globals, wish) = asked(globals)?;
    // What hosts and builds write must not be taken for commands of ours.
    let token = ReleaseId::new(jiff::Timestamp::now()).to_string() + &output_token();
    output::line(&format!("::stop-commands::{token}"));
    let result = run(&globals, &wish);
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
            annotate(&error);
            summarize(&format!("### Not deployed\n\n```\n{}\n```\n", engine::error::chain(&error)))?;
            Err(error)
        }
    }
}

/// Does it. There is nothing to report of a project that is gone.
fn run(globals: &Globals, wish: &Wish) -> Result<Option<Report>> {
    let services: Vec<String> = words("services");
    match wish {
        Wish::Up => {
            let (drain, lock_wait) = (input("drain"), input("lock-wait"));
            // A step has a comma of its own.
            let canary: Vec<String> =
                input("canary").iter().flat_map(|text| text.split_whitespace()).map(str::to_owned).collect();
            let args = UpArgs::of(services, drain.as_deref(), lock_wait.as_deref(), &canary)?;
            rollout::rolled_out(globals, &args).map(Some)
        }
        Wish::Rollback => rollout::rollback_quietly(globals).map(Some),
        Wish::Plan => rollout::plan_quietly(globals, &services).map(Some),
        Wish::Uninstall => rollout::uninstalled(globals, is_asked("volumes")?).map(|_| None),
    }
}

/// The inputs over what the command line says.
fn asked(globals: &Globals) -> Result<(Globals, Wish)> {
    let mut globals = globals.clone();
    let user = input("username");
    let port = input("port");
    globals.host =
        words("host").into_iter().map(|host| full_address(&host, user.as_deref(), port.as_deref())).collect();
    globals.file = words("file").into_iter().map(Into::into).collect();
    if let Some(directory) = input("project-directory") {
        globals.project_directory = Some(directory.clone().into());
        env::set_current_dir(&directory)
            .map_err(|error| Error::failed(format!("project-directory: enter {directory}"), error))?;
        globals.project_directory = None;
    }
    globals.project_name = input("project-name").or(globals.project_name);
    // A runner is somebody else's when the job is over.
    globals.ssh.ssh_persist = Some(Span(Duration::ZERO));
    // Nobody reads the text for people there, and the outputs take what is in the other one.
    globals.json = true;
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

/// The runner masks secrets as they are; a log may show them in other forms.
fn mask_secrets() {
    for name in secrets::NAMES {
        if let Some(secret) = secrets::get(name) {
            for form in forms(secret.expose()) {
                output::line(&format!("::add-mask::{}", escaped(&form)));
            }
        }
    }
}

/// The forms in which a text may turn up.
fn forms(secret: &str) -> Vec<String> {
    let json = serde_json::to_string(secret).unwrap_or_default();
    let url: String = secret
        .bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect();
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut all = vec![
        secret.trim().to_owned(),
        STANDARD.encode(secret),
        STANDARD.encode(secret.trim()),
        url,
        hex,
        json.trim_matches('"').to_owned(),
    ];
    all.extend(secret.lines().map(|line| line.trim().to_owned()));
    all.retain(|form| form.len() >= MASKABLE && !form.contains('\n') && !form.starts_with("-----"));
    all.sort();
    all.dedup();
    all
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

/// One error where it belongs: at its line of a file when it has one.
fn annotate(error: &Error) {
    let text = engine::error::chain(error);
    let place = text
        .lines()
        .find_map(place)
        .map(|(file, line, column)| format!("file={},line={line},col={column},", escaped_property(&file)));
    let place = place.unwrap_or_default();
    output::line(&format!("::error {place}title=rdeploy::{}", escaped(&text)));
}

/// `compose.yaml:3:5: …`, or ` --> compose.yaml:3:5` below a message, as our own messages write places.
fn place(line: &str) -> Option<(String, u64, u64)> {
    let line = line.trim_start();
    let mut parts = line.strip_prefix("--> ").unwrap_or(line).splitn(4, ':');
    let (file, row, column) = (parts.next()?, parts.next()?, parts.next()?);
    Some((file.trim().to_owned(), row.trim().parse().ok()?, column.trim().parse().ok()?))
}

fn write_output(name: &str, value: &str) -> Result<()> {
    let delimiter = format!("rdeploy-{}", output_token());
    append("GITHUB_OUTPUT", &format!("{name}<<{delimiter}\n{value}\n{delimiter}\n"))
}

fn summarize(text: &str) -> Result<()> {
    append("GITHUB_STEP_SUMMARY", text)
}

/// Appends to one of the runner's files; outside of a runner there is none.
fn append(variable: &str, text: &str) -> Result<()> {
    let Some(path) = env::var_os(variable).filter(|path| !path.is_empty()) else { return Ok(()) };
    let failed = |error| Error::failed(format!("write {variable}"), error);
    let mut file = OpenOptions::new().append(true).create(true).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)
}

/// A text that nobody can have written before.
fn output_token() -> String {
    engine::id::ContainerId::random().to_string()
}

fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn escaped_property(text: &str) -> String {
    escaped(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_secret_is_masked_in_every_form() {
        let all = forms("p\"ss w/rd");
        for form in ["p\"ss w/rd", "cCJzcyB3L3Jk", "p%22ss%20w%2Frd", "p\\\"ss w/rd", "7022737320772f7264"] {
            assert!(all.iter().any(|known| known == form), "{form} of {all:?}");
        }
        let key = forms("-----BEGIN KEY-----\nAAAAB3Nza\nb3Blbg==\n-----END KEY-----\n");
        assert!(key.iter().any(|form| form == "AAAAB3Nza") && key.iter().any(|form| form == "b3Blbg=="));
        assert!(forms("abc").iter().all(|form| form.len() >= MASKABLE));
    }

    #[test]
    fn a_message_with_a_place_is_shown_there() {
        assert_eq!(place("compose.yaml:3:5: unknown key"), Some(("compose.yaml".to_owned(), 3, 5)));
        assert_eq!(place(" --> compose.yaml:4:5"), Some(("compose.yaml".to_owned(), 4, 5)));
        assert_eq!(place("host web: refused: really"), None);
        assert_eq!(escaped("100%\nnext"), "100%25%0Anext");
    }
}
