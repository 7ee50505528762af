//! The hash that members compare at equal revisions.
//!
//! The state's hash is the wrapping sum of one 128-bit SipHash per object: kept up to date by adding and subtracting,
//! whatever the order of changes. It covers what is true now, not history and not the table of outcomes.

use std::hash::Hasher;

use prost::Message;
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::{Key, Record};

/// What an index is looked up by: some names in 64 bits, so that an entry costs no allocation. Two may, very rarely, be
/// one: who reads the index compares with the object. It is never stored or sent.
pub(crate) fn names(kind: u8, names: &[&str]) -> u64 {
    let mut hasher = siphasher::sip::SipHasher13::new();
    hasher.write(&[kind]);
    for name in names {
        hasher.write(name.as_bytes());
        hasher.write(&[0]);
    }
    hasher.finish()
}

/// The hash of one object at one revision, the same in every build.
pub(crate) fn of(key: &Key, record: &Record) -> u128 {
    let mut hasher = SipHasher13::new();
    let header = record.header.encode_to_vec();
    for part in [
        key.group.as_bytes(),
        key.resource.as_bytes(),
        key.namespace.as_bytes(),
        key.name.as_bytes(),
        &header,
        &record.body,
        &record.managed_fields,
    ] {
        hasher.write(&(part.len() as u64).to_be_bytes());
        hasher.write(part);
    }
    for number in [record.revision, record.created, u64::from(record.split)] {
        hasher.write(&number.to_be_bytes());
    }
    hasher.finish128().as_u128()
}
