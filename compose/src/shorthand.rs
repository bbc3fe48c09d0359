//! Short forms become long ones, driven by the same table that checked them.

use std::net::IpAddr;

use crate::schema::{FILE, Problem, Shape, Short};
use crate::value::{Map, Path, Step, Value};

/// What expanding a document found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Short forms that make no sense.
    pub(crate) errors: Vec<Problem>,
    /// Short forms that may not mean what they say.
    pub(crate) warnings: Vec<Problem>,
}

/// Expands every short form of a checked document in place. `raw` leaves texts with a `$` alone.
pub(crate) fn expand(value: &mut Value, raw: bool) -> Findings {
    let mut expander = Expander { raw, splits: !raw, path: Path::default(), findings: Findings::default() };
    expander.expand(value, &FILE);
    expander.findings
}

/// Splits the commands into words that were left as they are written.
pub(crate) fn split_commands(value: &mut Value) {
    let mut expander =
        Expander { raw: true, splits: true, path: Path::default(), findings: Findings::default() };
    expander.expand(value, &FILE);
}

struct Expander {
    raw: bool,
    splits: bool,
    path: Path,
    findings: Findings,
}

// === impl Expander ===

impl Expander {
    fn expand(&mut self, value: &mut Value, shape: &Shape) {
        match value {
            Value::Null | Value::Reset | Value::Unknown => return,
            Value::Override(inner) => return self.expand(inner, shape),
            Value::Text(text) if self.raw && text.contains('$') => return,
            _ => {}
        }
        match (shape, &mut *value) {
            (Shape::Nullable(inner), _) => self.expand(value, inner),
            (Shape::Object(object), Value::Map(map)) => {
                for (key, entry) in map {
                    let Some(shape) = object.field(key) else { continue };
                    self.inside(Step::Key(key.clone()), |expander| expander.expand(entry, shape));
                }
            }
            (Shape::Map(inner), Value::Map(map)) => {
                for (key, entry) in map {
                    self.inside(Step::Key(key.clone()), |expander| expander.expand(entry, inner));
                }
            }
            (Shape::List(Shape::Short(Short::Port, _)), Value::List(items)) => self.ports(items),
            (Shape::List(inner), Value::List(items)) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.inside(Step::Index(index), |expander| expander.expand(item, inner));
                }
            }
            (Shape::Short(short, inner), _) => {
                self.short(value, *short);
                self.expand(value, inner);
            }
            (Shape::TextOrTexts, Value::Text(text)) => {
                *value = Value::List(vec![Value::Text(std::mem::take(text))]);
            }
            (Shape::Pairs(keep), _) => pairs(value, *keep),
            (Shape::MultiOptions, Value::Map(map)) => {
                for entry in map.values_mut().filter(|entry| entry.as_list().is_none()) {
                    *entry = Value::List(vec![std::mem::replace(entry, Value::Null)]);
                }
            }
            (Shape::Hosts, _) => self.hosts(value),
            // What is printed as it is written is not split into words before that.
            (Shape::Command, Value::Text(_)) if !self.splits => {}
            (Shape::Command, Value::Text(text)) => {
                let line = std::mem::take(text);
                *value = self.command(&line);
            }
            _ => {}
        }
    }

    fn inside(&mut self, step: Step, expand: impl FnOnce(&mut Self)) {
        self.path.0.push(step);
        expand(self);
        self.path.0.pop();
    }

    fn wrong(&mut self, message: impl Into<String>) {
        self.findings.errors.push(Problem::value(&self.path, message));
    }

    fn short(&mut self, value: &mut Value, short: Short) {
        let long = match (short, &*value) {
            (Short::Build, Value::Text(text)) => map(&[("context", text)]),
            (Short::Extends, Value::Text(text)) => map(&[("service", text)]),
            (Short::Reference, Value::Text(text)) => map(&[("source", text)]),
            (Short::EnvFile, Value::Text(text)) => map(&[("path", text)]),
            (Short::EnvFiles, Value::Text(_)) => Value::List(vec![value.clone()]),
            (Short::Include, Value::Text(text)) => map(&[("path", text)]),
            (Short::HealthTest, Value::Text(text)) => {
                Value::List(vec![Value::Text("CMD-SHELL".to_owned()), Value::Text(text.clone())])
            }
            (Short::Gpus, Value::Text(_)) => Value::List(vec![Value::Map(Map::new())]),
            (Short::DependsOn, Value::List(names)) => names_to_map(names, || {
                Value::Map(Map::from([
                    ("condition".to_owned(), Value::Text("service_started".to_owned())),
                    ("required".to_owned(), Value::Bool(true)),
                ]))
            }),
            (Short::Names, Value::List(names)) => names_to_map(names, || Value::Null),
            (Short::Device, Value::Text(text)) => match device(text) {
                Ok(device) => device,
                Err(message) => return self.wrong(message),
            },
            (Short::Mount, Value::Text(text)) => match mount(text) {
                Ok(mount) => mount,
                Err(message) => return self.wrong(message),
            },
            (Short::Mount, Value::Map(_)) => {
                if let Some(Value::Text(target)) = value.get_mut("target") {
                    *target = clean(target);
                }
                return;
            }
            _ => return,
        };
        *value = long;
    }

    fn ports(&mut self, items: &mut Vec<Value>) {
        let mut long = Vec::with_capacity(items.len());
        for (index, item) in std::mem::take(items).into_iter().enumerate() {
            self.inside(Step::Index(index), |expander| match item {
                Value::Text(text) if !(expander.raw && text.contains('$')) => match ports(&text) {
                    Ok(ports) => long.extend(ports),
                    Err(message) => {
                        expander.findings.errors.push(
                            Problem::value(&expander.path, format!("invalid port {text:?}: {message}"))
                                .with_help("write it as [[address:]host:]container[/protocol]"),
                        );
                    }
                },
                mut item => {
                    expander.long_port(&mut item);
                    long.push(item);
                }
            });
        }
        *items = long;
    }

    fn long_port(&mut self, item: &mut Value) {
        if let Some(Value::Text(text)) = item.get_mut("protocol") {
            *text = text.to_ascii_lowercase();
            if protocol(text).is_err() {
                let message = format!("invalid value {text:?}: tcp, udp or sctp is needed");
                self.inside(Step::Key("protocol".to_owned()), |expander| expander.wrong(message));
            }
        }
        if let Some(Value::Text(text)) = item.get("published")
            && !text.is_empty()
            && range(text).is_err()
        {
            let message = format!("invalid value {text:?}: a port or a range of ports is needed");
            self.inside(Step::Key("published".to_owned()), |expander| expander.wrong(message));
        }
        if let Some(Value::Text(text)) = item.get("host_ip")
            && !text.is_empty()
            && text.parse::<IpAddr>().is_err()
        {
            let message = format!("invalid value {text:?}: an IP address is needed");
            self.inside(Step::Key("host_ip".to_owned()), |expander| expander.wrong(message));
        }
    }

    /// Names and addresses become sorted lines `name=address`.
    fn hosts(&mut self, value: &mut Value) {
        let mut lines = Vec::new();
        match value {
            Value::Map(map) => {
                for (name, addresses) in map {
                    match addresses {
                        Value::List(list) => lines.extend(
                            list.iter()
                                .filter_map(Value::as_text)
                                .map(|address| format!("{name}={}", bare(address))),
                        ),
                        Value::Text(address) => lines.push(format!("{name}={}", bare(address))),
                        _ => {}
                    }
                }
            }
            Value::List(list) => {
                for (index, item) in list.iter().enumerate() {
                    let Some(text) = item.as_text() else { continue };
                    if self.raw && text.contains('$') {
                        lines.push(text.to_owned());
                        continue;
                    }
                    match text.split_once('=').or_else(|| text.split_once(':')) {
                        Some((name, address)) if !name.is_empty() && !address.is_empty() => {
                            lines.push(format!("{name}={}", bare(address)));
                        }
                        _ => self.inside(Step::Index(index), |expander| {
                            let message = format!(
                                "invalid host {text:?}: a name and an address are needed, as in db=10.0.0.5"
                            );
                            expander.wrong(message);
                        }),
                    }
                }
            }
            _ => return,
        }
        lines.sort();
        lines.dedup();
        *value = Value::List(lines.into_iter().map(Value::Text).collect());
    }

    fn command(&mut self, line: &str) -> Value {
        match words(line) {
            Ok((words, rest)) => {
                if !rest.is_empty() {
                    let message = format!("{rest:?} is dropped: a command is not run by a shell");
                    self.findings.warnings.push(
                        Problem::value(&self.path, message)
                            .with_help("write it as [\"sh\", \"-c\", \"…\"] if a shell is meant"),
                    );
                }
                Value::List(words.into_iter().map(Value::Text).collect())
            }
            Err(why) => {
                self.wrong(format!("invalid command: {why}"));
                Value::Null
            }
        }
    }
}

