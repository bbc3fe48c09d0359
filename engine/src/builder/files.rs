//! COPY, ADD and the directory of WORKDIR.

use std::io;
use std::path::Path;

use super::agent::Agent;
use super::archive;
use super::cache::Key;
use super::context::{SelectError, Selected, Tree};
use super::copy::{Changes, Chmod, Owner, Writer, Written};
use super::error::Trouble;
use super::execute::Broken;
use super::expand::Expander;
use super::git::{Access, GitAddress, check_out};
use super::ignore::Ignore;
use super::instruction::{Copy, Step};
use super::owner;
use super::predecessor::Predecessor;
use super::stack::Stack;
use super::stage::{StageRun, fault};
use super::{UnknownOwners, lint, remote, ssh};
use crate::id::Digest;

/// A COPY or ADD with every word expanded and every source looked up.
struct Prepared {
    tree: Tree,
    sources: Vec<Selected>,
    /// Which of the sources are unpacked if they are archives.
    unpacks: Vec<bool>,
    texts: Vec<(String, String)>,
    destination: std::path::PathBuf,
    into: bool,
    lower: Stack,
    changes: Changes,
    key: Key,
    entry: String,
}

// === impl StageRun ===

impl StageRun<'_> {
    /// COPY and ADD.
    pub(super) fn copy(&mut self, step: &Step, copy: &Copy) -> Result<(), Box<Broken>> {
        let work = self.work(&step.code);
        let prepared = match self.prepare(step, copy) {
            Ok(prepared) => prepared,
            Err(trouble) => {
                let failure = work.failed(&trouble.summary());
                return Err(Broken::at(step, trouble, failure));
            }
        };
        let key = prepared.key.clone();
        let entry = prepared.entry.clone();
        let details = || prepared.tree.parts(&prepared.sources, &self.build.digests);
        let origin = self.layer(step, &key, work, &details, |stage, upper, _| {
            prepared
                .write(upper, stage.build.now, stage.predecessor())
                .map_err(Trouble::io(format!("copy to {}", prepared.destination.display())))
        })?;
        self.add(origin, entry);
        Ok(())
    }

    /// The layer that this step made the last time, if it is here and what was made before may be used.
    fn predecessor(&self) -> Option<Predecessor<'_>> {
        let build = self.build;
        if !build.uses_cache(self.planned.name.as_deref()) {
            return None;
        }
        let diff = build.cache.last_layer(&self.place())?;
        let latest = build.epoch.filter(|_| build.request.clamp_times);
        Predecessor::of(&build.layers, &diff, &build.digests, latest)
    }

    fn prepare(&self, step: &Step, copy: &Copy) -> Result<Prepared, Trouble> {
        let verb = if copy.is_add { "ADD" } else { "COPY" };
        let tree = match copy.from.as_ref().and_then(|from| self.planned.sources.get(from)) {
            Some(source) => self.build.tree(source)?,
            None => self.build.context.clone(),
        };
        let words = |texts: &[String]| -> Result<Vec<String>, Trouble> {
            texts.iter().map(|text| Ok(self.expand(step, text)?.text)).collect()
        };
        let sources = words(&copy.sources)?;
        let checksum = self.checksum(step, copy, &sources)?;
        let exclude = words(&copy.exclude)?;
        let exclude = Ignore::from_patterns(exclude.iter().map(String::as_str))
            .map_err(|error| fault(step, format!("--exclude: {error}")))?;
        let mut selected = Vec::new();
        let mut unpacks = Vec::new();
        for source in &sources {
            if !copy.is_add && copy.from.is_none() && (remote::is_http(source) || remote::is_git(source)) {
                return Err(fault(step, format!("COPY does not fetch {}: ADD does", remote::shown(source))));
            }
            if copy.is_add && remote::is_git(source) {
                selected.extend(self.checked_out(source, copy, checksum.as_deref())?);
                unpacks.resize(selected.len(), false);
                continue;
            }
            if copy.is_add && remote::is_http(source) {
                selected.extend(self.fetched(step, source, checksum.as_deref())?);
                // A file from elsewhere stays what it is unless told otherwise.
                unpacks.resize(selected.len(), copy.unpack == Some(true));
                continue;
            }
            selected.extend(
                tree.select(source, &exclude, copy.parents)
                    .map_err(|error| not_copied(&error).with_hint_if(elsewhere(&error, copy, &tree)))?,
            );
            unpacks.resize(selected.len(), copy.is_add && copy.unpack != Some(false));
        }
        let texts = self.heredocs(step, copy)?;
        let written = self.expand(step, &copy.destination)?.text;
        let (destination, into) = self.destination(&written);
        // A linked layer knows nothing of those below it.
        let below = if copy.link { &[][..] } else { &self.config.rootfs.diff_ids[..] };
        let lower = Stack::of(self.build.lower(below));
        self.check_destination(step, &lower, &selected, texts.len(), &destination, into)?;
        let chown = copy.chown.as_ref().map(|text| self.expand(step, text)).transpose()?.map(|it| it.text);
        let chmod = copy.chmod.as_ref().map(|text| self.expand(step, text)).transpose()?.map(|it| it.text);
        let full = Stack::of(self.build.lower(&self.config.rootfs.diff_ids));
        let owner = chown.as_deref().map(|text| self.owner(text, &full)).transpose()?;
        let mode = chmod.as_deref().map(Chmod::parse).transpose().map_err(|message| fault(step, message))?;
        let digest =
            tree.digest(&selected, &self.build.digests).map_err(Trouble::io("read the files to copy"))?;
        let base = if copy.link { self.times(Key::of("link")) } else { self.key(verb) };
        let key = base
            .named("the files", digest)
            .named_all(
                "the here-documents",
                texts.iter().flat_map(|(name, text)| [name.as_str(), text.as_str()]),
            )
            .named("the destination", destination.as_os_str().as_encoded_bytes())
            .with([u8::from(into), u8::from(copy.is_add)])
            .with(unpacks.iter().map(|unpacks| u8::from(*unpacks)).collect::<Vec<u8>>())
            .named("--chown", owner.map(|owner| format!("{}:{}", owner.uid, owner.gid)).unwrap_or_default())
            .named("--chmod", chmod.as_deref().unwrap_or_default());
        let mut entry = verb.to_owned();
        if copy.parents {
            entry.push_str(" --parents");
        }
        for (flag, value) in [("chown", &chown), ("chmod", &chmod)] {
            if let Some(value) = value {
                entry.push_str(&format!(" --{flag}={value}"));
            }
        }
        sources.iter().for_each(|source| entry.push_str(&format!(" {}", remote::shown(source))));
        texts.iter().for_each(|(name, _)| entry.push_str(&format!(" <<{name}")));
        entry.push_str(&format!(" {written} # buildkit"));
        let changes =
            Changes { owner, chmod: mode, keep_owners: tree.keeps_owners, replace_directories: false };
        let sources = selected;
        Ok(Prepared { tree, sources, unpacks, texts, destination, into, lower, changes, key, entry })
    }

    /// What `--checksum` says the one file or commit from elsewhere is.
    fn checksum(&self, step: &Step, copy: &Copy, sources: &[String]) -> Result<Option<String>, Trouble> {
        if copy.keeps_git == Some(true) && !sources.iter().any(|source| remote::is_git(source)) {
            return Err(fault(step, "--keep-git-dir is for git repositories only"));
        }
        let Some(text) = &copy.checksum else { return Ok(None) };
        let text = self.expand(step, text)?.text;
        match sources {
            [source] if remote::is_http(source) || remote::is_git(source) => Ok(Some(text)),
            [_] => Err(fault(step, "--checksum is for an http or https address or a git repository only")),
            _ => Err(fault(step, "--checksum is for one source only")),
        }
    }

    /// The files of a repository, without or with `.git`.
    fn checked_out(&self, source: &str, copy: &Copy, commit: Option<&str>) -> Result<Vec<Selected>, Trouble> {
        let request = self.build.request;
        let address = GitAddress::parse(source)?.with(copy.keeps_git, commit)?;
        let agent = self.build.agent(ssh::DEFAULT)?;
        let access = Access { secrets: &request.secrets, agent: agent.as_deref().map(Agent::socket) };
        let directory = check_out(&self.build.root.build_cache(), &address, &access)?;
        let tree = Tree { stack: Stack::of(vec![directory]), ignore: Ignore::default(), keeps_owners: false };
        Ok(tree.select("/", &Ignore::default(), false).map_err(|error| not_copied(&error))?)
    }

    /// The file at an address, fetched.
    fn fetched(&self, step: &Step, source: &str, checksum: Option<&str>) -> Result<Vec<Selected>, Trouble> {
        let digest: Option<Digest> = (checksum.map(str::parse).transpose())
            .map_err(|error| fault(step, format!("--checksum={}: {error}", checksum.unwrap_or_default())))?;
        let authorization = self.authorization(source)?;
        let cache = self.build.root.build_cache();
        let fetched = remote::fetch(&cache, source, digest.as_ref(), authorization.as_deref())?;
        let stack = Stack::of(vec![fetched.directory]);
        let tree = Tree { stack, ignore: Ignore::default(), keeps_owners: false };
        Ok(tree
            .select(&literal(&fetched.name), &Ignore::default(), false)
            .map_err(|error| not_copied(&error))?)
    }

    /// What a server wants to see: the secrets `HTTP_AUTH_HEADER_<host>` and `HTTP_AUTH_TOKEN_<host>`, as BuildKit
    /// names them.
    fn authorization(&self, source: &str) -> Result<Option<String>, Trouble> {
        let host = source.split('/').nth(2).unwrap_or_default();
        let host = host.rsplit('@').next().unwrap_or(host);
        for (start, scheme) in [("HTTP_AUTH_HEADER_", ""), ("HTTP_AUTH_TOKEN_", "Bearer ")] {
            let id = format!("{start}{host}");
            if let Some(value) = self.secret(&id)? {
                return Ok(Some(format!("{scheme}{}", String::from_utf8_lossy(&value).trim())));
            }
        }
        Ok(None)
    }

    /// Looks at a COPY without copying: its words, and whether what it names is there to be copied.
    pub(super) fn check_copy(&self, step: &Step, copy: &Copy) -> Result<(), Trouble> {
        let mut words = Vec::new();
        for text in &copy.sources {
            words.push(self.expand(step, text)?.text);
        }
        for text in copy.exclude.iter().chain([&copy.destination]).chain(&copy.chown).chain(&copy.chmod) {
            self.expand(step, text)?;
        }
        let verb = if copy.is_add { "Add" } else { "Copy" };
        for word in
            words.iter().filter(|word| copy.from.is_none() && !remote::is_http(word) && !remote::is_git(word))
        {
            let result = self.build.context.select(word, &Ignore::default(), copy.parents);
            if matches!(result, Err(SelectError::Ignored(_))) {
                lint::ignored_file(&self.build.reporter, step.lines.0, verb, word);
            }
        }
        Ok(())
    }

    /// The names and texts of here-documents, expanded unless they were quoted.
    fn heredocs(&self, step: &Step, copy: &Copy) -> Result<Vec<(String, String)>, Trouble> {
        let lookup = |name: &str| self.value_of(name);
        copy.heredocs
            .iter()
            .map(|heredoc| {
                let mut text = heredoc.body();
                if heredoc.expand {
                    text = Expander::for_heredoc(self.build.escape)
                        .expand(&text, &lookup)
                        .map_err(|message| fault(step, message))?
                        .text;
                }
                Ok((heredoc.name.clone(), text))
            })
            .collect()
    }

    /// Several files need a directory to go to; into a single name they would replace each other.
    fn check_destination(
        &self,
        step: &Step,
        lower: &Stack,
        selected: &[Selected],
        texts: usize,
        destination: &Path,
        into: bool,
    ) -> Result<(), Trouble> {
        let files = selected.iter().filter(|source| !source.entry.metadata.is_dir()).count() + texts;
        let keeps_paths = selected.iter().any(|source| source.kept_path.is_some());
        if files < 2 || into || keeps_paths {
            return Ok(());
        }
        let there = lower.resolve(destination, true).map_err(Trouble::io("look for the destination"))?;
        if there.entry.is_some_and(|entry| entry.metadata.is_dir()) {
            return Ok(());
        }
        Err(fault(
            step,
            format!(
                "{files} files cannot be copied to {}: with more than one source the destination must be a directory and end with a /",
                destination.display()
            ),
        ))
    }

    fn owner(&self, text: &str, stack: &Stack) -> Result<Owner, Trouble> {
        match (owner::find(text, stack), self.build.request.unknown_owners) {
            (Ok(owner), _) => Ok(owner),
            (Err(owner::OwnerError::Io(error)), _) => {
                Err(Trouble::io("read the image's passwd and group files")(error))
            }
            (Err(_), UnknownOwners::Root) => Ok(Owner::default()),
            (Err(error), UnknownOwners::Fail) => {
                let error = crate::Error::invalid(format!("--chown={text}: {error}"));
                Err(error.with_hint("names are those of the image's own files; a number needs none").into())
            }
        }
    }

    /// Makes the working directory and what is missing above it, for the current user.
    pub(super) fn make_workdir(&self, upper: &Path, path: &str, user: &str) -> Result<Written, Trouble> {
        let lower = Stack::of(self.build.lower(&self.config.rootfs.diff_ids));
        let owner = if user.is_empty() {
            Owner::default()
        } else {
            owner::find(user, &lower).map_err(|error| Trouble::invalid(format!("USER {user}: {error}")))?
        };
        let changes = Changes { owner: Some(owner), ..Changes::default() };
        let make = || -> io::Result<Written> {
            let mut writer = Writer::new(upper, &lower, changes, self.build.now)?;
            if writer.resolve(Path::new(path), true)?.entry.is_none() {
                writer.make_directories(Path::new(path))?;
            }
            writer.finish()
        };
        make().map_err(Trouble::io(format!("make the directory {path}")))
    }
}

