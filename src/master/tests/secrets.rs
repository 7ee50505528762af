//! A former key for Secrets is forgotten once nothing readable needs it, and not before.

use base64::Engine as _;
use http::Method;
use serde_json::{Value, json};

use super::*;

const SECRETS: &str = "/api/v1/namespaces/default/secrets";

impl Running {
    async fn data_keys(&self) -> Vec<String> {
        let status = self.leads().await;
        status.members[0].status.as_ref().expect("its own").data_keys.clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotated_key_is_deleted_when_history_no_longer_needs_it() {
    let one = first_with(|config| {
        config.bounds.history = Duration::from_secs(8);
        config.keys_settle = Duration::from_millis(1);
    })
    .await;
    one.leads().await;
    let mut api = one.api().await;
    let secret = json!({"metadata": {"name": "password"}, "stringData": {"value": "hunter2"}});
    let created = async {
        while api.send(Method::POST, SECRETS, secret.clone()).await.0 != StatusCode::CREATED {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, created).await.expect("created in time");
    let before = one.data_keys().await;
    assert_eq!(before.len(), 1, "{before:?}");

    let ask = pb::RotateRequest { what: pb::rotate_request::What::DataKey.into() };
    let mut steps = one.cluster().await.rotate(ask).await.expect("rotates").into_inner();
    while steps.message().await.expect("goes on").is_some_and(|step| !step.done) {}
    // The version in the history is sealed with the former key still.
    let both = one.data_keys().await;
    assert!(both.len() == 2 && both.contains(&before[0]), "{both:?}");
    let forgotten = async {
        loop {
            let now = one.data_keys().await;
            if now.len() == 1 {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let after = tokio::time::timeout(LIMIT, forgotten).await.expect("forgotten in time");
    assert_ne!(after, before);
    let on_disk = Dir::of(&one.config.data_dir).data_keys().expect("the keys");
    assert_eq!(on_disk.ids().collect::<Vec<_>>(), after, "on disk too");
    let (status, read) = api.send(Method::GET, &format!("{SECRETS}/password"), Value::Null).await;
    assert_eq!(status, StatusCode::OK, "{read}");
    assert_eq!(read["data"]["value"], base64::engine::general_purpose::STANDARD.encode("hunter2"));
    one.stop().await;
}
