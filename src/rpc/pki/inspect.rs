//! Reading certificates: what is in a PEM bundle, when it ends, whose it is.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{Bundles, Error, Role};
use crate::identity::Identity;

/// Certificates start this much before they are made, so that a machine whose clock is behind accepts them; one of a shorter
/// life starts its life earlier.
pub(super) const BACK_DATED_S: i64 = 3600;

/// When a certificate starts, ends and is renewed; seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    pub not_before: i64,
    pub not_after: i64,
}

impl Expiry {
    /// When it was made.
    pub fn issued(&self) -> i64 {
        self.not_before + ((self.not_after - self.not_before) / 2).min(BACK_DATED_S)
    }

    /// The moment at two thirds of its life.
    pub fn renew_at(&self) -> i64 {
        self.issued() + (self.not_after - self.issued()) * 2 / 3
    }

    /// It is to be renewed; also when it is not valid yet, because it was made while the clock was ahead.
    pub fn is_due(&self, now: i64) -> bool {
        now < self.not_before || now >= self.renew_at()
    }

    /// It should have been renewed long ago: less than a quarter of its life is left.
    pub fn is_late(&self, now: i64) -> bool {
        (self.not_after - now) * 4 < self.not_after - self.issued()
    }

    pub fn is_over(&self, now: i64) -> bool {
        now >= self.not_after
    }

    /// It has begun and is not over.
    pub fn holds(&self, now: i64) -> bool {
        now >= self.not_before && !self.is_over(now)
    }
}

/// The certificates of a PEM bundle; `what` names it in the error.
///
/// # Errors
/// When it holds none or something else is in the way.
pub fn certificates(pem: &str, what: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let all = all.map_err(|cause| Error::malformed(what, cause))?;
    if all.is_empty() {
        return Err(Error::malformed(what, "no certificate in it"));
    }
    Ok(all)
}

/// When the first certificate of a bundle ends.
///
/// # Errors
/// When it is malformed.
pub fn expiry(pem: &str, what: &str) -> Result<Expiry, Error> {
    let chain = certificates(pem, what)?;
    Ok(valid(&parse(&chain[0], what)?))
}

/// What is shown of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    pub expiry: Expiry,
    /// Lower-case hex.
    pub serial: String,
    /// [`fingerprint_of`] the issuer that signed it, out of those given; empty: none of them did.
    pub issuer: String,
}

/// What is shown of the first certificate of `pem`; `issuers` is a bundle, `what` names the certificate in the error.
///
/// # Errors
/// When one is malformed.
pub fn about(pem: &str, issuers: &str, what: &str) -> Result<About, Error> {
    let chain = certificates(pem, what)?;
    let certificate = parse(&chain[0], what)?;
    let issuers = certificates(issuers, "the issuer")?;
    let signed = issuers.iter().find(|issuer| signed_by(&certificate, issuer));
    Ok(About {
        expiry: expiry(pem, what)?,
        serial: hex::encode(certificate.raw_serial()),
        issuer: signed.map(|issuer| fingerprint_of(issuer)).unwrap_or_default(),
    })
}

/// By what an issuer is named where it is shown.
pub fn fingerprint_of(certificate: &[u8]) -> String {
    let mut text = super::fingerprint(certificate);
    text.truncate(FINGERPRINT_CHARS);
    text
}

const FINGERPRINT_CHARS: usize = 16;

/// When a certificate holds.
pub fn validity(certificate: &[u8]) -> Option<Expiry> {
    parse(certificate, "the certificate").ok().map(|certificate| valid(&certificate))
}

/// The end of a certificate, in seconds since 1970.
pub fn ends(certificate: &[u8]) -> Option<i64> {
    validity(certificate).map(|validity| validity.not_after)
}

fn valid(certificate: &X509Certificate<'_>) -> Expiry {
    let validity = certificate.validity();
    Expiry { not_before: validity.not_before.timestamp(), not_after: validity.not_after.timestamp() }
}

fn signed_by(certificate: &X509Certificate<'_>, issuer: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(issuer).is_ok_and(|(_, issuer)| {
        issuer.subject().as_raw() == certificate.issuer().as_raw()
            && certificate.verify_signature(Some(issuer.public_key())).is_ok()
    })
}

/// The raw public key of a certificate.
pub(super) fn public_key(der: &[u8], what: &str) -> Result<Vec<u8>, Error> {
    Ok(parse(der, what)?.public_key().subject_public_key.data.to_vec())
}

/// Which issuer signed `leaf`, and thereby who it names. `None`: none of these issuers did, or it names nobody.
/// The TLS stack has verified validity and purpose before.
pub fn identity(leaf: &[u8], bundles: &[(Role, Vec<CertificateDer<'static>>)]) -> Option<Identity> {
    let certificate = parse(leaf, "the peer's certificate").ok()?;
    let (role, _) = bundles.iter().find(|(_, issuers)| issuers.iter().any(|issuer| signed_by(&certificate, issuer)))?;
    match role {
        Role::Peer => peer(&certificate),
        Role::Node => node(&certificate),
        Role::Client => user(&certificate),
    }
}

/// Who the first certificate of `pem` names, by the issuers of `bundles`.
///
/// # Errors
/// When it is malformed.
pub fn identity_of_pem(pem: &str, bundles: &Bundles) -> Result<Option<Identity>, Error> {
    let chain = certificates(pem, "the certificate")?;
    let mut roots = Vec::new();
    for role in Role::ALL {
        roots.push((role, certificates(bundles.of(role), role.name())?));
    }
    Ok(identity(&chain[0], &roots))
}

fn parse<'a>(der: &'a [u8], what: &str) -> Result<X509Certificate<'a>, Error> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|cause| Error::malformed(what, cause))?;
    Ok(certificate)
}

fn peer(certificate: &X509Certificate<'_>) -> Option<Identity> {
    let path = hactl_uri(certificate)?;
    match path.as_slice() {
        [cluster_id, "member", member, "epoch", epoch] => Some(Identity::Peer {
            cluster_id: (*cluster_id).to_owned(),
            epoch: epoch.parse().ok()?,
            member: member.parse().ok()?,
        }),
        _ => None,
    }
}

fn node(certificate: &X509Certificate<'_>) -> Option<Identity> {
    let path = hactl_uri(certificate)?;
    match path.as_slice() {
        [cluster_id, "node", name, uid] => Some(Identity::Node {
            cluster_id: (*cluster_id).to_owned(),
            name: (*name).to_owned(),
            uid: (*uid).to_owned(),
        }),
        _ => None,
    }
}

fn user(certificate: &X509Certificate<'_>) -> Option<Identity> {
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = certificate.subject().iter_organization().filter_map(|group| group.as_str().ok());
    (!name.is_empty()).then(|| Identity::User { name, groups: groups.map(str::to_owned).collect() })
}

/// The parts of the certificate's only `hactl://` URI.
fn hactl_uri<'a>(certificate: &'a X509Certificate<'_>) -> Option<Vec<&'a str>> {
    let names = certificate.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix("hactl://"),
        _ => None,
    });
    let uri = uris.next()?;
    uris.next().is_none().then(|| uri.split('/').collect())
}
