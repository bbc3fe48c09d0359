//! What a project's containers and images are called. Pure: it makes names, it never looks whether they are free.

use engine::id::ContainerId;

/// What stands between the parts of a container's name: `-`, or `_` with `--compatibility`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Separator {
    /// `shop-web-1`.
    #[default]
    Dash,
    /// `shop_web_1`, as Compose v1 named them.
    Underscore,
}

/// The name of a service's n-th container.
pub fn container(separator: Separator, project: &str, service: &str, number: u32) -> String {
    let by = separator.as_str();
    format!("{project}{by}{service}{by}{number}")
}

/// The name of a container that `run` makes, told apart by twelve hexadecimal digits.
pub fn one_off(separator: Separator, project: &str, service: &str, slug: &str) -> String {
    let by = separator.as_str();
    let short = &slug[..slug.len().min(12)];
    format!("{project}{by}{service}{by}run{by}{short}")
}

/// The name an old container gives way to its successor with.
pub fn replaced(id: &ContainerId, name: &str) -> String {
    format!("{}_{name}", id.short())
}

/// The name of a container that waits to take over this one.
pub fn candidate(name: &str) -> String {
    format!("{CANDIDATE}{name}")
}

const CANDIDATE: &str = "next_";

/// The name that a container has, or will have once it is not held back any more: what people know it by.
pub fn lasting(name: &str, is_held: bool) -> &str {
    name.strip_prefix(CANDIDATE).filter(|_| is_held).unwrap_or(name)
}

/// The image a service with `build` and without `image` gets.
pub fn image(separator: Separator, project: &str, service: &str) -> String {
    format!("{project}{}{service}", separator.as_str())
}

/// A container's name as log prefixes show it: without the project in front.
pub fn without_project<'a>(project: &str, name: &'a str) -> &'a str {
    name.strip_prefix(project)
        .and_then(|rest| rest.strip_prefix(['-', '_']))
        .filter(|rest| !rest.is_empty())
        .unwrap_or(name)
}

// === impl Separator ===

impl Separator {
    fn as_str(self) -> &'static str {
        match self {
            Self::Dash => "-",
            Self::Underscore => "_",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_composes() {
        assert_eq!(container(Separator::Dash, "shop", "web", 2), "shop-web-2");
        assert_eq!(container(Separator::Underscore, "shop", "web", 2), "shop_web_2");
        assert_eq!(one_off(Separator::Dash, "shop", "web", "0123456789abcdef"), "shop-web-run-0123456789ab");
        assert_eq!(image(Separator::Dash, "shop", "web"), "shop-web");
    }

    #[test]
    fn an_old_container_carries_its_id_in_front() {
        let id: ContainerId = "a".repeat(64).parse().unwrap();
        assert_eq!(replaced(&id, "shop-web-1"), "aaaaaaaaaaaa_shop-web-1");
    }

    #[test]
    fn a_container_that_is_held_back_is_known_by_the_name_it_will_have() {
        assert_eq!(lasting(&candidate("shop-web-1"), true), "shop-web-1");
        assert_eq!(lasting("next_door", false), "next_door");
    }

    #[test]
    fn a_log_prefix_leaves_the_project_out() {
        assert_eq!(without_project("shop", "shop-web-1"), "web-1");
        assert_eq!(without_project("shop", "database"), "database");
        assert_eq!(without_project("shop", "shopping-1"), "shopping-1");
    }
}
