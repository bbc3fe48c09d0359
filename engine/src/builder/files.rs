//! COPY, ADD and the directory of WORKDIR.

use std::io;
use std::path::Path;

use super::UnknownOwners;
use super::archive;
use super::cache::Key;
use super::context::{SelectError, Selected, Tree};
use super::copy::{Changes, Chmod, Owner, Writer};
use super::error::Trouble;
use super::execute::Broken;
use super::expand::Expander;
use super::ignore::Ignore;
use super::instruction::{Copy, Step};
use super::owner;
use super::stack::Stack;
use super::stage::{StageRun, fault};

/// A COPY or ADD with every word expanded and every source looked up.
struct Prepared {
    tree: Tree,
    sources: Vec<Selected>,
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
        let unpacks = copy.is_add && copy.unpack != Some(false);
        let origin = self.layer(step, &key, work, |stage, upper, _| {
            prepared
                .write(upper, stage.build.now, unpacks)
                .map_err(Trouble::io(format!("copy to {}", prepared.destination.display())))
        })?;
        self.add(origin, entry);
        Ok(())
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
        if let Some(address) = sources.iter().find(|source| copy.is_add && is_address(source)) {
            let message = format!("ADD of an address is not supported: {address}");
            return Err(Trouble::Step(crate::Error::new(crate::Kind::Unsupported, message)));
        }
        let exclude = words(&copy.exclude)?;
        let exclude = Ignore::from_patterns(exclude.iter().map(String::as_str))
            .map_err(|error| fault(step, format!("--exclude: {error}")))?;
        let mut selected = Vec::new();
        for source in &sources {
            selected.extend(tree.select(source, &exclude, copy.parents).map_err(|error| not_copied(&error))?);
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
        let owner = chown.as_deref().map(|text| self.owner(step, text, &full)).transpose()?;
        let mode = chmod.as_deref().map(Chmod::parse).transpose().map_err(|message| fault(step, message))?;
        let digest =
            tree.digest(&selected, &self.build.digests).map_err(Trouble::io("read the files to copy"))?;
        let base = if copy.link { Key::of("link") } else { Key::of(verb).with_all(self.chain()) };
        let key = base
            .with(digest)
            .with_all(texts.iter().flat_map(|(name, text)| [name.as_str(), text.as_str()]))
            .with(destination.as_os_str().as_encoded_bytes())
            .with([u8::from(into), u8::from(copy.is_add), u8::from(copy.unpack == Some(false))])
            .with(owner.map(|owner| format!("{}:{}", owner.uid, owner.gid)).unwrap_or_default())
            .with(chmod.as_deref().unwrap_or_default());
        let mut entry = verb.to_owned();
        for (flag, value) in [("chown", &chown), ("chmod", &chmod)] {
            if let Some(value) = value {
                entry.push_str(&format!(" --{flag}={value}"));
            }
        }
        sources.iter().for_each(|source| entry.push_str(&format!(" {source}")));
        texts.iter().for_each(|(name, _)| entry.push_str(&format!(" <<{name}")));
        entry.push_str(&format!(" {written} # buildkit"));
        let changes =
            Changes { owner, chmod: mode, keep_owners: tree.keeps_owners, replace_directories: false };
        Ok(Prepared { tree, sources: selected, texts, destination, into, lower, changes, key, entry })
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

    fn owner(&self, step: &Step, text: &str, stack: &Stack) -> Result<Owner, Trouble> {
        match (owner::find(text, stack), self.build.request.unknown_owners) {
            (Ok(owner), _) => Ok(owner),
            (Err(owner::OwnerError::Io(error)), _) => {
                Err(Trouble::io("read the image's passwd and group files")(error))
            }
            (Err(_), UnknownOwners::Root) => Ok(Owner::default()),
            (Err(error), UnknownOwners::Fail) => Err(fault(step, format!("--chown={text}: {error}"))),
        }
    }

    /// Makes the working directory and what is missing above it, for the current user.
    pub(super) fn make_workdir(&self, upper: &Path, path: &str, user: &str) -> Result<bool, Trouble> {
        let lower = Stack::of(self.build.lower(&self.config.rootfs.diff_ids));
        let owner = if user.is_empty() {
            Owner::default()
        } else {
            owner::find(user, &lower).map_err(|error| Trouble::invalid(format!("USER {user}: {error}")))?
        };
        let changes = Changes { owner: Some(owner), ..Changes::default() };
        let make = || -> io::Result<bool> {
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
    /// Writes the layer. Returns whether the files stayed as they were while they were copied.
    fn write(&self, upper: &Path, now: rustix::fs::Timespec, unpacks: bool) -> io::Result<bool> {
        let mut writer = Writer::new(upper, &self.lower, self.changes.clone(), now)?;
        for source in &self.sources {
            let is_file = source.entry.metadata.is_file();
            if unpacks
                && is_file
                && !self.tree.keeps_owners
                && let Some(archive) = archive::open(&source.entry.host)?
            {
                writer.replaces_directories(true);
                archive::unpack(archive, &mut writer, &self.destination, self.changes.owner)?;
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

fn is_address(source: &str) -> bool {
    ["http://", "https://", "git://", "git@", "ssh://"].iter().any(|scheme| source.starts_with(scheme))
}

fn not_copied(error: &SelectError) -> Trouble {
    let kind = match error {
        SelectError::Missing(_) | SelectError::Ignored(_) => crate::Kind::NotFound,
        SelectError::Pattern(..) => crate::Kind::Invalid,
        SelectError::Io(..) => crate::Kind::Failed,
    };
    Trouble::Step(crate::Error::new(kind, error.to_string()))
}
