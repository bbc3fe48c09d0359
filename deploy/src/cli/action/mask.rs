//! Secrets in the log of a job. The runner masks them as they are; a log may show them in other forms.

use std::env;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use super::runner::escaped;
use crate::cli::output;
use crate::secrets;
use crate::ssh::quoted;

/// The shortest text that is masked: what is shorter is in everything.
const MASKABLE: usize = 4;

/// The runner masks secrets as they are; a log may show them in other forms.
pub(super) fn mask_secrets() {
    for name in secrets::NAMES {
        if let Some(secret) = secrets::get(name) {
            for form in forms(secret.expose()) {
                output::line(&format!("::add-mask::{}", escaped(&form)));
            }
        }
    }
    let registry = env::var("RDEPLOY_REGISTRY_USERNAME").ok().zip(secrets::get(secrets::REGISTRY_PASSWORD));
    if let Some((name, password)) = registry {
        output::line(&format!("::add-mask::{}", basic(&name, password.expose())));
    }
}

/// A name and its password as HTTP and docker's configuration have them.
fn basic(name: &str, password: &str) -> String {
    STANDARD.encode(format!("{name}:{}", password.trim()))
}

/// The forms in which a text may turn up.
fn forms(secret: &str) -> Vec<String> {
    let json = serde_json::to_string(secret).unwrap_or_default();
    let url: String = secret
        .bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect();
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let shell = quoted(secret.trim());
    let mut all = vec![
        secret.trim().to_owned(),
        // Without what pads them, they are found with it, too.
        STANDARD_NO_PAD.encode(secret),
        STANDARD_NO_PAD.encode(secret.trim()),
        URL_SAFE_NO_PAD.encode(secret),
        URL_SAFE_NO_PAD.encode(secret.trim()),
        url,
        hex.to_uppercase(),
        hex,
        shell.trim_matches('\'').to_owned(),
        json.trim_matches('"').to_owned(),
    ];
    all.extend(secret.lines().map(|line| line.trim().to_owned()));
    all.retain(|form| form.len() >= MASKABLE && !form.contains('\n') && !form.starts_with("-----"));
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_masked_in_every_form() {
        let all = forms("p\"ss w/rd");
        for form in ["p\"ss w/rd", "cCJzcyB3L3Jk", "p%22ss%20w%2Frd", "p\\\"ss w/rd", "7022737320772f7264"] {
            assert!(all.iter().any(|known| known == form), "{form} of {all:?}");
        }
        let key = forms("-----BEGIN KEY-----\nAAAAB3Nza\nb3Blbg==\n-----END KEY-----\n");
        assert!(key.iter().any(|form| form == "AAAAB3Nza") && key.iter().any(|form| form == "b3Blbg=="));
        let quoted = forms("it's\u{3ff}>");
        for form in [r"it'\''s", "aXQnc8-_Pg", "aXQnc8+/Pg", "69742773CFBF3E"] {
            assert!(quoted.iter().any(|known| known.contains(form)), "{form} of {quoted:?}");
        }
        assert_eq!(basic("me", "se:cret\n"), "bWU6c2U6Y3JldA==");
        assert!(forms("abc").iter().all(|form| form.len() >= MASKABLE));
    }
}