fn map(entries: &[(&str, &str)]) -> Value {
    Value::Map(
        entries.iter().map(|(key, text)| ((*key).to_owned(), Value::Text((*text).to_owned()))).collect(),
    )
}

fn names_to_map(names: &[Value], entry: impl Fn() -> Value) -> Value {
    Value::Map(names.iter().filter_map(Value::as_text).map(|name| (name.to_owned(), entry())).collect())
}

/// `[A=1, B]` becomes a mapping. A key without a value is kept as such, or becomes an empty text.
fn pairs(value: &mut Value, keep: bool) {
    let without = || if keep { Value::Null } else { Value::Text(String::new()) };
    match value {
        Value::List(items) if items.contains(&Value::Unknown) => *value = Value::Unknown,
        Value::List(items) => {
            let entries = items.iter().filter_map(Value::as_text).map(|item| match item.split_once('=') {
                Some((key, text)) => (key.to_owned(), Value::Text(text.to_owned())),
                None => (item.to_owned(), without()),
            });
            *value = Value::Map(entries.collect());
        }
        Value::Map(map) if !keep => {
            for entry in map.values_mut().filter(|entry| **entry == Value::Null) {
                *entry = without();
            }
        }
        _ => {}
    }
}

/// An address without the brackets of an IPv6 one.
fn bare(address: &str) -> &str {
    address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address)
}

