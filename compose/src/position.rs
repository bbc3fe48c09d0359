//! Where a key or value stands in its file. Asked only when something is wrong, so loading carries no positions.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::path::PathBuf;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, SpannedEventReceiver};

use crate::diagnostic::Place;
use crate::value::{Path, Step};

/// A file that was read, and where things are in it.
#[derive(Debug)]
pub(crate) struct Source {
    /// Its name, as shown.
    pub(crate) name: PathBuf,
    /// Its text.
    pub(crate) text: String,
    index: OnceCell<Option<Index>>,
    /// The offset at which each line begins.
    lines: OnceCell<Vec<usize>>,
}

/// The files of a project, in the order they were read.
#[derive(Debug, Default)]
pub(crate) struct Sources(pub(crate) Vec<Source>);

/// Which part of an entry is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// Its key.
    Key,
    /// Its value.
    Value,
}

/// A syntax error: what, and where.
#[derive(Debug, Clone)]
pub(crate) struct SyntaxError {
    /// What is wrong.
    pub(crate) message: String,
    /// Where.
    pub(crate) place: Place,
}

/// A key that stands twice in one mapping.
#[derive(Debug, Clone)]
pub(crate) struct Duplicate {
    /// The mapping and the key in it.
    pub(crate) path: Path,
    /// Where it stands first.
    pub(crate) first: Place,
    /// Where it stands again.
    pub(crate) second: Place,
}

#[derive(Debug, Clone, Copy)]
struct Extent {
    line: usize,
    column: usize,
    end_line: usize,
    end_column: usize,
}

#[derive(Debug)]
struct Node {
    extent: Extent,
    anchor: usize,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Scalar { text: String, plain: bool },
    List(Vec<Node>),
    Map(Entries),
    Alias(usize),
}

/// The entries of a mapping in their order. In a large one they are found by key without looking at each.
#[derive(Debug)]
struct Entries {
    pairs: Vec<(Node, Node)>,
    by_key: HashMap<String, usize>,
}

/// The nodes of a file by document, and which node an anchor is.
#[derive(Debug, Default)]
struct Index {
    documents: Vec<Node>,
    anchors: HashMap<usize, Vec<usize>>,
}

// === impl Sources ===

impl Sources {
    /// The last place that says something about a path, or about the nearest thing above it.
    pub(crate) fn locate(&self, path: &Path, part: Part) -> Option<Place> {
        let mut path = path.clone();
        loop {
            for source in self.0.iter().rev() {
                for number in (0..source.documents()).rev() {
                    let place = source.exact_place(number, &path, part);
                    if place.is_some() {
                        return place;
                    }
                }
            }
            path.0.pop()?;
        }
    }
}

// === impl Source ===

impl Source {
    /// A file of this name with this text.
    pub(crate) fn new(name: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        let text: String = text.into();
        let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
        Self { name: name.into(), text, index: OnceCell::new(), lines: OnceCell::new() }
    }

    /// Where a part of the entry at a path is: the entry itself, or the nearest one above it that stands there.
    pub(crate) fn place(&self, document: usize, path: &Path, part: Part) -> Option<Place> {
        let (extent, _) = self.find(document, path, part)?;
        Some(self.place_of(extent))
    }

    /// As [`Source::place`], but only if the entry itself stands in this file.
    pub(crate) fn exact_place(&self, document: usize, path: &Path, part: Part) -> Option<Place> {
        let (extent, missing) = self.find(document, path, part)?;
        (missing == 0).then(|| self.place_of(extent))
    }

    /// As [`Source::place`], narrowed to where `needle` stands in the value.
    pub(crate) fn place_inside(&self, document: usize, path: &Path, needle: &str) -> Option<Place> {
        let (extent, _) = self.find(document, path, Part::Value)?;
        let lines =
            self.text.lines().enumerate().skip(extent.line - 1).take(extent.end_line + 1 - extent.line);
        for (index, line) in lines {
            let skip = if index + 1 == extent.line { extent.column - 1 } else { 0 };
            let from = line.char_indices().nth(skip).map_or(line.len(), |(at, _)| at);
            if let Some(at) = line[from..].find(needle) {
                let column = line[..from + at].chars().count() + 1;
                let width = needle.chars().count();
                return Some(self.place_at(index + 1, column, width));
            }
        }
        Some(self.place_of(extent))
    }

