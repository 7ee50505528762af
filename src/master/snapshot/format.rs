//! The outer form of a snapshot file: what can be read and checked without any key.
//!
//! ```text
//!   "HACTLSNP"  format (4)  length (4)  crc32 (4)  header         whose snapshot it is, of what revision, for which key
//!   length (4)  crc32 (4)  bytes                                  … any number of chunks: together one age file
//!   0 (4)       crc32 (4)  chunks (8)  bytes (8)  sha256 (32)     the end: sums over everything before it
//! ```
//!
//! Numbers are little-endian. The header is a prost message and append-only; a change of anything else is a new format.
//! Everything is written and read once, from front to back, so a file may be larger than memory.
//!
//! Not here: what is inside (see [`super::content`]).

use std::io::{self, Read, Write};

use prost::Message;
use ring::digest;

pub const MAGIC: &[u8; 8] = b"HACTLSNP";
pub const FORMAT: u32 = 1;
/// Bytes of a chunk as written; a reader takes up to four times as much.
const CHUNK_BYTES: usize = 256 << 10;
const CHUNK_BYTES_MAX: usize = 4 * CHUNK_BYTES;
const HEADER_BYTES_MAX: usize = 64 << 10;
const END_BYTES: usize = 8 + 8 + 32;

/// What everyone may know of a snapshot. Stored, so append-only.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FileHeader {
    #[prost(string, tag = "1")]
    pub cluster_id: String,
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    #[prost(uint64, tag = "3")]
    pub revision: u64,
    /// Seconds since 1970.
    #[prost(int64, tag = "4")]
    pub created: i64,
    /// The public half of the key that opens it.
    #[prost(string, tag = "5")]
    pub recipient: String,
    /// Of the hactl that wrote it.
    #[prost(string, tag = "6")]
    pub version: String,
    /// The state's hash, lower-case hex.
    #[prost(string, tag = "7")]
    pub state_hash: String,
    #[prost(uint64, tag = "8")]
    pub objects: u64,
}

impl FileHeader {
    /// What binds the inside of a file to its header.
    pub fn digest(&self) -> Vec<u8> {
        digest::digest(&digest::SHA256, &self.encode_to_vec()).as_ref().to_vec()
    }
}

/// What a whole file adds up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub chunks: u64,
    /// Of all chunks.
    pub bytes: u64,
}

