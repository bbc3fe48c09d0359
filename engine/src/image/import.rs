//! `import`: a root file system's tar becomes an image of one layer.

use std::io::Read;

use crate::image::config::{History, RunConfig};
use crate::image::{Image, ImageConfig, ImageError, Images, Platform, Reference};

impl Images {
    /// Makes an image of one layer from a root file system's tar, plain or compressed. `config` says how its containers
    /// run.
    pub fn import(
        &self,
        reader: &mut (dyn Read + Send),
        config: RunConfig,
        comment: Option<&str>,
        tag: Option<&Reference>,
    ) -> Result<Image, ImageError> {
        self.import_for(reader, config, comment, tag, None)
    }

    /// The same for another platform than this machine's.
    ///
    /// # Errors
    /// When the tar cannot be read, or the image not be written.
    pub fn import_for(
        &self,
        reader: &mut (dyn Read + Send),
        config: RunConfig,
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
            config,
            ..Default::default()
        };
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
