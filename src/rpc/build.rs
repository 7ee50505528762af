//! Compiles proto/ without protoc.

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Read while running: a build cache shared by several checkouts may hold a script that another one compiled.
    let here = std::env::var("CARGO_MANIFEST_DIR")?;
    let root = Path::new(&here).join("../../proto");
    let files = ["hactl/v1/raft.proto", "hactl/v1/node.proto", "hactl/v1/cluster.proto", "etcd/kv.proto"];
    println!("cargo::rerun-if-changed={}", root.display());
    let descriptors = protox::compile(files, [&root])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
