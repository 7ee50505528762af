//! Disks that are full, slow or lose power, with real means: a small file system, a preloaded delay, `kill -9` of all masters
//! and the loss of what they had not synced.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, PostParams};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Local, eventually, eventually_async};
use crate::three_masters::{config_map, everything};

/// A file system of a few MiB; unmounted when the test ends, which must be before the cluster on it is removed.
struct Small(PathBuf);

impl Small {
    /// `None` where the tests may not mount.
    fn at(dir: PathBuf, mib: u64) -> Option<Self> {
        std::fs::create_dir_all(&dir).expect("dir");
        let size = format!("size={mib}m");
        match mount(Some("tmpfs"), &dir, Some("tmpfs"), MsFlags::empty(), Some(size.as_str())) {
            Ok(()) => Some(Self(dir)),
            Err(error) => {
                eprintln!("skipped: cannot mount a small file system ({error}); run as root");
                None
            }
        }
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Fills it up but for so many KiB.
    fn fill(&self, leave_kib: u64) {
        let stat = nix::sys::statvfs::statvfs(&self.0).expect("statvfs");
        let free = stat.blocks_available() as u64 * stat.fragment_size() as u64;
        let file = std::fs::OpenOptions::new().create(true).append(true).open(self.filler()).expect("open");
        let len = file.metadata().expect("metadata").len();
        let more = free.saturating_sub(leave_kib << 10);
        if more > 0 {
            nix::fcntl::posix_fallocate(&file, len as i64, more as i64).expect("fallocate");
        }
    }

    fn clear(&self) {
        std::fs::remove_file(self.filler()).expect("remove");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Whoever stops the cluster after this no longer finds its process.
        let text = std::fs::read(self.0.join("process.json")).unwrap_or_default();
        let pid = serde_json::from_slice::<serde_json::Value>(&text).ok().and_then(|file| file["pid"].as_i64());
        if let Some(pid) = pid {
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
        }
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn pid(local: &Local, master: &str) -> i64 {
    let status = local.status();
    let masters = status["masters"].as_array().expect("masters");
    let found = masters.iter().find(|one| one["name"] == master).expect("the master");
    found["pid"].as_i64().expect("alive")
}

async fn get(local: &Local, master: &str, path: &str) -> Result<String, String> {
    let client = local.client(master).await;
    let request = http::Request::get(path).body(Vec::new()).expect("request");
    client.request_text(request).await.map_err(|error| error.to_string())
}

async fn metric(local: &Local, master: &str, name: &str) -> f64 {
    let text = get(local, master, "/metrics").await.expect("metrics");
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} in\n{text}"));
    line.rsplit_once(' ').expect("a value").1.parse().expect("a number")
}

fn member(local: &Local, name: &str) -> serde_json::Value {
    let status: serde_json::Value =
        serde_json::from_str(&local.ok(&["cluster", "status", "-o", "json"])).expect("status is JSON");
    let members = status["members"].as_array().expect("members").clone();
    members.into_iter().find(|member| member["name"] == name).expect("the member")
}

async fn create(local: &Local, master: &str, name: &str, value: &str) -> Result<(), kube::Error> {
    let api: Api<ConfigMap> = Api::default_namespaced(local.client(master).await);
    api.create(&PostParams::default(), &config_map(name, value)).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_stepped_aside_from_until_there_is_space() {
    let dir = Local::fresh();
    let Some(small) = Small::at(dir.path().join("master-1"), 96) else { return };
    let local = Local::up_in(dir, 3, 0, &["--disk-reserve", "16MiB"]);
    let small = small;
    let before = pid(&local, "master-1");
    create(&local, "master-2", "before", "1").await.expect("create");

    small.fill(4 << 10);
    eventually("it says so", || {
        let status = local.ok(&["cluster", "status"]);
        if status.contains("master master-1 has a full disk") { Ok(()) } else { Err(status) }
    });
    eventually("another one leads", || match local.leader() {
        leader if leader == "master-1" => Err("master-1 leads"),
        _ => Ok(()),
    });
    let ready = get(&local, "master-1", "/readyz?verbose").await.expect_err("not ready");
    assert!(ready.contains("disk") || ready.contains("500"), "{ready}");
    assert_eq!(metric(&local, "master-1", "hactl_disk_full").await, 1.0);
    for number in 0..20 {
        create(&local, "master-2", &format!("meanwhile-{number}"), &"x".repeat(10_000)).await.expect("two of three");
    }
    let refused = create(&local, "master-1", "refused", "1").await.expect_err("no room");
    assert!(refused.to_string().contains("full disk"), "{refused}");
    // To the last byte.
    small.fill(0);
    for number in 20..30 {
        create(&local, "master-3", &format!("meanwhile-{number}"), &"x".repeat(10_000)).await.expect("two of three");
    }
    let behind = get(&local, "master-1", "/api/v1/configmaps").await.expect_err("what was written it does not have");
    assert!(behind.contains("full disk"), "{behind}");

    small.clear();
    local.serves("master-1").await;
    eventually("nothing is wrong with it", || {
        let member = member(&local, "master-1");
        let problems = member["problems"].as_array().expect("problems");
        if problems.iter().any(|problem| problem.to_string().contains("full disk")) {
            Err(member.to_string())
        } else {
            Ok(())
        }
    });
    create(&local, "master-1", "afterwards", "1").await.expect("create");
    let expected = everything(&local.client("master-2").await).await;
    assert_eq!(everything(&local.client("master-1").await).await, expected);
    assert_eq!(pid(&local, "master-1"), before, "the same process");

    // Started without any room it has what was set aside for that.
    local.ok(&["local", "kill", "master-1"]);
    small.fill(0);
    local.ok(&["local", "start", "master-1"]);
    eventually("it says so again", || {
        let status = local.ok(&["cluster", "status"]);
        if status.contains("master master-1 has a full disk") { Ok(()) } else { Err(status) }
    });
    small.clear();
    local.serves("master-1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_follower_costs_nothing_and_most_masters_full_refuse_by_name_until_there_is_space() {
    let dir = Local::fresh();
    let full = ["master-2", "master-3"];
    let mounted: Option<Vec<Small>> = full.iter().map(|name| Small::at(dir.path().join(name), 96)).collect();
    let Some(mounted) = mounted else { return };
    let local = Local::up_in(dir, 3, 0, &["--disk-reserve", "16MiB"]);
    let mounted = mounted;
    local.ok(&["cluster", "transfer-leadership", "master-1"]);
    let says = |name: &str, wanted: bool| {
        eventually(&format!("the status says that {name} is full: {wanted}"), || {
            let status = local.ok(&["cluster", "status"]);
            let said = status.contains(&format!("master {name} has a full disk"));
            if said == wanted { Ok(()) } else { Err(status) }
        });
    };
    let term = member(&local, "master-1")["term"].as_u64();
    let before: Vec<i64> = full.iter().map(|name| pid(&local, name)).collect();

    // A follower: the leader stays, and writes go on through it and the third.
    mounted[0].fill(4 << 10);
    says("master-2", true);
    for number in 0..20 {
        create(&local, "master-3", &format!("one-full-{number}"), &"x".repeat(10_000)).await.expect("two of three");
    }
    assert_eq!(local.leader(), "master-1");
    assert_eq!(member(&local, "master-1")["term"].as_u64(), term, "nobody was elected");

    // Most of them: whoever writes hears at once which, also of the leader, which has room itself.
    mounted[1].fill(4 << 10);
    says("master-3", true);
    for master in local.masters() {
        let refused = eventually_async(&format!("{master} refuses"), async || {
            match create(&local, &master, "refused", "1").await {
                Err(kube::Error::Api(status)) if status.code == 503 => Ok(status.message),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        assert!(refused.contains("full disk"), "{master}: {refused}");
        if master == "master-1" {
            assert!(refused.contains("master-2") && refused.contains("master-3"), "{refused}");
        }
    }
    let written = everything(&local.client("master-1").await).await;
    assert!(written.contains_key("/api/v1/configmaps default/one-full-19"), "reads go on");

    for small in &mounted {
        small.clear();
    }
    for name in full {
        says(name, false);
        local.serves(name).await;
    }
    for master in local.masters() {
        eventually_async(&format!("{master} takes writes again"), async || {
            create(&local, &master, &format!("again-{master}"), "1").await
        })
        .await;
    }
    let expected = everything(&local.client("master-1").await).await;
    for (name, pid_before) in full.into_iter().zip(before) {
        local.serves(name).await;
        eventually_async(&format!("{name} has all of it"), async || {
            let all = everything(&local.client(name).await).await;
            if all == expected { Ok(()) } else { Err(format!("{} of {} objects", all.len(), expected.len())) }
        })
        .await;
        assert_eq!(pid(&local, name), pid_before, "the same process");
    }
}

/// Text that does not compress.
fn noise(len: usize) -> String {
    let mut random = rand::random::<u64>() | 1;
    let letters = std::iter::repeat_with(|| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        char::from(b'0' + (random % 64) as u8)
    });
    letters.filter(char::is_ascii_alphanumeric).take(len).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_in_the_middle_of_a_write_loses_nothing_acknowledged() {
    let dir = Local::fresh();
    let Some(small) = Small::at(dir.path().join("master-1"), 128) else { return };
    // The watermark is too low to be met in time.
    let local = Local::up_in(dir, 1, 0, &["--disk-reserve", "1MiB"]);
    let small = small;
    let before = pid(&local, "master-1");
    let mut acknowledged = Vec::new();
    let mut refusals = 0;
    for round in 0..2 {
        small.fill(8 << 10);
        for number in 0..60 {
            let name = format!("thing-{round}-{number}");
            match create(&local, "master-1", &name, &noise(400_000)).await {
                Ok(()) => acknowledged.push(name),
                Err(_) => {
                    refusals += 1;
                    break;
                }
            }
        }
        assert_eq!(pid(&local, "master-1"), before, "the process stays up");
        small.clear();
        local.serves("master-1").await;
        eventually_async("it takes writes again", async || {
            create(&local, "master-1", &format!("again-{round}"), "1").await
        })
        .await;
    }
    assert!(refusals > 0, "the disk was never full");
    let client = local.client("master-1").await;
    let all = everything(&client).await;
    for name in &acknowledged {
        assert!(all.contains_key(&format!("/api/v1/configmaps default/{name}")), "{name} was acknowledged");
    }
    // And from disk.
    local.ok(&["local", "kill", "master-1"]);
    local.ok(&["local", "start", "master-1"]);
    local.serves("master-1").await;
    let client = local.client("master-1").await;
    assert!(everything(&client).await.len() >= all.len());
}

/// Compiles the shim and has every process below `dir` use it.
pub fn with_shim(dir: &Path) -> Vec<(String, String)> {
    let library = dir.join("slowsync.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/slowsync.c");
    let compiled =
        Command::new("cc").args(["-shared", "-fPIC", "-O2", "-o"]).arg(&library).args([source, "-ldl"]).status();
    assert!(compiled.expect("a C compiler").success());
    vec![("LD_PRELOAD".to_owned(), library.display().to_string()), ("DISK_SHIM".to_owned(), dir.display().to_string())]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_disk_is_said_and_costs_nobody_an_election() {
    let dir = Local::fresh();
    let environment = with_shim(dir.path());
    let local = Local::up_with_environment(dir, 3, 0, &["--disk-slow", "200ms"], environment);
    let leader = local.leader();
    let term = member(&local, &leader)["term"].as_u64().expect("a term");
    let slow = |names: &[String]| {
        for name in names {
            std::fs::write(local.dir().join(name).join("sync-ms"), "500").expect("write");
        }
    };
    // One, which happens to lead; then all.
    for (round, names) in [vec![leader.clone()], local.masters()].iter().enumerate() {
        slow(names);
        let writes = (0..15).map(|number| {
            let (local, leader) = (&local, &leader);
            async move { create(local, leader, &format!("slow-{round}-{number}"), "1").await.expect("slow, but done") }
        });
        let writes: Vec<_> = writes.collect();
        for write in writes {
            write.await;
        }
        assert_eq!(local.leader(), leader, "round {round}");
        assert_eq!(member(&local, &leader)["term"].as_u64(), Some(term), "no election in round {round}");
    }
    for name in local.masters() {
        eventually("it says so", || {
            let member = member(&local, &name);
            let said = member["problems"].to_string().contains("has a slow disk");
            let figure = member["disk"]["syncP50Us"].as_u64().unwrap_or_default();
            if said && figure >= 500_000 { Ok(()) } else { Err(member.to_string()) }
        });
        eventually_async("so do its metrics", async || {
            match metric(&local, &name, "hactl_disk_sync_median_seconds").await {
                median if median >= 0.5 => Ok(()),
                median => Err(median),
            }
        })
        .await;
        assert!(metric(&local, &name, "hactl_raft_fsync_seconds_count").await > 0.0);
    }
    // What else is synced waits for the disk too, and keeps no heartbeat waiting: keys that masters give each other, asked for
    // at a follower.
    let follower = local.masters().into_iter().find(|name| *name != leader).expect("a follower");
    local.ok(&["cluster", "secrets", "rotate-key", "--context", &follower]);
    assert_eq!(member(&local, &leader)["term"].as_u64(), Some(term));
}

/// Cuts every file that is only appended to back to what its last sync covered.
fn lose_power(data_dir: &Path) -> u64 {
    let mut lost = 0;
    for entry in std::fs::read_dir(data_dir.join("synced")).expect("synced").flatten() {
        let path = data_dir.join(entry.file_name().to_string_lossy().replace(':', "/"));
        let synced: u64 = std::fs::read_to_string(entry.path()).expect("a length").parse().expect("a number");
        let Ok(file) = std::fs::OpenOptions::new().write(true).open(&path) else { continue };
        let len = file.metadata().expect("metadata").len();
        if len > synced {
            lost += len - synced;
            file.set_len(synced).expect("truncate");
        }
    }
    lost
}

#[tokio::test(flavor = "multi_thread")]
async fn all_masters_lose_power_at_once_and_nothing_acknowledged() {
    let dir = Local::fresh();
    let environment = with_shim(dir.path());
    let local = Local::up_with_environment(dir, 3, 0, &[], environment);
    let masters = local.masters();
    for name in &masters {
        std::fs::create_dir(local.dir().join(name).join("synced")).expect("dir");
    }
    let pids: Vec<i64> = masters.iter().map(|name| pid(&local, name)).collect();
    let mut writers = Vec::new();
    for (at, name) in masters.iter().enumerate() {
        let api: Api<ConfigMap> = Api::default_namespaced(local.client(name).await);
        writers.push(tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for number in 0.. {
                let name = format!("w{at}-{number}");
                match api.create(&PostParams::default(), &config_map(&name, &"x".repeat(2000))).await {
                    Ok(_) => acknowledged.push(name),
                    Err(_) => break,
                }
            }
            acknowledged
        }));
    }
    let some: Api<ConfigMap> = Api::default_namespaced(local.client(&masters[0]).await);
    eventually_async("some are written", async || match some.get_opt("w1-40").await {
        Ok(Some(_)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    for pid in pids {
        kill(Pid::from_raw(pid as i32), Signal::SIGKILL).expect("kill");
    }
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged
            .extend(tokio::time::timeout(Duration::from_secs(60), writer).await.expect("ends").expect("no panic"));
    }
    eventually("all are dead", || {
        let status = local.status();
        let alive = status["masters"].as_array().expect("masters").iter().any(|master| !master["pid"].is_null());
        if alive { Err(status.to_string()) } else { Ok(()) }
    });
    for name in &masters {
        lose_power(&local.dir().join(name));
    }
    for name in &masters {
        local.ok(&["local", "start", name]);
    }
    for name in &masters {
        local.serves(name).await;
        let all = everything(&local.client(name).await).await;
        for object in &acknowledged {
            assert!(all.contains_key(&format!("/api/v1/configmaps default/{object}")), "{object} on {name}");
        }
    }
    assert!(acknowledged.len() > 40);
}
