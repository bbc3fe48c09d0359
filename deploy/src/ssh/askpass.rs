//! Questions that ssh asks, and who answers them. ssh starts this executable with its question (`SSH_ASKPASS`), which
//! passes it on over a socket to the process that knows; what is no known question gets no answer.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use super::target::Target;
use super::{Fingerprint, HostKey, Login, Secret};

/// The name of the socket in the directory of a connection.
pub(super) const ASK: &str = "ask";

/// Where the answers are; neither is a secret.
const SOCKET: &str = "RDEPLOY_ASK_SOCKET";
const TOKEN: &str = "RDEPLOY_ASK_TOKEN";

/// Whether ssh only says something, and waits for no answer (readpass.c, `notify_start`): `none` then.
const PROMPT: &str = "SSH_ASKPASS_PROMPT";

/// What is before such a word. No question has it.
const NOTICE: char = '\u{1}';

/// The longest question, in bytes.
const LONGEST: u64 = 16 << 10;

/// Takes questions for one ssh process.
#[derive(Debug)]
pub(super) struct Desk {
    listener: UnixListener,
    path: PathBuf,
    token: String,
}

/// Who answers, and what has been asked so far.
#[derive(Debug)]
pub(super) struct Answers<'a> {
    login: &'a Login,
    target: Target,
    given_password: bool,
    /// The keys whose passphrase has been given.
    pub(super) given_passphrase: Vec<String>,
    /// Questions that were not answered, in order.
    pub(super) refused: Vec<Refused>,
    /// What ssh said last that a person has to do, such as to touch a key.
    pub(super) notice: Option<String>,
}

/// A question that has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    /// The password once more: the one given was wrong.
    PasswordAgain,
    /// A new password: the old one has expired.
    NewPassword,
    /// The passphrase of this key, and there is none.
    Passphrase(String),
    /// The passphrase of this key once more.
    PassphraseAgain(String),
    /// Whether a host with this kind of key and this fingerprint is the one.
    HostKey {
        /// The kind of key, as ssh names it.
        kind: String,
        /// What ssh shows of it.
        fingerprint: String,
    },
    /// Something else.
    Other(String),
}

// === impl Refused ===

impl Refused {
    /// Whether there is no sense in letting ssh go on.
    pub(super) fn is_final(&self) -> bool {
        !matches!(self, Self::Passphrase(_) | Self::PassphraseAgain(_))
    }
}

// === impl Desk ===

impl Desk {
    /// A desk in this directory, which is nobody else's.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join(ASK);
        let listener = UnixListener::bind(&path)?;
        Ok(Self { listener, path, token: super::session::random()? })
    }

    /// Sends the questions of this command here.
    pub(super) fn announce(&self, command: &mut Command, executable: &Path) {
        command.env("SSH_ASKPASS", executable).env("SSH_ASKPASS_REQUIRE", "force");
        command.env(SOCKET, &self.path).env(TOKEN, &self.token);
        // Before OpenSSH 8.4 it is a display that makes ssh ask this way.
        if std::env::var_os("DISPLAY").is_none() {
            command.env("DISPLAY", "none");
        }
    }

    /// What becomes readable when there is a question.
    pub(super) fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// Answers one question.
    pub(super) fn serve(&self, answers: &mut Answers<'_>) -> io::Result<()> {
        let (mut stream, _) = self.listener.accept()?;
        let peer = rustix::net::sockopt::socket_peercred(&stream)?;
        let ours = rustix::process::getuid();
        if peer.uid != ours && !peer.uid.is_root() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.set_write_timeout(Some(Duration::from_secs(2)))?;
        let mut asked = String::new();
        (&mut stream).take(LONGEST).read_to_string(&mut asked)?;
        let question = asked.strip_prefix(&self.token).and_then(|rest| rest.strip_prefix('\n'));
        if let Some(answer) = question.and_then(|question| answers.to(question)) {
            stream.write_all(b"=")?;
            stream.write_all(answer.expose().as_bytes())?;
        }
        Ok(())
    }
}

// === impl Answers ===

impl<'a> Answers<'a> {
    /// Answers from what this login holds, for this target.
    pub(super) fn from(login: &'a Login, target: Target) -> Self {
        Self {
            login,
            target,
            given_password: false,
            given_passphrase: Vec::new(),
            refused: Vec::new(),
            notice: None,
        }
    }

