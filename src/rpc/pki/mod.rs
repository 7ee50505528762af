//! Certificates: the three issuers, what they sign, where it lies on disk and when it ends.
//!
//! - [`issuer`] makes the issuers and signs; names and rights are always the signer's choice, a request gives its key only.
//! - [`files`] is the layout of `<data-dir>/pki`, all mode 0600, issuer keys sealed by [`seal`].
//! - [`datakeys`] are the keys that Secrets are sealed with.
//! - [`inspect`] reads certificates: names, end, issuer.
//!
//! It holds no TLS configuration (see [`crate::tls`]) and reads the wall clock only in [`unix_now`].
//!
//! **Invariant:** a certificate of one issuer never proves what another issuer's does.

pub mod datakeys;
pub mod files;
pub mod inspect;
pub mod issuer;
pub mod kubeconfig;
pub mod seal;

pub use datakeys::DataKeys;
pub use files::{Credential, Dir};
pub use inspect::{About, Expiry, about, expiry};
pub use issuer::{ApiName, Issuers, Lifetimes, NodeName, PeerName, signing_request, signing_request_of};

use ring::digest;

/// What certificates of an issuer stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Members of the cluster, towards each other on the peer port.
    Peer,
    /// Kubelets.
    Node,
    /// Users, and the API servers they talk to.
    Client,
}

impl Role {
    pub const ALL: [Role; 3] = [Role::Peer, Role::Node, Role::Client];

    pub fn name(self) -> &'static str {
        match self {
            Role::Peer => "peer",
            Role::Node => "node",
            Role::Client => "client",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {source}")]
    File { path: std::path::PathBuf, source: std::io::Error },
    #[error("{what} is not a valid certificate, key or request: {cause}")]
    Malformed { what: String, cause: String },
    #[error("{what} does not open with {key}: it was sealed with another key or is damaged")]
    Sealed { what: String, key: String },
    #[error("cannot make a certificate: {0}")]
    Issue(String),
}

impl Error {
    pub(crate) fn malformed(what: impl Into<String>, cause: impl std::fmt::Display) -> Self {
        Error::Malformed { what: what.into(), cause: cause.to_string() }
    }
}

/// The issuers' certificates of all roles, PEM bundles: what everyone trusts and a join token pins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundles {
    pub peer: String,
    pub node: String,
    pub client: String,
}

impl Bundles {
    pub fn of(&self, role: Role) -> &str {
        match role {
            Role::Peer => &self.peer,
            Role::Node => &self.node,
            Role::Client => &self.client,
        }
    }

    /// The pin of a join token: SHA-256 over the certificates of all three bundles, in whichever order they lie.
    ///
    /// # Errors
    /// When a bundle holds no certificate.
    pub fn pin(&self) -> Result<String, Error> {
        let mut context = digest::Context::new(&digest::SHA256);
        for role in Role::ALL {
            let certificates = inspect::certificates(self.of(role), role.name())?;
            context.update(role.name().as_bytes());
            context.update(&(certificates.len() as u64).to_be_bytes());
            let mut digests: Vec<_> =
                certificates.iter().map(|certificate| digest::digest(&digest::SHA256, certificate)).collect();
            digests.sort_by(|a, b| a.as_ref().cmp(b.as_ref()));
            for digest in digests {
                context.update(digest.as_ref());
            }
        }
        Ok(hex::encode(context.finish()))
    }

    /// These issuers, and those of `others` that are not among them.
    ///
    /// # Errors
    /// When a bundle holds no certificate.
    pub fn and(&self, others: &Self) -> Result<Self, Error> {
        let both = |role: Role| -> Result<String, Error> {
            let mut all = inspect::certificates(self.of(role), role.name())?;
            for other in inspect::certificates(others.of(role), role.name())? {
                if !all.contains(&other) {
                    all.push(other);
                }
            }
            Ok(all.iter().map(|certificate| pem_of(certificate)).collect())
        };
        Ok(Self { peer: both(Role::Peer)?, node: both(Role::Node)?, client: both(Role::Client)? })
    }
}

/// What a node says of its certificate, as the JSON text of an annotation of its Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Said {
    /// Seconds since 1970.
    pub not_before: i64,
    pub not_after: i64,
    pub serial: String,
    /// Fingerprint of its issuer.
    pub issuer: String,
    /// [`Bundles::pin`] of what it trusts.
    pub trust: String,
    pub file: String,
}

/// A certificate as PEM.
pub fn pem_of(certificate: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        // Base64 is ASCII.
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// The wall clock in seconds since 1970.
pub fn unix_now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

/// SHA-256 of some bytes as lower-case hex, as certificates and token secrets are named.
pub fn fingerprint(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes))
}
