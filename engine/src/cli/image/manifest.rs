//! `manifest`: manifests at registries, and indexes put together of them.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::output;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::image::{PlatformNote, Reference, RemoteImage};

/// A verb on manifests.
#[derive(Debug, Subcommand)]
pub(crate) enum ManifestVerb {
    /// Begin a manifest list of images at a registry
    Create {
        /// Add to the one that there is
        #[arg(short, long)]
        amend: bool,
        /// Speak to these registries over http, or https without verification
        #[arg(long)]
        insecure: bool,
        /// The name of the list
        list: Reference,
        /// The images
        #[arg(required = true, value_name = "IMAGE")]
        images: Vec<Reference>,
    },
    /// Say for which platform an image of a manifest list is
    Annotate(AnnotateArgs),
    /// Show an image's manifest, or its index, as its registry has it; or a manifest list that was begun here
    Inspect {
        /// Each image with its digest, size and platform
        #[arg(short, long)]
        verbose: bool,
        /// Speak to the registry over http, or https without verification
        #[arg(long)]
        insecure: bool,
        /// The image
        image: Reference,
    },
    /// Send a manifest list to its registry
    Push {
        /// Forget it here then
        #[arg(short, long)]
        purge: bool,
        /// Speak to the registry over http, or https without verification
        #[arg(long)]
        insecure: bool,
        /// The list
        list: Reference,
    },
    /// Forget manifest lists
    Rm {
        /// The lists
        #[arg(required = true, value_name = "LIST")]
        lists: Vec<Reference>,
    },
}

/// The flags of `manifest annotate`.
#[derive(Debug, Args)]
pub(crate) struct AnnotateArgs {
    /// Processor
    #[arg(long)]
    arch: Option<String>,
    /// Operating system
    #[arg(long)]
    os: Option<String>,
    /// What the operating system must have
    #[arg(long, value_delimiter = ',', value_name = "FEATURE")]
    os_features: Vec<String>,
    /// Version of the operating system
    #[arg(long, value_name = "VERSION")]
    os_version: Option<String>,
    /// Variant of the processor: v7
    #[arg(long)]
    variant: Option<String>,
    /// The list
    list: Reference,
    /// The image
    image: Reference,
}

/// Carries a verb out.
pub(crate) fn manifest(engine: &Engine, verb: &ManifestVerb) -> Result<u8> {
    let images = engine.images();
    match verb {
        ManifestVerb::Create { amend, insecure, list, images: members } => {
            let insecure = registries(*insecure, members.iter().chain([list]));
            images.assemble(list, members, *amend, &insecure)?;
            output::line(&format!("Created manifest list {list}"));
        }
        ManifestVerb::Annotate(args) => {
            let AnnotateArgs { arch, os, os_features, os_version, variant, list, image } = args;
            let note = PlatformNote {
                os: os.clone(),
                architecture: arch.clone(),
                variant: variant.clone(),
                os_version: os_version.clone(),
                os_features: os_features.clone(),
            };
            images.annotate_assembly(list, image, &note)?;
        }
        ManifestVerb::Inspect { verbose: true, insecure, image } => {
            let found = images.remote_images(image, &registries(*insecure, [image]))?;
            match found.as_slice() {
                [alone] if alone.is_named_itself => output::json(&detailed(alone)?),
                several => output::json(&several.iter().map(detailed).collect::<Result<Value>>()?),
            }
        }
        ManifestVerb::Inspect { verbose: false, insecure, image } => {
            let bytes = match images.assembled(image)? {
                Some(bytes) => bytes,
                None => images.remote_manifest(image, &registries(*insecure, [image]))?.bytes,
            };
            output::json(&document(&bytes, image)?);
        }
        ManifestVerb::Push { purge, insecure, list } => {
            let digest = images.push_assembly(list, &registries(*insecure, [list]), &mut |part| {
                let digest = part.digest().map(ToString::to_string).unwrap_or_default();
                output::line(&format!("Pushed ref {part} with digest: {digest}"));
            })?;
            output::line(digest.as_str());
            if *purge {
                images.forget_assembly(list)?;
            }
        }
        ManifestVerb::Rm { lists } => {
            return Ok(lists.iter().fold(0, |code, list| match images.forget_assembly(list) {
                Ok(()) => code,
                Err(error) => {
                    output::failure(&error.into());
                    1
                }
            }));
        }
    }
    Ok(0)
}

/// The registries of these names, if they are meant to be insecure.
fn registries<'a>(is_meant: bool, names: impl IntoIterator<Item = &'a Reference>) -> Vec<String> {
    names.into_iter().filter(|_| is_meant).map(|name| name.registry().to_owned()).collect()
}

fn detailed(image: &RemoteImage) -> Result<Value> {
    let kind = if image.is_docker() { "SchemaV2Manifest" } else { "OCIManifest" };
    Ok(json!({
        "Ref": image.address.canonical(),
        "Descriptor": image.descriptor,
        kind: document(&image.bytes, &image.address)?,
    }))
}

fn document(bytes: &[u8], name: &Reference) -> Result<Value> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::failed(format!("read the manifest of {name}"), error))
}
