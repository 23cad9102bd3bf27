//! Programs that are started, by the process connector: a fallback where there is no audit trail. It says that a process
//! began another program, not with what arguments: those are read from /proc, and a program that ended meanwhile is
//! counted and not seen. Its records are lines of their own type in the audit trail's form.

use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use jiff::Timestamp;
use nix::unistd::{Uid, User};
use serde::Deserialize;
use tracing::{info, warn};

use crate::decode::Format;
use crate::decode::audit::PROC_EXEC;
use crate::metrics::AgentMetrics;
use crate::record::SourceId;
use crate::source::audit::Batch;
use crate::source::capture::tally::Tally;
use crate::source::netlink::{Group, Heard, Listener};
use crate::source::{Health, Outlet, Resume, Source, SourceError, Stop, Stream};

/// Programs started on this host.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Bytes that the kernel keeps for us.
    pub buffer: usize,
}

impl Default for Config {
    /// 16 MiB: with the system's 208 KiB two hundred starts at once were too many.
    fn default() -> Self {
        Self { buffer: 16 << 20 }
    }
}

/// The label of metrics.
pub const KIND: &str = "process";
/// Bytes kept of a command line; the kernel allows 128 KiB for one argument.
const COMMAND_MAX: u64 = 32 << 10;
/// A connector message with a process event is smaller.
const MESSAGE_MAX: usize = 1024;

// include/uapi/linux/cn_proc.h
const CN_IDX_PROC: u32 = 1;
const LISTEN: u32 = 1;
const EXEC: u32 = 2;

/// What /proc says of a running process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Process {
    pub image: Vec<u8>,
    /// Arguments joined by spaces.
    pub command: Vec<u8>,
    pub directory: Vec<u8>,
    pub parent: u32,
    pub uid: u32,
}

/// Returns what /proc says of a process, if it still runs and may be looked at.
pub fn look(pid: u32) -> Option<Process> {
    let folder = format!("/proc/{pid}");
    let image = fs::read_link(format!("{folder}/exe")).ok()?;
    let mut command = Vec::new();
    let file = fs::File::open(format!("{folder}/cmdline")).ok()?;
    file.take(COMMAND_MAX).read_to_end(&mut command).ok()?;
    while command.last() == Some(&0) {
        command.pop();
    }
    for byte in &mut command {
        if *byte == 0 {
            *byte = b' ';
        }
    }
    let directory = fs::read_link(format!("{folder}/cwd")).unwrap_or_default();
    let stat = fs::read_to_string(format!("{folder}/stat")).ok()?;
    // `PID (NAME) STATE PPID …`, where the name may hold brackets (proc(5)).
    let behind = stat.rsplit_once(')')?.1;
    let parent = behind.split_ascii_whitespace().nth(1)?.parse().ok()?;
    let image = image.as_os_str().as_bytes();
    Some(Process {
        image: image.strip_suffix(b" (deleted)").unwrap_or(image).to_vec(),
        command,
        directory: directory.as_os_str().as_bytes().to_vec(),
        parent,
        uid: fs::metadata(&folder).ok()?.uid(),
    })
}

impl Process {
    /// Appends `ppexe=… ppcmd=…`, as the decoder of the trail reads them.
    pub fn write_as_parent(&self, line: &mut Vec<u8>) {
        write(line, "ppexe", &self.image);
        line.push(b' ');
        write(line, "ppcmd", &self.command);
    }
}

/// Appends `key=` and the value in hexadecimal, as the trail writes what may hold any byte.
fn write(line: &mut Vec<u8>, key: &str, value: &[u8]) {
    line.extend_from_slice(key.as_bytes());
    line.push(b'=');
    for byte in value {
        line.extend_from_slice(format!("{byte:02X}").as_bytes());
    }
}

/// Hears of started programs.
pub struct Processes {
    config: Config,
    metrics: AgentMetrics,
}

impl Processes {
    pub fn new(config: &Config, metrics: &AgentMetrics) -> Self {
        Self {
            config: config.clone(),
            metrics: metrics.clone(),
        }
    }
}

fn id() -> SourceId {
    SourceId::new("process:connector")
}

impl Source for Processes {
    fn name(&self) -> String {
        id().to_string()
    }

