//! Whom ssh will talk to, once its own configuration has had its say: the only one to be told a password.

use std::ffi::OsString;
use std::process::{Command, Stdio};

/// A user at a host, as ssh names them when it asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Target {
    user: String,
    /// The host's name, and its alias among host keys.
    hosts: Vec<String>,
    /// Whether the configuration has ssh go through something else, which may ask as well.
    goes_through: bool,
}

// === impl Target ===

impl Target {
    /// Asks ssh what it makes of this command line, without these variables. It connects to nothing.
    pub(super) fn resolve(arguments: &[OsString], hidden: &[OsString]) -> Self {
        let mut ssh = Command::new("ssh");
        hidden.iter().for_each(|name| {
            ssh.env_remove(name);
        });
        ssh.arg("-G").args(arguments).stdin(Stdio::null()).stderr(Stdio::null());
        // When there is no ssh, the attempt to connect will say so.
        ssh.output().map(|output| Self::parse(&String::from_utf8_lossy(&output.stdout))).unwrap_or_default()
    }

    /// Reads what `ssh -G` prints. A ProxyCommand of our own asks nothing.
    pub(super) fn parse(configuration: &str) -> Self {
        let value = |key: &str| {
            let found = configuration.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
            found.map(str::trim).filter(|value| *value != "none").map(str::to_owned)
        };
        let command = value("proxycommand");
        let is_ours = |command: &String| command.contains(super::attempt::OUR_WAY);
        Self {
            user: value("user").unwrap_or_default(),
            hosts: [value("hostname"), value("hostkeyalias")].into_iter().flatten().collect(),
            goes_through: value("proxyjump").is_some() || command.is_some_and(|command| !is_ours(&command)),
        }
    }

    /// Whether a question for a password comes from there: `me@h's password: ` or `(me@h) …`.
    pub(super) fn asks(&self, question: &str) -> bool {
        let who = question
            .strip_prefix('(')
            .and_then(|rest| rest.split_once(") "))
            .or_else(|| question.split_once("'s password"))
            .map(|(who, _)| who);
        // ssh cuts names short.
        let cut = |text: &str, length: usize| text.chars().take(length).collect::<String>();
        who.map_or(!self.goes_through, |who| {
            self.hosts.iter().any(|host| {
                let forms =
                    [format!("{}@{host}", self.user), format!("{}@{}", cut(&self.user, 30), cut(host, 128))];
                forms.iter().any(|form| form.eq_ignore_ascii_case(who))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_for_the_one_whom_the_configuration_means() {
        let target =
            Target::parse("user ops\nhostname 10.0.0.2\nport 22\nproxyjump bastion\nhostkeyalias prod\n");
        assert!(target.asks("ops@10.0.0.2's password: "));
        assert!(target.asks("(ops@prod) Password: "));
        assert!(!target.asks("ops@bastion's password: "));
        assert!(!target.asks("(ops@bastion) Password: "));
        assert!(!target.asks("Password: "), "it may be the bastion that asks");
        assert!(Target::parse("user ops\nhostname h\nproxyjump none\n").asks("Password: "));
    }

    #[test]
    fn a_long_name_is_known_when_it_is_cut_short() {
        let user = "u".repeat(40);
        assert!(
            Target::parse(&format!("user {user}\nhostname h\n"))
                .asks(&format!("{}@h's password: ", &user[..30]))
        );
    }
}
