//! The one table of settings. Each row is at once a flag of `hactl run`, `init` and `join`, a variable `HACTL_…`, a key of
//! `/etc/hactl/hactl.yaml` and a line of `docs/settings.md`; nothing about a setting stands anywhere else.
//!
//! Who wins: flag, then variable, then file, then what `init` or `join` recorded in the data dir, then the default.
//!
//! **Invariant:** an unknown or impossible setting stops the start and names its line; no value is silently replaced.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

#[cfg(test)]
mod page;
mod show;
pub mod units;

pub use show::Show;
pub use units::Unit;

/// Where the file is looked for when `--config` names none.
pub const FILE: &str = "/etc/hactl/hactl.yaml";

/// Settings that `init` fixes for the whole cluster, so that each machine keeps the value it was told.
pub const FIXED: [&str; 2] = ["cluster-cidr", "service-cidr"];

/// The settings that `--help` shows; the others are flags too, but nobody wants to read past fifty of them.
const EVERYDAY: [&str; 8] =
    ["cluster-cidr", "service-cidr", "docker-host", "node-cpu", "node-memory", "snapshot-dir", "snapshot-every", "log"];
/// The place of a value that nobody set.
const DEFAULT: &str = "the default";
/// Where the others are.
const OTHERS: &str = "Every other setting is a flag too: `hactl settings` lists them with their defaults.";

/// One setting.
pub struct Setting {
    pub name: &'static str,
    pub unit: Unit,
    /// As a user would write it; empty: none, the part decides (the help says how).
    pub default: &'static str,
    pub help: &'static str,
    pub group: Group,
}

/// Which part of the machine a setting is about; the sections of the reference page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    Machine,
    Cluster,
    Master,
    Node,
}

const fn row(group: Group, name: &'static str, unit: Unit, default: &'static str, help: &'static str) -> Setting {
    Setting { name, unit, default, help, group }
}

