//! `hactl get`: asks for a Table and prints its cells.

use anyhow::{Result, bail};
use serde_json::Value;

use super::super::progress::note;
use super::super::sentence;
use super::discovery::{Catalog, Resource};
use super::{Scope, answered, ask, encoded, explain, is_code, request};

pub const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// Show objects as tables
#[derive(Debug, clap::Args)]
pub struct Get {
    /// What to show: `pods`, `deploy web`, `pods/web-1`, `nodes,pods`, `all`
    #[arg(required = true, value_name = "RESOURCE [NAME]")]
    what: Vec<String>,
    /// Of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only objects with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// `wide` shows more columns; `json`, `yaml` and `name` print objects instead
    #[arg(short, long, value_parser = ["wide", "json", "yaml", "name"])]
    output: Option<String>,
    /// Go on showing changes
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    scope: Scope,
}

impl Get {
    pub async fn run(self) -> Result<()> {
        let client = self.scope.client().await?;
        let catalog = Catalog::load(&client).await?;
        let targets = targets(&catalog, &self.what)?;
        if self.watch && targets.len() != 1 {
            bail!("--watch follows one resource; name one");
        }
        let objects = self.output.as_deref().filter(|format| *format != "wide");
        let (mut documents, mut failed) = (Vec::new(), Vec::new());
        let mut tables: Vec<(&Resource, Value)> = Vec::new();
        for (resource, name) in &targets {
            let path = self.path(&client, resource, name.as_deref());
            let accept = if objects.is_some() { "application/json" } else { TABLE };
            let answer = match ask(&client, request("GET", &path, accept, None)?).await {
                Ok(Ok(answer)) => answer,
                Err(error) => {
                    failed.push(error);
                    continue;
                }
                // Of several, those that are there are shown, as with kubectl.
                Ok(Err(error)) => {
                    failed.push(self.why(&client, error, resource, name.is_some()).await?);
                    continue;
                }
            };
            match tables.last_mut() {
                _ if objects.is_some() => documents.push(answer),
                Some((last, table)) if std::ptr::eq(*last, *resource) => append(table, answer),
                _ => tables.push((resource, answer)),
            }
            if let (true, Some((_, table))) = (self.watch, tables.last()) {
                print!("{}", self.table(table, resource, None, true));
                self.follow(&client, resource, &path, table).await?;
            }
        }
        match objects {
            Some(format) if !documents.is_empty() => print_objects(format, documents, targets.len() > 1)?,
            None if !self.print_tables(&tables, &targets) && failed.is_empty() => {
                self.say_none(&client, &targets).await?;
            }
            _ => {}
        }
        let Some(last) = failed.pop() else { return Ok(()) };
        for error in failed {
            note(format!("error: {}", sentence(&error)));
        }
        Err(last)
    }

    /// Why one of the objects, or a whole kind, cannot be shown.
    async fn why(
        &self,
        client: &kube::Client,
        error: kube::Error,
        resource: &Resource,
        named: bool,
    ) -> Result<anyhow::Error> {
        let hint = match is_code(&error, 404) && resource.namespaced && named {
            true => self.missing_namespace(client).await?,
            false => None,
        };
        let error = explain(error);
        Ok(match hint {
            Some(hint) => anyhow::anyhow!("{}; {hint}", sentence(&error)),
            None => error,
        })
    }

    /// One below the other; false when there is nothing in them. Rows of several kinds say of which they are.
    fn print_tables(&self, tables: &[(&Resource, Value)], targets: &[(&Resource, Option<String>)]) -> bool {
        let kinds = targets.windows(2).any(|two| !std::ptr::eq(two[0].0, two[1].0));
        let filled = |table: &Value| table["rows"].as_array().is_some_and(|rows| !rows.is_empty());
        let texts = tables.iter().filter(|(_, table)| filled(table)).map(|(resource, table)| {
            let prefix = kinds.then(|| resource.label(""));
            self.table(table, resource, prefix.as_deref(), true)
        });
        let texts: Vec<String> = texts.collect();
        print!("{}", texts.join("\n"));
        !texts.is_empty()
    }

