//! The inside of a snapshot file, encrypted as one age file: a manifest, all rows of the state, an end.
//!
//! Each item is its length (4 bytes, little-endian) and a prost message, append-only like everything stored. The rows are
//! those of `state` without history, in key order. The manifest names the header's hash, so that a header cannot be
//! exchanged; age itself makes sure that nothing is missing or changed.

use std::io::{self, BufReader, Read, Write};

use bytes::Bytes;
use prost::Message;
use state::{Restore, State};

use super::format::{FileHeader, Reader, Sums, Writer};
use super::key::{self, RecoveryKey};
use crate::Error;

/// Bytes of rows in one item.
const ROWS_BYTES: usize = 256 << 10;
/// A row is one object, which is at most some MiB.
const ITEM_BYTES_MAX: u32 = 64 << 20;

/// What a master needs beside the state. Stored, so append-only.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Manifest {
    #[prost(bytes = "vec", tag = "1")]
    pub header_sha256: Vec<u8>,
    #[prost(string, tag = "2")]
    pub peer_issuer_pem: String,
    #[prost(string, tag = "3")]
    pub node_issuer_pem: String,
    #[prost(string, tag = "4")]
    pub client_issuer_pem: String,
    /// The issuers' keys, JSON as a joining master gets them.
    #[prost(bytes = "vec", tag = "5")]
    pub master_secrets: Vec<u8>,
    /// The keys that Secrets are sealed with, JSON as a joining master gets them; empty: none.
    #[prost(bytes = "vec", tag = "6")]
    pub data_keys: Vec<u8>,
    /// Settings fixed by `init`, by name.
    #[prost(btree_map = "string, string", tag = "7")]
    pub settings: std::collections::BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Item {
    #[prost(oneof = "Kind", tags = "1, 2, 3")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(message, tag = "1")]
    Manifest(Manifest),
    #[prost(message, tag = "2")]
    Rows(Rows),
    /// How many rows there were.
    #[prost(uint64, tag = "3")]
    End(u64),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Rows {
    #[prost(message, repeated, tag = "1")]
    rows: Vec<Row>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Row {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// The header of a snapshot of this state.
pub fn header(state: &State, cluster_id: &str, epoch: u64, created: i64, recipient: &str) -> FileHeader {
    FileHeader {
        cluster_id: cluster_id.to_owned(),
        epoch,
        revision: state.revision(),
        created,
        recipient: recipient.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        state_hash: format!("{:032x}", state.hash()),
        objects: state.len() as u64,
    }
}

/// Writes a whole file. Blocks.
///
/// # Errors
/// Those of `out`; [`io::ErrorKind::InvalidInput`] when the recipient in the header is none.
pub fn write<W: Write>(state: &State, header: &FileHeader, manifest: Manifest, out: W) -> io::Result<W> {
    let recipient =
        key::recipient(&header.recipient).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let mut state = state.clone();
    state.forget_history(0);
    let encryptor = age::Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient))
        .map_err(io::Error::other)?;
    let mut out = encryptor.wrap_output(Writer::begin(out, header)?)?;
    let manifest = Manifest { header_sha256: header.digest(), ..manifest };
    item(&mut out, Kind::Manifest(manifest))?;
    let (mut rows, mut bytes, mut count) = (Vec::new(), 0, 0);
    for (key, value) in state.present_rows() {
        bytes += key.len() + value.len();
        count += 1;
        rows.push(Row { key: key.into(), value: value.into() });
        if bytes >= ROWS_BYTES {
            item(&mut out, Kind::Rows(Rows { rows: std::mem::take(&mut rows) }))?;
            bytes = 0;
        }
    }
    item(&mut out, Kind::Rows(Rows { rows }))?;
    item(&mut out, Kind::End(count))?;
    out.finish()?.finish()
}

fn item(out: &mut impl Write, kind: Kind) -> io::Result<()> {
    let bytes = Item { kind: Some(kind) }.encode_to_vec();
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(&bytes)
}

/// Reads a whole file and checks what can be checked without the key: it is complete and unchanged. Blocks.
///
/// # Errors
/// Says where it is damaged.
pub fn check(input: impl Read) -> Result<(FileHeader, Sums), Error> {
    Reader::begin(input).and_then(Reader::check_rest).map_err(|error| Error::Invalid(error.to_string()))
}

/// A snapshot that was read and found to be whole.
pub struct Opened {
    pub header: FileHeader,
    pub manifest: Manifest,
    /// Without history.
    pub state: State,
}

/// Reads and checks everything: the checksums, the encryption, every row, and that the state they make has its hash. Takes
/// as much memory as a master of that cluster. Blocks.
///
/// # Errors
/// When another key encrypted it, or says where it is damaged.
pub fn open(input: impl Read, key: &RecoveryKey) -> Result<Opened, Error> {
    let invalid = |what: String| Error::Invalid(what);
    let reader = Reader::begin(input).map_err(|error| invalid(error.to_string()))?;
    let header = reader.header().clone();
    if header.recipient != key.recipient() {
        return Err(invalid(format!(
            "the snapshot is encrypted to {}, this recovery key is that of {}: give the key that was current when it was saved",
            header.recipient,
            key.recipient()
        )));
    }
    let undecryptable =
        |error: &dyn std::fmt::Display| invalid(format!("it does not open with this recovery key: {error}"));
    let decryptor = age::Decryptor::new(reader).map_err(|error| undecryptable(&error))?;
    let plain =
        decryptor.decrypt(std::iter::once(&key.0 as &dyn age::Identity)).map_err(|error| undecryptable(&error))?;
    let mut plain = BufReader::with_capacity(128 << 10, plain);
    let damaged = |error: io::Error| invalid(format!("its content is damaged: {error}"));

    let Some(Kind::Manifest(manifest)) = next(&mut plain).map_err(damaged)? else {
        return Err(invalid("its content does not begin with a manifest".into()));
    };
    if manifest.header_sha256 != header.digest() {
        return Err(invalid("its header was exchanged: it is not the one its content was written under".into()));
    }
    let mut restore = Restore::new();
    let mut count = 0;
    loop {
        match next(&mut plain).map_err(damaged)? {
            Some(Kind::Rows(rows)) => {
                for row in rows.rows {
                    restore.row(&row.key, &row.value).map_err(|error| invalid(error.to_string()))?;
                    count += 1;
                }
            }
            Some(Kind::End(rows)) if rows == count => break,
            Some(Kind::End(rows)) => return Err(invalid(format!("it holds {count} rows of {rows}"))),
            Some(Kind::Manifest(_)) | None => return Err(invalid("its content makes no sense to this version".into())),
        }
    }
    if plain.read(&mut [0]).map_err(damaged)? != 0 {
        return Err(invalid("its content goes on behind its end".into()));
    }
    // Recomputes the hash from the objects and compares it with the one that was saved.
    let state = restore.finish().map_err(|error| invalid(error.to_string()))?;
    if state.revision() != header.revision || format!("{:032x}", state.hash()) != header.state_hash {
        return Err(invalid("its state is not the one its header names".into()));
    }
    Ok(Opened { header, manifest, state })
}

fn next(plain: &mut impl Read) -> io::Result<Option<Kind>> {
    let mut length = [0; 4];
    plain.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > ITEM_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "an item is too long"));
    }
    let mut bytes = vec![0; length as usize];
    plain.read_exact(&mut bytes)?;
    Ok(Item::decode(bytes.as_slice()).map_err(io::Error::other)?.kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use state::{Command, EntryId, Header, Key, Op, Put};

    fn given() -> State {
        let mut state = State::default();
        for index in 1..=300u64 {
            let put = Put {
                key: Key::namespace(format!("n{}", index % 100)),
                header: Header { uid: format!("u{}", index % 100), ..Header::default() },
                body: Bytes::from(vec![b'a' + (index % 26) as u8; 4096]),
                ..Put::default()
            };
            let proposal = Bytes::copy_from_slice(&u128::from(index).to_be_bytes());
            let command = Command { proposal, ops: vec![Op::put(put)], ..Command::default() };
            assert_eq!(state.apply(EntryId { term: 1, index }, &command).outcome.refusal, None);
        }
        state
    }

    fn saved(state: &State, key: &RecoveryKey) -> Vec<u8> {
        let header = header(state, "c-1", 1, 1_700_000_000, &key.recipient());
        let manifest = Manifest { master_secrets: b"[]".to_vec(), ..Manifest::default() };
        write(state, &header, manifest, Vec::new()).expect("write")
    }

    #[test]
    fn a_state_survives_its_file() {
        let (state, key) = (given(), RecoveryKey::generate());
        let file = saved(&state, &key);
        assert!(!file.windows(8).any(|part| part == b"aaaaaaaa"), "nothing of it can be read");
        let (header, sums) = check(file.as_slice()).expect("checked");
        assert_eq!((header.revision, header.objects), (300, 100));
        assert!(sums.chunks > 1);
        let opened = open(file.as_slice(), &key).expect("opened");
        assert_eq!(opened.manifest.master_secrets, b"[]");
        assert_eq!(opened.state.hash(), state.hash());
        assert_eq!(opened.state.compacted(), state.revision());
        assert_eq!(opened.state.outcome_of(300), state.outcome_of(300));
        let mut expected = state;
        expected.forget_history(0);
        assert_eq!(opened.state, expected);
    }

    #[test]
    fn another_key_and_another_header_do_not_open_it() {
        let (state, key) = (given(), RecoveryKey::generate());
        let file = saved(&state, &key);
        let error = open(file.as_slice(), &RecoveryKey::generate()).err().expect("another key").to_string();
        assert!(error.contains(&key.recipient()), "{error}");

        // A file made of the chunks of one and the header of another.
        let mut content = Vec::new();
        Reader::begin(file.as_slice()).expect("begin").read_to_end(&mut content).expect("read");
        let lie = FileHeader { epoch: 9, ..header(&state, "c-1", 1, 1_700_000_000, &key.recipient()) };
        let mut writer = Writer::begin(Vec::new(), &lie).expect("begin");
        writer.write_all(&content).expect("write");
        let forged = writer.finish().expect("finish");
        assert!(check(forged.as_slice()).is_ok(), "its checksums hold");
        let error = open(forged.as_slice(), &key).err().expect("forged").to_string();
        assert!(error.contains("exchanged"), "{error}");
    }
}
