//! Exec, attach and connections to ports, each on one open stream of a master.
//!
//! ```text
//! started ─▶ frames down: data, its end, sizes ─▶ program or port
//!            frames up: data, its end, stderr  ◀─┘             last: the exit code
//! ```
//!
//! **Invariant:** a command whose stream is over runs no longer, however it ended.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use rpc::pb;
use rpc::streams::{DATA, RESIZE, STATUS, STDERR, STDIN};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{FRAME_BYTES_MAX, failed, refusal};
use crate::runtime::{Attached, Container, Error, Runtime, State, Stdio, Terminal, Written, label};
use crate::shared::Shared;

/// Both directions of one stream.
pub struct Frames {
    pub up: mpsc::Sender<pb::StreamFrame>,
    pub down: mpsc::Receiver<pb::StreamFrame>,
}

/// The master takes no more.
struct Gone;

type Refused = pb::StreamError;

impl Frames {
    async fn started(&self) -> Result<(), Gone> {
        self.send(pb::StreamFrame { started: true, ..Default::default() }).await
    }

    async fn send(&self, frame: pb::StreamFrame) -> Result<(), Gone> {
        self.up.send(frame).await.map_err(|_| Gone)
    }
}

/// In parts that fit a frame.
async fn say(up: &mpsc::Sender<pb::StreamFrame>, channel: u32, mut data: Bytes) -> Result<(), Gone> {
    while !data.is_empty() {
        let data = data.split_to(data.len().min(FRAME_BYTES_MAX));
        up.send(pb::StreamFrame { channel, data, ..Default::default() }).await.map_err(|_| Gone)?;
    }
    Ok(())
}

fn last(exit_code: Option<i32>) -> pb::StreamFrame {
    pb::StreamFrame { channel: STATUS, eof: true, exit_code, ..Default::default() }
}

fn stdio(asked: Option<pb::Stdio>) -> Stdio {
    let pb::Stdio { stdin, stdout, stderr, tty } = asked.unwrap_or_default();
    Stdio { stdin, stdout, stderr, tty }
}

async fn pod(shared: &Shared, open: &pb::StreamOpen) -> Result<Vec<Container>, Refused> {
    let containers = shared.runtime.list(Some(&open.uid)).await.map_err(|error| failed(&error))?;
    let running = containers.into_iter().filter(|container| container.state == State::Running);
    Ok(running.collect())
}

async fn container(shared: &Shared, open: &pb::StreamOpen) -> Result<Container, Refused> {
    let named = |container: &Container| !container.is_sandbox() && container.label(label::CONTAINER) == open.container;
    let found = pod(shared, open).await?.into_iter().filter(named).max_by_key(Container::attempt);
    found
        .ok_or_else(|| refusal(404, "NotFound", format!("container not found ({:?}): it does not run", open.container)))
}

fn not_begun(open: &pb::StreamOpen, error: &Error) -> Refused {
    match error {
        Error::NotFound(_) | Error::Conflict(_) => {
            refusal(404, "NotFound", format!("container not found ({:?}): it has just ended", open.container))
        }
        other => failed(other),
    }
}

/// A command in a container; its last frame.
pub async fn exec(
    shared: &Arc<Shared>,
    open: &pb::StreamOpen,
    asked: &pb::ExecOptions,
    frames: Frames,
) -> Result<pb::StreamFrame, Refused> {
    let container = container(shared, open).await?;
    let stdio = stdio(asked.stdio);
    let runtime = shared.runtime.clone();
    let exec = runtime.create_exec(&container.id, &asked.command, stdio).await.map_err(|e| not_begun(open, &e))?;
    // Whoever waits here may be dropped at any time; what was started is ended all the same.
    let gone = CancellationToken::new();
    let _guard = gone.clone().drop_guard();
    let run = tokio::spawn(async move {
        let attached = runtime.start_exec(&exec, stdio).await.map_err(|error| failed(&error))?;
        let program = async {
            talk(&*runtime, Terminal::Exec(&exec), attached, frames).await?;
            runtime.wait_exec(&exec).await.map_err(|error| Some(failed(&error)))
        };
        let ended = tokio::select! {
            () = gone.cancelled() => Err(None),
            ended = program => ended,
        };
        if ended.is_err()
            && let Err(error) = runtime.end_exec(&container.id, &exec).await
        {
            tracing::warn!(%error, "a command whose client is gone may run on");
        }
        ended.map(|code| last(Some(code))).map_err(|refused| refused.unwrap_or_else(over))
    });
    run.await.unwrap_or_else(|_| Err(over()))
}

/// Nobody is there to read it.
fn over() -> Refused {
    refusal(500, "InternalError", "the stream is over".to_owned())
}

