//! Programs in containers and ports of pods, through every master, by each kubectl that is promised to work. A program of its
//! own, so that nothing else is at work on the engine meanwhile.

#[path = "../support/mod.rs"]
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::support::{Local, eventually, kubectls, run, text};

/// A shell and what `kubectl cp` needs, out of this machine's own programs.
const IMAGE: &str = "hactl.test/tools:1";
const PROGRAMS: &[&str] = &["sh", "cat", "tar", "test", "sleep"];

/// The image, on the engine while this lives.
struct Tools;

impl Tools {
    fn load() -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let script = "set -e; cd \"$0\"; mkdir bin tmp; \
            for program in \"$@\"; do \
                file=/usr/bin/$program; [ -e $file ] || file=/bin/$program; cp -L $file bin/$program; \
                ldd $file | grep -o '/[^ ]*' | while read -r library; do \
                    mkdir -p .${library%/*}; cp -L $library .$library; done; done; \
            tar -c . | docker import - hactl.test/tools:1";
        let dir = root.path().display().to_string();
        run("sh", &[&["-c", script, &dir], PROGRAMS].concat());
        Self
    }
}

impl Drop for Tools {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", "-f", IMAGE]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"two","labels":{"app":"two"}},"spec":{
    "terminationGracePeriodSeconds":0,"containers":[
    {"name":"web","image":"hactl.local/sample:1","ports":[{"containerPort":8080}]},
    {"name":"tools","image":"hactl.test/tools:1","imagePullPolicy":"IfNotPresent",
     "command":["sh","-c","while :; do sleep 1000; done"]}]}}"#;
const SERVICE: &str = r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"two"},
    "spec":{"selector":{"app":"two"},"ports":[{"port":80,"targetPort":8080}]}}"#;

struct Kubectl<'a> {
    local: &'a Local,
    program: &'a Path,
    /// `local`, or a master's name.
    context: &'a str,
}

impl Kubectl<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command.args(["--context", self.context]).args(arguments);
        command.env("KUBECONFIG", self.local.kubeconfig()).env("HOME", self.local.dir()).stdin(Stdio::null());
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("run kubectl")
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let what = format!("{} {} {}", self.program.display(), self.context, arguments.join(" "));
        assert!(output.status.success(), "{what}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// With this as standard input.
    fn fed(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = self.command(arguments);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run kubectl");
        let mut stdin = child.stdin.take().expect("stdin");
        let input = input.to_owned();
        let feeding = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().expect("kubectl ends");
        feeding.join().expect("no panic").expect("all is taken");
        output
    }
}

#[test]
fn programs_and_ports_are_reached_through_every_master() {
    let _tools = Tools::load();
    let local = Local::calm(3, 1);
    let programs = kubectls();
    let first = Kubectl { local: &local, program: &programs[0], context: "local" };
    for manifest in [POD, SERVICE] {
        let made = first.fed(&["apply", "-f", "-"], manifest.as_bytes());
        assert!(made.status.success(), "{}", text(&made.stderr));
    }
    first.ok(&["wait", "--for=condition=Ready", "pod/two", "--timeout=180s"]);
    for master in local.masters() {
        exit_codes(&Kubectl { local: &local, program: &programs[0], context: &master });
    }
    for program in &programs {
        let kubectl = Kubectl { local: &local, program, context: "local" };
        exit_codes(&kubectl);
        stdin_reaches_a_program(&kubectl);
        files_are_copied(&kubectl);
        ports_are_forwarded(&kubectl);
        requests_are_proxied(&kubectl);
        nothing_is_left_of_a_client_that_is_gone(&kubectl);
        clients_that_read_nothing_keep_nobody_waiting(&kubectl);
    }
}

