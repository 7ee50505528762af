//! The issuers: making them, and signing requests. A request contributes its public key; subject, names, rights and
//! lifetime are given by the signer.

use std::net::IpAddr;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType, SerialNumber, date_time_ymd,
};
use ring::rand::{SecureRandom, SystemRandom};

use super::{Bundles, Error, Role, inspect};

/// How long certificates last; they renew at two thirds of it.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub struct Lifetimes {
    pub issuer: Duration,
    pub peer: Duration,
    pub node: Duration,
    pub api: Duration,
    pub user: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        const DAY: u64 = 24 * 3600;
        Self {
            issuer: Duration::from_secs(3650 * DAY),
            peer: Duration::from_secs(90 * DAY),
            node: Duration::from_secs(90 * DAY),
            api: Duration::from_secs(90 * DAY),
            user: Duration::from_secs(365 * DAY),
        }
    }
}

/// What a peer certificate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerName {
    pub cluster_id: String,
    pub epoch: u64,
    pub member: u64,
}

impl PeerName {
    /// The DNS name by which other members verify that they reached this one.
    pub fn dns(cluster_id: &str, member: u64) -> String {
        format!("member-{member}.{cluster_id}.hactl")
    }

    /// The DNS name that all members have, for whoever knows an address and not its member.
    pub fn any_dns(cluster_id: &str) -> String {
        format!("member.{cluster_id}.hactl")
    }

    fn uri(&self) -> String {
        format!("hactl://{}/member/{}/epoch/{}", self.cluster_id, self.member, self.epoch)
    }
}

/// What a node certificate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName {
    pub cluster_id: String,
    pub name: String,
    pub uid: String,
}

impl NodeName {
    fn uri(&self) -> String {
        format!("hactl://{}/node/{}/{}", self.cluster_id, self.name, self.uid)
    }
}

/// What an API server's certificate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiName {
    pub member: u64,
    /// Host names and addresses that users reach it by, without ports.
    pub hosts: Vec<String>,
    /// The first address of the Service range: that of the Service `kubernetes`.
    pub service_ip: Option<IpAddr>,
}

/// One issuer with its signing key.
pub struct Issuer {
    role: Role,
    /// The key belongs to the first; the others are trusted beside it while issuers rotate.
    bundle_pem: String,
    own_pem: String,
    key: KeyPair,
}

/// The three issuers with their keys, as every master holds them.
pub struct Issuers {
    pub peer: Issuer,
    pub node: Issuer,
    pub client: Issuer,
}

impl std::fmt::Debug for Issuers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Issuers(keys withheld)")
    }
}

/// A fresh key and the request for a certificate of it, both PEM.
///
/// # Errors
/// When the system yields no randomness.
pub fn signing_request() -> Result<(String, String), Error> {
    let key = new_key()?;
    let request = CertificateParams::default().serialize_request(&key).map_err(issue)?;
    Ok((key.serialize_pem(), request.pem().map_err(issue)?))
}

/// A request for a new certificate of a present key, PEM.
///
/// # Errors
/// When the key is malformed.
pub fn signing_request_of(key_pem: &str) -> Result<String, Error> {
    let key = KeyPair::from_pem(key_pem).map_err(|cause| Error::malformed("the key", cause))?;
    let request = CertificateParams::default().serialize_request(&key).map_err(issue)?;
    request.pem().map_err(issue)
}

impl Issuers {
    /// # Errors
    /// When the system yields no randomness.
    pub fn create(cluster_id: &str, lifetimes: &Lifetimes, now: i64) -> Result<Self, Error> {
        let make = |role| Issuer::create(role, cluster_id, lifetimes.issuer, now);
        Ok(Self { peer: make(Role::Peer)?, node: make(Role::Node)?, client: make(Role::Client)? })
    }

    pub fn bundles(&self) -> Bundles {
        Bundles {
            peer: self.peer.bundle_pem.clone(),
            node: self.node.bundle_pem.clone(),
            client: self.client.bundle_pem.clone(),
        }
    }

    /// The certificates of those that sign, without others that are trusted beside them.
    pub fn own(&self) -> Bundles {
        Bundles {
            peer: self.peer.own_pem.clone(),
            node: self.node.own_pem.clone(),
            client: self.client.own_pem.clone(),
        }
    }

    /// Whether others are trusted beside those that sign.
    pub fn are_rotating(&self) -> bool {
        [&self.peer, &self.node, &self.client].iter().any(|issuer| issuer.bundle_pem != issuer.own_pem)
    }

    /// The signing keys, PEM, to be sealed or sent to a joining master.
    pub fn keys_pem(&self) -> [String; 3] {
        [&self.peer, &self.node, &self.client].map(|issuer| issuer.key.serialize_pem())
    }

    /// # Errors
    /// When a key does not parse or is that of none of its bundle's certificates.
    pub fn from_parts(bundles: &Bundles, keys_pem: &[String; 3]) -> Result<Self, Error> {
        let load = |role: Role, key: &str| Issuer::load(role, bundles.of(role), key);
        Ok(Self {
            peer: load(Role::Peer, &keys_pem[0])?,
            node: load(Role::Node, &keys_pem[1])?,
            client: load(Role::Client, &keys_pem[2])?,
        })
    }

