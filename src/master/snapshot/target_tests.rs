//! Both places, the bucket behind a small stand-in that speaks S3 over real HTTP.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as Parameter, Query, State as Shared};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use object_store::aws::AmazonS3Builder;
use state::{Command, EntryId, Header, Key, Op, Put, State};

use super::*;
use crate::snapshot::{RecoveryKey, open};

#[test]
fn places() {
    assert!(matches!(Target::parse("/var/backups/hactl"), Ok(Target::Directory(_))));
    for wrong in ["backups", "s3://", "ftp://x", "https://x/y"] {
        assert!(Target::parse(wrong).is_err(), "{wrong}");
    }
}

/// A bucket: its objects, and the parts of the uploads under way.
#[derive(Clone, Default)]
struct Bucket {
    objects: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
    parts: Arc<Mutex<BTreeMap<u32, Vec<u8>>>>,
}

use std::sync::Mutex;

type Asked = Query<BTreeMap<String, String>>;

async fn objects(
    Shared(bucket): Shared<Bucket>,
    method: Method,
    Parameter(key): Parameter<String>,
    Query(asked): Asked,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let signed = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !signed.starts_with("AWS4-HMAC-SHA256 Credential=AKID/") {
        return (StatusCode::FORBIDDEN, "not signed").into_response();
    }
    let mut objects = bucket.objects.lock().expect("lock");
    let mut parts = bucket.parts.lock().expect("lock");
    match method {
        Method::POST if asked.contains_key("uploads") => {
            "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>".into_response()
        }
        Method::PUT => {
            let number = asked["partNumber"].parse().expect("a number");
            parts.insert(number, body.to_vec());
            ([("ETag", format!("\"{number}\""))], "").into_response()
        }
        Method::POST => {
            objects.insert(key, std::mem::take(&mut *parts).into_values().flatten().collect());
            "<CompleteMultipartUploadResult><ETag>\"all\"</ETag></CompleteMultipartUploadResult>".into_response()
        }
        Method::DELETE => {
            objects.remove(&key);
            StatusCode::NO_CONTENT.into_response()
        }
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

async fn list(Shared(bucket): Shared<Bucket>, Query(asked): Asked) -> String {
    let prefix = asked.get("prefix").cloned().unwrap_or_default();
    let objects = bucket.objects.lock().expect("lock");
    let rows: String = objects
        .iter()
        .filter(|(key, _)| key.starts_with(&prefix))
        .map(|(key, bytes)| {
            format!(
                "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>x</ETag><Size>{}</Size></Contents>",
                bytes.len()
            )
        })
        .collect();
    format!("<ListBucketResult>{rows}</ListBucketResult>")
}

async fn bucket() -> (Bucket, Target) {
    let bucket = Bucket::default();
    let routes = Router::new()
        .route("/vault", axum::routing::get(list))
        .route("/vault/{*key}", axum::routing::any(objects))
        .layer(axum::extract::DefaultBodyLimit::disable())
        .with_state(bucket.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let settings = AmazonS3Builder::new()
        .with_endpoint(format!("http://{address}"))
        .with_allow_http(true)
        .with_region("here")
        .with_access_key_id("AKID")
        .with_secret_access_key("secret");
    let store = Arc::new(s3::bucket_of(settings, "vault").expect("a bucket"));
    let folder = object_store::path::Path::from("backups/one");
    (bucket, Target::Store { store, folder, url: "s3://vault/backups/one".into() })
}

fn material(key: &RecoveryKey) -> Material {
    let mut state = State::default();
    let put = Put {
        key: Key::namespace("a"),
        header: Header { uid: "u".into(), ..Header::default() },
        // More than one part of an upload.
        body: (0..10 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 11) as u8).collect::<Vec<u8>>().into(),
        ..Put::default()
    };
    state.apply(EntryId { term: 1, index: 1 }, &Command { ops: vec![Op::put(put)], ..Command::default() });
    let header = content::header(&state, "c-1", 1, 1_700_000_000, &key.recipient());
    Material::of(state, header)
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_come_and_go() {
    let key = RecoveryKey::generate();
    let dir = tempfile::tempdir().expect("dir");
    let (bucket, store) = bucket().await;
    for target in [Target::Directory(dir.path().join("backups")), store] {
        assert_eq!(target.names().await.expect("names"), [""; 0], "{target}");
        target.put("one.snapshot", material(&key)).await.expect("put");
        assert_eq!(target.names().await.expect("names"), ["one.snapshot"], "{target}");
        let bytes = match &target {
            Target::Directory(dir) => std::fs::read(dir.join("one.snapshot")).expect("read"),
            Target::Store { .. } => bucket.objects.lock().expect("lock")["backups/one/one.snapshot"].clone(),
        };
        assert_eq!(open(bytes.as_slice(), &key).expect("whole").header.objects, 1, "{target}");
        target.remove("one.snapshot").await.expect("remove");
        assert_eq!(target.names().await.expect("names"), [""; 0], "{target}");
    }
}
