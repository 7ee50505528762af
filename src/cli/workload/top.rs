//! `hactl top`: what nodes and pods use, as they told last.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::super::progress::note;
use super::get::render;
use super::{Scope, encoded, read};

const METRICS: &str = "/apis/metrics.k8s.io/v1beta1";

#[derive(Debug, clap::Subcommand)]
pub enum Top {
    Nodes(Nodes),
    Pods(Pods),
}

/// Show what nodes use
#[derive(Debug, clap::Args)]
#[command(visible_aliases = ["node", "no"])]
pub struct Nodes {
    /// Only this node
    #[arg(value_name = "NAME", conflicts_with = "selector")]
    name: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// Show what pods use
#[derive(Debug, clap::Args)]
#[command(visible_aliases = ["pod", "po"])]
pub struct Pods {
    /// Only this pod
    #[arg(value_name = "NAME", conflicts_with_all = ["selector", "all_namespaces"])]
    name: Option<String>,
    /// Of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Each container on a line of its own
    #[arg(long)]
    containers: bool,
    /// A last line with the sum of all
    #[arg(long)]
    sum: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
struct Common {
    /// Only those with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// The largest first
    #[arg(long, value_name = "BY", value_parser = ["cpu", "memory"])]
    sort_by: Option<String>,
    /// Without the names of the columns
    #[arg(long)]
    no_headers: bool,
    #[command(flatten)]
    scope: Scope,
}

/// Thousandths of a processor, and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Used {
    cpu: i64,
    memory: i64,
}

/// One line: what it is of, and how much.
struct Row {
    first: Vec<String>,
    used: Option<Used>,
    /// What there is of each; none: shares are not shown.
    of: Option<Used>,
}

impl Top {
    pub async fn run(self) -> Result<()> {
        match self {
            Self::Nodes(verb) => verb.run().await,
            Self::Pods(verb) => verb.run().await,
        }
    }
}

impl Common {
    fn query(&self) -> String {
        self.selector.as_ref().map_or_else(String::new, |selector| format!("?labelSelector={}", encoded(selector)))
    }

    /// With the sum of all behind them, however they are sorted.
    fn print(&self, columns: &[&str], mut rows: Vec<Row>, sum: bool) {
        match self.sort_by.as_deref() {
            Some("cpu") => rows.sort_by_key(|row| std::cmp::Reverse(row.used.map(|used| used.cpu))),
            Some(_) => rows.sort_by_key(|row| std::cmp::Reverse(row.used.map(|used| used.memory))),
            None => {}
        }
        if sum {
            let all = total(rows.iter().filter_map(|row| row.used));
            let blank = rows.first().map_or(1, |row| row.first.len());
            rows.push(Row { first: vec![String::new(); blank], used: Some(all), of: None });
        }
        print!("{}", text(columns, &rows, !self.no_headers));
    }
}

impl Nodes {
    async fn run(self) -> Result<()> {
        let client = self.common.scope.client().await?;
        let (query, name) = (self.common.query(), self.name.as_deref());
        let path = |root: &str| match name {
            Some(name) => format!("{root}/nodes/{name}"),
            None => format!("{root}/nodes{query}"),
        };
        let figures = items(read(&client, &path(METRICS)).await.context("cannot tell what nodes use")?);
        let nodes = items(read(&client, &path("/api/v1")).await?);
        if nodes.is_empty() {
            note("No resources found");
            return Ok(());
        }
        let row = |node: &Value| {
            let name = node["metadata"]["name"].as_str().unwrap_or_default();
            let figure = figures.iter().find(|figure| figure["metadata"]["name"] == name);
            Row {
                first: vec![name.to_owned()],
                used: figure.map(|figure| used(&figure["usage"])),
                of: Some(used(&node["status"]["allocatable"])),
            }
        };
        let columns = ["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"];
        self.common.print(&columns, nodes.iter().map(row).collect(), false);
        Ok(())
    }
}

impl Pods {
    async fn run(self) -> Result<()> {
        let client = self.common.scope.client().await?;
        let namespace = self.common.scope.namespace(&client);
        let path = match (&self.name, self.all_namespaces) {
            (Some(name), _) => format!("{METRICS}/namespaces/{namespace}/pods/{name}"),
            (None, true) => format!("{METRICS}/pods{}", self.common.query()),
            (None, false) => format!("{METRICS}/namespaces/{namespace}/pods{}", self.common.query()),
        };
        let figures = items(read(&client, &path).await.context("cannot tell what pods use")?);
        if figures.is_empty() {
            match self.all_namespaces {
                true => note("No resources found"),
                false => note(format!("No resources found in {namespace} namespace.")),
            }
            return Ok(());
        }
        let rows: Vec<Row> = figures.iter().flat_map(|pod| self.rows(pod)).collect();
        let mut columns = vec!["NAME", "CPU(cores)", "MEMORY(bytes)"];
        if self.containers {
            columns.splice(0..1, ["POD", "NAME"]);
        }
        if self.all_namespaces {
            columns.insert(0, "NAMESPACE");
        }
        self.common.print(&columns, rows, self.sum);
        Ok(())
    }

