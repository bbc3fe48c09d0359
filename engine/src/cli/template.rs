//! The part of Go's text/template that people write after `--format`, over JSON values.

mod function;

use serde_json::Value;

use self::function::call;
use crate::cli::output::METHODS;

/// A parsed template.
#[derive(Debug, Clone, PartialEq)]
pub struct Template(Vec<Node>);

/// Why a template cannot be read or applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("template: {0}")]
pub struct TemplateError(String);

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Text(String),
    Print(Pipeline),
    If(Pipeline, Vec<Node>, Vec<Node>),
    Range {
        key: Option<String>,
        value: Option<String>,
        over: Pipeline,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    With(Pipeline, Vec<Node>, Vec<Node>),
    Set(String, Pipeline),
}

/// Commands joined by `|`: each one's value is the last argument of the next.
#[derive(Debug, Clone, PartialEq)]
struct Pipeline(Vec<Vec<Operand>>);

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    /// `.A.B` from the value at hand; empty is the value itself.
    Field(Vec<String>),
    /// `$name.A.B`; `$` alone is the whole value.
    Variable(String, Vec<String>),
    Literal(Value),
    Function(String),
    /// A pipeline in brackets, and `.A.B` of its value.
    Group(Pipeline, Vec<String>),
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Open,
    Close,
    /// `.A.B` right behind a closing bracket.
    Chain(String),
    Pipe,
}

/// Maps whose keys people choose.
const FREE: [&str; 13] = [
    "Labels",
    "Options",
    "Sysctls",
    "Tmpfs",
    "Annotations",
    "Networks",
    "Ports",
    "PortBindings",
    "ExposedPorts",
    "Volumes",
    "Containers",
    "Attributes",
    "Data",
];

/// Fields that are null in JSON, and lists in docker's types.
const LISTS: [&str; 12] = [
    "Aliases",
    "CapAdd",
    "CapDrop",
    "Cmd",
    "DNSNames",
    "DeviceRequests",
    "Entrypoint",
    "Env",
    "ExecIDs",
    "Links",
    "OnBuild",
    "VolumesFrom",
];

/// And maps.
const MAPS: [&str; 4] = ["DriverOpts", "Labels", "Options", "Volumes"];

/// Fields that docker leaves out when there is nothing in them.
const OPTIONAL: [&str; 21] = [
    "DockerVersion",
    "Health",
    "Healthcheck",
    "ExposedPorts",
    "MacAddress",
    "NetworkDisabled",
    "OnBuild",
    "Shell",
    "StopSignal",
    "StopTimeout",
    "ArgsEscaped",
    "Annotations",
    "Mounts",
    "StorageOpt",
    "SizeRw",
    "SizeRootFs",
    "Variant",
    "Manifests",
    "Status",
    "Options",
    "Labels",
];

/// Those of them that are texts, and print as an empty one.
const OPTIONAL_TEXTS: [&str; 5] = ["DockerVersion", "MacAddress", "StopSignal", "Variant", "Status"];

type Result<T> = std::result::Result<T, TemplateError>;

// === impl Template ===

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// When an action is not closed or is not one we know.
    pub fn parse(text: &str) -> Result<Self> {
        let mut pieces = split_actions(text)?.into_iter();
        let (nodes, end) = parse_nodes(&mut pieces)?;
        match end {
            None => Ok(Self(nodes)),
            Some(word) => Err(TemplateError(format!("unexpected {{{{{word}}}}}"))),
        }
    }

    /// Applies it to a value.
    ///
    /// # Errors
    /// When a function is not known or cannot take its arguments.
    pub fn render(&self, value: &Value) -> Result<String> {
        let mut scope = Scope { root: value, dot: value.clone(), variables: Vec::new() };
        let mut text = String::new();
        scope.render(&self.0, &mut text)?;
        Ok(text)
    }

    /// The fields it prints when each is a single `{{.Name}}`, for a table's head.
    pub fn columns(&self) -> Vec<String> {
        self.0
            .iter()
            .filter_map(|node| match node {
                Node::Print(Pipeline(commands)) => {
                    commands.first()?.iter().find_map(|operand| match operand {
                        Operand::Field(path) => path.last().cloned(),
                        _ => None,
                    })
                }
                _ => None,
            })
            .collect()
    }
}

