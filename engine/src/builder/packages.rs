//! What is installed in an image, from what package managers keep of it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde_json::Value;

use super::stack::{Entry, Stack, lossy};

/// Something that a package manager has installed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Package {
    /// The type of its package URL (purl-spec, PURL-TYPES): `deb`, `apk`, `pypi`, `npm`.
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) architecture: Option<String>,
    pub(super) license: Option<String>,
    pub(super) maintainer: Option<String>,
    /// The package that it was built from.
    pub(super) source: Option<String>,
    /// Where that was read.
    pub(super) found: String,
}

/// Everything found.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    pub(super) packages: Vec<Package>,
    /// The distribution: `ID` and `VERSION_ID` of os-release(5).
    pub(super) distribution: (String, String),
    /// Databases that cannot be read here.
    pub(super) unread: Vec<String>,
}

/// Where dpkg keeps what is installed; images without dpkg have a file a package.
const DPKG: &str = "var/lib/dpkg/status";
const DPKG_PARTS: &str = "var/lib/dpkg/status.d";
const APK: [&str; 2] = ["lib/apk/db/installed", "usr/lib/apk/db/installed"];
const RPM: [&str; 3] = ["var/lib/rpm", "usr/lib/sysimage/rpm", "usr/share/rpm"];
const OS_RELEASE: [&str; 2] = ["etc/os-release", "usr/lib/os-release"];

/// The longest file of a language's package that is read.
const LONGEST: u64 = 4 << 20;

/// Looks for the packages of Debian, Alpine, Python and Node in these layers.
pub(super) fn inventory(stack: &Stack) -> io::Result<Inventory> {
    let mut found = Inventory { distribution: distribution(stack)?, ..Inventory::default() };
    let mut databases: Vec<(String, String)> = Vec::new();
    databases.extend(stack.read(DPKG)?.map(|text| (DPKG.to_owned(), text)));
    if let Some(parts) = stack.resolve(Path::new(DPKG_PARTS), true)?.entry.filter(|it| it.metadata.is_dir()) {
        for (name, entry) in parts.children()? {
            let name = lossy(&name);
            if entry.metadata.is_file() && !name.ends_with(".md5sums") {
                databases.push((format!("{DPKG_PARTS}/{name}"), read(&entry)?));
            }
        }
    }
    for (path, text) in &databases {
        found.packages.extend(text.split("\n\n").filter_map(|text| debian(text, path)));
    }
    for path in APK {
        let text = stack.read(path)?.unwrap_or_default();
        found.packages.extend(text.split("\n\n").filter_map(|text| alpine(text, path)));
    }
    for path in RPM {
        if stack.resolve(Path::new(path), true)?.entry.is_some_and(|it| it.metadata.is_dir()) {
            found.unread.push(format!("/{path}"));
        }
    }
    if let Some(root) = stack.root()? {
        walk(&root, "", &mut found.packages)?;
    }
    found.packages.sort();
    found.packages.dedup_by(|a, b| {
        (a.kind, &a.name, &a.version, &a.architecture) == (b.kind, &b.name, &b.version, &b.architecture)
    });
    Ok(found)
}

fn distribution(stack: &Stack) -> io::Result<(String, String)> {
    for path in OS_RELEASE {
        let Some(text) = stack.read(path)? else { continue };
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            value.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
        };
        return Ok((field("ID"), field("VERSION_ID")));
    }
    Ok(Default::default())
}

/// Looks for packages of languages, whose names are those of directories.
fn walk(directory: &Entry, path: &str, packages: &mut Vec<Package>) -> io::Result<()> {
    for (name, entry) in directory.children()? {
        let path = format!("{path}/{}", lossy(&name));
        if !entry.metadata.is_dir() || matches!(path.as_str(), "/proc" | "/sys" | "/dev") {
            continue;
        }
        let file = |name: &str| -> io::Result<Option<String>> {
            let file = entry.child(name.as_ref())?;
            let is_readable = |it: &Entry| it.metadata.is_file() && it.metadata.len() <= LONGEST;
            file.filter(is_readable).map(|it| read(&it)).transpose()
        };
        if path.ends_with(".dist-info") {
            packages.extend(file("METADATA")?.and_then(|text| python(&text, &path)));
        } else if path.ends_with(".egg-info") {
            packages.extend(file("PKG-INFO")?.and_then(|text| python(&text, &path)));
        } else if is_module(&path) {
            packages.extend(file("package.json")?.and_then(|text| node(&text, &path)));
        }
        walk(&entry, &path, packages)?;
    }
    Ok(())
}