/// Every setting, in the order of the reference page.
pub const ALL: &[Setting] = &[
    row(
        Group::Machine,
        "log",
        Unit::Text,
        "info,openraft=error,openraft::raft=off",
        "What to log: a level, or per part as in `info,consensus=debug`",
    ),
    row(Group::Machine, "log-format", Unit::OneOf(&["text", "json"]), "text", "How a log line looks"),
    row(
        Group::Cluster,
        "cluster-cidr",
        Unit::Cidr,
        "10.244.0.0/16",
        "The range pod addresses come from; each node gets a /24 of it. Fixed by `init`",
    ),
    row(
        Group::Cluster,
        "service-cidr",
        Unit::Cidr,
        "10.96.0.0/16",
        "The range Service addresses come from. Fixed by `init`",
    ),
    row(Group::Cluster, "node-silence", Unit::Duration, "5s", "Silence after which a node's readiness becomes Unknown"),
    row(
        Group::Cluster,
        "eviction-after",
        Unit::Duration,
        "5s",
        "How long pods stay bound to a node that is not ready, unless they tolerate it themselves",
    ),
    row(
        Group::Master,
        "listen-api",
        Unit::Address,
        "0.0.0.0:6443",
        "Where the API and the nodes' connections are served",
    ),
    row(Group::Master, "listen-peer", Unit::Address, "0.0.0.0:6444", "Where the other masters are served"),
    row(
        Group::Master,
        "heartbeat",
        Unit::Duration,
        "75ms",
        "How often the leader shows the other masters that it lives",
    ),
    row(
        Group::Master,
        "election-min",
        Unit::Duration,
        "150ms",
        "A master stands for election when the leader was silent for `election-max` and then for a random time from this to `election-max`: by default after 350 to 400 ms",
    ),
    row(
        Group::Master,
        "election-max",
        Unit::Duration,
        "200ms",
        "Silence of the leader in which no master stands for election (see `election-min`), and the leader's lease; raise it on slow links",
    ),
    row(
        Group::Master,
        "disk-reserve",
        Unit::Size,
        "256MiB",
        "Free space on the data dir's file system below which a master steps aside: it hands leadership over and takes no writes until there is more",
    ),
    row(
        Group::Master,
        "disk-slow",
        Unit::Duration,
        "100ms",
        "A disk whose syncs take longer than this, as a rule, is shown as slow",
    ),
    row(
        Group::Master,
        "raft-log-entries",
        Unit::Count,
        "10000",
        "Entries of the replicated log after which the state is written out and the log before it is dropped, but for a tenth as many for masters that are a little late",
    ),
    row(
        Group::Master,
        "raft-log-bytes",
        Unit::Size,
        "64MiB",
        "Likewise, by the bytes of the entries; at most half as many stay for masters that are late",
    ),
    row(
        Group::Master,
        "raft-batch-bytes",
        Unit::Size,
        "2MiB",
        "Changes that wait together go into one log entry up to so many bytes, 64KiB to 8MiB; a larger change has one of its own",
    ),
    row(
        Group::Master,
        "history",
        Unit::Duration,
        "5m",
        "How long old versions of objects stay readable, for watches that resume and lists in pieces; at least 5m",
    ),
    row(
        Group::Master,
        "history-bytes",
        Unit::Size,
        "128MiB",
        "Bytes of old versions; beyond it younger ones go too, with a warning",
    ),
    row(
        Group::Master,
        "store-quota",
        Unit::Size,
        "2GiB",
        "Bytes of all objects together. Beyond it nothing is created until something is deleted. The leader's setting counts for all masters",
    ),
    row(
        Group::Master,
        "snapshot-every",
        Unit::Duration,
        "",
        "How often the leader saves a snapshot of the whole cluster, encrypted to the recovery key; without it none is saved by itself",
    ),
    row(
        Group::Master,
        "snapshot-dir",
        Unit::Text,
        "",
        "Where these snapshots go: a directory on the leader's machine, or `s3://bucket/folder` with `AWS_…` variables or the machine's role",
    ),
    row(
        Group::Master,
        "snapshot-keep",
        Unit::Count,
        "24",
        "How many of these snapshots stay there; the oldest go first. Files of other names are left alone",
    ),
    row(
        Group::Master,
        "certificate-life",
        Unit::Duration,
        "90d",
        "How long certificates of masters and nodes last; at two thirds of it they are renewed while running. At least 10s",
    ),
    row(
        Group::Master,
        "certificate-grace",
        Unit::Duration,
        "30d",
        "How long after its end a node's certificate still gets the node a new one, and nothing else",
    ),
    row(Group::Master, "kubeconfig-life", Unit::Duration, "365d", "How long the certificates of administrators last"),
    row(Group::Master, "issuer-life", Unit::Duration, "3650d", "How long issuers last that are made from now on"),
    row(Group::Master, "event-ttl", Unit::Duration, "1h", "How long Events are kept after they last happened"),
    row(Group::Master, "api-body", Unit::Size, "3MiB", "Largest body of a request; a larger one is answered with 413"),
    row(
        Group::Master,
        "api-requests",
        Unit::Count,
        "600",
        "Requests of users in flight at once; one more is answered with 429 and `Retry-After`. Watches and followed logs are counted apart",
    ),
    row(Group::Master, "api-requests-per-user", Unit::Count, "300", "Requests in flight of one user"),
    row(
        Group::Master,
        "api-requests-system",
        Unit::Count,
        "200",
        "Requests in flight kept, beyond `api-requests`, for nodes and for administrators' looks at nodes, status and metrics",
    ),
    row(Group::Master, "api-watches", Unit::Count, "20000", "Open watches"),
    row(Group::Master, "api-watches-per-user", Unit::Count, "12000", "Open watches of one user"),
    row(Group::Master, "api-logs", Unit::Count, "1000", "Followed logs and sessions of exec, attach and port-forward"),
    row(Group::Master, "api-logs-per-user", Unit::Count, "200", "Those of one user"),
    row(
        Group::Master,
        "api-connections",
        Unit::Count,
        "10000",
        "Open connections to the API; one more is closed at once",
    ),
    row(Group::Master, "api-connections-per-address", Unit::Count, "4000", "Open connections from one address"),
    row(
        Group::Master,
        "api-streams",
        Unit::Count,
        "2000",
        "Requests, watches and node streams at once on one HTTP/2 connection",
    ),
    row(
        Group::Master,
        "api-handshakes",
        Unit::Count,
        "256",
        "TLS handshakes under way; one address gets half of them, the others wait their turn",
    ),
    row(Group::Master, "api-handshake-time", Unit::Duration, "10s", "A TLS handshake that takes longer is given up"),
    row(
        Group::Master,
        "api-header-time",
        Unit::Duration,
        "30s",
        "A connection is closed when the head of a request takes longer to arrive, or none ever comes",
    ),
    row(Group::Master, "api-idle", Unit::Duration, "5m", "A connection without an open request for so long is closed"),
    row(
        Group::Master,
        "api-stalled",
        Unit::Duration,
        "1m",
        "A connection whose client takes nothing of an answer for so long is closed; watches and followed logs may pause",
    ),
    row(Group::Node, "docker-host", Unit::Text, "unix:///var/run/docker.sock", "The Docker engine that runs the pods"),
    row(Group::Node, "node-cpu", Unit::Cpu, "", "Cores offered to pods; without it those of the machine"),
    row(Group::Node, "node-memory", Unit::Size, "", "Memory offered to pods; without it that of the machine"),
    row(Group::Node, "node-pods", Unit::Count, "110", "Most pods on the node"),
];

