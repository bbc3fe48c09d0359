//! Why a step was not cached: what it depended on the last time, compared with now.

use std::collections::HashMap;

use super::cache::{Key, Parts};
use super::execute::Message;
use super::instruction::Step;
use super::report::Work;
use super::stage::StageRun;

/// What the layers below are called.
pub(crate) const BELOW: &str = "the layers below";

/// How many changes are named.
const MOST: usize = 5;

/// How many parts are remembered of a step: a copy of more files than this is explained without them.
const MOST_PARTS: usize = 20_000;

// === impl StageRun ===

impl StageRun<'_> {
    /// Remembers what a step depends on that is made now, and says what has changed if that was asked for.
    pub(super) fn explain(&self, step: &Step, key: &Key, work: &Work<Message>, details: &dyn Fn() -> Parts) {
        let mut parts: Parts = vec![("the instruction".to_owned(), step.code.clone())];
        parts.extend(key.parts().iter().cloned());
        parts.extend(details());
        parts.truncate(MOST_PARTS);
        let place = self.place();
        if self.build.request.explain {
            let reason = if self.build.uses_cache(self.planned.name.as_deref()) {
                reason(self.build.cache.last(&place).as_ref(), &parts)
            } else {
                "the cache is not used".to_owned()
            };
            work.note(format!("not cached: {reason}"));
        }
        self.build.cache.remember(&place, &parts);
    }

    /// Which step of which Dockerfile and context this is.
    pub(super) fn place(&self) -> String {
        format!("{} {} {}", self.build.place, self.planned.title, self.step)
    }
}

/// What has changed, for people. The layers below change with every step before, so they are named only when
/// nothing else has.
fn reason(before: Option<&Parts>, now: &Parts) -> String {
    let Some(before) = before else { return "this step is built for the first time".to_owned() };
    let known: HashMap<&str, &str> = pairs(before).collect();
    let there: HashMap<&str, &str> = pairs(now).collect();
    let mut changes = Vec::new();
    for (name, value) in pairs(now) {
        match known.get(name) {
            Some(before) if *before == value => {}
            Some(_) => changes.push(format!("{name} changed")),
            None => changes.push(format!("{name} is new")),
        }
    }
    let gone = pairs(before).filter(|(name, _)| !there.contains_key(name));
    changes.extend(gone.map(|(name, _)| format!("{name} is gone")));
    let below = format!("{BELOW} changed");
    if changes.len() > 1 {
        changes.retain(|change| *change != below);
    }
    // The names of files say more than that there are other files.
    if changes.len() > 1 {
        changes.retain(|change| change != "the files changed");
    }
    if changes.is_empty() {
        return "the layer it made is not here any more".to_owned();
    }
    let more = changes.len().saturating_sub(MOST);
    changes.truncate(MOST);
    let mut text = changes.join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

fn pairs(parts: &Parts) -> impl Iterator<Item = (&str, &str)> {
    parts.iter().map(|(name, value)| (name.as_str(), value.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_is_named() {
        let parts = |list: &[(&str, &str)]| -> Parts {
            list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let before = parts(&[(BELOW, "1"), ("the files", "1"), ("a.txt", "1"), ("b.txt", "1")]);
        let now = parts(&[(BELOW, "2"), ("the files", "2"), ("a.txt", "2"), ("c.txt", "1")]);
        assert_eq!(reason(Some(&before), &now), "a.txt changed, c.txt is new, b.txt is gone");
        assert_eq!(reason(Some(&before), &before), "the layer it made is not here any more");
        let below = parts(&[(BELOW, "2"), ("the files", "1"), ("a.txt", "1"), ("b.txt", "1")]);
        assert_eq!(reason(Some(&before), &below), "the layers below changed");
        assert_eq!(reason(None, &now), "this step is built for the first time");
    }
}
