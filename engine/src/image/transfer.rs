//! Pull and push: plan the blobs that are missing, move them, record the image.

use crate::image::{ImageError, Images, Progress, PullOptions, Pulled, PushOptions, Pushed, Reference};

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
}
