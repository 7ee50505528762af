//! The recovery key: what snapshots are encrypted to. The cluster knows its public half only; whoever made it keeps the
//! secret half, in the form that `age-keygen` writes too.

use std::str::FromStr;

use age::secrecy::ExposeSecret;
use age::x25519::{Identity, Recipient};

use crate::Error;

const PREFIX: &str = "AGE-SECRET-KEY-1";

/// The secret half.
pub struct RecoveryKey(pub(super) Identity);

impl RecoveryKey {
    pub fn generate() -> Self {
        Self(Identity::generate())
    }

    /// Out of a file or a line; comments (`#`) are skipped.
    ///
    /// # Errors
    /// When it holds no key. What it holds is not repeated.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let line = text.lines().map(str::trim).find(|line| line.starts_with(PREFIX));
        let line = line.ok_or_else(|| {
            Error::Invalid(format!(
                "this is no recovery key: no line begins with {PREFIX}; take what `hactl cluster init` showed"
            ))
        })?;
        let identity = Identity::from_str(line)
            .map_err(|_| Error::Invalid("the recovery key is damaged; copy the whole line".into()))?;
        Ok(Self(identity))
    }

    /// The secret itself: to be shown once, or written to a file that only its owner can read.
    pub fn secret(&self) -> String {
        self.0.to_string().expose_secret().to_owned()
    }

    /// The public half.
    pub fn recipient(&self) -> String {
        self.0.to_public().to_string()
    }

    /// A file's content: the secret and what it is for.
    pub fn file(&self) -> String {
        format!(
            "# hactl recovery key: opens this cluster's snapshots. Keep it secret, and away from the masters.\n# public key: {}\n{}\n",
            self.recipient(),
            self.secret()
        )
    }
}

impl std::fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RecoveryKey({}, secret withheld)", self.recipient())
    }
}

/// # Errors
/// When the text is no public half.
pub(crate) fn recipient(text: &str) -> Result<Recipient, Error> {
    Recipient::from_str(text)
        .map_err(|_| Error::Invalid(format!("{text:?} is no public recovery key; one begins with `age1`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_file_and_hides() {
        let key = RecoveryKey::generate();
        let again = RecoveryKey::parse(&key.file()).expect("its own file");
        assert_eq!(again.recipient(), key.recipient());
        assert!(recipient(&key.recipient()).is_ok());
        assert!(!format!("{key:?}").contains(&key.secret()));
        for wrong in ["", "age1abc", "AGE-SECRET-KEY-1NONSENSE"] {
            assert!(RecoveryKey::parse(wrong).is_err(), "{wrong}");
        }
    }
}