/// Whether it is a directory of Node's: `node_modules/NAME` or `node_modules/@SCOPE/NAME`.
fn is_module(path: &str) -> bool {
    let mut parts = path.rsplit('/');
    let (_, parent) = (parts.next(), parts.next().unwrap_or_default());
    parent == "node_modules" || (parent.starts_with('@') && parts.next() == Some("node_modules"))
}

/// A paragraph of dpkg's status (deb822(5)).
fn debian(text: &str, found: &str) -> Option<Package> {
    let fields = fields(text, ": ");
    let get = |name: &str| fields.get(name).map(|text| (*text).to_owned());
    if fields.get("Status").is_some_and(|status| !status.ends_with(" installed")) {
        return None;
    }
    Some(Package {
        kind: "deb",
        name: get("Package")?,
        version: get("Version")?,
        architecture: get("Architecture"),
        license: None,
        maintainer: get("Maintainer"),
        source: get("Source"),
        found: found.to_owned(),
    })
}

/// A paragraph of apk's database (Alpine wiki, "Apk spec").
fn alpine(text: &str, found: &str) -> Option<Package> {
    let fields = fields(text, ":");
    let get = |name: &str| fields.get(name).map(|text| (*text).to_owned());
    Some(Package {
        kind: "apk",
        name: get("P")?,
        version: get("V")?,
        architecture: get("A"),
        license: get("L"),
        maintainer: get("m"),
        source: get("o"),
        found: found.to_owned(),
    })
}

/// The head of a Python package's description (packaging.python.org, "Core metadata specifications").
fn python(text: &str, found: &str) -> Option<Package> {
    let head = text.split("\n\n").next().unwrap_or_default();
    let fields = fields(head, ": ");
    let get = |name: &str| fields.get(name).map(|text| (*text).to_owned());
    Some(Package {
        kind: "pypi",
        name: get("Name")?.to_lowercase().replace('_', "-"),
        version: get("Version")?,
        architecture: None,
        license: get("License-Expression").or_else(|| get("License")),
        maintainer: get("Author"),
        source: None,
        found: found.to_owned(),
    })
}

fn node(text: &str, found: &str) -> Option<Package> {
    let value: Value = serde_json::from_str(text).ok()?;
    let get = |name: &str| value[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    Some(Package {
        kind: "npm",
        name: get("name")?,
        version: get("version")?,
        architecture: None,
        license: get("license"),
        maintainer: get("author"),
        source: None,
        found: found.to_owned(),
    })
}

/// The fields of a paragraph; lines that go on with one are left out, and of two fields with one name the first counts.
fn fields<'a>(text: &'a str, separator: &str) -> BTreeMap<&'a str, &'a str> {
    let mut fields = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with([' ', '\t'])) {
        if let Some((name, value)) = line.split_once(separator) {
            fields.entry(name).or_insert(value.trim());
        }
    }
    fields
}

fn read(entry: &Entry) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&std::fs::read(&entry.host)?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_of_package_managers_are_read() {
        let status = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nSource: glibc\nVersion: 2.36-9\nDescription: x\n more: text";
        let package = debian(status, DPKG).unwrap();
        assert_eq!((package.name.as_str(), package.version.as_str()), ("libc6", "2.36-9"));
        assert_eq!(package.source.as_deref(), Some("glibc"));
        assert_eq!(debian(&status.replace("ok installed", "ok config-files"), DPKG), None);
        let package = alpine("C:Q1\nP:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT", APK[0]).unwrap();
        assert_eq!((package.name.as_str(), package.license.as_deref()), ("musl", Some("MIT")));
        let package =
            python("Metadata-Version: 2.1\nName: Zope_Interface\nVersion: 6.0\n\nName: no", "").unwrap();
        assert_eq!(package.name, "zope-interface");
        assert_eq!(node("{\"name\": \"@a/b\", \"version\": \"1.0.0\"}", "").unwrap().name, "@a/b");
        assert_eq!(node("{\"private\": true}", ""), None);
    }

    #[test]
    fn modules_of_node_are_known_by_where_they_are() {
        assert!(is_module("/app/node_modules/left-pad"));
        assert!(is_module("/app/node_modules/@scope/name"));
        assert!(!is_module("/app/node_modules/left-pad/lib"));
        assert!(!is_module("/app/@scope/name"));
    }
}
