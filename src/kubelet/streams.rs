//! Streams that a master asks for, each one call on the connection for streams: logs here, everything else in `sessions`.
//!
//! Not here: who may open them (the API server decided). Invariant: only the pod that the request names by uid is touched.

mod sessions;

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;
use rpc::pb;
use rpc::pb::node_session_client::NodeSessionClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::runtime::{Container, Error, LogQuery, label};
use crate::shared::{STREAMS_MAX, Shared};

use sessions::Frames;

const FRAMES_WAITING_MAX: usize = 16;
const FRAME_BYTES_MAX: usize = 32 * 1024;
const LINGER: std::time::Duration = std::time::Duration::from_secs(30);

/// Serves one request to its end.
pub async fn serve(shared: Arc<Shared>, channel: Channel, request: pb::StreamRequest) {
    let Some(open) = request.open else { return };
    let (up, outgoing) = mpsc::channel(FRAMES_WAITING_MAX);
    let (incoming, down) = mpsc::channel(FRAMES_WAITING_MAX);
    let mut call = tonic::Request::new(ReceiverStream::new(outgoing));
    let Ok(id) = request.id.parse() else { return };
    call.metadata_mut().insert("hactl-stream", id);
    let mut client = NodeSessionClient::new(channel);
    let taken = up.clone();
    let sending = async {
        let last = answer(&shared, &open, Frames { up: up.clone(), down }).await;
        let last = last.unwrap_or_else(|error| pb::StreamFrame { error: Some(error), eof: true, ..Default::default() });
        // The reader may have gone first.
        let _ = up.send(last).await;
        // The master ends the call when it has read the last frame.
        tokio::time::sleep(LINGER).await;
    };
    let calling = async {
        match client.stream(call).await {
            Ok(response) => {
                let mut frames = response.into_inner();
                while let Ok(Some(frame)) = frames.message().await {
                    // Whoever takes no more goes on sending.
                    let _ = incoming.send(frame).await;
                }
            }
            Err(status) => tracing::debug!(%status, "stream refused"),
        }
    };
    tokio::select! {
        () = sending => {}
        () = calling => {}
        // Noticed although a frame waits for a program that reads nothing.
        () = taken.closed() => {}
    }
}

/// The last frame of the stream.
async fn answer(
    shared: &Arc<Shared>,
    open: &pb::StreamOpen,
    frames: Frames,
) -> Result<pb::StreamFrame, pb::StreamError> {
    let Ok(_place) = shared.streams.try_acquire() else {
        return Err(refusal(
            503,
            "ServiceUnavailable",
            format!("node has {STREAMS_MAX} streams open; try again later"),
        ));
    };
    match open {
        pb::StreamOpen { exec: Some(asked), .. } => sessions::exec(shared, open, asked, frames).await,
        pb::StreamOpen { attach: Some(asked), .. } => sessions::attach(shared, open, asked, frames).await,
        pb::StreamOpen { connect: Some(asked), .. } => sessions::connect(shared, open, asked, frames).await,
        _ => {
            logs(shared, open, &frames.up).await?;
            Ok(pb::StreamFrame { eof: true, ..Default::default() })
        }
    }
}

fn refusal(code: u32, reason: &str, message: String) -> pb::StreamError {
    pb::StreamError { code, message, reason: reason.to_owned() }
}

fn failed(error: &Error) -> pb::StreamError {
    refusal(500, "InternalError", error.to_string())
}

/// The container whose log is asked for: the newest of its name, or the one before it.
fn pick<'a>(
    containers: &'a [Container],
    open: &pb::StreamOpen,
    previous: bool,
    waiting: &str,
) -> Result<&'a Container, pb::StreamError> {
    let named = |c: &&Container| open.container.is_empty() || c.label(label::CONTAINER) == open.container;
    let mut own: Vec<&Container> = containers.iter().filter(|c| !c.is_sandbox()).filter(named).collect();
    own.sort_by_key(|container| std::cmp::Reverse(container.attempt()));
    own.get(usize::from(previous)).copied().ok_or_else(|| {
        let message = if previous {
            format!("previous terminated container {:?} in pod {:?} not found", open.container, open.pod)
        } else {
            format!("container {:?} in pod {:?} is waiting to start: {waiting}", open.container, open.pod)
        };
        refusal(400, "BadRequest", message)
    })
}

/// Why a container has no log yet, in Kubernetes' words.
fn waiting_for(shared: &Shared, open: &pb::StreamOpen) -> String {
    let statuses = shared.record(&open.uid).status.and_then(|status| status.container_statuses).unwrap_or_default();
    let own = statuses.into_iter().find(|status| status.name == open.container);
    let reason = own.and_then(|status| status.state?.waiting?.reason).unwrap_or_default();
    match reason.as_str() {
        "" => "ContainerCreating".to_owned(),
        "ErrImagePull" => "image can't be pulled".to_owned(),
        "ImagePullBackOff" => "trying and failing to pull image".to_owned(),
        _ => reason,
    }
}

async fn logs(
    shared: &Shared,
    open: &pb::StreamOpen,
    frames: &mpsc::Sender<pb::StreamFrame>,
) -> Result<(), pb::StreamError> {
    let options = open.logs.clone().unwrap_or_default();
    let containers = shared.runtime.list(Some(&open.uid)).await.map_err(|e| failed(&e))?;
    let waiting = waiting_for(shared, open);
    let container = pick(&containers, open, options.previous, &waiting)?;
    let query = query(&options, Timestamp::now());
    let mut parts = shared.runtime.logs(&container.id, &query).await.map_err(|e| failed(&e))?;
    let mut left = options.limit_bytes.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(usize::MAX);
    while let Some(part) = parts.next().await {
        let mut part = part.map_err(|error| match error {
            // Removed since it was picked: the pod is deleted, or its container was replaced.
            Error::NotFound(_) | Error::Conflict(_) => {
                let message = format!("container {:?} in pod {:?} is being removed", open.container, open.pod);
                refusal(400, "BadRequest", message)
            }
            other => failed(&other),
        })?;
        part.truncate(left);
        left -= part.len();
        while !part.is_empty() {
            let data: Bytes = part.split_to(part.len().min(FRAME_BYTES_MAX));
            let frame = pb::StreamFrame { data, ..Default::default() };
            if frames.send(frame).await.is_err() {
                return Ok(());
            }
        }
        if left == 0 {
            break;
        }
    }
    Ok(())
}

fn query(options: &pb::LogOptions, now: Timestamp) -> LogQuery {
    let since = match (options.since_seconds, options.since_time.parse::<Timestamp>()) {
        (Some(seconds), _) => now.as_second().saturating_sub(seconds),
        (None, Ok(at)) => at.as_second(),
        (None, Err(_)) => 0,
    };
    LogQuery {
        follow: options.follow,
        tail: options.tail_lines.and_then(|lines| u64::try_from(lines).ok()),
        since: since.max(0),
        timestamps: options.timestamps,
    }
}
