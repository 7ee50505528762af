//! `hactl cluster token create|list|revoke`.

use std::time::Duration;

use anyhow::Result;
use rpc::pb;
use serde_json::json;

use super::super::credentials::Access;
use super::super::progress::note;
use super::super::settings::units;

/// Of a token that nobody can join with any more.
const OUTDATED: &str = "nothing: other issuers";

#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Make a token and print the command that uses it
    Create(Create),
    /// Show the tokens there are, without their secrets
    List(List),
    /// Make a token useless
    Revoke(Revoke),
}

/// Make a token
#[derive(Debug, clap::Args)]
pub struct Create {
    /// It lets masters join
    #[arg(long)]
    master: bool,
    /// It lets nodes join (both or, without --master, the default)
    #[arg(long)]
    node: bool,
    /// How long it is valid
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    ttl: Duration,
    /// What it is for
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
    /// `json` for scripts
    #[arg(short, long, value_parser = ["json"])]
    output: Option<String>,
    #[command(flatten)]
    access: Access,
}

/// Show tokens
#[derive(Debug, clap::Args)]
pub struct List {
    /// `json` for scripts
    #[arg(short, long, value_parser = ["json"])]
    output: Option<String>,
    #[command(flatten)]
    access: Access,
}

/// Make a token useless
#[derive(Debug, clap::Args)]
pub struct Revoke {
    /// Its id, as `list` shows it
    id: String,
    #[command(flatten)]
    access: Access,
}

fn duration(text: &str) -> Result<Duration, String> {
    units::duration(text)
}

impl Verb {
    pub async fn run(self) -> Result<()> {
        match self {
            Verb::Create(verb) => verb.run().await,
            Verb::List(verb) => verb.run().await,
            Verb::Revoke(verb) => verb.run().await,
        }
    }
}

impl Create {
    async fn run(self) -> Result<()> {
        let node = self.node || !self.master;
        let token = super::create_token(&self.access, self.master, node, self.ttl, &self.description).await?;
        if self.output.is_some() {
            println!(
                "{}",
                json!({ "token": token, "master": self.master, "node": node, "ttlSeconds": self.ttl.as_secs() })
            );
            return Ok(());
        }
        let masters = self.access.masters().await?;
        let address = masters.addresses.first().map_or("<address of a master>:6443", String::as_str);
        let roles = match (self.master, node) {
            (true, true) => "--master --node",
            (true, false) => "--master",
            _ => "--node",
        };
        println!("hactl cluster join {address} {roles} --token {token}");
        Ok(())
    }
}

impl List {
    async fn run(self) -> Result<()> {
        let mut client = super::connect(&self.access).await?;
        let answer = client.list_tokens(super::timed(pb::ListTokensRequest {})).await.map_err(super::refused)?;
        let tokens = answer.into_inner().tokens;
        if self.output.is_some() {
            let rows: Vec<_> = tokens
                .iter()
                .map(|token| {
                    json!({
                        "id": token.id, "master": token.master, "node": token.node, "expires": token.expires,
                        "description": token.description, "outdated": token.outdated,
                    })
                })
                .collect();
            println!("{}", serde_json::to_string_pretty(&rows)?);
            return Ok(());
        }
        if tokens.is_empty() {
            note("No tokens; `hactl cluster token create` makes one.");
            return Ok(());
        }
        let now = rpc::pki::unix_now();
        let mut rows = vec![["ID", "FOR", "VALID FOR", "DESCRIPTION"].map(str::to_owned).to_vec()];
        for token in tokens {
            let roles = match (token.master, token.node) {
                (true, true) => "masters, nodes",
                (true, false) => "masters",
                _ => "nodes",
            };
            let left = if token.outdated { OUTDATED.to_owned() } else { left(token.expires - now) };
            rows.push(vec![token.id, roles.to_owned(), left, token.description]);
        }
        print!("{}", super::status::table(&rows));
        Ok(())
    }
}

/// How long something is still valid, in its two largest units: `24h`, `23h59m`, `9m30s`.
fn left(seconds: i64) -> String {
    if seconds <= 0 {
        return "expired".to_owned();
    }
    let parts = [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    // A day is 24h: what was asked for as hours is shown as hours.
    let parts = if seconds <= 2 * 86_400 { [(0, "d"), (seconds / 3600, "h"), parts[2], parts[3]] } else { parts };
    let begin = parts.iter().position(|(count, _)| *count > 0).unwrap_or(3);
    let shown = parts[begin..].iter().take(2).filter(|(count, _)| *count > 0);
    shown.map(|(count, unit)| format!("{count}{unit}")).collect()
}

impl Revoke {
    async fn run(self) -> Result<()> {
        super::revoke_token(&self.access, &self.id).await?;
        println!("token {} revoked", self.id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn durations_as_people_say_them() {
        for (seconds, text) in [
            (86_400, "24h"),
            (86_399, "23h59m"),
            (3600, "1h"),
            (570, "9m30s"),
            (59, "59s"),
            (0, "expired"),
            (-5, "expired"),
            (30 * 86_400 + 7200, "30d2h"),
        ] {
            assert_eq!(super::left(seconds), text);
        }
    }
}