    fn run(
        self: Box<Self>,
        from: Resume,
        out: &Outlet,
        stop: &Stop,
        health: &Health,
    ) -> Result<(), SourceError> {
        let mut tally = Tally::new(id(), KIND, &self.metrics, health);
        let opened = Listener::open(Group::Processes, self.config.buffer)
            .and_then(|listener| listener.send(&subscription()).map(|()| listener));
        let listener = match opened {
            Ok(listener) => listener,
            Err(error) => {
                warn!(%error, "started programs can't be heard; the process connector needs CAP_NET_ADMIN");
                tally.fault(Some(format!("cannot hear the process connector: {error}")));
                return Ok(());
            }
        };
        info!("hearing the process connector; programs that end at once are counted, not seen");
        let stream = Arc::new(Stream {
            id: id(),
            kind: KIND,
            format: Format::Audit,
        });
        let mut batch = Batch::new(stream, from.start, out);
        let lost = self.metrics.drops.with_label_values(&[KIND, "kernel"]);
        let gone = self.metrics.drops.with_label_values(&[KIND, "ended"]);
        let mut buffer = vec![0; MESSAGE_MAX];
        let mut number = 0_u32;
        while !stop.is_set() {
            match listener.hear(&mut buffer) {
                Ok(Heard::Message { body, .. }) => {
                    if let Some(pid) = started(body) {
                        number = number.wrapping_add(1);
                        match look(pid) {
                            Some(process) => batch.add(line(pid, &process, number)),
                            None => gone.inc(),
                        }
                    }
                }
                Ok(Heard::Nothing) => {}
                Ok(Heard::Lost) => lost.inc(),
                Err(error) => {
                    tally.fault(Some(format!("cannot hear the process connector: {error}")));
                    return Ok(());
                }
            }
            batch.send_if_due(&tally)?;
        }
        batch.send(&tally)?;
        Ok(())
    }
}

/// nlmsghdr, cn_msg, and what we ask for.
fn subscription() -> Vec<u8> {
    const LENGTH: u32 = 16 + 20 + 4;
    const DONE: u16 = 3;
    let mut message = Vec::new();
    message.extend(LENGTH.to_ne_bytes());
    message.extend(DONE.to_ne_bytes());
    message.extend(0_u16.to_ne_bytes());
    for word in [0, std::process::id(), CN_IDX_PROC, 1, 0, 0] {
        message.extend(word.to_ne_bytes());
    }
    message.extend(4_u16.to_ne_bytes());
    message.extend(0_u16.to_ne_bytes());
    message.extend(LISTEN.to_ne_bytes());
    message
}

/// Returns the process of a message that says a program was started: cn_msg, then proc_event.
fn started(body: &[u8]) -> Option<u32> {
    let word = |at: usize| {
        let bytes = body.get(at..at.checked_add(4)?)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    const EVENT: usize = 20;
    let is_exec = word(0)? == CN_IDX_PROC && word(EVENT)? == EXEC;
    // what, cpu, 64 bits of time; then the thread and its process
    word(EVENT + 20).filter(|_| is_exec)
}

fn line(pid: u32, process: &Process, number: u32) -> Vec<u8> {
    let now = Timestamp::now();
    let millis = now.subsec_millisecond().max(0);
    let head = format!(
        "type={PROC_EXEC} msg=audit({}.{millis:03}:{number}): pid={pid} ppid={} uid={} ",
        now.as_second(),
        process.parent,
        process.uid,
    );
    let mut line = head.into_bytes();
    write(&mut line, "exe", &process.image);
    line.push(b' ');
    write(&mut line, "cmdline", &process.command);
    line.push(b' ');
    write(&mut line, "cwd", &process.directory);
    if let Some(parent) = look(process.parent) {
        line.push(b' ');
        parent.write_as_parent(&mut line);
    }
    let user = User::from_uid(Uid::from_raw(process.uid)).ok().flatten();
    let user = user.filter(|user| user.name.bytes().all(|b| b.is_ascii_graphic() && b != b'"'));
    if let Some(user) = user {
        line.extend_from_slice(format!("\u{1d}UID=\"{}\"", user.name).as_bytes());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_process_can_be_looked_at() {
        let own = look(std::process::id()).unwrap();
        let image = std::env::current_exe().unwrap();
        assert_eq!(own.image, image.as_os_str().as_bytes());
        assert!(!own.command.is_empty());
        assert_eq!(own.uid, Uid::current().as_raw());
        assert_eq!(look(u32::MAX), None);
        let line = String::from_utf8(line(7, &own, 1)).unwrap();
        assert!(line.starts_with("type=PROC_EXEC msg=audit("), "{line}");
    }

    #[test]
    fn only_a_started_program_is_one() {
        let event = |what: u32| {
            let mut body = Vec::new();
            for word in [CN_IDX_PROC, 1, 0, 0, 0, what, 0, 0, 0, 41, 42] {
                body.extend(word.to_ne_bytes());
            }
            body
        };
        assert_eq!(started(&event(EXEC)), Some(42));
        assert_eq!(started(&event(1)), None, "a fork");
        for length in 0..event(EXEC).len() {
            assert_eq!(started(&event(EXEC)[..length]), None);
        }
    }
}
