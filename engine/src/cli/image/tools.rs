//! `builder imagetools`: images at registries, shown and put together without being pulled.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::cli::output;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::image::{Reference, RemoteContent, RemoteManifest};

/// A verb on images at registries.
#[derive(Debug, Subcommand)]
pub(crate) enum ToolsVerb {
    /// Make one name of images that registries have: of several, an index
    Create(CreateArgs),
    /// Show what a registry has under a name
    Inspect(InspectArgs),
}

/// The flags of `imagetools create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// The name to make; may be given several times
    #[arg(short, long, value_name = "NAME")]
    tag: Vec<Reference>,
    /// Add to what the first name means now
    #[arg(long)]
    append: bool,
    /// Print the index and send nothing
    #[arg(long)]
    dry_run: bool,
    /// Note something on the index: KEY=VALUE, or index:KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// Accepted for docker's sake: there is one builder
    #[arg(long, hide = true)]
    builder: Option<String>,
    /// Accepted for docker's sake
    #[arg(long, hide = true)]
    progress: Option<String>,
    /// Accepted for docker's sake: an index is always made
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    prefer_index: Option<bool>,
    /// The images
    #[arg(value_name = "IMAGE", required = true)]
    sources: Vec<Reference>,
}

/// The flags of `imagetools inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Print the manifest or the index as it is
    #[arg(long)]
    raw: bool,
    /// A template of .Name, .Manifest, .Image, .Provenance and .SBOM
    #[arg(long, conflicts_with = "raw")]
    format: Option<String>,
    /// Accepted for docker's sake: there is one builder
    #[arg(long, hide = true)]
    builder: Option<String>,
    /// The image
    image: Reference,
}

/// Carries a verb out.
pub(crate) fn tools(engine: &Engine, verb: &ToolsVerb) -> Result<u8> {
    match verb {
        ToolsVerb::Create(args) => create(engine, args),
        ToolsVerb::Inspect(args) => inspect(engine, args),
    }
}

fn create(engine: &Engine, args: &CreateArgs) -> Result<u8> {
    if args.tag.is_empty() && !args.dry_run {
        return Err(Error::invalid("what is made needs a name").with_hint("-t NAME, or --dry-run"));
    }
    let images = engine.images();
    let grown = args.tag.first().filter(|_| args.append);
    let sources: Vec<Reference> = grown.into_iter().chain(&args.sources).cloned().collect();
    let annotations = args.annotation.iter().map(|text| annotation(text)).collect::<Result<_>>()?;
    let composed = images.compose(&sources, annotations)?;
    if args.dry_run {
        output::line(&String::from_utf8_lossy(&composed.bytes));
        return Ok(0);
    }
    images.push_composed(&composed, &args.tag)?;
    Ok(0)
}

/// `[index:]KEY=VALUE`.
fn annotation(text: &str) -> Result<(String, String)> {
    let wrong =
        || Error::invalid(format!("invalid annotation {text:?}")).with_hint("write [index:]KEY=VALUE");
    let (key, value) = text.split_once('=').ok_or_else(wrong)?;
    let key = key.strip_prefix("index:").unwrap_or(key);
    if key.is_empty() || ["manifest", "index-descriptor"].iter().any(|place| key.starts_with(place)) {
        return Err(wrong());
    }
    Ok((key.to_owned(), value.to_owned()))
}

fn inspect(engine: &Engine, args: &InspectArgs) -> Result<u8> {
    let images = engine.images();
    let there = images.remote_manifest(&args.image, &[])?;
    if args.raw {
        output::raw(&there.bytes);
        return Ok(0);
    }
    let manifest: Value = serde_json::from_slice(&there.bytes)
        .map_err(|error| Error::failed(format!("read the manifest of {}", args.image), error))?;
    let Some(format) = &args.format else {
        output::line(&overview(&args.image, &there, &manifest));
        return Ok(0);
    };
    let mut shown = json!({ "name": args.image.canonical(), "manifest": described(&there, &manifest) });
    // Only what is asked for is fetched.
    if format == "json" || ["Image", "Provenance", "SBOM"].iter().any(|field| format.contains(field)) {
        let contents = images.remote_contents(&args.image)?;
        shown["image"] = by_platform(&contents, |content| content.config.clone());
        shown["Provenance"] =
            by_platform(&contents, |content| attested(content, "slsa.dev/provenance", "SLSA"));
        shown["SBOM"] = by_platform(&contents, |content| attested(content, "spdx.dev/Document", "SPDX"));
    }
    match format.as_str() {
        "json" => output::json(&shown),
        _ => output::inspected(Some(format), &[shown])?,
    }
    Ok(0)
}

/// What buildx calls the manifest: an index with its digest and size, or a descriptor alone.
fn described(there: &RemoteManifest, manifest: &Value) -> Value {
    let mut shown = json!({
        "schemaVersion": manifest["schemaVersion"],
        "mediaType": there.media_type,
        "digest": there.digest.as_str(),
        "size": there.bytes.len(),
    });
    for key in ["manifests", "annotations"] {
        if let Some(value) = manifest.get(key) {
            shown[key] = value.clone();
        }
    }
    shown
}

/// The value of the one platform, or of each under its name.
fn by_platform(contents: &[RemoteContent], of: impl Fn(&RemoteContent) -> Value) -> Value {
    match contents {
        [alone] => of(alone),
        several => {
            let values = several.iter().map(|content| (content.platform.clone(), of(content)));
            Value::Object(values.filter(|(_, value)| *value != json!({})).collect::<Map<_, _>>())
        }
    }
}

/// The predicate of a kind among an image's attestations: `{"SLSA": …}`, or nothing in the braces.
fn attested(content: &RemoteContent, kind: &str, name: &str) -> Value {
    let is_meant =
        |statement: &&Value| statement["predicateType"].as_str().is_some_and(|it| it.contains(kind));
    match content.statements.iter().find(is_meant) {
        Some(statement) => json!({ name: statement["predicate"] }),
        None => json!({}),
    }
}

/// What people read.
fn overview(name: &Reference, there: &RemoteManifest, manifest: &Value) -> String {
    let name = name.canonical();
    let mut text = format!("Name:      {name}\nMediaType: {}\nDigest:    {}", there.media_type, there.digest);
    let Some(entries) = manifest["manifests"].as_array() else { return text };
    let repository = name.rsplit_once('@').map_or(name.as_str(), |(bare, _)| bare);
    let repository = match repository.rsplit_once(':') {
        Some((bare, tag)) if !tag.contains('/') => bare,
        _ => repository,
    };
    text.push_str("\n           \nManifests: ");
    for (number, entry) in entries.iter().enumerate() {
        if number > 0 {
            text.push_str("\n               ");
        }
        let field = |key: &str| entry[key].as_str().unwrap_or_default();
        text.push_str(&format!(
            "\n  Name:        {repository}@{}\n  MediaType:   {}",
            field("digest"),
            field("mediaType")
        ));
        if let Some(platform) = entry.get("platform") {
            let parts = ["os", "architecture", "variant"].map(|key| platform[key].as_str());
            let parts: Vec<&str> = parts.into_iter().flatten().collect();
            text.push_str(&format!("\n  Platform:    {}", parts.join("/")));
        }
        let notes: BTreeMap<String, String> =
            serde_json::from_value(entry["annotations"].clone()).unwrap_or_default();
        let width = notes.keys().map(String::len).max().unwrap_or_default() + 1;
        if !notes.is_empty() {
            text.push_str("\n  Annotations: ");
        }
        for (key, value) in &notes {
            text.push_str(&format!("\n    {:width$} {value}", format!("{key}:")));
        }
    }
    text
}
