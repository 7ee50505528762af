//! What a DELETE does to what an object owns, and the deletion of all objects of a kind.

use http::StatusCode;
use objects::Kinds;
use serde_json::{Value, json};

use super::{Api, MAPS};

const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";

#[tokio::test]
async fn a_deletion_without_policy_means_what_the_kind_says() {
    let api = Api::new().await;
    let job = |name: &str| {
        let spec = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]});
        json!({"metadata": {"name": name}, "spec": {"template": {"spec": spec}}})
    };
    for (options, finalizers) in [
        (Value::Null, json!(["orphan"])),
        (json!({"propagationPolicy": "Foreground"}), json!(["foregroundDeletion"])),
        (json!({"propagationPolicy": "Background"}), Value::Null),
        (json!({"orphanDependents": false}), Value::Null),
    ] {
        let name = format!("job-{}", api.replica.root().revision());
        let made = api.post(JOBS, job(&name)).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        let gone = api.delete(&format!("{JOBS}/{name}"), options.clone()).await;
        assert_eq!(gone.body["metadata"]["finalizers"], finalizers, "{options}: {}", gone.text);
        // Asked again without a policy it is as it was.
        let again = api.delete(&format!("{JOBS}/{name}"), Value::Null).await;
        assert_eq!(again.body["metadata"]["finalizers"], finalizers, "{options}: {}", again.text);
    }
    let gone = api.post(MAPS, json!({"metadata": {"name": "m"}})).await;
    assert_eq!(gone.status, StatusCode::CREATED);
    assert_eq!(api.delete(&format!("{MAPS}/m"), Value::Null).await.body["status"], "Success");
}

#[tokio::test]
async fn all_of_a_kind_go_with_one_request() {
    let api = Api::new().await;
    for kind in Kinds::builtin().all() {
        let root = if kind.group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{}", kind.api_version()) };
        let all = match kind.namespaced {
            true => format!("{root}/namespaces/default/{}", kind.plural),
            false => format!("{root}/{}", kind.plural),
        };
        let namespace = if kind.namespaced { json!("default") } else { Value::Null };
        for name in ["x", "y"] {
            let metadata = json!({"name": name, "namespace": namespace, "uid": format!("{}-{name}", kind.plural)});
            let put = control::record::put(kind, &json!({ "metadata": metadata })).expect("complete");
            let command = state::Command { ops: vec![state::Op::put(put)], ..state::Command::default() };
            assert_eq!(api.replica.propose(command).await.expect("applied").refusal, None);
        }
        let left = || {
            let root = api.replica.root();
            root.list(kind.group, kind.plural, None)
                .filter(|(key, object)| ["x", "y"].contains(&key.name.as_str()) && object.header.deletion_ms == 0)
                .count()
        };
        let one = api.delete(&format!("{all}?fieldSelector=metadata.name%3Dx"), Value::Null).await;
        if !kind.deletes_collections() {
            assert_eq!(one.status, StatusCode::METHOD_NOT_ALLOWED, "{all}");
            continue;
        }
        assert_eq!((one.status, left()), (StatusCode::OK, 1), "{all}: {}", one.text);
        assert_eq!(api.delete(&all, Value::Null).await.status, StatusCode::OK, "{all}");
        assert_eq!(left(), 0, "{all}");
    }
}
