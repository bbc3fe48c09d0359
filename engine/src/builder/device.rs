//! `RUN --device`: devices by their names in vendors' descriptions (CDI), for one command.

use super::error::Trouble;
use crate::container::cdi::Registry;
use crate::error::Error;

/// Which devices instructions may ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AllowedDevices {
    /// None.
    #[default]
    None,
    /// Each one.
    All,
    /// Those with these names, `vendor.com/class=device` or `vendor.com/class`.
    These(Vec<String>),
}

/// What one `--device` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeviceWish {
    /// `vendor.com/class=device`; without a device the first of the class, with `*` all of them.
    name: String,
    /// Whether the command is not run without.
    is_required: bool,
}

// === impl AllowedDevices ===

impl AllowedDevices {
    /// Allows what an entitlement names after `device`.
    pub fn allow(&mut self, name: Option<&str>) {
        match (&mut *self, name) {
            (Self::All, _) => {}
            (_, None) => *self = Self::All,
            (Self::These(known), Some(name)) => known.push(name.to_owned()),
            (Self::None, Some(name)) => *self = Self::These(vec![name.to_owned()]),
        }
    }

    fn has(&self, device: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::These(known) => {
                let class = device.split('=').next();
                known.iter().any(|name| name == device || Some(name.as_str()) == class)
            }
        }
    }
}

// === impl DeviceWish ===

impl DeviceWish {
    /// Reads `NAME[,required[=BOOL]]`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (mut name, mut is_required) = (None, false);
        for field in text.split(',').map(str::trim) {
            match field.split_once('=') {
                None if field == "required" => is_required = true,
                Some(("required", value)) => {
                    is_required =
                        value.parse().map_err(|_| format!("required is true or false, not {value:?}"))?;
                }
                Some(("name", value)) => name = Some(value),
                _ if field.contains('/') && name.is_none() => name = Some(field),
                _ => return Err(format!("unexpected {field:?} in a device")),
            }
        }
        let name =
            name.ok_or_else(|| format!("{text:?} names no device, as vendor.com/class=device does"))?;
        Ok(Self { name: name.to_owned(), is_required })
    }

    /// The devices that are meant; none when there is none and the command can do without.
    pub(super) fn find(&self, registry: &Registry, allowed: &AllowedDevices) -> Result<Vec<String>, Trouble> {
        let step = |error| Trouble::Step(Error::failed(format!("find the device {}", self.name), error));
        let found = registry.meant(&self.name).map_err(step)?;
        if found.is_empty() && self.is_required {
            // Finding it says why it is not there.
            registry.find(&self.name).map_err(step)?;
        }
        match found.iter().find(|device| !allowed.has(device)) {
            Some(device) => {
                Err(Trouble::invalid(format!("RUN --device={} needs --allow device={device}", self.name)))
            }
            None => Ok(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_has_a_name_and_says_whether_it_is_one() {
        let wish = |name: &str, is_required| DeviceWish { name: name.to_owned(), is_required };
        assert_eq!(DeviceWish::parse("acme.com/pad=one").unwrap(), wish("acme.com/pad=one", false));
        assert_eq!(DeviceWish::parse("name=acme.com/pad,required").unwrap(), wish("acme.com/pad", true));
        assert_eq!(
            DeviceWish::parse("acme.com/pad=*,required=false").unwrap(),
            wish("acme.com/pad=*", false)
        );
        for wrong in ["", "required", "pad", "a.com/b,c.com/d", "a.com/b,required=maybe"] {
            assert!(DeviceWish::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_class_allows_its_devices() {
        let mut allowed = AllowedDevices::default();
        assert!(!allowed.has("a.com/b=c"));
        allowed.allow(Some("a.com/b"));
        assert!(allowed.has("a.com/b=c") && !allowed.has("a.com/x=c"));
        allowed.allow(None);
        assert!(allowed.has("a.com/x=c"));
    }
}
