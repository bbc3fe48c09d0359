//! What a container may do, and as whom it runs.

use serde_json::{Map, Value as Json, json};

use super::Cluster;
use super::name::number;
use super::pod::Pod;
use crate::model::Service;

// === impl Cluster ===

impl Cluster<'_, '_> {
    /// The security context of a container.
    pub(super) fn container_security(&mut self, service: &Service) -> Map<String, Json> {
        let mut all = Map::new();
        if service.privileged {
            all.insert("privileged".to_owned(), true.into());
        }
        if service.read_only {
            all.insert("readOnlyRootFilesystem".to_owned(), true.into());
        }
        let mut capabilities = Map::new();
        for (key, names) in [("add", &service.cap_add), ("drop", &service.cap_drop)] {
            if !names.is_empty() {
                let bare = |name: &String| name.to_uppercase().trim_start_matches("CAP_").to_owned();
                capabilities.insert(key.to_owned(), names.iter().map(bare).collect());
            }
        }
        if !capabilities.is_empty() {
            all.insert("capabilities".to_owned(), Json::Object(capabilities));
        }
        self.run_as(service, &mut all);
        // Docker's own profile holds unless it is switched off.
        if !service.privileged {
            all.insert("seccompProfile".to_owned(), json!({ "type": "RuntimeDefault" }));
        }
        for option in &service.security_opt {
            self.security_option(service, option, &mut all);
        }
        all
    }

    fn run_as(&mut self, service: &Service, all: &mut Map<String, Json>) {
        let Some(user) = service.user.as_deref().filter(|user| !user.is_empty()) else { return };
        let (user, group) = user.split_once(':').unwrap_or((user, ""));
        for (key, name) in [("runAsUser", user), ("runAsGroup", group)] {
            match number(name) {
                Some(number) => {
                    all.insert(key.to_owned(), number.into());
                }
                None if name.is_empty() => {}
                None if name == "root" => {
                    all.insert(key.to_owned(), 0.into());
                }
                None => {
                    let why = format!("a cluster knows no names of an image: write the number of {name:?}");
                    self.losses.of_service(&service.name, &["user"], why);
                }
            }
        }
    }

    fn security_option(&mut self, service: &Service, option: &str, all: &mut Map<String, Json>) {
        let (key, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
        let mut lost = |why: &str| self.losses.of_service(&service.name, &["security_opt"], why);
        match (key, value) {
            ("no-new-privileges", "" | "true") if has_all_rights(service) => {
                lost("a cluster refuses it together with privileged or CAP_SYS_ADMIN");
            }
            ("no-new-privileges", "" | "true") => {
                all.insert("allowPrivilegeEscalation".to_owned(), false.into());
            }
            ("no-new-privileges", _) => {}
            ("seccomp", "unconfined") => {
                all.insert("seccompProfile".to_owned(), json!({ "type": "Unconfined" }));
            }
            ("seccomp", _) => lost("the profile has to be on each node, as seccompProfile of type Localhost"),
            ("apparmor", "unconfined") => {
                all.insert("appArmorProfile".to_owned(), json!({ "type": "Unconfined" }));
            }
            ("apparmor", profile) => {
                let profile = json!({ "type": "Localhost", "localhostProfile": profile });
                all.insert("appArmorProfile".to_owned(), profile);
            }
            ("label", value) => match value.split_once(':') {
                Some((kind @ ("user" | "role" | "type" | "level"), value)) => {
                    let options = all.entry("seLinuxOptions").or_insert_with(|| json!({}));
                    options[kind] = value.into();
                }
                _ => lost("a pod is labelled as seLinuxOptions says"),
            },
            ("systempaths", "unconfined") => {
                // Only a pod with users of its own may ask for it.
                lost("the kernel's paths stay masked: procMount needs hostUsers: false");
            }
            _ => lost("there is no such option"),
        }
    }

    /// The security context of a pod.
    pub(super) fn pod_security(&mut self, pod: &Pod<'_>) -> Map<String, Json> {
        let mut all = Map::new();
        let mut groups = Vec::new();
        let mut sysctls = Map::new();
        for service in pod.members() {
            for group in &service.group_add {
                match number(group) {
                    Some(number) => groups.push(number),
                    None => {
                        let why =
                            format!("a cluster knows no names of an image: write the number of {group:?}");
                        self.losses.of_service(&service.name, &["group_add"], why);
                    }
                }
            }
            sysctls.extend(
                service.sysctls.iter().map(|(name, value)| (name.clone(), Json::from(value.clone()))),
            );
        }
        groups.sort_unstable();
        groups.dedup();
        if !groups.is_empty() {
            all.insert("supplementalGroups".to_owned(), groups.into());
        }
        if !sysctls.is_empty() {
            let list = sysctls.into_iter().map(|(name, value)| json!({ "name": name, "value": value }));
            all.insert("sysctls".to_owned(), list.collect());
        }
        // Volumes of a cluster belong to root; who runs as somebody else reaches them by the group.
        let user = pod.owner().user.as_deref().unwrap_or_default();
        let (user, group) = user.split_once(':').unwrap_or((user, user));
        if let Some(group) = number(group).filter(|group| *group > 0 && number(user).is_some()) {
            all.insert("fsGroup".to_owned(), group.into());
        }
        all
    }
}

fn has_all_rights(service: &Service) -> bool {
    let is_admin =
        |name: &String| matches!(name.to_uppercase().as_str(), "SYS_ADMIN" | "CAP_SYS_ADMIN" | "ALL");
    service.privileged || service.cap_add.iter().any(is_admin)
}
