//! Addresses of git repositories, as contexts and in ADD: which repository, which commit, which directory.
//!
//! The grammar is BuildKit's (util/gitutil and dfgitutil): `REMOTE[#REF[:DIRECTORY]]`, or `REMOTE?ref=…&subdir=…`.

use std::path::{Path, PathBuf};

use reqwest::Url;

use super::remote::{is_git, shown};
use super::{Secret, SecretSource};
use crate::error::{Error, Kind, Result};

mod checkout;

pub(crate) use checkout::{Access, check_out, check_out_whole};

/// A repository and what is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GitAddress {
    /// What git is told, without credentials.
    remote: String,
    /// `user:password` of an http address.
    login: Option<(String, String)>,
    /// What is wanted; the remote's HEAD when not said.
    wanted: Wanted,
    /// The directory below the top.
    directory: String,
    /// What the commit's name must begin with.
    checksum: Option<String>,
    /// Whether `.git` stays.
    keeps_git: bool,
    /// Whether submodules come too.
    has_submodules: bool,
}

/// A commit by one of its names.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    Head,
    /// A branch, a tag, a commit or a full reference.
    Any(String),
    Branch(String),
    Tag(String),
}

/// The longest name of a reference.
const LONGEST: usize = 255;

/// Files fetched from a git repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// All of them.
    pub top: PathBuf,
    /// The directory or file among them that was asked for.
    pub wanted: PathBuf,
    /// What the repository is called.
    pub name: String,
}

/// Who names a repository, which decides what its server may be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedBy {
    /// The person who gives the command and the secrets.
    Caller,
    /// A file, which may come from somebody else.
    File,
}

/// Whether a text is the address of a git repository.
pub fn is_repository(address: &str) -> bool {
    is_git(address)
}

/// Fetches `REPOSITORY[#REF[:PATH]]` into a cache. GIT_AUTH_TOKEN, GIT_AUTH_HEADER and SSH_AUTH_SOCK of our own
/// environment open what is not everybody's. A server that a file names is told only what is for it by name:
/// `GIT_AUTH_TOKEN.example.org`.
///
/// # Errors
/// When git is not here, the repository does not answer, or it has no such commit or path.
pub fn fetch_repository(cache: &Path, address: &str, by: NamedBy) -> Result<Fetched> {
    let address = GitAddress::parse(address)?;
    let host = address.host().to_owned();
    let names = ["GIT_AUTH_TOKEN", "GIT_AUTH_HEADER"];
    let for_all = names.iter().filter(|_| by == NamedBy::Caller).map(|name| (*name).to_owned());
    let secrets: Vec<Secret> = (names.iter().map(|name| format!("{name}.{host}")))
        .chain(for_all)
        .filter(|name| std::env::var_os(name).is_some())
        .map(|name| Secret { id: name.clone(), source: SecretSource::Variable(name) })
        .collect();
    let agent = std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from);
    let access = Access { secrets: &secrets, agent: agent.as_deref() };
    let tree = check_out_whole(cache, &address, &access)?;
    let wanted = tree.below(&address)?;
    let top = tree.top.canonicalize().map_err(|error| Error::failed("find the fetched files", error))?;
    Ok(Fetched { top, wanted, name: address.name().to_owned() })
}

// === impl GitAddress ===

