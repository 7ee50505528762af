//! `hactl completion`: what a shell needs to complete this command line.

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_complete::Shell;

/// Print the completion of a shell: `source <(hactl completion bash)`
#[derive(Debug, clap::Args)]
pub struct Completion {
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Completion {
    pub fn run(self) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::Cli::command(), "hactl", &mut script);
        super::workload::print_all(&script).context("cannot print it")
    }
}
