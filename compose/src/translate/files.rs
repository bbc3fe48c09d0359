//! Secrets and configurations: where their bytes come from, and how they appear in a container.

use std::path::PathBuf;

use engine::container::spec::{MountSource, MountSpec, Propagation};

use super::{Circumstances, Of, TranslateError};
use crate::model::{FileObject, FileReference, Project};

/// A file that has to be written, for the owner alone, before the container is made.
#[derive(Clone, PartialEq, Eq)]
pub struct ContentFile {
    /// Where, on tmpfs.
    pub path: PathBuf,
    /// What.
    pub bytes: Vec<u8>,
}

/// The bytes may be a secret and never reach a log.
impl std::fmt::Debug for ContentFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ContentFile({}, {} bytes)", self.path.display(), self.bytes.len())
    }
}

/// The two kinds, which differ in where they appear.
#[derive(Clone, Copy)]
enum Kind {
    Secret,
    Config,
}

/// The mounts of all secrets and configurations of a service, and the files behind them.
pub(super) fn mounts(
    project: &Project,
    of: &Of<'_>,
    around: &Circumstances<'_>,
) -> Result<(Vec<MountSpec>, Vec<ContentFile>), TranslateError> {
    let mut mounts = Vec::new();
    let mut files = Vec::new();
    let all = of
        .service
        .secrets
        .iter()
        .map(|reference| (Kind::Secret, reference, project.secrets.get(&reference.source)))
        .chain(
            of.service
                .configs
                .iter()
                .map(|reference| (Kind::Config, reference, project.configs.get(&reference.source))),
        );
    for (kind, reference, object) in all {
        let object =
            object.ok_or_else(|| of.wrong(kind.key(), &format!("{:?} is not defined", reference.source)))?;
        let source = match bytes(project, of, kind, reference, object)? {
            None => from_file(of, kind, reference, object)?,
            Some(bytes) => {
                let path = around.contents.join(format!("{}.{}", kind.key(), reference.source));
                files.push(ContentFile { path: path.clone(), bytes });
                content(of, kind, reference, path)?
            }
        };
        mounts.push(MountSpec { target: kind.target(reference), source, read_only: true });
    }
    Ok((mounts, files))
}

/// The bytes that are in no file; `None` when they are in one.
fn bytes(
    project: &Project,
    of: &Of<'_>,
    kind: Kind,
    reference: &FileReference,
    object: &FileObject,
) -> Result<Option<Vec<u8>>, TranslateError> {
    if object.external {
        let problem = format!("{:?} is external, which needs a cluster", reference.source);
        return Err(of.wrong(kind.key(), &problem));
    }
    if let Some(variable) = &object.environment {
        let value = project.environment.get(variable).ok_or_else(|| {
            let problem =
                format!("environment variable {variable:?} required by {:?} is not set", reference.source);
            of.wrong(kind.key(), &problem)
        })?;
        return Ok(Some(value.clone().into_bytes()));
    }
    Ok(object.content.clone().map(String::into_bytes))
}

/// A file of the user's: bound as it is, or shown with another owner or mode when the service asks for that.
fn from_file(
    of: &Of<'_>,
    kind: Kind,
    reference: &FileReference,
    object: &FileObject,
) -> Result<MountSource, TranslateError> {
    let path = object
        .file
        .as_ref()
        .map(PathBuf::from)
        .ok_or_else(|| of.wrong(kind.key(), &format!("{:?} has no source", reference.source)))?;
    if reference.uid.is_some() || reference.gid.is_some() || reference.mode.is_some() {
        return content(of, kind, reference, path);
    }
    Ok(MountSource::Bind {
        path,
        create: false,
        propagation: Propagation::Rprivate,
        recursive: true,
        writable_below: false,
    })
}

fn content(
    of: &Of<'_>,
    kind: Kind,
    reference: &FileReference,
    file: PathBuf,
) -> Result<MountSource, TranslateError> {
    let number = |text: &Option<String>| match text {
        None => Ok(0),
        Some(text) => text
            .parse()
            .map_err(|_| of.wrong(kind.key(), &format!("{text:?} is no number of a user or group"))),
    };
    Ok(MountSource::Content {
        file,
        // Nobody may write to it, whatever the file says.
        mode: reference.mode.unwrap_or(0o444) & !0o222,
        uid: number(&reference.uid)?,
        gid: number(&reference.gid)?,
    })
}

// === impl Kind ===

impl Kind {
    fn key(self) -> &'static str {
        match self {
            Self::Secret => "secrets",
            Self::Config => "configs",
        }
    }

    fn target(self, reference: &FileReference) -> PathBuf {
        let target = reference.target.as_deref().filter(|target| !target.is_empty());
        let name = target.unwrap_or(&reference.source);
        match self {
            Self::Secret => PathBuf::from("/run/secrets").join(name),
            Self::Config => PathBuf::from("/").join(name),
        }
    }
}
