//! The kubeconfig of a user: one cluster and context per server, the first of them current.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Bundles, Credential, Error, Issuers, Lifetimes, signing_request};

/// The user and group of the kubeconfig that `cluster init` writes.
pub const ADMIN_USER: &str = "admin";
pub const ADMIN_GROUP: &str = "system:masters";

/// One server of a kubeconfig: the name of its context, its https URL, and the name to verify its certificate by where
/// that is not the URL's host.
#[derive(Clone, Debug)]
pub struct Server {
    pub context: String,
    pub url: String,
    pub tls_name: Option<String>,
}

/// A fresh administrator's certificate.
///
/// # Errors
/// When it cannot be signed.
pub fn admin_credential(issuers: &Issuers, lifetimes: &Lifetimes, now: i64) -> Result<Credential, Error> {
    let (key_pem, csr_pem) = signing_request()?;
    let certificate_pem = issuers.issue_user(&csr_pem, ADMIN_USER, Some(ADMIN_GROUP), lifetimes.user, now)?;
    Ok(Credential { certificate_pem, key_pem })
}

/// The file's text: JSON, which is YAML.
pub fn render(user: &str, servers: &[Server], credential: &Credential, bundles: &Bundles) -> String {
    let clusters: Vec<_> = servers
        .iter()
        .map(|server| {
            let mut cluster = json!({
                "server": server.url,
                "certificate-authority-data": STANDARD.encode(&bundles.client),
            });
            if let Some(name) = &server.tls_name {
                cluster["tls-server-name"] = json!(name);
            }
            json!({ "name": server.context, "cluster": cluster })
        })
        .collect();
    let contexts: Vec<_> = servers
        .iter()
        .map(|server| json!({ "name": server.context, "context": { "cluster": server.context, "user": user } }))
        .collect();
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": clusters,
        "contexts": contexts,
        "current-context": servers.first().map_or("", |server| server.context.as_str()),
        "users": [{
            "name": user,
            "user": {
                "client-certificate-data": STANDARD.encode(&credential.certificate_pem),
                "client-key-data": STANDARD.encode(&credential.key_pem),
            },
        }],
    });
    pretty(&config)
}

/// The certificate (PEM) in a kubeconfig that [`render`] made.
///
/// # Errors
/// When it was made by something else.
pub fn certificate(text: &str) -> Result<String, Error> {
    let config = parse(text)?;
    decoded(&config["users"][0]["user"]["client-certificate-data"])
}

/// What a kubeconfig that [`render`] made trusts (PEM).
///
/// # Errors
/// When it was made by something else.
pub fn issuer(text: &str) -> Result<String, Error> {
    let config = parse(text)?;
    decoded(&config["clusters"][0]["cluster"]["certificate-authority-data"])
}

fn decoded(value: &Value) -> Result<String, Error> {
    let pem = STANDARD.decode(value.as_str().unwrap_or_default()).map_err(|cause| Error::malformed(WHAT, cause))?;
    String::from_utf8(pem).map_err(|cause| Error::malformed(WHAT, cause))
}

/// The same kubeconfig with another certificate, and these issuers.
///
/// # Errors
/// When it was made by something else.
pub fn renewed(text: &str, credential: &Credential, client_issuer_pem: &str) -> Result<String, Error> {
    let mut config = parse(text)?;
    config["users"][0]["user"]["client-certificate-data"] = STANDARD.encode(&credential.certificate_pem).into();
    config["users"][0]["user"]["client-key-data"] = STANDARD.encode(&credential.key_pem).into();
    for entry in config["clusters"].as_array_mut().into_iter().flatten() {
        entry["cluster"]["certificate-authority-data"] = STANDARD.encode(client_issuer_pem).into();
    }
    Ok(pretty(&config))
}

const WHAT: &str = "the kubeconfig";

/// Only what [`render`] makes: JSON, one user, everything in place.
fn parse(text: &str) -> Result<Value, Error> {
    let foreign = |cause: &str| Error::malformed(WHAT, cause);
    let config: Value = serde_json::from_str(text).map_err(|_| foreign("it was not made by hactl"))?;
    let has = |value: &Value, name: &str| value[name].is_string();
    let users = config["users"].as_array().ok_or_else(|| foreign("it has no users"))?;
    let clusters = config["clusters"].as_array().ok_or_else(|| foreign("it has no clusters"))?;
    let [user] = users.as_slice() else { return Err(foreign("it has several users")) };
    if !has(&user["user"], "client-certificate-data") || !has(&user["user"], "client-key-data") {
        return Err(foreign("its user has no client certificate in place"));
    }
    if !clusters.iter().all(|entry| has(&entry["cluster"], "certificate-authority-data")) {
        return Err(foreign("a cluster of it has no issuer in place"));
    }
    Ok(config)
}

fn pretty(config: &Value) -> String {
    // A tree of strings and lists always serializes.
    let mut text = serde_json::to_string_pretty(config).unwrap_or_default();
    text.push('\n');
    text
}

/// Renders and writes it, mode 0600.
///
/// # Errors
/// When the disk refuses.
pub fn write(
    path: &Path,
    user: &str,
    servers: &[Server],
    credential: &Credential,
    bundles: &Bundles,
) -> Result<(), Error> {
    super::files::write_private(path, render(user, servers, credential, bundles).as_bytes())
}
