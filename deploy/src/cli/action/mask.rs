//! Secrets in the log of a job. The runner masks them as they are; a log may show them in other forms.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::runner::escaped;
use crate::cli::output;
use crate::secrets;

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
    let mut all = vec![
        secret.trim().to_owned(),
        STANDARD.encode(secret),
        STANDARD.encode(secret.trim()),
        url,
        hex,
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
        assert!(forms("abc").iter().all(|form| form.len() >= MASKABLE));
    }
}