// === impl Pipeline ===

impl Pipeline {
    /// How Go prints nothing in the field that is printed: JSON's null is a list there, or a map.
    fn emptiness(&self) -> Option<&'static str> {
        let [command] = self.0.as_slice() else { return None };
        let [Operand::Field(path) | Operand::Variable(_, path) | Operand::Group(_, path)] =
            command.as_slice()
        else {
            return None;
        };
        let name = path.last()?.as_str();
        let kinds = [(LISTS.as_slice(), "[]"), (MAPS.as_slice(), "map[]")];
        kinds.into_iter().find(|(names, _)| names.contains(&name)).map(|(_, text)| text)
    }
}

// === reading ===

#[derive(Debug)]
enum Piece {
    Text(String),
    Action(String),
}

/// Text and the insides of `{{ }}`, with `{{-` and `-}}` trimming the text beside them.
fn split_actions(text: &str) -> Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim_next = false;
    loop {
        let (before, after) = rest.split_once("{{").map_or((rest, None), |(b, a)| (b, Some(a)));
        let mut before = if trim_next { before.trim_start() } else { before };
        let trims = after.is_some_and(|after| after.starts_with("- "));
        if trims {
            before = before.trim_end();
        }
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        let Some(after) = after else { return Ok(pieces) };
        let (action, tail) = after
            .split_once("}}")
            .ok_or_else(|| TemplateError("an action is not closed with }}".to_owned()))?;
        let action = if trims { &action[1..] } else { action };
        trim_next = action.ends_with(" -");
        let action = if trim_next { &action[..action.len() - 1] } else { action };
        pieces.push(Piece::Action(action.trim().to_owned()));
        rest = tail;
    }
}

/// Nodes up to `end` or `else`, which is returned.
fn parse_nodes(pieces: &mut std::vec::IntoIter<Piece>) -> Result<(Vec<Node>, Option<String>)> {
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.next() {
        let action = match piece {
            Piece::Text(text) => {
                nodes.push(Node::Text(text));
                continue;
            }
            Piece::Action(action) => action,
        };
        let (word, rest) = action.split_once(char::is_whitespace).unwrap_or((&action, ""));
        match word {
            "end" | "else" => return Ok((nodes, Some(action))),
            "if" => {
                let (yes, no) = parse_branches(pieces)?;
                nodes.push(Node::If(parse_pipeline(rest)?, yes, no));
            }
            "with" => {
                let (yes, no) = parse_branches(pieces)?;
                nodes.push(Node::With(parse_pipeline(rest)?, yes, no));
            }
            "range" => nodes.push(parse_range(rest, pieces)?),
            _ if word.starts_with("/*") => {}
            _ => nodes.push(match action.split_once(":=") {
                Some((name, pipeline)) if name.trim_start().starts_with('$') => {
                    Node::Set(name.trim().trim_start_matches('$').to_owned(), parse_pipeline(pipeline)?)
                }
                _ => Node::Print(parse_pipeline(&action)?),
            }),
        }
    }
    Ok((nodes, None))
}

fn parse_branches(pieces: &mut std::vec::IntoIter<Piece>) -> Result<(Vec<Node>, Vec<Node>)> {
    let open = || TemplateError("{{end}} is missing".to_owned());
    let (yes, end) = parse_nodes(pieces)?;
    match end.ok_or_else(open)?.as_str() {
        "end" => Ok((yes, Vec::new())),
        "else" => {
            let (no, end) = parse_nodes(pieces)?;
            end.ok_or_else(open)?;
            Ok((yes, no))
        }
        chained => {
            // `else if …` is an `if` inside `else` that shares its `end`.
            let condition = chained.trim_start_matches("else").trim().trim_start_matches("if").trim();
            let (inner_yes, inner_no) = parse_branches(pieces)?;
            Ok((yes, vec![Node::If(parse_pipeline(condition)?, inner_yes, inner_no)]))
        }
    }
}

