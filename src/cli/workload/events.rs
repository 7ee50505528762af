//! `hactl events`: what happened, the latest last.

use anyhow::{Context, Result, bail};
use futures::{AsyncBufReadExt, TryStreamExt};
use serde_json::Value;

use super::super::progress::note;
use super::discovery::Catalog;
use super::get::{TABLE, render};
use super::{Scope, answered, encoded, explain, json, request};

/// Show what happened, the latest last
#[derive(Debug, clap::Args)]
pub struct Events {
    /// Of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only what happened to this: `pod/web-1`
    #[arg(long = "for", value_name = "RESOURCE/NAME")]
    about: Option<String>,
    /// Only of these types
    #[arg(long, value_name = "TYPES", value_delimiter = ',', ignore_case = true, value_parser = ["Normal", "Warning"])]
    types: Vec<String>,
    /// Without the names of the columns
    #[arg(long)]
    no_headers: bool,
    /// Go on showing what happens
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    scope: Scope,
}

impl Events {
    pub async fn run(self) -> Result<()> {
        let client = self.scope.client().await?;
        let namespace = self.scope.namespace(&client).to_owned();
        let collection = match self.all_namespaces {
            true => "/api/v1/events".to_owned(),
            false => format!("/api/v1/namespaces/{namespace}/events"),
        };
        let fields = match &self.about {
            Some(about) => {
                let words = [about.clone()];
                let catalog = Catalog::load(&client).await?;
                let (resource, name) = catalog.object(&words)?;
                let selector = format!("involvedObject.kind={},involvedObject.name={name}", resource.kind);
                format!("&fieldSelector={}", encoded(&selector))
            }
            None => String::new(),
        };
        let path = format!("{collection}?includeObject=Object{fields}");
        let mut table = json(&client, request("GET", &path, TABLE, None)?).await?;
        self.arrange(&mut table);
        let text = render(&table, false, self.all_namespaces, None, !self.no_headers);
        match (text.is_empty(), self.all_namespaces) {
            (false, _) => print!("{text}"),
            (true, _) if self.watch => {}
            (true, true) => note("No events found."),
            (true, false) => note(format!("No events found in {namespace} namespace.")),
        }
        if self.watch {
            let revision = table["metadata"]["resourceVersion"].as_str().unwrap_or("0");
            self.follow(&client, &path, revision).await?;
        }
        Ok(())
    }

    /// The latest last, and only of the types that are wanted.
    fn arrange(&self, table: &mut Value) {
        let Some(rows) = table["rows"].as_array_mut() else { return };
        rows.retain(|row| {
            let kind = row["object"]["type"].as_str().unwrap_or_default();
            self.types.is_empty() || self.types.iter().any(|wanted| wanted.eq_ignore_ascii_case(kind))
        });
        rows.sort_by_key(|row| last_seen(&row["object"]));
    }

    async fn follow(&self, client: &kube::Client, path: &str, revision: &str) -> Result<()> {
        let path = format!("{path}&watch=true&resourceVersion={revision}");
        let request = request("GET", &path, TABLE, None)?;
        let stream = answered(async || client.request_stream(request.clone()).await).await?.map_err(explain)?;
        let mut lines = stream.lines();
        while let Some(line) = lines.try_next().await.context("the watch broke; run the command again")? {
            let mut event: Value = serde_json::from_str(&line)?;
            let table = &mut event["object"];
            match table["kind"].as_str() {
                Some("Table") => self.arrange(table),
                _ => bail!("{}", table["message"].as_str().unwrap_or("the watch ended")),
            }
            if event["type"] != "DELETED" {
                print!("{}", render(&event["object"], false, self.all_namespaces, None, false));
            }
        }
        Ok(())
    }
}

/// When it happened last, by whichever of its fields says so.
pub fn last_seen(event: &Value) -> Option<jiff::Timestamp> {
    let fields = ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"];
    fields.iter().find_map(|field| event.pointer(field)?.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_time_of_an_event() {
        let at = |event: Value| last_seen(&event).map(|time| time.to_string());
        let event = json!({"lastTimestamp": null, "eventTime": "2026-01-01T00:00:00.5Z", "metadata": {}});
        assert_eq!(at(event), Some("2026-01-01T00:00:00.5Z".to_owned()));
        assert_eq!(at(json!({})), None);
    }
}
