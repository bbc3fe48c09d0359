//! How a command becomes root's on a server.

use super::failure::SshError;
use super::session::quoted;
use super::{Output, Secret};

use serde::{Deserialize, Serialize};

/// What to do when the user there is not root.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub enum Sudo {
    /// `sudo` without a password.
    #[default]
    Auto,
    /// Nothing: fail.
    Never,
    /// `sudo` with this password.
    Password(Secret),
}

/// How one command is to become root's.
#[derive(Debug)]
pub(super) struct Climb<'a> {
    /// What goes before a shell line that is one quoted word.
    pub(super) prefix: String,
    /// What `sudo` will print when it wants the password, and the password.
    pub(super) password: Option<(String, &'a Secret)>,
}

// === impl Sudo ===

impl Sudo {
    /// How this user becomes root, or none when they are. `token` is a text that nobody else could print.
    pub(super) fn climb(
        &self,
        at: &str,
        user: &str,
        is_root: bool,
        token: &str,
    ) -> Result<Option<Climb<'_>>, SshError> {
        match self {
            _ if is_root => Ok(None),
            Self::Never => Err(SshError::NotRoot { at: at.to_owned(), user: user.to_owned() }),
            Self::Auto => Ok(Some(Climb { prefix: "env LC_ALL=C sudo -n --".to_owned(), password: None })),
            // The password is given when it is asked for, and only then: with NOPASSWD in sudoers it would end up in the
            // command's standard input.
            Self::Password(password) => {
                let prompt = format!("sudo-{token}:");
                let prefix = format!("env LC_ALL=C sudo -S -k -p {} --", quoted(&prompt));
                Ok(Some(Climb { prefix, password: Some((prompt, password)) }))
            }
        }
    }
}

/// Why `sudo` did not start the command, from how it ended. Pure.
pub(super) fn failure(at: &str, user: &str, gave_password: bool, ended: &Output) -> SshError {
    let (at, user) = (at.to_owned(), user.to_owned());
    let said = String::from_utf8_lossy(&ended.stderr);
    let has = |words: &str| said.contains(words);
    if ended.code == Some(127) || has("sudo: not found") {
        SshError::SudoMissing { at, user }
    } else if has("you must have a tty") {
        SshError::SudoNeedsTerminal { at }
    } else if has("not in the sudoers file") || has("is not allowed to") || has("may not run sudo") {
        SshError::NotInSudoers { at, user }
    } else if gave_password
        && (has("try again") || has("incorrect password") || has("no password was provided"))
    {
        SshError::SudoPasswordWrong { at, user }
    } else if has("a password is required") || has("a terminal is required") {
        SshError::SudoWantsPassword { at, user }
    } else {
        SshError::SudoFailed { at, said: said.trim().to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_needs_no_sudo_and_never_is_never() {
        assert!(Sudo::Never.climb("h", "root", true, "t").unwrap().is_none());
        assert!(matches!(Sudo::Never.climb("h", "me", false, "t"), Err(SshError::NotRoot { .. })));
        assert!(Sudo::Auto.climb("h", "me", false, "t").unwrap().unwrap().prefix.contains("sudo -n"));
    }

    #[test]
    fn what_sudo_says_is_named() {
        let named = |gave, code, said: &str| {
            failure("h", "me", gave, &Output { code: Some(code), stdout: Vec::new(), stderr: said.into() })
        };
        assert!(matches!(named(false, 127, "sh: 1: sudo: not found"), SshError::SudoMissing { .. }));
        assert!(matches!(
            named(false, 1, "sudo: a password is required"),
            SshError::SudoWantsPassword { .. }
        ));
        assert!(matches!(
            named(false, 1, "sudo: sorry, you must have a tty to run sudo"),
            SshError::SudoNeedsTerminal { .. }
        ));
        assert!(matches!(named(true, 1, "me is not in the sudoers file."), SshError::NotInSudoers { .. }));
        let wrong = "Sorry, try again.\nsudo: no password was provided\nsudo: 1 incorrect password attempt";
        assert!(matches!(named(true, 1, wrong), SshError::SudoPasswordWrong { .. }));
        assert!(matches!(named(true, 1, "sudo: unknown error"), SshError::SudoFailed { .. }));
    }
}