    /// The answer to a question, or none, and then it is among those refused. Each secret is given once: ssh asks again
    /// when it was wrong, and some servers lock an account that is tried too often.
    fn to(&mut self, question: &str) -> Option<Secret> {
        if let Some(notice) = question.strip_prefix(NOTICE) {
            self.notice = Some(notice.trim().to_owned());
            return Some(Secret::new(""));
        }
        let answer = match Question::of(question) {
            Question::Passphrase(key) if self.given_passphrase.contains(&key) => {
                Err(Refused::PassphraseAgain(key))
            }
            Question::Passphrase(key) => match &self.login.passphrase {
                Some(passphrase) => {
                    self.given_passphrase.push(key);
                    Ok(passphrase.clone())
                }
                None => Err(Refused::Passphrase(key)),
            },
            // A host on the way that the user's configuration names, say.
            Question::Password if self.login.password.is_some() && !self.target.asks(question) => {
                Err(Refused::Other(question.trim().to_owned()))
            }
            Question::Password if self.given_password => Err(Refused::PasswordAgain),
            Question::Password => match &self.login.password {
                Some(password) => {
                    self.given_password = true;
                    Ok(password.clone())
                }
                None => Err(Refused::Other(question.trim().to_owned())),
            },
            Question::NewPassword => Err(Refused::NewPassword),
            Question::HostKey { kind, fingerprint } => {
                let is_pinned = |pins: &[Fingerprint]| pins.iter().any(|pin| pin.to_string() == fingerprint);
                match &self.login.host_key {
                    HostKey::Pinned(pins) if is_pinned(pins) => Ok(Secret::new("yes")),
                    _ => Err(Refused::HostKey { kind, fingerprint }),
                }
            }
            Question::Other(text) => Err(Refused::Other(text)),
        };
        answer.map_err(|refused| self.refused.push(refused)).ok()
    }
}

/// A question, by its shape.
#[derive(Debug, PartialEq, Eq)]
enum Question {
    Passphrase(String),
    Password,
    NewPassword,
    HostKey { kind: String, fingerprint: String },
    Other(String),
}

impl Question {
    fn of(text: &str) -> Self {
        if let Some(rest) = text.strip_prefix("Enter passphrase for key '") {
            return Self::Passphrase(rest.trim_end().trim_end_matches("':").to_owned());
        }
        if text.starts_with("The authenticity of host ") && text.contains("Are you sure you want to continue")
        {
            return Self::host_key(text);
        }
        // What a server asks (keyboard-interactive) is behind `(user@host) ` since OpenSSH 8.4.
        let theirs =
            text.strip_prefix('(').and_then(|rest| rest.split_once(") ")).map_or(text, |(_, theirs)| theirs);
        let words = theirs.trim().to_lowercase();
        let password = ["password", "passwort", "passwd", "mot de passe", "contraseña", "passcode"];
        if ["new", "retype", "current", "change", "expired"].iter().any(|word| words.contains(word))
            && words.contains("password")
        {
            Self::NewPassword
        } else if words.ends_with(':') && password.iter().any(|word| words.contains(word)) {
            Self::Password
        } else {
            Self::Other(theirs.trim().to_owned())
        }
    }

    /// `ED25519 key fingerprint is SHA256:….`, on a line of its own.
    fn host_key(text: &str) -> Self {
        let line = text.lines().find_map(|line| line.split_once(" key fingerprint is "));
        line.map_or_else(
            || Self::Other(text.to_owned()),
            |(kind, fingerprint)| Self::HostKey {
                kind: kind.trim().to_owned(),
                fingerprint: fingerprint.trim().trim_end_matches('.').to_owned(),
            },
        )
    }
}

