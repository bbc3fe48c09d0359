//! Relative paths become absolute ones. Nothing is asked of the file system but links below a watched path.

use std::path::{Path as FsPath, PathBuf};

use crate::shorthand::clean;
use crate::value::{Map, Value};

/// Resolves every path of an expanded document against a directory; `~` is `home`.
pub(crate) fn resolve(document: &mut Value, base: &FsPath, home: Option<&str>) {
    let resolver = Resolver { base, home };
    if let Some(services) = document.get_mut("services").and_then(Value::as_map_mut) {
        for service in services.values_mut() {
            resolver.service(service);
        }
    }
    for section in ["configs", "secrets"] {
        for object in entries(document, section) {
            resolver.field(object, "file");
        }
    }
    for volume in entries(document, "volumes") {
        let is_local = volume.get("driver").and_then(Value::as_text).is_none_or(|driver| driver == "local");
        if let Some(options) = volume.get_mut("driver_opts").filter(|_| is_local)
            && options.get("o").and_then(Value::as_text).is_some_and(|o| o.split(',').any(|o| o == "bind"))
        {
            resolver.field(options, "device");
        }
    }
}

/// One path as [`resolve`] would do it.
pub(crate) fn absolute(text: &str, base: &FsPath, home: Option<&str>) -> String {
    Resolver { base, home }.path(text)
}

/// Whether a build context is fetched and not a directory here.
pub fn is_remote(context: &str) -> bool {
    const SCHEMES: [&str; 7] =
        ["https://", "http://", "git://", "ssh://", "github.com/", "git@", "docker-image://"];
    context == "-"
        || SCHEMES.iter().any(|scheme| context.starts_with(scheme))
        || context.contains("://")
        || context.starts_with("service:")
}

struct Resolver<'a> {
    base: &'a FsPath,
    home: Option<&'a str>,
}

// === impl Resolver ===

impl Resolver<'_> {
    fn path(&self, text: &str) -> String {
        let expanded = match (text.strip_prefix('~'), self.home) {
            (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => format!("{home}{rest}"),
            _ => text.to_owned(),
        };
        if expanded.starts_with('/') {
            clean(&expanded)
        } else {
            clean(&format!("{}/{expanded}", self.base.display()))
        }
    }

    fn text(&self, value: &mut Value) {
        if let Value::Text(text) = value
            && !text.is_empty()
        {
            *text = self.path(text);
        }
    }

    fn field(&self, value: &mut Value, key: &str) {
        if let Some(value) = value.get_mut(key) {
            self.text(value);
        }
    }

    fn service(&self, service: &mut Value) {
        if let Some(build) = service.get_mut("build") {
            self.build(build);
        }
        for file in items(service, "env_file") {
            self.field(file, "path");
        }
        items(service, "label_file").iter_mut().for_each(|file| self.text(file));
        for volume in items(service, "volumes") {
            if volume.get("type").and_then(Value::as_text) == Some("bind") {
                self.field(volume, "source");
            }
        }
        if let Some(develop) = service.get_mut("develop") {
            for rule in items(develop, "watch") {
                self.field(rule, "path");
                if let Some(Value::Text(text)) = rule.get_mut("path")
                    && let Ok(real) = PathBuf::from(&*text).canonicalize()
                {
                    *text = real.display().to_string();
                }
            }
        }
    }

    fn build(&self, build: &mut Value) {
        if let Some(Value::Text(context)) = build.get_mut("context")
            && !is_remote(context)
        {
            *context = self.path(context);
        }
        if let Some(contexts) = build.get_mut("additional_contexts").and_then(Value::as_map_mut) {
            for context in contexts.values_mut() {
                if !context.as_text().is_some_and(is_remote) {
                    self.text(context);
                }
            }
        }
        if let Some(keys) = build.get_mut("ssh").and_then(Value::as_map_mut) {
            keys.values_mut().for_each(|key| self.text(key));
        }
    }
}

fn items<'a>(value: &'a mut Value, key: &str) -> &'a mut [Value] {
    match value.get_mut(key) {
        Some(Value::List(items)) => items,
        _ => &mut [],
    }
}

fn entries<'a>(document: &'a mut Value, section: &str) -> impl Iterator<Item = &'a mut Value> {
    document.get_mut(section).and_then(Value::as_map_mut).into_iter().flat_map(Map::values_mut)
}
