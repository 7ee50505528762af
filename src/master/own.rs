//! Certificates that a master makes for itself and for the node on its own machine, since it holds the issuers.

use rpc::pki::{ApiName, Credential, Error, Issuers, Lifetimes, NodeName, PeerName, signing_request};

pub fn peer(issuers: &Issuers, name: &PeerName, lifetimes: &Lifetimes, now: i64) -> Result<Credential, Error> {
    let (key_pem, csr) = signing_request()?;
    Ok(Credential { certificate_pem: issuers.issue_peer(&csr, name, lifetimes.peer, now)?, key_pem })
}

pub fn api(issuers: &Issuers, name: &ApiName, lifetimes: &Lifetimes, now: i64) -> Result<Credential, Error> {
    let (key_pem, csr) = signing_request()?;
    Ok(Credential { certificate_pem: issuers.issue_api(&csr, name, lifetimes.api, now)?, key_pem })
}

pub fn node(issuers: &Issuers, name: &NodeName, lifetimes: &Lifetimes, now: i64) -> Result<Credential, Error> {
    let (key_pem, csr) = signing_request()?;
    Ok(Credential { certificate_pem: issuers.issue_node(&csr, name, lifetimes.node, now)?, key_pem })
}
