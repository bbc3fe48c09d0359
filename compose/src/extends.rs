//! `extends`: a service takes over another one's definition and says what is different.

use std::collections::BTreeMap;
use std::path::{Path as FsPath, PathBuf};

use engine::builder::NamedBy;

use crate::diagnostic::Diagnostic;
use crate::environment::Environment;
use crate::merge::{merge, merge_service};
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
    pub(crate) environment: &'a Environment,
}

/// Resolves every `extends` of an expanded document. What cannot be stays there, unknown.
pub(crate) fn apply(session: &mut Session, document: &mut Value, origin: Origin<'_>) {
    let Some(services) = document.get_mut("services").and_then(Value::as_map_mut) else { return };
    if !services.values().any(|service| service.get("extends").is_some()) {
        return;
    }
    let names: Vec<String> = services.keys().cloned().collect();
    let services_of_document = std::mem::take(services);
    let mut family = Family {
        session,
        environment: origin.environment,
        homes: vec![Home {
            file: origin.file,
            directory: origin.directory,
            services: services_of_document,
            is_whole: true,
            resolved: BTreeMap::new(),
        }],
        by_file: BTreeMap::new(),
        chain: Vec::new(),
    };
    for name in &names {
        family.resolve(0, name);
    }
    *services = std::mem::take(&mut family.homes[0].resolved);
}

/// Services that extend each other, and the files that they are in. Each file is read once, each service resolved once.
struct Family<'a> {
    session: &'a mut Session,
    environment: &'a Environment,
    homes: Vec<Home>,
    /// Where each file is among them; `None` when it cannot be read.
    by_file: BTreeMap<PathBuf, Option<usize>>,
    /// The services that extend each other down to here, by home and name.
    chain: Vec<(usize, String)>,
}

/// A file with services.
struct Home {
    file: PathBuf,
    /// Where its `extends.file` starts.
    directory: PathBuf,
    /// The services as they are written.
    services: Map,
    /// Whether those are all.
    is_whole: bool,
    /// Those with what they extend merged beneath them.
    resolved: Map,
}

// === impl Family ===

impl Family<'_> {
    /// Merges what a service extends beneath it. When that cannot be had, its `extends` is unknown.
    fn resolve(&mut self, home: usize, name: &str) {
        if self.homes[home].resolved.contains_key(name) {
            return;
        }
        let Some(mut own) = self.homes[home].services.get(name).cloned() else { return };
        if let Some(extends) = own.as_map_mut().and_then(|map| map.remove("extends")) {
            match self.base(home, name, &extends) {
                Ok(mut base) => {
                    merge_service(&mut base, own);
                    own = base;
                }
                Err(Failed) => own.say_unknown("extends"),
            }
        }
        self.homes[home].resolved.insert(name.to_owned(), own);
    }

    /// The service that another one extends, resolved.
    fn base(&mut self, home: usize, name: &str, extends: &Value) -> Result<Value, Failed> {
        // What is wrong with it has been told.
        if extends.holds_unknown() {
            return Err(Failed);
        }
        let path = Path::keys(&["services", name, "extends"]);
        let Some(base) = extends.get("service").and_then(Value::as_text) else {
            let message = format!("service {name:?} does not say which service it extends");
            let diagnostic =
                Diagnostic::error(message).with_help("name it, as in `extends: {service: base}`");
            return self.refuse(&path, Part::Key, diagnostic);
        };
        self.enter(home, name, &path)?;
        let found = match extends.get("file").and_then(Value::as_text) {
            None => Ok(home),
            Some(file) => self.home_in(home, file, name, &path.key("file")),
        };
        let found = found.and_then(|of_base| self.resolved(of_base, base, name, &path.key("service")));
        self.chain.pop();
        found
    }

    fn refuse<T>(&mut self, path: &Path, part: Part, diagnostic: Diagnostic) -> Result<T, Failed> {
        let place = self.session.locate(path, part);
        self.session.fail(diagnostic.at(place).on(path.to_string()))
    }

    fn enter(&mut self, home: usize, name: &str, path: &Path) -> Result<(), Failed> {
        let is_this = |link: &(usize, String)| link.0 == home && link.1 == name;
        if self.chain.iter().any(is_this) {
            let mut names: Vec<&str> = self.chain.iter().map(|(_, service)| service.as_str()).collect();
            names.push(name);
            let message = format!("services extend each other in a circle: {}", names.join(" -> "));
            return self.refuse(path, Part::Value, Diagnostic::error(message));
        }
        self.chain.push((home, name.to_owned()));
        Ok(())
    }

    fn resolved(&mut self, home: usize, base: &str, name: &str, path: &Path) -> Result<Value, Failed> {
        self.resolve(home, base);
        let Home { file, services, is_whole, resolved, .. } = &self.homes[home];
        if let Some(found) = resolved.get(base) {
            return if *found == Value::Unknown { Err(Failed) } else { Ok(found.clone()) };
        }
        if !is_whole {
            return Err(Failed);
        }
        let shown = file.strip_prefix(&self.session.shown_from).unwrap_or(file).display();
        let message = format!("service {name:?} extends {base:?}, which is not in {shown}");
        let mut diagnostic = Diagnostic::error(message);
        diagnostic.help = suggestion(base, services.keys().map(String::as_str));
        self.refuse(path, Part::Value, diagnostic)
    }

    /// The home of the services of another file.
    fn home_in(&mut self, home: usize, file: &str, name: &str, path: &Path) -> Result<usize, Failed> {
        let environment = self.environment;
        let user = environment.variables.get("HOME").map(String::as_str);
        let file = match self.session.fetch(file, NamedBy::File) {
            Ok(Some(fetched)) => fetched,
            Ok(None) => PathBuf::from(paths::absolute(file, &self.homes[home].directory, user)),
            Err(diagnostic) => return self.refuse(path, Part::Value, *diagnostic),
        };
        if !file.is_file() {
            let message =
                format!("service {name:?} extends a service of {}, which is not there", file.display());
            return self.refuse(path, Part::Value, Diagnostic::error(message));
        }
        if let Some(known) = self.by_file.get(&file) {
            return known.ok_or(Failed);
        }
        let opened = self.open(&file, user);
        let home = opened.map(|home| {
            self.homes.push(home);
            self.homes.len() - 1
        });
        self.by_file.insert(file, home);
        home.ok_or(Failed)
    }

    /// Reads a file's services, with their paths resolved from where the file is. What is wrong in it is told.
    fn open(&mut self, file: &FsPath, user: Option<&str>) -> Option<Home> {
        let directory = file.parent().map(FsPath::to_path_buf).unwrap_or_default();
        let read = self.session.read(file).ok()?;
        let mut whole = Value::Map(Map::new());
        for (number, mut document) in read.documents.into_iter().enumerate() {
            self.session.prepare(read.source, number, &mut document, self.environment);
            let found = document.as_map_mut().and_then(|map| map.remove("services"));
            // A key that nobody knows may have been meant to be `services`.
            let found = if document.holds_unknown() { found.or(Some(Value::Unknown)) } else { found };
            merge(&mut whole, Value::Map(Map::from([("services".to_owned(), found.unwrap_or(Value::Null))])));
        }
        paths::resolve(&mut whole, &directory, user);
        let is_whole = whole.get("services") != Some(&Value::Unknown);
        let services = whole.as_map_mut().and_then(|map| map.remove("services"));
        let services = match services {
            Some(Value::Map(services)) => services,
            _ => Map::new(),
        };
        let file = file.to_path_buf();
        Some(Home { file, directory, services, is_whole, resolved: Map::new() })
    }
}
