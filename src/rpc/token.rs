//! Join tokens: `hactl-<id>.<secret>.<pin>`. The id finds the stored token, the secret proves it, the pin is the hash of
//! the issuers that the joiner demands to see before it sends the secret. Stored as the hash of the secret.

use ring::rand::{SecureRandom, SystemRandom};

use crate::pki::fingerprint;

const PREFIX: &str = "hactl-";
const ID_LEN: usize = 8;
const SECRET_LEN: usize = 32;
const PIN_LEN: usize = 64;

#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub id: String,
    pub secret: String,
    pub pin: String,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a join token: {0}; copy the whole of what `hactl cluster token create` printed")]
pub struct Invalid(&'static str);

impl Token {
    /// # Errors
    /// When the system yields no randomness.
    pub fn generate(pin: &str) -> Result<Self, Invalid> {
        let mut bytes = [0u8; (ID_LEN + SECRET_LEN) / 2];
        SystemRandom::new().fill(&mut bytes).map_err(|_| Invalid("the system yields no randomness"))?;
        let text = hex::encode(bytes);
        let (id, secret) = text.split_at(ID_LEN);
        Ok(Self { id: id.to_owned(), secret: secret.to_owned(), pin: pin.to_owned() })
    }

    /// # Errors
    /// Says what is wrong with it, without repeating it.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let body = text.trim().strip_prefix(PREFIX).ok_or(Invalid("it does not begin with `hactl-`"))?;
        let parts: Vec<&str> = body.split('.').collect();
        let [id, secret, pin] = parts.as_slice() else {
            return Err(Invalid("it does not have three parts"));
        };
        let hex = |part: &str, len| part.len() == len && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if !hex(id, ID_LEN) || !hex(secret, SECRET_LEN) || !hex(pin, PIN_LEN) {
            return Err(Invalid("a part has the wrong length or letters"));
        }
        Ok(Self { id: (*id).to_owned(), secret: (*secret).to_owned(), pin: (*pin).to_owned() })
    }

    pub fn hashed(&self) -> String {
        hash(&self.id, &self.secret)
    }
}

/// The stored form of a secret. It has 128 random bits, so one round suffices.
pub fn hash(id: &str, secret: &str) -> String {
    fingerprint(format!("hactl join token {id} {secret}").as_bytes())
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{PREFIX}{}.{}.{}", self.id, self.secret, self.pin)
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({}, secret withheld)", self.id)
    }
}
