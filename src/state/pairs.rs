//! A small map of strings in one piece of memory: what labels and fields of a record are kept in.
//!
//! ```text
//! length of key, key, length of value, value,  length of key, …      in the order of the keys
//! ```
//!
//! A map of the standard library takes more than the object it describes: half a kilobyte before the first entry. Here a
//! look-up reads through the entries, of which there are some twenty.

use std::fmt;

use prost::DecodeError;
use prost::bytes::{Buf, BufMut};
use prost::encoding::{
    DecodeContext, WireType, decode_varint, encode_key, encode_varint, encoded_len_varint, key_len, message,
};

/// Strings by strings, each key once, in the order of the keys.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Pairs(Vec<u8>);

impl Pairs {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == key).map(|(_, value)| value)
    }

    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// In the order of the keys.
    pub fn iter(&self) -> Iter<'_> {
        Iter(&self.0)
    }

    /// Sets the value of a key.
    pub fn insert(&mut self, key: impl AsRef<str>, value: impl AsRef<str>) {
        let (key, value) = (key.as_ref(), value.as_ref());
        let (mut before, mut replaced) = (0, 0);
        let mut rest = self.iter();
        while let Some((known, _)) = rest.next() {
            let end = self.0.len() - rest.0.len();
            if known < key {
                before = end;
            } else {
                replaced = if known == key { end - before } else { 0 };
                break;
            }
        }
        let mut entry = Vec::with_capacity(2 * 10 + key.len() + value.len());
        for text in [key, value] {
            encode_varint(text.len() as u64, &mut entry);
            entry.extend_from_slice(text.as_bytes());
        }
        self.0.splice(before..before + replaced, entry);
    }

    pub(crate) fn shrink(&mut self) {
        self.0.shrink_to_fit();
    }

    /// As a field `map<string, string>` of this number.
    pub(crate) fn encode(&self, tag: u32, out: &mut impl BufMut) {
        for (key, value) in self {
            encode_key(tag, WireType::LengthDelimited, out);
            encode_varint(entry_len(key, value) as u64, out);
            for (tag, text) in [(1, key), (2, value)] {
                if !text.is_empty() {
                    encode_key(tag, WireType::LengthDelimited, out);
                    encode_varint(text.len() as u64, out);
                    out.put_slice(text.as_bytes());
                }
            }
        }
    }

    pub(crate) fn encoded_len(&self, tag: u32) -> usize {
        let entry = |(key, value)| {
            let length = entry_len(key, value);
            key_len(tag) + encoded_len_varint(length as u64) + length
        };
        self.iter().map(entry).sum()
    }

    /// Takes one entry of such a field.
    pub(crate) fn merge(
        &mut self,
        wire_type: WireType,
        from: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        let mut entry = Entry::default();
        message::merge(wire_type, &mut entry, from, context)?;
        self.insert(entry.key, entry.value);
        Ok(())
    }
}

/// One entry as it is encoded.
#[derive(Clone, PartialEq, prost::Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

fn entry_len(key: &str, value: &str) -> usize {
    let field = |text: &str| match text.len() {
        0 => 0,
        length => 1 + encoded_len_varint(length as u64) + length,
    };
    field(key) + field(value)
}

/// The entries of [`Pairs`].
#[derive(Clone)]
pub struct Iter<'a>(&'a [u8]);

impl<'a> Iter<'a> {
    fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(decode_varint(&mut self.0).ok()?).ok()?;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.text()?, self.text()?))
    }
}

impl<'a> IntoIterator for &'a Pairs {
    type Item = (&'a str, &'a str);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for Pairs {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut pairs = Self::default();
        for (key, value) in entries {
            pairs.insert(key, value);
        }
        pairs
    }
}

impl fmt::Debug for Pairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::Header;

    /// What a header's labels are encoded as by the library itself.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Reference {
        #[prost(btree_map = "string, string", tag = "2")]
        labels: BTreeMap<String, String>,
    }

    proptest! {
        #[test]
        fn they_are_a_map(entries in proptest::collection::vec(("[a-d]{0,2}", ".{0,5}"), 0..12), asked in "[a-d]{0,2}") {
            let map: BTreeMap<String, String> = entries.iter().cloned().collect();
            let pairs: Pairs = entries.iter().map(|(key, value)| (key, value)).collect();
            prop_assert!(pairs.iter().eq(map.iter().map(|(key, value)| (key.as_str(), value.as_str()))));
            prop_assert_eq!(pairs.get(&asked), map.get(&asked).map(String::as_str));
            prop_assert_eq!(pairs.len(), map.len());
            prop_assert_eq!(pairs == map.iter().collect::<Pairs>(), true);

            let reference = Reference { labels: map }.encode_to_vec();
            let header = Header { labels: pairs, ..Header::default() };
            prop_assert_eq!(&header.encode_to_vec(), &reference);
            prop_assert_eq!(header.encoded_len(), reference.len());
            prop_assert_eq!(Header::decode(reference.as_slice()).expect("decodes"), header);
        }
    }
}
