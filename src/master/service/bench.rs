//! The key-value store that `hactl bench` measures: ordinary objects of a group of their own, through the same proposals,
//! records, history and reads as all others, without the Kubernetes API around them.
//!
//! **Invariant:** every call is bounded, an administrator's, and touches no object outside the group.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use control::controllers::benchttl::{GROUP, RESOURCE};
use futures::StreamExt;
use futures::stream::BoxStream;
use rpc::pb::bench_request::Ask;
use rpc::pb::bench_response::Answer;
use rpc::pb::{self, bench_server::Bench};
use state::{Command, Header, Key, Op, Outcome, Put, Record};
use tonic::{Request, Response, Status, Streaming};

use super::{Shared, admin};
use crate::{latency, records};

const RUN_CHARS_MAX: usize = 40;
const KEYS_MAX: u64 = 4_000_000;
const VALUE_BYTES_MAX: usize = 1 << 20;
/// Of one call that fills or clears.
const KEYS_AT_ONCE: usize = 1000;
/// Of one session.
const ASKS_AT_ONCE: usize = 1000;
const SYNCS_MAX: u32 = 1000;
const SYNC_BYTES_MAX: u32 = 64 << 10;

const HEAD: &str = r#"{"metadata":{"name":""#;
const TAIL: &str = r#"},"spec":{"value":""#;

pub struct BenchService(pub Arc<Shared>);

/// The key of one object of a run. Padded, so that the order of keys is that of numbers.
///
/// # Errors
/// When run or number is out of bounds.
fn key(run: &str, number: u64) -> Result<Key, Status> {
    if number >= KEYS_MAX {
        return Err(Status::invalid_argument(format!("key {number}: a run has at most {KEYS_MAX} keys")));
    }
    Ok(Key::new(GROUP, RESOURCE, "", format!("{}{number:07}", prefix(run)?)))
}

fn prefix(run: &str) -> Result<String, Status> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if run.is_empty() || run.len() > RUN_CHARS_MAX || !run.bytes().all(plain) {
        return Err(Status::invalid_argument(format!("a run is 1 to {RUN_CHARS_MAX} of a-z, 0-9 and -")));
    }
    Ok(format!("{run}."))
}

