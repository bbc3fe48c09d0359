//! One rule of `develop.watch`: which files it is about, and where they belong in the container. Pure, once made.

use std::path::{Path, PathBuf};

use engine::builder::ignore::Ignore;

use crate::model::{Hook, Project, Service, ServiceVolume, WatchAction, WatchRule};

/// A rule of one service.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The service.
    pub service: String,
    /// What it watches: an absolute path without symbolic links.
    pub path: PathBuf,
    /// What it does.
    pub action: WatchAction,
    /// Where the files belong in the container.
    pub target: Option<PathBuf>,
    /// The command of `sync+exec`.
    pub exec: Hook,
    /// Whether everything is brought to the container before anything has changed.
    pub initial_sync: bool,
    /// What alone counts, when there is such a list.
    include: Option<Ignore>,
    /// What never counts: patterns and where they are rooted.
    ignore: Vec<(PathBuf, Ignore)>,
}

/// Files that editors and version control keep for themselves.
const NOT_MEANT: [&str; 12] = [
    "**/.git",
    "**/*~",
    "**/.*.swp",
    "**/.*.swx",
    "**/.*.swo",
    "**/4913",
    "**/.#*",
    "**/#*#",
    "**/.idea",
    "**/*___jb_tmp___",
    "**/*___jb_old___",
    "**/.*.kate-swp",
];

// === impl Rule ===

impl Rule {
    /// The rules of these services, of all when none is named; and what is odd about them.
    ///
    /// # Errors
    /// When a pattern makes no sense, or an ignore file cannot be read.
    pub fn all(project: &Project, services: &[String]) -> Result<(Vec<Self>, Vec<String>), String> {
        let mut rules = Vec::new();
        let mut warnings = Vec::new();
        for service in project.services.values() {
            let asked = services.is_empty() || services.contains(&service.name);
            for rule in service.develop.iter().flat_map(|develop| &develop.watch).filter(|_| asked) {
                match covering_bind(service, rule) {
                    Some(target) if syncs(rule.action) => warnings.push(format!(
                        "service {:?}: {} is mounted at {target} already and is not synced",
                        service.name, rule.path
                    )),
                    _ => rules.push(Self::of(project, service, rule)?),
                }
            }
        }
        Ok((rules, warnings))
    }

    fn of(project: &Project, service: &Service, rule: &WatchRule) -> Result<Self, String> {
        if rule.action == WatchAction::Rebuild && service.build.is_none() {
            return Err(format!(
                "service {:?}: develop.watch: a rule that rebuilds needs a build",
                service.name
            ));
        }
        let given = project.working_dir.join(&rule.path);
        let path = given.canonicalize().unwrap_or(given);
        let wrong = |error: engine::builder::ignore::IgnoreError| {
            format!("service {:?}: develop.watch: {error}", service.name)
        };
        let patterns =
            |texts: &[String]| Ignore::from_patterns(texts.iter().map(String::as_str)).map_err(wrong);
        let not_meant = Ignore::from_patterns(NOT_MEANT).map_err(wrong)?;
        let mut ignore = vec![(path.clone(), not_meant), (path.clone(), patterns(&rule.ignore)?)];
        if let Some((context, text)) = ignore_file(project, service)? {
            ignore.push((context, Ignore::from_file(&text).map_err(wrong)?));
        }
        ignore.retain(|(_, patterns)| !patterns.is_empty());
        Ok(Self {
            service: service.name.clone(),
            path,
            action: rule.action,
            target: rule.target.as_ref().map(PathBuf::from),
            exec: rule.exec.clone(),
            initial_sync: rule.initial_sync
                && matches!(
                    rule.action,
                    WatchAction::Sync | WatchAction::SyncRestart | WatchAction::SyncExec
                ),
            include: if rule.include.is_empty() { None } else { Some(patterns(&rule.include)?) },
            ignore,
        })
    }

    /// Whether a change of this file is one for this rule.
    pub fn is_about(&self, path: &Path) -> bool {
        if path != self.path && !path.starts_with(&self.path) {
            return false;
        }
        if self.ignore.iter().any(|(root, patterns)| is_matched(root, patterns, path)) {
            return false;
        }
        self.include.as_ref().is_none_or(|patterns| is_matched(&self.path, patterns, path))
    }

    /// Whether anything in this directory can be one for this rule: only then is it watched.
    pub fn looks_into(&self, directory: &Path) -> bool {
        // On the way down to what is watched, or in it.
        let concerned = self.path.starts_with(directory) || directory.starts_with(&self.path);
        concerned
            && !self.ignore.iter().any(|(root, patterns)| {
                relative(root, directory).is_some_and(|path| {
                    !path.is_empty() && patterns.standing(&path).0 && !patterns.may_bring_back_below(&path)
                })
            })
    }

    /// Where a file belongs in the container.
    pub fn destination(&self, path: &Path) -> Option<PathBuf> {
        let target = self.target.as_ref()?;
        match path.strip_prefix(&self.path) {
            Ok(rest) if rest.as_os_str().is_empty() => Some(target.clone()),
            Ok(rest) => Some(target.join(rest)),
            Err(_) => None,
        }
    }
}

/// Whether an action brings files to the container.
pub(super) fn syncs(action: WatchAction) -> bool {
    matches!(action, WatchAction::Sync | WatchAction::SyncRestart | WatchAction::SyncExec)
}

fn is_matched(root: &Path, patterns: &Ignore, path: &Path) -> bool {
    relative(root, path).is_some_and(|path| patterns.standing(&path).0)
}

fn relative(root: &Path, path: &Path) -> Option<String> {
    Some(path.strip_prefix(root).ok()?.to_string_lossy().into_owned())
}

/// Where the container sees the rule's path already, through a bind mount.
fn covering_bind(service: &Service, rule: &WatchRule) -> Option<String> {
    service.volumes.iter().find_map(|volume| match volume {
        ServiceVolume::Bind { source, target, .. } if Path::new(&rule.path).starts_with(source) => {
            Some(target.clone())
        }
        _ => None,
    })
}

/// The ignore file of the service's build, `<Dockerfile>.dockerignore` before `.dockerignore`, and its context.
fn ignore_file(project: &Project, service: &Service) -> Result<Option<(PathBuf, String)>, String> {
    let Some(build) = &service.build else { return Ok(None) };
    let context = project.working_dir.join(build.context.as_deref().unwrap_or("."));
    let Ok(context) = context.canonicalize() else { return Ok(None) };
    let dockerfile = context.join(build.dockerfile.as_deref().unwrap_or("Dockerfile"));
    let mut own = dockerfile.into_os_string();
    own.push(".dockerignore");
    for file in [PathBuf::from(own), context.join(".dockerignore")] {
        match std::fs::read_to_string(&file) {
            Ok(text) => return Ok(Some((context, text))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("read {}: {error}", file.display())),
        }
    }
    Ok(None)
}
