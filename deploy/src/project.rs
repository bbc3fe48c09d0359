//! The user's project made into what hosts run: images by what is in them, files beside the model, nothing that points
//! back to this machine.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use compose::Project;
use compose::canonical;
use compose::desired::can_stand_beside;
use compose::model::{FileObject, Service, ServiceVolume};
use compose::remote::Remote;
use engine::error::{Error, Kind, Result};
use engine::id::Digest;

use crate::message::KeptFile;
use crate::parcel;
use crate::release::{ReleaseId, SentImage, Strategy};
use crate::settings::Transfer;

/// What goes to a host.
#[derive(Debug, Default)]
pub struct Parcel {
    /// The model, in JSON.
    pub model: String,
    /// The files beside it.
    pub files: Vec<Piece>,
    /// What the user should know.
    pub remarks: Vec<String>,
}

/// A file that goes to a host.
pub struct Piece {
    /// What is said of it.
    pub file: KeptFile,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// The longest file or directory that goes along, in bytes. What is larger belongs into an image or a volume.
const LARGEST: u64 = 64 << 20;

/// The services of the project, without those that run elsewhere.
pub fn only(project: &Project, services: Option<&[String]>) -> Project {
    let mut part = project.clone();
    if let Some(services) = services {
        part.services.retain(|name, _| services.contains(name));
        for service in part.services.values_mut() {
            service.depends_on.retain(|other, _| services.contains(other));
        }
    }
    part
}

/// What goes to a host, for services whose built images are these.
///
/// # Errors
/// When a file that the project names cannot be read.
pub fn pack(
    project: &Project,
    built: &BTreeMap<String, SentImage>,
    transfer: Transfer,
    release: &ReleaseId,
) -> Result<Parcel> {
    let pull = if transfer == Transfer::Registry { "missing" } else { "never" };
    let mut packing = Packing { project: project.clone(), release, pull, parcel: Parcel::default() };
    let names: Vec<String> = project.services.keys().cloned().collect();
    project.services.values().try_for_each(only_containers)?;
    for name in names {
        let mut service = packing.project.services.remove(&name).unwrap_or_default();
        packing.service(&name, &mut service, built.get(&name))?;
        packing.project.services.insert(name, service);
    }
    packing.objects()?;
    let Packing { project, mut parcel, .. } = packing;
    parcel.model = canonical::to_json_text(&project);
    Ok(parcel)
}

/// What programs of this machine make available is not on the hosts.
fn only_containers(service: &Service) -> Result<()> {
    let name = &service.name;
    match &service.provider {
        Some(provider) => Err(Error::invalid(format!(
            "service {name} is provided by the program {:?} of this machine, which no host has",
            provider.kind
        ))),
        None if !service.models.is_empty() => Err(Error::invalid(format!(
            "service {name} uses language models, which are served on this machine and on no host"
        ))),
        None => Ok(()),
    }
    .map_err(|error| error.with_hint("give it a profile that is not active where it is deployed"))
}

/// In which order a service's container and its successor stop and start, when nobody says: what two containers cannot
/// share — a volume or directory that is written to, an address, a port that is not a published one — stops first.
pub fn strategy(service: &Service) -> Strategy {
    let writes = service.volumes.iter().any(|volume| match volume {
        ServiceVolume::Volume { source, read_only, .. } => source.is_some() && !read_only,
        ServiceVolume::Bind { source, read_only, .. } => !read_only && !Path::new(source).is_file(),
        _ => false,
    });
    let asked = service.deploy.as_ref().and_then(|deploy| deploy.update_config.as_ref()?.order.as_deref());
    match asked {
        _ if !can_stand_beside(service) => Strategy::StopFirst,
        Some("start-first") => Strategy::StartFirst,
        Some(_) => Strategy::StopFirst,
        None if writes => Strategy::StopFirst,
        None => Strategy::StartFirst,
    }
}

struct Packing<'a> {
    project: Project,
    release: &'a ReleaseId,
    /// The pull policy of images that were built.
    pull: &'static str,
    parcel: Parcel,
}

