//! Pull and push: plan the blobs that are missing, move them, record the image.

use std::io::{Read, Write};

use crate::image::{
    Image, ImageError, Images, Loaded, Progress, PullOptions, Pulled, PushOptions, Pushed, Reference,
};

impl Images {
    /// Fetches an image from its registry, layers at once, straight into their directories.
    pub fn pull(
        &self,
        reference: &Reference,
        options: &PullOptions,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Pulled, ImageError> {
        let _ = (reference, options, progress);
        todo!()
    }

    /// Sends the image with this name to the name's registry.
    pub fn push(
        &self,
        reference: &Reference,
        options: &PushOptions,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Pushed, ImageError> {
        let _ = (reference, options, progress);
        todo!()
    }

    /// Writes images as one tar: an OCI layout that also has docker's `manifest.json` and `repositories`.
    pub fn save(&self, names: &[String], writer: &mut dyn Write) -> Result<(), ImageError> {
        let _ = (names, writer);
        todo!()
    }

    /// Reads an archive of docker or an OCI layout, plain or compressed.
    pub fn load(&self, reader: &mut (dyn Read + Send)) -> Result<Vec<Loaded>, ImageError> {
        let _ = reader;
        todo!()
    }

    /// Makes an image of one layer from a root file system's tar, plain or compressed. `changes` are Dockerfile
    /// instructions such as `CMD ["sh"]`.
    pub fn import(
        &self,
        reader: &mut (dyn Read + Send),
        changes: &[String],
        tag: Option<&Reference>,
    ) -> Result<Image, ImageError> {
        let _ = (reader, changes, tag);
        todo!()
    }
}
