//! `config`: the project as it is understood.

pub(super) mod digests;

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use serde::Serialize as _;
use serde_json::{Value as Json, json};

use super::failure::CliError;
use super::session::Session;
use crate::canonical::{self, config_hash};
use crate::desired::{Changes, Desired};
use crate::interpolate::{Variable, variables};
use crate::load::load;
use crate::model::Project;
use crate::output;

/// The flags of `config`.
#[derive(Debug, Args)]
pub(super) struct ConfigArgs {
    /// yaml or json, as which what is wrong is told too
    #[arg(long, default_value = "yaml", value_parser = ["yaml", "json"])]
    pub(super) format: String,
    /// Print the names of the services
    #[arg(long)]
    services: bool,
    /// Print the names of the volumes
    #[arg(long)]
    volumes: bool,
    /// Print the names of the networks
    #[arg(long)]
    networks: bool,
    /// Print the names of the models
    #[arg(long)]
    models: bool,
    /// Print the images
    #[arg(long)]
    images: bool,
    /// Print the names of the profiles
    #[arg(long)]
    profiles: bool,
    /// Print the hashes of these services, separated by commas; * is all
    #[arg(long, value_name = "SERVICES")]
    hash: Option<String>,
    /// Print the variables the files ask for
    #[arg(long)]
    variables: bool,
    /// Print the variables the files were read with
    #[arg(long)]
    environment: bool,
    /// Print nothing, and fail where something is wrong
    #[arg(short, long)]
    quiet: bool,
    /// Write to this file
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<std::path::PathBuf>,
    /// Leave ${…} as it is
    #[arg(long)]
    no_interpolate: bool,
    /// Leave out what is implied
    #[arg(long)]
    no_normalize: bool,
    /// Leave relative paths as they are
    #[arg(long)]
    no_path_resolution: bool,
    /// Leave out the check that what is referred to is there
    #[arg(long)]
    no_consistency: bool,
    /// Leave env_file unread
    #[arg(long)]
    no_env_resolution: bool,
    /// Name images by their digests, as their registries have them now
    #[arg(long)]
    resolve_image_digests: bool,
    /// Print an override file that names images by their digests
    #[arg(long)]
    lock_image_digests: bool,
    /// The services; all when none is named
    pub(super) names: Vec<String>,
}

/// `config`.
pub(super) fn config(session: &Session, args: &ConfigArgs) -> Result<u8, CliError> {
    // What is written is shown as a whole.
    let services = if args.no_interpolate || args.variables { &[][..] } else { &args.names[..] };
    let mut options = session.load_options(services)?;
    options.no_interpolate = args.no_interpolate;
    options.no_normalize = args.no_normalize;
    options.no_path_resolution = args.no_path_resolution;
    options.no_consistency = args.no_consistency;
    // The reference's hash is of the service as it names its files.
    options.no_env_resolution = args.no_env_resolution || args.hash.is_some();
    options.no_interpolate |= args.variables;
    options.keep_optional = args.names.is_empty();
    options.only_services = true;
    options.all_resources |= options.no_interpolate;
    if args.variables || (args.no_interpolate && args.resolve_image_digests) {
        options.profiles.push("*".to_owned());
    }
    let mut loaded = load(&options)?;
    session.warn(&loaded.warnings);
    let mut project = loaded.project;
    if args.resolve_image_digests || args.lock_image_digests {
        let engine = session.engine()?;
        digests::resolve(&engine, &mut project)?;
        if let Some(written) = &mut loaded.written {
            digests::write_down(&project, written);
        }
    }
    if args.quiet {
        return Ok(0);
    }
    if args.lock_image_digests {
        write(args, &digests::lock_file(&project, &args.format))?;
        return Ok(0);
    }
    if args.variables {
        print_variables(args, loaded.written.as_ref().unwrap_or(&Json::Null));
        return Ok(0);
    }
    match names(session, args, &project)? {
        Some(lines) => lines.iter().for_each(|line| output::line(line)),
        None => write(args, &text(args, &project, loaded.written.as_ref()))?,
    }
    // The program ends here: to give a thousand services back one by one takes longer than to end with them.
    std::mem::forget((project, loaded.sources));
    Ok(0)
}