    /// Whether the scalar at a path is written without quotes.
    pub(crate) fn is_plain(&self, document: usize, path: &Path) -> bool {
        let Some(index) = self.index() else { return false };
        let Some((_, node, 0)) = index.walk(document, path) else { return false };
        matches!(index.resolve(node), Some(Node { content: Content::Scalar { plain: true, .. }, .. }))
    }

    /// How many documents with content it has.
    pub(crate) fn documents(&self) -> usize {
        self.index().map_or(0, |index| index.documents.len())
    }

    /// A place by line and column.
    pub(crate) fn place_at(&self, line: usize, column: usize, width: usize) -> Place {
        let starts = self.lines.get_or_init(|| {
            let breaks = self.text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
            std::iter::once(0).chain(breaks.map(|(at, _)| at + 1)).collect()
        });
        let rest = starts.get(line.saturating_sub(1)).map_or("", |start| &self.text[*start..]);
        let excerpt = rest.lines().next().unwrap_or_default().to_owned();
        Place { file: self.name.clone(), line, column, width: width.max(1), excerpt }
    }

    /// What the second parser says is wrong with the syntax, if anything.
    pub(crate) fn syntax_error(&self) -> Option<SyntaxError> {
        let error = build(&self.text).err()?;
        let marker = error.marker();
        Some(SyntaxError {
            message: error.info().to_owned(),
            place: self.place_at(marker.line(), marker.col() + 1, 1),
        })
    }

    /// The alias that makes the file larger than anybody writes: the first one that stands for this many nodes.
    pub(crate) fn heaviest_alias(&self) -> Option<Place> {
        const MANY: u64 = 10_000;
        let mut weights = HashMap::new();
        let mut heavy = None;
        for document in &self.index()?.documents {
            weigh(document, &mut weights, &mut |extent, weight| {
                if weight > MANY {
                    heavy.get_or_insert(extent);
                }
            });
        }
        heavy.map(|extent| self.place_of(extent))
    }

    /// Every key that stands twice in one mapping.
    pub(crate) fn duplicates(&self) -> Vec<Duplicate> {
        let mut found = Vec::new();
        for document in self.index().map_or(&[][..], |index| &index.documents) {
            self.collect_duplicates(document, &Path::default(), &mut found);
        }
        found
    }

    fn collect_duplicates(&self, node: &Node, path: &Path, found: &mut Vec<Duplicate>) {
        match &node.content {
            Content::Map(entries) => {
                let mut seen: HashMap<&str, Extent> = HashMap::new();
                for (key, value) in &entries.pairs {
                    let Content::Scalar { text, .. } = &key.content else { continue };
                    let path = path.key(text);
                    if text != "<<" {
                        if let Some(first) = seen.get(text.as_str()) {
                            found.push(Duplicate {
                                path: path.clone(),
                                first: self.place_of(*first),
                                second: self.place_of(key.extent),
                            });
                        } else {
                            seen.insert(text, key.extent);
                        }
                    }
                    self.collect_duplicates(value, &path, found);
                }
            }
            Content::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.collect_duplicates(item, &path.index(index), found);
                }
            }
            Content::Scalar { .. } | Content::Alias(_) => {}
        }
    }

    fn find(&self, document: usize, path: &Path, part: Part) -> Option<(Extent, usize)> {
        let (key, node, missing) = self.index()?.walk(document, path)?;
        // An entry that is not there is shown by the key of the nearest one above it.
        let by_key = part == Part::Key || missing > 0 || node.extent.is_empty();
        let extent = if by_key { key.unwrap_or(node).extent } else { node.extent };
        Some((extent, missing))
    }

    fn place_of(&self, extent: Extent) -> Place {
        let mut place = self.place_at(extent.line, extent.column, 1);
        place.width = if extent.end_line == extent.line {
            extent.end_column.saturating_sub(extent.column).max(1)
        } else {
            place.excerpt.trim_end().chars().count().saturating_sub(extent.column - 1).max(1)
        };
        place
    }

    fn index(&self) -> Option<&Index> {
        self.index.get_or_init(|| build(&self.text).ok()).as_ref()
    }
}

