//! `--output`: what becomes of a built image.

use std::path::{Path, PathBuf};

use crate::builder::{Attested, Part, fields, statements, write_directory, write_tar};
use crate::cli::form::FormWords;
use crate::cli::output;
use crate::cli::sink::Sink;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::image::{Form, Image, PushOptions, Reference};

/// What becomes of a built image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// It is kept here; pushed too if so said.
    Image { names: Vec<Reference>, push: Option<Push>, form: Form },
    /// Its files go into a directory.
    Directory(PathBuf, Split),
    /// Its files go into a tar.
    Tar(Sink, Split),
    /// It goes into an archive that is an OCI layout and docker's format at once.
    Archive { sink: Sink, names: Vec<Reference>, form: Form },
    /// It goes into a directory that is an OCI layout.
    Layout { directory: PathBuf, names: Vec<Reference>, form: Form },
    /// Only the cache keeps something of it.
    Cache,
}

/// How an image is pushed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Push {
    /// Under its digest alone.
    by_digest: bool,
    /// Over http, or https without verification.
    insecure: bool,
}

/// Whether each platform's files go to a directory of their own; when it is not said, those of several do.
pub(super) type Split = Option<bool>;

// === impl Push ===

impl Push {
    /// Sends what a name means.
    fn send(self, engine: &Engine, name: &Reference) -> Result<()> {
        let what = if self.by_digest { name.familiar_name() } else { name.to_string() };
        output::note(&format!("pushing {what}"));
        let insecure = self.insecure.then(|| name.registry().to_owned()).into_iter().collect();
        let options = PushOptions { insecure, by_digest: self.by_digest, platform: None };
        let pushed = engine.images().push(name, &options, &|_| {})?;
        pushed.warnings.iter().for_each(|warning| output::warning(warning));
        if self.by_digest {
            output::note(&format!("pushed {}", name.with_digest(&pushed.digest)));
        }
        Ok(())
    }
}

// === impl Target ===

impl Target {
    /// Reads `type=local,dest=DIR`, or a directory or `-` alone. What is said of the form adds to `words`.
    pub(super) fn parse(text: &str, words: &FormWords) -> Result<Self> {
        if !text.contains('=') {
            return Ok(if text == "-" {
                Self::Tar(Sink::Stdout, None)
            } else {
                Self::Directory(text.into(), None)
            });
        }
        let wrong = |problem: String| {
            Error::invalid(format!("invalid output {text:?}: {problem}"))
                .with_hint("write type=local|tar|oci|docker|image|registry|cacheonly,dest=PATH,name=NAME")
        };
        let (mut kind, mut dest, mut names, mut push) = (None, None, Vec::<Reference>::new(), false);
        let (mut words, mut is_formed, mut split) = (words.clone(), None, None);
        let (mut is_tar, mut by_digest, mut insecure) = (true, false, false);
        let fields = fields(text);
        for field in &fields {
            let (key, value) = field.split_once('=').unwrap_or((field, "true"));
            let switch = || {
                let said = value.parse::<bool>();
                said.map_err(|_| wrong(format!("{key}={value}: true or false is needed")))
            };
            match key {
                "type" => kind = Some(value),
                "dest" => dest = Some(value),
                "name" => {
                    for name in value.split(',') {
                        names.push(name.parse().map_err(|error| wrong(format!("name {name:?}: {error}")))?);
                    }
                }
                "push" => push = switch()?,
                "push-by-digest" => by_digest = switch()?,
                "registry.insecure" => insecure = switch()?,
                "tar" => is_tar = switch()?,
                "platform-split" => split = Some(switch()?),
                // The builder's part of it is read before.
                "rewrite-timestamp" => drop(switch()?),
                // It is so in any case: a name is kept with its digest, and layers are where containers find them.
                "name-canonical" | "unpack" | "buildinfo" => drop(switch()?),
                "store" if value == "true" => {}
                _ if words.take(key, value)? => is_formed = Some(key),
                _ => return Err(wrong(format!("{key}={value} is not supported"))),
            }
        }
        if by_digest && !push && kind != Some("registry") {
            return Err(wrong("push-by-digest needs push=true".into()));
        }
        let pushed = Push { by_digest, insecure };
        let sink = || match dest {
            None | Some("-") => Sink::Stdout,
            Some(path) => Sink::File(path.into()),
        };
        let form = words.form()?;
        if let (Some(key), Some("local" | "tar" | "cacheonly")) = (is_formed, kind) {
            return Err(wrong(format!("{key} is of images, and there is none")));
        }
        match kind {
            Some("local") => dest
                .map(|dest| Self::Directory(dest.into(), split))
                .ok_or_else(|| wrong("dest is needed".into())),
            Some("tar") => Ok(Self::Tar(sink(), split)),
            Some("docker") if dest.is_none() => Ok(Self::Image { names, push: push.then_some(pushed), form }),
            Some("oci" | "docker") if form.docker_types => {
                Err(wrong("an archive is an OCI layout, whose media types are OCI's".into()))
            }
            Some("oci") if !is_tar => dest
                .map(|dest| Self::Layout { directory: dest.into(), names, form: portable(form) })
                .ok_or_else(|| wrong("dest is needed: a directory".into())),
            _ if !is_tar => Err(wrong("tar=false is for type=oci".into())),
            Some("oci") => Ok(Self::Archive { sink: sink(), names, form: portable(form) }),
            Some("docker") => Ok(Self::Archive { sink: sink(), names, form }),
            Some("image") => Ok(Self::Image { names, push: push.then_some(pushed), form }),
            Some("registry") => Ok(Self::Image { names, push: Some(pushed), form }),
            Some("cacheonly") => Ok(Self::Cache),
            Some(other) => Err(wrong(format!("there is no type {other:?}"))),
            None => Err(wrong("type is needed".into())),
        }
    }

