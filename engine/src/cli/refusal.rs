//! Options and verbs that are known so that they can be refused by name.

use crate::error::{Error, Kind, Result};

/// Refuses the first of the options that was asked for: whether it was, its name without the dashes, and why not.
pub(super) fn refuse(options: &[(bool, &str, &str)]) -> Result<()> {
    match options.iter().find(|(is_asked, ..)| *is_asked) {
        None => Ok(()),
        Some((_, flag, why)) => {
            Err(Error::new(Kind::Unsupported, format!("--{flag} is not supported: {why}")))
        }
    }
}

/// Why there is no such verb of docker's, when it is one.
pub(super) fn foreign(verb: &str) -> Option<Error> {
    let (why, hint) = match verb {
        "swarm" | "service" | "stack" | "node" | "secret" | "config" => (
            "there is no swarm",
            "`rcompose up` runs a project on this machine, `rdeploy up` on servers; `rcompose convert --to swarm` writes a stack",
        ),
        "context" => ("there is no daemon to choose", "`rdeploy` reaches other machines"),
        "plugin" => ("there are no plugins", "networks, volumes and logs are the engine's own"),
        "checkpoint" => ("what runs cannot be kept on disk", "`rengine pause` holds it in memory"),
        "trust" => {
            ("signatures are neither made nor verified", "a digest, as in name@sha256:…, names one content")
        }
        "scout" | "sbom" => {
            ("images are not examined", "`rengine build --sbom=true` says which packages are in one")
        }
        "bake" => (
            "builds that belong together are those of a compose file",
            "`rcompose build` builds them all, several at once; `rcompose build --print` writes them for bake",
        ),
        "history" => {
            ("builds leave no record", "`rengine build --metadata-file` and `--progress rawjson` tell of one")
        }
        "dap" | "debug" => (
            "there is no debugger",
            "`rengine build --on-fail shell` is a prompt in the sandbox of the step that failed",
        ),
        "dial-stdio" => (
            "there is no builder elsewhere to talk to",
            "`builder:` in rdeploy.yaml builds on other machines",
        ),
        _ => return None,
    };
    Some(Error::new(Kind::Unsupported, format!("{verb} is not supported: {why}")).with_hint(hint))
}
