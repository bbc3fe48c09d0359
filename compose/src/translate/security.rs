//! Privileges.

use engine::container::idmap::{IdMapError, UserMode};
use engine::container::spec::{Seccomp, Security};

use super::{Of, TranslateError};

pub(super) fn security(of: &Of<'_>) -> Result<Security, TranslateError> {
    let service = of.service;
    let mut security = Security {
        privileged: service.privileged,
        cap_add: service.cap_add.iter().map(|name| bare(name)).collect(),
        cap_drop: service.cap_drop.iter().map(|name| bare(name)).collect(),
        ..Security::default()
    };
    for option in &service.security_opt {
        let (key, value) = option.split_once(['=', ':']).unwrap_or((option, "true"));
        match (key, value) {
            ("no-new-privileges", "true") => security.no_new_privileges = true,
            ("no-new-privileges", "false") => security.no_new_privileges = false,
            ("seccomp", "unconfined") => security.seccomp = Seccomp::Unconfined,
            ("seccomp", "builtin") => security.seccomp = Seccomp::Default,
            ("seccomp", profile) => security.seccomp = Seccomp::Profile(profile.to_owned()),
            ("systempaths", "unconfined") => security.unmask_system_paths = true,
            // This kernel interface is absent or left to the host: nothing to confine with, nothing to lift.
            ("apparmor" | "label", _) => {}
            _ => return Err(of.wrong("security_opt", &format!("unknown option {option:?}"))),
        }
    }
    Ok(security)
}

/// Whose user ids it has.
pub(super) fn users(of: &Of<'_>) -> Result<UserMode, TranslateError> {
    let mode = of.service.userns_mode.as_deref().unwrap_or_default();
    mode.parse().map_err(|error: IdMapError| of.wrong("userns_mode", &error))
}

/// A capability without `CAP_`, in capitals.
fn bare(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned()
}
