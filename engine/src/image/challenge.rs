//! What a registry wants to see of whoever asks: challenges (RFC 9110, 11.6.1), tokens and passwords.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::AUTHORIZATION;
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;

use crate::image::credentials::Credentials;
use crate::image::registry::{RegistryError, Repository, is_loopback, same_host};

#[derive(Clone, PartialEq)]
pub(super) enum Authorization {
    Basic { username: String, password: String },
    Bearer { token: String, until: Option<Instant> },
}

/// One challenge of a `WWW-Authenticate` header (RFC 9110, 11.6.1).
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    scheme: String,
    parameters: BTreeMap<String, String>,
}

/// How long a token without a term holds (distribution-spec token authentication, `expires_in`).
const SHORTEST_TERM: Duration = Duration::from_secs(60);

// === impl Repository ===

impl Repository {
    pub(super) async fn authorization(&self) -> Option<Authorization> {
        let mut authorization = self.authorization.lock().await;
        if authorization.as_ref().is_some_and(Authorization::has_run_out) {
            *authorization = None;
        }
        authorization.clone()
    }

    /// Finds out what the registry wants to see, and gets it, unless somebody has since `refused` was sent.
    pub(super) async fn answer_challenge(
        &self,
        response: Response,
        refused: Option<&Authorization>,
    ) -> Result<(), RegistryError> {
        // One token for all who are refused at once: none replaces a newer one.
        let mut now = self.authorization.lock().await;
        if now.is_some() && now.as_ref() != refused {
            return Ok(());
        }
        let challenges: Vec<Challenge> = response
            .headers()
            .get_all("www-authenticate")
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(parse_challenges)
            .collect();
        let denied = self.unexpected(response, "a request").await;
        let bearer = challenges.iter().find(|challenge| challenge.scheme == "bearer");
        let basic = challenges.iter().any(|challenge| challenge.scheme == "basic");
        let authorization = match (bearer, &self.credentials) {
            (_, Some(Credentials::Bearer(token))) => {
                Authorization::Bearer { token: token.clone(), until: None }
            }
            (Some(challenge), _) => self.token(challenge).await?,
            (None, Some(Credentials::Basic { username, password }))
                if basic && self.may_send_secrets(&self.base) =>
            {
                Authorization::Basic { username: username.clone(), password: password.clone() }
            }
            _ => return Err(denied),
        };
        *now = Some(authorization);
        Ok(())
    }

    /// Gets a token from the server a challenge names (distribution-spec token authentication; OAuth2 for
    /// identity tokens).
    async fn token(&self, challenge: &Challenge) -> Result<Authorization, RegistryError> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
            expires_in: Option<u64>,
        }
        let realm = challenge.parameters.get("realm").and_then(|realm| Url::parse(realm).ok());
        let realm = realm.ok_or_else(|| self.protocol("names no server for tokens"))?;
        let mut query: Vec<(&str, String)> = Vec::new();
        if let Some(service) = challenge.parameters.get("service") {
            query.push(("service", service.clone()));
        }
        let scopes = self.scopes(challenge);
        let may_send_secrets = self.may_send_secrets(&realm);
        let client = self.client_for(&realm);
        let response = match &self.credentials {
            Some(Credentials::Identity(token)) if may_send_secrets => {
                // RFC 6749, 3.3: one list, where the query of a GET has a parameter for each.
                query.push(("scope", scopes.join(" ")));
                query.push(("grant_type", "refresh_token".to_owned()));
                query.push(("refresh_token", token.clone()));
                query.push(("client_id", "rengine".to_owned()));
                self.patiently("a token", async || client.post(realm.clone()).form(&query)).await?
            }
            Some(Credentials::Basic { .. }) if !may_send_secrets => {
                return Err(self.protocol("wants credentials sent to another host without encryption"));
            }
            Some(Credentials::Basic { username, password }) => {
                query.extend(scopes.into_iter().map(|scope| ("scope", scope)));
                let ask = || client.get(realm.clone()).query(&query);
                self.patiently("a token", async || ask().basic_auth(username, Some(password))).await?
            }
            None => {
                query.extend(scopes.into_iter().map(|scope| ("scope", scope)));
                self.patiently("a token", async || client.get(realm.clone()).query(&query)).await?
            }
            Some(_) => return Err(self.protocol("wants credentials sent to another host without encryption")),
        };
        let response = self.expect(response, "a token", &[StatusCode::OK]).await?;
        let answer: Answer = serde_json::from_slice(&self.small_body(response).await?)
            .map_err(|_| self.protocol("has a token server whose answer is not JSON"))?;
        let token = answer.token.filter(|token| !token.is_empty()).or(answer.access_token);
        let token = token.ok_or_else(|| self.protocol("has a token server that gives no token"))?;
        let term = answer.expires_in.map_or(SHORTEST_TERM, Duration::from_secs).max(SHORTEST_TERM);
        Ok(Authorization::Bearer { token, until: Instant::now().checked_add(term) })
    }

    /// What a token is to allow: all that is done with this repository, and what the registry asks for besides, as for
    /// taking a blob from another repository.
    fn scopes(&self, challenge: &Challenge) -> Vec<String> {
        let asked = challenge.parameters.get("scope").map_or("", String::as_str);
        let own = (!self.name.is_empty()).then(|| format!("repository:{}:{}", self.name, self.actions));
        let resource = format!("repository:{}:", self.name);
        // A request that only reads is challenged for reading; what follows needs more.
        let is_further = |scope: &&str| own.is_none() || !scope.starts_with(&resource);
        let further = asked.split_ascii_whitespace().filter(is_further).map(str::to_owned);
        own.iter().cloned().chain(further).collect()
    }

    /// Secrets travel encrypted, or not at all beyond this machine and hosts that were called insecure.
    fn may_send_secrets(&self, url: &Url) -> bool {
        let is_own = same_host(url, &self.base);
        url.scheme() == "https" || is_own || url.host_str().is_some_and(is_loopback)
    }
}