    /// The names that it gives the image.
    pub(super) fn names(&self) -> &[Reference] {
        match self {
            Self::Image { names, .. } | Self::Archive { names, .. } | Self::Layout { names, .. } => names,
            _ => &[],
        }
    }

    /// Whether standard output belongs to what is written.
    pub(super) fn takes_stdout(&self) -> bool {
        matches!(self, Self::Tar(Sink::Stdout, _) | Self::Archive { sink: Sink::Stdout, .. })
    }

    /// Writes a built image to where it goes.
    pub(super) fn write(
        &self,
        engine: &Engine,
        images: &[Image],
        tags: &[Reference],
        epoch: Option<i64>,
        attested: &[Attested],
    ) -> Result<()> {
        match self {
            Self::Cache => Ok(()),
            Self::Directory(directory, split) => parts(engine, images, attested, *split)?
                .iter()
                .try_for_each(|part| place(engine, part, directory, epoch)),
            Self::Tar(sink, split) => {
                let parts = parts(engine, images, attested, *split)?;
                sink.write(|writer| write_tar(engine.root(), &parts, writer, epoch))
            }
            Self::Archive { sink, names, form } => {
                let all = leave(engine, images, tags, names, form, attested)?;
                sink.write(|writer| Ok(engine.images().save_as(images, &all, writer)?))
            }
            Self::Layout { directory, names, form } => {
                let all = leave(engine, images, tags, names, form, attested)?;
                Ok(engine.images().save_into(images, &all, directory)?)
            }
            Self::Image { names, push, form } => {
                let all = leave(engine, images, tags, names, form, attested)?;
                let ids: Vec<_> = images.iter().map(|image| image.id.clone()).collect();
                engine.images().tag_several(names, &ids)?;
                if let Some(push) = push {
                    all.iter().try_for_each(|name| push.send(engine, name))?;
                }
                Ok(())
            }
        }
    }
}

/// What others read has layers that are packed.
fn portable(mut form: Form) -> Form {
    form.packing.get_or_insert_default();
    form
}

/// Makes images ready to leave, and returns all of their names.
fn leave(
    engine: &Engine,
    images: &[Image],
    tags: &[Reference],
    names: &[Reference],
    form: &Form,
    attested: &[Attested],
) -> Result<Vec<Reference>> {
    let all: Vec<Reference> = tags.iter().chain(names).cloned().collect();
    shape(engine, images, form, attested)?;
    attest(engine, images, &all, form, attested)?;
    Ok(all)
}