/// A container's own program; its last frame.
pub async fn attach(
    shared: &Shared,
    open: &pb::StreamOpen,
    asked: &pb::AttachOptions,
    frames: Frames,
) -> Result<pb::StreamFrame, Refused> {
    let container = container(shared, open).await?;
    let runtime = &*shared.runtime;
    let attached = runtime.attach(&container.id, stdio(asked.stdio)).await.map_err(|e| not_begun(open, &e))?;
    let talked = talk(runtime, Terminal::Container(&container.id), attached, frames).await;
    // Kubernetes tells how an attached container ended by its status alone.
    talked.map(|()| last(Some(0))).map_err(|refused| refused.unwrap_or_else(over))
}

/// Until the program has closed its output. An error without a refusal: the master is gone.
async fn talk(
    runtime: &dyn Runtime,
    terminal: Terminal<'_>,
    attached: Attached,
    mut frames: Frames,
) -> Result<(), Option<Refused>> {
    frames.started().await.map_err(|Gone| None)?;
    let Attached { input, mut output } = attached;
    let up = &frames.up;
    let speaking = async {
        while let Some(part) = output.next().await {
            let said = match part.map_err(|error| Some(failed(&error)))? {
                Written::Stdout(data) => say(up, DATA, data).await,
                Written::Stderr(data) => say(up, STDERR, data).await,
            };
            said.map_err(|Gone| None)?;
        }
        Ok(())
    };
    tokio::select! {
        spoken = speaking => spoken,
        () = listen(runtime, terminal, input, &mut frames.down) => Err(None),
    }
}

/// Gives the program what the master sends. Returns when that is over.
async fn listen(
    runtime: &dyn Runtime,
    terminal: Terminal<'_>,
    input: std::pin::Pin<Box<dyn AsyncWrite + Send>>,
    down: &mut mpsc::Receiver<pb::StreamFrame>,
) {
    let mut input = Some(input);
    while let Some(frame) = down.recv().await {
        match (frame.channel, frame.size) {
            (STDIN, _) if frame.eof => {
                if let Some(mut input) = input.take() {
                    // It may have closed it itself.
                    let _ = input.shutdown().await;
                }
            }
            (STDIN, _) => {
                let given = match &mut input {
                    Some(input) => write(input, &frame.data).await,
                    None => Ok(()),
                };
                if given.is_err() {
                    input = None;
                }
            }
            (RESIZE, Some(size)) => {
                let side = |side: u32| u16::try_from(side).unwrap_or(u16::MAX);
                if let Err(error) = runtime.resize(terminal, side(size.width), side(size.height)).await {
                    tracing::debug!(%error, "a terminal keeps its size");
                }
            }
            // A newer master's.
            _ => {}
        }
    }
}

async fn write(to: &mut (impl AsyncWrite + Unpin), data: &[u8]) -> std::io::Result<()> {
    to.write_all(data).await?;
    to.flush().await
}

/// A connection to a port of the pod; its last frame.
pub async fn connect(
    shared: &Shared,
    open: &pb::StreamOpen,
    asked: &pb::ConnectOptions,
    mut frames: Frames,
) -> Result<pb::StreamFrame, Refused> {
    let port = u16::try_from(asked.port).map_err(|_| refusal(400, "BadRequest", format!("no port: {}", asked.port)))?;
    let sandbox = pod(shared, open).await?.into_iter().find(Container::is_sandbox);
    let sandbox = sandbox.ok_or_else(|| refusal(404, "NotFound", format!("pod {:?} does not run", open.pod)))?;
    let pipe = shared.runtime.connect(&sandbox, port).await.map_err(|error| failed(&error))?;
    frames.started().await.map_err(|Gone| over())?;
    let (mut from, mut to) = tokio::io::split(pipe);
    let up = &frames.up;
    let speaking = async {
        let mut part = bytes::BytesMut::new();
        loop {
            part.reserve(FRAME_BYTES_MAX);
            match from.read_buf(&mut part).await {
                Ok(0) => break,
                Ok(_) => say(up, DATA, part.split().freeze()).await?,
                Err(error) => {
                    tracing::debug!(%error, "a connection to a pod broke");
                    break;
                }
            }
        }
        up.send(pb::StreamFrame { channel: DATA, eof: true, ..Default::default() }).await.map_err(|_| Gone)
    };
    let listening = async {
        while let Some(frame) = frames.down.recv().await {
            if frame.channel != STDIN {
                continue;
            }
            // Where it reads no more, nothing more can be said.
            if frame.eof || write(&mut to, &frame.data).await.is_err() {
                let _ = to.shutdown().await;
                return Ok(());
            }
        }
        Err(Gone)
    };
    // Each direction may end first; the master's going ends both.
    let ended = tokio::try_join!(speaking, listening);
    ended.map(|_| last(None)).map_err(|Gone| over())
}

#[cfg(test)]
#[path = "sessions_tests.rs"]
mod tests;
