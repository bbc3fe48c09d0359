//! `--squash`: all layers above the base become one, which changes what they change together.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::copy::{Changes, Writer};
use super::error::Trouble;
use super::execute::Build;
use super::stack::{Entry, Stack, is_opaque, is_whiteout};
use super::stage::Made;
use crate::id::{DiffId, Digest};
use crate::image::ImageConfig;
use crate::image::config::History;

/// The configuration of an image whose layers above the base are one. Its history tells what they were made by.
pub(super) fn squashed(build: &Build<'_>, made: &Made) -> Result<ImageConfig, Trouble> {
    let mut config = made.config.clone();
    let raw = serde_json::to_vec(&config)
        .map_err(|error| Trouble::io("write the configuration of the image")(error.into()))?;
    let diffs = config.rootfs.diff_ids.split_off(made.base.layers);
    if diffs.is_empty() {
        return Ok(made.config.clone());
    }
    let diff = merge(build, &config.rootfs.diff_ids, &diffs)?;
    config.rootfs.diff_ids.push(diff);
    config.history.iter_mut().skip(made.base.history).for_each(|entry| entry.empty_layer = true);
    let id = Digest::of(&raw);
    let comment = match &made.base.id {
        Some(base) => format!("merge {id} to {base}"),
        None => format!("create new from {id}"),
    };
    config.history.push(History {
        created: config.created.clone(),
        comment: Some(comment),
        ..History::default()
    });
    Ok(config)
}

/// One layer on top of `below` that changes what these change together, lowest first.
fn merge(build: &Build<'_>, below: &[DiffId], diffs: &[DiffId]) -> Result<DiffId, Trouble> {
    let scratch = build.scratch()?;
    let upper = scratch.path().join("upper");
    let lower = Stack::of(build.lower(below));
    let write = || -> io::Result<()> {
        fs::create_dir(&upper)?;
        let changes = Changes { keep_owners: true, replace_directories: true, ..Changes::default() };
        let mut writer = Writer::new(&upper, &lower, changes, build.now)?;
        for diff in diffs {
            lay(&mut writer, &build.layers.dir(diff), Path::new(""), &mut HashMap::new())?;
        }
        writer.finish().map(drop)
    };
    write().map_err(Trouble::io("put the layers together"))?;
    Ok(build.layers.adopt(&upper)?)
}

/// Puts one directory of a layer on top of what is there.
fn lay(
    writer: &mut Writer<'_>,
    layer: &Path,
    path: &Path,
    links: &mut HashMap<(u64, u64), PathBuf>,
) -> io::Result<()> {
    let directory = layer.join(path);
    if let Some(entry) = Entry::alone(directory.clone())? {
        writer.lay_directory(path, &entry, is_opaque(&directory))?;
    }
    let mut names =
        fs::read_dir(&directory)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
    names.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    for name in names {
        let path = path.join(name);
        let Some(entry) = Entry::alone(layer.join(&path))? else { continue };
        if entry.metadata.is_dir() {
            lay(writer, layer, &path, links)?;
        } else if is_whiteout(&entry.metadata) {
            writer.hide(&path)?;
        } else {
            writer.place(&path, &entry, links)?;
        }
    }
    Ok(())
}
