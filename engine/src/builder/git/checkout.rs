//! A commit's files, fetched by the `git` program.
//!
//! Why a program and not a library: a fetch speaks http, ssh and git's own protocol, asks agents and follows
//! submodules, and every server is tested against this one implementation; BuildKit runs it for the same reason. It
//! is not on the way of any other build. It sees no configuration but ours, runs no hook, asks nobody, and knows the
//! protocols of the network only: neither files nor `ext::` commands, also not for submodules.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{GitAddress, Wanted, is_commit};
use crate::builder::Secret;
use crate::error::{Error, Kind, Result};
use crate::id::Digest;
use crate::store::{Lock, private_directory, remove_tree};

/// What opens repositories that are not everybody's.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Access<'a> {
    /// Among them are GIT_AUTH_TOKEN and GIT_AUTH_HEADER, with the server's name at their end or for all.
    pub(crate) secrets: &'a [Secret],
    /// The socket of an SSH agent.
    pub(crate) agent: Option<&'a Path>,
}

/// Commits fetched of one repository, in a directory of their own.
struct Depot<'a> {
    address: &'a GitAddress,
    room: PathBuf,
    /// The header that http servers see.
    authorization: Option<String>,
    agent: Option<&'a Path>,
}

/// What our git is configured with, instead of anybody's files.
const CONFIGURATION: &str = "\
[core]\n\thooksPath = /dev/null\n\tfsmonitor = false\n\taskPass =\n\tprotectNTFS = true\n\
[credential]\n\thelper =\n\
[protocol]\n\tallow = never\n[protocol \"https\"]\n\tallow = always\n[protocol \"http\"]\n\tallow = always\n\
[protocol \"ssh\"]\n\tallow = always\n[protocol \"git\"]\n\tallow = always\n\
[fetch]\n\tfsckObjects = true\n\trecurseSubmodules = no\n[transfer]\n\tfsckObjects = true\n\
[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n[advice]\n\tdetachedHead = false\n\
[init]\n\tdefaultBranch = main\n[safe]\n\tdirectory = *\n\tbareRepository = all\n";

/// Fetches a commit's files. The directory stays in the cache; whoever reads it does so before the cache is pruned.
///
/// # Errors
/// When git is not here, the repository does not answer or has no such commit, or the commit is another one than
/// the checksum says.
pub(crate) fn check_out(cache: &Path, address: &GitAddress, access: &Access<'_>) -> Result<PathBuf> {
    let tree = check_out_whole(cache, address, access)?;
    let inner = tree.below(address)?;
    if inner.is_dir() { Ok(inner) } else { Err(address.has_no_directory()) }
}

/// All of a commit's files.
pub(crate) struct Tree {
    /// The top of them.
    pub(crate) top: PathBuf,
}

/// Fetches all of a commit's files, whatever directory the address names.
///
/// # Errors
/// As [`check_out`].
pub(crate) fn check_out_whole(cache: &Path, address: &GitAddress, access: &Access<'_>) -> Result<Tree> {
    let room = cache.join("git").join(Digest::of(address.remote.as_bytes()).hex());
    let failed = |error: io::Error| address.failed("make room for it").with_source(error);
    private_directory(&room).map_err(failed)?;
    let _lock = Lock::exclusive(&room.join("lock")).map_err(failed)?;
    fs::write(room.join("config"), CONFIGURATION).map_err(failed)?;
    let depot = Depot { address, authorization: authorization(address, access)?, agent: access.agent, room };
    let commit = depot.commit()?;
    if let Some(sum) = address.checksum.as_deref().filter(|sum| !commit.starts_with(sum)) {
        let hint = "the reference means another commit than when the checksum was written";
        return Err(Error::invalid(format!(
            "{}: checksum mismatch: expected {sum}, got {commit}",
            address.remote
        ))
        .with_hint(hint));
    }
    let form = format!("{commit}-{}-{}", address.keeps_git, address.has_submodules);
    let files = depot.room.join("files").join(form);
    if !files.is_dir() {
        depot.unfold(&commit, &files)?;
    }
    Ok(Tree { top: files })
}

