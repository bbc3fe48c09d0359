//! `image diff`: why two images are not the same one.

use clap::Args;

use crate::cli::output;
use crate::engine::Engine;
use crate::error::Result;
use crate::id::Digest;
use crate::image::{Difference, FieldDifference, FileChange, LayerDifference};

/// The flags of `image diff`.
#[derive(Debug, Args)]
pub(crate) struct DifferenceArgs {
    /// An image
    a: String,
    /// Another one
    b: String,
}

/// Prints what differs; 1 if anything does, as diff(1) has it.
pub(crate) fn difference(engine: &Engine, args: &DifferenceArgs) -> Result<u8> {
    let images = engine.images();
    let (a, b) = (images.get(&args.a)?, images.get(&args.b)?);
    let Difference { fields, layers } = images.difference(&a, &b)?;
    for FieldDifference { name, values: [a, b] } in fields {
        let shown = |value: Option<String>| value.unwrap_or_else(|| "nothing".to_owned());
        output::line(&format!("configuration {name}: {} → {}", shown(a), shown(b)));
    }
    layers.iter().for_each(print_layer);
    Ok(u8::from(a.id != b.id))
}

fn print_layer(difference: &LayerDifference) {
    let shown = |layer: &Option<Digest>| layer.as_ref().map_or("nothing", |layer| layer.short()).to_owned();
    let made_by = difference.made_by.as_deref().map(|text| format!(" ({text})")).unwrap_or_default();
    let [a, b] = difference.layers.each_ref().map(shown);
    output::line(&format!("layer {}{made_by}: {a} → {b}", difference.number));
    for file in &difference.files {
        output::line(&match &file.change {
            FileChange::Added => format!("  A {}", file.path),
            FileChange::Deleted => format!("  D {}", file.path),
            FileChange::Changed(attributes) => format!("  C {}: {}", file.path, attributes.join(", ")),
        });
    }
    if difference.files.is_empty() && difference.layers.iter().all(Option::is_some) {
        output::line("  the same files, in another order or form");
    }
}
