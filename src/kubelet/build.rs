//! Compiles the programs of the embedded images: static, without std or libc, about a kilobyte each. They are sources outside all
//! targets because their panic handler would clash with std's in dev builds.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let rustc = std::env::var_os("RUSTC").expect("cargo sets RUSTC");
    let target = std::env::var("TARGET").expect("cargo sets TARGET");
    for (source, name, page) in [("pause", "pause", ""), ("sample", "sample-1", "1"), ("sample", "sample-2", "2")] {
        let path = format!("images/{source}.rs");
        println!("cargo:rerun-if-changed={path}");
        let status = Command::new(&rustc)
            .args(["--edition", "2024", "--crate-type", "bin", "--crate-name", source, "--target", &target])
            .args(["-C", "panic=abort", "-C", "opt-level=s", "-C", "strip=symbols", "-C", "relocation-model=static"])
            .args(["-C", "link-arg=-nostartfiles", "-C", "link-arg=-static", "-C", "link-arg=-nostdlib"])
            .env("HACTL_SAMPLE_VERSION", page)
            .arg("-o")
            .arg(out.join(name))
            .arg(&path)
            .status()
            .expect("rustc starts");
        assert!(status.success(), "compiling {path} failed");
    }
}