fn parse_range(rest: &str, pieces: &mut std::vec::IntoIter<Piece>) -> Result<Node> {
    let (names, over) = rest.split_once(":=").map_or(("", rest), |(names, over)| (names, over));
    let mut names: Vec<String> = names
        .split(',')
        .map(|name| name.trim().trim_start_matches('$').to_owned())
        .filter(|name| !name.is_empty())
        .collect();
    let value = names.pop();
    let key = names.pop();
    let (body, otherwise) = parse_branches(pieces)?;
    Ok(Node::Range { key, value, over: parse_pipeline(over)?, body, otherwise })
}

fn parse_pipeline(text: &str) -> Result<Pipeline> {
    let tokens = tokenize(text)?;
    let mut tokens = tokens.into_iter().peekable();
    let pipeline = parse_commands(&mut tokens)?;
    if tokens.next().is_some() {
        return Err(TemplateError(format!("a bracket too many in {text:?}")));
    }
    Ok(pipeline)
}

fn parse_commands(tokens: &mut std::iter::Peekable<std::vec::IntoIter<Token>>) -> Result<Pipeline> {
    let mut commands = vec![Vec::new()];
    while let Some(token) = tokens.next_if(|token| *token != Token::Close) {
        let operand = match token {
            Token::Pipe => {
                commands.push(Vec::new());
                continue;
            }
            Token::Open => {
                let inner = parse_commands(tokens)?;
                if tokens.next() != Some(Token::Close) {
                    return Err(TemplateError("a bracket is not closed".to_owned()));
                }
                let chain = tokens.next_if(|token| matches!(token, Token::Chain(_)));
                Operand::Group(inner, chain.map_or_else(Vec::new, |token| token.fields()))
            }
            Token::Text(text) => Operand::Literal(Value::String(text)),
            Token::Word(word) | Token::Chain(word) => parse_word(&word),
            Token::Close => break,
        };
        if let Some(command) = commands.last_mut() {
            command.push(operand);
        }
    }
    if commands.iter().any(Vec::is_empty) {
        return Err(TemplateError("an action is empty".to_owned()));
    }
    Ok(Pipeline(commands))
}

impl Token {
    fn fields(&self) -> Vec<String> {
        match self {
            Self::Chain(text) => path(text),
            _ => Vec::new(),
        }
    }
}

fn path(text: &str) -> Vec<String> {
    text.split('.').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn parse_word(word: &str) -> Operand {
    if let Some(fields) = word.strip_prefix('.') {
        return Operand::Field(path(fields));
    }
    if let Some(name) = word.strip_prefix('$') {
        let (name, fields) = name.split_once('.').unwrap_or((name, ""));
        return Operand::Variable(name.to_owned(), path(fields));
    }
    match word {
        "true" => Operand::Literal(true.into()),
        "false" => Operand::Literal(false.into()),
        "nil" => Operand::Literal(Value::Null),
        _ => match word.parse::<i64>() {
            Ok(number) => Operand::Literal(number.into()),
            Err(_) => Operand::Function(word.to_owned()),
        },
    }
}

fn tokenize(text: &str) -> Result<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    let mut before = ' ';
    while let Some(c) = chars.next() {
        let behind_bracket = std::mem::replace(&mut before, c) == ')';
        match c {
            ' ' | '\t' | '\n' => {}
            '(' => tokens.push(Token::Open),
            ')' => tokens.push(Token::Close),
            '|' => tokens.push(Token::Pipe),
            '"' | '`' => {
                let mut literal = String::new();
                loop {
                    match chars.next() {
                        None => return Err(TemplateError(format!("a text is not closed in {text:?}"))),
                        Some(end) if end == c => break,
                        Some('\\') if c == '"' => literal.push(match chars.next() {
                            Some('n') => '\n',
                            Some('t') => '\t',
                            Some(other) => other,
                            None => '\\',
                        }),
                        Some(other) => literal.push(other),
                    }
                }
                tokens.push(Token::Text(literal));
            }
            first => {
                let mut word = String::from(first);
                while let Some(next) = chars.next_if(|next| !" \t\n()|\"`".contains(*next)) {
                    word.push(next);
                }
                let chained = first == '.' && behind_bracket;
                tokens.push(if chained { Token::Chain(word) } else { Token::Word(word) });
            }
        }
    }
    Ok(tokens)
}

