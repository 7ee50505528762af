//! `hactl logs`: the output of one container, from whichever node runs it.

use anyhow::{Context, Result, bail};
use futures::AsyncReadExt;
use serde_json::Value;
use std::io::Write;

use super::discovery::Catalog;
use super::{Scope, answered, explain, json, request};

/// Show the output of a pod's container
#[derive(Debug, clap::Args)]
pub struct Logs {
    /// The pod, or `deploy/NAME` for one pod of a deployment
    #[arg(value_name = "POD")]
    pod: String,
    /// The container, where the pod has several
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Go on as it is written
    #[arg(short, long)]
    follow: bool,
    /// Of the run before the last restart
    #[arg(short, long)]
    previous: bool,
    /// Only so many last lines
    #[arg(long, value_name = "LINES")]
    tail: Option<u64>,
    /// With the time of each line
    #[arg(long)]
    timestamps: bool,
    #[command(flatten)]
    scope: Scope,
}

impl Logs {
    pub async fn run(self) -> Result<()> {
        let client = self.scope.client().await?;
        let namespace = self.scope.namespace(&client).to_owned();
        let pod = self.find(&client, &namespace).await?;
        let mut path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/log?follow={}", self.follow);
        if let Some(container) = &self.container {
            path.push_str(&format!("&container={container}"));
        }
        if let Some(lines) = self.tail {
            path.push_str(&format!("&tailLines={lines}"));
        }
        path.push_str(&format!("&previous={}&timestamps={}", self.previous, self.timestamps));
        let request = request("GET", &path, "*/*", None)?;
        let stream = answered(async || client.request_stream(request.clone()).await).await?.map_err(explain)?;
        let mut stream = std::pin::pin!(stream);
        let mut buffer = vec![0; 16 * 1024];
        let mut out = std::io::stdout();
        loop {
            let count = stream.read(&mut buffer).await.context("the stream broke; run the command again")?;
            if count == 0 {
                return Ok(());
            }
            if out.write_all(&buffer[..count]).and_then(|()| out.flush()).is_err() {
                // The reader of our output has gone, as in `hactl logs … | head`.
                return Ok(());
            }
        }
    }

    /// The pod's name; of a deployment (or anything with a selector) the first running pod.
    async fn find(&self, client: &kube::Client, namespace: &str) -> Result<String> {
        let Some((resource, name)) = self.pod.split_once('/') else { return Ok(self.pod.clone()) };
        let catalog = Catalog::load(client).await?;
        let resource = catalog.named(resource)?;
        if resource.plural == "pods" {
            return Ok(name.to_owned());
        }
        let owner = json(client, request("GET", &resource.object(namespace, name), "application/json", None)?).await?;
        let selector = &owner["spec"]["selector"];
        let labels = selector.get("matchLabels").unwrap_or(selector);
        let Some(labels) = labels.as_object().filter(|labels| !labels.is_empty()) else {
            bail!("{} selects no pods; name a pod", resource.label(name));
        };
        let pairs: Vec<String> = labels
            .iter()
            .map(|(key, value)| format!("{}%3D{}", key.replace('/', "%2F"), value.as_str().unwrap_or("")))
            .collect();
        let path = format!("/api/v1/namespaces/{namespace}/pods?labelSelector={}", pairs.join("%2C"));
        let pods = json(client, request("GET", &path, "application/json", None)?).await?;
        let none = Vec::new();
        let pods = pods["items"].as_array().unwrap_or(&none);
        let running = |pod: &&Value| pod["status"]["phase"] == "Running";
        let pod = pods.iter().find(running).or_else(|| pods.first());
        pod.and_then(|pod| pod["metadata"]["name"].as_str())
            .map(str::to_owned)
            .with_context(|| format!("{} has no pods yet", resource.label(name)))
    }
}
