//! Which commit of the user's repository a release is made from.

use std::path::Path;
use std::process::Command;
use std::thread;

use crate::release::Commit;

/// A commit that git is being asked for.
#[derive(Debug)]
pub struct Asked(Option<thread::JoinHandle<Option<Commit>>>);

/// Asks git beside the caller; a large repository takes its time.
pub fn ask(directory: &Path) -> Asked {
    let directory = directory.to_owned();
    // A release whose commit is not known is as good as any.
    Asked(thread::Builder::new().name("git".to_owned()).spawn(move || of(&directory)).ok())
}

// === impl Asked ===

impl Asked {
    /// Waits for the answer.
    pub fn answer(self) -> Option<Commit> {
        self.0?.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// The commit that is checked out in a directory; `None` outside of a repository or without git.
fn of(directory: &Path) -> Option<Commit> {
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
        .unwrap_or_else(|| user_name(rustix::process::getuid().as_raw()));
    let machine = if std::env::var_os("GITHUB_ACTIONS").is_some() {
        "github-actions".to_owned()
    } else {
        rustix::system::uname().nodename().to_string_lossy().into_owned()
    };
    format!("{name}@{machine}")
}

/// The name of a user, for who has none in the environment (passwd(5)); the number when it has none at all.
fn user_name(id: u32) -> String {
    let id = id.to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, own) = (fields.next()?, fields.nth(1)?);
        (own == id).then(|| name.to_owned())
    });
    name.unwrap_or(id)
}

fn git(directory: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(directory).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_name_without_any_variable() {
        assert_eq!(user_name(0), "root");
        assert_eq!(user_name(4_000_000_000), "4000000000");
    }
}
