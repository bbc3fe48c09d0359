//! `rengine buildx bake`: what a file says is to be built, is built.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;

use clap::Parser;
use engine::error::{Error, Result};
use serde_json::{Map, Value as Json};

use crate::environment::Environment;
use crate::recipe::{Change, Chosen, Contents, Form, Order, Recipe, RecipeError, Wishes, dependencies};
use crate::{interpolate, output};

/// Build what a file says: targets of docker-bake.hcl, docker-bake.json or a compose file
#[derive(Debug, Parser)]
#[command(name = "rengine buildx bake", bin_name = "rengine buildx bake", max_term_width = 110)]
struct Args {
    /// File of targets; may be given several times, - is standard input
    #[arg(short, long, value_name = "FILE", env = "BUILDX_BAKE_FILE", value_delimiter = None)]
    file: Vec<String>,
    /// Change what a target says: TARGET.KEY=VALUE, with += to add; the target may have * in it
    #[arg(long, value_name = "CHANGE")]
    set: Vec<Change>,
    /// Give a variable a value: NAME=VALUE, as the environment does
    #[arg(long, value_name = "NAME=VALUE")]
    var: Vec<String>,
    /// Show what would be built, and build nothing
    #[arg(long)]
    print: bool,
    /// List targets or variables
    #[arg(long, value_name = "KIND", value_parser = ["targets", "variables"])]
    list: Option<String>,
    /// Push the images
    #[arg(long)]
    push: bool,
    /// Keep the images here, whatever the file says becomes of them
    #[arg(long)]
    load: bool,
    /// Use no cached layer
    #[arg(long)]
    no_cache: bool,
    /// Ask the registry for newer base images
    #[arg(long)]
    pull: bool,
    /// auto, plain, tty, quiet or rawjson
    #[arg(long, env = "BUILDKIT_PROGRESS")]
    progress: Option<String>,
    /// Write what was built to this file, as JSON
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// Attest how the images were made
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    provenance: Option<String>,
    /// Attest what is in the images
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    sbom: Option<String>,
    /// What RUN may ask for: network.host, security.insecure, or device
    #[arg(long, value_name = "ENTITLEMENT")]
    allow: Vec<String>,
    /// Only check the Dockerfiles
    #[arg(long)]
    check: bool,
    /// build, check, outline or targets
    #[arg(long)]
    call: Option<String>,
    /// Accepted for docker's sake: there is one builder
    #[arg(long, hide = true)]
    builder: Option<String>,
    /// Directory that holds everything the engine keeps
    #[arg(long, value_name = "DIR", env = "RENGINE_ROOT")]
    root: Option<PathBuf>,
    /// Say what is being done
    #[arg(short = 'D', long)]
    debug: bool,
    /// Targets and groups; `default` when none is named
    targets: Vec<String>,
}

/// Where targets are looked for when no file is named, in the order in which they count.
const USUAL: [&str; 8] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
    "docker-bake.json",
    "docker-bake.hcl",
    "docker-bake.override.json",
    "docker-bake.override.hcl",
];

/// Runs `bake` with its command line, name first.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let args = match Args::try_parse_from(arguments) {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    match run(&args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::speak_as("rengine");
            output::failure(&engine::error::chain(&error), error.hint());
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<u8> {
    if let Some(address) = args.targets.iter().find(|target| target.contains("://")) {
        return Err(Error::invalid(format!("{address}: definitions are read from files here"))
            .with_hint("clone it, and run this in the clone"));
    }
    let said: BTreeMap<&str, &str> = args.var.iter().filter_map(|text| text.split_once('=')).collect();
    let environment =
        |name: &str| said.get(name).map(|value| (*value).to_owned()).or_else(|| std::env::var(name).ok());
    let recipe = Recipe::of(read(args)?, &environment)?;
    match args.list.as_deref() {
        Some("variables") => {
            let row = |(name, value, what): &(String, Json, String)| {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                vec![name.clone(), value, what.clone()]
            };
            output::table(
                output::PLAIN,
                &["VARIABLE", "VALUE", "DESCRIPTION"],
                &recipe.variables.iter().map(row).collect::<Vec<_>>(),
            );
            return Ok(0);
        }
        Some(_) => {
            let rows: Vec<_> =
                recipe.described().map(|(name, what)| vec![name.clone(), what.to_owned()]).collect();
            output::table(output::PLAIN, &["TARGET", "DESCRIPTION"], &rows);
            return Ok(0);
        }
        None => {}
    }
    let chosen = recipe.chosen(&args.targets, &args.set)?;
    if args.print {
        output::line(&format!("{:#}", chosen.shown()));
        return Ok(0);
    }
    Bakery::new(args, &chosen)?.work()
}

