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
    let same: usize =
        a.chars().zip(b.chars()).take_while(|(a, b)| a == b).map(|(same, _)| same.len_utf8()).sum();
    let (before, rest_a, rest_b) = (&a[..same], &a[same..], &b[same..]);
    let (Some(first_a), Some(first_b)) = (rest_a.chars().next(), rest_b.chars().next()) else {
        return a.len().cmp(&b.len());
    };
    let after_digit = before.chars().next_back().is_some_and(char::is_numeric);
    match (first_a.is_alphabetic(), first_b.is_alphabetic()) {
        (true, true) => first_a.cmp(&first_b),
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
            let mut digits = before.chars().rev().take_while(char::is_ascii_digit);
            let is_within = (first_a == '0' || first_b == '0') && digits.any(|digit| digit != '0');
            let (left, right) = (number(rest_a, is_within), number(rest_b, is_within));
            left.cmp(&right).then(first_a.cmp(&first_b))
        }
    }
}

/// What the digits amount to, and how many there are.
fn number(text: &str, is_within: bool) -> (u128, usize) {
    let digits = text.chars().map_while(|c| c.to_digit(10)).map(u128::from);
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
