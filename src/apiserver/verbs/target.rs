//! The pod and container that a stream is meant for.

use objects::meta;
use serde_json::Value;

use crate::config::{PodRef, StreamError};
use crate::query::Version;
use crate::read;
use crate::server::Call;
use crate::status::{Failure, Result};

/// The annotation that names the container meant when none is named.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// A pod on a node, and its object.
pub struct Target {
    pub pod: PodRef,
    pub object: Value,
}

impl Target {
    /// The pod that the request names.
    pub async fn of(call: &Call) -> Result<Self> {
        Self::named(call, &call.resource.name).await
    }

    pub async fn named(call: &Call, name: &str) -> Result<Self> {
        let root = read::at(call.replica(), Version::Newest).await?;
        let pods = call.server.kinds.by_resource("", "pods").ok_or_else(Failure::no_such_path)?;
        let key = control::record::key(pods, &call.resource.namespace, name);
        let record = root.get(&key).ok_or_else(|| Failure::not_found(pods, name))?;
        let pod = PodRef {
            namespace: call.resource.namespace.clone(),
            name: name.to_owned(),
            uid: record.header.uid.clone(),
            node: record.header.node.clone(),
        };
        if pod.node.is_empty() {
            return Err(Failure::bad_request(format!("pod {name} does not have a host assigned")));
        }
        Ok(Self { pod, object: control::record::parse(record) })
    }

    /// One that runs, or may yet.
    pub fn not_ended(self) -> Result<Self> {
        let phase = meta::text(&self.object, &["status", "phase"]);
        if matches!(phase, "Succeeded" | "Failed") {
            let why = format!("cannot exec into a container in a completed pod; current phase is {phase}");
            return Err(Failure::bad_request(why));
        }
        Ok(self)
    }

    /// The container that is meant; refuses what the pod does not have.
    pub fn container(&self, asked: &str) -> Result<String> {
        container(asked, &self.object)
    }
}

fn container(asked: &str, pod: &Value) -> Result<String> {
    let pod_name = meta::name(pod);
    let names = |field: &str| -> Vec<String> {
        meta::list(pod, &["spec", field]).iter().map(|c| meta::text(c, &["name"]).to_owned()).collect()
    };
    let (main, init) = (names("containers"), names("initContainers"));
    if asked.is_empty() {
        let preferred = meta::annotation(pod, DEFAULT_CONTAINER);
        if main.iter().any(|name| name == preferred) {
            return Ok(preferred.to_owned());
        }
        return match main.as_slice() {
            [only] => Ok(only.clone()),
            _ => {
                let mut message = format!(
                    "a container name must be specified for pod {pod_name}, choose one of: [{}]",
                    main.join(" ")
                );
                if !init.is_empty() {
                    message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
                }
                Err(Failure::bad_request(message))
            }
        };
    }
    let known = main.iter().chain(&init).chain(&names("ephemeralContainers")).any(|name| name == asked);
    if known {
        Ok(asked.to_owned())
    } else {
        Err(Failure::bad_request(format!("container {asked} is not valid for pod {pod_name}")))
    }
}

/// Why a node's stream could not be had, as an answer.
pub fn failure(call: &Call, error: StreamError) -> Failure {
    match error {
        StreamError::BadRequest(why) => Failure::bad_request(why),
        StreamError::NotFound(why) => Failure::gone_from_node(call.kind, &call.resource.name, &why),
        StreamError::Unavailable(why) => Failure::unavailable(why),
        StreamError::Forbidden(why) => Failure::denied(why),
        StreamError::Unreachable(why) | StreamError::Internal(why) => Failure::internal(why),
    }
}
