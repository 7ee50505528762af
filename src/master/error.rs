//! Why a master could not be made or started: each message names the cause and the cure.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Pki(#[from] rpc::pki::Error),
    #[error(transparent)]
    Join(#[from] rpc::join::Error),
    /// The other side refused; its message says why.
    #[error("{0}")]
    Refused(String),
    /// No answer: it may have happened or not.
    #[error("the answer was lost ({0}); run the same command again: the masters then recognise this machine")]
    Lost(String),
    #[error("{0}")]
    Invalid(String),
    #[error(
        "cannot listen on {address} for the {what} port: {source}; end what uses it, or choose another with `{setting}`"
    )]
    Port { what: &'static str, setting: &'static str, address: String, source: std::io::Error },
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Consensus(#[from] consensus::Error),
}