    /// Signs a member's request.
    ///
    /// # Errors
    /// When the request is malformed.
    pub fn issue_peer(&self, csr_pem: &str, name: &PeerName, life: Duration, now: i64) -> Result<String, Error> {
        let mut params = params(&format!("hactl:member:{}", name.member), Some("hactl:members"), life, now)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![
            dns(&PeerName::dns(&name.cluster_id, name.member))?,
            dns(&PeerName::any_dns(&name.cluster_id))?,
            uri(&name.uri())?,
        ];
        self.peer.sign(csr_pem, &params)
    }

    /// Signs a kubelet's request: user `system:node:<name>` of group `system:nodes`, with the Node's uid.
    ///
    /// # Errors
    /// When the request is malformed.
    pub fn issue_node(&self, csr_pem: &str, name: &NodeName, life: Duration, now: i64) -> Result<String, Error> {
        let mut params = params(&format!("system:node:{}", name.name), Some("system:nodes"), life, now)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![uri(&name.uri())?];
        self.node.sign(csr_pem, &params)
    }

    /// Signs a user's request. One group: certificates made here name at most one.
    ///
    /// # Errors
    /// When the request is malformed.
    pub fn issue_user(
        &self,
        csr_pem: &str,
        user: &str,
        group: Option<&str>,
        life: Duration,
        now: i64,
    ) -> Result<String, Error> {
        let mut params = params(user, group, life, now)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.client.sign(csr_pem, &params)
    }

    /// Signs an API server's request.
    ///
    /// # Errors
    /// When the request is malformed or a host is no name.
    pub fn issue_api(&self, csr_pem: &str, name: &ApiName, life: Duration, now: i64) -> Result<String, Error> {
        let mut params = params(&format!("hactl:api:{}", name.member), None, life, now)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let fixed = [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "127.0.0.1",
            "::1",
        ];
        let service = name.service_ip.map(|ip| ip.to_string());
        let mut names: Vec<String> = Vec::new();
        for host in fixed.into_iter().chain(name.hosts.iter().map(String::as_str)).chain(service.as_deref()) {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            if !host.is_empty() && !names.iter().any(|known| known == host) {
                names.push(host.to_owned());
            }
        }
        params.subject_alt_names = CertificateParams::new(names).map_err(issue)?.subject_alt_names;
        self.client.sign(csr_pem, &params)
    }
}

impl Issuer {
    fn create(role: Role, cluster_id: &str, life: Duration, now: i64) -> Result<Self, Error> {
        let key = new_key()?;
        // Of its own name, so that whoever knows another generation finds it unknown and not its signature wrong.
        let mut params = params(&format!("hactl {} {cluster_id} {now}", role.name()), None, life, now)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.use_authority_key_identifier_extension = false;
        let certificate = super::pem_of(params.self_signed(&key).map_err(issue)?.der());
        Ok(Self { role, bundle_pem: certificate.clone(), own_pem: certificate, key })
    }

    fn load(role: Role, bundle_pem: &str, key_pem: &str) -> Result<Self, Error> {
        let what = format!("the {} issuer", role.name());
        let key = KeyPair::from_pem(key_pem).map_err(|cause| Error::malformed(format!("the key of {what}"), cause))?;
        let certificates = inspect::certificates(bundle_pem, &what)?;
        let mut own = None;
        let mut others = String::new();
        for certificate in &certificates {
            let is_own = own.is_none() && inspect::public_key(certificate, &what)? == key.public_key_raw();
            let pem = super::pem_of(certificate);
            if is_own { own = Some(pem) } else { others.push_str(&pem) }
        }
        let own_pem = own.ok_or_else(|| Error::malformed(what, "its key belongs to another certificate"))?;
        Ok(Self { role, bundle_pem: format!("{own_pem}{others}"), own_pem, key })
    }

    fn sign(&self, csr_pem: &str, params: &CertificateParams) -> Result<String, Error> {
        let request = CertificateSigningRequestParams::from_pem(csr_pem)
            .map_err(|cause| Error::malformed("the certificate signing request", cause))?;
        let issuer = rcgen::Issuer::from_ca_cert_pem(&self.own_pem, &self.key)
            .map_err(|cause| Error::malformed(format!("the {} issuer", self.role.name()), cause))?;
        Ok(params.signed_by(&request.public_key, &issuer).map_err(issue)?.pem())
    }
}

fn new_key() -> Result<KeyPair, Error> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(issue)
}

fn params(name: &str, organization: Option<&str>, life: Duration, now: i64) -> Result<CertificateParams, Error> {
    let mut serial = [0u8; 16];
    SystemRandom::new().fill(&mut serial).map_err(|_| Error::Issue("the system yields no randomness".into()))?;
    serial[0] &= 0x7f;
    let now = date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(now).unwrap_or(0));
    let mut params = CertificateParams::default();
    params.not_before = now - life.min(Duration::from_secs(inspect::BACK_DATED_S.unsigned_abs()));
    params.not_after = now + life;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = DistinguishedName::new();
    if let Some(organization) = organization {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn dns(name: &str) -> Result<SanType, Error> {
    Ok(SanType::DnsName(name.try_into().map_err(issue)?))
}

fn uri(name: &str) -> Result<SanType, Error> {
    Ok(SanType::URI(name.try_into().map_err(issue)?))
}

fn issue(cause: impl std::fmt::Display) -> Error {
    Error::Issue(cause.to_string())
}
