//! Answers: bytes in the client's encoding, compressed where it pays, lists streamed in chunks, warnings as headers.

use std::io::Write as _;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures::stream;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use state::Record;

use crate::negotiate::{self, Encoding};
use crate::rows::Rows;
use crate::shape::{ListMeta, Shape};
use crate::status::{Failure, Result};
use crate::yaml;

/// Smaller answers are not worth compressing.
const GZIP_BYTES_MIN: usize = 128 * 1024;
/// A list is written in chunks of about this size.
const CHUNK_BYTES: usize = 64 * 1024;
/// Room for the item that completes a chunk, as most are.
const ITEM_BYTES: usize = 4 * 1024;

/// Marks a response whose body ends by itself: it holds what it is made of until its client has taken all of it.
#[derive(Clone, Copy, Debug)]
pub struct Finite;

/// What all answers of one request share.
pub struct Answer<'a> {
    pub headers: &'a HeaderMap,
    pub encoding: Encoding,
    pub warnings: Vec<String>,
}

impl Answer<'_> {
    /// One JSON document.
    pub fn json(self, status: StatusCode, json: Vec<u8>) -> Result<Response> {
        let (bytes, media) = match self.encoding {
            Encoding::Json => (json, "application/json"),
            Encoding::Yaml => (yaml::from_json(&json).map_err(Failure::internal)?, "application/yaml"),
        };
        let gzip = bytes.len() > GZIP_BYTES_MIN && negotiate::takes_gzip(self.headers);
        let body = if gzip { compress(&bytes)? } else { bytes };
        Ok(self.head(status, media, gzip, Body::from(body)))
    }

    /// A list, streamed unless it is small.
    pub fn list(self, shape: Shape, meta: &ListMeta, items: Items) -> Result<Response> {
        let mut chunks = Chunks::new(shape, meta, items);
        if self.encoding == Encoding::Yaml {
            return self.json(StatusCode::OK, chunks.flatten().collect());
        }
        let first = chunks.next().unwrap_or_default();
        if chunks.done {
            return self.json(StatusCode::OK, first);
        }
        let gzip = negotiate::takes_gzip(self.headers);
        let chunks = std::iter::once(first).chain(chunks);
        let body = if gzip {
            Body::from_stream(stream::iter(Gzip {
                inner: Some((chunks, GzEncoder::new(Vec::new(), Compression::fast()))),
            }))
        } else {
            Body::from_stream(stream::iter(chunks.map(|chunk| Ok::<_, std::io::Error>(Bytes::from(chunk)))))
        };
        Ok(self.head(StatusCode::OK, "application/json", gzip, body))
    }

    fn head(&self, status: StatusCode, media: &'static str, gzip: bool, body: Body) -> Response {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        response.extensions_mut().insert(Finite);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        if gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        }
        for warning in &self.warnings {
            let text: String = warning.chars().filter(|c| !c.is_control()).collect();
            let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
            if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()) {
                headers.append(header::WARNING, value);
            }
        }
        response
    }
}

fn compress(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).map_err(Failure::internal)
}

/// What a list is made of.
pub enum Items {
    /// One page.
    Page(std::vec::IntoIter<Arc<Record>>),
    /// All there is.
    All(Rows),
}

impl Items {
    /// Visits the next items until `take` has enough and says false. True if there may be more.
    fn visit(&mut self, mut take: impl FnMut(&Record) -> bool) -> bool {
        match self {
            Self::Page(records) => records.any(|record| !take(&record)),
            Self::All(rows) => {
                rows.visit(take);
                !rows.is_over()
            }
        }
    }
}

/// The bytes of a list, a chunk at a time: a list of any length costs one chunk of memory beside the root.
struct Chunks {
    shape: Shape,
    head: Option<Vec<u8>>,
    items: Items,
    done: bool,
}

impl Chunks {
    fn new(shape: Shape, meta: &ListMeta, items: Items) -> Self {
        let mut head = Vec::new();
        shape.write_head(meta, &mut head);
        Self { shape, head: Some(head), items, done: false }
    }
}

impl Iterator for Chunks {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.done {
            return None;
        }
        let head = self.head.take();
        let mut comma = head.is_none();
        let mut out = Vec::with_capacity(if head.is_none() { CHUNK_BYTES + ITEM_BYTES } else { ITEM_BYTES });
        out.extend(head.unwrap_or_default());
        let shape = &self.shape;
        let more = self.items.visit(|record| {
            if comma {
                out.push(b',');
            }
            comma = true;
            shape.write_item(record, &mut out);
            out.len() < CHUNK_BYTES
        });
        if !more {
            shape.write_tail(&mut out);
            self.done = true;
        }
        Some(out)
    }
}

/// Compresses chunk by chunk.
struct Gzip<I> {
    inner: Option<(I, GzEncoder<Vec<u8>>)>,
}

impl<I: Iterator<Item = Vec<u8>>> Iterator for Gzip<I> {
    type Item = std::io::Result<Bytes>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (mut chunks, mut encoder) = self.inner.take()?;
            let Some(chunk) = chunks.next() else { return Some(encoder.finish().map(Bytes::from)) };
            if let Err(error) = encoder.write_all(&chunk) {
                return Some(Err(error));
            }
            let out = std::mem::take(encoder.get_mut());
            self.inner = Some((chunks, encoder));
            if !out.is_empty() {
                return Some(Ok(out.into()));
            }
        }
    }
}
