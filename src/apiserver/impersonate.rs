//! Acting as another (`kubectl --as`): what the headers ask for. Whether it is allowed, and who one is then, says
//! `control::rbac::impersonation`.

use control::rbac::impersonation::Requested;
use http::{HeaderMap, HeaderValue};

use crate::route;
use crate::status::{Failure, Result};

const USER: &str = "impersonate-user";
const UID: &str = "impersonate-uid";
const GROUP: &str = "impersonate-group";
const EXTRA: &str = "impersonate-extra-";

/// Whom the request wants to act as; empty where it does not.
pub fn requested(headers: &HeaderMap) -> Result<Requested> {
    let mut requested = Requested::default();
    for (name, value) in headers {
        match name.as_str() {
            USER => requested.user = text(value)?,
            UID => requested.uid = text(value)?,
            GROUP => requested.groups.push(text(value)?),
            other => {
                let Some(key) = other.strip_prefix(EXTRA) else { continue };
                let key = route::decode(key).ok_or_else(malformed)?.to_lowercase();
                requested.extra.entry(key).or_default().push(text(value)?);
            }
        }
    }
    Ok(requested)
}

fn text(value: &HeaderValue) -> Result<String> {
    std::str::from_utf8(value.as_bytes()).map(str::to_owned).map_err(|_| malformed())
}

fn malformed() -> Failure {
    Failure::bad_request("the headers Impersonate-… are no UTF-8")
}
