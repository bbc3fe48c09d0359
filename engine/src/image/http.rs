//! What every HTTP connection of the engine has in common: TLS, a name to go by, and patience with a limit.
//! Proxies come from HTTP_PROXY, HTTPS_PROXY and NO_PROXY, as reqwest reads them.

use std::sync::Once;
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER, WARNING};
use reqwest::{Client, ClientBuilder};

/// How long somebody may take to answer the telephone.
const CONNECT: Duration = Duration::from_secs(15);

/// A client that trusts the system's roots.
pub(crate) fn client() -> ClientBuilder {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Somebody else in this process may have installed it first.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    Client::builder()
        .user_agent(concat!("rengine/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .http2_adaptive_window(true)
}

/// How long a server wants to be left alone: seconds or a date (RFC 9110, 10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = date(text)?.duration_since(jiff::Timestamp::now());
    Some(until.try_into().unwrap_or(Duration::ZERO))
}

/// What a registry wants people to read: `Warning: 299 - "TEXT"` (distribution-spec, "Warnings").
pub(crate) fn warning(headers: &HeaderMap) -> Vec<String> {
    let said = headers.get_all(WARNING).iter().filter_map(|value| value.to_str().ok());
    let text = |value: &str| {
        let quoted = value.trim().strip_prefix("299 - \"")?.strip_suffix('"')?;
        Some(quoted.replace("\\\"", "\"").replace("\\\\", "\\"))
    };
    said.filter_map(text).collect()
}

/// What Docker Hub says of how often it may be asked: `0 of 100 are left within 6 h for 192.0.2.7`.
pub(crate) fn quota(headers: &HeaderMap) -> Option<String> {
    let get = |name: &str| headers.get(name)?.to_str().ok();
    let (limit, left) = (get("ratelimit-limit")?, get("ratelimit-remaining")?);
    let number = |text: &str| text.split(';').next().unwrap_or_default().trim().to_owned();
    let window = limit.split(';').find_map(|part| part.trim().strip_prefix("w=")?.parse::<u64>().ok());
    let within = window.map_or(String::new(), |seconds| match seconds {
        hours if hours % 3600 == 0 => format!(" within {} h", hours / 3600),
        seconds => format!(" within {seconds} s"),
    });
    let source = get("docker-ratelimit-source").map_or(String::new(), |source| format!(" for {source}"));
    Some(format!("{} of {} are left{within}{source}", number(left), number(limit)))
}

/// An HTTP date (RFC 9110, 5.6.7).
pub(crate) fn date(text: &str) -> Option<jiff::Timestamp> {
    jiff::fmt::rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn what_a_registry_says_to_people_is_read() {
        let said = headers(&[("warning", "299 - \"it \\\"moves\\\"\""), ("warning", "199 - \"no\"")]);
        assert_eq!(warning(&said), ["it \"moves\""]);
        let limits = [
            ("ratelimit-limit", "100;w=21600"),
            ("ratelimit-remaining", "0;w=21600"),
            ("docker-ratelimit-source", "192.0.2.7"),
        ];
        assert_eq!(quota(&headers(&limits)).unwrap(), "0 of 100 are left within 6 h for 192.0.2.7");
        assert_eq!(quota(&headers(&limits[1..])), None);
    }

    #[test]
    fn a_server_names_seconds_or_a_date() {
        let asked = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        assert_eq!(asked("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert!(asked("Fri, 31 Dec 2199 23:59:59 GMT").unwrap() > Duration::from_secs(1 << 30));
        assert_eq!(asked("soon"), None);
        assert_eq!(date("Wed, 21 Oct 2015 07:28:00 GMT").unwrap().as_second(), 1_445_412_480);
    }
}
