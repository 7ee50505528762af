//! Who makes a request: whom the certificate of its connection names, else the ServiceAccount of its token, else nobody known.
//! And what a verifier elsewhere needs to check such a token by itself.
//!
//! **Invariant:** a token that is presented and does not count is refused; it never makes its bearer anonymous.

use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use control::authz::{UNAUTHENTICATED, User};
use control::tokens::{self, Claims, Holder, ISSUER, Invalid};
use http::{HeaderMap, StatusCode, header};
use serde_json::json;
use state::State;

use crate::config::TokenKeys;
use crate::server::Server;
use crate::status::{Failure, Result};

pub const CONFIGURATION: &str = "/.well-known/openid-configuration";
pub const KEY_SET: &str = "/openid/v1/jwks";
/// A longer token is none of ours.
const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Browsers cannot set the header of a WebSocket: theirs comes among the protocols.
const PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// Whom the connection's certificate names.
pub fn of_certificate(user: Option<&User>) -> Option<&User> {
    user.filter(|user| !user.is_in(UNAUTHENTICATED))
}

/// Whose token the request carries; nobody's if it carries none.
pub async fn of_token(server: &Server, headers: &HeaderMap) -> Result<Option<User>> {
    let Some(token) = bearer(headers) else { return Ok(None) };
    match holder(server, &token, &[]).await? {
        Ok(holder) => Ok(Some(holder.user)),
        Err(why) => {
            tracing::debug!(target: "audit", why, "a token was refused");
            Err(Failure::unauthorized())
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let text = |value: &http::HeaderValue| value.to_str().map(str::to_owned).ok();
    let given = headers.get(header::AUTHORIZATION).and_then(text);
    let (scheme, token) = given.as_deref().and_then(|given| given.trim().split_once(' ')).unwrap_or_default();
    if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() {
        return Some(token.trim().to_owned());
    }
    let protocols = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(text).collect::<Vec<_>>();
    let protocols = protocols.iter().flat_map(|line| line.split(','));
    let encoded = protocols.filter_map(|protocol| protocol.trim().strip_prefix(PROTOCOL)).next()?;
    URL_SAFE_NO_PAD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok())
}

/// Who bears a token, for one of these audiences (none: this API); or why it does not count.
pub async fn holder(server: &Server, token: &str, audiences: &[String]) -> Result<Result<Holder, String>> {
    let Some(keys) = &server.config.tokens else { return Ok(Err("this server takes no tokens".to_owned())) };
    if token.len() > TOKEN_BYTES_MAX {
        return Ok(Err("the token is too long".to_owned()));
    }
    let now = (server.config.now)();
    let judge = |root: &State| judged(&**keys, token, audiences, root, now);
    match judge(&server.config.replica.root()) {
        Err(Invalid::AsOf(_)) => {}
        judged => return Ok(judged.map_err(|invalid| invalid.to_string())),
    }
    // What it names may have been made at another master a moment ago.
    let root = server.config.replica.read().await?;
    Ok(judge(&root).map_err(|invalid| invalid.to_string()))
}

fn judged(
    keys: &dyn TokenKeys,
    token: &str,
    audiences: &[String],
    root: &State,
    now: jiff::Timestamp,
) -> Result<Holder, Invalid> {
    let said = keys.verify(token, root).ok_or_else(|| Invalid::AsOf("no key of this cluster signed it".to_owned()))?;
    let claims: Claims = serde_json::from_slice(&said)
        .map_err(|_| Invalid::Always("it does not say what the token of a ServiceAccount does".to_owned()))?;
    tokens::holder(&claims, audiences, root, now)
}

/// What OpenID Connect asks an issuer for, if the path is one of these.
pub fn discovery(server: &Server, path: &str) -> Option<Result<Response>> {
    if !matches!(path, CONFIGURATION | KEY_SET) {
        return None;
    }
    let Some(keys) = &server.config.tokens else { return Some(Err(Failure::no_such_path())) };
    let (set, algorithm) = keys.public(&server.config.replica.root());
    let (media, body) = if path == KEY_SET {
        ("application/jwk-set+json", set)
    } else {
        let configuration = json!({
            "issuer": ISSUER,
            "jwks_uri": format!("{ISSUER}{KEY_SET}"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [algorithm],
        });
        ("application/json", configuration)
    };
    let headers = [(header::CONTENT_TYPE, media), (header::CACHE_CONTROL, "public, max-age=3600")];
    Some(Ok((StatusCode::OK, headers, body.to_string()).into_response()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_token_stands() {
        let name = header::SEC_WEBSOCKET_PROTOCOL;
        let protocols = format!("v5.channel.k8s.io, {PROTOCOL}{}", URL_SAFE_NO_PAD.encode("a.b.c"));
        for (name, value, expected) in [
            (header::AUTHORIZATION, "Bearer a.b.c", Some("a.b.c")),
            (header::AUTHORIZATION, "bearer  a.b.c ", Some("a.b.c")),
            (header::AUTHORIZATION, "Bearer ", None),
            (header::AUTHORIZATION, "Basic YTpi", None),
            (name.clone(), protocols.as_str(), Some("a.b.c")),
            (name.clone(), "v5.channel.k8s.io", None),
            (name, "base64url.bearer.authorization.k8s.io.!", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().expect("a header"));
            assert_eq!(bearer(&headers).as_deref(), expected, "{value}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
