//! One connection: a reader that hands each stream its data, a writer that takes from all of them.
//!
//! ```text
//! client ─▶ read ─┬─▶ Streams (new ones)          Sender ─▶ queue ─▶ write ─▶ client
//!                 └─▶ Stream.from, one queue each
//! ```
//!
//! **Invariant:** a client has at most `STREAMS_MAX` streams open, each with at most `EVENTS_MAX` parts waiting.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufWriter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::Error;
use super::frame::{self, CONTROL_BYTES_MAX, Control, HEAD_BYTES, Head};
use super::headers::{Empty, Headers, Inflater};

/// Streams that are open at once; a forwarded connection takes two.
const STREAMS_MAX: usize = 256;
/// Parts of one stream that wait for whoever reads it.
const EVENTS_MAX: usize = 8;
/// Frames that wait for the client to take them.
const OUT_MAX: usize = 16;
/// Data is passed on in parts of at most so much.
const PART_BYTES_MAX: usize = 32 * 1024;
/// How often the client is written to when there is nothing to say: only that shows that it is gone.
const PING_EVERY: Duration = Duration::from_secs(10);

/// What the client says on one stream. A stream that ends without `End` was reset.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    Data(Bytes),
    End,
}

/// The connection is over.
#[derive(Debug)]
pub struct Gone;

/// A stream that the client opened.
pub struct Stream {
    pub headers: Headers,
    pub from: mpsc::Receiver<Event>,
    pub to: Sender,
}

/// This side's direction of a stream.
pub struct Sender {
    id: u32,
    out: mpsc::Sender<Out>,
    /// Its place among the open streams.
    _place: OwnedSemaphorePermit,
}

/// The streams that the client opens, in order; none: it opens no more.
pub struct Streams(mpsc::Receiver<Stream>);

enum Out {
    Reply(u32),
    Data { stream: u32, bytes: Bytes, fin: bool },
    Refuse(u32),
    Pong(u32),
}

impl Streams {
    pub async fn next(&mut self) -> Option<Stream> {
        self.0.recv().await
    }
}

impl Sender {
    /// # Errors
    /// When the connection is over.
    pub async fn send(&self, mut bytes: Bytes) -> Result<(), Gone> {
        while !bytes.is_empty() {
            let bytes = bytes.split_to(bytes.len().min(PART_BYTES_MAX));
            self.out.send(Out::Data { stream: self.id, bytes, fin: false }).await.map_err(|_| Gone)?;
        }
        Ok(())
    }

    /// Ends this direction. Whether the client still hears it does not matter.
    pub async fn end(self) {
        let _ = self.out.send(Out::Data { stream: self.id, bytes: Bytes::new(), fin: true }).await;
    }
}

/// A connection, and what its client opens. Nothing moves unless the future is polled; it ends with the connection.
pub fn open<R, W>(reader: R, writer: W) -> (impl Future<Output = Result<(), Error>> + Send, Streams)
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let (opened, streams) = mpsc::channel(1);
    let (out, queue) = mpsc::channel(OUT_MAX);
    let driver = async move {
        tokio::select! {
            read = read(reader, &out, opened) => read,
            written = write(writer, queue) => written,
        }
    };
    (driver, Streams(streams))
}