/// How many nodes a node stands for once its aliases are followed. Anchors stand before their aliases.
fn weigh(node: &Node, weights: &mut HashMap<usize, u64>, each_alias: &mut dyn FnMut(Extent, u64)) -> u64 {
    let weight = match &node.content {
        Content::Scalar { .. } => 1,
        Content::List(items) => {
            items.iter().fold(1, |sum: u64, item| sum.saturating_add(weigh(item, weights, each_alias)))
        }
        Content::Map(entries) => entries.pairs.iter().fold(1, |sum: u64, (key, value)| {
            sum.saturating_add(weigh(key, weights, each_alias))
                .saturating_add(weigh(value, weights, each_alias))
        }),
        Content::Alias(anchor) => {
            let weight = weights.get(anchor).copied().unwrap_or(1);
            each_alias(node.extent, weight);
            weight
        }
    };
    weights.insert(node.anchor, weight);
    weight
}

// === impl Extent ===

impl Extent {
    fn of(span: Span) -> Self {
        Self {
            line: span.start.line(),
            column: span.start.col() + 1,
            end_line: span.end.line(),
            end_column: span.end.col() + 1,
        }
    }

    fn is_empty(self) -> bool {
        (self.line, self.column) == (self.end_line, self.end_column)
    }
}

// === impl Index ===

impl Index {
    /// The node a path leads to with the key it stands under, and how many steps of the path lead nowhere.
    fn walk(&self, document: usize, path: &Path) -> Option<(Option<&Node>, &Node, usize)> {
        let mut node = self.documents.get(document)?;
        let mut key = None;
        for (done, step) in path.0.iter().enumerate() {
            let Some((next_key, next)) = self.step(node, step) else {
                return Some((key, node, path.0.len() - done));
            };
            // An item of a list has no key: its own place is the best there is.
            key = next_key.or(Some(next));
            node = next;
        }
        Some((key, node, 0))
    }

    fn step<'a>(&'a self, node: &'a Node, step: &Step) -> Option<(Option<&'a Node>, &'a Node)> {
        let node = self.resolve(node)?;
        match (&node.content, step) {
            (Content::List(items), Step::Index(index)) => items.get(*index).map(|item| (None, item)),
            // The short form of a mapping: a list of names, or of `name=value`.
            (Content::List(items), Step::Key(wanted)) => items
                .iter()
                .find(|item| match &item.content {
                    Content::Scalar { text, .. } => text
                        .strip_prefix(wanted.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['=', ':'])),
                    _ => false,
                })
                .map(|item| (None, item)),
            (Content::Map(entries), step) => {
                let Step::Key(wanted) = step else { return None };
                entries
                    .find(wanted)
                    .map(|(key, value)| (Some(key), value))
                    .or_else(|| self.step_through_merge(entries, step))
            }
            _ => None,
        }
    }

    fn step_through_merge<'a>(
        &'a self,
        entries: &'a Entries,
        step: &Step,
    ) -> Option<(Option<&'a Node>, &'a Node)> {
        let (_, merged) = entries.find("<<")?;
        match &self.resolve(merged)?.content {
            Content::List(bases) => bases.iter().find_map(|base| self.step(base, step)),
            _ => self.step(merged, step),
        }
    }

    fn resolve<'a>(&'a self, node: &'a Node) -> Option<&'a Node> {
        match node.content {
            Content::Alias(anchor) => {
                let route = self.anchors.get(&anchor)?;
                let (first, rest) = route.split_first()?;
                let target =
                    rest.iter().try_fold(self.documents.get(*first)?, |node, child| match &node.content {
                        Content::List(items) => items.get(*child),
                        Content::Map(entries) => {
                            let (key, value) = entries.pairs.get(child / 2)?;
                            Some(if child % 2 == 0 { key } else { value })
                        }
                        _ => None,
                    })?;
                self.resolve(target)
            }
            _ => Some(node),
        }
    }
}

impl Entries {
    /// From how many entries on there is a table of their keys.
    const MANY: usize = 16;

    fn of(pairs: Vec<(Node, Node)>) -> Self {
        let mut by_key = HashMap::new();
        if pairs.len() > Self::MANY {
            for (position, (key, _)) in pairs.iter().enumerate() {
                if let Some(text) = key.text() {
                    by_key.entry(text.to_owned()).or_insert(position);
                }
            }
        }
        Self { pairs, by_key }
    }

    /// The first entry with this key.
    fn find(&self, wanted: &str) -> Option<&(Node, Node)> {
        if self.pairs.len() > Self::MANY {
            return self.pairs.get(*self.by_key.get(wanted)?);
        }
        self.pairs.iter().find(|(key, _)| key.text() == Some(wanted))
    }
}

impl Node {
    fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }
}

// === building ===

