//! One stored object: a header that plans and selectors read without parsing, and the JSON body as bytes.

use std::io::Write;

use bytes::{Buf, BufMut, Bytes};
use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, int64, message, skip_field, string};

use crate::{Pairs, Revision};

/// One entry of `metadata.ownerReferences`, reduced to what garbage collection and controllers ask.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Owner {
    #[prost(string, tag = "1")]
    pub uid: String,
    #[prost(bool, tag = "2")]
    pub controller: bool,
    #[prost(bool, tag = "3")]
    pub block_deletion: bool,
}

/// What selectors, plans, indexes and printing need, computed by the proposer (`control::record`) from the body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    pub uid: String,
    pub labels: Pairs,
    pub owners: Vec<Owner>,
    /// Selectable and planned-on fields by their JSON path: `status.phase`, `spec.nodeName`, `type`, …
    pub fields: Pairs,
    /// Names held by at most one object of the store: `clusterip/10.96.0.7`, `nodeport/TCP/30007`, `podcidr/10.244.3.0/24`.
    pub claims: Vec<String>,
    /// The node this object is bound to; empty while unbound. Only Pods have one.
    pub node: String,
    /// `metadata.deletionTimestamp` in milliseconds since 1970; 0 while the object is not being deleted.
    pub deletion_ms: i64,
    /// `metadata.creationTimestamp` in milliseconds since 1970.
    pub creation_ms: i64,
    pub generation: i64,
    pub finalizers: Vec<String>,
}

/// The stored and sent form. Fields 2 and 4 are `map<string, string>`; 3 is a repeated [`Owner`].
impl prost::Message for Header {
    fn encode_raw(&self, out: &mut impl BufMut) {
        encode_text(1, &self.uid, out);
        self.labels.encode(2, out);
        message::encode_repeated(3, &self.owners, out);
        self.fields.encode(4, out);
        string::encode_repeated(5, &self.claims, out);
        encode_text(6, &self.node, out);
        for (tag, number) in self.numbers() {
            if number != 0 {
                int64::encode(tag, &number, out);
            }
        }
        string::encode_repeated(10, &self.finalizers, out);
    }

    fn encoded_len(&self) -> usize {
        let text = |tag, text: &String| if text.is_empty() { 0 } else { string::encoded_len(tag, text) };
        let number = |(tag, number)| if number == 0 { 0 } else { int64::encoded_len(tag, &number) };
        text(1, &self.uid)
            + self.labels.encoded_len(2)
            + message::encoded_len_repeated(3, &self.owners)
            + self.fields.encoded_len(4)
            + string::encoded_len_repeated(5, &self.claims)
            + text(6, &self.node)
            + self.numbers().into_iter().map(number).sum::<usize>()
            + string::encoded_len_repeated(10, &self.finalizers)
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        from: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            1 => string::merge(wire_type, &mut self.uid, from, context),
            2 => self.labels.merge(wire_type, from, context),
            3 => message::merge_repeated(wire_type, &mut self.owners, from, context),
            4 => self.fields.merge(wire_type, from, context),
            5 => string::merge_repeated(wire_type, &mut self.claims, from, context),
            6 => string::merge(wire_type, &mut self.node, from, context),
            7 => int64::merge(wire_type, &mut self.deletion_ms, from, context),
            8 => int64::merge(wire_type, &mut self.creation_ms, from, context),
            9 => int64::merge(wire_type, &mut self.generation, from, context),
            10 => string::merge_repeated(wire_type, &mut self.finalizers, from, context),
            _ => skip_field(wire_type, tag, from, context),
        }
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Header {
    fn numbers(&self) -> [(u32, i64); 3] {
        [(7, self.deletion_ms), (8, self.creation_ms), (9, self.generation)]
    }

    /// Gives back memory that only decoding needed.
    pub(crate) fn shrink(&mut self) {
        self.uid.shrink_to_fit();
        self.labels.shrink();
        self.owners.shrink_to_fit();
        self.fields.shrink();
        self.claims.shrink_to_fit();
        self.node.shrink_to_fit();
        self.finalizers.shrink_to_fit();
    }
}

fn encode_text(tag: u32, text: &String, out: &mut impl BufMut) {
    if !text.is_empty() {
        string::encode(tag, text, out);
    }
}

/// One version of one object. Shared by `Arc` between the state, its history and every reader.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    pub header: Header,
    /// The object's JSON without `metadata.resourceVersion` and `metadata.managedFields`.
    pub body: Bytes,
    /// Where in `body` the quoted revision goes: just behind the bytes `"resourceVersion":`.
    pub split: u32,
    /// The JSON array of `metadata.managedFields`; empty when there is none.
    pub managed_fields: Bytes,
    /// The revision that created this key.
    pub created: Revision,
    /// The revision of this version.
    pub revision: Revision,
}

impl Record {
    /// Appends the complete JSON object to `out`: body, revision and managed fields, without parsing.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        self.write_json_at(self.revision, out);
    }

    /// The same with another revision: a deletion shows the last version at its own.
    pub fn write_json_at(&self, revision: Revision, out: &mut Vec<u8>) {
        let (head, tail) = self.body.split_at((self.split as usize).min(self.body.len()));
        out.reserve(self.body.len() + self.managed_fields.len() + 40);
        out.extend_from_slice(head);
        // Writing into memory cannot fail.
        let _ = write!(out, "\"{revision}\"");
        if !self.managed_fields.is_empty() {
            out.extend_from_slice(b",\"managedFields\":");
            out.extend_from_slice(&self.managed_fields);
        }
        out.extend_from_slice(tail);
    }

    /// The complete JSON object.
    pub fn json(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_json(&mut out);
        out
    }
}
