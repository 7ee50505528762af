//! The layout of `<data-dir>/pki`: trust, own certificates with their keys, and on masters the sealed issuer keys.
//!
//! ```text
//! peer-issuer.pem node-issuer.pem client-issuer.pem    what this machine trusts
//! peer.{pem,key}  api.{pem,key}  node.{pem,key}         its own certificates, by role
//! seal.key  issuers.sealed  data-keys.sealed            a master's signing keys and keys for Secrets, and what opens them
//! next-issuers.sealed  previous-issuers.sealed           while issuers rotate: keys of those that sign later, or signed before
//! ```
//! The key decides which certificate of a bundle signs, so that no crash between two files leaves something that does not fit.
//! Every file is written whole (new file, sync, rename) with mode 0600.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::seal::SealKey;
use super::{Bundles, DataKeys, Error, Issuers};

/// A certificate chain and its key, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    pub certificate_pem: String,
    pub key_pem: String,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential(key withheld)")
    }
}

/// Names of a machine's own certificates.
pub const PEER: &str = "peer";
pub const API: &str = "api";
pub const NODE: &str = "node";

const DATA_KEYS: &str = "data-keys.sealed";
const ISSUERS: &str = "issuers.sealed";

/// A generation of issuers beside the one that signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// Trusted already, and signs later.
    Next,
    /// Still trusted; API servers' certificates are of it, since users may know no other.
    Previous,
}

impl Other {
    fn file(self) -> &'static str {
        match self {
            Other::Next => "next-issuers.sealed",
            Other::Previous => "previous-issuers.sealed",
        }
    }
}

/// `<data-dir>/pki`.
#[derive(Clone, Debug)]
pub struct Dir(PathBuf);

impl Dir {
    pub fn of(data_dir: &Path) -> Self {
        Self(data_dir.join("pki"))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// # Errors
    /// When a file is missing or not readable.
    pub fn bundles(&self) -> Result<Bundles, Error> {
        Ok(Bundles {
            peer: self.read("peer-issuer.pem")?,
            node: self.read("node-issuer.pem")?,
            client: self.read("client-issuer.pem")?,
        })
    }

    /// # Errors
    /// When the disk refuses.
    pub fn write_bundles(&self, bundles: &Bundles) -> Result<(), Error> {
        self.write("peer-issuer.pem", bundles.peer.as_bytes())?;
        self.write("node-issuer.pem", bundles.node.as_bytes())?;
        self.write("client-issuer.pem", bundles.client.as_bytes())
    }

    /// # Errors
    /// When a file is missing or not readable.
    pub fn credential(&self, name: &str) -> Result<Credential, Error> {
        Ok(Credential {
            certificate_pem: self.read(&format!("{name}.pem"))?,
            key_pem: self.read(&format!("{name}.key"))?,
        })
    }

    /// The key first: a crash in between leaves an old certificate with a new key, which [`crate::tls`] refuses with the
    /// name of the pair, so renewals keep the key and write the certificate only.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write_credential(&self, name: &str, credential: &Credential) -> Result<(), Error> {
        self.write(&format!("{name}.key"), credential.key_pem.as_bytes())?;
        self.write_certificate(name, &credential.certificate_pem)
    }

    /// # Errors
    /// When the disk refuses.
    pub fn write_certificate(&self, name: &str, pem: &str) -> Result<(), Error> {
        self.write(&format!("{name}.pem"), pem.as_bytes())
    }

    /// Seals the issuer keys under a key of this machine's own.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write_issuers(&self, issuers: &Issuers) -> Result<(), Error> {
        let bundles = issuers.bundles();
        // Whichever of the keys a crash leaves, its certificate is there.
        if let Ok(before) = self.bundles() {
            self.write_bundles(&bundles.and(&before)?)?;
        }
        self.write_keys(ISSUERS, &issuers.keys_pem())?;
        self.write_bundles(&bundles)
    }

    /// While issuers rotate, the keys of another generation; none: removes them.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write_other_keys(&self, which: Other, keys_pem: Option<&[String; 3]>) -> Result<(), Error> {
        if let Some(keys) = keys_pem {
            return self.write_keys(which.file(), keys);
        }
        let path = self.0.join(which.file());
        match fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(Error::File { path, source }),
            _ => Ok(()),
        }
    }

    /// # Errors
    /// When the seal does not open or the file is damaged.
    pub fn other_keys(&self, which: Other) -> Result<Option<[String; 3]>, Error> {
        match self.read_keys(which.file()) {
            Err(Error::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    fn write_keys(&self, name: &str, keys_pem: &[String; 3]) -> Result<(), Error> {
        let plain = serde_json::to_vec(keys_pem).map_err(|cause| Error::Issue(cause.to_string()))?;
        self.write(name, &self.seal_key()?.seal(&plain)?)
    }

    fn read_keys(&self, name: &str) -> Result<[String; 3], Error> {
        let path = self.0.join(name);
        let sealed = fs::read(&path).map_err(|source| Error::File { path: path.clone(), source })?;
        let key = SealKey::parse(&self.read("seal.key")?)?;
        let plain = key.open(&sealed, &path.display().to_string())?;
        serde_json::from_slice(&plain).map_err(|cause| Error::malformed(path.display().to_string(), cause))
    }

    /// The key of this machine's own that what else is secret lies sealed under; made at first use.
    fn seal_key(&self) -> Result<SealKey, Error> {
        match self.read("seal.key") {
            Ok(text) => SealKey::parse(&text),
            Err(Error::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                let key = SealKey::generate()?;
                self.write("seal.key", key.to_hex().as_bytes())?;
                Ok(key)
            }
            Err(error) => Err(error),
        }
    }

    /// # Errors
    /// When the disk refuses.
    pub fn write_data_keys(&self, keys: &DataKeys) -> Result<(), Error> {
        self.write(DATA_KEYS, &self.seal_key()?.seal(&keys.to_json()?)?)
    }

    /// The keys that Secrets are sealed with; none on a master that was made before there were any.
    ///
    /// # Errors
    /// When the seal does not open or the file is damaged.
    pub fn data_keys(&self) -> Result<DataKeys, Error> {
        let path = self.0.join(DATA_KEYS);
        let sealed = match fs::read(&path) {
            Ok(sealed) => sealed,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(DataKeys::default()),
            Err(source) => return Err(Error::File { path, source }),
        };
        let key = SealKey::parse(&self.read("seal.key")?)?;
        DataKeys::from_json(&key.open(&sealed, &path.display().to_string())?)
    }

    /// # Errors
    /// When a file is missing, the seal does not open, or keys and certificates do not belong together.
    pub fn issuers(&self) -> Result<Issuers, Error> {
        Issuers::from_parts(&self.bundles()?, &self.read_keys(ISSUERS)?)
    }

    fn read(&self, name: &str) -> Result<String, Error> {
        let path = self.0.join(name);
        fs::read_to_string(&path).map_err(|source| Error::File { path, source })
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        write_private(&self.0.join(name), bytes)
    }
}

/// Writes a file whole, mode 0600, making its directory (0700) where it is missing.
///
/// # Errors
/// When the disk refuses.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let refused = |source| Error::File { path: path.to_owned(), source };
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(refused)?;
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    // A leftover of a crash may have another mode.
    let _ = fs::remove_file(&fresh);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh).map_err(refused)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(refused)?;
    fs::rename(&fresh, path).map_err(refused)?;
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(refused)
}