/// Collects events into nodes.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    documents: Vec<Node>,
}

struct Open {
    extent: Extent,
    anchor: usize,
    is_map: bool,
    children: Vec<Node>,
}

impl<'input> SpannedEventReceiver<'input> for Builder {
    fn on_event(&mut self, event: Event<'input>, span: Span) {
        let extent = Extent::of(span);
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let content = Content::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain };
                self.close(Node { extent, anchor, content });
            }
            Event::Alias(anchor) => self.close(Node { extent, anchor: 0, content: Content::Alias(anchor) }),
            Event::SequenceStart(anchor, _) => {
                self.open.push(Open { extent, anchor, is_map: false, children: Vec::new() });
            }
            Event::MappingStart(anchor, _) => {
                self.open.push(Open { extent, anchor, is_map: true, children: Vec::new() });
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return };
                let content = if open.is_map {
                    let mut children = open.children.into_iter();
                    let mut pairs = Vec::new();
                    while let (Some(key), Some(value)) = (children.next(), children.next()) {
                        pairs.push((key, value));
                    }
                    Content::Map(Entries::of(pairs))
                } else {
                    Content::List(open.children)
                };
                self.close(Node { extent: open.extent, anchor: open.anchor, content });
            }
            _ => {}
        }
    }
}

impl Builder {
    fn close(&mut self, node: Node) {
        match self.open.last_mut() {
            Some(open) => open.children.push(node),
            None => self.documents.push(node),
        }
    }
}

fn build(text: &str) -> Result<Index, saphyr_parser::ScanError> {
    let mut builder = Builder::default();
    Parser::new_from_str(text).load(&mut builder, true)?;
    let mut index = Index { documents: builder.documents, anchors: HashMap::new() };
    let mut anchors = HashMap::new();
    for (position, document) in index.documents.iter().enumerate() {
        collect_anchors(document, &mut vec![position], &mut anchors);
    }
    index.anchors = anchors;
    Ok(index)
}

fn collect_anchors(node: &Node, route: &mut Vec<usize>, anchors: &mut HashMap<usize, Vec<usize>>) {
    if node.anchor != 0 {
        anchors.insert(node.anchor, route.clone());
    }
    let mut visit = |child: usize, node: &Node| {
        route.push(child);
        collect_anchors(node, route, anchors);
        route.pop();
    };
    match &node.content {
        Content::List(items) => items.iter().enumerate().for_each(|(child, item)| visit(child, item)),
        Content::Map(entries) => entries.pairs.iter().enumerate().for_each(|(child, (key, value))| {
            visit(child * 2, key);
            visit(child * 2 + 1, value);
        }),
        Content::Scalar { .. } | Content::Alias(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, path: &Path, part: Part) -> (usize, usize, usize) {
        let place = Source::new("f", text).place(0, path, part).unwrap();
        (place.line, place.column, place.width)
    }

    #[test]
    fn keys_values_and_items_are_found() {
        let text = "services:\n  web:\n    image: nginx\n    ports:\n      - \"80:80\"\n";
        let image = Path::keys(&["services", "web", "image"]);
        assert_eq!(at(text, &image, Part::Key), (3, 5, 5));
        assert_eq!(at(text, &image, Part::Value), (3, 12, 5));
        assert_eq!(at(text, &Path::keys(&["services", "web", "ports"]).index(0), Part::Value), (5, 9, 7));
    }

    #[test]
    fn what_is_not_there_is_shown_by_what_is_above_it() {
        let text = "services:\n  web: {}\n";
        assert_eq!(at(text, &Path::keys(&["services", "web", "image"]), Part::Value), (2, 3, 3));
    }

    #[test]
    fn aliases_and_merge_keys_lead_to_where_the_value_stands() {
        let text = "x: &x {image: a}\nservices:\n  web:\n    <<: *x\n  two: *x\n";
        assert_eq!(at(text, &Path::keys(&["services", "web", "image"]), Part::Value), (1, 15, 1));
        assert_eq!(at(text, &Path::keys(&["services", "two", "image"]), Part::Value), (1, 15, 1));
    }

    #[test]
    fn a_key_that_stands_twice_is_found_with_both_places() {
        let found = Source::new("f", "a:\n  b: 1\n  c: 2\n  b: 3\n").duplicates();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].first.line, found[0].second.line), (2, 4));
        assert_eq!(found[0].path.to_string(), "a.b");
    }
}
