//! What a node tells its master, as the API answers it.

use http::Method;
use rpc::pb;
use serde_json::json;

use super::quota::{Session, up};
use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_told_is_its_figure_until_it_says_another() {
    const NODES: &str = "/apis/metrics.k8s.io/v1beta1/nodes";
    let one = first().await;
    one.leads().await;
    let session = Session::open(&one).await;
    let mut api = one.api().await;
    for (cpu_nanos, want) in [(250_000_000, "250m"), (1_000_000_000, "1")] {
        let node = Some(pb::Used { cpu_nanos, memory_bytes: 64 << 20 });
        let usage = pb::NodeUsage { window_ms: 15_000, node, pods: Vec::new() };
        session.up.send(up(pb::node_message::Message::Usage(usage))).await.expect("open");
        let known = async {
            loop {
                let (status, body) = api.send(Method::GET, NODES, json!({})).await;
                assert_eq!(status, StatusCode::OK, "{body}");
                let item = &body["items"][0];
                if item["usage"]["cpu"] == want {
                    return item.clone();
                }
                tokio::task::yield_now().await;
            }
        };
        let item = tokio::time::timeout(LIMIT, known).await.expect("in time");
        assert_eq!((&item["metadata"]["name"], &item["usage"]["memory"]), (&json!("node-1"), &json!("64Mi")));
    }
    one.shutdown.cancel();
    one.task.await.expect("ends").expect("ends well");
}
