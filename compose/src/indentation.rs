//! What to do about a line that begins too far left or too far right: the parser says only that it expected something
//! else.

/// A line that holds something, with how far it is indented.
struct Line<'a> {
    number: usize,
    indent: usize,
    text: &'a str,
}

/// What to do about the indentation of a line, from 1, when that is what is wrong with it.
pub(crate) fn advice(text: &str, number: usize) -> Option<String> {
    let written = text.lines().nth(number.checked_sub(1)?)?;
    if written.chars().take_while(|c| c.is_whitespace()).any(|c| c == '\t') {
        return Some("YAML is indented with spaces: write spaces instead of the tab".to_owned());
    }
    let lines: Vec<Line<'_>> = lines(text).collect();
    let place = lines.iter().position(|line| line.number == number)?;
    let wrong = &lines[place];
    let above = open_above(&lines[..place]);
    if above.iter().any(|line| line.indent == wrong.indent) {
        return None;
    }
    match above.iter().find(|line| line.indent > wrong.indent) {
        Some(neighbour) => Some(between(&lines, wrong, neighbour, parent(&above, wrong))),
        None => below_a_value(above.last()?, wrong),
    }
}

fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.lines().enumerate().filter_map(|(index, written)| {
        let text = written.trim_start_matches(' ');
        let holds = !text.trim().is_empty() && !text.starts_with('#');
        holds.then(|| Line { number: index + 1, indent: written.len() - text.len(), text })
    })
}

/// The last line and all that it belongs to, outermost first: what a line could belong to or stand beside.
fn open_above<'a>(lines: &'a [Line<'a>]) -> Vec<&'a Line<'a>> {
    let mut open: Vec<&Line<'_>> = Vec::new();
    for line in lines {
        open.retain(|above| above.indent < line.indent);
        open.push(line);
    }
    open
}

fn parent<'a>(above: &[&'a Line<'a>], wrong: &Line<'_>) -> Option<&'a Line<'a>> {
    above.iter().rev().find(|line| line.indent < wrong.indent).copied()
}

/// It is further left than what it stands beside and further right than what that belongs to.
fn between(lines: &[Line<'_>], wrong: &Line<'_>, neighbour: &Line<'_>, parent: Option<&Line<'_>>) -> String {
    let (has, needs) = (wrong.indent, neighbour.indent);
    let under = parent.map(|line| format!(" under {:?}", key(line.text))).unwrap_or_default();
    let also: Vec<String> = lines
        .iter()
        .filter(|line| line.number > wrong.number && line.indent == has && key(line.text) != line.text)
        .map(|line| line.number.to_string())
        .collect();
    let also = match also.as_slice() {
        [] => String::new(),
        [one] => format!("; so does line {one}"),
        [some @ .., last] => format!("; so do lines {} and {last}", some.join(", ")),
    };
    format!(
        "line {} begins with {}, and {:?} in line {} beside it{under} with {needs}: indent it, and all that belongs to it, by {} more{also}",
        wrong.number,
        spaces(has),
        key(neighbour.text),
        neighbour.number,
        needs - has,
    )
}

/// It is further right than the line above, which has a value already.
fn below_a_value(above: &Line<'_>, wrong: &Line<'_>) -> Option<String> {
    let has_value = above.text.split_once(": ").is_some_and(|(_, value)| !value.trim().is_empty());
    (wrong.indent > above.indent && has_value && !wrong.text.starts_with('-')).then(|| {
        format!(
            "line {} begins with {}, and {:?} in line {} with {}; that has a value and holds nothing else: indent both alike",
            wrong.number,
            spaces(wrong.indent),
            key(above.text),
            above.number,
            above.indent,
        )
    })
}

/// The key of a line, or all of it.
fn key(text: &str) -> &str {
    let text = text.trim_end();
    let text = text.strip_prefix("- ").unwrap_or(text);
    text.split_once(": ").map_or_else(|| text.strip_suffix(':').unwrap_or(text), |(key, _)| key)
}

fn spaces(count: usize) -> String {
    match count {
        0 => "no space".to_owned(),
        1 => "1 space".to_owned(),
        _ => format!("{count} spaces"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_too_far_left_is_told_what_it_stands_beside() {
        let text = "services:\n  a:\n    image: box\n b:\n   image: box\n c: {}\n";
        let said = advice(text, 4).unwrap();
        assert!(said.contains("line 4 begins with 1 space, and \"a\" in line 2"), "{said}");
        assert!(said.contains("under \"services\" with 2"), "{said}");
        assert!(said.contains("by 1 more; so does line 6"), "{said}");
    }

    #[test]
    fn a_line_too_far_right_is_told_what_it_cannot_belong_to() {
        let said = advice("services:\n  a:\n    image: box\n      init: true\n", 4).unwrap();
        assert!(said.contains("begins with 6 spaces, and \"image\" in line 3 with 4"), "{said}");
    }

    #[test]
    fn tabs_are_named_and_other_mistakes_left_alone() {
        assert!(advice("a:\n\tb: 1\n", 2).unwrap().contains("tab"));
        assert_eq!(advice("a: 1\nb: [\n", 2), None);
    }
}
