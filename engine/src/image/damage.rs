//! Images whose record or configuration cannot be read. They are alone with it: the others are listed, and nothing that
//! may have been theirs is removed before they are.

use crate::error;
use crate::id::ImageId;
use crate::image::record::{ImageRecord, Names};
use crate::image::{Image, ImageError, Images, failure};

// === impl Images ===

impl Images {
    /// What is to be said of the images that cannot be read.
    ///
    /// # Errors
    /// When the images or their names cannot be listed.
    pub fn damaged(&self) -> Result<Vec<String>, ImageError> {
        let names = self.names()?;
        let images = self.ids()?.into_iter().map(|id| (self.image(&names, &id), id));
        Ok(images.filter_map(|(image, id)| Some(damage(&names, &id, image.err()?))).collect())
    }

    /// The images that can be read.
    pub(super) fn readable(&self, names: &Names) -> Result<Vec<Image>, ImageError> {
        Ok(self.ids()?.iter().filter_map(|id| self.image(names, id).ok().flatten()).collect())
    }

    /// The ids that there are records of, readable or not.
    pub(super) fn ids(&self) -> Result<Vec<ImageId>, ImageError> {
        ImageRecord::ids(&self.root).map_err(failure("list", "store"))
    }
}

impl ImageError {
    /// Whether it says that an image cannot be read, not that there is none.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Config { .. } | Self::Content(_) | Self::Io { .. })
    }
}

fn damage(names: &Names, id: &ImageId, error: ImageError) -> String {
    let called = [names.tags_of(id), names.digests_of(id)].concat();
    let called: Vec<String> = called.iter().map(ToString::to_string).collect();
    let called = if called.is_empty() { String::new() } else { format!(" ({})", called.join(", ")) };
    let reason = error::chain(&error::Error::from(error));
    format!(
        "image {short}{called} is damaged: {reason}; see what else is with: rengine system check --verify, and remove it with: rengine rmi -f {short}",
        short = id.short()
    )
}
