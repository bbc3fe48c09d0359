//! `extends`: a service takes over another one's definition and says what is different.

use std::path::{Path as FsPath, PathBuf};

use engine::builder::NamedBy;

use crate::diagnostic::Diagnostic;
use crate::environment::Variables;
use crate::merge::merge_service;
use crate::paths;
use crate::position::Part;
use crate::schema::suggestion;
use crate::session::{Failed, Session};
use crate::value::{Map, Path, Value};

/// Where the services of a document come from.
pub(crate) struct Origin<'a> {
    /// The file, for messages.
    pub(crate) file: PathBuf,
    /// Where `extends.file` starts.
    pub(crate) directory: PathBuf,
    /// What files are interpolated with.
    pub(crate) environment: &'a Variables,
}

/// A service in a file, to see a circle.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Link {
    file: PathBuf,
    service: String,
}

/// Resolves every `extends` of an expanded document.
pub(crate) fn apply(session: &mut Session, document: &mut Value, origin: &Origin<'_>) -> Result<(), Failed> {
    let Some(services) = document.get("services").and_then(Value::as_map) else { return Ok(()) };
    if !services.values().any(|service| service.get("extends").is_some()) {
        return Ok(());
    }
    let services = services.clone();
    let mut done = Map::new();
    for name in services.keys() {
        let service = resolved(session, &services, name, origin, &mut Vec::new())?;
        done.insert(name.clone(), service);
    }
    if let Some(services) = document.get_mut("services") {
        *services = Value::Map(done);
    }
    Ok(())
}

/// A service with everything it extends merged beneath it.
fn resolved(
    session: &mut Session,
    services: &Map,
    name: &str,
    origin: &Origin<'_>,
    chain: &mut Vec<Link>,
) -> Result<Value, Failed> {
    let Some(service) = services.get(name) else { return Err(Failed) };
    let mut own = service.clone();
    let Some(extends) = own.as_map_mut().and_then(|map| map.remove("extends")) else { return Ok(own) };
    let path = Path::keys(&["services", name, "extends"]);
    let Some(base_name) = extends.get("service").and_then(Value::as_text) else {
        let place = session.locate(&path, Part::Key);
        let message = format!("service {name:?} does not say which service it extends");
        let diagnostic = Diagnostic::error(message).at(place).on(path.to_string());
        return session.fail(diagnostic.with_help("name it, as in `extends: {service: base}`"));
    };
    enter(session, chain, origin, name, &path)?;
    let mut base = match extends.get("file").and_then(Value::as_text) {
        None => {
            known(session, services, base_name, name, &origin.file, &path.key("service"))?;
            resolved(session, services, base_name, origin, chain)?
        }
        Some(file) => from_file(session, file, base_name, name, origin, chain)?,
    };
    chain.pop();
    merge_service(&mut base, own);
    Ok(base)
}

fn enter(
    session: &mut Session,
    chain: &mut Vec<Link>,
    origin: &Origin<'_>,
    name: &str,
    path: &Path,
) -> Result<(), Failed> {
    let link = Link { file: origin.file.clone(), service: name.to_owned() };
    if chain.contains(&link) {
        let mut names: Vec<&str> = chain.iter().map(|link| link.service.as_str()).collect();
        names.push(name);
        let message = format!("services extend each other in a circle: {}", names.join(" -> "));
        let place = session.locate(path, Part::Value);
        return session.fail(Diagnostic::error(message).at(place).on(path.to_string()));
    }
    chain.push(link);
    Ok(())
}

fn known(
    session: &mut Session,
    services: &Map,
    base: &str,
    name: &str,
    file: &FsPath,
    path: &Path,
) -> Result<(), Failed> {
    if services.contains_key(base) {
        return Ok(());
    }
    let shown = file.strip_prefix(&session.shown_from).unwrap_or(file).display();
    let message = format!("service {name:?} extends {base:?}, which is not in {shown}");
    let place = session.locate(path, Part::Value);
    let mut diagnostic = Diagnostic::error(message).at(place).on(path.to_string());
    diagnostic.help = suggestion(base, services.keys().map(String::as_str));
    session.fail(diagnostic)
}

/// The base in another file, with its paths resolved from where that file is.
fn from_file(
    session: &mut Session,
    file: &str,
    base_name: &str,
    name: &str,
    origin: &Origin<'_>,
    chain: &mut Vec<Link>,
) -> Result<Value, Failed> {
    let home = origin.environment.get("HOME").map(String::as_str);
    let path = Path::keys(&["services", name, "extends", "file"]);
    let file = match session.fetch(file, NamedBy::File) {
        Ok(Some(fetched)) => fetched,
        Ok(None) => PathBuf::from(paths::absolute(file, &origin.directory, home)),
        Err(diagnostic) => {
            let place = session.locate(&path, Part::Value);
            return session.fail(diagnostic.at(place).on(path.to_string()));
        }
    };
    if !file.is_file() {
        let place = session.locate(&path, Part::Value);
        let message = format!("service {name:?} extends a service of {}, which is not there", file.display());
        return session.fail(Diagnostic::error(message).at(place).on(path.to_string()));
    }
    let directory = file.parent().map(FsPath::to_path_buf).unwrap_or_default();
    let read = session.read(&file)?;
    let mut services = Value::Map(Map::new());
    for (number, mut document) in read.documents.into_iter().enumerate() {
        session.prepare(read.source, number, &mut document, origin.environment);
        let found = document.as_map_mut().and_then(|map| map.remove("services"));
        let whole = Map::from([("services".to_owned(), found.unwrap_or(Value::Null))]);
        crate::merge::merge(&mut services, Value::Map(whole));
    }
    session.settle()?;
    paths::resolve(&mut services, &directory, home);
    let services = services.get("services").and_then(Value::as_map).cloned().unwrap_or_default();
    let named = Path::keys(&["services", name, "extends", "service"]);
    known(session, &services, base_name, name, &file, &named)?;
    let origin = Origin { file, directory, environment: origin.environment };
    resolved(session, &services, base_name, &origin, chain)
}