    async fn say_none(&self, client: &kube::Client, targets: &[(&Resource, Option<String>)]) -> Result<()> {
        let scoped = !self.all_namespaces && targets.iter().all(|(resource, _)| resource.namespaced);
        if !scoped {
            note("No resources found.");
            return Ok(());
        }
        note(format!("No resources found in {} namespace.", self.scope.namespace(client)));
        if let Some(hint) = self.missing_namespace(client).await? {
            note(hint);
        }
        Ok(())
    }

    /// Says so when the namespace that was asked for is not there: nothing will ever be found in it.
    async fn missing_namespace(&self, client: &kube::Client) -> Result<Option<String>> {
        let namespace = self.scope.namespace(client);
        let path = format!("/api/v1/namespaces/{namespace}");
        let answer = ask(client, request("GET", &path, "application/json", None)?).await?;
        let missing = matches!(&answer, Err(error) if is_code(error, 404));
        Ok(missing.then(|| format!("there is no namespace {namespace}; `hactl get namespaces` lists those there are")))
    }

    fn path(&self, client: &kube::Client, resource: &Resource, name: Option<&str>) -> String {
        let namespace = self.scope.namespace(client);
        match name {
            Some(name) => resource.object(namespace, name),
            None => {
                let mut path = resource.collection((!self.all_namespaces).then_some(namespace));
                if let Some(selector) = &self.selector {
                    path.push_str(&format!("?labelSelector={}", encoded(selector)));
                }
                path
            }
        }
    }

    fn table(&self, table: &Value, resource: &Resource, prefix: Option<&str>, header: bool) -> String {
        let wide = self.output.as_deref() == Some("wide");
        render(table, wide, self.all_namespaces && resource.namespaced, prefix, header)
    }

    async fn follow(&self, client: &kube::Client, resource: &Resource, path: &str, table: &Value) -> Result<()> {
        use futures::{AsyncBufReadExt, TryStreamExt};
        let (path, name) = match path.rsplit_once('/') {
            Some((collection, name)) if collection.ends_with(&resource.plural) => (collection, Some(name)),
            _ => (path, None),
        };
        let mut revision = table["metadata"]["resourceVersion"].as_str().unwrap_or("0").to_owned();
        loop {
            let joint = if path.contains('?') { '&' } else { '?' };
            let mut path = format!("{path}{joint}watch=true&allowWatchBookmarks=true&resourceVersion={revision}");
            if let Some(name) = name {
                path.push_str(&format!("&fieldSelector=metadata.name%3D{name}"));
            }
            let request = request("GET", &path, TABLE, None)?;
            let stream = answered(async || client.request_stream(request.clone()).await).await?.map_err(explain)?;
            let mut lines = stream.lines();
            while let Some(line) = lines.try_next().await? {
                let event: Value = serde_json::from_str(&line)?;
                let object = &event["object"];
                match event["type"].as_str() {
                    Some("ERROR") => bail!("{}", object["message"].as_str().unwrap_or("the watch ended")),
                    Some("BOOKMARK") => {}
                    _ => print!("{}", self.table(object, resource, None, false)),
                }
                if let Some(newer) = object["rows"][0]["object"]["metadata"]["resourceVersion"]
                    .as_str()
                    .or_else(|| object["metadata"]["resourceVersion"].as_str())
                {
                    revision = newer.to_owned();
                }
            }
        }
    }
}

/// What to show: pairs of resource and name. `a,b`, `a/name`, `a name name`.
fn targets<'a>(catalog: &'a Catalog, what: &[String]) -> Result<Vec<(&'a Resource, Option<String>)>> {
    let mut found = Vec::new();
    if what.iter().any(|word| word.contains('/')) {
        for word in what {
            let Some((resource, name)) = word.split_once('/') else {
                bail!("`{word}`: either all words are RESOURCE/NAME or only the first is a resource");
            };
            found.push((catalog.named(resource)?, Some(name.to_owned())));
        }
        return Ok(found);
    }
    let (first, names) = what.split_first().expect("clap demands one word");
    for word in first.split(',') {
        for resource in catalog.named_or_category(word)? {
            if names.is_empty() {
                found.push((resource, None));
            }
            found.extend(names.iter().map(|name| (resource, Some(name.clone()))));
        }
    }
    Ok(found)
}