async fn read(
    mut reader: impl AsyncRead + Unpin,
    out: &mpsc::Sender<Out>,
    opened: mpsc::Sender<Stream>,
) -> Result<(), Error> {
    let places = Arc::new(Semaphore::new(STREAMS_MAX));
    let mut inflater = Inflater::default();
    let mut streams: HashMap<u32, mpsc::Sender<Event>> = HashMap::new();
    let mut last = 0;
    loop {
        let mut head = [0; HEAD_BYTES];
        match reader.read_exact(&mut head).await {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        };
        match frame::head(head)? {
            Head::Data { stream, fin, length } => {
                pass_on(&mut reader, streams.get(&stream), length).await?;
                if fin && let Some(reader) = streams.remove(&stream) {
                    // It may have gone.
                    let _ = reader.send(Event::End).await;
                }
            }
            Head::Control { length, .. } if length > CONTROL_BYTES_MAX => return Err(Error::TooLong(length)),
            Head::Control { kind, flags, length } => {
                let mut payload = vec![0; length];
                reader.read_exact(&mut payload).await?;
                match frame::control(kind, flags, &payload, &mut inflater)? {
                    Control::Open { stream, fin, headers } => {
                        if stream <= last || stream % 2 == 0 {
                            return Err(Error::Order(stream));
                        }
                        last = stream;
                        streams.retain(|_, reader| !reader.is_closed());
                        let place = places.clone().try_acquire_owned().ok();
                        let Some(place) = place.filter(|_| streams.len() < STREAMS_MAX) else {
                            let _ = out.send(Out::Refuse(stream)).await;
                            continue;
                        };
                        let (to, from) = mpsc::channel(EVENTS_MAX);
                        if fin {
                            let _ = to.try_send(Event::End);
                        } else {
                            streams.insert(stream, to);
                        }
                        let _ = out.send(Out::Reply(stream)).await;
                        let to = Sender { id: stream, out: out.clone(), _place: place };
                        // Whoever takes no more streams lets the rest of the connection go on.
                        let _ = opened.send(Stream { headers, from, to }).await;
                    }
                    Control::Reset { stream } => drop(streams.remove(&stream)),
                    Control::Ping { id } if id % 2 == 1 => drop(out.send(Out::Pong(id)).await),
                    Control::Ping { .. } | Control::Other => {}
                }
            }
        }
    }
}

/// Reads so much data and hands it to whoever reads the stream, if anybody does.
async fn pass_on(
    reader: &mut (impl AsyncRead + Unpin),
    stream: Option<&mpsc::Sender<Event>>,
    mut length: usize,
) -> Result<(), Error> {
    while length > 0 {
        let mut part = BytesMut::zeroed(length.min(PART_BYTES_MAX));
        reader.read_exact(&mut part).await?;
        length -= part.len();
        if let Some(stream) = stream {
            // It may have gone.
            let _ = stream.send(Event::Data(part.freeze())).await;
        }
    }
    Ok(())
}