fn damaged(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

fn long(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

/// Puts what is written into chunks.
pub struct Writer<W: Write> {
    out: W,
    chunk: Vec<u8>,
    sums: Sums,
    whole: digest::Context,
}

impl<W: Write> Writer<W> {
    /// # Errors
    /// Those of `out`.
    pub fn begin(out: W, header: &FileHeader) -> io::Result<Self> {
        let mut this = Self {
            out,
            chunk: Vec::with_capacity(CHUNK_BYTES),
            sums: Sums::default(),
            whole: digest::Context::new(&digest::SHA256),
        };
        let header = header.encode_to_vec();
        let length = u32::try_from(header.len()).map_err(io::Error::other)?;
        this.emit(MAGIC)?;
        this.emit(&FORMAT.to_le_bytes())?;
        this.emit(&length.to_le_bytes())?;
        this.emit(&crc32fast::hash(&header).to_le_bytes())?;
        this.emit(&header)?;
        Ok(this)
    }

    fn emit(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.whole.update(bytes);
        self.out.write_all(bytes)
    }

    fn end_chunk(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::take(&mut self.chunk);
        self.emit(&(chunk.len() as u32).to_le_bytes())?;
        self.emit(&crc32fast::hash(&chunk).to_le_bytes())?;
        self.emit(&chunk)?;
        self.sums.chunks += 1;
        self.sums.bytes += chunk.len() as u64;
        self.chunk = chunk;
        self.chunk.clear();
        Ok(())
    }

    /// Writes the end. Without it a file is not a snapshot.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn finish(mut self) -> io::Result<W> {
        self.end_chunk()?;
        let mut end = Vec::with_capacity(END_BYTES);
        end.extend(self.sums.chunks.to_le_bytes());
        end.extend(self.sums.bytes.to_le_bytes());
        end.extend(self.whole.clone().finish().as_ref());
        self.out.write_all(&0u32.to_le_bytes())?;
        self.out.write_all(&crc32fast::hash(&end).to_le_bytes())?;
        self.out.write_all(&end)?;
        self.out.flush()?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK_BYTES - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        if self.chunk.len() == CHUNK_BYTES {
            self.end_chunk()?;
        }
        Ok(taken)
    }

    /// Chunks end when they are full: this passes nothing on.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes the chunks out again, each checked before any of it is handed on; at the end everything is.
pub struct Reader<R: Read> {
    input: R,
    header: FileHeader,
    chunk: Vec<u8>,
    at: usize,
    sums: Sums,
    whole: digest::Context,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// # Errors
    /// When this is no snapshot, one of a newer hactl, or its header is damaged.
    pub fn begin(mut input: R) -> io::Result<Self> {
        let mut whole = digest::Context::new(&digest::SHA256);
        let fixed: [u8; 20] = exact(&mut input, "the header")?;
        if fixed[..8] != MAGIC[..] {
            return Err(damaged("this is no hactl snapshot"));
        }
        let format = number(&fixed[8..12]);
        if format != FORMAT {
            return Err(damaged(format!("the file has format {format}, this hactl reads {FORMAT}; use a newer hactl")));
        }
        let length = number(&fixed[12..16]) as usize;
        if length > HEADER_BYTES_MAX {
            return Err(damaged("the header is damaged"));
        }
        let mut header = vec![0; length];
        fill(&mut input, &mut header, "the header")?;
        if crc32fast::hash(&header) != number(&fixed[16..20]) {
            return Err(damaged("the header is damaged"));
        }
        whole.update(&fixed);
        whole.update(&header);
        let header = FileHeader::decode(header.as_slice()).map_err(|_| damaged("the header is damaged"))?;
        Ok(Self { input, header, chunk: Vec::new(), at: 0, sums: Sums::default(), whole, ended: false })
    }

    pub fn header(&self) -> &FileHeader {
        &self.header
    }

    /// Reads and checks all that is left.
    ///
    /// # Errors
    /// Where the file is damaged, cut off or goes on behind its end.
    pub fn check_rest(mut self) -> io::Result<(FileHeader, Sums)> {
        while self.next_chunk()? {}
        Ok((self.header, self.sums))
    }

    /// Whether there was another.
    fn next_chunk(&mut self) -> io::Result<bool> {
        if self.ended {
            return Ok(false);
        }
        let what = format!("chunk {}", self.sums.chunks + 1);
        let fixed: [u8; 8] = exact(&mut self.input, &what)?;
        let (length, crc) = (number(&fixed[..4]) as usize, number(&fixed[4..]));
        if length == 0 {
            return self.end(crc).map(|()| false);
        }
        if length > CHUNK_BYTES_MAX {
            return Err(damaged(format!("{what} is damaged")));
        }
        self.chunk.resize(length, 0);
        fill(&mut self.input, &mut self.chunk, &what)?;
        if crc32fast::hash(&self.chunk) != crc {
            return Err(damaged(format!("{what} is damaged: its checksum does not match")));
        }
        self.whole.update(&fixed);
        self.whole.update(&self.chunk);
        self.at = 0;
        self.sums.chunks += 1;
        self.sums.bytes += length as u64;
        Ok(true)
    }

    fn end(&mut self, crc: u32) -> io::Result<()> {
        let end: [u8; END_BYTES] = exact(&mut self.input, "the end")?;
        let whole = self.whole.clone().finish();
        let sums = Sums { chunks: long(&end[..8]), bytes: long(&end[8..16]) };
        if crc32fast::hash(&end) != crc || sums != self.sums || end[16..] != *whole.as_ref() {
            return Err(damaged("the sums at the end do not match: chunks are missing, doubled or changed"));
        }
        if self.input.read(&mut [0])? != 0 {
            return Err(damaged("the file goes on behind its end"));
        }
        self.ended = true;
        self.chunk.clear();
        self.at = 0;
        Ok(())
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() && !self.next_chunk()? {
            return Ok(0);
        }
        let taken = out.len().min(self.chunk.len() - self.at);
        out[..taken].copy_from_slice(&self.chunk[self.at..self.at + taken]);
        self.at += taken;
        Ok(taken)
    }
}

fn exact<const N: usize>(input: &mut impl Read, what: &str) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    fill(input, &mut bytes, what)?;
    Ok(bytes)
}

fn fill(input: &mut impl Read, bytes: &mut [u8], what: &str) -> io::Result<()> {
    input.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged(format!("the file ends early, in {what}")),
        _ => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> FileHeader {
        FileHeader {
            cluster_id: "c-1".into(),
            epoch: 2,
            revision: 300,
            created: 1_700_000_000,
            recipient: "age1x".into(),
            version: "0.1.0".into(),
            state_hash: "0f".into(),
            objects: 7,
        }
    }

    fn file(content: &[u8]) -> Vec<u8> {
        let mut writer = Writer::begin(Vec::new(), &header()).expect("begin");
        writer.write_all(content).expect("write");
        writer.finish().expect("finish")
    }

    fn read(file: &[u8]) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        Reader::begin(file)?.read_to_end(&mut content)?;
        Ok(content)
    }

    #[test]
    fn what_is_written_is_read() {
        for length in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, 3 * CHUNK_BYTES + 5] {
            let content: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            let file = file(&content);
            assert_eq!(read(&file).expect("whole"), content);
            let (found, sums) = Reader::begin(file.as_slice()).expect("begin").check_rest().expect("check");
            assert_eq!((found, sums.bytes), (header(), length as u64));
        }
    }

    #[test]
    fn every_changed_missing_or_further_byte_is_seen() {
        let whole = file(b"some content");
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x20;
            assert!(read(&changed).is_err(), "byte {at}");
            assert!(read(&whole[..at]).is_err(), "cut at {at}");
        }
        assert!(read(&[whole.as_slice(), b"x"].concat()).is_err());
    }

    #[test]
    fn exchanged_chunks_are_seen() {
        let content: Vec<u8> = (0..2 * CHUNK_BYTES).map(|at| (at / CHUNK_BYTES) as u8).collect();
        let whole = file(&content);
        let begin = whole.len() - (8 + END_BYTES) - 2 * (8 + CHUNK_BYTES);
        let (head, rest) = whole.split_at(begin);
        let (one, rest) = rest.split_at(8 + CHUNK_BYTES);
        let (two, end) = rest.split_at(8 + CHUNK_BYTES);
        assert!(read(&[head, two, one, end].concat()).is_err());
        assert!(read(&[head, one, end].concat()).is_err());
    }

    #[test]
    fn the_bytes_of_a_file_never_change() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/snapshot/file.bin");
        let present = file(b"chunk");
        if std::env::var_os("HACTL_GOLDEN").is_some() {
            std::fs::create_dir_all(std::path::Path::new(path).parent().expect("a folder")).expect("folder");
            std::fs::write(path, &present).expect("write");
        }
        assert_eq!(std::fs::read(path).expect("golden file"), present);
        assert_eq!(present[..12], *b"HACTLSNP\x01\0\0\0");
    }
}