/// What an http server wants to see: the address's own login, or BuildKit's secrets.
fn authorization(address: &GitAddress, access: &Access<'_>) -> Result<Option<String>> {
    if !address.remote.starts_with("http") {
        return Ok(None);
    }
    let basic = |user: &str, word: &str| format!("Basic {}", STANDARD.encode(format!("{user}:{word}")));
    if let Some((user, word)) = &address.login {
        return Ok(Some(basic(user, word)));
    }
    let host = address.host();
    for (name, is_token) in [("GIT_AUTH_HEADER", false), ("GIT_AUTH_TOKEN", true)] {
        for id in [format!("{name}.{host}"), name.to_owned()] {
            let Some(secret) = access.secrets.iter().find(|secret| secret.id == id) else { continue };
            let value =
                secret.value().map_err(|error| Error::failed(format!("read the secret {id}"), error))?;
            if let Some(value) = value {
                let value = String::from_utf8_lossy(&value).trim().to_owned();
                return Ok(Some(if is_token { basic("x-access-token", &value) } else { value }));
            }
        }
    }
    Ok(None)
}

// === impl Tree ===

impl Tree {
    /// What the address names in it, which a link of the repository must not lead out of.
    pub(crate) fn below(&self, address: &GitAddress) -> Result<PathBuf> {
        let inner = self.top.join(address.directory.trim_start_matches('/'));
        match (self.top.canonicalize(), inner.canonicalize()) {
            (Ok(top), Ok(real)) if real.starts_with(&top) => Ok(real),
            _ => Err(address.has_no_directory()),
        }
    }
}

// === impl Depot ===

