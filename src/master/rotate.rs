//! Rotations that an administrator starts: of the key for Secrets and of the issuers. Any master takes the request, the
//! leader carries it out, one at a time, and tells every step.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt;
use futures::stream::BoxStream;
use rpc::pb::{self, rotate_request::What};
use rpc::peer::Lane;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::service::Shared;
use crate::{issuers, keys};

pub type Steps = BoxStream<'static, Result<pb::Progress, Status>>;

/// Steps that nobody has read yet; the work never waits for a reader that is gone.
const STEPS_MAX: usize = 64;

/// At most one rotation at a time.
#[derive(Debug, Default)]
pub struct Rotations(AtomicBool);

impl Rotations {
    pub fn is_under_way(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Who asked, and is told what happens.
pub struct Told(mpsc::Sender<Result<pb::Progress, Status>>);

impl Told {
    pub async fn step(&self, step: String) {
        tracing::info!(step, "rotation");
        // Whoever asked may be gone; the work goes on.
        let _ = self.0.send(Ok(pb::Progress { step, done: false })).await;
    }
}

/// Here if this member leads, else at the leader.
///
/// # Errors
/// When nobody leads, or another rotation is under way.
pub async fn rotate(shared: &Arc<Shared>, what: What) -> Result<Steps, Status> {
    let leadership = shared.replica.leadership().borrow().clone();
    if leadership.leading.is_some() {
        return here(shared, what);
    }
    let leader = shared.addresses.member(leadership.leader).filter(|leader| leader.id != shared.config.member_id);
    let leader = leader.ok_or_else(|| Status::unavailable("nobody leads; try again"))?;
    let mut client = shared.peers.client(leader.id, &leader.peer_address, Lane::General);
    let steps = client.rotate(pb::RotateRequest { what: what.into() }).await?.into_inner();
    Ok(steps.boxed())
}

/// As the leader. The work goes on if the asker goes away.
///
/// # Errors
/// When this member does not lead, or another rotation is under way.
pub fn here(shared: &Arc<Shared>, what: What) -> Result<Steps, Status> {
    if shared.replica.leadership().borrow().leading.is_none() {
        return Err(Status::failed_precondition("this master does not lead; ask again"));
    }
    if shared.rotations.0.swap(true, Ordering::AcqRel) {
        return Err(Status::failed_precondition("another rotation is under way; wait until it has ended"));
    }
    let (tell, steps) = mpsc::channel(STEPS_MAX);
    let runtime = shared.runtime.clone();
    let shared = shared.clone();
    runtime.spawn(async move {
        let under_way = UnderWay(&shared.rotations);
        let told = Told(tell.clone());
        let ended = match what {
            What::DataKey => keys::rotate(&shared, &told).await,
            What::Issuers => issuers::rotate(&shared, &told).await,
            What::IssuersFinish => issuers::finish(&shared, &told).await,
            What::Unspecified => Err(Status::invalid_argument("this master does not know that rotation")),
        };
        drop(under_way);
        let last = match ended {
            Ok(()) => Ok(pb::Progress { step: String::new(), done: true }),
            Err(status) => {
                tracing::warn!(message = status.message(), "the rotation ended early");
                Err(status)
            }
        };
        let _ = tell.send(last).await;
    });
    Ok(ReceiverStream::new(steps).boxed())
}

/// Lets the next rotation begin, however this one ends.
struct UnderWay<'a>(&'a Rotations);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Release);
    }
}