// === applying ===

struct Scope<'a> {
    root: &'a Value,
    dot: Value,
    variables: Vec<(String, Value)>,
}

impl Scope<'_> {
    fn render(&mut self, nodes: &[Node], text: &mut String) -> Result<()> {
        for node in nodes {
            match node {
                Node::Text(literal) => text.push_str(literal),
                Node::Print(pipeline) => {
                    let value = self.evaluate(pipeline)?;
                    let empty = if value.is_null() { pipeline.emptiness() } else { None };
                    text.push_str(&empty.map_or_else(|| shown(&value), str::to_owned));
                }
                Node::Set(name, pipeline) => {
                    let value = self.evaluate(pipeline)?;
                    self.variables.push((name.clone(), value));
                }
                Node::If(condition, yes, no) => {
                    let branch = if truth(&self.evaluate(condition)?) { yes } else { no };
                    self.render(branch, text)?;
                }
                Node::With(pipeline, yes, no) => {
                    let value = self.evaluate(pipeline)?;
                    if truth(&value) {
                        self.render_with(value, yes, text)?;
                    } else {
                        self.render(no, text)?;
                    }
                }
                Node::Range { key, value, over, body, otherwise } => {
                    let items = items(self.evaluate(over)?);
                    if items.is_empty() {
                        self.render(otherwise, text)?;
                    }
                    for (index, item) in items {
                        let depth = self.variables.len();
                        self.variables.extend(key.clone().map(|name| (name, index)));
                        self.variables.extend(value.clone().map(|name| (name, item.clone())));
                        self.render_with(item, body, text)?;
                        self.variables.truncate(depth);
                    }
                }
            }
        }
        Ok(())
    }

    fn render_with(&mut self, dot: Value, nodes: &[Node], text: &mut String) -> Result<()> {
        let outer = std::mem::replace(&mut self.dot, dot);
        let result = self.render(nodes, text);
        self.dot = outer;
        result
    }

    fn evaluate(&self, pipeline: &Pipeline) -> Result<Value> {
        let mut piped: Option<Value> = None;
        for command in &pipeline.0 {
            let Some((first, rest)) = command.split_first() else { continue };
            if let Operand::Function(name) = first
                && matches!(name.as_str(), "and" | "or")
                && !rest.is_empty()
            {
                piped = Some(self.decide(name == "or", rest, piped.take())?);
                continue;
            }
            let mut arguments: Vec<Value> =
                rest.iter().map(|operand| self.operand(operand)).collect::<Result<_>>()?;
            arguments.extend(piped.take());
            piped = Some(match first {
                Operand::Function(name) => call(name, &arguments)?,
                other if arguments.is_empty() => self.operand(other)?,
                // A method of the value at hand: `.Label "key"`.
                Operand::Field(path) if arguments.len() == 1 && path.len() == 1 => {
                    let key = arguments.first().map(shown).unwrap_or_default();
                    let methods = self
                        .dot
                        .get(METHODS)
                        .and_then(|methods| methods.get(&path[0]))
                        .cloned()
                        .unwrap_or_default();
                    if !methods.is_object() {
                        return Err(TemplateError(format!("{} is no method", path[0])));
                    }
                    methods.get(&key).cloned().unwrap_or_else(|| "".into())
                }
                _ => return Err(TemplateError("only a function takes arguments".to_owned())),
            });
        }
        Ok(piped.unwrap_or(Value::Null))
    }

    /// The first of these whose truth is this, or the last one: those behind it are not even looked at.
    fn decide(&self, truth_wanted: bool, operands: &[Operand], piped: Option<Value>) -> Result<Value> {
        let mut last = Value::Null;
        for operand in operands {
            last = self.operand(operand)?;
            if truth(&last) == truth_wanted {
                return Ok(last);
            }
        }
        Ok(piped.unwrap_or(last))
    }

    fn operand(&self, operand: &Operand) -> Result<Value> {
        match operand {
            Operand::Field(path) => walk(&self.dot, path),
            Operand::Variable(name, path) if name.is_empty() => walk(self.root, path),
            Operand::Variable(name, path) => self
                .variables
                .iter()
                .rev()
                .find(|(known, _)| known == name)
                .map(|(_, value)| walk(value, path))
                .ok_or_else(|| TemplateError(format!("undefined variable ${name}")))?,
            Operand::Literal(value) => Ok(value.clone()),
            Operand::Function(name) => call(name, &[]),
            Operand::Group(pipeline, path) => walk(&self.evaluate(pipeline)?, path),
        }
    }
}