/// What all files say, in the order in which they count.
fn read(args: &Args) -> Result<Vec<Contents>> {
    let mut files = args.file.clone();
    if files.is_empty() {
        files = USUAL.iter().filter(|name| Path::new(name).exists()).map(|name| (*name).to_owned()).collect();
        // Of the names of a compose file the first one counts.
        let mut is_first = true;
        files.retain(|name| !is_compose(name) || std::mem::take(&mut is_first));
    }
    if files.is_empty() {
        return Err(Error::not_found("there is no file that says what to build")
            .with_hint(format!("-f FILE, or one called {}", USUAL.join(", "))));
    }
    let (compose, others): (Vec<String>, Vec<String>) = files.into_iter().partition(|name| is_compose(name));
    let mut contents = Vec::new();
    if !compose.is_empty() {
        contents.extend(of_compose(&compose)?);
    }
    for name in others {
        let failed = |error| Error::failed(format!("read {name}"), error);
        let text = if name == "-" {
            std::io::read_to_string(std::io::stdin()).map_err(failed)?
        } else {
            std::fs::read_to_string(&name).map_err(failed)?
        };
        let is_json =
            name.ends_with(".json") || (!name.ends_with(".hcl") && text.trim_start().starts_with('{'));
        contents.push(Contents::parse(&text, if is_json { Form::Json } else { Form::Hcl }, &name)?);
    }
    Ok(contents)
}

fn is_compose(name: &str) -> bool {
    name.ends_with(".yaml") || name.ends_with(".yml")
}

/// The builds of compose files, as `rcompose build --print` shows them, and what they say of `x-bake`.
fn of_compose(files: &[String]) -> Result<Vec<Contents>> {
    let failed = |error| Error::failed("read the compose file", error);
    let named = files.iter().flat_map(|file| ["-f", file]);
    let done = own("rcompose")?.args(named).args(["build", "--print"]).stderr(Stdio::inherit()).output();
    let done = done.map_err(failed)?;
    let shown = files.join(", ");
    if !done.status.success() {
        return Err(Error::invalid(format!("the builds of {shown} are not understood")));
    }
    let builds = String::from_utf8_lossy(&done.stdout);
    let mut contents = vec![Contents::parse(&builds, Form::Plain, &shown)?];
    let mut environment = Environment { variables: std::env::vars().collect(), is_whole: true };
    let beside: Vec<PathBuf> = [PathBuf::from(".env")].into_iter().filter(|path| path.exists()).collect();
    // What is wrong in it, the other has told.
    environment.add_files(&beside);
    for file in files {
        let text = std::fs::read_to_string(file).map_err(failed)?;
        let more = of_extension(&text, &environment.variables);
        contents.push(Contents::parse(&more.to_string(), Form::Plain, &format!("{file}: x-bake"))?);
    }
    Ok(contents)
}

/// What services say of their builds for `bake` alone, as targets.
fn of_extension(text: &str, variables: &BTreeMap<String, String>) -> Json {
    let mut targets = Map::new();
    // What cannot be read has been told of.
    let model: Json = serde_yaml::from_str(text).unwrap_or_default();
    for (name, service) in model["services"].as_object().into_iter().flatten() {
        if let Some(said) = service["build"].get("x-bake") {
            targets.insert(name.replace('.', "_"), substituted(said, variables));
        }
    }
    serde_json::json!({ "target": targets })
}

