//! `--provenance`, `--sbom` and `--attest`: what is to be attested of an image.

use crate::builder::{AttestRequest, ProvenanceRequest, wants_bill};
use crate::cli::build::BuildArgs;
use crate::error::{Error, Result};

/// What these flags ask for.
pub(super) fn asked(args: &BuildArgs) -> Result<AttestRequest> {
    let mut asked = AttestRequest::default();
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
        match kind {
            "provenance" => asked.provenance = ProvenanceRequest::parse(text)?,
            "sbom" => asked.sbom = wants_bill(text)?,
            other => return Err(Error::invalid(format!("there is no attestation of type {other:?}"))),
        }
    }
    Ok(asked)
}
