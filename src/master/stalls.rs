//! Clients that stop reading. What they asked for must not lie in this master's memory for ever: a connection on which an
//! answer, or the socket itself, takes nothing for so long (`api-stalled`) is closed.
//!
//! ```text
//! answer that ends (a list, an object) ─▶ Portions: 64 KiB at a time, as HTTP/2's window allows ─┐
//! any answer                           ─▶ Socket: bytes as the kernel takes them ───────────────┴─▶ no progress: closed
//! ```
//!
//! Not here: watches and logs, which hold a place in something and no answer; their clients may pause as long as they like
//! as long as HTTP/2's pings are answered.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use apiserver::Finite;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

/// What is handed to the connection at a time; a smaller answer is not watched.
const PORTION: usize = 64 * 1024;

/// The larger answers of one connection, and when something was last taken of each.
#[derive(Clone, Default)]
pub struct Stalls(Arc<Inner>);

#[derive(Default)]
struct Inner {
    taken: Mutex<Taken>,
    /// There is a first one to watch.
    begun: Notify,
}

#[derive(Default)]
struct Taken {
    last: u64,
    at: BTreeMap<u64, Instant>,
}

impl Stalls {
    /// Watches how the answer is taken, if it ends by itself and is not small.
    pub fn watch(&self, response: Response) -> Response {
        let finite = response.extensions().get::<Finite>().is_some();
        let small = response.body().size_hint().exact().is_some_and(|size| size <= PORTION as u64);
        if !finite || small {
            return response;
        }
        let id = {
            let mut taken = self.taken();
            taken.last += 1;
            let id = taken.last;
            taken.at.insert(id, Instant::now());
            id
        };
        self.0.begun.notify_one();
        response.map(|body| Body::new(Portions { body, rest: Bytes::new(), id, stalls: self.clone() }))
    }

    /// Returns when nothing was taken of some answer for so long.
    pub async fn longer_than(&self, limit: Duration) {
        loop {
            let oldest = self.taken().at.values().min().copied();
            match oldest {
                None => self.0.begun.notified().await,
                Some(at) if at.elapsed() >= limit => return,
                Some(at) => tokio::time::sleep(limit.saturating_sub(at.elapsed())).await,
            }
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body in portions: the next one is asked for when the client has room for it.
struct Portions {
    body: Body,
    rest: Bytes,
    id: u64,
    stalls: Stalls,
}

impl http_body::Body for Portions {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(at) = self.stalls.taken().at.get_mut(&self.id) {
            *at = Instant::now();
        }
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                end => return Poll::Ready(end),
            }
        }
        let size = self.rest.len().min(PORTION);
        // A copy, so that the last portions do not keep the whole.
        let portion = Bytes::copy_from_slice(&self.rest.split_to(size));
        Poll::Ready(Some(Ok(Frame::data(portion))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        self.body.size_hint().exact().map_or_else(SizeHint::new, |size| SizeHint::with_exact(size + rest))
    }
}

impl Drop for Portions {
    fn drop(&mut self) {
        self.stalls.taken().at.remove(&self.id);
    }
}

/// A stream whose writes fail when the other side takes nothing for so long.
pub struct Socket<S> {
    stream: S,
    limit: Duration,
    /// Runs while a write waits.
    waits: Option<Pin<Box<Sleep>>>,
}

impl<S> Socket<S> {
    pub fn new(stream: S, limit: Duration) -> Self {
        Self { stream, limit, waits: None }
    }

    fn timed<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.waits = None;
            return outcome;
        }
        let waits = self.waits.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.limit)));
        match waits.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.timed(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.timed(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.timed(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.timed(cx, outcome)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn large() -> Bytes {
        (0..3 * PORTION + 5).map(|at| at as u8).collect::<Vec<_>>().into()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_is_noticed() {
        let stalls = Stalls::default();
        let finite = |body| {
            let mut response = Response::new(body);
            response.extensions_mut().insert(Finite);
            response
        };
        let small = stalls.watch(finite(Body::from("small")));
        let endless = stalls.watch(Response::new(Body::from_stream(futures::stream::pending::<io::Result<Bytes>>())));
        let response = stalls.watch(finite(Body::from(large())));
        assert_eq!(response.body().size_hint().exact(), Some(large().len() as u64));
        let mut body = response.into_body();
        let mut taken = Vec::new();
        // As long as something is taken in time, however little, nothing stalls.
        while let Some(frame) = body.frame().await {
            let data = frame.expect("a frame").into_data().expect("data");
            assert!(data.len() <= PORTION);
            taken.extend_from_slice(&data);
            let soon = tokio::time::timeout(LIMIT / 2, stalls.longer_than(LIMIT)).await;
            assert!(soon.is_err(), "it goes on");
        }
        assert_eq!(taken, large());
        drop(body);
        assert!(tokio::time::timeout(LIMIT * 2, stalls.longer_than(LIMIT)).await.is_err(), "nothing is open");
        drop((small, endless));
        let _untouched = stalls.watch(finite(Body::from(large())));
        stalls.longer_than(LIMIT).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_that_takes_nothing_fails() {
        let (near, mut far) = tokio::io::duplex(16);
        let mut socket = Socket::new(near, LIMIT);
        socket.write_all(&[1; 16]).await.expect("it fits");
        let error = socket.write_all(&[2; 16]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        let (near, mut other) = tokio::io::duplex(16);
        let mut socket = Socket::new(near, LIMIT);
        let slow = tokio::spawn(async move {
            let mut bytes = [0; 16];
            for _ in 0..4 {
                tokio::time::sleep(LIMIT / 2).await;
                other.read_exact(&mut bytes).await.expect("bytes");
            }
        });
        socket.write_all(&[3; 64]).await.expect("slow, but it goes on");
        slow.await.expect("read all");
        let mut bytes = [0; 16];
        far.read_exact(&mut bytes).await.expect("what fitted");
    }
}
