//! Where registry secrets come from and where `login` keeps them: docker's configuration file, its credential
//! helpers, and the file podman and skopeo use. Secrets are never printed and files are the owner's alone (0600).

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::image::reference::DEFAULT_REGISTRY;
use crate::image::registry::RegistryError;
use crate::store::{Durability, write_atomic};

/// Who somebody is to a registry.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// A user and a password or access token.
    Basic { username: String, password: String },
    /// An identity token, exchanged for access tokens.
    Identity(String),
    /// A token that is sent as it is.
    Bearer(String),
}

/// Who asks a registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The registry, `host[:port]`.
    pub registry: String,
    /// The name.
    pub username: String,
    /// The password or token.
    pub password: String,
}

/// Why credentials could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file with credentials.
    #[error("{step} the credentials in {path}")]
    File {
        /// What was done.
        step: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A credential helper.
    #[error("the credential helper {helper} failed: {message}")]
    Helper {
        /// Which.
        helper: String,
        /// What it said.
        message: String,
    },
    /// There is nowhere to keep them.
    #[error("there is no place for credentials: neither HOME nor DOCKER_CONFIG is set")]
    Nowhere,
    /// The registry did not take them.
    #[error("{registry} does not take this user name and password: {message}")]
    Refused {
        /// The registry.
        registry: String,
        /// What it said.
        message: String,
    },
    /// The registry could not be asked.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// A file of credentials: docker's `config.json` or podman's `auth.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AuthFile {
    auths: std::collections::BTreeMap<String, Entry>,
    cred_helpers: std::collections::BTreeMap<String, String>,
    creds_store: String,
    proxies: std::collections::BTreeMap<String, Proxies>,
}

/// How containers and builds reach the world, as docker's command line tells them (`proxies` in its configuration).
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Proxies {
    http_proxy: String,
    https_proxy: String,
    ftp_proxy: String,
    no_proxy: String,
    all_proxy: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// Docker's file of credentials, in its directory.
const FILE: &str = "config.json";

/// The key docker keeps its own registry's credentials under.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// What helpers say when they know nothing.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// Asks the registry whether it takes these credentials, and keeps them if it does: with the credential helper that the
/// configuration names, else in the file that is returned.
pub fn login(server: &str, username: &str, password: &str) -> Result<Option<PathBuf>, CredentialsError> {
    let registry = host(server);
    let credentials = Credentials::Basic { username: username.to_owned(), password: password.to_owned() };
    check(&registry, &credentials)?;
    let path = file_to_write().ok_or(CredentialsError::Nowhere)?;
    let Some(helper) = read(&path)?.helper(&registry) else {
        let auth = STANDARD.encode(format!("{username}:{password}"));
        change(&path, |auths| drop(auths.insert(key(&registry), json!({ "auth": auth }))))?;
        return Ok(Some(path));
    };
    let secret = json!({ "ServerURL": key(&registry), "Username": username, "Secret": password });
    call_helper(&helper, "store", &secret.to_string())?;
    // That there are some, and none of them.
    change(&path, |auths| drop(auths.insert(key(&registry), json!({}))))?;
    Ok(None)
}

/// Asks the registry whether it takes what was kept for it; `None` when nothing was.
pub fn try_kept(server: &str) -> Result<Option<()>, CredentialsError> {
    let registry = host(server);
    find(&registry, "")?.map(|credentials| check(&registry, &credentials)).transpose()
}

fn check(registry: &str, credentials: &Credentials) -> Result<(), CredentialsError> {
    super::registry::check(registry, credentials).map_err(|error| match error {
        RegistryError::Denied { host, message, .. } => CredentialsError::Refused { registry: host, message },
        other => other.into(),
    })
}

/// Forgets a registry's credentials; having none is fine.
pub fn remove(server: &str) -> Result<(), CredentialsError> {
    let registry = host(server);
    let path = file_to_write().ok_or(CredentialsError::Nowhere)?;
    if !path.exists() {
        return Ok(());
    }
    if let Some(helper) = read(&path)?.helper(&registry) {
        call_helper(&helper, "erase", &key(&registry))?;
    }
    change(&path, |auths| auths.retain(|known, _| host(known) != registry))
}

/// What [`give`] was given.
static GIVEN: OnceLock<Vec<Login>> = OnceLock::new();

/// Has this process use these before all that is kept, and keeps them nowhere. Only the first call counts.
pub fn give(logins: Vec<Login>) {
    // Somebody who gave some before meant those.
    let _ = GIVEN
        .set(logins.into_iter().map(|login| Login { registry: host(&login.registry), ..login }).collect());
}

/// What [`keep_credentials_in`] was told.
static KEPT_IN: OnceLock<PathBuf> = OnceLock::new();

/// Has this process look for credentials in the `config.json` of this directory first, and keep them there. Only the
/// first call counts.
pub fn keep_credentials_in(directory: PathBuf) {
    // Somebody who named one before meant that.
    let _ = KEPT_IN.set(directory);
}

/// The credentials for a repository of a registry, if there are any.
pub(crate) fn find(registry: &str, repository: &str) -> Result<Option<Credentials>, CredentialsError> {
    if let Some(login) = GIVEN.get().into_iter().flatten().find(|login| login.registry == registry) {
        let Login { username, password, .. } = login.clone();
        return Ok(Some(Credentials::Basic { username, password }));
    }
    if let Ok(text) = std::env::var("DOCKER_AUTH_CONFIG")
        && let Ok(file) = serde_json::from_str::<AuthFile>(&text)
        && let Some(found) = file.find(registry, repository)?
    {
        return Ok(Some(found));
    }
    for path in files_to_read() {
        if let Some(found) = read(&path)?.find(registry, repository)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The credentials for a repository, from these or from what `login` has kept.
pub(crate) fn find_among(
    logins: &[Login],
    registry: &str,
    repository: &str,
) -> Result<Option<Credentials>, CredentialsError> {
    let given = logins.iter().find(|login| host(&login.registry) == registry);
    match given {
        Some(Login { username, password, .. }) => {
            Ok(Some(Credentials::Basic { username: username.clone(), password: password.clone() }))
        }
        None => find(registry, repository),
    }
}

/// What `login` has kept for a registry, for another machine that has to ask it. Tokens that cannot be handed on as a
/// name and a password are left out.
///
/// # Errors
/// When a file cannot be read or a credential helper fails.
pub fn kept_login(registry: &str, repository: &str) -> Result<Option<Login>, CredentialsError> {
    Ok(match find(registry, repository)? {
        Some(Credentials::Basic { username, password }) => {
            Some(Login { registry: registry.to_owned(), username, password })
        }
        _ => None,
    })
}

// === impl Login ===

/// Never shows the password.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("registry", &self.registry)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

// === impl Credentials ===

/// Says who, never what.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { username, .. } => write!(f, "Basic({username:?})"),
            Self::Identity(_) => f.write_str("Identity"),
            Self::Bearer(_) => f.write_str("Bearer"),
        }
    }
}

