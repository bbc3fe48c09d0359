//! What is in an image, as an SPDX document (spdx.github.io/spdx-spec/v2.3). No scanner is run: package managers keep
//! lists themselves.

use serde_json::{Value, json};

use super::packages::{Inventory, Package, inventory};
use super::stack::Stack;
use crate::error::{Error, Result};
use crate::image::{Image, Images, Reference};
use crate::paths::Root;

/// What kind of statement it is.
pub(super) const SPDX: &str = "https://spdx.dev/Document";

/// What stands where nobody has looked.
const UNKNOWN: &str = "NOASSERTION";

/// A bill of materials, and the databases whose packages are not in it.
pub(super) struct Bill {
    pub(super) document: Value,
    pub(super) unread: Vec<String>,
}

/// The bill of an image's materials.
pub(super) fn bill(root: &Root, image: &Image, names: &[Reference]) -> Result<Bill> {
    let failed = |error| Error::failed("read what is installed in the image", error);
    let found = inventory(&Stack::of(Images::at(root).lower_dirs(image))).map_err(failed)?;
    let name = names.first().map_or_else(|| image.id.to_string(), ToString::to_string);
    let document = document(&name, image, &found);
    Ok(Bill { document, unread: found.unread })
}

fn document(name: &str, image: &Image, found: &Inventory) -> Value {
    // Whole seconds, in UTC (6.9): the image's own, so that an image that is made again has the same bill.
    let created = image.created().unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let mut packages = vec![json!({
        "SPDXID": "SPDXRef-Image",
        "name": name,
        "versionInfo": image.id.as_str(),
        "primaryPackagePurpose": "CONTAINER",
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": false,
    })];
    let mut relationships = vec![relation("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Image")];
    for (number, package) in found.packages.iter().enumerate() {
        let id = format!("SPDXRef-Package-{}-{}-{number}", package.kind, plain(&package.name));
        relationships.push(relation("SPDXRef-Image", "CONTAINS", &id));
        packages.push(listed(package, &id, &found.distribution));
    }
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": format!("urn:rengine:sbom:{}", image.id),
        "creationInfo": {
            "created": created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "creators": [format!("Tool: rengine-{}", env!("CARGO_PKG_VERSION"))],
        },
        "packages": packages,
        "relationships": relationships,
    })
}

fn listed(package: &Package, id: &str, distribution: &(String, String)) -> Value {
    let mut listed = json!({
        "SPDXID": id,
        "name": package.name,
        "versionInfo": package.version,
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": false,
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": UNKNOWN,
        "copyrightText": UNKNOWN,
        "sourceInfo": format!("acquired package info from {}", package.found),
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": purl(package, distribution),
        }],
    });
    if let Some(maintainer) = &package.maintainer {
        let named = maintainer.split_once(" <").map_or_else(
            || maintainer.clone(),
            |(name, mail)| format!("{name} ({})", mail.trim_end_matches('>')),
        );
        listed["supplier"] = format!("Person: {named}").into();
    }
    // Packages write here what they like, which is seldom an expression of SPDX's.
    if let Some(license) = &package.license {
        listed["licenseComments"] = format!("declared as: {license}").into();
    }
    listed
}

/// The package's URL (purl-spec).
fn purl(package: &Package, (distribution, version): &(String, String)) -> String {
    let named = package.name.split('/').map(encoded).collect::<Vec<_>>().join("/");
    let mut purl = match package.kind {
        "deb" | "apk" if !distribution.is_empty() => {
            format!("pkg:{}/{}/{named}@{}", package.kind, encoded(distribution), encoded(&package.version))
        }
        kind => format!("pkg:{kind}/{named}@{}", encoded(&package.version)),
    };
    let mut qualifiers = Vec::new();
    qualifiers.extend(package.architecture.as_ref().map(|it| format!("arch={}", encoded(it))));
    if matches!(package.kind, "deb" | "apk") && !distribution.is_empty() {
        let version = if version.is_empty() { String::new() } else { format!("-{}", encoded(version)) };
        qualifiers.push(format!("distro={}{version}", encoded(distribution)));
    }
    // `Source: name (version)` where the versions differ.
    let source = package.source.as_deref().map(|it| it.split(' ').next().unwrap_or(it));
    qualifiers.extend(source.filter(|it| *it != package.name).map(|it| format!("upstream={}", encoded(it))));
    if !qualifiers.is_empty() {
        purl.push('?');
        purl.push_str(&qualifiers.join("&"));
    }
    purl
}

fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b".-_~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// A name with the letters that an id may have (7.2).
fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect()
}

fn relation(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_have_urls() {
        let mut package = Package {
            kind: "deb",
            name: "libstdc++6".to_owned(),
            version: "1:12.2.0-14".to_owned(),
            architecture: Some("amd64".to_owned()),
            license: None,
            maintainer: None,
            source: Some("gcc-12 (12.2)".to_owned()),
            found: String::new(),
        };
        let debian = ("debian".to_owned(), "12".to_owned());
        assert_eq!(
            purl(&package, &debian),
            "pkg:deb/debian/libstdc%2B%2B6@1%3A12.2.0-14?arch=amd64&distro=debian-12&upstream=gcc-12"
        );
        (package.kind, package.name, package.architecture, package.source) =
            ("npm", "@scope/name".to_owned(), None, None);
        assert_eq!(purl(&package, &debian), "pkg:npm/%40scope/name@1%3A12.2.0-14");
    }
}