impl Packing<'_> {
    fn service(&mut self, name: &str, service: &mut Service, built: Option<&SentImage>) -> Result<()> {
        service.profiles.clear();
        service.env_file.clear();
        service.label_file.clear();
        service.develop = None;
        service.build = None;
        if let Some(image) = built {
            service.image = Some(image.name.clone());
            service.pull_policy = Some(self.pull.to_owned());
        }
        for volume in &mut service.volumes {
            if let ServiceVolume::Bind { source, read_only, .. } = volume {
                self.bind(name, source, *read_only)?;
            }
        }
        Ok(())
    }

    /// A file or a directory that is only read goes along when it is in the project's directory. A directory of the
    /// project that is written to stays on the host from release to release.
    fn bind(&mut self, service: &str, source: &mut String, read_only: bool) -> Result<()> {
        let path = PathBuf::from(&*source);
        let Ok(inside) = path.strip_prefix(&self.project.working_dir) else {
            if Remote::of_user().has(&path) {
                let text = format!(
                    "service {service} mounts {}, which was fetched for this machine alone",
                    path.display()
                );
                return Err(Error::new(Kind::Unsupported, text).with_hint(
                    "deploy the project from its own address, -f, or keep the file beside the compose file",
                ));
            }
            return Ok(());
        };
        let place = inside.to_string_lossy().into_owned();
        let kind = fs::symlink_metadata(&path).and_then(|_| fs::metadata(&path));
        match kind {
            Ok(metadata) if metadata.is_file() => {
                let bytes = read(&path, service)?;
                let name = Digest::of(&bytes).hex()[..32].to_owned();
                *source = format!("{}{name}", parcel::FILES);
                self.add(name, metadata.permissions().mode(), false, false, bytes);
            }
            Ok(metadata) if metadata.is_dir() && read_only => {
                let bytes = archive(&path).map_err(|error| unreadable(&path, service, error))?;
                let name = Digest::of(&bytes).hex()[..32].to_owned();
                *source = format!("{}{name}", parcel::FILES);
                self.add(name, 0o755, true, false, bytes);
            }
            kind => {
                *source = format!("{}{place}", parcel::DATA);
                let what = match (kind, read_only) {
                    (Err(_), true) => format!("mounts ./{place}, which is not here"),
                    _ => format!("writes to ./{place}"),
                };
                self.parcel.remarks.push(format!(
                    "service {service} {what}: on a host that is a directory of the project's, which starts empty and stays from release to release"
                ));
            }
        }
        Ok(())
    }

    fn objects(&mut self) -> Result<()> {
        // What a build alone reads is no concern of whoever runs the image.
        let services = &self.project.services;
        let is_seen = |name: &String| {
            services.values().any(|service| service.secrets.iter().any(|secret| secret.source == *name))
        };
        self.project.secrets.retain(|name, _| is_seen(name));
        let environment = self.project.environment.clone();
        let mut secrets = std::mem::take(&mut self.project.secrets);
        for (number, (name, object)) in secrets.iter_mut().enumerate() {
            self.secret(number, name, object, &environment)?;
        }
        self.project.secrets = secrets;
        let mut configs = std::mem::take(&mut self.project.configs);
        for (name, object) in &mut configs {
            self.config(name, object, &environment)?;
        }
        self.project.configs = configs;
        Ok(())
    }

    /// The bytes of a secret are in no model: they go as a file that a host keeps in memory.
    fn secret(
        &mut self,
        number: usize,
        name: &str,
        object: &mut FileObject,
        environment: &BTreeMap<String, String>,
    ) -> Result<()> {
        let Some((bytes, mode)) = contents("secret", name, object, environment)? else { return Ok(()) };
        let place = format!("{}/{number}", self.release);
        object.file = Some(format!("{}{place}", parcel::SECRETS));
        (object.environment, object.content) = (None, None);
        self.add(place, mode, false, true, bytes);
        Ok(())
    }

    fn config(
        &mut self,
        name: &str,
        object: &mut FileObject,
        environment: &BTreeMap<String, String>,
    ) -> Result<()> {
        if object.content.is_some() {
            return Ok(());
        }
        let Some((bytes, mode)) = contents("config", name, object, environment)? else { return Ok(()) };
        let digest = Digest::of(&bytes).hex()[..32].to_owned();
        object.file = Some(format!("{}{digest}", parcel::FILES));
        object.environment = None;
        self.add(digest, mode, false, false, bytes);
        Ok(())
    }

    fn add(&mut self, name: String, mode: u32, directory: bool, secret: bool, bytes: Vec<u8>) {
        let size = bytes.len() as u64;
        let file = KeptFile { name, mode: mode & 0o777, directory, secret, size };
        self.parcel.files.push(Piece { file, bytes });
    }
}