fn substituted(value: &Json, variables: &BTreeMap<String, String>) -> Json {
    match value {
        Json::String(text) => {
            let lookup = |name: &str| variables.get(name).cloned();
            interpolate::substitute(text, &lookup, &mut |_| ()).unwrap_or_else(|_| text.clone()).into()
        }
        Json::Array(list) => list.iter().map(|it| substituted(it, variables)).collect(),
        Json::Object(map) => map
            .iter()
            .map(|(key, it)| (key.clone(), substituted(it, variables)))
            .collect::<Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

/// This same executable under one of its names.
fn own(name: &str) -> Result<Command> {
    let path = std::env::current_exe().map_err(|error| Error::failed("find this executable", error))?;
    let mut command = Command::new(path);
    command.arg0(name);
    Ok(command)
}

/// Builds that run beside each other, each as soon as those that it starts from are done.
struct Bakery<'a> {
    args: &'a Args,
    chosen: &'a Chosen,
    /// What the images of targets are called that others start from.
    names: BTreeMap<String, String>,
    wishes: Wishes,
    /// Where each build says what it has built.
    notes: tempfile::TempDir,
}

// === impl Bakery ===

impl<'a> Bakery<'a> {
    fn new(args: &'a Args, chosen: &'a Chosen) -> Result<Self> {
        let mark = engine::id::ContainerId::random();
        let bases: BTreeSet<String> =
            chosen.targets.values().flat_map(|target| dependencies(target).into_values()).collect();
        let name = |base: String| {
            let name = format!("bake.local/{}:{}", base.to_lowercase(), mark.short());
            (base, name)
        };
        let mut flags = Vec::new();
        let mut flag =
            |name: &str, value: Option<&String>| flags.extend(value.map(|value| format!("--{name}={value}")));
        flag("provenance", args.provenance.as_ref());
        flag("sbom", args.sbom.as_ref());
        flag("call", args.call.as_ref());
        args.allow.iter().for_each(|value| flag("allow", Some(value)));
        flags.extend(args.check.then(|| "--check".to_owned()));
        let progress = args.progress.clone().or((chosen.targets.len() > 1).then(|| "plain".to_owned()));
        flags.extend(progress.map(|progress| format!("--progress={progress}")));
        let wishes =
            Wishes { push: args.push, load: args.load, no_cache: args.no_cache, pull: args.pull, flags };
        let notes = tempfile::tempdir().map_err(|error| Error::failed("make a directory", error))?;
        Ok(Self { args, chosen, names: bases.into_iter().map(name).collect(), wishes, notes })
    }

    fn work(&self) -> Result<u8> {
        let done = if self.chosen.targets.len() == 1 { self.alone() } else { self.together() };
        if !self.names.is_empty() && !self.args.check && self.args.call.is_none() {
            // The images stay where something else names them.
            let _ =
                self.engine()?.args(["rmi", "-f"]).args(self.names.values()).stdout(Stdio::null()).status();
        }
        let code = done?;
        self.note()?;
        Ok(code)
    }

    /// One build has the terminal.
    fn alone(&self) -> Result<u8> {
        let Some(name) = self.chosen.targets.keys().next() else { return Ok(0) };
        let mut child = self.start(name, false)?;
        let status = child.wait().map_err(|error| Error::failed("wait for the build", error))?;
        Ok(code_of(status))
    }

    fn together(&self) -> Result<u8> {
        let (sender, ended) = mpsc::channel();
        let mut waiting: BTreeSet<&String> = self.chosen.targets.keys().collect();
        let mut done: BTreeSet<String> = BTreeSet::new();
        let mut running: BTreeMap<String, u32> = BTreeMap::new();
        let mut failure = None;
        loop {
            let is_ready = |name: &&String| {
                dependencies(&self.chosen.targets[*name]).values().all(|base| done.contains(base))
            };
            let ready: Vec<&String> =
                waiting.iter().copied().filter(|name| failure.is_none() && is_ready(name)).collect();
            for name in ready {
                waiting.remove(name);
                let mut child = self.start(name, true)?;
                running.insert(name.clone(), child.id());
                let (sender, name) = (sender.clone(), name.clone());
                std::thread::spawn(move || {
                    if let Some(said) = child.stderr.take() {
                        for line in BufReader::new(said).lines().map_while(std::result::Result::ok) {
                            output::note(&format!("[{name}] {line}"));
                        }
                    }
                    // Nobody listens once the first has failed and all are told.
                    let _ = sender.send((name, child.wait()));
                });
            }
            if running.is_empty() {
                break;
            }
            let Ok((name, status)) = ended.recv() else { break };
            running.remove(&name);
            let code = status.map_or(1, code_of);
            if code == 0 {
                done.insert(name);
            } else if failure.is_none() {
                failure = Some((name, code));
                for pid in running.values() {
                    if let Some(pid) = i32::try_from(*pid).ok().and_then(rustix::process::Pid::from_raw) {
                        let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
                    }
                }
            }
        }
        match failure {
            Some((name, _)) => Err(Error::invalid(format!("target {name} failed"))),
            None if waiting.is_empty() => Ok(0),
            None => {
                let names: Vec<&str> = waiting.iter().map(|name| name.as_str()).collect();
                Err(Error::invalid(format!("the targets {} start from each other", names.join(", "))))
            }
        }
    }

    fn start(&self, name: &str, is_told: bool) -> Result<Child> {
        let target = &self.chosen.targets[name];
        let order = Order::of(target, self.names.get(name).map(String::as_str), &self.names, &self.wishes);
        let order = order.map_err(|RecipeError(error)| Error::invalid(format!("target {name}: {error}")))?;
        let mut command = self.engine()?;
        let (context, words) =
            order.words.split_last().ok_or_else(|| Error::invalid("there is no context"))?;
        command.args(words);
        if self.args.metadata_file.is_some() {
            command.arg("--metadata-file").arg(self.notes.path().join(name));
        }
        command.arg(context);
        if order.input.is_some() {
            command.stdin(Stdio::piped());
        }
        if is_told {
            command.stderr(Stdio::piped());
        }
        let mut child = command.spawn().map_err(|error| Error::failed(format!("build {name}"), error))?;
        if let (Some(input), Some(mut stdin)) = (order.input, child.stdin.take()) {
            // A build that has failed already does not read it.
            let _ = stdin.write_all(input.as_bytes());
        }
        Ok(child)
    }

    fn engine(&self) -> Result<Command> {
        let mut command = own("rengine")?;
        if let Some(root) = &self.args.root {
            command.arg("--root").arg(root);
        }
        if self.args.debug {
            command.arg("-D");
        }
        Ok(command)
    }

    /// Says what was built, of each target.
    fn note(&self) -> Result<()> {
        let Some(file) = &self.args.metadata_file else { return Ok(()) };
        let mut all = Map::new();
        for name in self.chosen.targets.keys() {
            let mut text = String::new();
            let Ok(mut said) = std::fs::File::open(self.notes.path().join(name)) else { continue };
            said.read_to_string(&mut text).map_err(|error| Error::failed("read what was built", error))?;
            all.insert(name.clone(), serde_json::from_str(&text).unwrap_or_default());
        }
        let text = format!("{:#}\n", Json::Object(all));
        std::fs::write(file, text).map_err(|error| Error::failed(format!("write {}", file.display()), error))
    }
}

fn code_of(status: std::process::ExitStatus) -> u8 {
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

impl From<RecipeError> for Error {
    fn from(error: RecipeError) -> Self {
        Self::invalid(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_say_more_for_bake() {
        let text = "services: {a.b: {build: {context: ., x-bake: {tags: ['r/a:${TAG:-1}'], no-cache: true}}}, c: {image: x}}";
        let variables = BTreeMap::from([("TAG".to_owned(), "7".to_owned())]);
        let said = of_extension(text, &variables);
        assert_eq!(said, serde_json::json!({ "target": { "a_b": { "tags": ["r/a:7"], "no-cache": true } } }));
        assert_eq!(of_extension("{", &variables), serde_json::json!({ "target": {} }));
    }
}
