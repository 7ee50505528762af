//! One stored object: a header that plans and selectors read without parsing, and the JSON body as bytes.

use bytes::Bytes;
use std::collections::BTreeMap;

use crate::Revision;

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
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Header {
    #[prost(string, tag = "1")]
    pub uid: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub labels: BTreeMap<String, String>,
    #[prost(message, repeated, tag = "3")]
    pub owners: Vec<Owner>,
    /// Selectable and planned-on fields by their JSON path: `status.phase`, `spec.nodeName`, `type`, …
    #[prost(btree_map = "string, string", tag = "4")]
    pub fields: BTreeMap<String, String>,
    /// Names held by at most one object of the store: `clusterip/10.96.0.7`, `nodeport/TCP/30007`, `podcidr/10.244.3.0/24`.
    #[prost(string, repeated, tag = "5")]
    pub claims: Vec<String>,
    /// The node this object is bound to; empty while unbound. Only Pods have one.
    #[prost(string, tag = "6")]
    pub node: String,
    /// `metadata.deletionTimestamp` in milliseconds since 1970; 0 while the object is not being deleted.
    #[prost(int64, tag = "7")]
    pub deletion_ms: i64,
    /// `metadata.creationTimestamp` in milliseconds since 1970.
    #[prost(int64, tag = "8")]
    pub creation_ms: i64,
    #[prost(int64, tag = "9")]
    pub generation: i64,
    #[prost(string, repeated, tag = "10")]
    pub finalizers: Vec<String>,
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
        let (head, tail) = self.body.split_at((self.split as usize).min(self.body.len()));
        out.reserve(self.body.len() + self.managed_fields.len() + 40);
        out.extend_from_slice(head);
        out.push(b'"');
        out.extend_from_slice(self.revision.to_string().as_bytes());
        out.push(b'"');
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
