//! Blocks of headers: names and values with lengths before them, in one zlib stream for all of a direction.
//!
//! The client's stream begins with the dictionary of SPDY/3, which is put in front of the inflater's window. What this side
//! writes is stored rather than compressed: the headers of its answers are empty.

use std::sync::LazyLock;

use flate2::{Decompress, FlushDecompress, Status};

use super::Error;

/// One block, inflated.
pub const BYTES_MAX: usize = 64 * 1024;
pub const COUNT_MAX: usize = 64;

/// Words of the dictionary that have their length in front.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
    accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
    content-length content-location content-md5 content-range content-type date etag expect expires from host if-match \
    if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
    proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie \
    keep-alive origin";
/// What follows them.
const REST: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
    203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden\
    404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug \
    Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
    application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdch\
    charset=utf-8charset=iso-8859-1,utf-,*,enq=0.";
/// The dictionary's checksum, by which a zlib stream names it.
const DICTIONARY_ID: u32 = 0xe3c6_a7c2;

static DICTIONARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut bytes = Vec::with_capacity(1423);
    for word in WORDS.split_whitespace() {
        bytes.extend_from_slice(&(word.len() as u32).to_be_bytes());
        bytes.extend(word.bytes().map(|byte| if byte == b'_' { b' ' } else { byte }));
    }
    bytes.extend_from_slice(REST.as_bytes());
    bytes
});

/// Names, in lower case, and values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// # Errors
    /// When the block ends early, or holds too much.
    pub fn parse(mut block: &[u8]) -> Result<Self, Error> {
        let count = length(&mut block)?;
        if count > COUNT_MAX {
            return Err(Error::Headers);
        }
        let mut headers = Vec::with_capacity(count);
        for _ in 0..count {
            let name = text(&mut block)?.to_ascii_lowercase();
            headers.push((name, text(&mut block)?));
        }
        Ok(Self(headers))
    }

    /// The value; "" where there is none.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

fn length(block: &mut &[u8]) -> Result<usize, Error> {
    let (four, rest) = block.split_first_chunk().ok_or(Error::Short)?;
    *block = rest;
    Ok(u32::from_be_bytes(*four) as usize)
}

fn text(block: &mut &[u8]) -> Result<String, Error> {
    let length = length(block)?;
    let (text, rest) = block.split_at_checked(length).ok_or(Error::Short)?;
    *block = rest;
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// The client's direction.
pub struct Inflater {
    zlib: Decompress,
    begun: bool,
}

impl Default for Inflater {
    fn default() -> Self {
        Self { zlib: Decompress::new(false), begun: false }
    }
}

impl Inflater {
    /// # Errors
    /// When the block does not go on where the last one ended, or grows too large. Nothing can be inflated after that.
    pub fn inflate(&mut self, mut block: &[u8]) -> Result<Vec<u8>, Error> {
        if !self.begun {
            block = self.begin(block)?;
            self.begun = true;
        }
        let mut out = Vec::new();
        self.go_on(block, &mut out)?;
        Ok(out)
    }

    /// Takes the zlib stream's beginning, and the dictionary that it names.
    fn begin<'a>(&mut self, block: &'a [u8]) -> Result<&'a [u8], Error> {
        let (head, rest) = block.split_first_chunk::<2>().ok_or(Error::Compression)?;
        if head[0] & 0x0f != 8 || u16::from_be_bytes(*head) % 31 != 0 {
            return Err(Error::Compression);
        }
        if head[1] & 0x20 == 0 {
            return Ok(rest);
        }
        let (id, rest) = rest.split_first_chunk().ok_or(Error::Compression)?;
        if u32::from_be_bytes(*id) != DICTIONARY_ID {
            return Err(Error::Compression);
        }
        // A stored block in front of the stream is what fills the window.
        let mut unread = Vec::with_capacity(DICTIONARY.len());
        self.go_on(&stored(&DICTIONARY), &mut unread)?;
        Ok(rest)
    }

    fn go_on(&mut self, mut block: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let mut part = [0; 4096];
        loop {
            let (taken, made) = (self.zlib.total_in(), self.zlib.total_out());
            let status = self.zlib.decompress(block, &mut part, FlushDecompress::Sync);
            let taken = (self.zlib.total_in() - taken) as usize;
            let made = (self.zlib.total_out() - made) as usize;
            if matches!(status, Err(_) | Ok(Status::StreamEnd)) {
                return Err(Error::Compression);
            }
            out.extend_from_slice(&part[..made]);
            block = &block[taken..];
            if out.len() > BYTES_MAX {
                return Err(Error::Headers);
            }
            if made < part.len() {
                return if block.is_empty() { Ok(()) } else { Err(Error::Compression) };
            }
        }
    }
}

