//! Connections to ports of a pod, many in one connection of the client.
//!
//! Over SPDY each is a pair of streams, `error` and `data`, with one `requestid`. Over `v4.channel.k8s.io` each is a pair of
//! channels, 2i for data and 2i + 1 for errors, one for each port of the query, and each begins with its port.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use control::authz::User;
use futures::stream::{FuturesUnordered, SelectAll};
use futures::{SinkExt, StreamExt, future};
use tokio::io::{AsyncRead, AsyncWrite};

use super::websocket::{self, PONG_EVERY, Said, message, said};
use crate::link::{Input, Inputs, Link, Output, Session};
use crate::spdy::{self, Event, Gone};
use crate::{PodRef, StreamError, Streams};

/// The way to one pod's ports.
pub struct Pod {
    pub streams: Arc<dyn Streams>,
    pub user: User,
    pub pod: PodRef,
}

impl Pod {
    async fn connect(&self, port: u16) -> Result<Link, StreamError> {
        self.streams.open(&self.user, self.pod.clone(), Session::Connect { port, asked: None }).await
    }

    fn failed(&self, port: impl std::fmt::Display, why: &impl std::fmt::Display) -> Bytes {
        Bytes::from(format!("error forwarding port {port} to pod {}, uid {}: {why}", self.pod.name, self.pod.uid))
    }
}

/// Until the client ends the connection.
pub async fn over_spdy<R, W>(reader: R, writer: W, pod: Pod)
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let (connection, streams) = spdy::open(reader, writer);
    let ended = tokio::select! {
        ended = connection => ended,
        () = take(streams, &pod) => Ok(()),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a client's SPDY connection ended");
    }
}

/// Pairs the streams as they open, and carries what goes over each pair.
async fn take(mut streams: spdy::Streams, pod: &Pod) {
    // As many as streams can be open at most.
    let mut errors: HashMap<String, spdy::Stream> = HashMap::new();
    let mut pairs = FuturesUnordered::new();
    loop {
        let stream = tokio::select! {
            stream = streams.next() => stream,
            Some(()) = pairs.next() => continue,
        };
        let Some(stream) = stream else { break };
        let request = stream.headers.get("requestid").to_owned();
        match stream.headers.get("streamtype") {
            "error" => drop(errors.insert(request, stream)),
            "data" => {
                if let Some(error) = errors.remove(&request) {
                    pairs.push(pair(pod, error, stream));
                }
            }
            _ => {}
        }
    }
    while let Some(()) = pairs.next().await {}
}

async fn pair(pod: &Pod, error: spdy::Stream, data: spdy::Stream) {
    let port = data.headers.get("port").to_owned();
    let opened = match port.parse() {
        Ok(port) => pod.connect(port).await,
        Err(_) => Err(StreamError::BadRequest(format!("{port:?} is no port"))),
    };
    let told = match opened {
        Ok(link) => carry(link, data).await,
        Err(error) => {
            data.to.end().await;
            Err(error)
        }
    };
    // A client that is gone hears nothing.
    if let Err(why) = told {
        let _ = error.to.send(pod.failed(port, &why)).await;
    }
    error.to.end().await;
}

/// Until the pod's side has ended, or the client has reset the stream.
async fn carry(link: Link, data: spdy::Stream) -> Result<(), StreamError> {
    let Link { mut input, mut output } = link;
    let spdy::Stream { mut from, to, .. } = data;
    let up = async {
        loop {
            match from.recv().await {
                Some(Event::Data(bytes)) => input.send(Input::Data(bytes)).await?,
                Some(Event::End) => {
                    input.send(Input::End).await?;
                    // The pod may go on for as long as it likes.
                    std::future::pending::<()>().await;
                }
                None => return Ok::<_, StreamError>(()),
            }
        }
    };
    let down = async {
        let ended = loop {
            match output.next().await {
                Some(Ok(Output::Data(bytes))) => {
                    if let Err(Gone) = to.send(bytes).await {
                        break Ok(());
                    }
                }
                // Clients close their side only once this one is over, errors too.
                Some(Ok(Output::End)) | None => break Ok(()),
                Some(Ok(_)) => {}
                Some(Err(error)) => break Err(error),
            }
        };
        to.end().await;
        ended
    };
    tokio::pin!(down);
    tokio::select! {
        ended = &mut down => ended,
        sent = up => match sent {
            Ok(()) => Ok(()),
            // What the pod said before it stopped listening is still on its way.
            Err(_) => down.as_mut().await,
        },
    }
}

/// Until all connections have ended, or the client has.
pub async fn over_websocket(socket: WebSocket, ports: Vec<u16>, pod: Pod) {
    let (mut to, mut from) = socket.split();
    let mut inputs: Vec<Option<Inputs>> = Vec::new();
    let mut outputs = SelectAll::new();
    let opening = async {
        for (at, port) in (0u8..).zip(ports) {
            for channel in [2 * at, 2 * at + 1] {
                to.send(message(channel, &port.to_le_bytes())).await?;
            }
            let (input, output) = match pod.connect(port).await {
                Ok(Link { input, output }) => (Some(input), output),
                Err(error) => (None, futures::stream::once(async move { Err(error) }).boxed()),
            };
            inputs.push(input);
            // This protocol has no half-close: what the pod closes is closed.
            let open = output.take_while(|output| future::ready(!matches!(output, Ok(Output::End))));
            outputs.push(open.map(move |output| (at, port, output)).boxed());
        }
        Ok::<_, axum::Error>(())
    };
    if opening.await.is_err() {
        return;
    }
    let listening = async {
        while let Some(Ok(message)) = from.next().await {
            let Some(Said::Data(channel, bytes)) = said(message) else { continue };
            let Some(place) = inputs.get_mut(usize::from(channel / 2)).filter(|_| channel % 2 == 0) else { continue };
            if let Some(input) = place
                && input.send(Input::Data(bytes)).await.is_err()
            {
                *place = None;
            }
        }
    };
    let telling = async {
        let mut silence = tokio::time::interval(PONG_EVERY);
        loop {
            let next = tokio::select! {
                next = outputs.next() => next,
                _ = silence.tick() => {
                    to.send(Message::Pong(Bytes::new())).await?;
                    continue;
                }
            };
            match next {
                Some((at, _, Ok(Output::Data(bytes)))) => to.send(message(2 * at, &bytes)).await?,
                Some((_, _, Ok(_))) => {}
                Some((at, port, Err(error))) => to.send(message(2 * at + 1, &pod.failed(port, &error))).await?,
                None => return Ok::<_, axum::Error>(()),
            }
        }
    };
    let told = tokio::select! {
        () = listening => return,
        told = telling => told,
    };
    if told.is_ok() {
        websocket::close(to, from).await;
    }
}