impl Depot<'_> {
    /// Fetches what is wanted and says which commit that is.
    fn commit(&self) -> Result<String> {
        let repository = self.repository();
        if !repository.join("HEAD").exists() {
            self.run(self.git().args(["init", "--quiet", "--bare"]).arg(&repository))?;
        }
        if let Wanted::Any(name) = &self.address.wanted
            && is_commit(name, 40)
        {
            if self.resolve(name).is_err() && self.fetch(&[name], true).is_err() {
                self.fetch(&EVERYTHING, false)?;
            }
            return self.resolve(name);
        }
        let names = match &self.address.wanted {
            Wanted::Head => vec!["HEAD".to_owned()],
            Wanted::Branch(name) => vec![format!("refs/heads/{name}")],
            Wanted::Tag(name) => vec![format!("refs/tags/{name}")],
            Wanted::Any(name) if name.starts_with("refs/") => vec![name.clone()],
            Wanted::Any(name) => vec![format!("refs/heads/{name}"), format!("refs/tags/{name}")],
        };
        let there = self.run(self.git().args(["ls-remote", "--", &self.address.remote]).args(&names))?;
        let is_there = |name: &&String| there.lines().any(|line| line.split('\t').nth(1) == Some(name));
        if let Some(name) = names.iter().find(is_there) {
            if self.fetch(&[name], true).is_err() {
                // Old servers know no shallow fetch.
                self.fetch(&[name], false)?;
            }
            return self.resolve("FETCH_HEAD");
        }
        match &self.address.wanted {
            Wanted::Any(name) if is_commit(name, 7) => {
                self.fetch(&EVERYTHING, false)?;
                self.resolve(name)
            }
            _ => Err(Error::not_found(format!("{} has no {}", self.address.remote, names.join(" and no ")))),
        }
    }

    fn fetch(&self, names: &[&str], is_shallow: bool) -> Result<()> {
        let mut git = self.git();
        git.arg("--git-dir").arg(self.repository()).args(["fetch", "--quiet", "--force", "--no-tags"]);
        if is_shallow {
            git.arg("--depth=1");
        }
        self.run(git.args(["--", &self.address.remote]).args(names)).map(drop)
    }

    /// The commit a name means, among those fetched.
    fn resolve(&self, name: &str) -> Result<String> {
        let mut git = self.git();
        git.arg("--git-dir").arg(self.repository());
        git.args(["rev-parse", "--quiet", "--verify", "--end-of-options", &format!("{name}^{{commit}}")]);
        let commit = self.run(&mut git)?.trim().to_owned();
        if is_commit(&commit, 40) { Ok(commit) } else { Err(self.address.failed("it has no such commit")) }
    }

    /// Writes a commit's files to a directory that is there whole or not at all.
    fn unfold(&self, commit: &str, files: &Path) -> Result<()> {
        let failed = |error: io::Error| self.address.failed("write its files").with_source(error);
        let parent = self.room.join("files");
        private_directory(&parent).map_err(failed)?;
        // Whoever was killed here left his. There is one at a time.
        remove_tree(&parent.join(ARRIVING)).map_err(failed)?;
        let made =
            tempfile::Builder::new().prefix(ARRIVING).rand_bytes(0).tempdir_in(&parent).map_err(failed)?;
        let tree = made.path();
        let inside = |arguments: &[&str]| {
            let mut git = self.git();
            git.current_dir(tree).args(arguments);
            git
        };
        self.run(&mut inside(&["init", "--quiet"]))?;
        // From our own copy: the one place where a path is an address.
        let name = format!("refs/rengine/{commit}");
        let repository = self.repository();
        let mut git = self.git();
        self.run(git.arg("--git-dir").arg(&repository).args(["update-ref", &name, commit]))?;
        let mut git =
            inside(&["-c", "protocol.file.allow=always", "fetch", "--quiet", "--update-shallow", "--"]);
        self.run(git.env("GIT_ALLOW_PROTOCOL", "file").arg(&repository).arg(&name))?;
        self.run(&mut inside(&["remote", "add", "origin", &self.address.remote]))?;
        self.run(&mut inside(&["checkout", "--quiet", "--force", "--detach", "FETCH_HEAD"]))?;
        if self.address.has_submodules && tree.join(".gitmodules").is_file() {
            self.run(&mut inside(&["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"]))?;
        }
        if !self.address.keeps_git {
            remove_tree(&tree.join(".git")).map_err(failed)?;
        }
        settle(tree).map_err(failed)?;
        let path = made.keep();
        fs::rename(&path, files).inspect_err(|_| drop(remove_tree(&path))).map_err(failed)
    }

    fn repository(&self) -> PathBuf {
        self.room.join("repository")
    }

    /// git with an environment that holds what is needed, and nothing that is there by chance.
    fn git(&self) -> Command {
        let mut git = Command::new("git");
        git.env_clear();
        let kept =
            ["PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "http_proxy", "https_proxy", "no_proxy", "HTTPS_PROXY"];
        for name in kept {
            if let Some(value) = std::env::var_os(name) {
                git.env(name, value);
            }
        }
        git.env("HOME", &self.room)
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", self.room.join("config"))
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ALLOW_PROTOCOL", "http:https:git:ssh")
            .env("GIT_LFS_SKIP_SMUDGE", "1")
            .env("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o ForwardAgent=no")
            .stdin(Stdio::null());
        if let Some(agent) = self.agent {
            git.env("SSH_AUTH_SOCK", agent);
        }
        if let Some(authorization) = &self.authorization {
            // For this server alone, and never to where it might redirect.
            let url = format!("http.{}.extraHeader", self.address.remote);
            git.env("GIT_CONFIG_COUNT", "2")
                .env("GIT_CONFIG_KEY_0", url)
                .env("GIT_CONFIG_VALUE_0", format!("Authorization: {authorization}"))
                .env("GIT_CONFIG_KEY_1", "http.followRedirects")
                .env("GIT_CONFIG_VALUE_1", "false");
        }
        git
    }

    /// Runs git to its end and returns what it prints.
    fn run(&self, git: &mut Command) -> Result<String> {
        let output = git.output().map_err(|error| {
            let missing = error.kind() == io::ErrorKind::NotFound;
            let error = Error::new(Kind::Unsupported, "run git").with_source(error);
            if missing { error.with_hint("install it: apt-get install git") } else { error }
        })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let lines = said.lines().map(|line| line.trim_start_matches("fatal: ").trim());
        let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
        let start = lines.len().saturating_sub(3);
        Err(self.address.failed(lines[start..].join("; ")))
    }
}

/// A checkout in the making, among those that are done.
const ARRIVING: &str = ".new";

/// References of all branches and tags: for commits that no reference names.
const EVERYTHING: [&str; 2] = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];

/// Gives files the modes that git knows, whatever our own umask is.
fn settle(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            settle(&path)?;
        } else if kind.is_file() {
            let mode = if entry.metadata()?.permissions().mode() & 0o100 != 0 { 0o755 } else { 0o644 };
            fs::set_permissions(&path, Permissions::from_mode(mode))?;
        }
    }
    fs::set_permissions(directory, Permissions::from_mode(0o755))
}
