//! SPDY/3.1 as `kubectl` speaks it to an API server: many streams in one connection, opened by the client.
//!
//! ```text
//! frame.rs       8 bytes of head and what follows them      bytes ↔ frames
//! headers.rs     zlib with the dictionary of SPDY/3         blocks ↔ names and values
//! connection.rs  one reader, one writer, a queue a stream   frames ↔ streams
//! ```
//!
//! Not here: flow control. The client's library sends no WINDOW_UPDATE and heeds none, so that a window would stall the first
//! stream of more than 64 KiB for ever. A stream that nobody reads holds its connection up instead, with a bounded queue.
//!
//! **Invariant:** whatever a client sends costs at most the named bounds, and ends in an error at worst.

mod connection;
mod frame;
mod headers;

pub use connection::{Event, Gone, Stream, Streams, open};

/// Why a connection was given up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    #[error("a frame of SPDY version {0}, not 3")]
    Version(u16),
    #[error("a control frame of {0} bytes; {max} are taken", max = frame::CONTROL_BYTES_MAX)]
    TooLong(usize),
    #[error("a frame that ends early")]
    Short,
    #[error("headers that cannot be inflated")]
    Compression,
    #[error("headers beyond {max} bytes or {count}", max = headers::BYTES_MAX, count = headers::COUNT_MAX)]
    Headers,
    #[error("stream {0} does not follow the one before it")]
    Order(u32),
}
