//! TLS 1.3 configurations of both ports and of every client, with certificates and issuers that change while running.
//!
//! **Invariant:** the peer port trusts the peer issuer alone; the API port trusts node and client issuers, and asks for no
//! certificate. Our own clients verify an API server by the name `kubernetes`, which every master's certificate carries,
//! and a member by its own name.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::identity::Identity;
use crate::pki::{Bundles, Credential, Error, Role, inspect};

/// The name by which our own clients verify any master's API port.
pub const API_NAME: &str = "kubernetes";

const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";
/// Said with a client's hello, beside the protocol that is spoken: this connection is for bulk.
const BULK: &[u8] = b"hactl-bulk";

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A configuration that is taken anew for each handshake, since issuers change. Clones share it.
#[derive(Debug)]
pub struct Live<T>(Arc<ArcSwap<T>>);

impl<T> Live<T> {
    pub fn load(&self) -> Arc<T> {
        self.0.load_full()
    }

    /// Takes effect with the next handshake.
    pub fn replace(&self, config: Arc<T>) {
        self.0.store(config);
    }
}

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> From<Arc<T>> for Live<T> {
    fn from(config: Arc<T>) -> Self {
        Self(Arc::new(ArcSwap::new(config)))
    }
}

/// A certificate with its key that both ends of connections read anew at each handshake.
#[derive(Clone, Debug)]
pub struct Certificate(Arc<ArcSwap<CertifiedKey>>);

impl Certificate {
    /// # Errors
    /// When certificate or key is malformed or they do not belong together; `what` names the pair.
    pub fn new(credential: &Credential, what: &str) -> Result<Self, Error> {
        Ok(Self(Arc::new(ArcSwap::from_pointee(certified(credential, what)?))))
    }

    /// Takes effect with the next handshake.
    ///
    /// # Errors
    /// As [`Certificate::new`]; the present one then stays.
    pub fn replace(&self, credential: &Credential, what: &str) -> Result<(), Error> {
        self.0.store(Arc::new(certified(credential, what)?));
        Ok(())
    }
}

