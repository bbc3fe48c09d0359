//! `images --tree`: names with the images for each platform below them.

use std::collections::{BTreeMap, BTreeSet};

use super::list::ListArgs;
use crate::cli::output;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::id::ImageId;
use crate::image::{Image, Reference};
use crate::quantity::ByteSize;

/// Names that mean the same images.
struct Top {
    names: Vec<String>,
    images: Vec<Image>,
}

/// A line: its name, and what stands in the columns.
struct Line {
    name: String,
    cells: Option<[String; 4]>,
}

const HEAD: [&str; 4] = ["ID", "DISK USAGE", "CONTENT SIZE", "EXTRA"];

/// The narrowest that each column is, and whether it stands to the right.
const COLUMNS: [(usize, bool); 4] = [(12, false), (10, true), (12, true), (5, false)];

/// What stands for an image that a container was made of.
const IN_USE: &str = "U";

/// Lists these images as a tree.
pub(super) fn list(
    engine: &Engine,
    args: &ListArgs,
    images: &[Image],
    is_meant: &dyn Fn(&Reference) -> bool,
    shows_untagged: bool,
) -> Result<u8> {
    for (is_given, flag) in
        [(args.quiet, "--quiet"), (args.no_trunc, "--no-trunc"), (args.digests, "--digests")]
    {
        if is_given {
            return Err(Error::invalid(format!("{flag} and --tree do not go together")));
        }
    }
    if args.format.is_some() {
        return Err(Error::invalid("--format and --tree do not go together"));
    }
    let used: BTreeSet<ImageId> =
        engine.containers()?.iter().map(|container| container.image().clone()).collect();
    let mut lines = vec![Line { name: "IMAGE".to_owned(), cells: Some(HEAD.map(str::to_owned)) }];
    for (at, top) in tops(engine, images, is_meant, shows_untagged)?.iter().enumerate() {
        if at > 0 {
            lines.push(Line { name: String::new(), cells: None });
        }
        lines.extend(top.lines(engine, &used)?);
    }
    print(&lines);
    Ok(0)
}

/// The images by the names that mean them, in the order of the images.
fn tops(
    engine: &Engine,
    images: &[Image],
    is_meant: &dyn Fn(&Reference) -> bool,
    shows_untagged: bool,
) -> Result<Vec<Top>> {
    let mut tops: Vec<Top> = Vec::new();
    let mut at: BTreeMap<Vec<ImageId>, usize> = BTreeMap::new();
    for image in images {
        let mut names: Vec<&Reference> = image.references.iter().filter(|name| is_meant(name)).collect();
        let is_nameless = image.references.is_empty() && image.part_of.is_empty();
        names.extend(image.digests.iter().filter(|name| is_nameless && is_meant(name)));
        if names.is_empty() && is_nameless && image.digests.is_empty() && shows_untagged {
            tops.push(Top { names: vec!["<untagged>".to_owned()], images: vec![image.clone()] });
        }
        for name in names {
            let members = engine.images().members(name)?;
            let ids = members.iter().map(|member| member.id.clone()).collect();
            let place = *at.entry(ids).or_insert_with(|| {
                tops.push(Top { names: Vec::new(), images: members });
                tops.len() - 1
            });
            tops[place].names.push(name.to_string());
        }
    }
    Ok(tops)
}

// === impl Top ===

impl Top {
    fn lines(&self, engine: &Engine, used: &BTreeSet<ImageId>) -> Result<Vec<Line>> {
        let mut children = Vec::new();
        let (mut total, mut content, mut is_used) = (0, 0, false);
        for (at, image) in self.images.iter().enumerate() {
            let sizes = (image.size, engine.images().content_size(image)?);
            let branch = if at + 1 == self.images.len() { "└─" } else { "├─" };
            let name = format!("{branch} {}", image.platform());
            let uses = used.contains(&image.id);
            children.push(Line { name, cells: Some(cells(image, sizes, uses)) });
            total += sizes.0;
            content += sizes.1;
            is_used |= uses;
        }
        let mut lines: Vec<Line> =
            self.names.iter().map(|name| Line { name: name.clone(), cells: None }).collect();
        if let (Some(last), Some(first)) = (lines.last_mut(), self.images.first()) {
            last.cells = Some(cells(first, (total, content), is_used));
        }
        lines.append(&mut children);
        Ok(lines)
    }
}

fn cells(image: &Image, (unpacked, content): (u64, u64), is_used: bool) -> [String; 4] {
    let usage = ByteSize(unpacked + content).to_string();
    let mark = if is_used { IN_USE } else { "" };
    [image.id.short().to_owned(), usage, ByteSize(content).to_string(), mark.to_owned()]
}

fn print(lines: &[Line]) {
    let width = |text: &str| text.chars().count();
    let first = lines.iter().map(|line| width(&line.name)).max().unwrap_or(0);
    for line in lines {
        let mut text = line.name.clone();
        if let Some(cells) = &line.cells {
            text.push_str(&" ".repeat(first - width(&line.name)));
            for (cell, (least, is_right)) in cells.iter().zip(COLUMNS) {
                let cell = if is_right { format!("{cell:>least$}") } else { format!("{cell:<least$}") };
                text.push_str("   ");
                text.push_str(&cell);
            }
        }
        output::line(text.trim_end());
    }
}
