//! The verbs on networks.

use std::collections::BTreeMap;
use std::net::IpAddr;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::filter::{self, Filters};
use crate::cli::inspect::{self, NetworksArgs};
use crate::cli::output;
use crate::cli::run::pairs;
use crate::cli::swarm;
use crate::container::spec::NetworkAttachment;
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::id::NetworkName;
use crate::network::{Cidr, LinkOptions, Network, NetworkSpec, Subnet};

/// A verb on networks.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Make a network
    Create(CreateArgs),
    /// Attach a container, running or not, to one more network
    Connect(ConnectArgs),
    /// Detach a container from a network
    Disconnect {
        /// Also a container of which nothing else is left
        #[arg(short, long)]
        force: bool,
        /// The network's name or id
        network: String,
        /// The container's name or id
        container: String,
    },
    /// List networks
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Show everything known of networks
    Inspect(NetworksArgs),
    /// Remove networks
    #[command(visible_alias = "remove")]
    Rm {
        /// Names or ids
        #[arg(required = true, value_name = "NETWORK")]
        names: Vec<String>,
        /// Say nothing of those that do not exist
        #[arg(short, long)]
        force: bool,
    },
    /// Remove networks that no container uses
    Prune {
        /// Do not ask
        #[arg(short, long)]
        force: bool,
        /// Only those that match: label, label!, until
        #[arg(long, value_name = "KEY=VALUE")]
        filter: Vec<String>,
    },
}

/// The flags of `network create`.
#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// bridge or macvlan
    #[arg(short, long, default_value = "bridge")]
    driver: String,
    /// Addresses as a block: 10.1.0.0/16
    #[arg(long)]
    subnet: Vec<String>,
    /// The part of the block that containers get addresses from
    #[arg(long)]
    ip_range: Vec<String>,
    /// The bridge's own address
    #[arg(long)]
    gateway: Vec<IpAddr>,
    /// Addresses that containers do not get: name=address
    #[arg(long, value_name = "NAME=ADDRESS")]
    aux_address: Vec<String>,
    /// Without a way outside
    #[arg(long)]
    internal: bool,
    /// With IPv4 addresses; --ipv4=false leaves them out
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ipv4: bool,
    /// With IPv6 addresses
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ipv6: bool,
    /// Set a label
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Option of the driver
    #[arg(short, long, value_name = "KEY=VALUE")]
    opt: Vec<String>,
    /// Accepted for docker's sake: every network can be attached to
    #[arg(long, hide = true)]
    attachable: bool,
    /// Accepted for docker's sake: default is the only one
    #[arg(long, hide = true, default_value = "default")]
    ipam_driver: String,
    #[command(flatten)]
    of_swarm: swarm::NetworkArgs,
    /// The network's name
    name: NetworkName,
}

/// The flags of `network connect`.
#[derive(Debug, Args)]
pub(super) struct ConnectArgs {
    /// Further name on the network
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// IPv4 address on the network
    #[arg(long)]
    ip: Option<IpAddr>,
    /// IPv6 address on the network
    #[arg(long)]
    ip6: Option<IpAddr>,
    /// The network with the highest one gives the default route
    #[arg(long, default_value_t = 0)]
    gw_priority: i32,
    /// Address in 169.254.0.0/16 or fe80::/10 beside the network's own
    #[arg(long, value_name = "ADDRESS")]
    link_local_ip: Vec<IpAddr>,
    /// A link of docker's old kind
    #[arg(long, hide = true)]
    link: Vec<String>,
    /// Option of the link: com.docker.network.endpoint.ifname or .sysctls
    #[arg(long, value_name = "KEY=VALUE")]
    driver_opt: Vec<String>,
    /// The network's name or id
    network: String,
    /// The container's name or id
    container: String,
}

/// The flags of `network ls`.
#[derive(Debug, Args)]
pub(super) struct LsArgs {
    /// Print ids alone
    #[arg(short, long)]
    quiet: bool,
    /// Print ids whole
    #[arg(long)]
    no_trunc: bool,
    /// Only those that match: name, id, driver, label, type, scope, dangling
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// table, json, or a template
    #[arg(long)]
    format: Option<String>,
}

const COLUMNS: [(&str, &str); 4] =
    [("NETWORK ID", "ID"), ("NAME", "Name"), ("DRIVER", "Driver"), ("SCOPE", "Scope")];

/// Carries a verb out.
pub(super) fn run(engine: &Engine, verb: Verb) -> Result<u8> {
    match verb {
        Verb::Create(args) => create(engine, args),
        Verb::Connect(args) => connect(engine, args),
        Verb::Disconnect { force, network, container } => {
            engine.disconnect(&network, &container, force)?;
            Ok(0)
        }
        Verb::Ls(args) => list(engine, &args),
        Verb::Inspect(args) => inspect::networks(engine, &args.common),
        Verb::Rm { names, force } => {
            let mut code = 0;
            for name in &names {
                match engine.remove_network(name) {
                    Ok(()) => output::line(name),
                    Err(error) if force && error.kind() == Kind::NotFound => {}
                    Err(error) => {
                        output::failure(&error);
                        code = 1;
                    }
                }
            }
            Ok(code)
        }
        Verb::Prune { force, filter } => prune(engine, force, &filter),
    }
}