/// Passes on the question that ssh started this process with, and prints the answer for it.
pub(super) fn enter_if_asked() -> Option<ExitCode> {
    let (path, token) = (std::env::var_os(SOCKET)?, std::env::var(TOKEN).ok()?);
    let mut arguments = std::env::args().skip(1);
    // ssh gives its question and nothing else; with anything else this is some other use of this executable.
    let (question, None) = (arguments.next()?, arguments.next()) else { return None };
    let question = match std::env::var(PROMPT).as_deref() {
        Ok("none") => format!("{NOTICE}{question}"),
        _ => question,
    };
    Some(match ask(Path::new(&path), &token, &question) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

fn ask(path: &Path, token: &str, question: &str) -> io::Result<()> {
    let mut stream = UnixStream::connect(path)?;
    stream.write_all(format!("{token}\n{question}").as_bytes())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = answer.strip_prefix(b"=").ok_or(io::ErrorKind::PermissionDenied)?;
    let mut output = io::stdout().lock();
    output.write_all(answer)?;
    output.write_all(b"\n")?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "The authenticity of host 'h (10.0.0.1)' can't be established.
ED25519 key fingerprint is SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU.
This key is not known by any other names.
Are you sure you want to continue connecting (yes/no/[fingerprint])? ";

    fn target() -> Target {
        Target::parse("user a\nhostname h\n")
    }

    #[test]
    fn known_questions_are_told_apart() {
        let of = Question::of;
        assert_eq!(of("root@10.0.0.1's password: "), Question::Password);
        assert_eq!(of("(root@10.0.0.1) Password: "), Question::Password);
        assert_eq!(of("Password: "), Question::Password);
        assert_eq!(of("(a@h) New password: "), Question::NewPassword);
        assert_eq!(of("(a@h) Verification code: "), Question::Other("Verification code:".into()));
        assert_eq!(of("Enter passphrase for key '/k/id': "), Question::Passphrase("/k/id".into()));
        // A server cannot ask for the passphrase of a key.
        assert!(matches!(of("(a@h) Enter passphrase for key '/k/id': "), Question::Other(_)));
        let fingerprint = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU".to_owned();
        assert_eq!(of(HOST), Question::HostKey { kind: "ED25519".into(), fingerprint });
        assert!(matches!(of("Please type 'yes', 'no' or the fingerprint: "), Question::Other(_)));
    }

    #[test]
    fn each_secret_is_given_once() {
        let login = Login { password: Some(Secret::new("pw")), ..Login::default() };
        let mut answers = Answers::from(&login, target());
        assert_eq!(answers.to("a@bastion's password: "), None);
        assert_eq!(answers.to("a@h's password: "), Some(Secret::new("pw")));
        assert_eq!(answers.to("(a@h) Password: "), None);
        assert_eq!(answers.to("Enter passphrase for key 'k': "), None);
        let bastion = Refused::Other("a@bastion's password:".into());
        assert_eq!(answers.refused, [bastion, Refused::PasswordAgain, Refused::Passphrase("k".into())]);
    }

    #[test]
    fn what_is_only_said_is_no_question() {
        let login = Login::default();
        let mut answers = Answers::from(&login, target());
        assert_eq!(
            answers.to("\u{1}Confirm user presence for key ED25519-SK SHA256:47DE"),
            Some(Secret::new(""))
        );
        assert!(answers.refused.is_empty());
        assert_eq!(answers.notice.as_deref(), Some("Confirm user presence for key ED25519-SK SHA256:47DE"));
    }

    #[test]
    fn a_host_is_confirmed_by_its_pin_alone() {
        let pins = |text: &str| HostKey::Pinned(vec![text.parse().unwrap()]);
        let mut login = Login {
            host_key: pins("SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"),
            ..Login::default()
        };
        assert_eq!(Answers::from(&login, target()).to(HOST), Some(Secret::new("yes")));
        login.host_key = pins("SHA256:57DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU");
        assert_eq!(Answers::from(&login, target()).to(HOST), None);
        login.host_key = HostKey::Known;
        assert_eq!(Answers::from(&login, target()).to(HOST), None);
    }

    #[test]
    fn whoever_does_not_know_the_token_learns_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let desk = Desk::open(directory.path()).unwrap();
        let login = Login { password: Some(Secret::new("pw")), ..Login::default() };
        let mut answers = Answers::from(&login, target());
        let mut ask = |token: &str| {
            let mut stream = UnixStream::connect(&desk.path).unwrap();
            stream.write_all(format!("{token}\na@h's password: ").as_bytes()).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            desk.serve(&mut answers).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        };
        assert_eq!(ask("guess"), "");
        assert_eq!(ask(""), "");
        assert_eq!(ask(&desk.token), "=pw");
    }
}