fn print_variables(args: &ConfigArgs, written: &Json) {
    let mut found = BTreeMap::new();
    collect_variables(written, &mut found);
    if args.format == "json" {
        let all: serde_json::Map<String, Json> = found
            .into_values()
            .map(|variable| {
                let json = json!({
                    "Name": variable.name,
                    "DefaultValue": variable.default,
                    "PresenceValue": variable.alternate,
                    "Required": variable.required,
                });
                (variable.name, json)
            })
            .collect();
        output::line(&indented(&Json::Object(all)));
    } else {
        let rows: Vec<Vec<String>> = found
            .into_values()
            .map(|variable| {
                vec![variable.name, variable.required.to_string(), variable.default, variable.alternate]
            })
            .collect();
        output::table(output::WIDE, &["NAME", "REQUIRED", "DEFAULT VALUE", "ALTERNATE VALUE"], &rows);
    }
}

/// JSON with four spaces a level, as docker compose has it here.
fn indented(json: &Json) -> String {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    // Writing what is in memory to memory cannot fail.
    let _ = json.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter));
    String::from_utf8_lossy(&bytes).into_owned()
}

fn collect_variables(json: &Json, found: &mut BTreeMap<String, Variable>) {
    match json {
        Json::String(text) => variables(text, found),
        Json::Array(items) => items.iter().for_each(|item| collect_variables(item, found)),
        Json::Object(fields) => fields.values().for_each(|field| collect_variables(field, found)),
        _ => {}
    }
}

/// The lines of a flag that asks for names.
fn names(session: &Session, args: &ConfigArgs, project: &Project) -> Result<Option<Vec<String>>, CliError> {
    let keys = |keys: &mut dyn Iterator<Item = &String>| Some(keys.cloned().collect());
    Ok(if args.services {
        keys(&mut project.services.keys())
    } else if args.volumes {
        keys(&mut project.volumes.keys())
    } else if args.networks {
        keys(&mut project.networks.keys())
    } else if args.models {
        Some(project.models.values().map(|model| model.model.clone()).collect())
    } else if args.profiles {
        let all = project.services.values().chain(project.disabled_services.values());
        let profiles: BTreeSet<String> = all.flat_map(|service| service.profiles.iter().cloned()).collect();
        Some(profiles.into_iter().collect())
    } else if args.images {
        let changes = Changes { separator: session.separator(), ..Changes::default() };
        let desired = Desired::of(project, &changes);
        // What a program provides is made of no image.
        let made = desired.services.into_values().filter(|service| service.provider.is_none());
        Some(made.map(|service| service.image.name).collect())
    } else if args.environment {
        Some(project.environment.iter().map(|(key, value)| format!("{key}={value}")).collect())
    } else if let Some(wanted) = &args.hash {
        Some(hashes(project, wanted)?)
    } else {
        None
    })
}

fn hashes(project: &Project, wanted: &str) -> Result<Vec<String>, CliError> {
    if wanted == "*" {
        return Ok(project
            .services
            .iter()
            .map(|(name, service)| format!("{name} {}", config_hash(service)))
            .collect());
    }
    wanted
        .split(',')
        .map(|name| {
            let service = project
                .services
                .get(name)
                .ok_or_else(|| CliError::Invalid(format!("no such service: {name}")))?;
            Ok(format!("{name} {}", config_hash(service)))
        })
        .collect()
}

/// A dollar that is read again must stand for itself, unless it was never read.
fn text(args: &ConfigArgs, project: &Project, written: Option<&Json>) -> String {
    match (args.format.as_str(), written) {
        ("json", Some(written)) => canonical::json_text(written) + "\n",
        ("json", None) => canonical::to_json_text(project) + "\n",
        (_, Some(written)) => crate::yaml::write(written),
        (_, None) => canonical::to_yaml(project),
    }
}

fn write(args: &ConfigArgs, text: &str) -> Result<(), CliError> {
    match &args.output {
        None => output::raw(text.as_bytes()),
        Some(file) => std::fs::write(file, text)
            .map_err(|error| engine::Error::failed(format!("write {}", file.display()), error))?,
    }
    Ok(())
}