/// Values by name, each with where it was set.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    values: BTreeMap<&'static str, (String, String)>,
}

/// The flags of the table plus `--config`, for `#[command(flatten)]`.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    pub config: Option<PathBuf>,
    given: BTreeMap<&'static str, (String, String)>,
}

impl clap::Args for Flags {
    fn augment_args(command: clap::Command) -> clap::Command {
        let config = clap::Arg::new("config")
            .long("config")
            .value_name("FILE")
            .help_heading("Settings")
            .help(format!("The settings file [default: {FILE} where it exists]"));
        ALL.iter().fold(command.arg(config).after_help(OTHERS), |command, setting| {
            let mut help = setting.help.to_owned();
            if !setting.default.is_empty() {
                help.push_str(&format!(" [default: {}]", setting.default));
            }
            command.arg(
                clap::Arg::new(setting.name)
                    .long(setting.name)
                    .env(variable_static(setting.name))
                    .hide_env(true)
                    .value_name(setting.unit.word())
                    .help_heading("Settings")
                    .hide(!EVERYDAY.contains(&setting.name))
                    .help(help),
            )
        })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Flags {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Flags { config: matches.get_one::<String>("config").map(PathBuf::from), ..Flags::default() };
        for setting in ALL {
            let Some(value) = matches.get_one::<String>(setting.name) else { continue };
            let place = match matches.value_source(setting.name) {
                Some(clap::parser::ValueSource::EnvVariable) => variable(setting.name),
                _ => format!("--{}", setting.name),
            };
            flags.given.insert(setting.name, (value.clone(), place));
        }
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Flags {
    /// What was given on the command line or in variables, to be recorded in the data dir by `init` and `join`.
    pub fn given(&self) -> BTreeMap<String, String> {
        self.given.iter().map(|(name, (value, _))| ((*name).to_owned(), value.clone())).collect()
    }

    /// Sets a flag as if the user had given it; what `hactl local` does for its processes.
    pub fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.given.insert(name, (value.into(), format!("--{name}")));
    }

    /// Puts together flags, variables, the file, what was recorded, and the defaults; checks every value.
    ///
    /// # Errors
    /// Names the place of the first value that is unknown or impossible, or not what `init` fixed.
    pub fn resolve(&self, recorded: &BTreeMap<String, String>) -> Result<Settings> {
        let mut values = BTreeMap::new();
        for setting in ALL.iter().filter(|setting| !setting.default.is_empty()) {
            values.insert(setting.name, (setting.default.to_owned(), DEFAULT.to_owned()));
        }
        for (name, value) in recorded {
            // A record of a newer version may hold settings this one does not know: starting wrongly is worse than not.
            let setting = find(name).with_context(|| {
                format!("the data dir records a setting `{name}` that this version does not know; use the newer hactl")
            })?;
            values.insert(setting.name, (value.clone(), "hactl.json in the data dir".to_owned()));
        }
        let file = match &self.config {
            Some(path) => Some(path.clone()),
            None => Some(PathBuf::from(FILE)).filter(|path| path.exists()),
        };
        if let Some(path) = file {
            values.extend(read(&path)?);
        }
        values.extend(self.given.clone());
        let settings = Settings { values };
        settings.check()?;
        settings.keeps(recorded)?;
        Ok(settings)
    }
}

impl Settings {
    fn check(&self) -> Result<()> {
        for (name, (value, place)) in &self.values {
            let setting = find(name).expect("only known names are kept");
            if let Err(reason) = setting.unit.check(value) {
                bail!("{place}: {name} = {value:?}: {reason}; write for example {}", setting.unit.example());
            }
        }
        if self.duration("election-min") > self.duration("election-max") {
            bail!("{}: election-min is above election-max; make it smaller", self.place("election-min"));
        }
        if self.text("snapshot-every").is_some() && self.text("snapshot-dir").is_none() {
            bail!("{}: snapshot-every needs snapshot-dir, such as /var/backups/hactl", self.place("snapshot-every"));
        }
        if self.count("snapshot-keep") == Some(0) {
            bail!("{}: snapshot-keep must be at least 1", self.place("snapshot-keep"));
        }
        if self.duration("heartbeat") * 2 > self.duration("election-min") {
            bail!(
                "{}: heartbeat must be at most half of election-min, or leaders lose their place for nothing",
                self.place("heartbeat")
            );
        }
        Ok(())
    }

    /// Checks that nobody set anything else than `init` fixed.
    ///
    /// # Errors
    /// Names the place of the other value.
    pub fn keeps(&self, fixed: &BTreeMap<String, String>) -> Result<()> {
        for name in FIXED {
            let Some(fixed) = fixed.get(name) else { continue };
            let Some((value, place)) = self.values.get(name).filter(|(value, _)| value != fixed) else { continue };
            if place != DEFAULT {
                bail!(
                    "{place}: {name} = {value}, but `hactl cluster init` fixed it at {fixed} for this whole cluster, and addresses of \
                     it are in use: take it out there. Only a new cluster can have another"
                );
            }
        }
        Ok(())
    }

    /// What was resolved of the settings that `init` fixes, to be written down.
    pub fn fixed(&self) -> BTreeMap<String, String> {
        FIXED.iter().filter_map(|name| Some(((*name).to_owned(), self.text(name)?.to_owned()))).collect()
    }

    /// Whether nobody set it.
    pub fn is_default(&self, name: &str) -> bool {
        self.place(name) == DEFAULT
    }

    fn place(&self, name: &str) -> &str {
        self.values.get(name).map_or(DEFAULT, |(_, place)| place)
    }

    /// The value as written; `None` where there is neither value nor default.
    pub fn text(&self, name: &str) -> Option<&str> {
        debug_assert!(find(name).is_some(), "{name} is not in the table");
        self.values.get(name).map(|(value, _)| value.as_str())
    }

    /// A duration; zero where there is none.
    pub fn duration(&self, name: &str) -> Duration {
        self.text(name).and_then(|text| units::duration(text).ok()).unwrap_or_default()
    }

    pub fn size(&self, name: &str) -> Option<u64> {
        self.text(name).and_then(|text| units::size(text).ok())
    }

    pub fn count(&self, name: &str) -> Option<u64> {
        self.text(name).and_then(|text| text.parse().ok())
    }

    /// Thousandths of a core.
    pub fn cpu(&self, name: &str) -> Option<u64> {
        self.text(name).and_then(|text| units::cpu(text).ok())
    }
}

pub fn find(name: &str) -> Option<&'static Setting> {
    ALL.iter().find(|setting| setting.name == name)
}

/// `HACTL_NODE_CPU` for `node-cpu`.
pub fn variable(name: &str) -> String {
    format!("HACTL_{}", name.to_uppercase().replace('-', "_"))
}

/// clap keeps names of variables for the program's life; the table is small and asked once per flattened command.
fn variable_static(name: &'static str) -> &'static str {
    Box::leak(variable(name).into_boxed_str())
}

fn read(path: &Path) -> Result<BTreeMap<&'static str, (String, String)>> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read the settings file {}", path.display()))?;
    parse(&text, &path.display().to_string())
}

/// One flat mapping; `file` names it in errors.
fn parse(text: &str, file: &str) -> Result<BTreeMap<&'static str, (String, String)>> {
    let tree: Option<BTreeMap<String, serde_yaml::Value>> =
        serde_yaml::from_str(text).with_context(|| format!("{file} is not a YAML mapping of settings to values"))?;
    let mut values = BTreeMap::new();
    for (name, value) in tree.unwrap_or_default() {
        let line = text
            .lines()
            .position(|line| line.trim_start().trim_start_matches(['"', '\'']).starts_with(name.as_str()))
            .map_or(1, |at| at + 1);
        let place = format!("{file}:{line}");
        let Some(setting) = find(&name) else {
            bail!("{place}: unknown setting `{name}`{}; docs/settings.md lists them", near(&name));
        };
        let value = match value {
            serde_yaml::Value::String(text) => text,
            serde_yaml::Value::Number(number) => number.to_string(),
            serde_yaml::Value::Bool(flag) => flag.to_string(),
            _ => bail!("{place}: {name} must be one value; write for example `{name}: {}`", setting.unit.example()),
        };
        values.insert(setting.name, (value, place));
    }
    Ok(values)
}