// === impl AuthFile ===

impl AuthFile {
    fn find(&self, registry: &str, repository: &str) -> Result<Option<Credentials>, CredentialsError> {
        if let Some(helper) = self.helper(registry)
            && let Some(found) = ask_helper(&helper, &key(registry))?
        {
            return Ok(Some(found));
        }
        // The longest key wins: podman's files have keys down to a repository.
        let full = format!("{registry}/{repository}");
        let best = self
            .auths
            .iter()
            .filter(|(known, _)| host(known) == registry && serves(known, &full))
            .max_by_key(|(known, _)| path_of(known).len());
        Ok(best.and_then(|(_, entry)| entry.credentials()))
    }

    /// The program that keeps a registry's credentials.
    fn helper(&self, registry: &str) -> Option<String> {
        let named =
            self.cred_helpers.iter().find(|(known, _)| host(known) == registry).map(|(_, helper)| helper);
        named.or(Some(&self.creds_store)).filter(|helper| !helper.is_empty()).cloned()
    }
}

// === impl Entry ===

impl Entry {
    fn credentials(&self) -> Option<Credentials> {
        if !self.registrytoken.is_empty() {
            return Some(Credentials::Bearer(self.registrytoken.clone()));
        }
        if !self.identitytoken.is_empty() {
            return Some(Credentials::Identity(self.identitytoken.clone()));
        }
        if self.auth.is_empty() {
            let (username, password) = (self.username.clone(), self.password.clone());
            return (!username.is_empty()).then_some(Credentials::Basic { username, password });
        }
        let text = String::from_utf8(STANDARD.decode(self.auth.trim()).ok()?).ok()?;
        let (username, password) = text.split_once(':')?;
        let password = password.trim_end_matches('\0').to_owned();
        Some(Credentials::Basic { username: username.to_owned(), password })
    }
}