/// The value at a path. What is not there is nothing, but for a field that docker's value would not have either: that is
/// a mistake in the template, which must not look like an empty answer.
fn walk(value: &Value, path: &[String]) -> Result<Value> {
    let mut at = value;
    for (depth, name) in path.iter().enumerate() {
        // What registries and OCI write has the field's name in JSON: `Digest` is `digest`.
        at = match at.get(name).or_else(|| at.get(in_json(name))) {
            Some(found) => found,
            None => {
                let parent = depth.checked_sub(1).and_then(|above| path.get(above)).map(String::as_str);
                let nothing = match at {
                    Value::Object(_) if OPTIONAL_TEXTS.contains(&name.as_str()) => "".into(),
                    _ => Value::Null,
                };
                return absent(at, name, parent).map_or(Ok(nothing), Err);
            }
        };
    }
    Ok(at.clone())
}

/// The name that a field of Go's usually has in JSON: `MediaType` is `mediaType`.
fn in_json(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(letters).collect()
}

/// Why a field is absent, when that is a mistake.
fn absent(value: &Value, name: &str, parent: Option<&str>) -> Option<TemplateError> {
    let fields = value.as_object()?;
    let is_record =
        fields.keys().all(|key| key.starts_with(|c: char| c.is_ascii_uppercase()) || key == METHODS);
    let is_free = parent.is_some_and(|parent| FREE.contains(&parent));
    if fields.is_empty() || !is_record || is_free || OPTIONAL.contains(&name) {
        return None;
    }
    let mut known: Vec<&str> = fields.keys().map(String::as_str).filter(|key| *key != METHODS).collect();
    known.sort_unstable();
    let last = known.pop()?;
    let known =
        if known.is_empty() { format!("{last} is") } else { format!("{} and {last} are", known.join(", ")) };
    let place = parent.map_or_else(String::new, |parent| format!(" in {parent}"));
    Some(TemplateError(format!("there is no field {name}{place}: {known} there")))
}

fn items(value: Value) -> Vec<(Value, Value)> {
    match value {
        Value::Array(items) => {
            items.into_iter().enumerate().map(|(i, item)| (Value::from(i), item)).collect()
        }
        Value::Object(map) => {
            let mut items: Vec<_> = map.into_iter().collect();
            items.sort_by(|a, b| a.0.cmp(&b.0));
            items.into_iter().map(|(key, item)| (Value::from(key), item)).collect()
        }
        _ => Vec::new(),
    }
}

fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(a) => !a.is_empty(),
        Value::Object(o) => !o.is_empty(),
    }
}

