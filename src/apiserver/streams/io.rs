//! Bytes over what is not a byte stream: a WebSocket's messages, a link's data.

use std::io;

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use futures::{SinkExt, StreamExt, future};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use crate::link::{Input, Link, Output};

/// A WebSocket whose binary messages are one sequence of bytes, however they are split.
pub fn tunnel(socket: WebSocket) -> (impl AsyncRead + Send + Unpin, impl AsyncWrite + Send + Unpin) {
    let (to, from) = socket.split();
    let bytes = from.filter_map(|message| {
        future::ready(match message {
            Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
            Ok(Message::Text(_)) => Some(Err(io::Error::new(io::ErrorKind::InvalidData, "text in a tunnel"))),
            Ok(_) => None,
            Err(error) => Some(Err(io::Error::other(error))),
        })
    });
    let sink = to
        .sink_map_err(io::Error::other)
        .with(|bytes: Bytes| future::ready(Ok::<_, io::Error>(Message::Binary(bytes))));
    (StreamReader::new(bytes), SinkWriter::new(CopyToBytes::new(sink)))
}

/// A link as one connection.
pub fn over_link(link: Link) -> impl AsyncRead + AsyncWrite + Send + Unpin {
    let until_end = link.output.take_while(|output| future::ready(!matches!(output, Ok(Output::End))));
    let bytes = until_end.filter_map(|output| {
        future::ready(match output {
            Ok(Output::Data(bytes)) => Some(Ok(bytes)),
            Ok(_) => None,
            Err(error) => Some(Err(io::Error::other(error))),
        })
    });
    let sink = link
        .input
        .sink_map_err(io::Error::other)
        .with(|bytes: Bytes| future::ready(Ok::<_, io::Error>(Input::Data(bytes))));
    tokio::io::join(StreamReader::new(bytes), SinkWriter::new(CopyToBytes::new(sink)))
}
