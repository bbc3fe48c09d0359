//! Which machine builds an image: this one, the host itself, or one of the image's kind.

use std::collections::BTreeMap;
use std::fmt;

use engine::error::{Error, Result};
use engine::image::Platform;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Who builds, as `builder:` in the settings says.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Builder {
    /// This machine.
    #[default]
    Here,
    /// A host of the deployment: `host`.
    Host,
    /// Machines by the platform that they build for; this one for its own when none is named for that.
    Machines(BTreeMap<String, String>),
}

/// The machine for one image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Machine {
    /// This one.
    Here,
    /// A host of the deployment, by its number.
    Host(usize),
    /// Another one, by its address.
    At(String),
}

// === impl Builder ===

impl Builder {
    /// The machine that builds a service's image. `wanted` is the platform that the service asks for, `hosts` are those of
    /// the hosts that it runs on, by their numbers.
    ///
    /// # Errors
    /// When there is none for that platform.
    pub fn machine(
        &self,
        service: &str,
        wanted: Option<&Platform>,
        hosts: &[(usize, Platform)],
    ) -> Result<Machine> {
        let fits = |offered: &Platform| wanted.is_none_or(|wanted| wanted.rank(offered).is_some());
        let platform = wanted.cloned().or_else(|| hosts.first().map(|(_, platform)| platform.clone()));
        let platform = platform.unwrap_or_else(Platform::host);
        match self {
            Self::Here => Ok(Machine::Here),
            Self::Host => {
                let found = hosts.iter().find(|(_, offered)| fits(offered));
                found.map(|(number, _)| Machine::Host(*number)).ok_or_else(|| {
                    Error::invalid(format!(
                        "service {service} is to be built for {platform}, and no host is of that kind"
                    ))
                    .with_hint(format!("name a machine that is: `builder: {{{platform}: user@machine}}`"))
                })
            }
            Self::Machines(machines) => {
                let found = machines.iter().find(|(kind, _)| {
                    kind.parse().is_ok_and(|kind: Platform| platform.rank(&kind).is_some())
                });
                match found {
                    Some((_, address)) => Ok(Machine::At(address.clone())),
                    None if platform.rank(&Platform::host()).is_some() => Ok(Machine::Here),
                    None => Err(Error::invalid(format!(
                        "service {service} is to be built for {platform}, and there is no builder for that"
                    ))
                    .with_hint(format!(
                        "name a machine of that kind: `builder: {{{platform}: user@machine}}`"
                    ))),
                }
            }
        }
    }
}

/// The platform of a machine by its architecture as Rust names it, which the engine does, too.
pub fn platform_of(architecture: &str) -> Platform {
    Platform::new("linux", architecture, None)
}

/// By hand, since what is wrong with one form must not be hidden by the other one.
impl<'de> Deserialize<'de> for Builder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Builder;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`here`, `host`, or a map such as `linux/arm64: user@machine`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> std::result::Result<Builder, E> {
                match text {
                    "here" => Ok(Builder::Here),
                    "host" => Ok(Builder::Host),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Builder, A::Error> {
                let mut machines = BTreeMap::new();
                while let Some((platform, address)) = map.next_entry::<String, String>()? {
                    platform.parse::<Platform>().map_err(de::Error::custom)?;
                    machines.insert(platform, address);
                }
                Ok(Builder::Machines(machines))
            }
        }
        deserializer.deserialize_any(Form)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn an_image_is_built_by_a_machine_of_its_kind() {
        let arm = platform("linux/arm64");
        let hosts = [(0, platform("linux/amd64")), (1, arm.clone())];
        let machine = |builder: &Builder, wanted| builder.machine("web", wanted, &hosts);
        assert_eq!(machine(&Builder::Here, Some(&arm)).unwrap(), Machine::Here);
        assert_eq!(machine(&Builder::Host, Some(&arm)).unwrap(), Machine::Host(1));
        assert_eq!(machine(&Builder::Host, None).unwrap(), Machine::Host(0));
        let named: Builder = serde_yaml::from_str("{linux/arm64: me@arm}").unwrap();
        assert_eq!(machine(&named, Some(&arm)).unwrap(), Machine::At("me@arm".into()));
        assert_eq!(named.machine("web", None, &hosts[1..]).unwrap(), Machine::At("me@arm".into()));
    }

    #[test]
    fn a_platform_without_a_builder_is_named_with_what_to_write() {
        let riscv = platform("linux/riscv64");
        let named: Builder = serde_yaml::from_str("{linux/arm64: me@arm}").unwrap();
        for builder in [Builder::Host, named] {
            let error = builder.machine("web", Some(&riscv), &[(0, Platform::host())]).unwrap_err();
            assert!(error.to_string().contains("service web is to be built for linux/riscv64"), "{error}");
            assert!(error.hint().unwrap().contains("builder: {linux/riscv64: user@machine}"), "{error}");
        }
        let error = serde_yaml::from_str::<Builder>("there").unwrap_err().to_string();
        assert!(error.contains("`here`, `host`"), "{error}");
        serde_yaml::from_str::<Builder>("{arm/linux/x/y: me@arm}").unwrap_err();
    }
}
