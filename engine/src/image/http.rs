//! What every HTTP connection of the engine has in common: TLS, a name to go by, and patience with a limit.
//! Proxies come from HTTP_PROXY, HTTPS_PROXY and NO_PROXY, as reqwest reads them.

use std::sync::Once;
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
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

/// An HTTP date (RFC 9110, 5.6.7).
pub(crate) fn date(text: &str) -> Option<jiff::Timestamp> {
    jiff::fmt::rfc2822::DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

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
