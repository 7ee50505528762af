//! The keys that Secrets are sealed with: AES-256-GCM with a nonce that follows from key, place and text.
//!
//! The nonce is the beginning of an HMAC over place and text under a key of its own. Equal text in one place gives equal
//! bytes, so that writing an object again changes nothing, and no randomness is needed; two different texts share a nonce
//! only by a collision of 96 bits. All that an equal blob shows is that one Secret did not change.
//!
//! A blob is `1 ‖ nonce (12 bytes) ‖ ciphertext and tag`.

use std::collections::BTreeMap;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use super::{Error, fingerprint};

const VERSION: u8 = 1;
const ID_LEN: usize = 12;

/// Keys by id, and the one to seal with.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct DataKeys {
    keys: BTreeMap<String, [u8; 32]>,
    active: String,
}

impl std::fmt::Debug for DataKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DataKeys({:?}, keys withheld)", self.ids().collect::<Vec<_>>())
    }
}

#[derive(Serialize, Deserialize)]
struct Written {
    active: String,
    /// Hex by id.
    keys: BTreeMap<String, String>,
}

impl DataKeys {
    /// One fresh key.
    ///
    /// # Errors
    /// When the system yields no randomness.
    pub fn generate() -> Result<Self, Error> {
        let mut keys = Self::default();
        keys.active = keys.add_fresh()?;
        Ok(keys)
    }

    /// Adds a fresh key, which nothing is sealed with yet, and says its id.
    ///
    /// # Errors
    /// When the system yields no randomness.
    pub fn add_fresh(&mut self) -> Result<String, Error> {
        let mut key = [0; 32];
        SystemRandom::new().fill(&mut key).map_err(|_| Error::Issue("the system yields no randomness".into()))?;
        let mut id = fingerprint(&key);
        id.truncate(ID_LEN);
        self.keys.insert(id.clone(), key);
        Ok(id)
    }

    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    pub fn holds(&self, id: &str) -> bool {
        self.keys.contains_key(id)
    }

    /// The key to seal with where the cluster has not said another; empty without keys.
    pub fn active(&self) -> &str {
        &self.active
    }

    pub fn activate(&mut self, id: &str) {
        if self.holds(id) {
            id.clone_into(&mut self.active);
        }
    }

    /// Takes over the keys of `other` that are not known here.
    pub fn merge(&mut self, other: &Self) {
        for (id, key) in &other.keys {
            self.keys.entry(id.clone()).or_insert(*key);
        }
    }

    /// Forgets every key but this one, if it is held.
    pub fn keep_only(&mut self, id: &str) {
        if self.holds(id) {
            self.keys.retain(|known, _| known == id);
            id.clone_into(&mut self.active);
        }
    }

    /// # Errors
    /// Never in practice.
    pub fn to_json(&self) -> Result<Vec<u8>, Error> {
        let keys = self.keys.iter().map(|(id, key)| (id.clone(), hex::encode(key))).collect();
        let written = Written { active: self.active.clone(), keys };
        serde_json::to_vec(&written).map_err(|cause| Error::Issue(cause.to_string()))
    }

