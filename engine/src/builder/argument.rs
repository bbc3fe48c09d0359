//! Build arguments that mean something to the builder itself, and those that FROM sees.

use std::collections::BTreeMap;

use rustix::fs::Timespec;

use super::error::Trouble;
use super::expand::Expander;
use super::fault::Fault;
use super::instruction::{Dockerfile, Instruction};
use super::{BuildRequest, parser};
use crate::image::Platform;

/// The argument that says of when everything is (reproducible-builds.org/specs/source-date-epoch).
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// The argument that wants a cache in the image, as docker before buildx had it.
pub(super) const INLINE_CACHE: &str = "BUILDKIT_INLINE_CACHE";

/// Refuses what is asked of the builder by arguments, and what it cannot do.
pub(super) fn refuse(request: &BuildRequest) -> crate::Result<()> {
    if let Some(text) = request.args.get(EPOCH).filter(|text| !text.is_empty())
        && seconds(text).is_none()
    {
        return Err(crate::Error::invalid(format!("{EPOCH}={text:?} is no time"))
            .with_hint("seconds since 1970, as of: git log -1 --format=%ct"));
    }
    if let Some(syntax) = request.args.get("BUILDKIT_SYNTAX")
        && !parser::is_spoken(syntax)
    {
        let message = format!("BUILDKIT_SYNTAX={syntax} {}", parser::NOT_SPOKEN);
        return Err(crate::Error::invalid(message));
    }
    if request.run.shell_on_failure && request.platforms.len() > 1 {
        return Err(crate::Error::invalid("a shell for a failed step is there for one platform at a time"));
    }
    Ok(())
}

/// The arguments that FROM sees, and that stages may take over by name.
pub(super) fn globals(
    dockerfile: &Dockerfile,
    request: &BuildRequest,
    target: usize,
) -> Result<BTreeMap<String, String>, Trouble> {
    let mut globals = BTreeMap::new();
    let wanted = request.platform().cloned().unwrap_or_else(Platform::host);
    for (prefix, platform) in [("BUILD", Platform::host()), ("TARGET", wanted)] {
        globals.insert(format!("{prefix}PLATFORM"), platform.to_string());
        globals.insert(format!("{prefix}OS"), platform.os.clone());
        globals.insert(format!("{prefix}ARCH"), platform.architecture.clone());
        globals.insert(format!("{prefix}VARIANT"), platform.variant.clone().unwrap_or_default());
    }
    let stage = dockerfile.stages.get(target).and_then(|stage| stage.name.clone());
    globals.insert("TARGETSTAGE".to_owned(), stage.unwrap_or_else(|| "default".to_owned()));
    for step in &dockerfile.globals {
        let Instruction::Arg(definitions) = &step.instruction else { continue };
        for (name, default) in definitions {
            let lookup = |name: &str| globals.get(name).cloned();
            let default = default
                .as_ref()
                .map(|default| Expander::new(dockerfile.escape).expand(default, &lookup))
                .transpose()
                .map_err(|message| Fault::at(step.lines.0, message))?
                .map(|expanded| expanded.text);
            if let Some(value) = request.args.get(name).cloned().or(default) {
                globals.insert(name.clone(), value);
            }
        }
    }
    for (name, value) in &request.args {
        if globals.contains_key(name) {
            globals.insert(name.clone(), value.clone());
        }
    }
    Ok(globals)
}

/// Whether an argument that is for the builder is given and says yes.
pub(super) fn asks(request: &BuildRequest, name: &str) -> bool {
    request
        .args
        .get(name)
        .is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "t" | "true"))
}

/// SOURCE_DATE_EPOCH, in seconds: as it was given, or as the Dockerfile has it before the first FROM. Empty is none.
pub(super) fn epoch(request: &BuildRequest, globals: &BTreeMap<String, String>) -> Option<i64> {
    request.args.get(EPOCH).or_else(|| globals.get(EPOCH)).and_then(|text| seconds(text))
}

fn seconds(text: &str) -> Option<i64> {
    text.parse().ok()
}

/// The time of new files and layers: SOURCE_DATE_EPOCH, or now.
pub(super) fn now(epoch: Option<i64>) -> Timespec {
    if let Some(seconds) = epoch {
        return Timespec { tv_sec: seconds, tv_nsec: 0 };
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timespec { tv_sec: i64::try_from(now.as_secs()).unwrap_or(0), tv_nsec: i64::from(now.subsec_nanos()) }
}
