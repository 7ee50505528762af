//! `hactl settings`: the table for the terminal.

use anyhow::Result;
use serde_json::json;

use super::{ALL, Group, Setting, variable};

/// The columns of a terminal that help texts are wrapped to.
const WIDTH: usize = 100;

/// Show every setting, its default and what it means
#[derive(Debug, clap::Args)]
pub struct Show {
    /// Only settings whose name or meaning contains this
    #[arg(value_name = "WORD")]
    word: Option<String>,
    /// `json` for scripts
    #[arg(short, long, value_parser = ["json"])]
    output: Option<String>,
}

impl Show {
    pub fn run(self) -> Result<()> {
        let word = self.word.as_deref().unwrap_or_default().to_lowercase();
        let chosen: Vec<&Setting> = ALL.iter().filter(|setting| is_about(setting, &word)).collect();
        anyhow::ensure!(!chosen.is_empty(), "no setting is about `{word}`; `hactl settings` lists all");
        if self.output.is_some() {
            let rows: Vec<_> = chosen.iter().map(|setting| document(setting)).collect();
            println!("{}", serde_json::to_string_pretty(&rows)?);
        } else {
            print!("{}", render(&chosen));
        }
        Ok(())
    }
}

fn is_about(setting: &Setting, word: &str) -> bool {
    setting.name.contains(word) || setting.help.to_lowercase().contains(word)
}

fn document(setting: &Setting) -> serde_json::Value {
    let default = Some(setting.default).filter(|text| !text.is_empty());
    json!({ "name": setting.name, "variable": variable(setting.name), "default": default, "help": setting.help })
}

fn render(settings: &[&Setting]) -> String {
    let mut text = "Each is a flag (--name) of `hactl run`, `cluster init`, `cluster join` and `local up`, a variable (HACTL_NAME) and a\n\
                    line (name: value) of /etc/hactl/hactl.yaml.\n"
        .to_owned();
    for (group, title) in [
        (Group::Machine, "Every machine"),
        (Group::Cluster, "The cluster"),
        (Group::Master, "Masters"),
        (Group::Node, "Nodes"),
    ] {
        let mut rows = settings.iter().filter(|setting| setting.group == group).peekable();
        if rows.peek().is_some() {
            text.push_str(&format!("\n{title}\n"));
        }
        for setting in rows {
            let default = if setting.default.is_empty() { String::new() } else { format!(" [{}]", setting.default) };
            text.push_str(&format!("  {}{default}\n", setting.name));
            for line in wrapped(setting.help, WIDTH - 6) {
                text.push_str(&format!("      {line}\n"));
            }
        }
    }
    text
}

/// Lines of whole words.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut().filter(|line| line.chars().count() + 1 + word.chars().count() <= width) {
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_shown_and_a_word_chooses() {
        let all: Vec<&Setting> = ALL.iter().collect();
        let text = render(&all);
        for setting in ALL {
            assert!(text.contains(&format!("\n  {}", setting.name)), "{}", setting.name);
        }
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
        let some: Vec<&str> =
            ALL.iter().filter(|setting| is_about(setting, "docker")).map(|setting| setting.name).collect();
        assert_eq!(some, ["docker-host"]);
    }
}