fn create(engine: &Engine, args: CreateArgs) -> Result<u8> {
    args.of_swarm.check()?;
    if args.ipam_driver != "default" {
        return Err(Error::new(Kind::Unsupported, format!("no IPAM driver {:?}", args.ipam_driver)));
    }
    let aux_addresses: BTreeMap<String, IpAddr> = args
        .aux_address
        .iter()
        .map(|text| {
            let (name, address) = text.split_once('=').unwrap_or((text, text));
            address.parse().map(|address| (name.to_owned(), address))
        })
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| Error::invalid("--aux-address").with_source(error))?;
    let mut subnets = Vec::new();
    for (index, subnet) in args.subnet.iter().enumerate() {
        let parse = |text: &String| {
            text.parse().map_err(|error| Error::invalid(format!("address block {text:?}")).with_source(error))
        };
        let cidr: Cidr = parse(subnet)?;
        subnets.push(Subnet {
            cidr,
            ip_range: args.ip_range.get(index).map(parse).transpose()?,
            gateway: args.gateway.get(index).copied(),
            aux_addresses: aux_addresses
                .clone()
                .into_iter()
                .filter(|(_, address)| cidr.contains(*address))
                .collect(),
        });
    }
    if let Some((name, address)) = aux_addresses
        .iter()
        .find(|(_, address)| subnets.iter().all(|subnet| !subnet.cidr.contains(**address)))
    {
        return Err(Error::invalid(format!(
            "the auxiliary address {address} of {name} lies in no --subnet of the network"
        )));
    }
    if subnets.is_empty() && (!args.gateway.is_empty() || !args.ip_range.is_empty()) {
        return Err(Error::invalid("--gateway and --ip-range need a --subnet"));
    }
    let network = engine.networks().create(NetworkSpec {
        name: args.name,
        driver: args.driver,
        internal: args.internal,
        ipv4: args.ipv4,
        ipv6: args.ipv6,
        subnets,
        labels: pairs(args.label),
        options: pairs(args.opt),
    })?;
    output::line(network.id.as_str());
    Ok(0)
}

fn connect(engine: &Engine, args: ConnectArgs) -> Result<u8> {
    if !args.link.is_empty() {
        return Err(Error::new(
            Kind::Unsupported,
            "--link is not supported: names on a network are every member's",
        )
        .with_hint("give the other container a further name there with --alias"));
    }
    let container = engine.container(&args.container)?;
    let mut link = LinkOptions::default();
    for (key, value) in pairs(args.driver_opt) {
        link.read(&key, &value)?;
    }
    let attachment = NetworkAttachment {
        network: args.network,
        aliases: args.alias,
        addresses: args.ip.into_iter().chain(args.ip6).collect(),
        mac_address: None,
        gateway_priority: args.gw_priority,
        link_local: args.link_local_ip,
        link,
    };
    engine.connect(container.id(), &attachment)?;
    Ok(0)
}

fn list(engine: &Engine, args: &LsArgs) -> Result<u8> {
    let filters =
        Filters::parse(&args.filter, &["name", "id", "driver", "label", "type", "scope", "dangling"])?;
    let mut networks = Vec::new();
    for network in engine.networks().list()? {
        if filters.match_all(|key, value| matches(engine, &network, key, value))? {
            networks.push(network);
        }
    }
    let rows: Vec<Value> = networks
        .into_iter()
        .map(|network| {
            json!({
                "ID": if args.no_trunc { network.id.as_str() } else { network.id.short() },
                "Name": network.spec.name.as_str(),
                "Driver": network.spec.driver,
                "Scope": "local",
                "Internal": network.spec.internal.to_string(),
                "IPv6": network.spec.ipv6.to_string(),
                "Labels": network.spec.labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(","),
                "CreatedAt": network.created.to_string(),
            })
        })
        .collect();
    if args.quiet {
        rows.iter().filter_map(|row| row["ID"].as_str()).for_each(output::line);
        return Ok(0);
    }
    output::rows(args.format.as_deref(), &COLUMNS, &rows)?;
    Ok(0)
}

fn matches(engine: &Engine, network: &Network, key: &str, value: &str) -> Result<bool> {
    let spec = &network.spec;
    Ok(match key {
        "name" => spec.name.as_str().contains(value),
        "id" => network.id.as_str().starts_with(value),
        "driver" => spec.driver == value,
        "scope" => value == "local",
        "label" => filter::has_label(&spec.labels, value),
        "type" => match value {
            "builtin" => network.is_builtin(),
            "custom" => !network.is_builtin(),
            _ => return Err(Error::invalid(format!("invalid filter 'type={value}': builtin or custom"))),
        },
        "dangling" => {
            let unused = !network.is_builtin() && engine.networks().members(&network.id)?.is_empty();
            unused == filter::truth(key, value)?
        }
        _ => false,
    })
}

fn prune(engine: &Engine, force: bool, filters: &[String]) -> Result<u8> {
    let filters = Filters::parse(filters, &["label", "label!", "until"])?;
    if let Some(until) = filters.last("until") {
        filter::is_before(jiff::Timestamp::now(), until)?;
    }
    if !force && !output::confirm("This will remove all networks not used by a container. Continue?") {
        return Ok(0);
    }
    let wanted = |network: &Network| {
        let matched = filters.match_all(|key, value| match key {
            "label" => Ok(filter::has_label(&network.spec.labels, value)),
            "label!" => Ok(!filter::has_label(&network.spec.labels, value)),
            _ => filter::is_before(network.created, value),
        });
        // What was asked was understood above.
        matched.unwrap_or(false)
    };
    let removed = engine.prune_networks(&wanted)?;
    if !removed.is_empty() {
        output::line("Deleted Networks:");
        removed.iter().for_each(|name| output::line(name.as_str()));
        output::line("");
    }
    Ok(0)
}
