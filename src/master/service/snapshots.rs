//! Saving snapshots, for an administrator or by itself, and the key they are encrypted to.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use rpc::pb;
use state::State;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Shared;
use crate::records;
use crate::snapshot::{FileHeader, Manifest, content, key};

/// Bytes of one message, and how many may wait for a slow receiver.
const PART_BYTES: usize = 256 << 10;
const PARTS: usize = 4;

/// Of one process: writing a snapshot keeps a core busy and holds a root of the state.
static ONE_AT_A_TIME: Semaphore = Semaphore::const_new(1);

pub type Parts = ReceiverStream<Result<pb::SnapshotPart, Status>>;

/// Everything one snapshot is made of.
pub struct Material {
    pub header: FileHeader,
    state: Arc<State>,
    manifest: Manifest,
    _turn: SemaphorePermit<'static>,
}

impl Material {
    /// The state at a linearizable revision, with issuers and keys.
    ///
    /// # Errors
    /// Without a leader, without a recovery key, and while another is being saved here.
    pub async fn gather(shared: &Shared) -> Result<Self, Status> {
        let busy = |_| Status::unavailable("this master is saving a snapshot already; try again when it is done");
        let turn = ONE_AT_A_TIME.try_acquire().map_err(busy)?;
        let state = shared.replica.read().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let recipient = records::recovery_recipient(&state).ok_or_else(|| {
            Status::failed_precondition(
                "this cluster has no recovery key to encrypt a snapshot to; make one with `hactl cluster recovery-key rotate`",
            )
        })?;
        let config = &shared.config;
        let header = content::header(&state, &config.cluster_id, config.epoch, shared.unix(), &recipient);
        let internal = |error: &dyn std::fmt::Display| Status::internal(error.to_string());
        let settings = [
            ("cluster-cidr", config.settings.cluster_cidr.to_string()),
            ("service-cidr", config.settings.service_cidr.to_string()),
        ];
        let bundles = shared.trust.issuers().bundles();
        let manifest = Manifest {
            peer_issuer_pem: bundles.peer,
            node_issuer_pem: bundles.node,
            client_issuer_pem: bundles.client,
            master_secrets: serde_json::to_vec(&shared.trust.issuers().keys_pem()).map_err(|error| internal(&error))?,
            data_keys: shared.keys.to_json().map_err(|error| internal(&error))?,
            settings: settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            ..Manifest::default()
        };
        Ok(Self { header, state, manifest, _turn: turn })
    }

    #[cfg(test)]
    pub fn of(state: State, header: FileHeader) -> Self {
        let turn = ONE_AT_A_TIME.try_acquire().expect("one at a time");
        Self { header, state: Arc::new(state), manifest: Manifest::default(), _turn: turn }
    }

    /// Writes the file. Blocks.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write<W: Write>(self, out: W) -> io::Result<W> {
        content::write(&self.state, &self.header, self.manifest, out)
    }

    /// The file in parts, made as they are taken. A receiver that goes away ends it.
    pub fn stream(self) -> Parts {
        let (parts, stream) = mpsc::channel(PARTS);
        tokio::task::spawn_blocking(move || {
            let out = BufWriter::with_capacity(PART_BYTES, Sender(parts.clone()));
            let written = self.write(out).and_then(|out| out.into_inner().map_err(io::IntoInnerError::into_error));
            if let Err(error) = written {
                // The receiver may be what went away.
                let _ = parts.blocking_send(Err(Status::aborted(error.to_string())));
            }
        });
        ReceiverStream::new(stream)
    }
}

/// A snapshot for an administrator.
///
/// # Errors
/// As [`Material::gather`].
pub async fn save(shared: &Shared) -> Result<Parts, Status> {
    let material = Material::gather(shared).await?;
    tracing::info!(revision = material.header.revision, "saving a snapshot");
    Ok(material.stream())
}

/// # Errors
/// When the recipient is none, or without a leader.
pub async fn set_key(
    shared: &Shared,
    request: pb::SetRecoveryKeyRequest,
) -> Result<pb::SetRecoveryKeyResponse, Status> {
    key::recipient(&request.recipient).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let root = shared.replica.read().await.map_err(|error| Status::unavailable(error.to_string()))?;
    match records::recovery_recipient(&root) {
        Some(recipient) if request.only_first => Ok(pb::SetRecoveryKeyResponse { recipient, changed: false }),
        _ => {
            records::put_recovery_recipient(&shared.replica, &request.recipient, shared.now()).await?;
            Ok(pb::SetRecoveryKeyResponse { recipient: request.recipient, changed: true })
        }
    }
}

/// Hands what is written to a stream of messages.
struct Sender(mpsc::Sender<Result<pb::SnapshotPart, Status>>);

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PART_BYTES);
        let part = pb::SnapshotPart { data: bytes::Bytes::copy_from_slice(&bytes[..taken]) };
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the receiver went away");
        self.0.blocking_send(Ok(part)).map_err(gone)?;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
