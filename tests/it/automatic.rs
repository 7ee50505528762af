//! Snapshots that the leader saves by itself.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::{Local, eventually, text};

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
    let mut names: Vec<String> = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn the_leader_saves_and_keeps_the_newest() {
    let dir = tempfile::tempdir().expect("dir");
    let place = dir.path().join("backups");
    std::fs::create_dir(&place).expect("create");
    std::fs::write(place.join("photos.snapshot"), "mine").expect("write");
    let place_name = place.to_str().expect("a path");
    let local = Local::up_with(3, 0, &["--snapshot-every", "1s", "--snapshot-keep", "2", "--snapshot-dir", place_name]);
    let own = || names(&place).into_iter().filter(|name| name.starts_with("hactl-auto-")).collect::<Vec<_>>();
    let first = eventually("two are there", || match own() {
        names if names.len() == 2 => Ok(names),
        names => Err(format!("{names:?}")),
    });
    // A new leader goes on, and the oldest go.
    local.ok(&["local", "kill", &local.leader()]);
    eventually("others have taken their place", || match own() {
        names if names.len() == 2 && names.iter().all(|name| !first.contains(name)) => Ok(()),
        names => Err(format!("{names:?}")),
    });
    assert!(names(&place).contains(&"photos.snapshot".to_owned()));
    let newest = place.join(own().last().expect("one"));
    let key = local.dir().join("recovery.key");
    local.ok(&[
        "cluster",
        "snapshot",
        "verify",
        newest.to_str().expect("a path"),
        "--recovery-key-file",
        key.to_str().expect("a path"),
    ]);
}

#[test]
fn a_failure_is_shown() {
    let dir = tempfile::tempdir().expect("dir");
    let place = dir.path().join("backups");
    // No directory can be made there.
    std::fs::write(&place, "a file").expect("write");
    let place_name = place.to_str().expect("a path");
    let local = Local::up_with(1, 0, &["--snapshot-every", "1s", "--snapshot-dir", place_name]);
    eventually("the status says so", || {
        let status = local.ok(&["cluster", "status"]);
        if status.contains("cannot save automatic snapshots to") && status.contains(place_name) {
            Ok(())
        } else {
            Err(status)
        }
    });
    std::fs::remove_file(&place).expect("remove");
    eventually("it goes on by itself", || {
        let status = local.ok(&["cluster", "status"]);
        if status.contains("Nothing is wrong") && !names(&place).is_empty() { Ok(()) } else { Err(status) }
    });
}

/// A server of S3's protocol that is none of ours: moto's, installed beside the tests if the machine has none.
struct S3 {
    server: Child,
    address: String,
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn moto() -> PathBuf {
    let found = std::env::var_os("PATH")
        .and_then(|path| std::env::split_paths(&path).map(|dir| dir.join("moto_server")).find(|file| file.exists()));
    if let Some(found) = found {
        return found;
    }
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("moto");
    let program = place.join("bin/moto_server");
    if !program.exists() {
        let run = |program: &Path, arguments: &[&str]| {
            let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
            let output =
                output.unwrap_or_else(|error| panic!("{}: {error}; install python3 with venv", program.display()));
            assert!(output.status.success(), "{}: {}", program.display(), text(&output.stderr));
        };
        run(Path::new("python3"), &["-m", "venv", place.to_str().expect("a path")]);
        run(&place.join("bin/pip"), &["install", "--quiet", "moto[server]>=5,<6"]);
    }
    program
}

impl S3 {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|taken| taken.local_addr()).expect("a port").port();
        let server = Command::new(moto())
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("moto_server");
        let s3 = Self { server, address: format!("127.0.0.1:{port}") };
        eventually("the server answers", || s3.ask("PUT", "/backups").map(drop));
        s3
    }

    /// One request without a signature, which this server does not ask for; the body.
    fn ask(&self, method: &str, path: &str) -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(&self.address)?;
        let host = "s3.us-east-1.amazonaws.com";
        write!(stream, "{method} {path} HTTP/1.0\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let head = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or_default();
        if !answer.starts_with(b"HTTP/1.") || !answer[..head].windows(5).any(|part| part == b" 200 ") {
            return Err(std::io::Error::other(text(&answer[..head])));
        }
        Ok(answer.split_off(head + 4))
    }

    /// The names of our snapshots in the bucket.
    fn names(&self) -> Vec<String> {
        let listed = text(&self.ask("GET", "/backups?list-type=2").unwrap_or_default());
        let keys = listed.split("<Key>").skip(1).filter_map(|part| part.split("</Key>").next());
        let mut names: Vec<String> =
            keys.filter(|key| key.starts_with("nightly/hactl-auto-")).map(str::to_owned).collect();
        names.sort();
        names
    }
}

#[test]
fn a_bucket_holds_the_newest_and_one_of_it_restores() {
    let s3 = S3::start();
    let environment = [
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ALLOW_HTTP", "true"),
    ];
    let mut environment: Vec<(String, String)> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    environment.push(("AWS_ENDPOINT_URL".to_owned(), format!("http://{}", s3.address)));
    let settings = ["--snapshot-every", "1s", "--snapshot-keep", "2", "--snapshot-dir", "s3://backups/nightly"];
    let local = Local::up_with_environment(Local::fresh(), 1, 0, &settings, environment);
    let two = || match s3.names() {
        names if names.len() == 2 => Ok(names),
        names => Err(format!("{names:?}")),
    };
    let first = eventually("two are there", two);
    let newest = eventually("others have taken their place", || match two() {
        Ok(names) if names.iter().all(|name| !first.contains(name)) => Ok(names.last().cloned().expect("one")),
        other => Err(format!("{other:?}")),
    });
    // It can be gone by now: the newest then is.
    let bytes = eventually("one is fetched", || {
        let name = s3.names().pop().unwrap_or_else(|| newest.clone());
        s3.ask("GET", &format!("/backups/{name}"))
    });
    let file = local.dir().join("fetched.snapshot");
    std::fs::write(&file, bytes).expect("write");
    let (file, key) = (file.display().to_string(), local.dir().join("recovery.key").display().to_string());
    let printed = local.ok(&["cluster", "snapshot", "verify", &file, "--recovery-key-file", &key]);
    assert!(printed.contains("was recomputed: the same"), "{printed}");
    local.ok(&["local", "kill", "master-1"]);
    std::fs::remove_dir_all(local.dir().join("master-1")).expect("remove");
    let command = local.restore_command(&file, &key, "master-1");
    local.ok(&command.iter().map(String::as_str).collect::<Vec<_>>());
}