// === impl Authorization ===

impl Authorization {
    pub(super) fn put(&self, request: RequestBuilder) -> RequestBuilder {
        match self {
            Self::Basic { username, password } => {
                let encoded = STANDARD.encode(format!("{username}:{password}"));
                request.header(AUTHORIZATION, format!("Basic {encoded}"))
            }
            Self::Bearer { token, .. } => request.header(AUTHORIZATION, format!("Bearer {token}")),
        }
    }

    /// Whether another one can be had.
    pub(super) fn is_token(&self) -> bool {
        matches!(self, Self::Bearer { .. })
    }

    /// Whether this refusal says that another token would do (RFC 6750, 3.1).
    pub(super) fn is_too_narrow(response: &Response) -> bool {
        let values = response.headers().get_all("www-authenticate").iter();
        response.status() == StatusCode::FORBIDDEN
            && values.filter_map(|value| value.to_str().ok()).flat_map(parse_challenges).any(|challenge| {
                challenge.parameters.get("error").is_some_and(|it| it == "insufficient_scope")
            })
    }

    fn has_run_out(&self) -> bool {
        match self {
            Self::Bearer { until: Some(until), .. } => Instant::now() + Duration::from_secs(5) > *until,
            _ => false,
        }
    }
}

/// Several challenges may share a header, each a scheme and its parameters, quoted or not.
fn parse_challenges(text: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let end = rest.find([' ', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let after = after.trim_start();
        if let Some(value) = after.strip_prefix('=') {
            let (value, left) = take_value(value.trim_start());
            if let Some(challenge) = challenges.last_mut() {
                challenge.parameters.insert(word.to_ascii_lowercase(), value);
            }
            rest = left;
        } else {
            if !word.is_empty() {
                let scheme = word.to_ascii_lowercase();
                challenges.push(Challenge { scheme, parameters: BTreeMap::new() });
            }
            rest = after;
        }
        rest = rest.trim_start_matches([',', ' ', '\t']);
    }
    challenges
}

fn take_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_in_every_form() {
        let text = r#"Bearer realm="https://auth.example/token?a=b,c",service="reg:5000",scope="repository:a/b:pull,push" , Basic realm=x"#;
        let challenges = parse_challenges(text);
        assert_eq!(challenges.len(), 2);
        assert_eq!(challenges[0].scheme, "bearer");
        assert_eq!(challenges[0].parameters["realm"], "https://auth.example/token?a=b,c");
        assert_eq!(challenges[0].parameters["scope"], "repository:a/b:pull,push");
        assert_eq!(challenges[1].scheme, "basic");
        assert_eq!(challenges[1].parameters["realm"], "x");
        let escaped = parse_challenges(r#"Digest realm="a \"b\"", Bearer realm="r""#);
        assert_eq!(escaped[0].parameters["realm"], "a \"b\"");
        assert_eq!(escaped[1].scheme, "bearer");
        for text in ["", ",", "=", "==", "\"", "a=\"", " , ,", "Negotiate"] {
            assert!(parse_challenges(text).len() < 2, "{text:?}");
        }
    }
}
