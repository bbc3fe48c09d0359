//! What a container may do: capabilities, filters, namespaces of others.

use std::path::Path;

use clap::Args;

use super::FindContainer;
use crate::container::idmap::IdMapError;
use crate::container::spec::{ContainerSpec, NamespaceMode, Seccomp, Security};
use crate::error::{Error, Kind, Result};

#[derive(Debug, Args)]
pub(super) struct PrivilegeArgs {
    /// Everything the engine may do
    #[arg(long)]
    privileged: bool,
    /// Add a capability
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Drop a capability
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// seccomp=FILE|unconfined, no-new-privileges, systempaths=unconfined, apparmor=PROFILE
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// PID namespace: host or container:NAME
    #[arg(long)]
    pid: Option<String>,
    /// IPC namespace: private, shareable, host, none or container:NAME
    #[arg(long)]
    ipc: Option<String>,
    /// UTS namespace: host
    #[arg(long)]
    uts: Option<String>,
    /// Cgroup namespace: private or host
    #[arg(long)]
    cgroupns: Option<String>,
    /// User namespace: host, auto[:size=N] or map:INSIDE:OUTSIDE:LENGTH[,…]
    #[arg(long, value_name = "MODE")]
    userns: Option<String>,
}

/// A kind of namespace and the modes docker has for it.
struct Modes {
    flag: &'static str,
    words: &'static [&'static str],
    joins: bool,
}

const PID: Modes = Modes { flag: "--pid", words: &["private", "host"], joins: true };
const IPC: Modes = Modes { flag: "--ipc", words: &["private", "shareable", "host", "none"], joins: true };
const UTS: Modes = Modes { flag: "--uts", words: &["private", "host"], joins: false };
const CGROUP: Modes = Modes { flag: "--cgroupns", words: &["private", "host"], joins: false };

// === impl PrivilegeArgs ===

impl PrivilegeArgs {
    pub(super) fn apply(
        self,
        spec: &mut ContainerSpec,
        directory: &Path,
        find: FindContainer<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<()> {
        let bare = |names: Vec<String>| names.iter().map(|name| bare_capability(name)).collect();
        spec.security = Security {
            privileged: self.privileged,
            cap_add: bare(self.cap_add),
            cap_drop: bare(self.cap_drop),
            ..Security::default()
        };
        for option in &self.security_opt {
            apply_security_option(&mut spec.security, option, directory, warnings)?;
        }
        spec.pid = PID.parse(self.pid.as_deref(), find)?;
        spec.ipc = IPC.parse(self.ipc.as_deref(), find)?;
        spec.uts = UTS.parse(self.uts.as_deref(), find)?;
        spec.cgroupns = CGROUP.parse(self.cgroupns.as_deref(), find)?;
        spec.userns = self.userns.as_deref().unwrap_or_default().parse().map_err(|error: IdMapError| {
            Error::invalid("invalid --userns")
                .with_source(error)
                .with_hint("it is host, auto, auto:size=N or map:INSIDE:OUTSIDE:LENGTH[,…]")
        })?;
        if spec.uts == NamespaceMode::Host && (spec.hostname.is_some() || spec.domainname.is_some()) {
            return Err(Error::invalid("conflicting options: --hostname or --domainname, and --uts host"));
        }
        Ok(())
    }
}

// === impl Modes ===

impl Modes {
    fn parse(&self, text: Option<&str>, find: FindContainer<'_>) -> Result<NamespaceMode> {
        let text = text.unwrap_or_default();
        if let Some(name) = text.strip_prefix("container:").filter(|_| self.joins) {
            return Ok(NamespaceMode::Container(find(name)?));
        }
        if !text.is_empty() && !self.words.contains(&text) {
            let joining = if self.joins { " or container:NAME" } else { "" };
            return Err(Error::invalid(format!("invalid {} {text:?}", self.flag))
                .with_hint(format!("it is {}{joining}", self.words.join(", "))));
        }
        Ok(match text {
            "shareable" => NamespaceMode::Shareable,
            "host" => NamespaceMode::Host,
            "none" => NamespaceMode::None,
            _ => NamespaceMode::Private,
        })
    }
}

/// A capability's name without `CAP_`, in upper case.
pub fn bare_capability(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    upper.strip_prefix("CAP_").map_or(upper.clone(), str::to_owned)
}

/// One of `--security-opt`. What this kernel has no module for is no reason to refuse: it is warned about.
///
/// # Errors
/// When there is no such option, or a profile cannot be read.
pub fn apply_security_option(
    security: &mut Security,
    option: &str,
    directory: &Path,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let unsupported = |why: &str| {
        Error::new(Kind::Unsupported, format!("security option {option:?} is not supported: {why}"))
    };
    match option.split_once(['=', ':']).unwrap_or((option, "")) {
        ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
        ("no-new-privileges", "false") => security.no_new_privileges = false,
        ("seccomp", "unconfined") => security.seccomp = Seccomp::Unconfined,
        ("seccomp", "builtin") => security.seccomp = Seccomp::Default,
        ("seccomp", file) if !file.is_empty() => {
            let profile = std::fs::read_to_string(directory.join(file))
                .map_err(|error| Error::invalid(format!("read seccomp profile {file}")).with_source(error))?;
            security.seccomp = Seccomp::Profile(profile);
        }
        ("systempaths", "unconfined") => security.unmask_system_paths = true,
        ("writable-cgroups", "false") => security.writable_cgroups = false,
        ("writable-cgroups", "" | "true") => {
            // Version 1 lets whoever can write name a program that the host then runs (CVE-2022-0492).
            if !Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
                return Err(unsupported("it needs a host with cgroup2 alone"));
            }
            security.writable_cgroups = true;
        }
        ("apparmor", "unconfined") | ("label", "disable") => {}
        ("apparmor", profile) if !profile.is_empty() => {
            if has_apparmor() {
                security.apparmor = Some(profile.to_owned());
            } else {
                warnings
                    .push(format!("security option {option:?} is discarded: this kernel has no AppArmor"));
            }
        }
        ("label", label) if !label.is_empty() => {
            if Path::new("/sys/fs/selinux/enforce").exists() {
                return Err(unsupported("processes are not labelled for SELinux here"));
            }
            warnings.push(format!("security option {option:?} is discarded: this kernel has no SELinux"));
        }
        _ => {
            return Err(unsupported("there is none of that name and value").with_hint(
                "there are seccomp=FILE, seccomp=unconfined, no-new-privileges, systempaths=unconfined, \
                 apparmor=PROFILE and label=disable",
            ));
        }
    }
    Ok(())
}

fn has_apparmor() -> bool {
    std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.trim() == "Y")
}
