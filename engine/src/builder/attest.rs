//! What is attested of an image that was built: how it was made, and what is in it.

use serde_json::{Value, json};

use super::provenance::{Facts, ProvenanceRequest, is_no, provenance};
use super::sbom::{SPDX, bill};
use super::stack::Stack;
use super::{BuildRequest, export};
use crate::error::{Error, Result};
use crate::image::{Image, Images, Predicate, Reference};
use crate::paths::Root;

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttestRequest {
    /// How the image was made.
    pub provenance: Option<ProvenanceRequest>,
    /// What is in it.
    pub sbom: bool,
}

/// What is attested of one image.
#[derive(Debug, Clone, Default)]
pub struct Attested {
    /// The statements' contents.
    pub predicates: Vec<Predicate>,
    /// What people should know of them.
    pub remarks: Vec<String>,
}

/// Reads what `--sbom` says: `true` or `false`.
///
/// # Errors
/// When a scanner is asked for: none is run.
pub fn wants_bill(text: &str) -> Result<bool> {
    if is_no(text) {
        return Ok(false);
    }
    match text.split(',').find(|field| !matches!(*field, "" | "true" | "1" | "disabled=false")) {
        None => Ok(true),
        Some(field) => {
            Err(Error::invalid(format!("a bill of materials (sbom) with {field} is not supported"))
                .with_hint(
                    "no scanner is run: the lists of dpkg, apk, Python and Node are read, for sbom=true",
                ))
        }
    }
}

// === impl AttestRequest ===

impl AttestRequest {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.provenance.is_none() && !self.sbom
    }

    /// What is to be attested of an image that goes by these names.
    ///
    /// # Errors
    /// When the image or the Dockerfile cannot be read.
    pub fn predicates(
        &self,
        root: &Root,
        request: &BuildRequest,
        facts: &Facts,
        image: &Image,
        names: &[Reference],
    ) -> Result<Attested> {
        let mut attested = Attested::default();
        if self.sbom {
            let bill = bill(root, image, names)?;
            attested.predicates.push(Predicate { kind: SPDX.to_owned(), value: bill.document });
            let scans = ["BUILDKIT_SBOM_SCAN_STAGE", "BUILDKIT_SBOM_SCAN_CONTEXT"];
            let asked = scans.into_iter().filter(|name| request.args.get(*name).is_some_and(|it| !is_no(it)));
            attested.remarks.extend(
                asked.map(|name| format!("{name} has no effect: the bill of materials is the image's alone")),
            );
            let unread = |path: String| format!("the packages in {path} are not in the bill of materials");
            attested.remarks.extend(bill.unread.into_iter().map(unread));
        }
        if let Some(asked) = &self.provenance {
            let value = provenance(asked, request, facts)?;
            attested.predicates.push(Predicate { kind: asked.kind().to_owned(), value });
        }
        Ok(attested)
    }
}

// === impl Attested ===

impl Attested {
    /// What is said of how it was made.
    pub fn provenance(&self) -> Option<&Value> {
        let mut predicates = self.predicates.iter();
        predicates.find(|predicate| predicate.kind != SPDX).map(|predicate| &predicate.value)
    }
}

/// Statements about files outside of an image, each with the name of the file it goes into, as BuildKit's local and tar
/// exporters write them.
///
/// # Errors
/// When a file of the image cannot be read.
pub fn statements(root: &Root, image: &Image, attested: &Attested) -> Result<Vec<(&'static str, Vec<u8>)>> {
    if attested.predicates.is_empty() {
        return Ok(Vec::new());
    }
    let stack = Stack::of(Images::at(root).lower_dirs(image));
    let subjects: Vec<Value> = export::digests(&stack)?
        .into_iter()
        .map(|(path, digest)| json!({ "name": path, "digest": { "sha256": digest.hex() } }))
        .collect();
    let statement = |predicate: &Predicate| {
        let name = if predicate.kind == SPDX { "sbom.spdx.json" } else { "provenance.json" };
        let statement = predicate.statement(&subjects);
        let text = serde_json::to_vec_pretty(&statement);
        text.map(|text| (name, text)).map_err(|error| Error::failed("write a statement", error))
    };
    attested.predicates.iter().map(statement).collect()
}