/// ` (did you mean …?)` when a known name is close.
fn near(name: &str) -> String {
    let wanted: String = name.to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
    let close = ALL.iter().find(|setting| {
        let known: String = setting.name.chars().filter(char::is_ascii_alphanumeric).collect();
        known == wanted || known.starts_with(&wanted) || wanted.starts_with(&known)
    });
    close.map_or(String::new(), |setting| format!(" (did you mean `{}`?)", setting.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(text: &str) -> Result<Settings> {
        let values = parse(text, "hactl.yaml")?;
        let mut flags = Flags::default();
        flags.given.extend(values);
        flags.resolve(&BTreeMap::new())
    }

    #[test]
    fn every_default_is_valid() {
        Flags::default().resolve(&BTreeMap::new()).expect("defaults");
        for setting in ALL {
            setting.unit.check(setting.unit.example()).expect(setting.name);
        }
    }

    #[test]
    fn what_stops_a_start_names_its_line() {
        for (text, expected) in [
            ("# first\nheartbeet: 40ms\n", "hactl.yaml:2: unknown setting `heartbeet`"),
            ("node_cpu: 2\n", "did you mean `node-cpu`?"),
            ("heartbeat: soon\n", "hactl.yaml:1: heartbeat = \"soon\""),
            ("\nnode-memory: 12\n", "hactl.yaml:2: node-memory = \"12\": a size needs a unit"),
            ("log-format: xml\n", "one of text, json"),
            ("node-cpu: [1]\n", "hactl.yaml:1: node-cpu must be one value"),
            ("snapshot-every: 1h\n", "snapshot-every needs snapshot-dir"),
            ("heartbeat: 90ms\n", "at most half of election-min"),
        ] {
            let error = format!("{:#}", resolve(text).expect_err(text));
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }

    #[test]
    fn help_shows_the_everyday_flags_and_where_the_others_are() {
        use clap::Args;
        for name in EVERYDAY {
            assert!(find(name).is_some(), "{name}");
        }
        let mut command = Flags::augment_args(clap::Command::new("hactl"));
        let help = command.render_long_help().to_string();
        assert!(help.contains("--docker-host") && !help.contains("--heartbeat"), "{help}");
        assert!(help.ends_with(&format!("{OTHERS}\n")), "{help}");
        let matches = command.try_get_matches_from(["hactl", "--heartbeat", "20ms"]).expect("hidden, but there");
        assert_eq!(matches.get_one::<String>("heartbeat").map(String::as_str), Some("20ms"));
    }

    #[test]
    fn what_init_fixed_gives_way_to_nothing() {
        let recorded = BTreeMap::from([("service-cidr".to_owned(), "10.96.0.0/16".to_owned())]);
        let mut flags = Flags::default();
        flags.given.extend(parse("log: info\nservice-cidr: 10.97.0.0/16\n", "hactl.yaml").expect("settings"));
        let error = flags.resolve(&recorded).expect_err("another value").to_string();
        assert!(
            error.starts_with("hactl.yaml:2: service-cidr = 10.97.0.0/16") && error.contains("10.96.0.0/16"),
            "{error}"
        );
        flags.set("service-cidr", "10.96.0.0/16");
        flags.resolve(&recorded).expect("the same value");
        // A default is nobody's wish.
        let other = BTreeMap::from([("service-cidr".to_owned(), "10.55.0.0/16".to_owned())]);
        Flags::default()
            .resolve(&Default::default())
            .expect("defaults")
            .keeps(&other)
            .expect("a joiner that says nothing");
        let settings = Flags::default().resolve(&other).expect("recorded");
        assert_eq!(settings.fixed().get("service-cidr").map(String::as_str), Some("10.55.0.0/16"));
        assert!(settings.is_default("cluster-cidr") && !settings.is_default("service-cidr"));
    }

    #[test]
    fn a_recorded_value_gives_way_to_a_given_one() {
        let recorded = BTreeMap::from([("node-pods".to_owned(), "20".to_owned())]);
        let mut flags = Flags::default();
        assert_eq!(flags.resolve(&recorded).expect("recorded").count("node-pods"), Some(20));
        flags.set("node-pods", "30");
        assert_eq!(flags.resolve(&recorded).expect("given").count("node-pods"), Some(30));
    }
}