impl GitAddress {
    /// Reads an address that [`is_git`].
    ///
    /// # Errors
    /// When a part of it could be taken for something else by git, ssh or the file system.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let wrong = |what: &str| {
            Error::invalid(format!("invalid git address {}: {what}", shown(text)))
                .with_hint("REPOSITORY#REF:DIRECTORY, as in https://example.com/a.git#main:docs")
        };
        if !is_git(text) || text.starts_with('-') || text.chars().any(char::is_control) {
            return Err(wrong("that is not a repository"));
        }
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (remote, query) = rest.split_once('?').unwrap_or((rest, ""));
        if !fragment.is_empty() && !query.is_empty() {
            return Err(wrong("it has both a fragment and a query"));
        }
        let (remote, login) = remote_of(remote).ok_or_else(|| wrong("that is no address"))?;
        let mut address = Self {
            remote,
            login,
            wanted: Wanted::Head,
            directory: String::new(),
            checksum: None,
            keeps_git: false,
            has_submodules: true,
        };
        let (reference, directory) = fragment.split_once(':').unwrap_or((fragment, ""));
        if !reference.is_empty() {
            address.wanted = Wanted::Any(reference.to_owned());
        }
        address.directory = directory.to_owned();
        for (key, value) in pairs(query) {
            address.set(&key, &value).map_err(|what| wrong(&what))?;
        }
        address.check().map_err(|what| wrong(&what))?;
        Ok(address)
    }

    fn set(&mut self, key: &str, value: &str) -> std::result::Result<(), String> {
        let switch = || match value {
            "" | "1" | "true" => Ok(true),
            "0" | "false" => Ok(false),
            _ => Err(format!("{key}={value} is neither true nor false")),
        };
        let is_first = self.wanted == Wanted::Head;
        match key {
            "ref" | "branch" | "tag" if !is_first => return Err("it names several commits".to_owned()),
            "ref" => self.wanted = Wanted::Any(value.to_owned()),
            "branch" => self.wanted = Wanted::Branch(value.to_owned()),
            "tag" => self.wanted = Wanted::Tag(value.to_owned()),
            "subdir" => value.clone_into(&mut self.directory),
            "checksum" | "commit" => self.checksum = Some(value.to_owned()),
            "keep-git-dir" => self.keeps_git = switch()?,
            "submodules" => self.has_submodules = switch()?,
            other => return Err(format!("the query has {other:?}, which is not supported")),
        }
        Ok(())
    }

    /// Refuses what git, ssh or the file system would read otherwise than people do: options in the place of names
    /// (CVE-2019-13139), and directories outside of the repository.
    fn check(&self) -> std::result::Result<(), String> {
        if let Wanted::Any(name) | Wanted::Branch(name) | Wanted::Tag(name) = &self.wanted
            && !is_reference(name)
        {
            return Err(format!("{name:?} cannot be a reference"));
        }
        if self.directory.split('/').any(|part| part == ".." || part == ".git") {
            return Err(format!("the directory {:?} is not in the repository's files", self.directory));
        }
        match &self.checksum {
            Some(sum) if !is_commit(sum, 7) => Err(format!("the checksum {sum:?} is no commit's")),
            _ => Ok(()),
        }
    }

    /// The same with ADD's `--keep-git-dir` and `--checksum`.
    ///
    /// # Errors
    /// When the checksum is none, or the address has another.
    pub(crate) fn with(mut self, keeps_git: Option<bool>, checksum: Option<&str>) -> Result<Self> {
        self.keeps_git = keeps_git.unwrap_or(self.keeps_git);
        if let Some(sum) = checksum {
            let is_same = self.checksum.as_deref().is_none_or(|own| own == sum);
            if !is_same || !is_commit(sum, 7) {
                return Err(Error::invalid(format!(
                    "--checksum={sum}: a commit is needed, the same as in the address"
                )));
            }
            self.checksum = Some(sum.to_owned());
        }
        Ok(self)
    }

    /// The server's name, as secrets for one server end with it.
    fn host(&self) -> String {
        let host = Url::parse(&self.remote).ok().and_then(|url| url.host_str().map(str::to_owned));
        host.unwrap_or_default()
    }

    /// The repository's name, as a clone's directory has it.
    pub(crate) fn name(&self) -> &str {
        let path = self.remote.trim_end_matches('/');
        let last = path.rsplit(['/', ':']).next().unwrap_or(path);
        last.strip_suffix(".git").unwrap_or(last)
    }

    fn has_no_directory(&self) -> Error {
        Error::not_found(format!("{} has no directory {:?}", self.remote, self.directory))
    }

    fn failed(&self, what: impl std::fmt::Display) -> Error {
        Error::new(Kind::Failed, format!("fetch the repository {}: {what}", self.remote))
    }
}