    /// # Errors
    /// When it is not what [`Self::to_json`] wrote.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Error> {
        let malformed = |cause: &dyn std::fmt::Display| Error::malformed("the keys for Secrets", cause);
        let written: Written = serde_json::from_slice(bytes).map_err(|cause| malformed(&cause))?;
        let mut keys = BTreeMap::new();
        for (id, text) in written.keys {
            let mut key = [0; 32];
            hex::decode_to_slice(&text, &mut key).map_err(|cause| malformed(&cause))?;
            keys.insert(id, key);
        }
        Ok(Self { keys, active: written.active })
    }

    /// # Errors
    /// When the key is not held.
    pub fn seal(&self, id: &str, place: &str, plain: &[u8]) -> Result<Vec<u8>, Error> {
        let key = self.key(id)?;
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &derived(key, b"nonce")));
        context.update(&(place.len() as u64).to_be_bytes());
        context.update(place.as_bytes());
        context.update(plain);
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&context.sign().as_ref()[..NONCE_LEN]);
        let mut body = plain.to_vec();
        cipher(key)?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(place.as_bytes()), &mut body)
            .map_err(|_| Error::Issue("sealing failed".into()))?;
        let mut blob = vec![VERSION];
        blob.extend_from_slice(&nonce);
        blob.append(&mut body);
        Ok(blob)
    }

    /// # Errors
    /// When the key is not held, or the blob is damaged or of another place.
    pub fn open(&self, id: &str, place: &str, blob: &[u8]) -> Result<Vec<u8>, Error> {
        let key = self.key(id)?;
        let wrong = || Error::Sealed { what: place.to_owned(), key: format!("data key {id}") };
        let (version, rest) = blob.split_first().ok_or_else(wrong)?;
        if *version != VERSION || rest.len() < NONCE_LEN {
            return Err(wrong());
        }
        let (nonce, body) = rest.split_at(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| wrong())?;
        let mut body = body.to_vec();
        let plain = cipher(key)?.open_in_place(nonce, Aad::from(place.as_bytes()), &mut body).map_err(|_| wrong())?;
        Ok(plain.to_vec())
    }

    fn key(&self, id: &str) -> Result<&[u8; 32], Error> {
        self.keys.get(id).ok_or_else(|| {
            Error::Issue(format!("the data key {id} is not on this machine; it gets it from the leader while both run"))
        })
    }
}

/// Keys for the two uses that have nothing to do with each other.
fn derived(key: &[u8; 32], what: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &[b"hactl data key ", what].concat());
    out.copy_from_slice(&tag.as_ref()[..32]);
    out
}

fn cipher(key: &[u8; 32]) -> Result<LessSafeKey, Error> {
    let key = UnboundKey::new(&AES_256_GCM, &derived(key, b"cipher"));
    Ok(LessSafeKey::new(key.map_err(|_| Error::Issue("data key refused".into()))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_text_gives_equal_blobs_and_opens_only_in_its_place() {
        let mut keys = DataKeys::generate().expect("randomness");
        let id = keys.active().to_owned();
        let blob = keys.seal(&id, "a", b"secret").expect("seals");
        assert_eq!(blob, keys.seal(&id, "a", b"secret").expect("seals"));
        assert_ne!(blob, keys.seal(&id, "b", b"secret").expect("seals"));
        assert!(!blob.windows(6).any(|part| part == b"secret"));
        assert_eq!(keys.open(&id, "a", &blob).expect("opens"), b"secret");
        assert!(keys.open(&id, "b", &blob).is_err());
        for at in 0..blob.len() {
            let mut damaged = blob.clone();
            damaged[at] ^= 1;
            assert!(keys.open(&id, "a", &damaged).is_err(), "byte {at}");
        }
        let second = keys.add_fresh().expect("randomness");
        assert!(keys.open(&second, "a", &blob).is_err());
        keys.keep_only(&second);
        assert_eq!(keys.active(), second);
        assert!(keys.open(&id, "a", &blob).is_err());
    }

    #[test]
    fn they_survive_writing_and_are_never_shown() {
        let dir = tempfile::tempdir().expect("dir");
        let dir = super::super::Dir::of(dir.path());
        assert_eq!(dir.data_keys().expect("none yet"), DataKeys::default());
        let keys = DataKeys::generate().expect("randomness");
        dir.write_data_keys(&keys).expect("written");
        assert_eq!(dir.data_keys().expect("read"), keys);
        let hex = hex::encode(keys.keys.values().next().expect("one"));
        let written = std::fs::read(dir.path().join("data-keys.sealed")).expect("file");
        assert!(!String::from_utf8_lossy(&written).contains(&hex) && !format!("{keys:?}").contains(&hex));
    }

    #[test]
    fn a_blob_of_an_earlier_version_opens() {
        // The bytes of the first version: this must never change.
        let json = format!(r#"{{"active":"k","keys":{{"k":"{}"}}}}"#, "07".repeat(32));
        let keys = DataKeys::from_json(json.as_bytes()).expect("keys");
        let blob = keys.seal("k", "secret/b/a/u", b"{\"data\":{}}").expect("seals");
        assert_eq!(hex::encode(&blob), GOLDEN);
    }

    const GOLDEN: &str = "01d0bf6413ddac0b094ed390522907f728a7353da59b440bea48bfa88de039f0b650e10f33c22e8b";
}