fn contents(
    kind: &str,
    name: &str,
    object: &FileObject,
    environment: &BTreeMap<String, String>,
) -> Result<Option<(Vec<u8>, u32)>> {
    if object.external {
        return Err(Error::invalid(format!("{kind} {name} is external, which needs a cluster")));
    }
    if let Some(variable) = &object.environment {
        let value = environment.get(variable).ok_or_else(|| {
            Error::invalid(format!("{kind} {name}: the environment variable {variable} is not set"))
        })?;
        return Ok(Some((value.clone().into_bytes(), 0o444)));
    }
    if let Some(content) = &object.content {
        return Ok(Some((content.clone().into_bytes(), 0o444)));
    }
    let Some(file) = &object.file else { return Ok(None) };
    let path = Path::new(file);
    let failed = |error| Error::failed(format!("{kind} {name}: read {}", path.display()), error);
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
    Ok(Some((fs::read(path).map_err(failed)?, mode)))
}

fn read(path: &Path, service: &str) -> Result<Vec<u8>> {
    let size = fs::metadata(path).map_err(|error| unreadable(path, service, error))?.len();
    if size > LARGEST {
        return Err(too_large(path, service));
    }
    fs::read(path).map_err(|error| unreadable(path, service, error))
}

fn unreadable(path: &Path, service: &str, error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::FileTooLarge {
        return too_large(path, service);
    }
    Error::failed(format!("service {service}: read {}", path.display()), error)
}

fn too_large(path: &Path, service: &str) -> Error {
    Error::invalid(format!(
        "service {service}: {} is too large to go along with each release",
        path.display()
    ))
    .with_hint("put it into the image, or into a volume on the host")
}

/// A tar of a directory that is the same whenever the directory is.
fn archive(directory: &Path) -> io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    builder.mode(tar::HeaderMode::Deterministic);
    builder.follow_symlinks(false);
    append(&mut builder, directory, Path::new(""))?;
    builder.into_inner()
}

fn append(builder: &mut tar::Builder<Vec<u8>>, directory: &Path, inside: &Path) -> io::Result<()> {
    let mut entries: Vec<fs::DirEntry> = fs::read_dir(directory)?.collect::<io::Result<_>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), inside.join(entry.file_name()));
        builder.append_path_with_name(&path, &name)?;
        if entry.file_type()?.is_dir() {
            append(builder, &path, &name)?;
        }
        if builder.get_ref().len() as u64 > LARGEST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
    }
    Ok(())
}

/// Never shows the bytes, which may be a secret.
impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Piece").field(&self.file).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_of_this_machine_provide_is_refused() {
        let refused = |service: &str| {
            let service: Service = serde_json::from_str(service).unwrap();
            only_containers(&service).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(refused(r#"{"image": "box"}"#), "");
        assert!(refused(r#"{"provider": {"type": "cloud"}}"#).contains("provided by the program \"cloud\""));
        assert!(refused(r#"{"image": "box", "models": {"llm": {}}}"#).contains("uses language models"));
    }
}
