//! Where a server is, as people write it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `host`, `user@host`, `user@host:port`, `[2001:db8::1]:port`, or any of them after `ssh://`. What is left out is for
/// the user's ssh configuration to say.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address {
    /// Who to be there.
    pub user: Option<String>,
    /// A name, an alias from the ssh configuration, or an IP address without brackets.
    pub host: String,
    /// The port of its ssh server.
    pub port: Option<u16>,
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is no host in it.
    #[error("{0:?} names no host")]
    NoHost(String),
    /// There is an `@` with nobody before it.
    #[error("{0:?} names no user before the @")]
    NoUser(String),
    /// What is behind the last colon is no port.
    #[error("{port:?} in {address:?} is no port")]
    Port {
        /// The whole text.
        address: String,
        /// What should be a number from 1 to 65535.
        port: String,
    },
    /// A character that ssh or a shell could take for something else.
    #[error("{0:?} has a character that no address has")]
    Character(String),
    /// A password, as some addresses of other kinds have one. It is not shown.
    #[error("the address of {0} has a password before the @, which does not belong there")]
    Password(String),
    /// A part behind the host.
    #[error("{0:?} has a path, and ssh has no use for one")]
    Path(String),
}

// === impl Address ===

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let whole = || text.to_owned();
        let rest = text.strip_prefix("ssh://").map_or(text, |rest| rest.strip_suffix('/').unwrap_or(rest));
        let (user, place) = match rest.rsplit_once('@') {
            Some(("", _)) => return Err(AddressError::NoUser(whole())),
            Some((user, place)) => (Some(user.to_owned()), place),
            None => (None, rest),
        };
        let (host, port) = split_port(place);
        if host.is_empty() {
            return Err(AddressError::NoHost(whole()));
        }
        // No user's name has a colon.
        if user.as_deref().is_some_and(|user| user.contains(':')) {
            return Err(AddressError::Password(host.to_owned()));
        }
        if rest.contains('/') {
            return Err(AddressError::Path(whole()));
        }
        // CVE-2017-1000117: a name that begins with a dash is an option to ssh. CVE-2023-51385: names are expanded
        // into ProxyCommand, which a shell reads.
        let strange = |name: &str| {
            let odd = |c: char| c.is_whitespace() || c.is_control() || "'`\"$\\;&<>|(){}*?!#,".contains(c);
            name.starts_with('-') || name.chars().any(odd)
        };
        if strange(host) || user.as_deref().is_some_and(strange) {
            return Err(AddressError::Character(whole()));
        }
        let port = match port {
            None => None,
            Some(port) => Some(
                number(port).ok_or_else(|| AddressError::Port { address: whole(), port: port.to_owned() })?,
            ),
        };
        Ok(Self { user, host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match (self.host.contains(':'), self.port) {
            (true, Some(port)) => write!(f, "[{}]:{port}", self.host),
            (false, Some(port)) => write!(f, "{}:{port}", self.host),
            (_, None) => f.write_str(&self.host),
        }
    }
}

/// The host without brackets, and what is behind it. An IPv6 address without brackets has no port.
fn split_port(place: &str) -> (&str, Option<&str>) {
    if let Some((host, rest)) = place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        // What does not begin with a colon is no port, and is shown as one that is none.
        return (host, (!rest.is_empty()).then(|| rest.strip_prefix(':').unwrap_or("")));
    }
    match place.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host, Some(port)),
        _ => (place, None),
    }
}

fn number(port: &str) -> Option<u16> {
    let plain = port.bytes().all(|byte| byte.is_ascii_digit());
    port.parse().ok().filter(|port| plain && *port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (Option<String>, String, Option<u16>) {
        let Address { user, host, port } = text.parse().unwrap();
        (user, host, port)
    }

    #[test]
    fn an_address_is_read_as_people_write_it() {
        let root = || Some("root".to_owned());
        assert_eq!(parts("example.org"), (None, "example.org".into(), None));
        assert_eq!(parts("root@example.org"), (root(), "example.org".into(), None));
        assert_eq!(parts("root@10.0.0.1:2222"), (root(), "10.0.0.1".into(), Some(2222)));
        assert_eq!(parts("ssh://root@example.org:22/"), (root(), "example.org".into(), Some(22)));
        assert_eq!(parts("root@[2001:db8::1]:22"), (root(), "2001:db8::1".into(), Some(22)));
        assert_eq!(parts("[::1]"), (None, "::1".into(), None));
        assert_eq!(parts("2001:db8::1"), (None, "2001:db8::1".into(), None));
        assert_eq!(parts("me@corp@bastion"), (Some("me@corp".into()), "bastion".into(), None));
    }

    #[test]
    fn what_is_no_address_is_refused_by_name() {
        let why = |text: &str| text.parse::<Address>().unwrap_err();
        assert!(matches!(why(""), AddressError::NoHost(_)));
        assert!(matches!(why("root@"), AddressError::NoHost(_)));
        assert!(matches!(why("@example.org"), AddressError::NoUser(_)));
        assert!(matches!(why("h:0"), AddressError::Port { .. }));
        assert!(matches!(why("h:65536"), AddressError::Port { .. }));
        assert!(matches!(why("h:+22"), AddressError::Port { .. }));
        assert!(matches!(why("h:"), AddressError::Port { .. }));
        assert!(matches!(why("[::1]22"), AddressError::Port { .. }));
        assert!(matches!(why("-oProxyCommand=x"), AddressError::Character(_)));
        assert!(matches!(why("root@h`id`"), AddressError::Character(_)));
        assert!(matches!(why("two words"), AddressError::Character(_)));
        assert!(matches!(why("root@h:/srv"), AddressError::Path(_)));
        let shown = why("ssh://root:hunter2@h:22").to_string();
        assert!(shown.contains("password") && !shown.contains("hunter2"), "{shown}");
        let shown = why("root:hun/ter2@h").to_string();
        assert!(!shown.contains("ter2"), "{shown}");
    }

    #[test]
    fn an_address_is_shown_as_it_is_read() {
        for text in ["example.org", "root@example.org:2222", "root@[2001:db8::1]:22", "::1"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }
}