/// A value as Go prints it: `[a b]`, `map[k:v]`, `<no value>`.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => {
            format!("[{}]", list.iter().map(shown).collect::<Vec<_>>().join(" "))
        }
        Value::Object(map) => {
            let mut fields: Vec<String> =
                map.iter().map(|(key, value)| format!("{key}:{}", shown(value))).collect();
            fields.sort();
            format!("map[{}]", fields.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rendered(template: &str) -> String {
        let value = json!({"Name": "/web", "State": {"Running": true, "Pid": 7, "Health": null},
            "Ports": {"80/tcp": [{"HostPort": "8080"}], "53/udp": null}, "Args": ["a", "b"],
            "Cmd": null, "Labels": null});
        Template::parse(template)
            .and_then(|template| template.render(&value))
            .unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn the_forms_people_write() {
        for (template, text) in [
            ("{{.Name}} {{.State.Pid}}", "/web 7"),
            ("{{json .Args}}", r#"["a","b"]"#),
            ("{{.Args}}", "[a b]"),
            ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
            ("{{if .State.Health}}{{.State.Health.Status}}{{else if .Name}}none{{end}}", "none"),
            ("{{range .Args}}<{{.}}>{{end}}", "<a><b>"),
            ("{{.Cmd}} {{.Labels}} {{json .Cmd}} {{len .Cmd}}", "[] map[] null 0"),
            (
                "{{range $p, $c := .Ports}}{{$p}}={{with $c}}{{(index . 0).HostPort}}{{end}} {{end}}",
                "53/udp= 80/tcp=8080 ",
            ),
            (r#"{{(index (index .Ports "80/tcp") 0).HostPort}}"#, "8080"),
            ("{{join .Args \",\" | upper}}", "A,B"),
            ("{{ $x := .State.Pid }}{{ $x }}", "7"),
            ("a {{- .Name -}} b", "a/webb"),
            ("{{printf \"%s-%d\" .Name .State.Pid}}", "/web-7"),
            (
                r#"{{printf "<%-6s|%6s|%.2s|%03d|%q|%%>" .Name .Name .Name .State.Pid .Name}}"#,
                r#"</web  |  /web|/w|007|"/web"|%>"#,
            ),
            ("{{slice .Name 1 3}} {{slice .Args 1}} [{{pad .Name 1 2}}]", "we [b] [ /web  ]"),
            (
                "{{.Nothing.At.All}}",
                "template: there is no field Nothing: Args, Cmd, Labels, Name, Ports and State are there",
            ),
            (
                "{{.State.Runing}}",
                "template: there is no field Runing in State: Health, Pid and Running are there",
            ),
            (
                "{{range .Ports}}{{.}}{{end}}{{.Ports.nope}} {{.State.Health.Status}}",
                "<no value>[map[HostPort:8080]]<no value> <no value>",
            ),
            (
                r#"{{pad .Name 2 1}}|{{html "<a>"}} {{urlquery "a b&c"}} {{js "it's"}}"#,
                r"  /web |&lt;a&gt; a+b%26c it\'s",
            ),
            (r#"{{title "two words"}} {{index .Ports "81/tcp"}}."#, "Two Words ."),
            // A port that is not published is no port.
            (
                r#"{{(index (index .Ports "81/tcp") 0).HostPort}}"#,
                "template: error calling index: index out of range: 0",
            ),
            (
                "{{(index (index .Ports \"53/udp\") 0).HostPort}}",
                "template: error calling index: index out of range: 0",
            ),
            ("{{if and .State.Health (index .Args 9)}}{{else}}no{{end}}", "no"),
            ("{{or .Name (index .Args 9)}}", "/web"),
            ("{{index .Args 2}}", "template: error calling index: index out of range: 2"),
            ("{{.Name", "template: an action is not closed with }}"),
            ("{{nope .Name}}", "template: function \"nope\" not defined"),
        ] {
            assert_eq!(rendered(template), text, "{template}");
        }
    }

    #[test]
    fn a_table_knows_its_columns() {
        let template = Template::parse("{{.Names}}\t{{.Status | upper}}").unwrap();
        assert_eq!(template.columns(), ["Names", "Status"]);
    }
}
