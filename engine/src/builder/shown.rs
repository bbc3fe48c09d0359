//! What `RUN --mount=type=bind` shows: the files themselves where they are just what the command is to see, a layer
//! made of them where they are not, and a copy where they may be written.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::cache::Key;
use super::context::{Selected, Tree};
use super::copy::{Changes, Writer, Written};
use super::error::Trouble;
use super::predecessor::Predecessor;
use super::run::{Held, bind};
use super::stack::Stack;
use super::stage::StageRun;
use crate::container::spec::MountSource;

/// What the files are called in the layer or directory that is made of them.
const NAME: &str = "files";

// === impl StageRun ===

impl StageRun<'_> {
    /// What a mount of these files shows.
    pub(super) fn shown(
        &self,
        tree: &Tree,
        selected: &[Selected],
        read_only: bool,
        held: &mut Held,
    ) -> Result<MountSource, Trouble> {
        let Some(source) = selected.first() else {
            return Err(Trouble::invalid("--mount: nothing to mount"));
        };
        if !read_only {
            return self.shown_copy(tree, source, held).map(bind);
        }
        if !is_exact(tree, source) {
            return self.shown_layer(tree, selected, source).map(bind);
        }
        Ok(match source.entry.single() {
            Some(host) => bind(host.to_owned()),
            None => MountSource::Image {
                image: "a build's".to_owned(),
                lower: source.entry.parts().to_owned(),
                subpath: None,
            },
        })
    }

    /// A copy that the command may write and nobody sees afterwards.
    fn shown_copy(&self, tree: &Tree, source: &Selected, held: &mut Held) -> Result<PathBuf, Trouble> {
        let room = self.build.scratch()?;
        let directory = room.path().join("shown");
        let copy = || -> io::Result<()> {
            fs::create_dir(&directory)?;
            self.write_shown(&directory, tree, source, None).map(drop)
        };
        copy().map_err(Trouble::io("copy the files to mount"))?;
        held.directories.push(room);
        Ok(directory.join(NAME))
    }

    /// A layer of files that belong to root and without those that are ignored. The builder keeps it, and of the next
    /// one only what has changed is written.
    fn shown_layer(&self, tree: &Tree, selected: &[Selected], source: &Selected) -> Result<PathBuf, Trouble> {
        let build = self.build;
        let digest = tree.digest(selected, &build.digests).map_err(Trouble::io("read the files to mount"))?;
        let key = Key::of("mount").named("the files", digest);
        let _claim = build.cache.claim(&key)?;
        if let Some(record) = build.cache.find(&key) {
            return Ok(build.layers.dir(&record.diff).join(NAME));
        }
        let began = SystemTime::now();
        let place = format!("{} {}", build.place, source.entry.host.display());
        let before = build.cache.last_layer(&place);
        let before = before.and_then(|diff| Predecessor::of(&build.layers, &diff, &build.digests, None));
        let scratch = build.scratch()?;
        let upper = scratch.path().join("upper");
        fs::create_dir(&upper).map_err(Trouble::io("make a layer's directory"))?;
        let written = self.write_shown(&upper, tree, source, before);
        let Written { is_steady, known } = written.map_err(Trouble::io("copy the files to mount"))?;
        let diff = build.layers.adopt_known(&upper, &known)?;
        build.cache.remember_layer(&place, &diff);
        if is_steady {
            build.cache.keep(&key, &diff, &build.date(), "RUN --mount=type=bind", began)?;
        }
        Ok(build.layers.dir(&diff).join(NAME))
    }

    fn write_shown(
        &self,
        upper: &Path,
        tree: &Tree,
        source: &Selected,
        before: Option<Predecessor<'_>>,
    ) -> io::Result<Written> {
        let changes = Changes { keep_owners: tree.keeps_owners, ..Changes::default() };
        let mut writer = Writer::new(upper, &Stack::of(Vec::new()), changes, self.build.now)?;
        writer.follow(before);
        writer.copy(source, &Path::new("/").join(NAME), false)?;
        let written = writer.finish()?;
        let metadata = &source.entry.metadata;
        if metadata.is_dir() && source.name.is_some() {
            // What is in a directory is copied, and here it is mounted itself.
            fs::set_permissions(upper.join(NAME), fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
        }
        Ok(written)
    }
}

/// Whether the files are as the command is to see them where they are. Those of the host belong to root in a build,
/// whoever has them here: git refuses others' repositories, and a user of the image cannot read what is its owner's.
fn is_exact(tree: &Tree, source: &Selected) -> bool {
    let mut entries = std::iter::once(&source.entry).chain(source.nodes.iter().map(|node| &node.entry));
    let is_roots = |uid: u32, gid: u32| uid == 0 && gid == 0;
    tree.keeps_owners
        || (tree.ignore.is_empty()
            && entries.all(|entry| is_roots(entry.metadata.uid(), entry.metadata.gid())))
}
