//! `cargo run -p chaos -- run --scenario leader-kill --duration 60s`, `cargo run -p chaos -- sim --seeds 100`

use anyhow::Result;
use chaos::run::{Relay, Run, figures, nemeses, scenarios, workloads};
use clap::Parser;

/// Faults and workloads against a cluster: of real processes, or simulated
#[derive(Debug, Parser)]
enum Command {
    /// Run one scenario on a real cluster, and judge it
    Run(Box<Run>),
    /// Measure how long the cluster is away when a part of it fails
    Figures(Box<figures::Figures>),
    /// Pass bytes on late, for the nemesis `delay`
    #[command(hide = true)]
    Relay(Relay),
    /// Simulate clusters in virtual time, one per seed
    Sim(chaos::sim::command::Sim),
    /// Plant one bug after another and see that the simulation finds it; an optimized build needs `--features mutants`
    Mutants(chaos::sim::mutants::Mutants),
    /// Show scenarios, workloads, nemeses, and what is simulated
    List,
}

fn main() -> Result<()> {
    let command = Command::parse();
    // Before any other runtime exists: what tokio counts, it counts per process.
    if let Command::Sim(sim) = &command
        && sim.is_alone()
    {
        return sim.here();
    }
    tokio::runtime::Runtime::new()?.block_on(run(command))
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Run(run) => run.run().await,
        Command::Figures(figures) => figures.run().await,
        Command::Relay(relay) => relay.run().await,
        Command::Sim(sim) => sim.run().await,
        Command::Mutants(mutants) => mutants.run().await,
        Command::List => {
            let line = |name: &str, about: &str| println!("{name:<16} {about}");
            println!("Scenarios (run):");
            scenarios::ALL.iter().for_each(|scenario| line(scenario.name, scenario.about));
            println!("Workloads (run):");
            workloads::ALL.iter().for_each(|workload| line(workload.name, workload.about));
            println!("Nemeses (run):");
            nemeses::ALL.iter().for_each(|nemesis| line(nemesis.name, nemesis.about));
            println!("Laws (run):");
            chaos::run::LAWS.iter().for_each(|law| println!("{}", law.name));
            println!("Figures (figures):");
            figures::ALL.iter().for_each(|figure| line(figure.name, figure.aim));
            println!("Workloads (sim):");
            chaos::sim::workloads::ALL.iter().for_each(|workload| line(workload.name, workload.about));
            println!("Faults (sim):");
            chaos::sim::faults::ALL.iter().for_each(|fault| line(fault.name, fault.about));
            println!("Bugs planted on purpose (mutants):");
            chaos::sim::mutants::ALL.iter().for_each(|mutant| line(mutant.name, mutant.about));
            Ok(())
        }
    }
}
