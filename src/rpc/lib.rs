//! How the parts of hactl reach and trust each other: the wire messages, certificates, TLS both ways, who is at the
//! other end, the transport seam, and clients that know all masters. Only this crate sets up rustls and tonic.
//!
//! It decides nothing about the cluster: what a peer, node or user may do stands in `master` and `control`.
//!
//! **Invariant:** the issuer of a certificate decides what its holder is: the peer issuer's never count as nodes or users,
//! and nothing but the peer issuer's opens the peer port.

pub mod pb {
    //! The messages and services of `proto/hactl/v1`.
    #![allow(clippy::all, missing_docs)]
    tonic::include_proto!("hactl.v1");
}

pub mod etcd {
    //! The few messages of etcd's API that the benchmark compares with (`proto/etcd`).
    #![allow(clippy::all, missing_docs)]
    tonic::include_proto!("etcdserverpb");
}

pub mod channel;
pub mod client;
pub mod identity;
pub mod join;
pub mod peer;
pub mod pki;
pub mod streams;
pub mod tls;
pub mod token;
pub mod transport;
pub mod version;

pub use identity::Identity;

#[cfg(test)]
mod tests;
