//! Reads the command line, starts what it asks for, and says in one sentence why it failed.

mod cli;
mod memory;

use clap::Parser;

/// Under load the system's allocator takes a fifth of a master's time: what a write allocates on one thread another frees.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    let cli = cli::Cli::parse();
    memory::without_huge_pages();
    end_quietly_on_closed_output();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start threads: {error}");
            return std::process::ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(cli.run());
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", cli::sentence(&error));
            std::process::ExitCode::FAILURE
        }
    }
}

/// `hactl get pods | head` ends without a word once `head` has gone. The signal SIGPIPE would say so too, but for every
/// broken connection as well.
fn end_quietly_on_closed_output() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let closed = panic
            .payload()
            .downcast_ref::<String>()
            .is_some_and(|text| text.starts_with("failed printing to stdout") && text.contains("Broken pipe"));
        if closed {
            std::process::exit(0);
        }
        usual(panic);
    }));
}
