//! The user's verbs. Each verb is one file that says what it needs and calls the part that does it; errors come out as
//! sentences that say what to do next.
//!
//! Not here: anything about how the cluster works. Only this module and tests know the command line.

mod bench;
mod cluster;
mod completion;
mod credentials;
mod installation;
mod local;
mod progress;
mod run;
mod settings;
mod version;
mod workload;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// A highly available container platform for machines with Docker, with the Kubernetes API
#[derive(Debug, Parser)]
#[command(name = "hactl", version = version::LINE, infer_subcommands = false)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a cluster of machines, add machines to it, look at it
    #[command(subcommand)]
    Cluster(cluster::Verb),
    /// Start the roles recorded in a data dir, in the foreground
    Run(run::Run),
    /// A whole cluster as processes on this machine
    #[command(subcommand)]
    Local(local::Verb),
    Get(workload::Get),
    Apply(workload::Apply),
    Delete(workload::Delete),
    Logs(workload::Logs),
    /// Make a new object
    #[command(subcommand)]
    Create(workload::Create),
    Scale(workload::Scale),
    /// Change one thing of an object
    #[command(subcommand)]
    Set(workload::Set),
    /// Follow, undo, stop or repeat the rollout of a deployment
    #[command(subcommand)]
    Rollout(workload::Rollout),
    Expose(workload::Expose),
    Events(workload::Events),
    Describe(workload::Describe),
    /// Show what nodes or pods use
    #[command(subcommand)]
    Top(workload::Top),
    /// Measure a cluster
    #[command(subcommand)]
    Bench(bench::Verb),
    Completion(completion::Completion),
    /// Show every setting, its default and what it means
    Settings(settings::Show),
    /// Show the version, the commit and the Kubernetes version
    Version(version::Version),
}

impl Cli {
    pub async fn run(self) -> Result<()> {
        match self.verb {
            Verb::Cluster(verb) => verb.run().await,
            Verb::Run(verb) => verb.run().await,
            Verb::Local(verb) => verb.run().await,
            Verb::Get(verb) => verb.run().await,
            Verb::Apply(verb) => verb.run().await,
            Verb::Delete(verb) => verb.run().await,
            Verb::Logs(verb) => verb.run().await,
            Verb::Create(verb) => verb.run().await,
            Verb::Scale(verb) => verb.run().await,
            Verb::Set(verb) => verb.run().await,
            Verb::Rollout(verb) => verb.run().await,
            Verb::Expose(verb) => verb.run().await,
            Verb::Events(verb) => verb.run().await,
            Verb::Describe(verb) => verb.run().await,
            Verb::Top(verb) => verb.run().await,
            Verb::Bench(verb) => verb.run().await,
            Verb::Completion(verb) => verb.run(),
            Verb::Settings(verb) => verb.run(),
            Verb::Version(verb) => verb.run(),
        }
    }
}

/// An error and its causes in one line. Some libraries repeat the cause in their own words; nobody reads it twice here.
pub fn sentence(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn a_cause_is_said_once() {
        let file = std::io::Error::from_raw_os_error(2);
        let error = anyhow::Error::new(file).context("cannot read a: No such file or directory (os error 2)");
        let error = error.context("cannot use a");
        assert_eq!(super::sentence(&error), "cannot use a: cannot read a: No such file or directory (os error 2)");
    }

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