fn exit_codes(kubectl: &Kubectl<'_>) {
    let said = kubectl.output(&["exec", "two", "-c", "tools", "--", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!(text(&said.stdout), "out\n", "{}", text(&said.stderr));
    let error = text(&said.stderr);
    assert!(error.contains("err\n") && error.contains("command terminated with exit code 3"), "{error}");
    assert_eq!(said.status.code(), Some(3));
    // Without a name the first container is meant, which has no such program.
    let missing = kubectl.output(&["exec", "two", "--", "sh"]);
    assert!(!missing.status.success());
    // Engines differ in whether they refuse it or have it fail.
    let said = text(&missing.stdout) + &text(&missing.stderr);
    assert!(said.contains("executable file not found"), "{said}");
    let missing = kubectl.output(&["exec", "two", "-c", "none", "--", "sh"]);
    assert!(text(&missing.stderr).contains("container none is not valid for pod two"), "{}", text(&missing.stderr));
}

/// Bytes of every kind, more than any buffer on the way holds.
fn bytes() -> Vec<u8> {
    (0..3_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn stdin_reaches_a_program(kubectl: &Kubectl<'_>) {
    let repeated = kubectl.fed(&["exec", "-i", "two", "-c", "tools", "--", "cat"], &bytes());
    assert!(repeated.status.success(), "{}", text(&repeated.stderr));
    assert!(repeated.stdout == bytes(), "{} bytes came back", repeated.stdout.len());
}

fn files_are_copied(kubectl: &Kubectl<'_>) {
    let (there, back) = (kubectl.local.dir().join("there"), kubectl.local.dir().join("back"));
    std::fs::write(&there, bytes()).expect("written");
    kubectl.ok(&["cp", &there.display().to_string(), "two:/tmp/copy", "-c", "tools"]);
    kubectl.ok(&["cp", "two:/tmp/copy", &back.display().to_string(), "-c", "tools"]);
    assert!(std::fs::read(&back).expect("a file") == bytes());
}

/// A kubectl in the background.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ports_are_forwarded(kubectl: &Kubectl<'_>) {
    let mut command = kubectl.command(&["port-forward", "service/two", ":80"]);
    let mut forward = Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run kubectl"));
    let mut line = String::new();
    // Read from until the end: a kubectl that nobody listens to ends.
    let mut said = BufReader::new(forward.0.stdout.take().expect("stdout"));
    said.read_line(&mut line).expect("a line");
    let address = line.strip_prefix("Forwarding from ").and_then(|line| line.split(' ').next());
    let address = address.unwrap_or_else(|| panic!("{line:?}")).to_owned();
    for _ in 0..3 {
        let mut stream = std::net::TcpStream::connect(&address).expect("kubectl listens");
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("sent");
        let mut page = String::new();
        stream.read_to_string(&mut page).expect("an answer");
        assert!(page.contains("version 1"), "{page:?}");
    }
    drop((forward, said));
}

fn requests_are_proxied(kubectl: &Kubectl<'_>) {
    for path in ["pods/two/proxy/", "pods/two:8080/proxy/", "services/two/proxy/", "services/two:80/proxy/"] {
        eventually("the proxy answers", || {
            let output = kubectl.output(&["get", "--raw", &format!("/api/v1/namespaces/default/{path}")]);
            let page = text(&output.stdout);
            if page.contains("version 1") { Ok(()) } else { Err(format!("{path}: {page}{}", text(&output.stderr))) }
        });
    }
}

fn nothing_is_left_of_a_client_that_is_gone(kubectl: &Kubectl<'_>) {
    let id = container(kubectl);
    let sleeps = || programs(&id, "sleep 4321");
    let mut command = kubectl.command(&["exec", "two", "-c", "tools", "--", "sh", "-c", "sleep 4321; true"]);
    let client = Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("run kubectl"));
    eventually("it runs", || if sleeps() == 1 { Ok(()) } else { Err("it does not") });
    drop(client);
    eventually("it has ended", || if sleeps() == 0 { Ok(()) } else { Err("it runs") });
}

fn clients_that_read_nothing_keep_nobody_waiting(kubectl: &Kubectl<'_>) {
    let clients: Vec<Running> = (0..8)
        .map(|_| {
            let mut command = kubectl.command(&["exec", "two", "-c", "tools", "--", "cat", "/dev/zero"]);
            // Nobody reads the pipe.
            Running(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("run kubectl"))
        })
        .collect();
    let id = container(kubectl);
    let mut last = Vec::new();
    eventually("all run, and wait", || {
        let now = written(&id, "cat /dev/zero");
        let wait = now.len() == clients.len() && now == last;
        last.clone_from(&now);
        if wait { Ok(()) } else { Err(format!("written: {now:?}")) }
    });
    let mut beside =
        Running(kubectl.command(&["exec", "two", "-c", "tools", "--", "sh", "-c", "exit 7"]).spawn().expect("run"));
    let ended = eventually("another ends", || beside.0.try_wait().ok().flatten().ok_or("it waits"));
    assert_eq!(ended.code(), Some(7));
    drop(clients);
    eventually("all have ended", || {
        let running = programs(&id, "cat /dev/zero");
        if running == 0 { Ok(()) } else { Err(format!("{running} run")) }
    });
}

/// The container of the tools.
fn container(kubectl: &Kubectl<'_>) -> String {
    let path = "jsonpath={.status.containerStatuses[?(@.name==\"tools\")].containerID}";
    kubectl.ok(&["get", "pod", "two", "-o", path]).trim_start_matches("docker://").to_owned()
}

/// How many programs with this command line run in it.
fn programs(id: &str, line: &str) -> usize {
    run("docker", &["top", id]).lines().filter(|program| program.ends_with(line)).count()
}

/// How many bytes each of them has written.
fn written(id: &str, line: &str) -> Vec<u64> {
    let all = run("docker", &["top", id, "-eo", "pid,args"]);
    let pids = all.lines().filter(|program| program.ends_with(line)).filter_map(|line| line.split_whitespace().next());
    let said = pids.filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/io")).ok());
    let bytes = said.filter_map(|io| io.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse().ok()));
    bytes.collect()
}
