//! The networks and volumes of a project, made as its file describes them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use engine::error::{Error, Result};
use engine::id::VolumeName;
use engine::network::{NetworkSpec, Subnet};
use engine::volume::VolumeSpec;

use super::{Runtime, invalid_name};
use crate::model::IpamPool;
use crate::plan::PlanError;
use crate::{home, labels};

impl Runtime {
    pub(super) fn create_network(&self, key: &str) -> Result<()> {
        let (Some(network), Some(desired)) = (self.project.networks.get(key), self.desired.networks.get(key))
        else {
            return Err(Error::not_found(format!("network {key} is not defined")));
        };
        let mut spec = NetworkSpec::new(network.name.parse().map_err(|error| invalid(key, &error))?);
        if let Some(driver) = network.driver.as_ref().filter(|driver| *driver != "default") {
            spec.driver.clone_from(driver);
        }
        spec.internal = network.internal;
        spec.ipv4 = network.enable_ipv4.unwrap_or(true);
        spec.ipv6 = network.enable_ipv6.unwrap_or_default();
        spec.options = network.driver_opts.clone();
        for pool in &network.ipam.config {
            spec.subnets.extend(subnet(key, pool)?);
        }
        spec.labels = self.resource_labels(&network.labels, labels::NETWORK, key, &desired.config_hash);
        self.engine.networks().create(spec)?;
        Ok(())
    }

    /// The name of a volume of the project, which is made unless it is there; `None` when the project has none of this key.
    ///
    /// # Errors
    /// When it cannot be made, or somebody else should have made it.
    pub fn volume(&self, key: &str) -> Result<Option<VolumeName>> {
        let Some(volume) = self.project.volumes.get(key) else { return Ok(None) };
        let name: VolumeName = volume.name.parse().map_err(|error| invalid_name(&volume.name, error))?;
        match self.engine.volumes().find(&name)? {
            Some(_) => {}
            None if volume.external => {
                let missing = PlanError::ExternalVolume(volume.name.clone());
                return Err(Error::not_found(missing.to_string()).with_hint_if(missing.hint()));
            }
            None => self.create_volume(key)?,
        }
        Ok(Some(name))
    }

    pub(super) fn create_volume(&self, key: &str) -> Result<()> {
        let (Some(volume), Some(desired)) = (self.project.volumes.get(key), self.desired.volumes.get(key))
        else {
            return Err(Error::not_found(format!("volume {key} is not defined")));
        };
        let name: VolumeName = volume.name.parse().map_err(|error| invalid_name(&volume.name, error))?;
        self.engine.volumes().create(VolumeSpec {
            name: Some(name),
            driver: volume.driver.clone().unwrap_or_default(),
            options: volume.driver_opts.clone(),
            labels: self.resource_labels(&volume.labels, labels::VOLUME, key, &desired.config_hash),
        })?;
        Ok(())
    }

    fn resource_labels(
        &self,
        own: &BTreeMap<String, String>,
        kind: &str,
        key: &str,
        hash: &str,
    ) -> BTreeMap<String, String> {
        let mut all = own.clone();
        let ours = [
            (labels::PROJECT, self.project.name.as_str()),
            (kind, key),
            (labels::CONFIG_HASH, hash),
            (labels::VERSION, env!("CARGO_PKG_VERSION")),
        ];
        all.extend(ours.map(|(label, value)| (label.to_owned(), value.to_owned())));
        all.extend(home::labels_of(&self.project).map(|(label, value)| (label.to_owned(), value)));
        all
    }
}

/// The addresses of a pool; none when it says nothing of them.
fn subnet(key: &str, pool: &IpamPool) -> Result<Option<Subnet>> {
    let Some(cidr) = &pool.subnet else { return Ok(None) };
    let mut aux_addresses = BTreeMap::new();
    for (name, address) in &pool.aux_addresses {
        aux_addresses.insert(name.clone(), parsed(key, address)?);
    }
    Ok(Some(Subnet {
        cidr: parsed(key, cidr)?,
        gateway: pool.gateway.as_ref().map(|address| parsed(key, address)).transpose()?,
        ip_range: pool.ip_range.as_ref().map(|range| parsed(key, range)).transpose()?,
        aux_addresses,
    }))
}

fn parsed<T: FromStr<Err: fmt::Display>>(key: &str, text: &str) -> Result<T> {
    text.parse().map_err(|error| invalid(key, &error))
}

fn invalid(key: &str, error: &dyn fmt::Display) -> Error {
    Error::invalid(format!("network {key}: {error}"))
}
