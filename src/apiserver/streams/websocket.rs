//! Messages of `v4.channel.k8s.io` and `v5.channel.k8s.io`: the first byte is a channel. And the end of a WebSocket.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};

pub type ToClient = SplitSink<WebSocket, Message>;
pub type FromClient = SplitStream<WebSocket>;

/// How often the client hears something. Go's clients give a connection up on which no pong came for a minute, and the one that
/// answers their pings waits while the pod takes no input; and only writing shows that a client is gone.
pub const PONG_EVERY: Duration = Duration::from_secs(10);
/// How long a client has to take the end.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);
/// With this in the first byte, the second is the channel that ends. Only v5 has it.
const HALF_CLOSE: u8 = 255;

#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    Data(u8, Bytes),
    End(u8),
}

/// What a client's message says; `None`: nothing.
pub fn said(message: Message) -> Option<Said> {
    // Some clients in browsers send text for text.
    let mut bytes = match message {
        Message::Binary(bytes) => bytes,
        Message::Text(text) => Bytes::from(text),
        Message::Ping(_) | Message::Pong(_) | Message::Close(_) => return None,
    };
    let channel = *bytes.first()?;
    let bytes = bytes.split_off(1);
    if channel == HALF_CLOSE {
        return bytes.first().map(|channel| Said::End(*channel));
    }
    Some(Said::Data(channel, bytes))
}

pub fn message(channel: u8, bytes: &[u8]) -> Message {
    let mut message = BytesMut::with_capacity(1 + bytes.len());
    message.put_u8(channel);
    message.extend_from_slice(bytes);
    Message::Binary(message.freeze())
}

/// Says that this was all, and waits for the client to say the same.
pub async fn close(mut to: ToClient, mut from: FromClient) {
    let end = CloseFrame { code: close_code::NORMAL, reason: "".into() };
    let closing = async {
        if to.send(Message::Close(Some(end))).await.is_ok() {
            while let Some(Ok(_)) = from.next().await {}
        }
    };
    let _ = tokio::time::timeout(CLOSE_LIMIT, closing).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_is_the_channel() {
        let binary = |bytes: &'static [u8]| said(Message::Binary(Bytes::from_static(bytes)));
        assert_eq!(binary(&[0, 1, 2]), Some(Said::Data(0, Bytes::from_static(&[1, 2]))));
        assert_eq!(binary(&[4]), Some(Said::Data(4, Bytes::new())));
        assert_eq!(binary(&[255, 0]), Some(Said::End(0)));
        assert_eq!(binary(&[255]), None);
        assert_eq!(binary(&[]), None);
        assert_eq!(said(Message::Ping(Bytes::from_static(b"\0a"))), None);
        assert_eq!(message(1, b"ab"), Message::Binary(Bytes::from_static(b"\x01ab")));
    }
}
