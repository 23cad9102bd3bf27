//! A centre and agents as real processes in a temporary folder, on loopback.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// What a person would still call "at once" on two busy cores.
pub const SOON: Duration = Duration::from_secs(30);

pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_canhgac"))
}

/// Waits until `check` gives something; panics with `what` at the deadline.
pub fn wait_for<T>(what: &str, deadline: Duration, mut check: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + deadline;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < until, "waited {deadline:?} for {what}");
        // A poll of another process: nothing here can wake us.
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// One process; killed when dropped.
pub struct Process {
    child: Child,
    pub log: PathBuf,
}

impl Process {
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Self {
            child,
            log: log.to_owned(),
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// kill -9, and the process is gone when this returns.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// SIGTERM; returns the exit status.
    pub fn stop(&mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        let done = Command::new("kill").args(["-TERM", &id]).status().unwrap();
        assert!(done.success());
        wait_for("the process to end", SOON, || {
            self.child.try_wait().unwrap()
        })
        .code()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A folder with a centre's and an agent's configuration.
pub struct Site {
    pub folder: TempDir,
    pub agents_port: u16,
    pub people_port: u16,
    pub centre_metrics_port: u16,
    pub agent_metrics_port: u16,
}

impl Site {
    pub fn new() -> Self {
        let site = Self {
            folder: tempfile::tempdir().unwrap(),
            agents_port: free_port(),
            people_port: free_port(),
            centre_metrics_port: free_port(),
            agent_metrics_port: free_port(),
        };
        fs::create_dir(site.path("logs")).unwrap();
        fs::create_dir(site.path("rules")).unwrap();
        let centre = format!(
            "data: {data}\nagents_listen: 127.0.0.1:{agents}\npeople_listen: 127.0.0.1:{people}\nmetrics_listen: 127.0.0.1:{metrics}\nnames: [localhost, 127.0.0.1]\n",
            data = site.path("centre").display(),
            agents = site.agents_port,
            people = site.people_port,
            metrics = site.centre_metrics_port,
        );
        fs::write(site.path("centre.yaml"), centre).unwrap();
        site
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn log_file(&self, name: &str) -> PathBuf {
        self.path("logs").join(name)
    }

    pub fn profile(&self) -> PathBuf {
        self.path("centre/profile.yaml")
    }

    pub fn rule(&self, name: &str, text: &str) {
        fs::write(self.path("rules").join(name), text).unwrap();
    }

    /// Writes agent.yaml: every file under logs/*.log, read from its beginning; `more` is YAML at the top level.
    pub fn agent_config(&self, more: &str) -> PathBuf {
        let path = self.path("agent.yaml");
        let text = format!(
            "state: {state}\nhost: web1\nzone: UTC\nrules: [{rules}]\nbuiltin_rules: false\nmetrics_listen: 127.0.0.1:{metrics}\nsources:\n  file:\n    - path: {logs}/*.log\n      from: begin\n{more}",
            state = self.path("agent").display(),
            rules = self.path("rules").display(),
            metrics = self.agent_metrics_port,
            logs = self.path("logs").display(),
        );
        fs::write(&path, text).unwrap();
        path
    }

    pub fn start_centre(&self) -> Process {
        let mut centre = Process::start(
            Command::new(binary())
                .args(["centre", "--config"])
                .arg(self.path("centre.yaml")),
            &self.path("centre.out"),
        );
        let port = self.centre_metrics_port;
        wait_for("the centre to be ready", SOON, || {
            assert!(centre.is_running(), "{}", centre.log_text());
            http_get(port, "/readyz").filter(|answer| answer.starts_with("HTTP/1.1 200"))
        });
        centre
    }

    pub fn start_agent(&self) -> Process {
        Process::start(
            Command::new(binary())
                .args(["agent", "--config"])
                .arg(self.path("agent.yaml")),
            &self.path("agent.out"),
        )
    }

    pub fn token(&self, args: &[&str]) -> String {
        let out = self.run(&[&["token", "create", "--agency", "hcm/so-y-te"], args].concat());
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    pub fn enrol(&self) {
        let token = self.token(&["--uses", "1"]);
        let out = self.enrol_with(&token);
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
    }

    pub fn enrol_with(&self, token: &str) -> Output {
        let url = format!("https://127.0.0.1:{}", self.people_port);
        let state = self.path("agent");
        let state = state.to_str().unwrap();
        self.run(&[
            "enrol", "--centre", &url, "--token", token, "--state", state,
        ])
    }

    /// Runs the binary with this site's profile.
    pub fn run(&self, args: &[&str]) -> Output {
        Command::new(binary())
            .args(args)
            .env("CANHGAC_PROFILE", self.profile())
            .env("HOME", self.folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Whether `is_so` becomes true before the deadline.
    pub fn settles(&self, deadline: Duration, is_so: impl Fn(&Self) -> bool) -> bool {
        let until = Instant::now() + deadline;
        while !is_so(self) {
            if Instant::now() > until {
                return false;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        true
    }

    /// Every alert at the centre, by pages as a person's tool would read them.
    pub fn alerts(&self, filters: &[&str]) -> Vec<Value> {
        let mut args = vec!["alerts", "list", "--output", "json", "--limit", "1000000"];
        args.extend_from_slice(filters);
        let out = self.run(&args);
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        out.stdout
            .lines()
            .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
            .collect()
    }

    /// Waits until the centre has so many. Before the first one an agent may not have looked for its files yet, and
    /// what is rotated away before that was never there for it.
    pub fn wait_for_alerts(&self, count: usize) {
        wait_for("the alerts", SOON * 2, || {
            let stored = self.metric(self.centre_metrics_port, "canhgac_centre_alerts_total");
            (stored >= count as f64).then_some(())
        });
    }

    pub fn metric(&self, port: u16, name: &str) -> f64 {
        let text = http_get(port, "/metrics").unwrap_or_default();
        text.lines()
            .filter(|line| line.split(['{', ' ']).next() == Some(name))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

/// A plain HTTP request to loopback; `None` while nobody listens.
pub fn http_get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Counts how often each value of a field of the alerts stands.
pub fn tally(alerts: &[Value], of: impl Fn(&Value) -> String) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for alert in alerts {
        *counts.entry(of(alert)).or_default() += alert["count"].as_u64().unwrap_or(1);
    }
    counts
}

pub fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// As logrotate does without `copytruncate`; `number` names the rotated file.
pub fn rotate_by_rename(path: &Path, number: usize) {
    fs::rename(path, rotated(path, number)).unwrap();
    File::create(path).unwrap();
}

/// As logrotate does with `copytruncate`.
pub fn rotate_by_copy(path: &Path, number: usize) {
    fs::copy(path, rotated(path, number)).unwrap();
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(0).unwrap();
}

fn rotated(path: &Path, number: usize) -> PathBuf {
    path.with_extension(format!("log.{number}"))
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    let out = Command::new("id").arg("-u").output().unwrap();
    out.stdout == b"0\n"
}

/// A test that can't run here says so, loudly; where everything has to be there it fails.
pub fn skip(why: &str) {
    assert!(std::env::var("CI").is_err(), "{why}");
    eprintln!("SKIPPED: {why}");
}

impl Site {
    /// One line of /metrics, by its name with its labels.
    pub fn sample(&self, port: u16, name: &str) -> Option<f64> {
        let text = http_get(port, "/metrics")?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse().ok()
    }

    /// The binary as a user without rights, who owns the site's folder and has his home there.
    pub fn unprivileged(&self) -> Command {
        if !is_root() {
            let mut command = Command::new(binary());
            command.env("HOME", self.folder.path());
            return command;
        }
        // The build's folder may be closed to others.
        let copy = self.path("canhgac");
        if !copy.exists() {
            fs::copy(binary(), &copy).unwrap();
        }
        let owned = Command::new("chown")
            .args(["-R", "65534:65534"])
            .arg(self.folder.path())
            .status();
        assert!(owned.unwrap().success());
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(copy)
            .env("HOME", self.folder.path());
        command
    }

    /// Replaces a line of agent.yaml, found by its key.
    pub fn change_agent(&self, key: &str, line: &str) {
        let path = self.path("agent.yaml");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.lines().any(|line| line.starts_with(key)), "{text}");
        let changed: Vec<&str> = text
            .lines()
            .map(|old| if old.starts_with(key) { line } else { old })
            .collect();
        fs::write(&path, changed.join("\n") + "\n").unwrap();
    }

    /// The only agent of the centre, as `agents list` tells it.
    pub fn agent(&self) -> Value {
        let out = self.run(&["agents", "list", "--output", "json"]);
        assert!(out.status.success(), "{}", said(&out));
        serde_json::from_slice(&out.stdout).unwrap()
    }

    /// Waits until the agent serves its metrics.
    pub fn wait_for_agent(&self, agent: &mut Process) {
        wait_for("the agent to run", SOON, || {
            assert!(agent.is_running(), "{}", agent.log_text());
            http_get(self.agent_metrics_port, "/metrics")
        });
    }
}

/// All that a command wrote to stderr.
pub fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// Sends a signal by its name.
pub fn signal(process: &Process, name: &str) {
    let id = process.id().to_string();
    let sent = Command::new("kill").args([name, &id]).status().unwrap();
    assert!(sent.success());
}

/// Waits for a process to end by itself; returns its exit status.
pub fn ended(process: &mut Process) -> Option<i32> {
    let status = wait_for("the process to end", SOON, || {
        process.child.try_wait().unwrap()
    });
    status.code()
}