    fn rows(&self, pod: &Value) -> Vec<Row> {
        let name = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut first = vec![name(&pod["metadata"]["name"])];
        if self.all_namespaces {
            first.insert(0, name(&pod["metadata"]["namespace"]));
        }
        let containers = pod["containers"].as_array().map_or(&[][..], Vec::as_slice);
        if !self.containers {
            let all = total(containers.iter().map(|container| used(&container["usage"])));
            return vec![Row { first, used: Some(all), of: None }];
        }
        let row = |container: &Value| {
            let first = first.iter().cloned().chain([name(&container["name"])]).collect();
            Row { first, used: Some(used(&container["usage"])), of: None }
        };
        containers.iter().map(row).collect()
    }
}

/// Those of a list, or the one object.
fn items(answer: Value) -> Vec<Value> {
    match answer.get("items") {
        Some(items) => items.as_array().cloned().unwrap_or_default(),
        None => vec![answer],
    }
}

fn used(amounts: &Value) -> Used {
    let text = |name: &str| amounts[name].as_str().unwrap_or("0").to_owned();
    Used { cpu: objects::quantity::milli(&text("cpu")), memory: objects::quantity::value(&text("memory")) }
}

fn total(all: impl Iterator<Item = Used>) -> Used {
    all.fold(Used::default(), |sum, one| Used {
        cpu: sum.cpu.saturating_add(one.cpu),
        memory: sum.memory.saturating_add(one.memory),
    })
}

/// As kubectl prints it: `100m`, `10%`, `500Mi`, `25%`.
fn text(columns: &[&str], rows: &[Row], header: bool) -> String {
    let amount = |used: Option<Used>, of: Option<Used>| -> Vec<String> {
        let cells = match used {
            Some(used) => [format!("{}m", used.cpu), format!("{}Mi", used.memory / (1 << 20))],
            None => ["<unknown>".to_owned(), "<unknown>".to_owned()],
        };
        let share = |part: Option<i64>, whole: i64| match part {
            Some(part) if whole > 0 => format!("{}%", i128::from(part) * 100 / i128::from(whole)),
            _ => "<unknown>".to_owned(),
        };
        let [cpu, memory] = cells;
        match of {
            None => vec![cpu, memory],
            Some(of) => {
                let shares = [share(used.map(|used| used.cpu), of.cpu), share(used.map(|used| used.memory), of.memory)];
                let [of_cpu, of_memory] = shares;
                vec![cpu, of_cpu, memory, of_memory]
            }
        }
    };
    let cells = |row: &Row| [row.first.clone(), amount(row.used, row.of)].concat();
    let table = json!({
        "columnDefinitions": columns.iter().map(|name| json!({"name": name})).collect::<Vec<_>>(),
        "rows": rows.iter().map(|row| json!({"cells": cells(row)})).collect::<Vec<_>>(),
    });
    let text = render(&table, false, false, None, header);
    // A Table's columns are in capitals; what these are counted in is not.
    text.replacen("(CORES)", "(cores)", 1).replacen("(BYTES)", "(bytes)", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_printed_as_kubectl_does() {
        let amounts = used(&json!({"cpu": "123456789n", "memory": "524288Ki"}));
        assert_eq!(amounts, Used { cpu: 124, memory: 512 << 20 });
        let of = Some(used(&json!({"cpu": "2", "memory": "1Gi"})));
        let row = |name: &str, used| Row { first: vec![name.to_owned()], used, of };
        let columns = ["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"];
        assert_eq!(
            text(&columns, &[row("n1", Some(amounts)), row("n2", None)], true),
            "NAME   CPU(cores)   CPU(%)      MEMORY(bytes)   MEMORY(%)\n\
             n1     124m         6%          512Mi           50%\n\
             n2     <unknown>    <unknown>   <unknown>       <unknown>\n"
        );
        let pod = Row { first: vec!["a".to_owned()], used: Some(total([amounts, amounts].into_iter())), of: None };
        assert_eq!(text(&["NAME", "CPU(cores)", "MEMORY(bytes)"], &[pod], false), "a   248m   1024Mi\n");
    }
}
