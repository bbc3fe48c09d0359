//! Words about the form in which an image leaves: compression, media types, annotations.

use crate::error::{Error, Result};
use crate::image::{Compression, Form, Notes, Packing, Platform};

/// What was said, word by word.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FormWords {
    form: Form,
    compression: Option<Compression>,
    level: Option<u32>,
}

/// Where an annotation goes (buildx, `--annotation`): before its key.
const PLACES: [&str; 4] = ["manifest-descriptor", "index-descriptor", "manifest", "index"];

// === impl FormWords ===

impl FormWords {
    /// Takes one of the keys of `--output` that are about the form; `false` for any other.
    pub(super) fn take(&mut self, key: &str, value: &str) -> Result<bool> {
        match key {
            "compression" => self.compression = Some(compression(value)?),
            "compression-level" => self.level = Some(level(value)?),
            "force-compression" => self.form.force = switch(key, value)?,
            "oci-mediatypes" => self.form.docker_types = !switch(key, value)?,
            "oci-artifact" => self.form.legacy_attestation = !switch(key, value)?,
            _ => match key.strip_prefix("annotation") {
                Some(rest) if rest.starts_with(['.', '-', '[']) => {
                    let (place, name) = rest.split_once('.').ok_or_else(|| wrong(key))?;
                    self.annotate(place.trim_start_matches('-'), name, value)?;
                }
                _ => return Ok(false),
            },
        }
        Ok(true)
    }

    /// Takes `[PLACE[PLATFORM]:]KEY=VALUE`, as `--annotation` has it.
    pub(super) fn take_annotation(&mut self, text: &str) -> Result<()> {
        let (key, value) = text.split_once('=').ok_or_else(|| wrong(text))?;
        let has_place =
            |places: &str| places.split(',').all(|place| PLACES.iter().any(|known| place.starts_with(known)));
        match key.split_once(':').filter(|(places, _)| has_place(places)) {
            Some((places, name)) => places.split(',').try_for_each(|place| self.annotate(place, name, value)),
            None => self.annotate("", key, value),
        }
    }

    /// The form, where the words make sense together.
    pub(super) fn form(&self) -> Result<Form> {
        let mut form = self.form.clone();
        let most = if self.compression == Some(Compression::Zstd) { 22 } else { 9 };
        if self.level.is_some_and(|level| level > most || self.compression == Some(Compression::None)) {
            return Err(Error::invalid(format!(
                "this compression-level is not one of the compression's: 0 to {most}"
            )));
        }
        if self.compression.is_some() || self.level.is_some() {
            let compression = self.compression.unwrap_or(Compression::Gzip);
            form.packing = Some(Packing { compression, level: self.level });
        }
        Ok(form)
    }

    fn annotate(&mut self, place: &str, name: &str, value: &str) -> Result<()> {
        if name.is_empty() {
            return Err(wrong(place));
        }
        let (place, platform) = match place.split_once('[') {
            Some((place, platform)) => (place, Some(platform.strip_suffix(']').ok_or_else(|| wrong(place))?)),
            None => (place, None),
        };
        if platform.is_some() && place.starts_with("index") {
            return Err(Error::invalid(format!("annotations of the {place} are for all of its platforms")));
        }
        let notes = match platform {
            None => &mut self.form.notes,
            Some(platform) => {
                let platform: Platform = platform
                    .parse()
                    .map_err(|error| Error::invalid(format!("invalid annotation {name:?}: {error}")))?;
                let known = self.form.notes_of.iter().position(|(of, _)| *of == platform);
                let at = known.unwrap_or(self.form.notes_of.len());
                if known.is_none() {
                    self.form.notes_of.push((platform, Notes::default()));
                }
                &mut self.form.notes_of[at].1
            }
        };
        let annotations = match place {
            "" | "manifest" => &mut notes.manifest,
            "manifest-descriptor" => &mut notes.manifest_descriptor,
            "index" => &mut notes.index,
            "index-descriptor" => &mut notes.index_descriptor,
            other => return Err(wrong(other)),
        };
        annotations.insert(name.to_owned(), value.to_owned());
        Ok(())
    }
}

fn wrong(text: &str) -> Error {
    Error::invalid(format!("invalid annotation {text:?}")).with_hint(
        "write [PLACE:]KEY=VALUE; places are manifest, manifest-descriptor, index and index-descriptor, \
         the first two also of one platform, as manifest[linux/amd64]",
    )
}

/// `gzip`, `zstd` or `uncompressed`.
pub(super) fn compression(text: &str) -> Result<Compression> {
    match text {
        "gzip" => Ok(Compression::Gzip),
        "zstd" => Ok(Compression::Zstd),
        "uncompressed" => Ok(Compression::None),
        other => Err(Error::invalid(format!("the compression {other:?} is not supported"))
            .with_hint("gzip, zstd and uncompressed are there")),
    }
}

fn level(text: &str) -> Result<u32> {
    text.parse()
        .map_err(|error| Error::invalid(format!("invalid compression-level {text:?}")).with_source(error))
}

fn switch(key: &str, value: &str) -> Result<bool> {
    value
        .parse()
        .map_err(|error| Error::invalid(format!("invalid {key} {value:?}: true or false")).with_source(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_make_a_form() {
        let mut words = FormWords::default();
        for (key, value) in [
            ("compression", "zstd"),
            ("compression-level", "19"),
            ("force-compression", "true"),
            ("oci-mediatypes", "false"),
            ("annotation.a", "b"),
            ("annotation-index.c", "d"),
        ] {
            assert!(words.take(key, value).unwrap(), "{key}");
        }
        words.take_annotation("org.x:y=z").unwrap();
        words.take_annotation("manifest,index:both=1").unwrap();
        let form = words.form().unwrap();
        assert_eq!(form.packing, Some(Packing { compression: Compression::Zstd, level: Some(19) }));
        assert!(form.force && form.docker_types);
        assert_eq!(form.notes.manifest.keys().collect::<Vec<_>>(), ["a", "both", "org.x:y"]);
        assert_eq!(form.notes.index.keys().collect::<Vec<_>>(), ["both", "c"]);
        assert!(!FormWords::default().take("dest", "x").unwrap());
        words.take_annotation("manifest[linux/arm64],manifest-descriptor[linux/arm64/v8]:one=1").unwrap();
        words.take_annotation("index-descriptor:a=b").unwrap();
        let form = words.form().unwrap();
        let [(platform, notes)] = form.notes_of.as_slice() else { panic!("{form:?}") };
        assert_eq!(platform.to_string(), "linux/arm64");
        assert_eq!((notes.manifest.len(), notes.manifest_descriptor.len()), (1, 1));
        assert_eq!(form.notes.index_descriptor.len(), 1);
        for text in ["x", "=1", "index[linux/amd64]:a=b", "manifest[what]:a=b", "manifest[linux/amd64:a=b"] {
            assert!(FormWords::default().take_annotation(text).is_err(), "{text}");
        }
        for (key, value) in
            [("compression", "estargz"), ("compression-level", "much"), ("oci-mediatypes", "yes")]
        {
            assert!(FormWords::default().take(key, value).is_err(), "{key}");
        }
    }
}