/// The registry a server or a key of a file means: without scheme and path, and docker's own by one name.
fn host(server: &str) -> String {
    let bare = server.trim_start_matches("https://").trim_start_matches("http://");
    let bare = bare.split('/').next().unwrap_or(bare);
    match bare {
        "" | "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => {
            DEFAULT_REGISTRY.to_owned()
        }
        other => other.to_owned(),
    }
}

fn key(registry: &str) -> String {
    if registry == DEFAULT_REGISTRY { DOCKER_HUB_KEY.to_owned() } else { registry.to_owned() }
}

/// What a key has behind the host; docker's `/v1/` and `/v2/` are no part of a repository.
fn path_of(known: &str) -> &str {
    let bare = known.trim_start_matches("https://").trim_start_matches("http://");
    let path = bare.split_once('/').map_or("", |(_, path)| path.trim_end_matches('/'));
    if matches!(path, "v1" | "v2") { "" } else { path }
}

fn serves(known: &str, full: &str) -> bool {
    let path = path_of(known);
    let repository = full.split_once('/').map_or("", |(_, repository)| repository);
    path.is_empty() || repository == path || repository.starts_with(&format!("{path}/"))
}

/// What a helper knows of a server: JSON on its output.
fn ask_helper(helper: &str, server: &str) -> Result<Option<Credentials>, CredentialsError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let Some(output) = call_helper(helper, "get", server)? else { return Ok(None) };
    let Answer { username, secret } = serde_json::from_slice(&output).map_err(|_| {
        CredentialsError::Helper { helper: helper.to_owned(), message: "its answer is not JSON".to_owned() }
    })?;
    Ok(Some(match username.as_str() {
        "<token>" => Credentials::Identity(secret),
        _ => Credentials::Basic { username, password: secret },
    }))
}

/// `docker-credential-<helper> <verb>`, with what it is about on its standard input. `None` when it knows nothing of that.
fn call_helper(helper: &str, verb: &str, input: &str) -> Result<Option<Vec<u8>>, CredentialsError> {
    let fail = |message: String| CredentialsError::Helper { helper: helper.to_owned(), message };
    let mut child = Command::new(format!("docker-credential-{helper}"))
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| fail(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read its input answers all the same.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| fail(error.to_string()))?;
    if output.status.success() {
        return Ok(Some(output.stdout));
    }
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if said.contains(NOT_FOUND) { Ok(None) } else { Err(fail(said)) }
}

/// The proxies of docker's configuration file for builds and containers, as variables: `HTTP_PROXY` and its kin. There are none in a
/// file that cannot be read, of which those tell who need something else of it.
pub(crate) fn proxies() -> Vec<(&'static str, String)> {
    let file = file_asked_for().or_else(docker_file).and_then(|path| read(&path).ok());
    let Some(mut found) = file.and_then(|mut file| file.proxies.remove("default")) else { return Vec::new() };
    let take = |value: &mut String| std::mem::take(value);
    let mut proxies = vec![
        ("HTTP_PROXY", take(&mut found.http_proxy)),
        ("HTTPS_PROXY", take(&mut found.https_proxy)),
        ("FTP_PROXY", take(&mut found.ftp_proxy)),
        ("NO_PROXY", take(&mut found.no_proxy)),
        ("ALL_PROXY", take(&mut found.all_proxy)),
    ];
    proxies.retain(|(_, value)| !value.is_empty());
    proxies
}

/// The same for containers, `NAME=VALUE`: each under both of the names that it goes by, since many a program reads only
/// one of them, but for the names that something is asked of.
pub fn proxy_variables(is_asked: impl Fn(&str) -> bool) -> Vec<String> {
    let both =
        |(name, value): (&str, String)| [(name.to_owned(), value.clone()), (name.to_lowercase(), value)];
    let others = proxies().into_iter().flat_map(both).filter(|(name, _)| !is_asked(name));
    others.map(|(name, value)| format!("{name}={value}")).collect()
}

fn files_to_read() -> Vec<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(|run| Path::new(&run).join("containers/auth.json"));
    let named = std::env::var_os("REGISTRY_AUTH_FILE").map(PathBuf::from);
    file_asked_for().into_iter().chain(named).chain(docker_file()).chain(runtime).collect()
}

fn file_to_write() -> Option<PathBuf> {
    file_asked_for()
        .or_else(|| std::env::var_os("REGISTRY_AUTH_FILE").map(PathBuf::from))
        .or_else(docker_file)
}

fn file_asked_for() -> Option<PathBuf> {
    KEPT_IN.get().map(|directory| directory.join(FILE))
}