/// The rows of a further object of the same kind.
fn append(table: &mut Value, mut more: Value) {
    if let (Some(rows), Some(more)) = (table["rows"].as_array_mut(), more["rows"].as_array_mut()) {
        rows.append(more);
    }
}

/// As they are, or in a List where `several` were asked for.
pub fn print_objects(format: &str, mut documents: Vec<Value>, several: bool) -> Result<()> {
    if format == "name" {
        for document in &documents {
            let one = std::slice::from_ref(document);
            let items = document["items"].as_array().map_or(one, Vec::as_slice);
            for item in items {
                let kind = item["kind"].as_str().or_else(|| document["kind"].as_str()?.strip_suffix("List"));
                println!(
                    "{}/{}",
                    kind.unwrap_or("object").to_lowercase(),
                    item["metadata"]["name"].as_str().unwrap_or("?")
                );
            }
        }
        return Ok(());
    }
    let whole = match several {
        false => documents.remove(0),
        true => serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": documents }),
    };
    if format == "yaml" {
        print!("{}", String::from_utf8(apiserver::yaml::from_json(&serde_json::to_vec(&whole)?)?)?);
    } else {
        println!("{}", serde_json::to_string_pretty(&whole)?);
    }
    Ok(())
}

/// A Table as text: columns padded to their widest cell, three spaces apart.
pub fn render(table: &Value, wide: bool, namespaces: bool, prefix: Option<&str>, header: bool) -> String {
    let none = Vec::new();
    let columns = table["columnDefinitions"].as_array().unwrap_or(&none);
    let shown: Vec<usize> =
        (0..columns.len()).filter(|at| wide || columns[*at]["priority"].as_i64().unwrap_or(0) == 0).collect();
    let mut lines: Vec<Vec<String>> = Vec::new();
    if header && !columns.is_empty() {
        let names = shown.iter().map(|at| columns[*at]["name"].as_str().unwrap_or("").to_uppercase());
        lines.push(namespaces.then(|| "NAMESPACE".to_owned()).into_iter().chain(names).collect());
    }
    for row in table["rows"].as_array().unwrap_or(&none) {
        let mut line = Vec::new();
        if namespaces {
            line.push(row["object"]["metadata"]["namespace"].as_str().unwrap_or("").to_owned());
        }
        for at in &shown {
            let text = match &row["cells"][*at] {
                Value::String(text) => text.clone(),
                Value::Null => String::new(),
                other => other.to_string(),
            };
            let text = if *at == 0 { format!("{}{text}", prefix.unwrap_or("")) } else { text };
            line.push(text);
        }
        lines.push(line);
    }
    let count = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in &lines {
        let mut out = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            out.push_str(&format!("{cell:<width$}   "));
        }
        text.push_str(out.trim_end());
        text.push('\n');
    }
    if lines.len() == usize::from(header && !columns.is_empty()) { String::new() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_printed_as_the_server_says() {
        let table = serde_json::json!({
            "columnDefinitions": [{"name": "Name"}, {"name": "Ready"}, {"name": "IP", "priority": 1}],
            "rows": [
                {"cells": ["web-1", "1/1", "10.244.0.2"], "object": {"metadata": {"namespace": "default"}}},
                {"cells": ["w", 0, null], "object": {"metadata": {"namespace": "default"}}},
            ],
        });
        let cases = [
            (false, false, None, "NAME    READY\nweb-1   1/1\nw       0\n"),
            (true, false, None, "NAME    READY   IP\nweb-1   1/1     10.244.0.2\nw       0\n"),
            (
                false,
                true,
                Some("pod/"),
                "NAMESPACE   NAME        READY\ndefault     pod/web-1   1/1\ndefault     pod/w       0\n",
            ),
        ];
        for (wide, namespaces, prefix, expected) in cases {
            assert_eq!(render(&table, wide, namespaces, prefix, true), expected);
        }
        assert_eq!(render(&serde_json::json!({"columnDefinitions": [{"name": "Name"}]}), false, false, None, true), "");
    }
}
