//! `hactl bench list`: whole lists through the Kubernetes API, uncompressed.

use anyhow::Result;
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::super::credentials::Access;
use super::http::{Connection, Masters};
use super::kv::run_name;
use super::load::{self, Client};
use super::options::Load;
use super::report::Report;

/// List many objects again and again through the Kubernetes API
#[derive(Debug, clap::Args)]
pub struct List {
    /// How many objects there are; --value-size is the size of each
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    objects: u32,
    /// Which objects. Pods fit no node and are never run
    #[arg(long, value_name = "RESOURCE", default_value = "configmaps", value_parser = ["configmaps", "pods"])]
    resource: String,
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    access: Access,
}

struct Lister {
    connection: Connection,
    path: String,
    /// What an object takes in a list at least.
    bytes_min: u64,
}

impl Client for Lister {
    async fn once(&mut self, _: u64) -> Result<u64> {
        let mut body = self.connection.ask(Method::GET, &self.path, None).await?.into_body();
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            bytes += frame?.data_ref().map_or(0, |data| data.len() as u64);
        }
        anyhow::ensure!(bytes >= self.bytes_min, "a list of {bytes} bytes, at least {} are there", self.bytes_min);
        Ok(bytes)
    }
}

pub fn object(resource: &str, number: usize, filling: &str) -> Value {
    let metadata = json!({"name": format!("bench-{number:07}")});
    match resource {
        "pods" => json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
            "spec": {
                "nodeSelector": {"bench.hactl.io/no-node": "has-this"},
                "containers": [{"name": "none", "image": "none", "env": [{"name": "FILLING", "value": filling}]}],
            },
        }),
        _ => json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"filling": filling}}),
    }
}

impl List {
    pub async fn run(self) -> Result<()> {
        let (masters, stop) = (Masters::find(&self.load, &self.access).await?, load::interrupted()?);
        let first = masters.connect(0).await?;
        let namespace = format!("bench-{}", run_name());
        first.create_namespace(&namespace).await?;
        let measured = async {
            let path = format!("/api/v1/namespaces/{namespace}/{}", self.resource);
            let make = |filling: usize| {
                let filling = "x".repeat(filling);
                let resource = &self.resource;
                move |number| object(resource, number, &filling)
            };
            // What the server adds to an object counts as part of its size.
            let probe = first.json(Method::POST, &path, Some(&make(0)(9_999_999))).await?;
            let own = probe.to_string().len();
            first.ask(Method::DELETE, &format!("{path}/bench-9999999?gracePeriodSeconds=0"), None).await?;
            let filling = (self.load.value_size as usize).saturating_sub(own);
            let create = first.create_all(&path, self.objects as usize, make(filling));
            tokio::select! {
                created = create => created?,
                () = stop.cancelled() => anyhow::bail!("interrupted"),
            }
            let bytes_min = u64::from(self.objects) * filling as u64;
            let connections = self.load.connections(self.load.clients as usize);
            let mut open = Vec::new();
            for number in 0..connections {
                open.push(masters.connect(number).await?);
            }
            let clients = (0..self.load.clients as usize).map(|number| Lister {
                connection: open[number % open.len()].clone(),
                path: path.clone(),
                bytes_min,
            });
            load::run(&self.load, clients.collect(), &stop).await
        };
        let measured = measured.await;
        let cleared = first.delete_namespace(&namespace).await;
        let mut report = Report::new("list", measured?, masters.endpoints);
        report.more.insert("objects".into(), self.objects.into());
        report.print(&self.load)?;
        cleared
    }
}
