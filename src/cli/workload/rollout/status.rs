//! `hactl rollout status`: follows a deployment until all its pods are of its template and available.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::{AsyncBufReadExt, TryStreamExt};
use serde_json::Value;
use tokio::time::Instant;

use super::super::{answered, explain, request};
use super::{Found, Target};
use crate::cli::workload::discovery::Resource;

/// Follow a rollout to its end
#[derive(Debug, clap::Args)]
pub struct Status {
    #[command(flatten)]
    target: Target,
    /// Only say how it is
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    watch: bool,
    /// The longest wait, as 30s or 5m [default: for ever]
    #[arg(long, value_name = "DURATION", value_parser = crate::cli::settings::units::duration)]
    timeout: Option<Duration>,
    /// Fail where another revision was begun meanwhile
    #[arg(long, value_name = "N")]
    revision: Option<i64>,
}

/// Where a rollout stands.
#[derive(Debug, PartialEq, Eq)]
enum Stand {
    Done(String),
    Waiting(String),
    Failed(String),
}

impl Status {
    pub async fn run(self) -> Result<()> {
        let found = self.target.find().await?;
        let (resource, name) = found.deployment(&self.target.what)?;
        let followed = self.follow(&found, resource, name);
        match self.timeout {
            None => followed.await,
            Some(limit) => tokio::time::timeout_at(Instant::now() + limit, followed)
                .await
                .unwrap_or_else(|_| bail!("{} was not rolled out within {limit:?}", resource.label(name))),
        }
    }

    async fn follow(&self, found: &Found, resource: &Resource, name: &str) -> Result<()> {
        let mut said = String::new();
        loop {
            let object =
                found.get(resource, name).await.with_context(|| format!("cannot follow {}", resource.label(name)))?;
            if self.says(&object, &mut said)? {
                return Ok(());
            }
            let revision = object["metadata"]["resourceVersion"].as_str().unwrap_or("0");
            let path = format!(
                "{}?watch=true&resourceVersion={revision}&fieldSelector=metadata.name%3D{name}",
                resource.collection(Some(&found.namespace))
            );
            let request = request("GET", &path, "application/json", None)?;
            let stream =
                answered(async || found.client.request_stream(request.clone()).await).await?.map_err(explain)?;
            let mut lines = stream.lines();
            // A watch that ends is opened again, after a fresh look.
            while let Ok(Some(line)) = lines.try_next().await {
                let event: Value = serde_json::from_str(&line)?;
                match event["type"].as_str() {
                    Some("DELETED") => bail!("{} was deleted", resource.label(name)),
                    Some("ERROR") => break,
                    _ => {}
                }
                if self.says(&event["object"], &mut said)? {
                    return Ok(());
                }
            }
        }
    }

    /// Says what is new; whether that is all.
    fn says(&self, object: &Value, said: &mut String) -> Result<bool> {
        let (text, over) = match stand(object, self.revision) {
            Stand::Failed(why) => bail!(why),
            Stand::Done(text) => (text, true),
            Stand::Waiting(text) => (text, !self.watch),
        };
        if *said != text {
            println!("{text}");
            *said = text;
        }
        Ok(over)
    }
}

/// By what the controller last noted in the object.
fn stand(object: &Value, revision: Option<i64>) -> Stand {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    if let Some(wanted) = revision {
        let present = super::history::revision_of(object).unwrap_or(0);
        if wanted != present {
            return Stand::Failed(format!(
                "desired revision ({wanted}) is different from the running revision ({present})"
            ));
        }
    }
    if number("/metadata/generation") > number("/status/observedGeneration") {
        return Stand::Waiting("Waiting for deployment spec update to be observed...".to_owned());
    }
    let conditions = object["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    if conditions.iter().any(|c| c["type"] == "Progressing" && c["reason"] == "ProgressDeadlineExceeded") {
        return Stand::Failed(format!("deployment {name:?} exceeded its progress deadline"));
    }
    let wanted = object["spec"]["replicas"].as_i64().unwrap_or(1);
    let [updated, all, available] =
        ["updatedReplicas", "replicas", "availableReplicas"].map(|field| number(&format!("/status/{field}")));
    let waiting =
        |what: String| Stand::Waiting(format!("Waiting for deployment {name:?} rollout to finish: {what}..."));
    if updated < wanted {
        return waiting(format!("{updated} out of {wanted} new replicas have been updated"));
    }
    if all > updated {
        return waiting(format!("{} old replicas are pending termination", all - updated));
    }
    if available < updated {
        return waiting(format!("{available} of {updated} updated replicas are available"));
    }
    Stand::Done(format!("deployment {name:?} successfully rolled out"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_words_are_kubectls() {
        let object = |generation: i64, updated: i64, all: i64, available: i64| {
            json!({
                "metadata": {"name": "web", "generation": generation, "annotations": {"deployment.kubernetes.io/revision": "3"}},
                "spec": {"replicas": 3},
                "status": {"observedGeneration": 2, "updatedReplicas": updated, "replicas": all, "availableReplicas": available},
            })
        };
        let wait = |text: &str| Stand::Waiting(format!("Waiting for deployment \"web\" rollout to finish: {text}..."));
        for (object, want) in [
            (object(3, 3, 3, 3), Stand::Waiting("Waiting for deployment spec update to be observed...".to_owned())),
            (object(2, 1, 3, 3), wait("1 out of 3 new replicas have been updated")),
            (object(2, 3, 4, 3), wait("1 old replicas are pending termination")),
            (object(2, 3, 3, 1), wait("1 of 3 updated replicas are available")),
            (object(2, 3, 3, 3), Stand::Done("deployment \"web\" successfully rolled out".to_owned())),
        ] {
            assert_eq!(stand(&object, None), want);
        }
        let mut late = object(2, 1, 1, 1);
        late["status"]["conditions"] = json!([{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]);
        assert_eq!(stand(&late, None), Stand::Failed("deployment \"web\" exceeded its progress deadline".to_owned()));
        assert_eq!(stand(&object(2, 3, 3, 3), Some(3)), stand(&object(2, 3, 3, 3), None));
        assert!(matches!(stand(&object(2, 3, 3, 3), Some(2)), Stand::Failed(_)));
    }
}
