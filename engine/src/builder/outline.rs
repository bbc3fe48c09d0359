//! `--call outline`: what a target can be given. Comments above an ARG or a FROM that begin with its name describe it.

use std::collections::{BTreeMap, BTreeSet};

use super::graph::target_of;
use super::instruction::{Dockerfile, Instruction, Stage};
use super::mount::{self, Mount, MountKind};
use super::{BuildError, BuildRequest, dockerfile, parser};

/// What a target can be given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    /// The target's name; empty when it has none.
    pub target: String,
    /// What is said of it.
    pub description: String,
    /// Arguments: names, values without further ado, and what is said of them.
    pub args: Vec<(String, String, String)>,
    /// Secrets, and whether the build fails without them.
    pub secrets: BTreeMap<String, bool>,
    /// Agents, and whether the build fails without them.
    pub agents: BTreeMap<String, bool>,
    /// The directories that caches are mounted at.
    pub caches: BTreeSet<String>,
}

/// What the target of a build can be given.
///
/// # Errors
/// When the Dockerfile cannot be read, or has no such target.
pub fn outline(request: &BuildRequest) -> crate::Result<Outline> {
    let (text, _) = dockerfile::read(request)?;
    let dockerfile = parser::parse(&text.text).map_err(|fault| BuildError::Dockerfile {
        place: text.place(&fault),
        message: fault.message.clone(),
    })?;
    let target = target_of(&dockerfile, request.target.as_deref()).ok_or_else(|| {
        let known = dockerfile.stages.iter().filter_map(|stage| stage.name.clone()).collect();
        BuildError::Target { target: request.target.clone().unwrap_or_default(), known }
    })?;
    let mut needed = BTreeSet::new();
    need(&dockerfile, target, &mut needed);
    let stages: Vec<&Stage> = needed.iter().filter_map(|number| dockerfile.stages.get(*number)).collect();
    let mut outline = Outline::default();
    if let Some(stage) = dockerfile.stages.get(target) {
        outline.target = stage.name.clone().unwrap_or_default();
        outline.description = description(&dockerfile, stage.lines.0, &outline.target);
    }
    let names_it = |name: &str| {
        let forms = [format!("${name}"), format!("${{{name}")];
        stages.iter().any(|stage| forms.iter().any(|form| stage.code.contains(form.as_str())))
    };
    for step in &dockerfile.globals {
        let Instruction::Arg(list) = &step.instruction else { continue };
        for (name, value) in list.iter().filter(|(name, _)| names_it(name)) {
            outline.take_arg(&dockerfile, request, step.lines.0, name, value.as_deref());
        }
    }
    for step in stages.iter().flat_map(|stage| &stage.steps) {
        match &step.instruction {
            Instruction::Arg(list) => list.iter().for_each(|(name, value)| {
                outline.take_arg(&dockerfile, request, step.lines.0, name, value.as_deref());
            }),
            Instruction::Run(run) => run.mounts.iter().for_each(|text| outline.take_mount(text)),
            _ => {}
        }
    }
    Ok(outline)
}

/// Adds a stage and those it is made of.
fn need(dockerfile: &Dockerfile, number: usize, needed: &mut BTreeSet<usize>) {
    let Some(stage) = dockerfile.stages.get(number) else { return };
    if !needed.insert(number) {
        return;
    }
    let mut names = vec![stage.base.clone()];
    for step in &stage.steps {
        match &step.instruction {
            Instruction::Copy(copy) => names.extend(copy.from.clone()),
            Instruction::Run(run) => {
                let mounts = run.mounts.iter().filter_map(|text| as_written(text));
                names.extend(mounts.filter_map(|mount| mount.from));
            }
            _ => {}
        }
    }
    for name in names {
        let before = &dockerfile.stages[..number];
        let named = before.iter().rposition(|stage| stage.name.as_deref() == Some(&name.to_lowercase()));
        if let Some(found) = named.or_else(|| name.parse().ok().filter(|at| *at < number)) {
            need(dockerfile, found, needed);
        }
    }
}

/// A mount whose variables nobody has set.
fn as_written(text: &str) -> Option<Mount> {
    mount::parse(text, &|text| Ok(text.to_owned())).ok()
}

/// What a comment says that begins with this name.
fn description(dockerfile: &Dockerfile, line: usize, name: &str) -> String {
    let mut remarks = dockerfile.remarks.get(&line).into_iter().flatten();
    let said = remarks.find_map(|remark| remark.strip_prefix(name)?.strip_prefix(' '));
    said.filter(|_| !name.is_empty()).unwrap_or_default().trim().to_owned()
}

// === impl Outline ===

impl Outline {
    fn take_arg(
        &mut self,
        dockerfile: &Dockerfile,
        request: &BuildRequest,
        line: usize,
        name: &str,
        value: Option<&str>,
    ) {
        let value = request.args.get(name).map(String::as_str).or(value);
        let description = description(dockerfile, line, name);
        match self.args.iter_mut().find(|(known, ..)| known == name) {
            // A stage takes a global argument over by its name alone.
            Some((_, known, said)) => {
                if let Some(value) = value {
                    value.clone_into(known);
                }
                if said.is_empty() {
                    *said = description;
                }
            }
            None => self.args.push((name.to_owned(), value.unwrap_or_default().to_owned(), description)),
        }
    }

    fn take_mount(&mut self, text: &str) {
        let Some(mount) = as_written(text) else { return };
        let last = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        match mount.kind {
            MountKind::Secret => {
                let id = mount.id.clone().or_else(|| mount.target.as_deref().map(last)).unwrap_or_default();
                *self.secrets.entry(id).or_default() |= mount.required == Some(true);
            }
            MountKind::Ssh => {
                let id = mount.id.clone().unwrap_or_else(|| "default".to_owned());
                *self.agents.entry(id).or_default() |= mount.required == Some(true);
            }
            MountKind::Cache => self.caches.extend(mount.target),
            MountKind::Bind | MountKind::Tmpfs => {}
        }
    }
}
