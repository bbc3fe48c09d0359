//! `--provenance`, `--sbom` and `--attest`: what is to be attested of an image.

use crate::cli::build::BuildArgs;
use crate::error::{Error, Result};

/// The provenance that is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// Who builds, in the builder's own words.
    pub(super) builder: String,
}

/// What these flags ask for; nothing unless one does.
pub(super) fn asked(args: &BuildArgs) -> Result<Option<Asked>> {
    let mut asked = None;
    let flags = [("provenance", &args.provenance), ("sbom", &args.sbom)];
    let flags = flags.into_iter().filter_map(|(kind, text)| Some((kind, text.as_deref()?)));
    let split = |text: &'_ String| -> Result<(String, String)> {
        let fields: Vec<&str> = text.split(',').collect();
        let kind = fields.iter().find_map(|field| field.strip_prefix("type="));
        let kind =
            kind.ok_or_else(|| Error::invalid(format!("invalid attestation {text:?}: type is needed")))?;
        let rest: Vec<&str> = fields.iter().filter(|field| !field.starts_with("type=")).copied().collect();
        Ok((kind.to_owned(), rest.join(",")))
    };
    let attests = args.attest.iter().map(split).collect::<Result<Vec<_>>>()?;
    let attests = attests.iter().map(|(kind, rest)| (kind.as_str(), rest.as_str()));
    for (kind, text) in attests.chain(flags) {
        asked = match kind {
            "provenance" => provenance(text)?,
            "sbom" if is_no(text) => asked,
            "sbom" => {
                return Err(Error::invalid("bills of materials (sbom) are not supported")
                    .with_hint("a scanner reads what is saved: rengine save NAME"));
            }
            other => return Err(Error::invalid(format!("there is no attestation of type {other:?}"))),
        };
    }
    Ok(asked)
}

fn is_no(text: &str) -> bool {
    matches!(text, "false" | "0" | "disabled=true")
}

fn provenance(text: &str) -> Result<Option<Asked>> {
    if is_no(text) {
        return Ok(None);
    }
    let mut asked = Asked::default();
    for field in text.split(',').filter(|field| !field.is_empty()) {
        match field.split_once('=').unwrap_or((field, "")) {
            ("true" | "1" | "min", "") | ("mode", "min") | ("version", "v1") | ("disabled", "false") => {}
            ("builder-id", id) => asked.builder = id.to_owned(),
            _ => {
                return Err(Error::invalid(format!("provenance with {field} is not supported"))
                    .with_hint("mode=min, version=v1 and builder-id=URI are there"));
            }
        }
    }
    Ok(Some(asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_about_provenance_are_read() {
        assert_eq!(provenance("true").unwrap(), Some(Asked::default()));
        assert_eq!(provenance("mode=min,builder-id=https://ci/1").unwrap().unwrap().builder, "https://ci/1");
        assert_eq!(provenance("false").unwrap(), None);
        for text in ["mode=max", "version=v0.2", "max", "inline-only=true"] {
            assert!(provenance(text).is_err(), "{text}");
        }
    }
}