async fn write(writer: impl AsyncWrite + Unpin, mut queue: mpsc::Receiver<Out>) -> Result<(), Error> {
    let mut writer = BufWriter::with_capacity(PART_BYTES_MAX + HEAD_BYTES, writer);
    let mut replies = Empty::default();
    let start = tokio::time::Instant::now() + PING_EVERY;
    let mut silence = tokio::time::interval_at(start, PING_EVERY);
    let mut pings = (2..u32::MAX).step_by(2).cycle();
    loop {
        let next = tokio::select! {
            next = queue.recv() => next,
            _ = silence.tick() => {
                let id = pings.next().unwrap_or(2);
                writer.write_all(&frame::ping(id)).await?;
                writer.flush().await?;
                continue;
            }
        };
        match next {
            None => return Ok(()),
            Some(Out::Reply(stream)) => writer.write_all(&frame::reply(stream, &replies.block())).await?,
            Some(Out::Refuse(stream)) => writer.write_all(&frame::reset(stream, frame::REFUSED_STREAM)).await?,
            Some(Out::Pong(id)) => writer.write_all(&frame::ping(id)).await?,
            Some(Out::Data { stream, bytes, fin }) => {
                writer.write_all(&frame::data(stream, fin, bytes.len())).await?;
                writer.write_all(&bytes).await?;
            }
        }
        if queue.is_empty() {
            writer.flush().await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex, split};

    use super::super::headers::tests::{SECOND_BLOCK, error_block};
    use super::*;

    fn syn(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
        let length = (10 + block.len()) as u32 | u32::from(flags) << 24;
        [&[0x80, 3, 0, 1][..], &length.to_be_bytes(), &stream.to_be_bytes(), &[0; 6], block].concat()
    }

    fn data(stream: u32, fin: bool, bytes: &[u8]) -> Vec<u8> {
        [&frame::data(stream, fin, bytes.len())[..], bytes].concat()
    }

    fn connection() -> (DuplexStream, impl Future<Output = Result<(), Error>>, Streams) {
        let (near, far) = duplex(1 << 20);
        let (reader, writer) = split(near);
        let (driver, streams) = open(reader, writer);
        (far, driver, streams)
    }

    /// What the connection comes to when the client sends this.
    async fn sent(bytes: &[u8]) -> Result<(), Error> {
        let (mut client, driver, mut streams) = connection();
        client.write_all(bytes).await.expect("room");
        client.shutdown().await.expect("ended");
        let taking = async {
            while let Some(mut stream) = streams.next().await {
                while stream.from.recv().await.is_some() {}
            }
        };
        tokio::join!(driver, taking).0
    }

    async fn expect(client: &mut DuplexStream, want: &[u8]) {
        let mut got = vec![0; want.len()];
        client.read_exact(&mut got).await.expect("bytes");
        assert_eq!(got, want);
    }

    #[tokio::test]
    async fn streams_open_speak_and_end() {
        let (mut client, driver, mut streams) = connection();
        let bytes = [
            syn(1, 0, &error_block()),
            syn(3, 0, SECOND_BLOCK),
            data(3, false, b"there"),
            data(9, true, b"nobody's"),
            data(3, true, b""),
            frame::ping(7),
        ]
        .concat();
        client.write_all(&bytes).await.expect("room");
        let talk = async {
            let error = streams.next().await.expect("a stream");
            let mut both = streams.next().await.expect("another");
            assert_eq!((error.headers.get("streamtype"), both.headers.get("streamtype")), ("error", "data"));
            assert_eq!(both.from.recv().await, Some(Event::Data(Bytes::from_static(b"there"))));
            assert_eq!(both.from.recv().await, Some(Event::End));
            assert_eq!(both.from.recv().await, None);
            let mut replies = Empty::default();
            expect(&mut client, &frame::reply(1, &replies.block())).await;
            expect(&mut client, &frame::reply(3, &replies.block())).await;
            expect(&mut client, &frame::ping(7)).await;
            both.to.send(Bytes::from_static(b"and back")).await.expect("open");
            both.to.end().await;
            expect(&mut client, &data(3, false, b"and back")).await;
            expect(&mut client, &data(3, true, b"")).await;
            drop((client, error));
        };
        let (ended, ()) = tokio::join!(driver, talk);
        ended.expect("ends with its client");
    }

    #[tokio::test]
    async fn a_stream_that_is_reset_ends_without_its_end() {
        let (mut client, driver, mut streams) = connection();
        let bytes = [syn(1, 0, &error_block()), frame::reset(1, 5), syn(3, 1, SECOND_BLOCK)].concat();
        client.write_all(&bytes).await.expect("room");
        let talk = async {
            let (mut first, mut second) = (streams.next().await.expect("one"), streams.next().await.expect("two"));
            assert_eq!(first.from.recv().await, None);
            assert_eq!(second.from.recv().await, Some(Event::End), "opened with its end");
            drop(client);
        };
        tokio::join!(driver, talk).0.expect("ends with its client");
    }

    #[tokio::test]
    async fn one_stream_too_many_is_refused() {
        let (mut client, driver, mut streams) = connection();
        client.write_all(&syn(1, 0, &error_block())).await.expect("room");
        for at in 1..=STREAMS_MAX as u32 {
            // The same headers once more, as the window has them.
            client.write_all(&syn(2 * at + 1, 0, &[0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0])).await.expect("room");
        }
        let talk = async {
            let mut held = Vec::new();
            for _ in 0..STREAMS_MAX {
                held.push(streams.next().await.expect("a stream"));
            }
            let refused = frame::reset(2 * STREAMS_MAX as u32 + 1, frame::REFUSED_STREAM);
            let mut got = Vec::new();
            while !got.ends_with(&refused) {
                got.push(client.read_u8().await.expect("a byte"));
            }
            drop((held, client));
        };
        tokio::join!(driver, talk).0.expect("ends with its client");
    }

    #[tokio::test]
    async fn hostile_connections_end_in_an_error() {
        let order = [syn(3, 0, &error_block()), syn(3, 0, SECOND_BLOCK)].concat();
        assert!(matches!(sent(&order).await, Err(Error::Order(3))));
        assert!(matches!(sent(&syn(2, 0, &error_block())).await, Err(Error::Order(2))));
        assert!(matches!(sent(&[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff]).await, Err(Error::TooLong(0x00ff_ffff))));
        assert!(matches!(sent(b"GET / HTTP/1.1\r\n\r\n").await, Err(Error::Io(_))), "data that never ends");
        assert!(matches!(sent(&[0x80, 3, 0, 6, 0, 0, 0, 4, 0]).await, Err(Error::Io(_))));
        assert!(matches!(sent(&syn(1, 0, &[0xff; 40])).await, Err(Error::Compression)));
        assert!(sent(&[]).await.is_ok());
        assert!(sent(&data(1, false, &[1; 100_000])).await.is_ok(), "of no stream");
    }
}