fn put(key: Key, value: &[u8], now_ms: i64) -> Op {
    let mut body = String::with_capacity(key.name.len() + value.len() * 4 / 3 + 80);
    body.push_str(HEAD);
    body.push_str(&key.name);
    body.push_str(r#"","resourceVersion":"#);
    let split = u32::try_from(body.len()).unwrap_or(u32::MAX);
    body.push_str(TAIL);
    BASE64_STANDARD.encode_string(value, &mut body);
    body.push_str(r#""}}"#);
    let header = Header { creation_ms: now_ms, ..Header::default() };
    Op::put(Put { key, header, body: body.into(), split, ..Put::default() })
}

fn value(record: &Record) -> Option<Vec<u8>> {
    let tail = record.body.get(record.split as usize..)?;
    let value = tail.strip_prefix(TAIL.as_bytes())?.strip_suffix(br#""}}"#)?;
    BASE64_STANDARD.decode(value).ok()
}

impl BenchService {
    async fn propose(&self, ops: Vec<Op>) -> Result<Outcome, Status> {
        let time_ms = self.0.now().as_millisecond();
        let outcome = records::propose(&self.0.replica, Command { ops, time_ms, ..Command::default() }).await?;
        match outcome.refusal {
            None => Ok(outcome),
            Some(refusal) => Err(Status::failed_precondition(format!("refused: {refusal:?}"))),
        }
    }
}

fn not_too_large(bytes: usize) -> Result<(), Status> {
    if bytes > VALUE_BYTES_MAX {
        return Err(Status::invalid_argument(format!("{bytes} bytes: at most {VALUE_BYTES_MAX} in one call")));
    }
    Ok(())
}

impl BenchService {
    async fn put_one(&self, request: pb::BenchPutRequest) -> Result<pb::BenchPutResponse, Status> {
        not_too_large(request.value.len())?;
        let op = put(key(&request.run, request.key)?, &request.value, self.0.now().as_millisecond());
        Ok(pb::BenchPutResponse { revision: self.propose(vec![op]).await?.revision })
    }

    async fn get_one(&self, request: pb::BenchGetRequest) -> Result<pb::BenchGetResponse, Status> {
        let key = key(&request.run, request.key)?;
        let root = self.0.replica.read().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let Some(record) = root.get(&key) else { return Ok(pb::BenchGetResponse::default()) };
        let value = value(record).ok_or_else(|| Status::data_loss(format!("{key} holds no value")))?;
        Ok(pb::BenchGetResponse { found: true, value: value.into(), revision: record.revision })
    }

    async fn answer(&self, request: pb::BenchRequest) -> pb::BenchResponse {
        let answer = match request.ask {
            Some(Ask::Put(put)) => self.put_one(put).await.map(Answer::Put),
            Some(Ask::Get(get)) => self.get_one(get).await.map(Answer::Get),
            None => Err(Status::invalid_argument("neither a put nor a get")),
        };
        let failed = |status: Status| pb::BenchFailure { code: status.code().into(), message: status.message().into() };
        let answer = answer.unwrap_or_else(|status| Answer::Failed(failed(status)));
        pb::BenchResponse { id: request.id, answer: Some(answer) }
    }
}

#[tonic::async_trait]
impl Bench for BenchService {
    async fn put(&self, request: Request<pb::BenchPutRequest>) -> Result<Response<pb::BenchPutResponse>, Status> {
        admin(&request)?;
        self.put_one(request.into_inner()).await.map(Response::new)
    }

    async fn get(&self, request: Request<pb::BenchGetRequest>) -> Result<Response<pb::BenchGetResponse>, Status> {
        admin(&request)?;
        self.get_one(request.into_inner()).await.map(Response::new)
    }

    type SessionStream = BoxStream<'static, Result<pb::BenchResponse, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<pb::BenchRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        admin(&request)?;
        let shared = self.0.clone();
        let answers = request.into_inner().map(move |request| {
            let service = Self(shared.clone());
            async move { Ok(service.answer(request?).await) }
        });
        // One task works on all of them, and answers that are ready together leave together.
        Ok(Response::new(answers.buffer_unordered(ASKS_AT_ONCE).boxed()))
    }

    async fn fill(&self, request: Request<pb::BenchFillRequest>) -> Result<Response<pb::BenchFillResponse>, Status> {
        admin(&request)?;
        let request = request.into_inner();
        let count = request.count as usize;
        if count == 0 || count > KEYS_AT_ONCE {
            return Err(Status::invalid_argument(format!("{count} keys: 1 to {KEYS_AT_ONCE} in one call")));
        }
        not_too_large(request.value.len().saturating_mul(count))?;
        let now = self.0.now().as_millisecond();
        let numbers = request.first..request.first.saturating_add(u64::from(request.count));
        let ops = numbers.map(|number| Ok(put(key(&request.run, number)?, &request.value, now)));
        let outcome = self.propose(ops.collect::<Result<_, Status>>()?).await?;
        Ok(Response::new(pb::BenchFillResponse { revision: outcome.revision }))
    }

    async fn clear(&self, request: Request<pb::BenchClearRequest>) -> Result<Response<pb::BenchClearResponse>, Status> {
        admin(&request)?;
        let prefix = prefix(&request.get_ref().run)?;
        let root = self.0.replica.read().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let ops: Vec<Op> = root
            .list(GROUP, RESOURCE, None)
            .skip_while(|(key, _)| key.name < prefix)
            .take_while(|(key, _)| key.name.starts_with(&prefix))
            .map(|(key, _)| Op::delete(key.clone()))
            .take(KEYS_AT_ONCE)
            .collect();
        let deleted = u32::try_from(ops.len()).unwrap_or(u32::MAX);
        if deleted > 0 {
            self.propose(ops).await?;
        }
        Ok(Response::new(pb::BenchClearResponse { deleted }))
    }

    async fn disk(&self, request: Request<pb::BenchDiskRequest>) -> Result<Response<pb::BenchDiskResponse>, Status> {
        admin(&request)?;
        let pb::BenchDiskRequest { syncs, bytes } = request.into_inner();
        if syncs > SYNCS_MAX || bytes > SYNC_BYTES_MAX {
            return Err(Status::invalid_argument(format!("at most {SYNCS_MAX} syncs of {SYNC_BYTES_MAX} bytes")));
        }
        let dir = self.0.config.data_dir.clone();
        let measured = tokio::task::spawn_blocking(move || latency::sync_times(&dir, syncs, bytes)).await;
        let microseconds = measured
            .map_err(|error| Status::internal(error.to_string()))?
            .map_err(|error| Status::internal(format!("cannot sync in the data dir: {error}")))?;
        Ok(Response::new(pb::BenchDiskResponse { microseconds }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_survives_its_record() {
        let Some(state::op::Kind::Put(put)) = put(key("r-1", 7).expect("in bounds"), b"\x00\xffv", 5).kind else {
            panic!("a put")
        };
        let record = Record {
            header: put.header,
            body: put.body,
            split: put.split,
            managed_fields: put.managed_fields,
            created: 3,
            revision: 3,
        };
        assert_eq!(value(&record).as_deref(), Some(&b"\x00\xffv"[..]));
        let json: serde_json::Value = serde_json::from_slice(&record.json()).expect("JSON");
        assert_eq!(json["metadata"]["resourceVersion"], "3");
        assert_eq!(json["metadata"]["name"], "r-1.0000007");
    }

    #[test]
    fn keys_are_bounded() {
        for (run, number) in [("", 0), ("A", 0), ("a/b", 0), (&*"a".repeat(41), 0), ("a", KEYS_MAX)] {
            assert!(key(run, number).is_err(), "{run} {number}");
        }
        assert!(key("a", 9).expect("fine").name < key("a", 10).expect("fine").name);
    }
}
