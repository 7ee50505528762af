//! One frame: its head, and the control frames that matter. Data is not taken here, since it is passed on in parts.
//!
//! ```text
//! control   1 | version 15 | type 16 | flags 8 | length 24 | …
//! data      0 | stream 31            | flags 8 | length 24 | …
//! ```

use super::Error;
use super::headers::{Headers, Inflater};

pub const HEAD_BYTES: usize = 8;
/// All of a control frame behind its head.
pub const CONTROL_BYTES_MAX: usize = 16 * 1024;

const VERSION: u16 = 3;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const HEADERS: u16 = 8;
const FIN: u8 = 1;
const CONTROL: u32 = 1 << 31;

/// `RST_STREAM`: the stream was not taken.
pub const REFUSED_STREAM: u32 = 3;

#[derive(Debug, PartialEq, Eq)]
pub enum Head {
    Data { stream: u32, fin: bool, length: usize },
    Control { kind: u16, flags: u8, length: usize },
}

#[derive(Debug, PartialEq, Eq)]
pub enum Control {
    Open {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    Reset {
        stream: u32,
    },
    Ping {
        id: u32,
    },
    /// Settings, windows, the goodbye, and whatever else asks for nothing.
    Other,
}

/// # Errors
/// When it is a control frame of another version.
pub fn head(bytes: [u8; HEAD_BYTES]) -> Result<Head, Error> {
    let [first, second] = [&bytes[..4], &bytes[4..]].map(|four| number(four).unwrap_or_default());
    let (flags, length) = ((second >> 24) as u8, (second & 0x00ff_ffff) as usize);
    if first & CONTROL == 0 {
        return Ok(Head::Data { stream: first, fin: flags & FIN != 0, length });
    }
    match ((first >> 16) & 0x7fff) as u16 {
        VERSION => Ok(Head::Control { kind: first as u16, flags, length }),
        other => Err(Error::Version(other)),
    }
}

/// What a control frame says; `payload` is all of it behind the head.
///
/// # Errors
/// When it is too short for its type, or its headers are no headers.
pub fn control(kind: u16, flags: u8, payload: &[u8], inflater: &mut Inflater) -> Result<Control, Error> {
    Ok(match kind {
        SYN_STREAM => {
            let stream = number(payload)? & !CONTROL;
            let block = payload.get(10..).ok_or(Error::Short)?;
            Control::Open { stream, fin: flags & FIN != 0, headers: Headers::parse(&inflater.inflate(block)?)? }
        }
        RST_STREAM => Control::Reset { stream: number(payload)? & !CONTROL },
        PING => Control::Ping { id: number(payload)? },
        HEADERS | SYN_REPLY => {
            // They mean nothing here, and all blocks of headers share one window.
            inflater.inflate(payload.get(4..).ok_or(Error::Short)?)?;
            Control::Other
        }
        _ => Control::Other,
    })
}

/// The head of a data frame; `length` is below 2^24.
pub fn data(stream: u32, fin: bool, length: usize) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..4].copy_from_slice(&(stream & !CONTROL).to_be_bytes());
    head[4..].copy_from_slice(&(length as u32 & 0x00ff_ffff).to_be_bytes());
    head[4] = if fin { FIN } else { 0 };
    head
}

/// Takes the stream; `block` are the answer's headers.
pub fn reply(stream: u32, block: &[u8]) -> Vec<u8> {
    outgoing(SYN_REPLY, &[&stream.to_be_bytes(), block])
}

pub fn reset(stream: u32, status: u32) -> Vec<u8> {
    outgoing(RST_STREAM, &[&stream.to_be_bytes(), &status.to_be_bytes()])
}

pub fn ping(id: u32) -> Vec<u8> {
    outgoing(PING, &[&id.to_be_bytes()])
}