// === impl Prepared ===

impl Prepared {
    /// Writes the layer.
    fn write(
        &self,
        upper: &Path,
        now: rustix::fs::Timespec,
        predecessor: Option<Predecessor<'_>>,
    ) -> io::Result<Written> {
        let mut writer = Writer::new(upper, &self.lower, self.changes.clone(), now)?;
        writer.follow(predecessor);
        for (source, unpacks) in self.sources.iter().zip(&self.unpacks) {
            let is_file = source.entry.metadata.is_file();
            if *unpacks
                && is_file
                && !self.tree.keeps_owners
                && let Some(archive) = archive::open(&source.entry.host)?
            {
                writer.replaces_directories(true);
                archive::unpack(archive, &mut writer, &self.destination, self.changes.owner)
                    .map_err(|error| unread(source, &error))?;
                writer.replaces_directories(false);
                continue;
            }
            writer.copy(source, &self.destination, self.into)?;
        }
        for (name, text) in &self.texts {
            writer.write_text(name, text.as_bytes(), &self.destination, self.into)?;
        }
        writer.finish()
    }
}

/// A path as a pattern that means nothing else.
pub(super) fn literal(path: &str) -> String {
    let escaped = |c| matches!(c, '*' | '?' | '[' | '\\').then_some('\\').into_iter().chain([c]);
    path.chars().flat_map(escaped).collect()
}

/// Which of the archives cannot be unpacked, and why.
fn unread(source: &Selected, error: &io::Error) -> io::Error {
    let name = source.name.as_deref().unwrap_or_default().display();
    io::Error::new(error.kind(), format!("unpack {name}: {error}"))
}

fn not_copied(error: &SelectError) -> crate::Error {
    let kind = match error {
        SelectError::Missing(_) | SelectError::Ignored(_) => crate::Kind::NotFound,
        SelectError::Pattern(..) => crate::Kind::Invalid,
        SelectError::Io(..) => crate::Kind::Failed,
    };
    crate::Error::new(kind, error.to_string())
}

/// Where a source that is missing could be instead.
fn elsewhere(error: &SelectError, copy: &Copy, tree: &Tree) -> Option<String> {
    let SelectError::Missing(path) = error else { return None };
    Some(match (tree.neighbour(path), &copy.from) {
        (Some(meant), _) => format!("did you mean {meant}?"),
        (None, Some(from)) => format!("paths are those of {from}, from its root"),
        (None, None) => {
            "paths are those of the build context; what lies outside of it cannot be copied".to_owned()
        }
    })
}