// === devices ===

fn device(text: &str) -> Result<Value, String> {
    let parts: Vec<&str> = text.split(':').collect();
    match parts[..] {
        [source] => Ok(map(&[("source", source), ("target", source), ("permissions", "rwm")])),
        [source, target] => Ok(map(&[("source", source), ("target", target), ("permissions", "rwm")])),
        [source, target, permissions] => {
            Ok(map(&[("source", source), ("target", target), ("permissions", permissions)]))
        }
        _ => Err(format!("invalid device {text:?}: write it as source[:target[:permissions]]")),
    }
}

// === ports ===

/// `[[ip:]host:]container[/protocol]`, one port a container port, sorted as the reference sorts them: as text.
fn ports(text: &str) -> Result<Vec<Value>, String> {
    let (address, proto) = match text.split_once('/') {
        Some((address, proto)) => (address, protocol(&proto.to_ascii_lowercase())?),
        None => (text, "tcp"),
    };
    let (left, container) = address.rsplit_once(':').unwrap_or(("", address));
    let (ip, host) = left.rsplit_once(':').unwrap_or(("", left));
    let ip = bare(ip);
    if !ip.is_empty() && ip.parse::<IpAddr>().is_err() {
        let hint = if ip == "localhost" { ": 127.0.0.1 is" } else { "" };
        return Err(format!("{ip:?} is not an IP address{hint}"));
    }
    if container.is_empty() {
        return Err("there is no container port".to_owned());
    }
    let (first, last) = range(container)?;
    if first == 0 {
        return Err("the port in the container is missing: 0 is none".to_owned());
    }
    if ip.is_empty() && host.parse::<IpAddr>().is_ok() && host.contains('.') {
        return Err(format!("an address needs two ports behind it, as in {host}:{container}:{container}"));
    }
    let published = if host.is_empty() { None } else { Some(range(host)?) };
    if let Some((host_first, host_last)) = published
        && last != first
        && host_last - host_first != last - first
    {
        return Err(format!("the ranges {host} and {container} have different lengths"));
    }
    let mut ports: Vec<(String, Value)> = (first..=last)
        .map(|target| {
            let host =
                published.map(|(host_first, host_last)| match (first == last, host_first == host_last) {
                    (true, false) => format!("{host_first}-{host_last}"),
                    _ => (host_first + (target - first)).to_string(),
                });
            (format!("{target}/{proto}"), port(ip, host, target, proto))
        })
        .collect();
    ports.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(ports.into_iter().map(|(_, port)| port).collect())
}

