//! Sealing of secrets at rest: AES-256-GCM under a key that lies in a file of its own, outside the databases.
//!
//! A sealed blob is `1 ‖ nonce (12 bytes) ‖ ciphertext and tag`.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

use super::Error;

const VERSION: u8 = 1;

/// 256 bits that open what was sealed with them.
#[derive(Clone)]
pub struct SealKey([u8; 32]);

impl SealKey {
    /// # Errors
    /// When the system yields no randomness.
    pub fn generate() -> Result<Self, Error> {
        let mut key = [0; 32];
        SystemRandom::new().fill(&mut key).map_err(|_| no_randomness())?;
        Ok(Self(key))
    }

    /// # Errors
    /// When `text` is not 64 hex digits.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut key = [0; 32];
        hex::decode_to_slice(text.trim(), &mut key).map_err(|cause| Error::malformed("the sealing key", cause))?;
        Ok(Self(key))
    }

    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    /// # Errors
    /// When the system yields no randomness.
    pub fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, Error> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| no_randomness())?;
        let mut body = plain.to_vec();
        self.cipher()?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from([VERSION]), &mut body)
            .map_err(|_| Error::Issue("sealing failed".into()))?;
        let mut sealed = vec![VERSION];
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&body);
        Ok(sealed)
    }

    /// # Errors
    /// [`Error::Sealed`] when another key sealed it or it is damaged. `what` names it.
    pub fn open(&self, sealed: &[u8], what: &str) -> Result<Vec<u8>, Error> {
        let wrong = || Error::Sealed { what: what.to_owned(), key: "the sealing key of this machine".to_owned() };
        let (version, rest) = sealed.split_first().ok_or_else(wrong)?;
        if *version != VERSION || rest.len() < NONCE_LEN {
            return Err(wrong());
        }
        let (nonce, body) = rest.split_at(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| wrong())?;
        let mut body = body.to_vec();
        let plain = self.cipher()?.open_in_place(nonce, Aad::from([VERSION]), &mut body).map_err(|_| wrong())?;
        Ok(plain.to_vec())
    }

    fn cipher(&self) -> Result<LessSafeKey, Error> {
        let key = UnboundKey::new(&AES_256_GCM, &self.0).map_err(|_| Error::Issue("sealing key refused".into()))?;
        Ok(LessSafeKey::new(key))
    }
}

fn no_randomness() -> Error {
    Error::Issue("the system yields no randomness".into())
}
