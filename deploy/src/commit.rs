//! Which commit of the user's repository a release is made from.

use std::path::Path;
use std::process::Command;

use crate::release::Commit;

/// The commit that is checked out in a directory; `None` outside of a repository or without git.
pub fn of(directory: &Path) -> Option<Commit> {
    let line = git(directory, &["log", "-1", "--format=%H %s"])?;
    let (id, subject) = line.split_once(' ').unwrap_or((&line, ""));
    let dirty = git(directory, &["status", "--porcelain", "--untracked-files=no"])
        .is_some_and(|text| !text.is_empty());
    Some(Commit { id: id.to_owned(), subject: subject.to_owned(), dirty })
}

/// Who deploys: `name@machine`.
pub fn author() -> String {
    let name = ["GITHUB_ACTOR", "SUDO_USER", "USER", "LOGNAME"]
        .into_iter()
        .find_map(|variable| std::env::var(variable).ok().filter(|value| !value.is_empty()))
        .unwrap_or_else(|| rustix::process::getuid().as_raw().to_string());
    let machine = if std::env::var_os("GITHUB_ACTIONS").is_some() {
        "github-actions".to_owned()
    } else {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    };
    format!("{name}@{machine}")
}

fn git(directory: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(directory).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