fn docker_file() -> Option<PathBuf> {
    let directory = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let home = || {
        std::env::var_os("HOME").filter(|home| !home.is_empty()).map(|home| Path::new(&home).join(".docker"))
    };
    directory.or_else(home).map(|directory| directory.join(FILE))
}

/// A file's content; one that is not there has none.
fn read(path: &Path) -> Result<AuthFile, CredentialsError> {
    let fail = |source| CredentialsError::File { step: "read", path: path.to_owned(), source };
    match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(AuthFile::default()),
        other => serde_json::from_slice(&other.map_err(fail)?).map_err(|error| fail(error.into())),
    }
}

/// Changes the `auths` of a file and leaves the rest of it as it is.
fn change(path: &Path, edit: impl FnOnce(&mut Map<String, Value>)) -> Result<(), CredentialsError> {
    let fail = |step| move |source| CredentialsError::File { step, path: path.to_owned(), source };
    let mut file: Map<String, Value> = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Map::new(),
        other => serde_json::from_slice(&other.map_err(fail("read"))?)
            .map_err(|error| fail("read")(error.into()))?,
    };
    let auths = file.entry("auths").or_insert_with(|| json!({}));
    if !auths.is_object() {
        *auths = json!({});
    }
    if let Some(auths) = auths.as_object_mut() {
        edit(auths);
    }
    let mut text = Vec::new();
    // With tabs, as docker writes it: people keep this file under version control.
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    file.serialize(&mut serializer).map_err(|error| fail("write")(error.into()))?;
    if let Some(directory) = path.parent() {
        crate::store::private_directory(directory).map_err(fail("write"))?;
    }
    // Keeping a symbolic link a link: people keep the file elsewhere.
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    write_atomic(&target, &text, 0o600, Durability::Sync).map_err(fail("write"))
}

impl From<CredentialsError> for crate::Error {
    fn from(error: CredentialsError) -> Self {
        match error {
            CredentialsError::Registry(error) => error.into(),
            CredentialsError::Refused { .. } => crate::Error::new(crate::Kind::Denied, error.to_string()),
            other => crate::Error::failed(other.to_string(), other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn file(text: &str) -> AuthFile {
        serde_json::from_str(text).unwrap()
    }

    fn user(file: &AuthFile, registry: &str, repository: &str) -> Option<String> {
        file.find(registry, repository).unwrap().map(|found| match found {
            Credentials::Basic { username, password } => format!("{username}:{password}"),
            other => format!("{other:?}"),
        })
    }

    #[test]
    fn a_registrys_credentials_are_found_under_every_form_of_its_name() {
        let auth = STANDARD.encode("me:se:cret");
        let file = file(&format!(
            r#"{{"auths": {{"https://index.docker.io/v1/": {{"auth": "{auth}"}},
                "ghcr.io": {{"auth": "{auth}"}}, "https://quay.io/v2/": {{"identitytoken": "t"}},
                "reg:5000/team": {{"username": "team", "password": "p"}}, "reg:5000": {{"username": "all", "password": "p"}}}}}}"#
        ));
        assert_eq!(user(&file, "docker.io", "library/x").unwrap(), "me:se:cret");
        assert_eq!(user(&file, "ghcr.io", "x").unwrap(), "me:se:cret");
        assert_eq!(user(&file, "quay.io", "x").unwrap(), "Identity");
        assert_eq!(user(&file, "reg:5000", "team/app").unwrap(), "team:p");
        assert_eq!(user(&file, "reg:5000", "teammate/app").unwrap(), "all:p");
        assert_eq!(user(&file, "elsewhere.io", "x"), None);
    }

    #[test]
    fn a_file_keeps_what_is_not_ours_and_belongs_to_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/config.json");
        change(&path, |auths| drop(auths.insert("a".into(), json!({"auth": "x"})))).unwrap();
        let text = std::fs::read_to_string(&path).unwrap().replacen('{', r#"{"psFormat": "kept","#, 1);
        std::fs::write(&path, text).unwrap();
        change(&path, |auths| drop(auths.insert("b".into(), json!({"auth": "y"})))).unwrap();
        let file: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(file["psFormat"], "kept");
        assert_eq!(file["auths"].as_object().unwrap().len(), 2);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn secrets_are_not_in_debug_output() {
        let text = format!("{:?}", Credentials::Basic { username: "me".into(), password: "hush".into() });
        assert!(!text.contains("hush"), "{text}");
    }
}
