//! `import`: a root file system's tar becomes an image of one layer.

use std::io::Read;

use crate::image::config::History;
use crate::image::{Image, ImageConfig, ImageError, Images, Platform, Reference, change};

impl Images {
    /// Makes an image of one layer from a root file system's tar, plain or compressed with gzip or zstd. `changes`
    /// are Dockerfile instructions such as `CMD ["sh"]`.
    pub fn import(
        &self,
        reader: &mut (dyn Read + Send),
        changes: &[String],
        comment: Option<&str>,
        tag: Option<&Reference>,
    ) -> Result<Image, ImageError> {
        self.import_for(reader, changes, comment, tag, None)
    }

    /// The same for another platform than this machine's.
    ///
    /// # Errors
    /// When a change makes no sense, or the tar cannot be read.
    pub fn import_for(
        &self,
        reader: &mut (dyn Read + Send),
        changes: &[String],
        comment: Option<&str>,
        tag: Option<&Reference>,
        platform: Option<&Platform>,
    ) -> Result<Image, ImageError> {
        let platform = platform.cloned().unwrap_or_else(Platform::host);
        let mut config = ImageConfig {
            created: Some(jiff::Timestamp::now().to_string()),
            os: platform.os,
            architecture: platform.architecture,
            variant: platform.variant,
            ..Default::default()
        };
        // Before the long part: a typing mistake should not cost the unpacking.
        change::apply_all(&mut config.config, changes)?;
        let layers = self.layers();
        let _hold = layers.hold()?;
        config.rootfs.diff_ids = vec![layers.unpack(reader)?];
        config.history = vec![History {
            created: config.created.clone(),
            comment: Some(comment.unwrap_or("Imported from -").to_owned()),
            ..Default::default()
        }];
        let image = self.commit(&config, &tag.cloned().into_iter().collect::<Vec<_>>())?;
        let name = tag.map_or_else(|| image.id.to_string(), ToString::to_string);
        self.announce("import", &image.id, &name);
        Ok(image)
    }
}
