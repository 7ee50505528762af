//! The reference page `docs/settings.md`, made from the table; compiled for the test that keeps the file current.

use super::{ALL, Group, variable};

/// The page's text.
pub fn page() -> String {
    let mut page = String::from(
        "# Settings\n\n\
         Made from the table in `src/cli/settings.rs`; change it there and run `HACTL_UPDATE=1 cargo test settings_page`.\n\n\
         Each setting is a flag of `hactl run`, `hactl cluster init` and `hactl cluster join`, an environment variable, and\n\
         a key of the settings file (`/etc/hactl/hactl.yaml`, or `--config FILE`). Who wins: flag, variable, file, what\n\
         `init` or `join` recorded in the data dir, default. An unknown or impossible value stops the start and names\n\
         its line, and so does another value of what `init` fixed.\n\n\
         ```yaml\n# /etc/hactl/hactl.yaml\nlog: info\nnode-memory: 6GiB\n```\n",
    );
    for (group, title) in [
        (Group::Machine, "The process"),
        (Group::Cluster, "The cluster"),
        (Group::Master, "A master"),
        (Group::Node, "A node"),
    ] {
        page.push_str(&format!("\n## {title}\n\n| Setting | Variable | Default | Meaning |\n|---|---|---|---|\n"));
        for setting in ALL.iter().filter(|setting| setting.group == group) {
            let default = if setting.default.is_empty() { String::new() } else { format!("`{}`", setting.default) };
            page.push_str(&format!(
                "| `--{}` | `{}` | {default} | {} |\n",
                setting.name,
                variable(setting.name),
                setting.help
            ));
        }
    }
    page
}

#[cfg(test)]
mod tests {
    #[test]
    fn settings_page_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/settings.md");
        let page = super::page();
        if std::env::var_os("HACTL_UPDATE").is_some() {
            std::fs::write(path, &page).expect("write the page");
        }
        let present = std::fs::read_to_string(path).unwrap_or_default();
        assert!(present == page, "docs/settings.md is out of date; run HACTL_UPDATE=1 cargo test settings_page");
    }
}
