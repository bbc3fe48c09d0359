//! The order of keys in YAML that Go writes: by letters, and by what numbers in them amount to (`s2` before `s10`).

use std::cmp::Ordering;

use serde_json::{Map, Value as Json};

/// The entries in that order. Keys that are in no alphabetical order have one of their own and stay in it.
pub(super) fn sorted(map: &Map<String, Json>) -> Vec<(&String, &Json)> {
    let entries: Vec<(&String, &Json)> = map.iter().collect();
    if !entries.is_sorted_by_key(|(key, _)| *key) {
        return entries;
    }
    // The order has circles, with which a sort of the standard library may end the program.
    let mut found: Vec<(&String, &Json)> = Vec::with_capacity(entries.len());
    for entry in entries {
        let at = found.partition_point(|(key, _)| compare(key, entry.0) != Ordering::Greater);
        found.insert(at, entry);
    }
    found
}

/// As yaml.v3 compares keys (sorter.go).
fn compare(a: &str, b: &str) -> Ordering {
    if a == b {
        return Ordering::Equal;
    }
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let Some(at) = a.iter().zip(&b).position(|(a, b)| a != b) else { return a.len().cmp(&b.len()) };
    let after_digit = at > 0 && a[at - 1].is_numeric();
    match (a[at].is_alphabetic(), b[at].is_alphabetic()) {
        (true, true) => a[at].cmp(&b[at]),
        (true, false) => {
            if after_digit {
                Ordering::Less
            } else {
                Ordering::Greater
            }
        }
        (false, true) => {
            if after_digit {
                Ordering::Greater
            } else {
                Ordering::Less
            }
        }
        (false, false) => {
            // Zeros within a number count, those before it do not.
            let before = a[..at].iter().rev().take_while(|c| c.is_ascii_digit());
            let is_within = (a[at] == '0' || b[at] == '0') && before.into_iter().any(|c| *c != '0');
            let (left, right) = (number(&a[at..], is_within), number(&b[at..], is_within));
            left.cmp(&right).then(a[at].cmp(&b[at]))
        }
    }
}

/// What the digits amount to, and how many there are.
fn number(text: &[char], is_within: bool) -> (u128, usize) {
    let digits = text.iter().map_while(|c| c.to_digit(10)).map(u128::from);
    let start = u128::from(is_within);
    let amount = digits.clone().fold(start, |sum, digit| sum.saturating_mul(10).saturating_add(digit));
    (amount, digits.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count_as_numbers_and_letters_as_letters() {
        // What docker-compose 2.40.3 makes of them.
        let order =
            ["-x", "_x", "9", "10", "A", "A_B", "A1", "A1B", "A01", "A9", "A10", "AB", "B", "a", "a-b"];
        let map: Map<String, Json> = order.iter().map(|key| ((*key).to_owned(), Json::Null)).collect();
        let mut shuffled = map.clone();
        shuffled.sort_keys();
        let keys: Vec<&str> = sorted(&shuffled).into_iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, order);
        let own: Map<String, Json> =
            ["b", "a10", "a9"].into_iter().map(|key| (key.to_owned(), Json::Null)).collect();
        let keys: Vec<&str> = sorted(&own).into_iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["b", "a10", "a9"], "the order of its own");
    }
}
