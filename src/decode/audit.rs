//! The kernel's audit trail, as auditd writes it, as the kernel multicasts it and as the process connector's records are
//! written here: lines that belong together are joined, then told record by record and by their meaning.

mod event;
mod join;
mod line;
mod login;
mod meaning;
pub mod process;
mod socket;
mod table;

#[cfg(test)]
mod tests;

use jiff::Timestamp;

use crate::decode::audit::event::Story;
use crate::decode::audit::join::{Join, Joined};
use crate::decode::audit::process::{Lookup, Processes, Program};
use crate::decode::{DecodeError, Decoder, Surroundings};
use crate::event::Event;
use crate::event::field::{self, Fields};
use crate::event::logsource::LogSources;
use crate::record::{Range, Record};

pub use table::type_name;

/// The type of the records that the process connector's source writes: a program that was started, with its parent.
pub const PROC_EXEC: &str = "PROC_EXEC";
/// Bytes of the raw text of an event of several records.
const RAW_MAX: usize = 64 << 10;

/// Reads one stream of the trail.
pub struct Audit {
    join: Join,
    processes: Processes,
    /// Asks the running system for parents that the trail never named.
    lookup: Option<Lookup>,
    whole: Vec<Joined>,
    raw: Vec<u8>,
}

impl Audit {
    pub fn new(around: &Surroundings) -> Self {
        Self {
            join: Join::default(),
            processes: Processes::default(),
            lookup: around.processes.clone(),
            whole: Vec::new(),
            raw: Vec::new(),
        }
    }

    /// Returns whether a record is a line of the trail.
    pub fn knows(record: &[u8]) -> bool {
        line::read(record).is_some()
    }

    fn tell(&mut self, fields: &Fields, emit: &mut dyn FnMut(&Event<'_>)) {
        for joined in std::mem::take(&mut self.whole) {
            let story = Story::of(&joined);
            if let Some(facts) = story.record(PROC_EXEC.as_bytes()) {
                self.processes_seen(facts.number(b"pid"), &story);
                story.tell_started(emit);
                continue;
            }
            story.tell_records(fields, emit);
            if let [only] = story.records.as_slice()
                && only.kind != b"SYSCALL"
            {
                continue;
            }
            let parent = self.follow(&story);
            let parent = parent.as_ref().map(|p| (&*p.image, &*p.command));
            self.raw.clear();
            for facts in &story.records {
                if self.raw.len().saturating_add(facts.raw.len()) > RAW_MAX {
                    break;
                }
                if !self.raw.is_empty() {
                    self.raw.push(b'\n');
                }
                self.raw.extend_from_slice(facts.raw);
            }
            story.tell_meaning(&self.raw, parent, emit);
        }
    }

    fn processes_seen(&mut self, pid: Option<u32>, story: &Story<'_>) {
        let Some(facts) = story.record(PROC_EXEC.as_bytes()) else {
            return;
        };
        if let (Some(pid), Some(exe)) = (pid, facts.get(b"exe")) {
            let command = facts.get(b"cmdline").unwrap_or_default();
            self.processes.started(pid, &exe, &command);
        }
    }

    /// Keeps the table of processes, and returns the parent of a program that was started.
    fn follow(&mut self, story: &Story<'_>) -> Option<Program> {
        let caller = story.caller()?;
        let pid = caller.number(b"pid")?;
        if caller.get(b"success").is_some_and(|said| &*said == b"no") {
            return None;
        }
        match story.call? {
            b"execve" | b"execveat" => {
                let parent = self.parent(story, caller.number(b"ppid"));
                let exe = caller.get(b"exe").unwrap_or_default();
                let image = exe.strip_suffix(b" (deleted)").unwrap_or(&exe);
                self.processes.started(pid, image, &story.command_line());
                parent
            }
            b"fork" | b"vfork" | b"clone" | b"clone3" => {
                if let Some(child) = caller.number(b"exit") {
                    self.processes.forked(pid, child);
                }
                None
            }
            b"exit_group" => {
                self.processes.ended(pid);
                None
            }
            _ => None,
        }
    }

    /// The parent as the source saw it at once, as the trail told it before, or as the system has it now.
    fn parent(&self, story: &Story<'_>, ppid: Option<u32>) -> Option<Program> {
        let caller = story.caller()?;
        let seen = story.record(b"EXECVE").unwrap_or(caller);
        if let Some(image) = seen.get(b"ppexe") {
            return Some(Program {
                image: (*image).into(),
                command: (*seen.get(b"ppcmd").unwrap_or_default()).into(),
            });
        }
        let ppid = ppid?;
        let known = self.processes.get(ppid).cloned();
        known.or_else(|| self.lookup.as_ref()?(ppid, story.time?))
    }
}

impl Decoder for Audit {
    fn decode(
        &mut self,
        record: &Record,
        fields: &Fields,
        emit: &mut dyn FnMut(&Event<'_>),
    ) -> Result<(), DecodeError> {
        let Some(line) = line::read(&record.bytes) else {
            let mut event = Event::new(&record.bytes);
            event.logsources = LogSources::of(Some("linux"), &[], &["auditd"]);
            if record.cut {
                event.set(field::DECODE_MARKS, "cut");
            }
            emit(&event);
            return Err(DecodeError::Foreign {
                what: "a record of the audit trail",
            });
        };
        self.join.take(record, &line, &mut self.whole);
        self.tell(fields, emit);
        Ok(())
    }

    fn flush(&mut self, now: Timestamp, fields: &Fields, emit: &mut dyn FnMut(&Event<'_>)) {
        self.join.tick(now, &mut self.whole);
        self.tell(fields, emit);
    }

    fn held(&self) -> &[Range] {
        self.join.held()
    }
}