fn outgoing(kind: u16, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let first = CONTROL | u32::from(VERSION) << 16 | u32::from(kind);
    let mut bytes = Vec::with_capacity(HEAD_BYTES + length);
    bytes.extend_from_slice(&first.to_be_bytes());
    bytes.extend_from_slice(&(length as u32).to_be_bytes());
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

/// The number in the first four bytes.
fn number(bytes: &[u8]) -> Result<u32, Error> {
    bytes.first_chunk().map(|four| u32::from_be_bytes(*four)).ok_or(Error::Short)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::headers::tests::{SECOND_BLOCK, error_block};
    use super::*;

    #[test]
    fn heads_of_known_bytes() {
        for (bytes, want) in [
            ([0x80, 3, 0, 1, 1, 0, 0, 42], Head::Control { kind: 1, flags: 1, length: 42 }),
            ([0, 0, 0, 5, 0, 0, 1, 0], Head::Data { stream: 5, fin: false, length: 256 }),
            (
                [0x7f, 0xff, 0xff, 0xff, 1, 0xff, 0xff, 0xff],
                Head::Data { stream: 0x7fff_ffff, fin: true, length: 0x00ff_ffff },
            ),
        ] {
            assert_eq!(head(bytes).expect("a head"), want);
        }
        assert!(matches!(head([0x80, 2, 0, 1, 0, 0, 0, 0]), Err(Error::Version(2))));
    }

    #[test]
    fn what_is_written_reads_back() {
        assert_eq!(data(7, true, 3), [0, 0, 0, 7, 1, 0, 0, 3]);
        assert_eq!(ping(9), [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 9]);
        assert_eq!(reset(1, REFUSED_STREAM), [0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 3]);
        assert_eq!(reply(1, &[5]), [0x80, 3, 0, 2, 0, 0, 0, 5, 0, 0, 0, 1, 5]);
    }

    #[test]
    fn streams_open_with_headers_of_one_window() {
        let mut inflater = Inflater::default();
        let frame = |stream: u32, block: &[u8]| [&stream.to_be_bytes()[..], &[0; 6], block].concat();
        let mut open =
            |stream, flags, block: &[u8]| match control(SYN_STREAM, flags, &frame(stream, block), &mut inflater)
                .expect("a frame")
            {
                Control::Open { stream, fin, headers } => (stream, fin, headers),
                other => panic!("{other:?}"),
            };
        let (stream, fin, headers) = open(1, 0, &error_block());
        assert_eq!((stream, fin, headers.get("streamtype"), headers.get("port")), (1, false, "error", "80"));
        let (stream, fin, headers) = open(3, FIN, SECOND_BLOCK);
        assert_eq!((stream, fin, headers.get("streamtype"), headers.get("requestid")), (3, true, "data", "0"));
    }

    #[test]
    fn hostile_frames_are_errors() {
        let mut inflater = Inflater::default();
        for (kind, payload) in [
            (SYN_STREAM, &[0u8; 9][..]),
            (SYN_STREAM, &[0; 10]),
            (SYN_STREAM, &[0; 200]),
            (SYN_STREAM, &[0xff; 200]),
            (RST_STREAM, &[0; 3]),
            (PING, &[]),
            (HEADERS, &[0; 3]),
            (HEADERS, &[0xff; 20]),
        ] {
            let got = control(kind, 0, payload, &mut inflater);
            assert!(got.is_err(), "{kind} {payload:?}: {got:?}");
        }
        assert_eq!(control(99, 0, &[], &mut inflater).expect("passed over"), Control::Other);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(kind in 0u16..12, flags: u8, payload: Vec<u8>, first: [u8; 8]) {
            let _ = head(first);
            let mut inflater = Inflater::default();
            let _ = control(kind, flags, &payload, &mut inflater);
            // Behind a beginning that is right.
            let mut block = error_block();
            block.extend_from_slice(&payload);
            let _ = control(SYN_STREAM, flags, &[&[0; 10][..], &block].concat(), &mut inflater);
        }
    }
}