fn port(ip: &str, published: Option<String>, target: u16, proto: &str) -> Value {
    let mut entries = Map::from([
        ("mode".to_owned(), Value::Text("ingress".to_owned())),
        ("target".to_owned(), Value::Int(target.into())),
        ("protocol".to_owned(), Value::Text(proto.to_owned())),
    ]);
    if !ip.is_empty() {
        entries.insert("host_ip".to_owned(), Value::Text(ip.to_owned()));
    }
    if let Some(published) = published {
        entries.insert("published".to_owned(), Value::Text(published));
    }
    Value::Map(entries)
}

fn protocol(text: &str) -> Result<&'static str, String> {
    match text {
        "tcp" => Ok("tcp"),
        "udp" => Ok("udp"),
        "sctp" => Ok("sctp"),
        _ => Err(format!("{text:?} is not tcp, udp or sctp")),
    }
}

fn range(text: &str) -> Result<(u16, u16), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number =
        |text: &str| text.parse::<u16>().map_err(|_| format!("{text:?} is not a port from 0 to 65535"));
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(format!("the range {text} ends before it begins"));
    }
    Ok((first, last))
}

// === mounts ===

/// `[source:]target[:options]`; a source that is a path is a bind mount.
fn mount(text: &str) -> Result<Value, String> {
    let wrong = |what: &str| format!("invalid volume {text:?}: {what}");
    let parts: Vec<&str> = text.split(':').collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err(wrong("a part of it is empty"));
    }
    let (source, target, options) = match parts[..] {
        [target] => (None, target, ""),
        [source, target] => (Some(source), target, ""),
        [source, target, options] => (Some(source), target, options),
        _ => return Err(wrong("write it as [source:]target[:options]")),
    };
    let mut entries = Map::new();
    let mut bind = Map::new();
    let mut volume = Map::new();
    for option in options.split(',') {
        match option {
            "ro" => drop(entries.insert("read_only".to_owned(), Value::Bool(true))),
            "nocopy" => drop(volume.insert("nocopy".to_owned(), Value::Bool(true))),
            "z" | "Z" => drop(bind.insert("selinux".to_owned(), Value::Text(option.to_owned()))),
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => {
                bind.insert("propagation".to_owned(), Value::Text(option.to_owned()));
            }
            _ => {}
        }
    }
    let is_path = source.is_some_and(|source| source.starts_with(['.', '/', '~']));
    if is_path {
        bind.insert("create_host_path".to_owned(), Value::Bool(true));
    }
    // The reference has no details for the shortest of all volumes, `/x`.
    if !is_path && text.len() > 2 || !volume.is_empty() {
        entries.insert("volume".to_owned(), Value::Map(volume));
    }
    if !bind.is_empty() {
        entries.insert("bind".to_owned(), Value::Map(bind));
    }
    if let Some(source) = source {
        entries.insert("source".to_owned(), Value::Text(source.to_owned()));
    }
    let kind = if is_path { "bind" } else { "volume" };
    entries.insert("type".to_owned(), Value::Text(kind.to_owned()));
    entries.insert("target".to_owned(), Value::Text(clean(target)));
    Ok(Value::Map(entries))
}

/// A path without `.`, `..` and doubled slashes, as Go's `path.Clean`.
pub(crate) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

// === commands ===