/// A deflate block that holds its bytes as they are; at most 64 KiB less one.
fn stored(bytes: &[u8]) -> Vec<u8> {
    let length = bytes.len() as u16;
    let mut block = vec![0];
    block.extend_from_slice(&length.to_le_bytes());
    block.extend_from_slice(&(!length).to_le_bytes());
    block.extend_from_slice(bytes);
    block
}

/// This side's direction: blocks without a header in them.
#[derive(Default)]
pub struct Empty {
    begun: bool,
}

impl Empty {
    pub fn block(&mut self) -> Vec<u8> {
        let mut block = if std::mem::replace(&mut self.begun, true) { Vec::new() } else { vec![0x78, 0x01] };
        block.extend(stored(&0u32.to_be_bytes()));
        // Ends where a reader has nothing left to wait for.
        block.extend(stored(&[]));
        block
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// `streamtype: error, port: 80, requestid: 0` as zlib compresses it with the dictionary.
    const FIRST_BLOCK: &str = "78f9e3c6a7c202253a703a2b294a4dcc851625aca9a0808614cb45a024cc64610024398b209198094adc8c06\
        00000000ffff";
    /// `streamtype: data, port: 80, requestid: 0` behind it.
    pub const SECOND_BLOCK: &[u8] =
        &[0xc2, 0xaa, 0x15, 0x54, 0x0a, 0x25, 0x12, 0xd2, 0x09, 0x00, 0x00, 0x00, 0xff, 0xff];

    pub fn error_block() -> Vec<u8> {
        let digits: Vec<u8> =
            FIRST_BLOCK.bytes().filter_map(|byte| (byte as char).to_digit(16)).map(|d| d as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    fn adler32(bytes: &[u8]) -> u32 {
        let (a, b) = bytes.iter().fold((1u32, 0u32), |(a, b), byte| {
            let a = (a + u32::from(*byte)) % 65_521;
            (a, (b + a) % 65_521)
        });
        b << 16 | a
    }

    #[test]
    fn the_dictionary_is_the_one_that_clients_name() {
        assert_eq!((DICTIONARY.len(), adler32(&DICTIONARY)), (1423, DICTIONARY_ID));
    }

    #[test]
    fn blocks_of_known_bytes() {
        let mut inflater = Inflater::default();
        let headers = Headers::parse(&inflater.inflate(&error_block()).expect("inflated")).expect("headers");
        let want = [("streamtype", "error"), ("port", "80"), ("requestid", "0")];
        assert_eq!(headers.0, want.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(headers.get("nothing"), "");
        let headers = Headers::parse(&inflater.inflate(SECOND_BLOCK).expect("inflated")).expect("headers");
        assert_eq!(headers.get("streamtype"), "data");
    }

    #[test]
    fn what_this_side_writes_can_be_read() {
        let (mut empty, mut inflater) = (Empty::default(), Inflater::default());
        for _ in 0..3 {
            let block = inflater.inflate(&empty.block()).expect("inflated");
            assert_eq!(Headers::parse(&block).expect("headers"), Headers::default());
        }
    }

    #[test]
    fn hostile_blocks_are_errors() {
        let mut foreign = error_block();
        foreign[2] ^= 1;
        // Names another dictionary; no zlib; nothing.
        for block in [&foreign[..], &[0x79; 8], &[0x78], &[]] {
            assert!(Inflater::default().inflate(block).is_err(), "{block:?}");
        }
        // 64 KiB of zeros in a few bytes.
        let mut bomb = flate2::Compress::new(flate2::Compression::best(), true);
        let mut small = Vec::with_capacity(1 << 16);
        bomb.compress_vec(&vec![0; BYTES_MAX + 5000], &mut small, flate2::FlushCompress::Sync).expect("compressed");
        assert!(matches!(Inflater::default().inflate(&small), Err(Error::Headers)), "{} bytes", small.len());
        for block in [
            &[0xff, 0xff, 0xff, 0xff][..],
            &[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, b'a'],
            &[0, 0, 0, 1, 0, 0, 0, 1, b'a', 0, 0, 0, 2, b'b'],
            &[0, 0, 0],
        ] {
            assert!(Headers::parse(block).is_err(), "{block:?}");
        }
    }
}
