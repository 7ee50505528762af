//! What happened, in virtual time: one line per event, and a digest of every message. The same seed must give the same
//! bytes.

use std::fmt::{Display, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

pub struct Trace {
    began: Instant,
    inner: Mutex<Inner>,
}

struct Inner {
    keep: bool,
    text: String,
    /// FNV-1a of all lines and messages so far.
    digest: u64,
    messages: u64,
}

impl Inner {
    fn mix(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl Trace {
    /// `keep` the lines, not only their digest.
    pub fn new(keep: bool) -> Self {
        let inner = Inner { keep, text: String::new(), digest: 0xcbf2_9ce4_8422_2325, messages: 0 };
        Self { began: Instant::now(), inner: Mutex::new(inner) }
    }

    /// Virtual time since the beginning.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub fn say(&self, what: impl Display) {
        let line = format!("{:>9.3} {what}\n", self.now().as_secs_f64());
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.mix(line.as_bytes());
        if inner.keep {
            inner.text.push_str(&line);
        }
    }

    /// A message that is sent.
    pub fn message(&self, from: u64, to: u64, kind: &str, bytes: usize) {
        let now = self.now().as_micros() as u64;
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.messages += 1;
        for number in [now, from, to, bytes as u64] {
            inner.mix(&number.to_le_bytes());
        }
        inner.mix(kind.as_bytes());
    }

    /// All lines that were kept, and the digest of everything.
    pub fn end(&self) -> (String, u64, u64) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let last = format!("{} messages, digest {:016x}\n", inner.messages, inner.digest);
        let mut text = std::mem::take(&mut inner.text);
        let _ = text.write_str(&last);
        (text, inner.digest, inner.messages)
    }
}