/// Splits a line into words as a shell would quote them, and gives back what follows an operator of the shell.
pub(crate) fn words(line: &str) -> Result<(Vec<String>, &str), String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut started = false;
    let mut quote = None;
    let mut escaped = false;
    let mut rest = "";
    for (at, c) in line.char_indices() {
        if escaped {
            word.push(match c {
                't' => '\t',
                'n' => '\n',
                c => c,
            });
            (escaped, started) = (false, true);
            continue;
        }
        match (c, quote) {
            ('\\', None | Some('"')) => escaped = true,
            ('"' | '\'', None) => (quote, started) = (Some(c), true),
            (c, Some(open)) if c == open => quote = None,
            (c, Some(_)) => word.push(c),
            (c, None) if c.is_whitespace() => {
                if std::mem::take(&mut started) {
                    words.push(std::mem::take(&mut word));
                }
            }
            ('`' | '(' | ')', None) => {
                return Err(format!("{c:?} means something to a shell only; quote it"));
            }
            (';' | '&' | '|' | '<' | '>', None) => {
                // `2>` is an operator as a whole.
                if c == '>' && word.starts_with(|c: char| c.is_ascii_digit()) {
                    started = false;
                }
                rest = &line[at..];
                break;
            }
            (c, None) => {
                word.push(c);
                started = true;
            }
        }
    }
    if escaped || quote.is_some() {
        return Err("a quote is not closed".to_owned());
    }
    if started {
        words.push(word);
    }
    Ok((words, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(values: Result<Vec<Value>, String>) -> Vec<String> {
        values
            .unwrap()
            .iter()
            .map(|value| {
                let text = |key: &str| value.get(key).and_then(Value::scalar_text).unwrap_or_default();
                format!("{}:{}:{}/{}", text("host_ip"), text("published"), text("target"), text("protocol"))
            })
            .collect()
    }

    #[test]
    fn ports_in_every_short_form() {
        for (text, expected) in [
            ("80", &[":", ":80/tcp"][..]),
            ("8080:80", &[":8080", ":80/tcp"]),
            ("127.0.0.1:8080:80/udp", &["127.0.0.1:8080", ":80/udp"]),
            ("127.0.0.1::80", &["127.0.0.1:", ":80/tcp"]),
            ("::80", &[":", ":80/tcp"]),
            ("[::1]:80:81/UDP", &["::1:80", ":81/udp"]),
            ("4000-4010:80", &[":4000-4010", ":80/tcp"]),
        ] {
            assert_eq!(json(ports(text)), [expected.concat()], "{text}");
        }
        assert_eq!(json(ports("9-10")), ["::10/tcp", "::9/tcp"]);
        assert_eq!(json(ports("8000-8001:90-91")), [":8000:90/tcp", ":8001:91/tcp"]);
        for wrong in ["80:80:80:80", "80-81:80-83", "foo:80", "80/foo", "", "99999:80", "81-80"] {
            assert!(ports(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn volumes_in_every_short_form() {
        for (text, expected) in [
            ("/a/../b", r#"{"target":"/b","type":"volume","volume":{}}"#),
            ("d:/x", r#"{"source":"d","target":"/x","type":"volume","volume":{}}"#),
            (
                "d:/x:ro,nocopy",
                r#"{"read_only":true,"source":"d","target":"/x","type":"volume","volume":{"nocopy":true}}"#,
            ),
            ("./d:/x", r#"{"bind":{"create_host_path":true},"source":"./d","target":"/x","type":"bind"}"#),
            (
                "~/d:/x:Z",
                r#"{"bind":{"create_host_path":true,"selinux":"Z"},"source":"~/d","target":"/x","type":"bind"}"#,
            ),
        ] {
            assert_eq!(mount(text).unwrap().into_json().to_string(), expected, "{text}");
        }
        for wrong in ["", "a::b", "a:b:c:d", ":/x"] {
            assert!(mount(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn commands_are_split_into_words() {
        for (line, expected, rest) in [
            ("echo a  b", &["echo", "a", "b"][..], ""),
            ("echo \"a b\" 'c d' e\\ f", &["echo", "a b", "c d", "e f"], ""),
            ("echo '' \"\"", &["echo", "", ""], ""),
            ("sh -c a && b", &["sh", "-c", "a"], "&& b"),
            ("a b 2>c", &["a", "b"], ">c"),
            ("echo a#b # c", &["echo", "a#b", "#", "c"], ""),
            ("echo \"a\\nb\" '\\n'", &["echo", "a\nb", "\\n"], ""),
            ("", &[], ""),
        ] {
            let (words, left) = words(line).unwrap();
            assert_eq!(
                (&words[..], left),
                (&expected.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>()[..], rest)
            );
        }
        for wrong in ["a `b`", "a $(b)", "a \"b", "a \\"] {
            assert!(words(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn paths_are_cleaned_as_in_go() {
        for (path, cleaned) in
            [("/a//b/./c/..", "/a/b"), ("", "."), ("../a", "../a"), ("/..", "/"), ("a/", "a")]
        {
            assert_eq!(clean(path), cleaned);
        }
    }
}