/// What git is told of a repository, and the login that goes another way: arguments can be read by anybody.
fn remote_of(text: &str) -> Option<(String, Option<(String, String)>)> {
    if text.starts_with("github.com/") {
        return Some((format!("https://{text}"), None));
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        // scp's form: [user@]host:path.
        let (user, rest) = text.split_once('@')?;
        let (host, path) = rest.split_once(':')?;
        let is_plain = |word: &str| !word.is_empty() && !word.starts_with('-');
        return (is_plain(user) && is_plain(host) && is_plain(path)).then(|| (text.to_owned(), None));
    };
    if !matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https" | "git" | "ssh") {
        return None;
    }
    // A user or host that begins with a dash would be an option of ssh (CVE-2017-1000117).
    let authority = rest.split('/').next()?;
    if authority.split('@').any(|part| part.is_empty() || part.starts_with('-')) {
        return None;
    }
    let mut url = Url::parse(text).ok()?;
    if !url.scheme().starts_with("http") || url.username().is_empty() {
        return Some((text.to_owned(), None));
    }
    // A query of one name is decoded like a login, but for the plus.
    let plain = |text: &str| {
        let text = text.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
        pairs(&text).into_iter().next().unwrap_or_default().0
    };
    let login = (plain(url.username()), plain(url.password().unwrap_or_default()));
    url.set_username("").and_then(|()| url.set_password(None)).ok()?;
    Some((url.to_string(), Some(login)))
}

/// The names and values of a query, decoded.
fn pairs(query: &str) -> Vec<(String, String)> {
    let url = Url::parse(&format!("http://localhost/?{query}"));
    url.iter().flat_map(Url::query_pairs).map(|(key, value)| (key.into_owned(), value.into_owned())).collect()
}

/// Whether a text can name a reference (git-check-ref-format(1)) and nothing else.
fn is_reference(name: &str) -> bool {
    let is_bad = |c: char| {
        c.is_whitespace() || c.is_control() || matches!(c, '~' | '^' | ':' | '?' | '*' | '[' | '\\')
    };
    !name.is_empty()
        && name.len() <= LONGEST
        && !name.starts_with(['-', '/', '.'])
        && !name.ends_with(['/', '.'])
        && !name.contains("..")
        && !name.contains("//")
        && !name.contains("@{")
        && !name.contains(is_bad)
}

/// Whether a text is a commit's name, or at least so much of its beginning.
fn is_commit(text: &str, least: usize) -> bool {
    (least..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_what_is_wanted_in_both_forms() {
        let parse = |text: &str| GitAddress::parse(text).unwrap();
        let plain = parse("https://example.com/a.git");
        assert_eq!((plain.wanted, plain.directory.as_str()), (Wanted::Head, ""));
        let old = parse("git@example.com:me/a.git#v1:docs/x");
        assert_eq!(old.remote, "git@example.com:me/a.git");
        assert_eq!((old.wanted, old.directory.as_str()), (Wanted::Any("v1".into()), "docs/x"));
        let new = parse("https://example.com/a.git?branch=main&subdir=docs&submodules=false&keep-git-dir");
        assert_eq!((new.wanted, new.directory.as_str()), (Wanted::Branch("main".into()), "docs"));
        assert!(new.keeps_git && !new.has_submodules);
        let secret = parse("https://me:pa%3Ass@example.com/a.git");
        assert_eq!(secret.remote, "https://example.com/a.git");
        assert_eq!(secret.login, Some(("me".into(), "pa:ss".into())));
        assert_eq!(parse("github.com/a/b").remote, "https://github.com/a/b");
    }

    #[test]
    fn what_git_or_ssh_would_take_for_an_option_is_refused() {
        for wrong in [
            "https://example.com/a.git#--upload-pack=id",
            "https://example.com/a.git#a b",
            "https://example.com/a.git#a..b",
            "https://example.com/a.git#main:../../etc",
            "https://example.com/a.git#main:.git/hooks",
            "https://example.com/a.git?subdir=a/../../b",
            "https://example.com/a.git?ref=a&tag=b",
            "https://example.com/a.git?what=1",
            "https://example.com/a.git?checksum=xyz",
            "ssh://-oProxyCommand=id/x.git",
            "-oProxyCommand=id@example.com:x",
            "a@-oProxyCommand=id:x",
            "ext::sh -c id",
            "file:///etc/a.git",
        ] {
            assert!(GitAddress::parse(wrong).is_err(), "{wrong}");
        }
    }
}