fn certified(credential: &Credential, what: &str) -> Result<CertifiedKey, Error> {
    let chain = inspect::certificates(&credential.certificate_pem, &format!("the {what} certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(credential.key_pem.as_bytes())
        .map_err(|cause| Error::malformed(format!("the {what} key"), cause))?;
    CertifiedKey::from_der(chain, key, &provider())
        .map_err(|cause| Error::malformed(format!("the {what} certificate with its key"), cause))
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl ResolvesClientCert for Certificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn roots(pems: &[(&str, &str)]) -> Result<Arc<RootCertStore>, Error> {
    let mut store = RootCertStore::empty();
    for (what, pem) in pems {
        for certificate in inspect::certificates(pem, &format!("the {what} issuer"))? {
            store.add(certificate).map_err(|cause| Error::malformed(format!("the {what} issuer"), cause))?;
        }
    }
    Ok(Arc::new(store))
}

fn server(
    certificate: &Certificate,
    clients: Arc<dyn ClientCertVerifier>,
    protocols: &[&[u8]],
) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|cause| Error::Issue(cause.to_string()))?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(certificate.clone()));
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    // Resumption would keep the identity of a certificate that is over.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Of port 6443: node and client certificates are welcome, none is required. A node's certificate opens it for as long as
/// `grace` after its end, and before it begins, as [`Identity::LateNode`].
///
/// # Errors
/// When an issuer is malformed.
pub fn api_server(certificate: &Certificate, bundles: &Bundles, grace: Duration) -> Result<Arc<ServerConfig>, Error> {
    let verifier = |issuers: &[(&str, &str)]| {
        WebPkiClientVerifier::builder_with_provider(roots(issuers)?, provider())
            .allow_unauthenticated()
            .build()
            .map_err(|cause| Error::malformed("the issuers", cause))
    };
    let all = verifier(&[("node", &bundles.node), ("client", &bundles.client)])?;
    let nodes = verifier(&[("node", &bundles.node)])?;
    server(certificate, Arc::new(LateNodes { all, nodes, grace }), &[H2, HTTP1])
}

/// Verifies as `all` does, but lets certificates of nodes in that have ended within `grace`, or that a master made whose
/// clock was ahead. What they may then do is not decided here.
#[derive(Debug)]
struct LateNodes {
    all: Arc<dyn ClientCertVerifier>,
    nodes: Arc<dyn ClientCertVerifier>,
    grace: Duration,
}

impl LateNodes {
    /// A moment at which a certificate holds that is refused now: the last of one that ended lately, the first of one that
    /// has not begun.
    fn held(&self, leaf: &CertificateDer<'_>, refused: &rustls::Error, now: UnixTime) -> Option<UnixTime> {
        use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
        let rustls::Error::InvalidCertificate(why) = refused else { return None };
        let inspect::Expiry { not_before, not_after } = inspect::validity(leaf)?;
        let at = match why {
            Expired | ExpiredContext { .. } => {
                let last = u64::try_from(not_after).ok()?.checked_sub(1)?;
                (now.as_secs().saturating_sub(last) <= self.grace.as_secs()).then_some(last)?
            }
            NotValidYet | NotValidYetContext { .. } => u64::try_from(not_before).ok()?,
            _ => return None,
        };
        Some(UnixTime::since_unix_epoch(Duration::from_secs(at)))
    }
}

impl ClientCertVerifier for LateNodes {
    fn offer_client_auth(&self) -> bool {
        self.all.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.all.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.all.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let refused = match self.all.verify_client_cert(leaf, intermediates, now) {
            Ok(verified) => return Ok(verified),
            Err(refused) => refused,
        };
        match self.held(leaf, &refused, now) {
            Some(then) => self.nodes.verify_client_cert(leaf, intermediates, then).map_err(|_| refused),
            None => Err(refused),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.all.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.all.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.all.supported_verify_schemes()
    }
}

/// Of port 6444: a certificate of the peer issuer is required.
///
/// # Errors
/// When the issuer is malformed.
pub fn peer_server(certificate: &Certificate, bundles: &Bundles) -> Result<Arc<ServerConfig>, Error> {
    let clients = WebPkiClientVerifier::builder_with_provider(roots(&[("peer", &bundles.peer)])?, provider())
        .build()
        .map_err(|cause| Error::malformed("the peer issuer", cause))?;
    server(certificate, clients, &[H2])
}

fn client(issuer: (&str, &str), certificate: Option<&Certificate>) -> Result<Arc<ClientConfig>, Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|cause| Error::Issue(cause.to_string()))?
        .with_root_certificates(roots(&[issuer])?);
    let mut config = match certificate {
        Some(certificate) => builder.with_client_cert_resolver(Arc::new(certificate.clone())),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![H2.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// To other members' peer port.
///
/// # Errors
/// When the issuer is malformed.
pub fn peer_client(certificate: &Certificate, bundles: &Bundles) -> Result<Arc<ClientConfig>, Error> {
    client(("peer", &bundles.peer), Some(certificate))
}

/// Of a connection that carries bulk: says so in the hello, where the other end can still choose who serves it. One that
/// does not know of it takes it for any other.
pub fn for_bulk(config: &ClientConfig) -> Arc<ClientConfig> {
    let mut config = config.clone();
    config.alpn_protocols.insert(0, BULK.to_vec());
    Arc::new(config)
}

/// Whether a client announces bulk.
pub fn is_bulk(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut protocols| protocols.any(|protocol| protocol == BULK))
}

/// To masters' API port, as node (node certificate), user (client certificate) or nobody.
///
/// # Errors
/// When the issuer is malformed.
pub fn api_client(client_issuer_pem: &str, certificate: Option<&Certificate>) -> Result<Arc<ClientConfig>, Error> {
    client(("client", client_issuer_pem), certificate)
}

/// Accepts any server and only encrypts. For fetching the issuers that a token pins, before anything secret is sent.
///
/// # Errors
/// When this build lacks TLS 1.3.
pub(crate) fn unverified_client() -> Result<Arc<ClientConfig>, Error> {
    any_server(&[&rustls::version::TLS13], H2)
}

/// To servers of the wide world, verified by the machine's own roots. HTTP/1.1.
///
/// # Errors
/// When this machine has no root certificates.
pub fn web_client() -> Result<ClientConfig, Error> {
    let mut store = RootCertStore::empty();
    // Single unreadable ones do not matter as long as there are others.
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if store.is_empty() {
        return Err(Error::malformed("the root certificates of this machine", "none found; install `ca-certificates`"));
    }
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|cause| Error::Issue(cause.to_string()))?;
    Ok(builder.with_root_certificates(store).with_no_client_auth())
}

/// Accepts any server, as Kubernetes' HTTPS probes do, which ask whether a pod answers and not who it is. HTTP/1.1.
///
/// # Errors
/// When this build lacks TLS.
pub fn probe_client() -> Result<Arc<ClientConfig>, Error> {
    any_server(&[&rustls::version::TLS13, &rustls::version::TLS12], HTTP1)
}

fn any_server(
    versions: &[&'static rustls::SupportedProtocolVersion],
    protocol: &[u8],
) -> Result<Arc<ClientConfig>, Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .map_err(|cause| Error::Issue(cause.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider())))
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Tells who holds a certificate that a handshake accepted. Clones share the issuers.
#[derive(Clone, Debug)]
pub struct Identifier(Arc<ArcSwap<Issued>>);

type Issued = Vec<(Role, Vec<CertificateDer<'static>>)>;

impl Identifier {
    /// # Errors
    /// When an issuer is malformed.
    pub fn new(bundles: &Bundles) -> Result<Self, Error> {
        Ok(Self(Arc::new(ArcSwap::from_pointee(issued(bundles)?))))
    }

    /// From now on by these issuers.
    ///
    /// # Errors
    /// When an issuer is malformed; those of before then stay.
    pub fn replace(&self, bundles: &Bundles) -> Result<(), Error> {
        self.0.store(Arc::new(issued(bundles)?));
        Ok(())
    }

    /// Of the chain that the other end presented, at a time in seconds since 1970. `None`: a verified certificate that
    /// names nobody we know, or one that does not hold at that time.
    pub fn identify(&self, chain: Option<&[CertificateDer<'_>]>, now: i64) -> Option<Identity> {
        let Some(leaf) = chain.and_then(<[_]>::first) else { return Some(Identity::Anonymous) };
        let identity = inspect::identity(leaf, &self.0.load())?;
        match (identity, inspect::validity(leaf)?.holds(now)) {
            (identity, true) => Some(identity),
            (Identity::Node { cluster_id, name, uid }, false) => Some(Identity::LateNode { cluster_id, name, uid }),
            _ => None,
        }
    }
}

fn issued(bundles: &Bundles) -> Result<Issued, Error> {
    let mut issuers = Vec::new();
    for role in Role::ALL {
        issuers.push((role, inspect::certificates(bundles.of(role), &format!("the {} issuer", role.name()))?));
    }
    Ok(issuers)
}
