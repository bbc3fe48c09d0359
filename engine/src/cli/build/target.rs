//! `--output`: what becomes of a built image.

use std::path::{Path, PathBuf};

use crate::builder::{Attested, Part, statements, write_directory, write_tar};
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
    Image { names: Vec<Reference>, push: bool, form: Form },
    /// Its files go into a directory.
    Directory(PathBuf, Split),
    /// Its files go into a tar.
    Tar(Sink, Split),
    /// It goes into an archive that is an OCI layout and docker's format at once.
    Archive(Sink, Form),
    /// Only the cache keeps something of it.
    Cache,
}

/// Whether each platform's files go to a directory of their own; when it is not said, those of several do.
pub(super) type Split = Option<bool>;

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
        let (mut kind, mut dest, mut names, mut push) = (None, None, Vec::new(), false);
        let (mut words, mut is_formed, mut split) = (words.clone(), None, None);
        for field in text.split(',') {
            let (key, value) = field.split_once('=').unwrap_or((field, "true"));
            match key {
                "type" => kind = Some(value),
                "dest" => dest = Some(value),
                "name" => {
                    names.push(value.parse().map_err(|error| wrong(format!("name {value:?}: {error}")))?);
                }
                "push" => push = value == "true",
                "tar" if value == "true" => {}
                "platform-split" if matches!(value, "true" | "false") => split = Some(value == "true"),
                // The builder's part of it is read before.
                "rewrite-timestamp" if matches!(value, "true" | "false") => {}
                _ if words.take(key, value)? => is_formed = Some(key),
                _ => return Err(wrong(format!("{key}={value} is not supported"))),
            }
        }
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
            Some("docker") if dest.is_none() => Ok(Self::Image { names, push, form }),
            Some("oci" | "docker") if form.docker_types => {
                Err(wrong("an archive is an OCI layout, whose media types are OCI's".into()))
            }
            Some("oci" | "docker") => Ok(Self::Archive(sink(), form)),
            Some("image") => Ok(Self::Image { names, push, form }),
            Some("registry") => Ok(Self::Image { names, push: true, form }),
            Some("cacheonly") => Ok(Self::Cache),
            Some(other) => Err(wrong(format!("there is no type {other:?}"))),
            None => Err(wrong("type is needed".into())),
        }
    }

    /// Whether standard output belongs to what is written.
    pub(super) fn takes_stdout(&self) -> bool {
        matches!(self, Self::Tar(Sink::Stdout, _) | Self::Archive(Sink::Stdout, _))
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
            Self::Archive(sink, form) => {
                shape(engine, images, form)?;
                attest(engine, images, tags, form, attested)?;
                sink.write(|writer| Ok(engine.images().save_as(images, tags, writer)?))
            }
            Self::Image { names, push, form } => {
                shape(engine, images, form)?;
                let all: Vec<Reference> = tags.iter().chain(names).cloned().collect();
                attest(engine, images, &all, form, attested)?;
                let ids: Vec<_> = images.iter().map(|image| image.id.clone()).collect();
                engine.images().tag_several(names, &ids)?;
                if *push {
                    for name in tags.iter().chain(names) {
                        output::note(&format!("pushing {name}"));
                        engine.images().push(name, &PushOptions::default(), &|_| {})?;
                    }
                }
                Ok(())
            }
        }
    }
}

/// Gives images the form in which they leave.
fn shape(engine: &Engine, images: &[Image], form: &Form) -> Result<()> {
    if images.len() < 2 && !form.index_annotations.is_empty() {
        let message = "index annotations need an index: an image for several platforms";
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
        engine.images().attest(image, names, &attested.predicates)?;
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
        assert_eq!(parse("type=oci"), Target::Archive(Sink::Stdout, Form::default()));
        let pushed = Target::Image { names: vec!["a".parse().unwrap()], push: true, form: Form::default() };
        assert_eq!(parse("type=image,name=a,push=true"), pushed);
        for wrong in [
            "type=what",
            "dest=x",
            "type=local",
            "type=image,compression=estargz",
            "type=local,dest=x,compression=zstd",
            "type=oci,oci-mediatypes=false",
        ] {
            assert!(Target::parse(wrong, &words).is_err(), "{wrong}");
        }
    }
}