/// Gives images the form in which they leave.
fn shape(engine: &Engine, images: &[Image], form: &Form, attested: &[Attested]) -> Result<()> {
    let is_attested = attested.iter().any(|attested| !attested.predicates.is_empty());
    if images.len() < 2 && !is_attested && !form.notes.index.is_empty() {
        let message =
            "index annotations need an index: an image for several platforms, or what is attested of one";
        return Err(Error::invalid(message));
    }
    images.iter().try_for_each(|image| Ok(engine.images().shape(image, form, &|_| {})?))
}

/// Attests of images what is asked for.
fn attest(
    engine: &Engine,
    images: &[Image],
    names: &[Reference],
    form: &Form,
    attested: &[Attested],
) -> Result<()> {
    if attested.iter().all(|attested| attested.predicates.is_empty()) {
        return Ok(());
    }
    if form.docker_types {
        return Err(Error::invalid(
            "an attested image has OCI's media types: oci-mediatypes=false is no use",
        ));
    }
    for (image, attested) in images.iter().zip(attested) {
        engine.images().attest(image, names, &attested.predicates, form.legacy_attestation)?;
    }
    Ok(())
}

/// Where each image's files go: one platform's to the top, several platforms' each to a directory, as buildx does.
fn parts<'a>(
    engine: &Engine,
    images: &'a [Image],
    attested: &[Attested],
    split: Split,
) -> Result<Vec<Part<'a>>> {
    let below = |image: &Image| {
        if split.unwrap_or(images.len() > 1) {
            PathBuf::from(image.platform().to_string().replace('/', "_"))
        } else {
            PathBuf::new()
        }
    };
    let part = |(image, attested): (&'a Image, &Attested)| {
        let statements = statements(engine.root(), image, attested)?;
        Ok(Part { image, below: below(image), statements })
    };
    images.iter().zip(attested).map(part).collect()
}

/// Writes a part into a directory.
fn place(engine: &Engine, part: &Part<'_>, directory: &Path, epoch: Option<i64>) -> Result<()> {
    let directory = directory.join(&part.below);
    write_directory(engine.root(), part.image, &directory, epoch)?;
    for (name, bytes) in &part.statements {
        Sink::File(directory.join(name)).write(|file| {
            file.write_all(bytes).map_err(|error| Error::failed(format!("write {name}"), error))
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_read_in_both_forms() {
        let words = FormWords::default();
        let parse = |text: &str| Target::parse(text, &words).unwrap();
        assert_eq!(parse("out"), Target::Directory("out".into(), None));
        assert_eq!(parse("-"), Target::Tar(Sink::Stdout, None));
        assert_eq!(parse("type=tar,dest=a.tar"), Target::Tar(Sink::File("a.tar".into()), None));
        let (names, form) = (Vec::new(), portable(Form::default()));
        assert_eq!(parse("type=oci"), Target::Archive { sink: Sink::Stdout, names, form: form.clone() });
        let pushed = Target::Image {
            names: vec!["a".parse().unwrap()],
            push: Some(Push::default()),
            form: Form::default(),
        };
        assert_eq!(parse("type=image,name=a,push=true"), pushed);
        let Target::Image { names, push: Some(push), .. } = parse(
            "type=image,\"name=localhost:5000/a,localhost:5000/b\",push-by-digest=true,name-canonical=true,push=true,\
             registry.insecure=true",
        ) else {
            panic!()
        };
        assert_eq!((names.len(), push), (2, Push { by_digest: true, insecure: true }));
        let (directory, names) = ("d".into(), vec!["a".parse().unwrap()]);
        assert_eq!(parse("type=oci,dest=d,tar=false,name=a"), Target::Layout { directory, names, form });
        for wrong in [
            "type=what",
            "dest=x",
            "type=local",
            "type=image,compression=estargz",
            "type=local,dest=x,compression=zstd",
            "type=oci,oci-mediatypes=false",
            "type=image,name=a,push-by-digest=true",
            "type=image,name=a,push=perhaps",
            "type=docker,dest=d,tar=false",
        ] {
            assert!(Target::parse(wrong, &words).is_err(), "{wrong}");
        }
    }
}
